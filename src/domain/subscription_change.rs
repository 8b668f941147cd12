//! What a subscription is to be changed to.

use super::billing_rejection::BillingRejection;
use super::catalog::{Catalog, Interval, PriceKey};
use super::money::Currency;
use super::sale::Wanted;
use super::stripe_object::{Subscription, SubscriptionItem};

/// What a caller wants otherwise; what is not said stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeTo {
    pub plan: Option<String>,
    /// A price of Stripe's, in place of plan and interval.
    pub price: Option<String>,
    pub interval: Option<Interval>,
    pub quantity: Option<i64>,
}

/// The item that the plan goes by: the only one, else that of the highest plan.
///
/// # Errors
/// [`BillingRejection::SeveralItems`] when none of several is of a plan.
pub fn main_item<'a>(
    subscription: &'a Subscription,
    catalog: &Catalog,
) -> Result<&'a SubscriptionItem, BillingRejection> {
    if let [item] = subscription.items.as_slice() {
        return Ok(item);
    }
    let ranked = subscription.items.iter().filter_map(|item| {
        let (plan, _) = catalog.plan_of_price(key_of(item))?;
        Some((plan.rank, item))
    });
    let highest = ranked.max_by_key(|(rank, _)| *rank).map(|(_, item)| item);
    highest.ok_or_else(|| BillingRejection::SeveralItems { subscription: subscription.id.clone() })
}

/// The price that is wanted; `None`: the one it has.
///
/// # Errors
/// When an interval is wanted of a price that no plan names, or a currency differs.
pub fn wanted(
    subscription: &Subscription,
    item: &SubscriptionItem,
    catalog: &Catalog,
    to: &ChangeTo,
) -> Result<Option<Wanted>, BillingRejection> {
    if let Some(price) = &to.price {
        refuse_other_currency(subscription, catalog, price)?;
        return Ok(Some(Wanted::Price(price.clone())));
    }
    if to.plan.is_none() && to.interval.is_none() {
        return Ok(None);
    }
    let current = catalog.plan_of_price(key_of(item));
    let plan = match (&to.plan, current) {
        (Some(plan), _) => plan.clone(),
        (None, Some((plan, _))) => plan.id.clone(),
        (None, None) => return Err(BillingRejection::UnknownPlan { plan: format!("of the price {}", item.price.id) }),
    };
    let interval = to.interval.or_else(|| {
        let has = |interval: &Interval| {
            catalog.plan(&plan).is_some_and(|plan| plan.prices.iter().any(|price| price.interval == *interval))
        };
        current.map(|(_, price)| price.interval).filter(has)
    });
    let currency = subscription.currency.as_deref().and_then(|code| Currency::parse(code).ok());
    Ok(Some(Wanted::Plan { plan, interval, currency }))
}

fn refuse_other_currency(subscription: &Subscription, catalog: &Catalog, price: &str) -> Result<(), BillingRejection> {
    let named = catalog.plan_of_price(PriceKey { stripe_price_id: price, lookup_key: None });
    match (named, &subscription.currency) {
        (Some((_, price)), Some(currency)) if price.currency.as_str() != currency => {
            Err(BillingRejection::CurrencyFixed { subscription: subscription.id.clone(), currency: currency.clone() })
        }
        _ => Ok(()),
    }
}

fn key_of(item: &SubscriptionItem) -> PriceKey<'_> {
    PriceKey { stripe_price_id: &item.price.id, lookup_key: item.price.lookup_key.as_deref() }
}
