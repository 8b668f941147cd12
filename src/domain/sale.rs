//! What a Checkout session sells, or a subscription changes to: found in the catalog before Stripe is asked.

use super::billing_rejection::BillingRejection;
use super::catalog::{Catalog, CreditPack, Interval, Plan, PlanPrice, PriceKey};
use super::money::Currency;

/// What a caller wants to buy or change to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Plan {
        plan: String,
        /// `None`: a month, if the plan is offered by the month, else the shortest.
        interval: Option<Interval>,
        /// `None`: the only one there is.
        currency: Option<Currency>,
    },
    /// A price of Stripe's.
    Price(String),
    CreditPack {
        pack: String,
        currency: Option<Currency>,
    },
}

/// How Stripe's price is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceRef {
    Id(String),
    /// The catalog's price has no id of Stripe's yet; `price` is the catalog's own name for it.
    LookupKey {
        lookup_key: String,
        price: String,
    },
}

/// What it is that is bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sold<'a> {
    Plan(&'a Plan, &'a PlanPrice),
    CreditPack(&'a CreditPack),
    /// A price that the catalog does not name: Stripe knows whether it recurs.
    Unnamed,
}

/// A price, and what it pays for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'a> {
    pub price: PriceRef,
    pub sold: Sold<'a>,
}

/// Finds what is wanted.
///
/// # Errors
/// A [`BillingRejection`] that says what there is instead.
pub fn offer<'a>(catalog: &'a Catalog, wanted: &Wanted) -> Result<Offer<'a>, BillingRejection> {
    match wanted {
        Wanted::Plan { plan, interval, currency } => {
            let found = catalog.plan(plan).ok_or_else(|| BillingRejection::UnknownPlan { plan: plan.clone() })?;
            let price = plan_price(found, *interval, *currency)?;
            Ok(Offer {
                price: price_ref(&price.id, &price.stripe_price_id, &price.lookup_key)?,
                sold: Sold::Plan(found, price),
            })
        }
        Wanted::CreditPack { pack, currency } => {
            let found = catalog.pack(pack);
            let found = found.ok_or_else(|| BillingRejection::UnknownCreditPack { pack: pack.clone() })?;
            let what = format!("the credit pack {pack}");
            let price =
                in_currency(&what, &found.prices.iter().collect::<Vec<_>>(), *currency, |price| price.currency)?;
            Ok(Offer {
                price: price_ref(&price.id, &price.stripe_price_id, &price.lookup_key)?,
                sold: Sold::CreditPack(found),
            })
        }
        Wanted::Price(price) => {
            if price.starts_with("prod_") {
                return Err(BillingRejection::PriceIsProduct { price: price.clone() });
            }
            let key = PriceKey { stripe_price_id: price, lookup_key: None };
            let sold = match (catalog.plan_of_price(key), catalog.pack_of_price(key)) {
                (Some((plan, price)), _) => Sold::Plan(plan, price),
                (None, Some((pack, _))) => Sold::CreditPack(pack),
                (None, None) => Sold::Unnamed,
            };
            Ok(Offer { price: PriceRef::Id(price.clone()), sold })
        }
    }
}

fn plan_price(
    plan: &Plan,
    interval: Option<Interval>,
    currency: Option<Currency>,
) -> Result<&PlanPrice, BillingRejection> {
    let what = format!("the plan {}", plan.id);
    let shortest = plan.prices.iter().map(|price| price.interval).min_by_key(|interval| length(*interval));
    let by_month = plan.prices.iter().any(|price| price.interval == Interval::Month);
    let chosen = interval.or(by_month.then_some(Interval::Month)).or(shortest);
    let Some(chosen) = chosen.filter(|_| !plan.prices.is_empty()) else {
        return Err(BillingRejection::PlanNotForSale { plan: plan.id.clone() });
    };
    let of_interval: Vec<&PlanPrice> = plan.prices.iter().filter(|price| price.interval == chosen).collect();
    if of_interval.is_empty() {
        let mut offered: Vec<Interval> = plan.prices.iter().map(|price| price.interval).collect();
        offered.sort_by_key(|interval| length(*interval));
        offered.dedup();
        let offered = offered.into_iter().map(|interval| name(interval).to_owned()).collect();
        return Err(BillingRejection::IntervalNotOffered { what, interval: name(chosen).to_owned(), offered });
    }
    in_currency(&what, &of_interval, currency, |price| price.currency)
}

