//! What it takes to make Stripe sell what the catalog says. Pure: the catalog and what Stripe has give a list of steps, and
//! none when the two agree.
//!
//! A product is known by its metadata, a price by the id that the catalog has for it, else by its lookup key, else by its
//! metadata. So a push that was cut anywhere finds what it had made, and makes nothing twice. Stripe's prices never change
//! (<https://docs.stripe.com/products-prices/manage-prices>): another amount is another price, to which the lookup key
//! moves, and the old one is archived. Whoever pays by the old one goes on doing so, and is still known by it, since it stays
//! in the catalog among the former ones.

mod file;
mod find;
mod import;
mod step;
#[cfg(test)]
mod tests;

pub use file::{FileError, write_assignments};
pub use import::{Imported, import};
pub use step::{NewPrice, NewProduct, PriceArchival, PriceChange, ProductChange, Step};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, CreditAllowance, Interval};
use find::Finder;

/// Metadata key of a price: the catalog's name for it.
pub const PRICE_METADATA: &str = "subledger_price";
/// Metadata key of products of plans and packs: how many credits they give.
pub const CREDITS_METADATA: &str = "credits";

/// A product as Stripe lists it (<https://docs.stripe.com/api/products>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StripeProduct {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub active: bool,
    #[serde(default)]
    pub default_price: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub created: i64,
    /// When it last changed.
    #[serde(default)]
    pub updated: i64,
}

/// A price as Stripe lists it (<https://docs.stripe.com/api/prices>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StripePrice {
    pub id: String,
    pub product: String,
    pub active: bool,
    pub currency: String,
    /// `None` for tiers and for fractions of a minor unit.
    #[serde(default)]
    pub unit_amount: Option<i64>,
    #[serde(default)]
    pub lookup_key: Option<String>,
    #[serde(default)]
    pub nickname: Option<String>,
    /// `None` for what is paid once.
    #[serde(default)]
    pub recurring: Option<Recurring>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub created: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recurring {
    pub interval: Interval,
    #[serde(default = "one")]
    pub interval_count: u32,
    /// `licensed` or `metered`.
    #[serde(default)]
    pub usage_type: Option<String>,
}

fn one() -> u32 {
    1
}

/// Everything a Stripe account sells or has sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InStripe {
    pub products: Vec<StripeProduct>,
    pub prices: Vec<StripePrice>,
}

/// What a product is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Plan(String),
    CreditPack(String),
}

impl Owner {
    /// Metadata key of its product and prices.
    pub fn metadata_key(&self) -> &'static str {
        match self {
            Self::Plan(_) => "subledger_plan",
            Self::CreditPack(_) => "subledger_credit_pack",
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Plan(id) | Self::CreditPack(id) => id,
        }
    }

    /// Whom metadata name.
    pub fn of_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let plan = metadata.get("subledger_plan").map(|id| Self::Plan(id.clone()));
        plan.or_else(|| metadata.get("subledger_credit_pack").map(|id| Self::CreditPack(id.clone())))
    }
}

/// What a price asks, and how often. In Stripe, it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    pub currency: String,
    /// In minor units.
    pub unit_amount: i64,
    /// `None` for what is paid once.
    pub every: Option<(u32, Interval)>,
}

impl Terms {
    /// Whether a price asks just this.
    fn are_those_of(&self, price: &StripePrice) -> bool {
        let every = price.recurring.as_ref().map(|recurring| (recurring.interval_count, recurring.interval));
        let usage = price.recurring.as_ref().and_then(|recurring| recurring.usage_type.as_deref());
        self.currency == price.currency
            && Some(self.unit_amount) == price.unit_amount
            && self.every == every
            && usage.is_none_or(|usage| usage == "licensed")
    }
}

/// A product that the catalog wants to be there.
#[derive(Debug)]
struct WantedProduct<'c> {
    owner: Owner,
    name: &'c str,
    /// `None`: the catalog has no opinion.
    description: Option<&'c str>,
    metadata: BTreeMap<String, String>,
    prices: Vec<WantedPrice<'c>>,
}

