//! What a call to Stripe can fail with.

use std::time::Duration;

use crate::domain::stripe_refusal::StripeRefusal;

/// Why a call to Stripe brought no answer, or not the one that was hoped for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StripeCallError {
    #[error("calls to Stripe are not configured: set STRIPE_SECRET_KEY")]
    NotConfigured,
    /// Final: the same request would be refused again.
    #[error("Stripe refused: {}", .0.message)]
    Refused(Box<StripeRefusal>),
    /// Whether a write had its effect is not known; the same key tells.
    #[error("Stripe is not available at the moment ({}); retry with the same key", reason.as_str())]
    Unavailable { reason: Unavailability, retry_after: Duration },
    #[error("Stripe's answer cannot be read: {0}")]
    Unreadable(String),
}

/// How Stripe was not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailability {
    /// No connection, or one that was cut.
    Network,
    TimedOut,
    RateLimited,
    /// Stripe answered that the fault is on its side.
    ServerError,
    /// Another request with the same key is under way.
    Busy,
    /// Too many calls in a row failed, so none is made for a while.
    BreakerOpen,
}

impl Unavailability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "no connection",
            Self::TimedOut => "no answer in time",
            Self::RateLimited => "rate limited",
            Self::ServerError => "an error on Stripe's side",
            Self::Busy => "the same request is under way",
            Self::BreakerOpen => "no call was made, since the last ones failed",
        }
    }

    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::TimedOut => "timeout",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Busy => "busy",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

impl StripeCallError {
    pub fn refusal(&self) -> Option<&StripeRefusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What was named does not exist.
    pub fn is_missing(&self) -> bool {
        self.refusal().is_some_and(StripeRefusal::is_missing)
    }

    /// For metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Refused(_) => "refused",
            Self::Unavailable { reason, .. } => reason.label(),
            Self::Unreadable(_) => "unreadable",
        }
    }
}
