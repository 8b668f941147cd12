//! One subscription for an account, in however many tabs its customer has Checkout open.
//!
//! Whether an account has a subscription is not for the ledger alone to say: a session that is still open may be completed
//! at any moment, and the StripeEvent of one that was may be on its way. So before anybody is given a new session, the
//! earlier ones are expired at Stripe, and then Stripe is asked what was bought. In this order nothing slips through: what
//! is not open any more shows, or will never be. And since the new session is there by then, two that are opened at the same
//! time see each other. Each step may be repeated.

use serde::Deserialize;
use stripe_billing::subscription::ListSubscription;
use stripe_checkout::checkout_session::{ExpireCheckoutSession, ListCheckoutSession, RetrieveCheckoutSession};
use stripe_shared::CheckoutSessionStatus;

use super::errand::Errand;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::stripe_object::subscription_goes_on;
use crate::stripe::client::{IdempotencyKey, StripeCallError};
use crate::stripe::listing::{List, PAGE};

#[derive(Debug, Deserialize)]
struct OpenSession {
    id: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
struct RetrievedSession {
    status: Option<String>,
    subscription: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ListedSubscription {
    id: String,
    status: String,
}

impl Service {
    /// Leaves `session` the only one that a customer can subscribe by. Where that is too late, it is expired itself.
    pub(super) async fn supersede_earlier_sessions(
        &self,
        errand: &Errand,
        customer: &str,
        session: &str,
    ) -> Result<(), AppError> {
        let mut bought = None;
        for earlier in self.earlier_sessions(customer, session).await? {
            bought = self.expire_session(errand, &earlier).await?.or(bought);
        }
        let bought = match bought {
            Some(subscription) => Some(subscription),
            None => self.subscription_at_stripe(customer).await?,
        };
        let Some(subscription) = bought else { return Ok(()) };
        self.expire_session(errand, session).await?;
        Err(BillingRejection::SubscriptionExists { subscription }.into())
    }

    /// The customer's open sessions that were opened before `session` and would begin a subscription.
    async fn earlier_sessions(&self, customer: &str, session: &str) -> Result<Vec<String>, AppError> {
        // By its place in Stripe's list, which is newest first: times are whole seconds.
        let mut is_earlier = false;
        let mut earlier = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut request =
                ListCheckoutSession::new().customer(customer).status(CheckoutSessionStatus::Open).limit(PAGE);
            if let Some(after) = after {
                request = request.starting_after(after);
            }
            let page: List<OpenSession> = self.stripe_client.read("checkout_session.list", &request).await?;
            after = page.data.last().map(|last| last.id.clone());
            for open in page.data {
                if open.id == session {
                    is_earlier = true;
                } else if is_earlier && open.mode == "subscription" {
                    earlier.push(open.id);
                }
            }
            if !page.has_more || after.is_none() {
                return Ok(earlier);
            }
        }
    }

    /// Answers the subscription that the session began, if it was completed before it could be expired.
    async fn expire_session(&self, errand: &Errand, session: &str) -> Result<Option<String>, AppError> {
        let key = IdempotencyKey::derived("checkout_session.expire", &[errand.key.key.as_bytes(), session.as_bytes()]);
        let expire = ExpireCheckoutSession::new(session);
        let refusal = match self.stripe_client.write("checkout_session.expire", &expire, &key).await {
            Err(StripeCallError::Refused(refusal)) => refusal,
            expired => return Ok(expired.map(|_| None)?),
        };
        let retrieve = RetrieveCheckoutSession::new(session);
        let session: RetrievedSession = self.stripe_client.read("checkout_session.retrieve", &retrieve).await?;
        match session.status.as_deref() {
            Some("complete") => Ok(session.subscription),
            Some("expired") => Ok(None),
            _ => Err(StripeCallError::Refused(refusal).into()),
        }
    }

    /// A subscription of the customer that goes on, as Stripe knows it.
    async fn subscription_at_stripe(&self, customer: &str) -> Result<Option<String>, AppError> {
        let request = ListSubscription::new().customer(customer).limit(PAGE);
        let list: List<ListedSubscription> = self.stripe_client.read("subscription.list", &request).await?;
        let live = list.data.into_iter().find(|subscription| subscription_goes_on(&subscription.status));
        Ok(live.map(|subscription| subscription.id))
    }
}
