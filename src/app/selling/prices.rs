//! Stripe's prices, as far as a sale needs to ask for them.

use serde::Deserialize;
use stripe_product::price::{ListPrice, RetrievePrice};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::catalog::PlanPrice;
use crate::domain::sale::{Offer, PriceRef, Sold, name};
use crate::stripe::client::StripeCallError;

#[derive(Debug, Deserialize)]
struct Found {
    data: Vec<StripePrice>,
}

#[derive(Debug, Deserialize)]
struct StripePrice {
    id: String,
    recurring: Option<Recurrence>,
}

/// How often a price is paid, in Stripe's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recurrence {
    pub interval: String,
    pub interval_count: i64,
}

impl Recurrence {
    fn of(price: &PlanPrice) -> Self {
        Self { interval: name(price.interval).to_owned(), interval_count: i64::from(price.interval_count) }
    }
}

impl Service {
    /// The id of an offer's price, and how often it is paid; `None`: once.
    pub async fn stripe_price(&self, offer: &Offer<'_>) -> Result<(String, Option<Recurrence>), AppError> {
        match (&offer.price, &offer.sold) {
            (PriceRef::Id(id), Sold::Plan(_, price)) => Ok((id.clone(), Some(Recurrence::of(price)))),
            (PriceRef::Id(id), Sold::CreditPack(_)) => Ok((id.clone(), None)),
            (PriceRef::Id(id), Sold::Unnamed) => {
                let retrieved = self.stripe_client.read("price.retrieve", &RetrievePrice::new(id.as_str())).await;
                let price: StripePrice = retrieved.map_err(|error| self.about_price(error.into()))?;
                Ok((price.id, price.recurring))
            }
            (PriceRef::LookupKey { lookup_key, price }, _) => {
                let request = ListPrice::new().lookup_keys(vec![lookup_key.clone()]).active(true).limit(1);
                let found: Found = self.stripe_client.read("price.list", &request).await?;
                let found = found.data.into_iter().next();
                let found = found.ok_or_else(|| BillingRejection::PriceNotInStripe { price: price.clone() })?;
                Ok((found.id, found.recurring))
            }
        }
    }

    /// Says of a refusal that is about a price what is wrong with the price.
    ///
    /// Stripe's words: "No such price: '…'", and for one of the other mode: "No such price: '…'; a similar object exists in
    /// live mode, but a test mode key was used to make this request."
    pub(super) fn about_price(&self, error: AppError) -> AppError {
        let AppError::Stripe(StripeCallError::Refused(refusal)) = &error else { return error };
        let named = refusal.message.strip_prefix("No such price: '").and_then(|rest| rest.split_once('\''));
        let Some((price, rest)) = named.filter(|_| refusal.is_missing()) else { return error };
        let price = price.to_owned();
        if rest.contains("a similar object exists in") {
            return BillingRejection::PriceOfOtherMode { price, livemode: self.stripe.livemode }.into();
        }
        BillingRejection::UnknownPrice { price }.into()
    }
}
