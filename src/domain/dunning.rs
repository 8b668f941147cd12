//! What becomes of a subscription whose payment failed, as time passes: grace, then fewer features, then none. A function
//! of when the payment failed, the plan, and the clock; nothing is recorded when a stage begins, and payment ends all.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::catalog::Plan;
use super::credit::Access;

/// How far it has come. Later compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The plan's days of grace are running: all goes on.
    InGrace,
    /// They are over: the features that the plan names go on, or else the default plan holds.
    Restricted,
    /// Nothing is allowed until the payment is made good.
    Suspended,
}

/// Where an overdue subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    pub stage: Stage,
    /// When the payment failed.
    pub since: DateTime<Utc>,
    /// `None`: the stage lasts until the payment is made good, or the subscription ends.
    pub next_stage: Option<Stage>,
    pub next_stage_at: Option<DateTime<Utc>>,
}

impl Overdue {
    /// How it stands at `now` with a subscription on a plan; `None` when nothing is overdue. A price that no plan names has
    /// neither grace nor suspension.
    pub fn of(access: &Access, plan: Option<&Plan>, now: DateTime<Utc>) -> Option<Self> {
        let since = DateTime::from_timestamp(access.past_due_since?, 0)?;
        let after = |days: u32| since.checked_add_signed(Duration::days(i64::from(days)));
        let suspended_at = plan.and_then(|plan| plan.dunning.suspend_after_days).and_then(after);
        // Stripe has given up on an unpaid subscription, so there is no grace any more.
        let has_given_up = access.status == "unpaid";
        let grace_ends = if has_given_up { Some(since) } else { after(plan.map_or(0, |plan| plan.grace_days)) };
        let is_past = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= now);
        let (stage, next) = if is_past(suspended_at) {
            (Stage::Suspended, None)
        } else if has_given_up || is_past(grace_ends) {
            (Stage::Restricted, suspended_at.map(|at| (Stage::Suspended, at)))
        } else {
            let restricted = grace_ends.map(|at| (Stage::Restricted, at));
            let suspended = suspended_at.map(|at| (Stage::Suspended, at));
            // Where both begin at once, the later stage is what begins.
            (Stage::InGrace, suspended.filter(|(_, at)| grace_ends.is_none_or(|end| *at <= end)).or(restricted))
        };
        Some(Self { stage, since, next_stage: next.map(|(stage, _)| stage), next_stage_at: next.map(|(_, at)| at) })
    }
}
