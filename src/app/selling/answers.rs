//! What Stripe answers a call with, taken in like a StripeEvent, so that callers read their own writes at once.
//!
//! An answer says nothing of when its state began, and our clock is not Stripe's. So it is put right after what is known
//! of the object: in the same second, following all that is known of it. Whatever Stripe tells of any later second goes before
//! it, the StripeEvent of this very change among it, which says the same.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing::Kind;
use crate::domain::ids::AccountId;
use crate::domain::stripe_object::{StripeObject, Subscription, SubscriptionSchedule};
use crate::domain::tracked::{Snapshot, Tracked};
use crate::store::error::StoreError;
use crate::store::read;
use crate::stripe::client::{StripeAnswer, StripeCallError};
use crate::stripe::translate::{self, Facts, Settings, StripeEvent};

/// What of an answer says where it belongs.
#[derive(Debug, Deserialize)]
struct Head {
    id: String,
    created: Option<i64>,
}

/// What is known of an object: the second of its newest news, and the digest of that.
type Known = Option<(i64, u32)>;

impl Service {
    /// Takes in a subscription; answers it as it is.
    pub async fn observe_subscription(
        &self,
        account: &AccountId,
        answer: &StripeAnswer,
    ) -> Result<Subscription, AppError> {
        let head: Head = answer.parse()?;
        let known = self.known::<Subscription>(account, Kind::Subscription, &head.id).await?;
        match self.observe_answer("customer.subscription.updated", head, known, answer).await? {
            StripeObject::Subscription(subscription) => Ok(subscription),
            _ => Err(unexpected("a subscription")),
        }
    }

    /// Takes in a subscription's schedule; answers it as it is.
    pub async fn observe_schedule(
        &self,
        account: &AccountId,
        answer: &StripeAnswer,
    ) -> Result<SubscriptionSchedule, AppError> {
        let head: Head = answer.parse()?;
        let known = self.known::<SubscriptionSchedule>(account, Kind::SubscriptionSchedule, &head.id).await?;
        match self.observe_answer("subscription_schedule.updated", head, known, answer).await? {
            StripeObject::SubscriptionSchedule(schedule) => Ok(schedule),
            _ => Err(unexpected("a schedule")),
        }
    }

    /// Takes in an object that is new with this answer.
    pub async fn observe_new(&self, event_type: &str, answer: &StripeAnswer) -> Result<StripeObject, AppError> {
        let head: Head = answer.parse()?;
        self.observe_answer(event_type, head, None, answer).await
    }

    async fn known<T: Snapshot + DeserializeOwned>(
        &self,
        account: &AccountId,
        kind: Kind,
        id: &str,
    ) -> Result<Known, AppError> {
        let client = self.connection().await?;
        let objects = read::objects_by_id(&**client, account.as_str(), kind.as_str(), &[id.to_owned()]).await?;
        let Some(object) = objects.into_iter().next() else { return Ok(None) };
        let tracked: Tracked<T> = serde_json::from_str(&object.state).map_err(StoreError::from)?;
        Ok(Some((tracked.observed_at, tracked.digest())))
    }

    async fn observe_answer(
        &self,
        event_type: &str,
        head: Head,
        known: Known,
        answer: &StripeAnswer,
    ) -> Result<StripeObject, AppError> {
        let now = self.clock.now().timestamp();
        let event = StripeEvent {
            id: format!("answer:{}", answer.request_id.as_deref().unwrap_or(&head.id)),
            event_type: event_type.to_owned(),
            created: known.map_or(head.created.unwrap_or(now), |(observed_at, _)| observed_at),
            livemode: self.stripe.livemode,
            api_version: None,
        };
        let settings = Settings { account_metadata_keys: &self.stripe.account_metadata_keys };
        let before = known.map(|(_, digest)| digest);
        let facts = translate::translate_answer(&event, &answer.body, before, settings);
        let facts = facts.map_err(|error| StripeCallError::Unreadable(error.to_string()))?;
        let facts = facts.ok_or_else(|| unexpected("an object that is kept"))?;
        // Done it is, whatever becomes of the observation: the StripeEvent will tell of it again.
        if let Err(error) = self.observe(&facts, None, None).await {
            tracing::warn!(%error, id = head.id, "an answer of Stripe's could not be taken in; its StripeEvent will");
        }
        first(facts).ok_or_else(|| unexpected("an object that is kept"))
    }
}

fn first(facts: Facts) -> Option<StripeObject> {
    facts.observations.into_iter().next().map(|observation| observation.object)
}

fn unexpected(wanted: &str) -> AppError {
    StripeCallError::Unreadable(format!("it is not {wanted}")).into()
}
