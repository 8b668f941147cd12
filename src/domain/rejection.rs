//! Typed refusals of commands.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::billing_rejection::BillingRejection;
use super::catalog::Per;
use super::credit::is_zero;

/// Why a command was refused. Frozen with its idempotency key, so it must read back as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    #[error(
        "{required} credits are needed, {available} are available{}",
        overage_left.map(|left| format!(", and {left} more may be owed")).unwrap_or_default()
    )]
    InsufficientCredits {
        required: i64,
        available: i64,
        /// Credits that may still be owed, where the plan's overage has a limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overage_left: Option<i64>,
    },
    #[error("no account is called {account}; create it with PUT /v1/accounts/{account}")]
    AccountNotFound { account: String },
    #[error("the catalog has no feature {feature}")]
    UnknownFeature { feature: String },
    #[error(
        "feature {feature} is not metered, so there is nothing to count; check it, or make it metered in the catalog"
    )]
    FeatureNotMetered { feature: String },
    #[error("the plan {plan} does not include {feature}")]
    FeatureNotInPlan { feature: String, plan: String },
    #[error("an override of this account denies {feature}")]
    OverrideDenied { feature: String },
    #[error("{}", limit_exceeded(self))]
    LimitExceeded {
        feature: String,
        limit: i64,
        per: Per,
        used: i64,
        /// By open holds.
        #[serde(default, skip_serializing_if = "is_zero")]
        held: i64,
        /// What was asked for; 0 in refusals from before it was kept.
        #[serde(default, skip_serializing_if = "is_zero")]
        quantity: i64,
        resets_at: DateTime<Utc>,
    },
    #[error("the account has been suspended since {}; its credits are kept", since.format("%FT%TZ"))]
    AccountSuspended { since: DateTime<Utc> },
    #[error(
        "a payment has been overdue since {}, so the account is suspended until it is made good; its credits are kept",
        since.format("%FT%TZ")
    )]
    SuspendedUnpaid { since: DateTime<Utc> },
    #[error("{feature} waits for a payment that is overdue")]
    PaymentOverdue { feature: String },
    #[error("{feature} is of a subscription that is paused; it goes on when that is resumed")]
    SubscriptionPaused { feature: String },
    #[error("an account has at most {max} overrides; remove one first")]
    TooManyOverrides { max: usize },
    #[error("an account has at most {max} open holds; capture or release one first, or hold more in one")]
    TooManyHolds { max: usize },
    #[error("{field} must be from 1 to {max}")]
    OutOfRange { field: String, max: i64 },
    #[error("quantity must be from {min} to {max}")]
    QuantityOutOfRange { min: i64, max: i64 },
    #[error("{field} must be from {} to {}", earliest.format("%FT%TZ"), latest.format("%FT%TZ"))]
    TimeOutOfRange { field: String, earliest: DateTime<Utc>, latest: DateTime<Utc> },
    #[error("expires_at must lie after effective_at and in the future")]
    AlreadyExpired,
    #[error("no hold is called {hold}")]
    HoldNotFound { hold: String },
    #[error("the hold {hold} was captured already")]
    HoldCaptured { hold: Uuid },
    #[error("the hold {hold} was released already")]
    HoldReleased { hold: Uuid },
    #[error("the hold {hold} has expired; place a new one, and longer, or extend it in time")]
    HoldExpired { hold: Uuid },
    #[error(
        "the hold has set {held} {} aside, {required} were used; hold more, or let the feature's captures go beyond their holds (capture_beyond_hold in the catalog)",
        if *in_units { "units" } else { "credits" }
    )]
    CaptureExceedsHold {
        held: i64,
        required: i64,
        /// They are units of the feature, not credits.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_units: bool,
    },
    #[error("the hold {hold} is for an amount, not for a feature; give the amount that was used")]
    HoldWithoutFeature { hold: Uuid },
    #[error("a hold's expires_at must lie in the future, and at most {max_days} days ahead")]
    HoldExpiryOutOfRange { max_days: i64 },
    /// Of what was asked of Stripe through us.
    #[error("{because}")]
    Billing { because: BillingRejection },
}

fn limit_exceeded(rejection: &Rejection) -> String {
    let Rejection::LimitExceeded { feature, limit, per, used, held, quantity, resets_at } = rejection else {
        return String::new();
    };
    let per = per.as_str();
    if rejection.is_beyond_whole_limit() {
        return format!("{quantity} of {feature} are more than its whole limit of {limit} per {per}; ask for less");
    }
    let held = if *held > 0 { format!(" and {held} are held") } else { String::new() };
    let resets_at = resets_at.format("%FT%TZ");
    format!(
        "{feature} is limited to {limit} per {per}, {used} are used{held}, and the count begins anew at {resets_at}"
    )
}

impl Rejection {
    /// Whether it asks for more of a feature than its limit ever lets pass at once.
    pub fn is_beyond_whole_limit(&self) -> bool {
        matches!(self, Self::LimitExceeded { limit, quantity, .. } if quantity > limit)
    }

    /// Whether it lies in the account, not in the request: another plan, or more credits, and it would have passed.
    pub fn lies_in_account(&self) -> bool {
        match self {
            Self::InsufficientCredits { .. }
            | Self::FeatureNotInPlan { .. }
            | Self::OverrideDenied { .. }
            | Self::LimitExceeded { .. }
            | Self::AccountSuspended { .. }
            | Self::SuspendedUnpaid { .. }
            | Self::PaymentOverdue { .. }
            | Self::SubscriptionPaused { .. } => true,
            Self::AccountNotFound { .. }
            | Self::UnknownFeature { .. }
            | Self::FeatureNotMetered { .. }
            | Self::TooManyOverrides { .. }
            | Self::TooManyHolds { .. }
            | Self::OutOfRange { .. }
            | Self::QuantityOutOfRange { .. }
            | Self::TimeOutOfRange { .. }
            | Self::AlreadyExpired
            | Self::HoldNotFound { .. }
            | Self::HoldCaptured { .. }
            | Self::HoldReleased { .. }
            | Self::HoldExpired { .. }
            | Self::CaptureExceedsHold { .. }
            | Self::HoldWithoutFeature { .. }
            | Self::HoldExpiryOutOfRange { .. }
            | Self::Billing { .. } => false,
        }
    }
}