#[derive(Debug)]
struct WantedPrice<'c> {
    /// The catalog's own name, such as `basic.monthly`.
    id: &'c str,
    stripe_price_id: Option<&'c str>,
    /// As the catalog states it.
    lookup_key: Option<&'c str>,
    former: &'c [String],
    terms: Terms,
}

impl WantedPrice<'_> {
    /// What it is found by in Stripe when the catalog states no key.
    fn key(&self) -> &str {
        self.lookup_key.unwrap_or(self.id)
    }
}

/// The Stripe ids that the catalog should have for one of its prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// The catalog's own name, such as `basic.monthly`.
    pub price: String,
    /// `None`: the price that one of the steps makes.
    pub stripe_price_id: Option<String>,
    pub former_stripe_price_ids: Vec<String>,
}

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SyncPlan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What the catalog itself lacks.
    pub assignments: Vec<Assignment>,
}

impl SyncPlan {
    /// Stripe and the catalog agree.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.assignments.is_empty()
    }
}

/// Compares the catalog with what Stripe has.
pub fn plan(catalog: &Catalog, stripe: &InStripe) -> SyncPlan {
    let wanted = wanted(catalog);
    let finder = Finder::new(&wanted, stripe);
    let mut plan = SyncPlan::default();
    let mut archivals = Vec::new();
    let mut kept = BTreeSet::new();
    for product in &wanted {
        let found = finder.product(product);
        match found {
            None => plan.steps.push(Step::CreateProduct(NewProduct {
                owner: product.owner.clone(),
                name: product.name.to_owned(),
                description: product.description.map(str::to_owned),
                metadata: product.metadata.clone(),
            })),
            Some(found) => plan.steps.extend(ProductChange::between(product, found).map(Step::UpdateProduct)),
        }
        for price in &product.prices {
            let current = finder.current(price);
            let related = finder.related(price);
            match current {
                Some(current) => {
                    kept.insert(current.id.as_str());
                    let change = PriceChange::between(&product.owner, price, current);
                    plan.steps.extend(change.map(Step::UpdatePrice));
                }
                None => plan.steps.push(Step::CreatePrice(NewPrice {
                    price: price.id.to_owned(),
                    owner: product.owner.clone(),
                    product: found.map(|found| found.id.clone()),
                    terms: price.terms.clone(),
                    lookup_key: price.key().to_owned(),
                    replaces: related.last().map(|former| former.id.clone()),
                })),
            }
            let former = related.iter().filter(|former| current.is_none_or(|current| current.id != former.id));
            archivals.extend(former.clone().filter(|former| former.active).map(|former| (price.id, *former)));
            plan.assignments.extend(assignment(price, current, former.map(|former| former.id.as_str())));
        }
    }
    let orphans = stripe.prices.iter().filter(|price| price.active && !kept.contains(price.id.as_str()));
    let orphans = orphans.filter_map(|price| Some((price.metadata.get(PRICE_METADATA)?.as_str(), price)));
    archivals.extend(orphans);
    let mut met = BTreeSet::new();
    archivals.retain(|(_, price)| !kept.contains(price.id.as_str()) && met.insert(price.id.as_str()));
    for (name, price) in &archivals {
        plan.steps.push(Step::ArchivePrice(PriceArchival {
            stripe_price_id: price.id.clone(),
            price: (*name).to_owned(),
            is_for_sale: wanted.iter().any(|product| product.prices.iter().any(|wanted| wanted.id == *name)),
            default_of: finder.default_of(price).map(str::to_owned),
        }));
    }
    for product in stripe.products.iter().filter(|product| product.active) {
        let Some(owner) = Owner::of_metadata(&product.metadata) else { continue };
        let sells =
            |price: &&StripePrice| price.active && price.product == product.id && !met.contains(price.id.as_str());
        if !wanted.iter().any(|wanted| wanted.owner == owner) && !stripe.prices.iter().any(|price| sells(&price)) {
            plan.steps.push(Step::ArchiveProduct { product: product.id.clone(), owner });
        }
    }
    plan
}

