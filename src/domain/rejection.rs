//! Typed refusals of commands.

use serde::{Deserialize, Serialize};

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
}
