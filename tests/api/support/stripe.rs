//! StripeEvents as Stripe sends them since 2025-03-31: small, whole, and easy to bend.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

pub const STARTER: &str = "price_1LATyAQhTzLmW4rNUy3GVgva";
pub const PRO: &str = "price_1xqAJDQhTzLmW4rNZiBlUdq6";
pub const PRO_YEARLY: &str = "price_1dPfsJQhTzLmW4rNILgGKfEF";

/// Credits a month of the plans.
pub const STARTER_CREDITS: i64 = 100;
pub const PRO_CREDITS: i64 = 500;
pub const FREE_CREDITS: i64 = 10;
pub const PACK_CREDITS: i64 = 500;

const MONTH: i64 = 31 * 86_400;
const YEAR: i64 = 365 * 86_400;

static EVENTS: AtomicU64 = AtomicU64::new(1);

/// A StripeEvent about an object, with an id of its own.
pub fn event(event_type: &str, created: i64, object: Value) -> Value {
    let id = format!("evt_{:08}", EVENTS.fetch_add(1, Ordering::Relaxed));
    json!({
        "id": id, "object": "event", "api_version": "2025-08-27.basil", "created": created, "type": event_type,
        "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null},
        "data": {"object": object},
    })
}

/// The object with some fields changed: objects member by member, everything else whole.
pub fn with(mut object: Value, changes: Value) -> Value {
    overlay(&mut object, changes);
    object
}

fn overlay(value: &mut Value, changes: Value) {
    match (value, changes) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (key, change) in changes {
                overlay(fields.entry(key).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change,
    }
}

fn unit_amount(price: &str) -> i64 {
    match price {
        STARTER => 900,
        PRO => 2_900,
        PRO_YEARLY => 29_000,
        _ => 1_500,
    }
}

fn period_end(price: &str, start: i64) -> i64 {
    // Every story begins in January, and the month after has 31 days less three.
    start + if price == PRO_YEARLY { YEAR } else { MONTH }
}

/// An active subscription whose period starts at `start`.
pub fn subscription(customer: &str, id: &str, price: &str, start: i64) -> Value {
    let interval = if price == PRO_YEARLY { "year" } else { "month" };
    json!({
        "id": id, "object": "subscription", "customer": customer, "status": "active", "currency": "usd",
        "created": start, "cancel_at_period_end": false, "cancel_at": null, "canceled_at": null, "ended_at": null,
        "trial_start": null, "trial_end": null, "pause_collection": null, "schedule": null,
        "latest_invoice": format!("in_{id}_1"), "metadata": {},
        "items": {"object": "list", "has_more": false, "data": [{
            "id": format!("si_{id}"), "object": "subscription_item", "quantity": 1,
            "current_period_start": start, "current_period_end": period_end(price, start),
            "price": {
                "id": price, "object": "price", "currency": "usd", "unit_amount": unit_amount(price),
                "product": "prod_1", "lookup_key": null, "type": "recurring",
                "recurring": {"interval": interval, "interval_count": 1},
            },
        }]},
    })
}

/// A paid invoice for one period of a subscription, from `start`.
pub fn invoice(customer: &str, id: &str, subscription: &str, price: &str, start: i64) -> Value {
    let amount = unit_amount(price);
    json!({
        "id": id, "object": "invoice", "customer": customer, "status": "paid", "currency": "usd",
        "billing_reason": "subscription_create", "subtotal": amount, "total": amount, "amount_due": amount,
        "amount_paid": amount, "amount_remaining": 0, "attempt_count": 1, "created": start, "number": "A-0001",
        "pre_payment_credit_notes_amount": 0, "post_payment_credit_notes_amount": 0, "total_taxes": [],
        "hosted_invoice_url": format!("https://invoice.stripe.com/i/{id}"),
        "invoice_pdf": format!("https://pay.stripe.com/invoice/{id}/pdf"),
        "status_transitions": {"paid_at": start},
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription}},
        "lines": {"object": "list", "has_more": false, "data": [{
            "id": format!("il_{id}"), "object": "line_item", "amount": amount, "currency": "usd", "quantity": 1,
            "period": {"start": start, "end": period_end(price, start)},
            "parent": {"type": "subscription_item_details", "subscription_item_details": {
                "subscription": subscription, "subscription_item": format!("si_{subscription}"), "proration": false,
            }},
            "pricing": {"type": "price_details", "price_details": {"price": price, "product": "prod_1"}},
        }]},
    })
}

/// The link between an invoice and the payment that paid it.
pub fn invoice_payment(invoice: &str, intent: &str) -> Value {
    json!({
        "id": format!("inpay_{invoice}"), "object": "invoice_payment", "invoice": invoice, "status": "paid",
        "payment": {"type": "payment_intent", "payment_intent": intent},
    })
}

/// A payment that succeeded.
pub fn payment_intent(customer: &str, id: &str, amount: i64, at: i64) -> Value {
    json!({
        "id": id, "object": "payment_intent", "customer": customer, "status": "succeeded", "currency": "usd",
        "amount": amount, "amount_received": amount, "latest_charge": format!("ch_{id}"), "created": at,
        "last_payment_error": null, "metadata": {},
    })
}

pub fn refund(intent: &str, id: &str, amount: i64, at: i64) -> Value {
    json!({
        "id": id, "object": "refund", "charge": format!("ch_{intent}"), "payment_intent": intent,
        "status": "succeeded", "currency": "usd", "amount": amount, "created": at, "metadata": {},
    })
}

pub fn dispute(intent: &str, id: &str, status: &str, amount: i64, at: i64) -> Value {
    json!({
        "id": id, "object": "dispute", "charge": format!("ch_{intent}"), "payment_intent": intent,
        "status": status, "currency": "usd", "amount": amount, "reason": "fraudulent", "created": at,
    })
}

/// A completed Checkout session that sold a subscription.
pub fn checkout(customer: &str, id: &str, subscription: &str, at: i64) -> Value {
    json!({
        "id": id, "object": "checkout.session", "customer": customer, "mode": "subscription", "status": "complete",
        "payment_status": "paid", "currency": "usd", "amount_total": 2_900, "payment_intent": null,
        "subscription": subscription, "invoice": null, "client_reference_id": null, "metadata": {}, "created": at,
        "expires_at": at + 86_400, "customer_details": {"email": null},
    })
}

/// A completed Checkout session that sold the catalog's pack, paid by the PaymentIntent `pi_{id}`.
pub fn pack_checkout(customer: &str, id: &str, at: i64) -> Value {
    let sold = json!({
        "mode": "payment", "subscription": null, "amount_total": 1_000, "payment_intent": format!("pi_{id}"),
        "metadata": {"kind": "credit_pack", "credit_pack": "credits_500"},
    });
    with(checkout(customer, id, "", at), sold)
}

/// Somebody subscribes and pays: the subscription, its first invoice, and the payment behind it.
///
/// Ids derive from the customer's: `sub_x`, `in_sub_x_1`, `pi_x` for `cus_x`.
pub fn sign_up(customer: &str, price: &str, at: i64) -> Vec<Value> {
    let name = customer.trim_start_matches("cus_");
    let (id, intent) = (format!("sub_{name}"), format!("pi_{name}"));
    let bill = format!("in_{id}_1");
    vec![
        event("customer.subscription.created", at, subscription(customer, &id, price, at)),
        event("invoice.paid", at, invoice(customer, &bill, &id, price, at)),
        event("payment_intent.succeeded", at, payment_intent(customer, &intent, unit_amount(price), at)),
        event("invoice_payment.paid", at, invoice_payment(&bill, &intent)),
    ]
}
