//! An account's subscriptions, as the ledger knows them.

use serde::de::DeserializeOwned;

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing::Kind;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::ids::AccountId;
use crate::domain::stripe_object::{Subscription, SubscriptionSchedule, subscription_goes_on};
use crate::domain::tracked::Tracked;
use crate::store::error::StoreError;
use crate::store::read;

/// Subscriptions that an account can reasonably have.
const ALL: i64 = 1_000;

/// All subscriptions that an account has had, newest first.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    all: Vec<Subscription>,
    /// The one that decides entitlements.
    deciding: Option<String>,
}

impl Subscriptions {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one of an id, else the newest.
    pub fn named_or_last(&self, named: Option<&str>) -> Option<&Subscription> {
        match named {
            Some(named) => self.all.iter().find(|subscription| subscription.id == named),
            None => self.all.first(),
        }
    }

    /// The one that goes on: that which decides entitlements, else the newest.
    pub fn live(&self) -> Option<&Subscription> {
        let decides = |subscription: &Subscription| self.deciding.as_deref() == Some(subscription.id.as_str());
        let live = self.all.iter().filter(|subscription| subscription_goes_on(&subscription.status));
        live.max_by_key(|subscription| (decides(subscription), subscription.created))
    }
}

impl Service {
    pub async fn subscriptions_of(&self, account: &AccountId) -> Result<Subscriptions, AppError> {
        let now = match self.account_now(account, 0).await {
            Err(AppError::AccountNotFound(_)) => return Ok(Subscriptions { all: Vec::new(), deciding: None }),
            now => now?,
        };
        let deciding = now.standing().subscription.map(|access| access.subscription.clone());
        Ok(Subscriptions { all: self.tracked(account, Kind::Subscription).await?, deciding })
    }

    async fn tracked<T: DeserializeOwned + Clone>(&self, account: &AccountId, kind: Kind) -> Result<Vec<T>, AppError> {
        let client = self.connection().await?;
        let objects = read::objects(&**client, account.as_str(), kind.as_str(), None, ALL).await?;
        let parsed = objects.iter().map(|object| {
            let tracked: Tracked<T> = serde_json::from_str(&object.state).map_err(StoreError::from)?;
            Ok(*tracked.current)
        });
        parsed.collect()
    }

    /// The subscription that a caller means: the one named, else the one that goes on.
    pub async fn meant_subscription(&self, account: &AccountId, named: Option<&str>) -> Result<Subscription, AppError> {
        let subscriptions = self.subscriptions_of(account).await?;
        if let Some(named) = named {
            let found = subscriptions.all.into_iter().find(|subscription| subscription.id == named);
            let found = found.ok_or_else(|| no_subscription(account))?;
            return if found.has_ended() { Err(ended(found)) } else { Ok(found) };
        }
        match (subscriptions.live(), subscriptions.all.first()) {
            (Some(live), _) => Ok(live.clone()),
            (None, Some(last)) if last.has_ended() => Err(ended(last.clone())),
            _ => Err(no_subscription(account)),
        }
    }

    /// A schedule of an account's.
    pub async fn schedule_of(
        &self,
        account: &AccountId,
        schedule: &str,
    ) -> Result<Option<SubscriptionSchedule>, AppError> {
        let schedules = self.tracked::<SubscriptionSchedule>(account, Kind::SubscriptionSchedule).await?;
        Ok(schedules.into_iter().find(|known| known.id == schedule))
    }
}

fn no_subscription(account: &AccountId) -> AppError {
    BillingRejection::NoSubscription { account: account.to_string() }.into()
}

fn ended(subscription: Subscription) -> AppError {
    BillingRejection::SubscriptionEnded { subscription: subscription.id }.into()
}
