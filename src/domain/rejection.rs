//! Typed refusals of commands.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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
    #[serde(alias = "feature_without_cost")]
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
}