/// Picks the price of a currency; without one, they must all be of the same.
fn in_currency<'a, P>(
    what: &str,
    prices: &[&'a P],
    currency: Option<Currency>,
    currency_of: impl Fn(&P) -> Currency,
) -> Result<&'a P, BillingRejection> {
    let mut offered: Vec<String> = prices.iter().map(|price| currency_of(price).as_str().to_owned()).collect();
    offered.sort();
    offered.dedup();
    let what = what.to_owned();
    match currency {
        None if offered.len() > 1 => Err(BillingRejection::CurrencyAmbiguous { what, offered }),
        None => prices.first().copied().ok_or(BillingRejection::PriceNotInStripe { price: what }),
        Some(currency) => {
            let found = prices.iter().find(|price| currency_of(price) == currency).copied();
            found.ok_or_else(|| BillingRejection::CurrencyNotOffered {
                what,
                currency: currency.as_str().to_owned(),
                offered,
            })
        }
    }
}

fn price_ref(
    price: &str,
    stripe_price_id: &Option<String>,
    lookup_key: &Option<String>,
) -> Result<PriceRef, BillingRejection> {
    let price = price.to_owned();
    match (stripe_price_id, lookup_key) {
        (Some(id), _) => Ok(PriceRef::Id(id.clone())),
        (None, Some(lookup_key)) => Ok(PriceRef::LookupKey { lookup_key: lookup_key.clone(), price }),
        (None, None) => Err(BillingRejection::PriceNotInStripe { price }),
    }
}

/// Comparable, from short to long.
fn length(interval: Interval) -> u8 {
    match interval {
        Interval::Day => 0,
        Interval::Week => 1,
        Interval::Month => 2,
        Interval::Year => 3,
    }
}

/// Stripe's word for an interval.
pub fn name(interval: Interval) -> &'static str {
    match interval {
        Interval::Day => "day",
        Interval::Week => "week",
        Interval::Month => "month",
        Interval::Year => "year",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::from_toml(include_str!("../../tests/fixtures/seller.toml")).expect("a catalog")
    }

    fn plan(plan: &str, interval: Option<Interval>, currency: Option<&str>) -> Wanted {
        let currency = currency.map(|code| Currency::parse(code).expect("a currency"));
        Wanted::Plan { plan: plan.to_owned(), interval, currency }
    }

    fn price(wanted: &Wanted) -> Result<PriceRef, BillingRejection> {
        offer(&catalog(), wanted).map(|offer| offer.price)
    }

    #[test]
    fn a_plans_price_is_found_by_interval_and_currency() {
        let id = |id: &str| Ok(PriceRef::Id(id.to_owned()));
        assert_eq!(price(&plan("starter", None, None)), id("price_1LATyAQhTzLmW4rNUy3GVgva"));
        assert_eq!(price(&plan("pro", None, Some("eur"))), id("price_1YR8TMQhTzLmW4rNN7GQ0FcH"));
        assert_eq!(price(&plan("pro", Some(Interval::Year), None)), id("price_1dPfsJQhTzLmW4rNILgGKfEF"));
    }

    #[test]
    fn what_is_not_offered_is_said_with_what_is() {
        let refused = |wanted: &Wanted| price(wanted).expect_err("not offered").to_string();
        assert!(refused(&plan("gold", None, None)).contains("no plan gold"));
        assert!(refused(&plan("free", None, None)).contains("cannot be bought"));
        assert!(refused(&plan("starter", Some(Interval::Year), None)).ends_with("offered by the month"));
        assert!(refused(&plan("pro", None, Some("gbp"))).ends_with("offered in eur, usd"));
        assert!(refused(&plan("pro", None, None)).contains("say which currency"));
        assert!(refused(&Wanted::Price("prod_1".to_owned())).contains("is a product"));
        let pack = Wanted::CreditPack { pack: "none".to_owned(), currency: None };
        assert!(refused(&pack).contains("no credit pack none"));
    }

    #[test]
    fn a_raw_price_is_known_by_what_the_catalog_says_of_it() {
        let catalog = catalog();
        let sold = |price: &str| offer(&catalog, &Wanted::Price(price.to_owned())).expect("found").sold;
        assert!(matches!(sold("price_1LATyAQhTzLmW4rNUy3GVgva"), Sold::Plan(plan, _) if plan.id == "starter"));
        assert!(matches!(sold("price_1nBDI0QhTzLmW4rNV9seGQGw"), Sold::CreditPack(pack) if pack.credits == 500));
        assert_eq!(sold("price_elsewhere"), Sold::Unnamed);
    }
}