/// Plans without a price are not for sale, so Stripe needs no product for them.
fn wanted(catalog: &Catalog) -> Vec<WantedProduct<'_>> {
    let plans = catalog.plans.iter().filter(|plan| !plan.prices.is_empty()).map(|plan| {
        let prices = plan.prices.iter().map(|price| WantedPrice {
            id: &price.id,
            stripe_price_id: price.stripe_price_id.as_deref(),
            lookup_key: price.lookup_key.as_deref(),
            former: &price.former_stripe_price_ids,
            terms: Terms {
                currency: price.currency.as_str().to_owned(),
                unit_amount: price.unit_amount,
                every: Some((price.interval_count, price.interval)),
            },
        });
        let credits = match plan.credits {
            CreditAllowance::PerPeriod(credits) => credits.to_string(),
            CreditAllowance::Unlimited => "unlimited".to_owned(),
            CreditAllowance::None => "none".to_owned(),
        };
        let owner = Owner::Plan(plan.id.clone());
        let metadata = metadata(&owner, [(CREDITS_METADATA, credits)]);
        let description = plan.description.as_deref();
        WantedProduct { owner, name: &plan.name, description, metadata, prices: prices.collect() }
    });
    let packs = catalog.credit_packs.iter().map(|pack| {
        let prices = pack.prices.iter().map(|price| WantedPrice {
            id: &price.id,
            stripe_price_id: price.stripe_price_id.as_deref(),
            lookup_key: price.lookup_key.as_deref(),
            former: &price.former_stripe_price_ids,
            terms: Terms { currency: price.currency.as_str().to_owned(), unit_amount: price.unit_amount, every: None },
        });
        let owner = Owner::CreditPack(pack.id.clone());
        let metadata = metadata(&owner, [(CREDITS_METADATA, pack.credits.to_string())]);
        WantedProduct { owner, name: &pack.name, description: None, metadata, prices: prices.collect() }
    });
    plans.chain(packs).collect()
}

fn metadata<const N: usize>(owner: &Owner, more: [(&str, String); N]) -> BTreeMap<String, String> {
    let own = (owner.metadata_key().to_owned(), owner.id().to_owned());
    std::iter::once(own).chain(more.map(|(key, value)| (key.to_owned(), value))).collect()
}

/// The metadata of a price.
fn price_metadata(owner: &Owner, price: &str) -> BTreeMap<String, String> {
    metadata(owner, [(PRICE_METADATA, price.to_owned())])
}

/// What the catalog should say of a price, unless it does.
fn assignment<'s>(
    price: &WantedPrice<'s>,
    current: Option<&StripePrice>,
    former: impl Iterator<Item = &'s str>,
) -> Option<Assignment> {
    let current = current.map(|current| current.id.as_str());
    let stated = price.former.iter().map(String::as_str);
    let mut met = BTreeSet::new();
    let all = stated.chain(former).filter(|id| Some(*id) != current && met.insert(*id));
    let all: Vec<String> = all.map(str::to_owned).collect();
    let is_stated = current.is_some() && current == price.stripe_price_id && all == price.former;
    (!is_stated).then(|| Assignment {
        price: price.id.to_owned(),
        stripe_price_id: current.map(str::to_owned),
        former_stripe_price_ids: all,
    })
}

/// The catalog with the ids that it was found to lack.
pub fn with_assignments(mut catalog: Catalog, assignments: &[Assignment]) -> Catalog {
    for assignment in assignments {
        let (id, former) = (&assignment.stripe_price_id, &assignment.former_stripe_price_ids);
        let plans = catalog.plans.iter_mut().flat_map(|plan| &mut plan.prices);
        for price in plans.filter(|price| price.id == assignment.price) {
            (price.stripe_price_id, price.former_stripe_price_ids) = (id.clone(), former.clone());
        }
        let packs = catalog.credit_packs.iter_mut().flat_map(|pack| &mut pack.prices);
        for price in packs.filter(|price| price.id == assignment.price) {
            (price.stripe_price_id, price.former_stripe_price_ids) = (id.clone(), former.clone());
        }
    }
    catalog
}
