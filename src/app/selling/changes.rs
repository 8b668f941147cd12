//! Changes of a subscription: its end, its price and quantity, its collection, its discounts.
//!
//! <https://docs.stripe.com/api/subscriptions>, <https://docs.stripe.com/api/subscription_schedules>

use serde::Deserialize;
use stripe_billing::subscription::{
    CancelSubscription, DiscountsDataParam, RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems,
    UpdateSubscriptionPauseCollection, UpdateSubscriptionPauseCollectionBehavior, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};
use stripe_billing::subscription_schedule::ReleaseSubscriptionSchedule;
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_product::promotion_code::ListPromotionCode;

use super::errand::{Errand, built};
use super::prices::Recurrence;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::ids::AccountId;
use crate::domain::sale::offer;
use crate::domain::stripe_object::{Subscription, SubscriptionItem, SubscriptionSchedule};
use crate::domain::stripe_outcome::StripeOutcome;
use crate::domain::subscription_change::{ChangeTo, main_item, wanted};
use crate::stripe::client::{StripeAnswer, StripeCallError};

/// What becomes of the rest of a period that is paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proration {
    /// The difference is invoiced and paid at once.
    #[default]
    AlwaysInvoice,
    /// The difference is on the next invoice.
    CreateProrations,
    /// There is none.
    None,
}

/// When a change comes into force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    #[default]
    Now,
    PeriodEnd,
}

/// How a subscription is to be changed.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    pub to: ChangeTo,
    pub when: When,
    pub proration: Proration,
    /// Unix second to prorate from; `None`: when Stripe does it.
    pub proration_date: Option<i64>,
}

/// What is done with invoices while collection is paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseBehavior {
    #[default]
    Void,
    KeepAsDraft,
    MarkUncollectible,
}

/// The item that a change is about, and what it becomes.
#[derive(Debug, Clone)]
pub(super) struct ItemChange {
    pub subscription: Subscription,
    pub item: SubscriptionItem,
    /// A price of Stripe's, and how often it is paid.
    pub price: String,
    pub recurrence: Option<Recurrence>,
    pub quantity: u64,
}

#[derive(Debug, Deserialize)]
struct Found {
    data: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

impl Service {
    /// Ends a subscription, at the end of its period or now. A change that waits for the period's end is given up.
    pub async fn cancel_subscription(
        &self,
        errand: &Errand,
        named: Option<&str>,
        at_period_end: bool,
    ) -> Result<StripeOutcome, AppError> {
        if !at_period_end {
            return self.cancel_now(errand, named).await;
        }
        self.release_schedule(errand, named, "subscription.cancel").await?;
        let answer = self.write_once(errand, "subscription.cancel", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            built(&UpdateSubscription::new(subscription.id.as_str()).cancel_at_period_end(true))
        });
        self.changed(errand, &answer.await?).await
    }

