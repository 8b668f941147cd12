//! What Stripe says when it refuses a request.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Stripe's own words for a refusal (<https://docs.stripe.com/api/errors>).
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRefusal {
    /// HTTP status of the answer.
    pub status: u16,
    /// `invalid_request_error`, `card_error`, `idempotency_error`, `api_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Such as `resource_missing` or `card_declined`.
    pub stripe_code: Option<String>,
    pub decline_code: Option<String>,
    /// For people. It may quote what was sent, so it is never logged.
    pub message: String,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// Finds the request in Stripe's dashboard.
    pub stripe_request_id: Option<String>,
}

impl StripeRefusal {
    /// What was named does not exist, in this mode at least.
    pub fn is_missing(&self) -> bool {
        self.stripe_code.as_deref() == Some("resource_missing") || self.status == 404
    }

    /// The key of ours was used for other parameters before.
    pub fn is_key_reuse(&self) -> bool {
        self.kind == "idempotency_error"
    }

    /// The API key is invalid, or may not do this: nothing that a caller could mend.
    pub fn is_our_key(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}
