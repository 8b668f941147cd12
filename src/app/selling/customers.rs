//! The Stripe customer that an account is.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_core::customer::{CreateCustomer, SearchCustomer};

use crate::app::accounts::AccountDetails;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing::Kind;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::stripe_object::Customer;
use crate::domain::tracked::Tracked;
use crate::store::error::StoreError;
use crate::store::{load, profiles, read};
use crate::stripe::client::{IdempotencyKey, StripeCallError};

#[derive(Debug, Deserialize)]
struct Found {
    data: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

impl Service {
    /// The customer that an account is linked to; of several, the one heard of last. `None` if there is none, or it was
    /// deleted.
    pub async fn customer_of(&self, account: &AccountId) -> Result<Option<String>, AppError> {
        if account.standing() == Ownership::Customer {
            return Ok(Some(account.as_str().to_owned()));
        }
        let client = self.connection().await?;
        let links = load::links_to(&**client, account).await?;
        let customers: Vec<String> = links.into_iter().filter(|link| link.starts_with("cus_")).collect();
        let objects = read::objects_by_id(&**client, account.as_str(), Kind::Customer.as_str(), &customers).await?;
        let mut heard_of: HashMap<String, Tracked<Customer>> = HashMap::new();
        for object in objects {
            let customer = serde_json::from_str(&object.state).map_err(StoreError::from)?;
            heard_of.insert(object.id, customer);
        }
        let is_there = |id: &String| heard_of.get(id).is_none_or(|customer| !customer.current.deleted);
        let alive = customers.into_iter().filter(is_there);
        Ok(alive.max_by_key(|id| heard_of.get(id).map(|customer| customer.observed_at)))
    }

    /// The same; where there is none, it is found at Stripe by the account's id in its metadata, or made, and linked.
    pub async fn ensure_customer(&self, account: &AccountId) -> Result<String, AppError> {
        if let Some(customer) = self.customer_of(account).await? {
            return Ok(customer);
        }
        let client = self.connection().await?;
        let email = profiles::get_profile(&**client, account).await?.email;
        let mut deleted = load::links_to(&**client, account).await?;
        deleted.retain(|link| link.starts_with("cus_"));
        drop(client);
        let customer = match self.search_customer(account).await? {
            Some(customer) => customer,
            None => self.create_customer(account, email, &deleted).await?,
        };
        let details = AccountDetails { stripe_customer_id: Some(customer.clone()), ..AccountDetails::default() };
        self.put_account(account.clone(), details).await?;
        Ok(customer)
    }

    /// One that was made before its link could be written. Stripe's search lags by a minute or so; within that, the key of
    /// the creation finds it.
    async fn search_customer(&self, account: &AccountId) -> Result<Option<String>, AppError> {
        let quoted = account.as_str().replace('\\', "\\\\").replace('"', "\\\"");
        let query = format!("metadata[\"{}\"]:\"{quoted}\"", self.account_metadata_key());
        match self.stripe_client.read::<Found>("customer.search", &SearchCustomer::new(query).limit(1)).await {
            Ok(found) => Ok(found.data.into_iter().next().map(|customer| customer.id)),
            // Stripe does not search in every country. What the search is for is rare.
            Err(StripeCallError::Refused(refusal)) if !refusal.is_our_key() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// In place of those that were deleted.
    async fn create_customer(
        &self,
        account: &AccountId,
        email: Option<String>,
        deleted: &[String],
    ) -> Result<String, AppError> {
        let mut cause = vec![account.as_str().as_bytes(), email.as_deref().unwrap_or_default().as_bytes()];
        cause.extend(deleted.iter().map(String::as_bytes));
        // Of the account, not of the caller's key: two sessions that are opened at once share it. But not of a customer that
        // is gone, or Stripe would answer with that one for a day.
        let key = IdempotencyKey::derived("customer.create", &cause);
        let mut request = CreateCustomer::new().metadata(self.metadata_of(account));
        if let Some(email) = email {
            request = request.email(email);
        }
        let made: Named = self.stripe_client.write("customer.create", &request, &key).await?.parse()?;
        Ok(made.id)
    }

    /// What tells whose an object of Stripe's is.
    pub fn metadata_of(&self, account: &AccountId) -> HashMap<String, String> {
        HashMap::from([(self.account_metadata_key().to_owned(), account.as_str().to_owned())])
    }

    fn account_metadata_key(&self) -> &str {
        self.stripe.account_metadata_keys.first().map_or("account_id", String::as_str)
    }
}
