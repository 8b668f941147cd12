//! Typed refusals of commands.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::billing_rejection::BillingRejection;
use super::catalog::Per;

/// Why a command was refused. Frozen with its idempotency key, so it must read back as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    #[error("{required} credits are needed, {available} are available")]
    InsufficientCredits { required: i64, available: i64 },
    #[error("no account is called {account}")]
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
    #[error(
        "{feature} is limited to {limit} per {}, {used} are used, and the count begins anew at {}; then use a new key",
        per.as_str(), resets_at.format("%FT%TZ")
    )]
    LimitExceeded { feature: String, limit: i64, per: Per, used: i64, resets_at: DateTime<Utc> },
    #[error("the account has been suspended since {}; its credits are kept", since.format("%FT%TZ"))]
    AccountSuspended { since: DateTime<Utc> },
    #[error("an account has at most {max} overrides; remove one first")]
    TooManyOverrides { max: usize },
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
        "the hold has set {held} credits aside, {required} were used; hold more, or let the feature's captures go beyond their holds (capture_beyond_hold in the catalog)"
    )]
    CaptureExceedsHold { held: i64, required: i64 },
    #[error("the hold {hold} is for an amount, not for a feature; give the amount that was used")]
    HoldWithoutFeature { hold: Uuid },
    #[error("a hold's expires_at must lie in the future, and at most {max_days} days ahead")]
    HoldExpiryOutOfRange { max_days: i64 },
    /// Of what was asked of Stripe through us.
    #[error("{because}")]
    Billing { because: BillingRejection },
}

impl Rejection {
    /// Whether it lies in the account, not in the request: another plan, or more credits, and it would have passed.
    pub fn lies_in_account(&self) -> bool {
        match self {
            Self::InsufficientCredits { .. }
            | Self::FeatureNotInPlan { .. }
            | Self::OverrideDenied { .. }
            | Self::LimitExceeded { .. }
            | Self::AccountSuspended { .. } => true,
            Self::AccountNotFound { .. }
            | Self::UnknownFeature { .. }
            | Self::FeatureNotMetered { .. }
            | Self::TooManyOverrides { .. }
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
