//! Where the ledger and Stripe differ, and why.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::stripe_object::StripeObject;

/// The ledger was made to agree with Stripe about an object; the observation beside it is what Stripe showed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Such as `customer` or `refund`: Stripe's name of it, with `_` for a dot.
    pub kind: String,
    pub stripe_id: String,
    /// Fields that differed; none: the ledger did not know the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    #[serde(flatten)]
    pub cause: Cause,
}

/// Why the ledger did not agree.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// A StripeEvent that never came.
    Missing(Told),
    /// A StripeEvent that is so young that it may yet come.
    Late(Told),
    /// A StripeEvent that came, while the ledger does not show what it said.
    Misapplied {
        #[serde(flatten)]
        told: Told,
        /// Why it was parked, if it was.
        reason: Option<String>,
    },
    /// None of the StripeEvents that Stripe still lists tells of it.
    Untold,
    /// It is older than the ledger, and was brought in.
    Imported,
}

/// A StripeEvent, named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub stripe_event_id: String,
    pub stripe_event_type: String,
    /// Unix second in which Stripe created it.
    pub created: i64,
}

/// One field that is not the same here and there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub field: String,
    pub ledger: Value,
    pub stripe: Value,
}

/// What differs between an object as the ledger has it and as Stripe shows it. Left out is what changes without being told
/// of: links that Stripe makes anew for each answer, what a price says of itself, and what a charge says of its refunds and
/// disputes, which are compared themselves; and what only some API versions tell.
pub fn differences(ledger: &StripeObject, stripe: &StripeObject) -> Vec<Difference> {
    let (mut ledger, stripe) = (comparable(ledger), comparable(stripe));
    // Stripe shows an invoice's first lines; the ledger asked for the others.
    if stripe["has_more_lines"] == true
        && let (Some(shown), Some(lines)) = (stripe["lines"].as_array(), ledger["lines"].as_array_mut())
        && lines.len() > shown.len()
    {
        lines.truncate(shown.len());
        ledger["has_more_lines"] = Value::Bool(true);
    }
    let (Value::Object(ledger), Value::Object(stripe)) = (&ledger, &stripe) else { return Vec::new() };
    let mut fields: Vec<&String> = ledger.keys().chain(stripe.keys()).collect();
    fields.sort();
    fields.dedup();
    let of = |object: &serde_json::Map<String, Value>, field: &String| object.get(field).cloned().unwrap_or_default();
    let differing = fields.into_iter().filter(|field| of(ledger, field) != of(stripe, field));
    differing
        .map(|field| Difference { field: field.clone(), ledger: of(ledger, field), stripe: of(stripe, field) })
        .collect()
}

fn comparable(object: &StripeObject) -> Value {
    let mut tagged = serde_json::to_value(object).unwrap_or_default();
    let mut snapshot = tagged["snapshot"].take();
    if let Value::Object(fields) = &mut snapshot {
        let untold: &[&str] = match object {
            StripeObject::Invoice(_) => &["hosted_invoice_url", "invoice_pdf"],
            StripeObject::PaymentIntent(_) => &["order_reference"],
            StripeObject::Charge(_) => &["amount_refunded", "disputed"],
            _ => &[],
        };
        untold.iter().for_each(|field| drop(fields.remove(*field)));
        for list in ["items", "pending_items"] {
            let items = fields.get_mut(list).and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(|item| item["price"] = item["price"]["id"].take());
        }
    }
    snapshot
}

/// The latest moment that an object tells of itself: it is in its present state since then, or since later. Unix seconds,
/// not later than `now`.
pub fn latest_moment(object: &Value, now: i64) -> i64 {
    let own = ["created", "start_date", "current_period_start", "trial_start", "canceled_at", "ended_at"];
    let own = own.into_iter().map(|field| &object[field]);
    let transitions = object["status_transitions"].as_object().into_iter().flat_map(|moments| moments.values());
    let items = object["items"]["data"].as_array().into_iter().flatten().map(|item| &item["current_period_start"]);
    let moments = own.chain(transitions).chain(items).filter_map(Value::as_i64);
    moments.filter(|moment| *moment <= now).max().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscription(status: &str, lookup_key: Option<&str>) -> StripeObject {
        serde_json::from_value(json!({"object": "subscription", "snapshot": {
            "id": "sub_1", "status": status, "cancel_at_period_end": false,
            "items": [{"id": "si_1", "quantity": 1, "price": {"id": "price_1", "lookup_key": lookup_key}}],
        }}))
        .expect("a subscription")
    }

    #[test]
    fn differences_name_the_field_and_leave_out_what_a_price_says_of_itself() {
        assert_eq!(differences(&subscription("active", None), &subscription("active", Some("basic"))), []);
        let found = differences(&subscription("active", None), &subscription("past_due", None));
        assert_eq!(
            found,
            [Difference { field: "status".to_owned(), ledger: json!("active"), stripe: json!("past_due") }]
        );
    }

    #[test]
    fn a_charge_is_not_compared_by_its_refunds_and_disputes() {
        let charge = |status: &str, amount_refunded: i64, disputed: bool| -> StripeObject {
            serde_json::from_value(json!({"object": "charge", "snapshot": {
                "id": "ch_1", "status": status, "currency": "usd", "amount": 900, "amount_captured": 900,
                "amount_refunded": amount_refunded, "disputed": disputed,
            }}))
            .expect("a charge")
        };
        assert_eq!(differences(&charge("succeeded", 0, false), &charge("succeeded", 400, true)), []);
        assert_eq!(differences(&charge("pending", 0, false), &charge("succeeded", 0, false)).len(), 1);
    }

    #[test]
    fn an_invoice_is_compared_by_the_lines_that_stripe_shows() {
        let invoice = |lines: std::ops::Range<i64>, has_more: bool| -> StripeObject {
            let line = |amount: i64| json!({"id": "il", "amount": amount, "period_start": 0, "period_end": 0, "proration": false});
            serde_json::from_value(json!({"object": "invoice", "snapshot": {
                "id": "in_1", "status": "paid", "currency": "usd", "subtotal": 0, "total": 0, "tax": 0, "amount_due": 0,
                "amount_paid": 0, "amount_remaining": 0, "pre_payment_credit_notes_amount": 0,
                "post_payment_credit_notes_amount": 0, "attempt_count": 0, "has_more_lines": has_more,
                "lines": lines.map(line).collect::<Vec<_>>(),
            }}))
            .expect("an invoice")
        };
        assert_eq!(differences(&invoice(0..13, false), &invoice(0..10, true)), []);
        let other_lines = differences(&invoice(0..13, false), &invoice(1..11, true));
        assert_eq!(other_lines.iter().map(|found| found.field.as_str()).collect::<Vec<_>>(), ["lines"]);
        assert_eq!(differences(&invoice(0..13, false), &invoice(0..10, false)).len(), 1);
        assert_eq!(differences(&invoice(0..10, false), &invoice(0..10, true)).len(), 1);
    }

    #[test]
    fn the_latest_moment_is_never_one_to_come() {
        let object = json!({
            "created": 100, "canceled_at": 900, "trial_start": null, "items": {"data": [{"current_period_start": 300}]},
            "status_transitions": {"paid_at": 400, "voided_at": null},
        });
        assert_eq!(latest_moment(&object, 500), 400);
        assert_eq!(latest_moment(&json!({"id": "cus_1", "deleted": true}), 500), 500);
    }
}
