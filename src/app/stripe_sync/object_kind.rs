//! The kinds of Stripe objects that are compared and brought in, and what Stripe's events about each are called.

use serde_json::Value;

use crate::domain::billing::Kind;

/// In the order in which they are best taken: whatever an account is found by comes before what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Customer,
    Subscription,
    Invoice,
    CheckoutSession,
    PaymentIntent,
    Charge,
    Refund,
    Dispute,
}

impl ObjectKind {
    pub const ALL: [Self; 8] = [
        Self::Customer,
        Self::Subscription,
        Self::Invoice,
        Self::CheckoutSession,
        Self::PaymentIntent,
        Self::Charge,
        Self::Refund,
        Self::Dispute,
    ];
    /// The one that is taken last.
    pub const LAST: Self = Self::Dispute;

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Subscription => "subscription",
            Self::Invoice => "invoice",
            Self::CheckoutSession => "checkout_session",
            Self::PaymentIntent => "payment_intent",
            Self::Charge => "charge",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
        }
    }

    /// The kind of row that the ledger keeps it in: a payment's has its charges, refunds and disputes too.
    pub fn row_kind(self) -> Kind {
        match self {
            Self::Customer => Kind::Customer,
            Self::Subscription => Kind::Subscription,
            Self::Invoice => Kind::Invoice,
            Self::CheckoutSession => Kind::CheckoutSession,
            Self::PaymentIntent | Self::Charge | Self::Refund | Self::Dispute => Kind::Payment,
        }
    }

    /// The type of StripeEvent that would show an object as it is.
    pub fn event_type(self, object: &Value) -> &'static str {
        match self {
            Self::Customer => "customer.updated",
            Self::Subscription => "customer.subscription.updated",
            Self::Invoice => "invoice.updated",
            Self::CheckoutSession if has_failed_later(object) => "checkout.session.async_payment_failed",
            Self::CheckoutSession if object["status"] == "complete" => "checkout.session.completed",
            Self::CheckoutSession => "checkout.session.expired",
            Self::PaymentIntent => "payment_intent.created",
            Self::Charge => "charge.updated",
            Self::Refund => "refund.updated",
            Self::Dispute => "charge.dispute.updated",
        }
    }

    /// The types of StripeEvents that tell of such objects.
    pub fn event_types(self) -> &'static [&'static str] {
        match self {
            Self::Customer => &["customer.created", "customer.updated", "customer.deleted"],
            Self::Subscription => &[
                "customer.subscription.created",
                "customer.subscription.updated",
                "customer.subscription.deleted",
                "customer.subscription.paused",
                "customer.subscription.resumed",
                "customer.subscription.pending_update_applied",
                "customer.subscription.pending_update_expired",
            ],
            Self::Invoice => &[
                "invoice.created",
                "invoice.updated",
                "invoice.finalized",
                "invoice.paid",
                "invoice.payment_succeeded",
                "invoice.payment_failed",
                "invoice.payment_action_required",
                "invoice.marked_uncollectible",
                "invoice.voided",
                "invoice.deleted",
                "invoice_payment.paid",
            ],
            Self::CheckoutSession => &[
                "checkout.session.completed",
                "checkout.session.async_payment_succeeded",
                "checkout.session.async_payment_failed",
                "checkout.session.expired",
            ],
            Self::PaymentIntent => &[
                "payment_intent.created",
                "payment_intent.requires_action",
                "payment_intent.processing",
                "payment_intent.amount_capturable_updated",
                "payment_intent.partially_funded",
                "payment_intent.payment_failed",
                "payment_intent.succeeded",
                "payment_intent.canceled",
            ],
            Self::Charge => &[
                "charge.pending",
                "charge.succeeded",
                "charge.failed",
                "charge.captured",
                "charge.expired",
                "charge.updated",
                "charge.refunded",
            ],
            Self::Refund => &["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"],
            Self::Dispute => &[
                "charge.dispute.created",
                "charge.dispute.updated",
                "charge.dispute.closed",
                "charge.dispute.funds_withdrawn",
                "charge.dispute.funds_reinstated",
            ],
        }
    }

    /// Nothing has come of an object yet, so that an endpoint need not have been told of it: nobody has completed the
    /// session, or tried to pay.
    pub fn is_idle(self, object: &Value) -> bool {
        match self {
            Self::CheckoutSession => object["status"] == "open",
            Self::PaymentIntent => is_untried(object),
            _ => false,
        }
    }
}

fn is_untried(intent: &Value) -> bool {
    matches!(intent["status"].as_str(), Some("requires_payment_method" | "requires_confirmation"))
        && intent["last_payment_error"].is_null()
}

/// A session does not say itself that it was to be paid days later and was not; its payment, which is answered whole, does.
fn has_failed_later(session: &Value) -> bool {
    let intent = &session["payment_intent"];
    let has_ended = matches!(intent["status"].as_str(), Some("requires_payment_method" | "canceled"));
    session["status"] == "complete" && session["payment_status"] == "unpaid" && has_ended
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_whose_payment_failed_days_later_is_told_by_its_payment() {
        let session = |status: &str, payment_status: &str, intent: &str| {
            let session =
                json!({"status": status, "payment_status": payment_status, "payment_intent": {"status": intent}});
            ObjectKind::CheckoutSession.event_type(&session)
        };
        assert_eq!(session("complete", "unpaid", "processing"), "checkout.session.completed");
        assert_eq!(session("complete", "unpaid", "requires_payment_method"), "checkout.session.async_payment_failed");
        assert_eq!(session("complete", "paid", "succeeded"), "checkout.session.completed");
        assert_eq!(session("expired", "unpaid", "canceled"), "checkout.session.expired");
    }

    #[test]
    fn what_nothing_has_come_of_need_not_be_known() {
        let intent = |status: &str, error: Value| json!({"status": status, "last_payment_error": error});
        assert!(ObjectKind::PaymentIntent.is_idle(&intent("requires_payment_method", Value::Null)));
        assert!(
            !ObjectKind::PaymentIntent.is_idle(&intent("requires_payment_method", json!({"code": "card_declined"})))
        );
        assert!(!ObjectKind::PaymentIntent.is_idle(&intent("succeeded", Value::Null)));
        assert!(ObjectKind::CheckoutSession.is_idle(&json!({"status": "open"})));
        assert!(!ObjectKind::CheckoutSession.is_idle(&json!({"status": "complete"})));
    }
}
