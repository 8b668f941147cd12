//! Stripe's objects about money that moves: payments, refunds, disputes, credit notes.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::tracked::Snapshot;

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentIntent {
    pub id: String,
    pub customer: Option<String>,
    pub status: String,
    pub currency: String,
    pub amount: i64,
    pub amount_received: i64,
    pub latest_charge: Option<String>,
    /// Stripe's code of the last failed attempt.
    pub last_payment_error: Option<String>,
    /// The order it pays: for an invoice, the first 25 characters of its id.
    pub order_reference: Option<String>,
    pub created: Option<i64>,
}

impl Snapshot for PaymentIntent {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "canceled")
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "requires_payment_method" if self.last_payment_error.is_some() => 4,
            "requires_payment_method" => 0,
            "requires_confirmation" => 1,
            "requires_action" => 2,
            "processing" => 3,
            "requires_capture" => 5,
            _ => 6,
        };
        [status, self.amount_received, i64::from(self.latest_charge.is_some()), 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    pub id: String,
    pub payment_intent: Option<String>,
    pub customer: Option<String>,
    pub status: String,
    pub currency: String,
    pub amount: i64,
    pub amount_captured: i64,
    pub amount_refunded: i64,
    pub disputed: bool,
    pub failure_code: Option<String>,
    pub created: Option<i64>,
}

impl Snapshot for Charge {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        false
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "pending" => 0,
            "failed" => 1,
            _ => 2,
        };
        [status, self.amount_refunded, i64::from(self.disputed), self.amount_captured]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    pub charge: Option<String>,
    pub payment_intent: Option<String>,
    pub status: String,
    pub currency: String,
    pub amount: i64,
    pub created: Option<i64>,
}

impl Refund {
    /// The money did not, or not for good, go back to the customer.
    pub fn has_failed(&self) -> bool {
        matches!(self.status.as_str(), "failed" | "canceled")
    }
}

impl Snapshot for Refund {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.has_failed()
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "pending" => 0,
            "requires_action" => 1,
            "succeeded" => 2,
            _ => 3,
        };
        [status, 0, 0, 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dispute {
    pub id: String,
    pub charge: Option<String>,
    pub payment_intent: Option<String>,
    pub status: String,
    pub currency: String,
    pub amount: i64,
    pub reason: Option<String>,
    pub created: Option<i64>,
}

impl Dispute {
    pub fn is_lost(&self) -> bool {
        self.status == "lost"
    }
    pub fn is_won(&self) -> bool {
        self.status == "won"
    }
    /// The outcome is open, and the disputed amount withheld. An inquiry (`warning_…`) withholds nothing.
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "needs_response" | "under_review")
    }
}

impl Snapshot for Dispute {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "lost" | "won" | "warning_closed" | "prevented")
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "warning_needs_response" => 0,
            "warning_under_review" => 1,
            "needs_response" => 2,
            "under_review" => 3,
            _ => 4,
        };
        [status, 0, 0, 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditNote {
    pub id: String,
    pub invoice: Option<String>,
    pub customer: Option<String>,
    pub status: String,
    pub currency: String,
    pub amount: i64,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub created: Option<i64>,
}

impl Snapshot for CreditNote {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.status == "void"
    }
    fn progress(&self) -> [i64; 4] {
        [0; 4]
    }
}
