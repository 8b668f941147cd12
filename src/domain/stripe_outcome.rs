//! What came of a request that Stripe answered: kept under the caller's key, so that a repeat is told the same.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::stripe_object::{Refund, Subscription, SubscriptionSchedule};

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StripeOutcome {
    CheckoutSession {
        session_id: String,
        stripe_customer_id: String,
        url: Option<String>,
        /// Unix seconds.
        expires_at: Option<i64>,
    },
    PortalSession {
        stripe_customer_id: String,
        url: String,
    },
    /// The subscription as Stripe has it since.
    Subscription {
        subscription: Box<Subscription>,
        schedule: Option<Box<SubscriptionSchedule>>,
    },
    Refund {
        refund: Refund,
        payment: String,
    },
}
