//! Typed refusals of commands.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    #[error("feature {feature} costs no credits; debit an amount, or give it a credit_cost in the catalog")]
    FeatureWithoutCost { feature: String },
    #[error("the plan {plan} does not include {feature}")]
    FeatureNotInPlan { feature: String, plan: String },
    #[error("{field} must be from 1 to {max}")]
    OutOfRange { field: String, max: i64 },
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
}

impl Rejection {
    /// Whether it lies in the account, not in the request: another plan, or more credits, and it would have passed.
    pub fn lies_in_account(&self) -> bool {
        match self {
            Self::InsufficientCredits { .. } | Self::FeatureNotInPlan { .. } => true,
            Self::AccountNotFound { .. }
            | Self::UnknownFeature { .. }
            | Self::FeatureWithoutCost { .. }
            | Self::OutOfRange { .. }
            | Self::AlreadyExpired
            | Self::HoldNotFound { .. }
            | Self::HoldCaptured { .. }
            | Self::HoldReleased { .. }
            | Self::HoldExpired { .. }
            | Self::CaptureExceedsHold { .. }
            | Self::HoldWithoutFeature { .. }
            | Self::HoldExpiryOutOfRange { .. } => false,
        }
    }
}
