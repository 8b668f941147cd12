//! Changes of a subscription that wait for the end of its period, by a schedule of Stripe's.
//!
//! <https://docs.stripe.com/billing/subscriptions/subscription-schedules>

use serde::Deserialize;
use stripe_billing::subscription_schedule::{
    CreateSubscriptionSchedule, UpdateSubscriptionSchedule, UpdateSubscriptionSchedulePhases,
    UpdateSubscriptionSchedulePhasesDuration, UpdateSubscriptionSchedulePhasesDurationInterval,
    UpdateSubscriptionSchedulePhasesEndDate, UpdateSubscriptionSchedulePhasesItems,
    UpdateSubscriptionSchedulePhasesStartDate, UpdateSubscriptionScheduleProrationBehavior,
};
use stripe_shared::SubscriptionScheduleEndBehavior;

use super::changes::{ChangeRequest, ItemChange};
use super::errand::{Errand, built};
use super::prices::Recurrence;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::stripe_outcome::StripeOutcome;
use crate::stripe::client::StripeCallError;

const CREATE: &str = "subscription_schedule.create";
const UPDATE: &str = "subscription_schedule.update";

/// A schedule as it was made out of a subscription: one phase, the current period.
#[derive(Debug, Deserialize)]
struct Made {
    id: String,
    subscription: Option<String>,
    phases: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    start_date: i64,
    end_date: i64,
}

impl Service {
    /// Lets a change come into force when the period ends. One that waits already is given up for it.
    pub(super) async fn schedule_change(
        &self,
        errand: &Errand,
        named: Option<&str>,
        request: &ChangeRequest,
    ) -> Result<StripeOutcome, AppError> {
        if !self.has_begun(errand, CREATE).await? {
            self.item_change(&errand.account, named, &request.to).await?;
        }
        self.release_schedule(errand, named, CREATE).await?;
        let created = self.write_once(errand, CREATE, async || {
            let subscription = self.meant_subscription(&errand.account, named).await?;
            built(&CreateSubscriptionSchedule::new().from_subscription(subscription.id))
        });
        let made: Made = created.await?.parse()?;
        let updated = self.write_once(errand, UPDATE, async || {
            let change = self.item_change(&errand.account, named, &request.to).await?;
            built(&phases(&made, change)?)
        });
        let updated = updated.await.map_err(|error| self.about_price(error))?;
        let schedule = self.observe_schedule(&errand.account, &updated).await?;
        let subscription = schedule.subscription.or(made.subscription).unwrap_or_default();
        let answer = self.retrieve_subscription(&subscription).await?;
        self.changed(errand, &answer).await
    }
}

/// The current period as it is, then the change; after it the schedule lets go of the subscription.
fn phases(made: &Made, change: ItemChange) -> Result<UpdateSubscriptionSchedule, AppError> {
    let current = made.phases.first();
    let current = current.ok_or_else(|| StripeCallError::Unreadable("the schedule has no phase".to_owned()))?;
    let unchanged = change.subscription.items.iter().filter(|item| item.id != change.item.id);
    let unchanged: Vec<_> = unchanged.map(|item| phase_item(&item.price.id, quantity(item.quantity))).collect();
    let with = |main| std::iter::once(main).chain(unchanged.iter().cloned()).collect::<Vec<_>>();
    let mut now =
        UpdateSubscriptionSchedulePhases::new(with(phase_item(&change.item.price.id, quantity(change.item.quantity))));
    now.start_date = Some(UpdateSubscriptionSchedulePhasesStartDate::Timestamp(current.start_date));
    now.end_date = Some(UpdateSubscriptionSchedulePhasesEndDate::Timestamp(current.end_date));
    let mut then = UpdateSubscriptionSchedulePhases::new(with(phase_item(&change.price, change.quantity)));
    // One period is enough: then the subscription goes on by itself.
    then.duration = change.recurrence.as_ref().and_then(duration);
    Ok(UpdateSubscriptionSchedule::new(made.id.as_str())
        .end_behavior(SubscriptionScheduleEndBehavior::Release)
        .proration_behavior(UpdateSubscriptionScheduleProrationBehavior::None)
        .phases(vec![now, then]))
}

fn duration(recurrence: &Recurrence) -> Option<UpdateSubscriptionSchedulePhasesDuration> {
    let interval = match recurrence.interval.as_str() {
        "day" => UpdateSubscriptionSchedulePhasesDurationInterval::Day,
        "week" => UpdateSubscriptionSchedulePhasesDurationInterval::Week,
        "month" => UpdateSubscriptionSchedulePhasesDurationInterval::Month,
        "year" => UpdateSubscriptionSchedulePhasesDurationInterval::Year,
        _ => return None,
    };
    let mut duration = UpdateSubscriptionSchedulePhasesDuration::new(interval);
    duration.interval_count = u64::try_from(recurrence.interval_count).ok();
    Some(duration)
}

fn phase_item(price: &str, quantity: u64) -> UpdateSubscriptionSchedulePhasesItems {
    let mut item = UpdateSubscriptionSchedulePhasesItems::new();
    item.price = Some(price.to_owned());
    item.quantity = Some(quantity);
    item
}

fn quantity(quantity: i64) -> u64 {
    u64::try_from(quantity).unwrap_or(1)
}
