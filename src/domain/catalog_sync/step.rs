//! The steps that make Stripe agree with the catalog.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_with::skip_serializing_none;

use super::{Owner, StripePrice, StripeProduct, Terms, WantedPrice, WantedProduct, price_metadata};
use crate::domain::catalog::Interval;

/// One write to Stripe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    CreateProduct(NewProduct),
    UpdateProduct(ProductChange),
    CreatePrice(NewPrice),
    UpdatePrice(PriceChange),
    ArchivePrice(PriceArchival),
    ArchiveProduct { product: String, owner: Owner },
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewProduct {
    pub owner: Owner,
    pub name: String,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

/// What is not as the catalog says; `None` for what is.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProductChange {
    pub owner: Owner,
    pub product: String,
    /// When Stripe last changed it.
    pub updated: i64,
    pub name: Option<String>,
    pub description: Option<String>,
    pub active: Option<bool>,
    pub metadata: Option<BTreeMap<String, String>>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewPrice {
    /// The catalog's own name, such as `basic.monthly`.
    pub price: String,
    pub owner: Owner,
    /// `None`: the one that a step before makes.
    pub product: Option<String>,
    pub terms: Terms,
    pub lookup_key: String,
    /// The last price of this name.
    pub replaces: Option<String>,
}

/// What is not as the catalog says; `None` for what is.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceChange {
    pub price: String,
    pub stripe_price_id: String,
    pub active: Option<bool>,
    pub lookup_key: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceArchival {
    pub stripe_price_id: String,
    /// The catalog's name for it.
    pub price: String,
    /// The catalog still sells something of this name: at another price.
    pub is_for_sale: bool,
    /// The product whose default price it is.
    pub default_of: Option<String>,
}

/// Metadata keys and values that are not there.
fn lacking(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let lacking = wanted.iter().filter(|(key, value)| found.get(*key) != Some(*value));
    let lacking: BTreeMap<String, String> = lacking.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!lacking.is_empty()).then_some(lacking)
}

impl ProductChange {
    pub(super) fn between(wanted: &WantedProduct<'_>, found: &StripeProduct) -> Option<Self> {
        let description = wanted.description.filter(|description| found.description.as_deref() != Some(description));
        let change = Self {
            owner: wanted.owner.clone(),
            product: found.id.clone(),
            updated: found.updated,
            name: (wanted.name != found.name).then(|| wanted.name.to_owned()),
            description: description.map(str::to_owned),
            active: (!found.active).then_some(true),
            metadata: lacking(&wanted.metadata, &found.metadata),
        };
        let is_one = change.name.is_some()
            || change.description.is_some()
            || change.active.is_some()
            || change.metadata.is_some();
        is_one.then_some(change)
    }
}

impl PriceChange {
    pub(super) fn between(owner: &Owner, wanted: &WantedPrice<'_>, found: &StripePrice) -> Option<Self> {
        // A key that the catalog does not state may be any.
        let fits = match (wanted.lookup_key, found.lookup_key.as_deref()) {
            (Some(stated), found) => found == Some(stated),
            (None, found) => found.is_some(),
        };
        let change = Self {
            price: wanted.id.to_owned(),
            stripe_price_id: found.id.clone(),
            active: (!found.active).then_some(true),
            lookup_key: (!fits).then(|| wanted.key().to_owned()),
            metadata: lacking(&price_metadata(owner, wanted.id), &found.metadata),
        };
        let is_one = change.active.is_some() || change.lookup_key.is_some() || change.metadata.is_some();
        is_one.then_some(change)
    }
}

impl NewPrice {
    pub fn metadata(&self) -> BTreeMap<String, String> {
        price_metadata(&self.owner, &self.price)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(id) => write!(f, "plan {id}"),
            Self::CreditPack(id) => write!(f, "credit pack {id}"),
        }
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.unit_amount, self.currency)?;
        let Some((count, interval)) = self.every else { return Ok(()) };
        let interval = match interval {
            Interval::Day => "day",
            Interval::Week => "week",
            Interval::Month => "month",
            Interval::Year => "year",
        };
        if count == 1 { write!(f, " a {interval}") } else { write!(f, " every {count} {interval}s") }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateProduct(NewProduct { owner, name, .. }) => write!(f, "create the product {name:?} for {owner}"),
            Self::UpdateProduct(change) => {
                write!(f, "change the product {} of {}:", change.product, change.owner)?;
                let parts = [
                    change.name.as_ref().map(|name| format!("name {name:?}")),
                    change.description.as_ref().map(|_| "description".to_owned()),
                    change.active.map(|_| "for sale again".to_owned()),
                    change.metadata.as_ref().map(|_| "metadata".to_owned()),
                ];
                write!(f, " {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
            }
            Self::CreatePrice(NewPrice { price, terms, replaces, .. }) => {
                write!(f, "create the price {price}: {terms}")?;
                replaces.as_ref().map_or(Ok(()), |former| write!(f, ", in place of {former}"))
            }
            Self::UpdatePrice(change) => {
                write!(f, "change the price {} ({}):", change.price, change.stripe_price_id)?;
                let parts = [
                    change.active.map(|_| "for sale again".to_owned()),
                    change.lookup_key.as_ref().map(|key| format!("lookup key {key}")),
                    change.metadata.as_ref().map(|_| "metadata".to_owned()),
                ];
                write!(f, " {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
            }
            Self::ArchivePrice(PriceArchival { stripe_price_id, price, is_for_sale, .. }) => {
                let why = if *is_for_sale { "replaced" } else { "not in the catalog" };
                write!(f, "archive the price {price} ({stripe_price_id}): {why}")
            }
            Self::ArchiveProduct { product, owner } => {
                write!(f, "archive the product {product}: {owner} is not for sale")
            }
        }
    }
}