    async fn cancel_now(&self, errand: &Errand, named: Option<&str>) -> Result<StripeOutcome, AppError> {
        const OPERATION: &str = "subscription.cancel_now";
        let is_repeat = self.has_begun(errand, OPERATION).await?;
        let canceled = self.write_once(errand, OPERATION, async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            built(&CancelSubscription::new(subscription.id.as_str()))
        });
        let answer = match canceled.await {
            // Stripe heeds no key here: what the first try has canceled is not there for the second.
            Err(AppError::Stripe(StripeCallError::Refused(refusal))) if is_repeat && refusal.is_missing() => {
                let subscriptions = self.subscriptions_of(&errand.account).await?;
                let ended = subscriptions.named_or_last(named).ok_or(StripeCallError::Refused(refusal))?;
                self.retrieve_subscription(&ended.id).await?
            }
            answer => answer?,
        };
        self.changed(errand, &answer).await
    }

    /// Lets a subscription go on that was to end.
    pub async fn resume_subscription(&self, errand: &Errand, named: Option<&str>) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "subscription.resume", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            match (subscription.cancel_at_period_end, subscription.cancel_at) {
                (true, _) => built(&UpdateSubscription::new(subscription.id.as_str()).cancel_at_period_end(false)),
                (false, Some(_)) => Ok(unset(&subscription.id, "cancel_at")),
                (false, None) => Err(BillingRejection::SubscriptionNotEnding { subscription: subscription.id }.into()),
            }
        });
        self.changed(errand, &answer.await?).await
    }

    /// Changes price or quantity.
    pub async fn change_subscription(
        &self,
        errand: &Errand,
        named: Option<&str>,
        request: &ChangeRequest,
    ) -> Result<StripeOutcome, AppError> {
        if request.when == When::PeriodEnd {
            return self.schedule_change(errand, named, request).await;
        }
        const OPERATION: &str = "subscription.change";
        // Before anything is given up: a change that is refused must change nothing.
        if !self.has_begun(errand, OPERATION).await? {
            self.item_change(&errand.account, named, &request.to).await?;
        }
        self.release_schedule(errand, named, OPERATION).await?;
        let answer = self.write_once(errand, OPERATION, async || {
            let change = self.item_change(&errand.account, named, &request.to).await?;
            let mut item = UpdateSubscriptionItems::new();
            item.id = Some(change.item.id);
            item.price = Some(change.price);
            item.quantity = Some(change.quantity);
            let mut update = UpdateSubscription::new(change.subscription.id.as_str())
                .items(vec![item])
                // If the payment fails, nothing is changed until it succeeds.
                .payment_behavior(UpdateSubscriptionPaymentBehavior::PendingIfIncomplete)
                .proration_behavior(request.proration.of_update());
            if let Some(date) = request.proration_date {
                update = update.proration_date(date);
            }
            built(&update)
        });
        let answer = answer.await.map_err(|error| self.about_price(error))?;
        self.changed(errand, &answer).await
    }

    /// What a change comes to: which item, which price, how many.
    pub(super) async fn item_change(
        &self,
        account: &AccountId,
        named: Option<&str>,
        to: &ChangeTo,
    ) -> Result<ItemChange, AppError> {
        let subscription = self.meant_subscription(account, named).await?;
        let active = self.catalog.current();
        let item = main_item(&subscription, &active.catalog)?.clone();
        let (price, recurrence) = match wanted(&subscription, &item, &active.catalog, to)? {
            None => (item.price.id.clone(), recurrence_of(&item)),
            Some(wanted) => self.stripe_price(&offer(&active.catalog, &wanted)?).await?,
        };
        let quantity = to.quantity.unwrap_or(item.quantity);
        if price == item.price.id && quantity == item.quantity {
            return Err(BillingRejection::SubscriptionUnchanged { subscription: subscription.id }.into());
        }
        Ok(ItemChange { subscription, item, price, recurrence, quantity: u64::try_from(quantity).unwrap_or(1) })
    }

    /// Takes back a change that waits for the period's end.
    pub async fn cancel_change(&self, errand: &Errand, named: Option<&str>) -> Result<StripeOutcome, AppError> {
        let released = self.write_once(errand, "subscription_schedule.release", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            let id = subscription.id.clone();
            let schedule = subscription.schedule.ok_or(BillingRejection::NoPendingChange { subscription: id })?;
            built(&ReleaseSubscriptionSchedule::new(schedule.as_str()))
        });
        let schedule = self.observe_schedule(&errand.account, &released.await?).await?;
        let answer = self.retrieve_subscription(schedule.subscription.as_deref().unwrap_or_default()).await?;
        self.changed(errand, &answer).await
    }

    /// Gives up a change that waits, since Stripe changes no subscription that a schedule manages. Nothing is given up any
    /// more once `operation` has begun.
    pub(super) async fn release_schedule(
        &self,
        errand: &Errand,
        named: Option<&str>,
        operation: &'static str,
    ) -> Result<(), AppError> {
        if self.has_begun(errand, operation).await? {
            return Ok(());
        }
        let subscription = self.meant_subscription(&errand.account, named).await?;
        let Some(schedule) = subscription.schedule else { return Ok(()) };
        let released = self.write_once(errand, "subscription_schedule.release", async || {
            built(&ReleaseSubscriptionSchedule::new(schedule.as_str()))
        });
        self.observe_schedule(&errand.account, &released.await?).await?;
        let answer = self.retrieve_subscription(&subscription.id).await?;
        self.observe_subscription(&errand.account, &answer).await?;
        Ok(())
    }

    /// Stops collecting payments for a while; the subscription goes on meanwhile.
    pub async fn pause_collection(
        &self,
        errand: &Errand,
        named: Option<&str>,
        behavior: PauseBehavior,
        resumes_at: Option<i64>,
    ) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "subscription.pause_collection", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            let mut pause = UpdateSubscriptionPauseCollection::new(match behavior {
                PauseBehavior::Void => UpdateSubscriptionPauseCollectionBehavior::Void,
                PauseBehavior::KeepAsDraft => UpdateSubscriptionPauseCollectionBehavior::KeepAsDraft,
                PauseBehavior::MarkUncollectible => UpdateSubscriptionPauseCollectionBehavior::MarkUncollectible,
            });
            pause.resumes_at = resumes_at;
            built(&UpdateSubscription::new(subscription.id.as_str()).pause_collection(pause))
        });
        self.changed(errand, &answer.await?).await
    }

    pub async fn resume_collection(&self, errand: &Errand, named: Option<&str>) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "subscription.resume_collection", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            if subscription.pause_collection.is_none() {
                return Err(BillingRejection::CollectionNotPaused { subscription: subscription.id }.into());
            }
            Ok(unset(&subscription.id, "pause_collection"))
        });
        self.changed(errand, &answer.await?).await
    }

    /// Applies a promotion code, as the customer would type it, or by its id.
    pub async fn apply_promotion_code(
        &self,
        errand: &Errand,
        named: Option<&str>,
        code: &str,
    ) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "subscription.promotion_code", async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            let mut discount = DiscountsDataParam::new();
            discount.promotion_code = Some(self.promotion_code(code).await?);
            built(&UpdateSubscription::new(subscription.id.as_str()).discounts(vec![discount]))
        });
        self.changed(errand, &answer.await?).await
    }

    async fn promotion_code(&self, code: &str) -> Result<String, AppError> {
        if code.starts_with("promo_") {
            return Ok(code.to_owned());
        }
        let request = ListPromotionCode::new().code(code).active(true).limit(1);
        let found: Found = self.stripe_client.read("promotion_code.list", &request).await?;
        let found = found.data.into_iter().next().map(|found| found.id);
        found.ok_or_else(|| BillingRejection::UnknownPromotionCode { promotion_code: code.to_owned() }.into())
    }

    pub(super) async fn retrieve_subscription(&self, id: &str) -> Result<StripeAnswer, AppError> {
        Ok(self.stripe_client.fetch("subscription.retrieve", &RetrieveSubscription::new(id)).await?)
    }

    /// Takes in the subscription that Stripe answered with.
    pub(super) async fn changed(&self, errand: &Errand, answer: &StripeAnswer) -> Result<StripeOutcome, AppError> {
        let subscription = self.observe_subscription(&errand.account, answer).await?;
        let schedule = match &subscription.schedule {
            Some(schedule) => self.schedule_of(&errand.account, schedule).await?,
            None => None,
        };
        Ok(outcome(subscription, schedule))
    }
}

impl Proration {
    fn of_update(self) -> UpdateSubscriptionProrationBehavior {
        match self {
            Self::AlwaysInvoice => UpdateSubscriptionProrationBehavior::AlwaysInvoice,
            Self::CreateProrations => UpdateSubscriptionProrationBehavior::CreateProrations,
            Self::None => UpdateSubscriptionProrationBehavior::None,
        }
    }
}

fn recurrence_of(item: &SubscriptionItem) -> Option<Recurrence> {
    let interval = item.price.interval.clone()?;
    Some(Recurrence { interval, interval_count: item.price.interval_count.unwrap_or(1) })
}

fn outcome(subscription: Subscription, schedule: Option<SubscriptionSchedule>) -> StripeOutcome {
    StripeOutcome::Subscription { subscription: Box::new(subscription), schedule: schedule.map(Box::new) }
}

/// Takes a field back; the builders cannot say that.
fn unset(subscription: &str, field: &str) -> RequestBuilder {
    let mut request = RequestBuilder::new(StripeMethod::Post, format!("/subscriptions/{subscription}"));
    request.body = Some(format!("{field}="));
    request
}
