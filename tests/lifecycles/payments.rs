//! Invoices that are paid in parts: by several PaymentIntents, or partly from the customer's balance. Of the credits goes
//! the share of the price that went back, whatever it had been paid by.

use serde_json::{Value, json};

use crate::fold::{End, Fold};
use crate::rules::{FEBRUARY, JANUARY, available, end_in_any_order, intent, invoice, refund, told};
use crate::support::shapes::other_shape;

const SELLER: &str = r#"
[features.a]
name = "A"
kind = "boolean"
[plans.free]
name = "Free"
default = true
rank = 0
credits = "none"
[plans.middle]
name = "Middle"
rank = 1
credits = 500
prices.monthly = { stripe_price_id = "price_middle", currency = "usd", unit_amount = 2000, interval = "month" }
"#;

/// A paid invoice of 2000 for 500 credits, of which `amount_paid` came by payments.
fn bill(amount_paid: i64) -> Value {
    let mut bill = invoice("in_1", "price_middle", JANUARY, FEBRUARY);
    (bill["subtotal"], bill["total"], bill["amount_paid"]) = (json!(2000), json!(2000), json!(amount_paid));
    bill["lines"]["data"][0]["amount"] = json!(2000);
    bill["payment_intent"] = Value::Null;
    bill
}

fn attached(payment_intent: &str, status: &str) -> Value {
    json!({"object": "invoice_payment", "id": format!("inpay_{payment_intent}"), "invoice": "in_1", "status": status,
        "payment": {"type": "payment_intent", "payment_intent": payment_intent}})
}

fn is_attached(payment_intent: &str) -> Value {
    told("invoice_payment.paid", JANUARY, attached(payment_intent, "paid"))
}

fn is_paid(id: &str, amount: i64) -> Value {
    told("payment_intent.succeeded", JANUARY, intent(id, amount))
}

fn goes_back(payment_intent: &str, amount: i64) -> Value {
    let back = refund(&format!("re_{payment_intent}"), json!({"payment_intent": payment_intent, "amount": amount}));
    told("refund.created", JANUARY + 60, back)
}

/// The end of the events, in any order, as told and in the shape of the other API versions.
fn end_of(events: &[Value]) -> End {
    let fold = Fold::of_seller(SELLER);
    let end = end_in_any_order(&fold, JANUARY + 90, events);
    let reshaped: Vec<Value> = events.iter().map(other_shape).collect();
    let mixed: Vec<Value> =
        events.iter().zip(&reshaped).enumerate().map(|(n, (a, b))| if n % 2 == 0 { a } else { b }.clone()).collect();
    for events in [reshaped, mixed] {
        let other = end_in_any_order(&fold, JANUARY + 90, &events);
        assert_eq!(other.credits, end.credits, "in another shape");
        assert_eq!(other.billing.invoices["in_1"].payment_intent, end.billing.invoices["in_1"].payment_intent);
    }
    end
}

fn left(events: &[Value]) -> i64 {
    available(&Fold::of_seller(SELLER), &end_of(events), JANUARY + 90)
}

#[test]
fn a_refund_of_one_payment_of_several_takes_its_share_of_the_whole() {
    let paid_twice = [
        is_attached("pi_1"),
        is_attached("pi_2"),
        is_paid("pi_1", 500),
        is_paid("pi_2", 1500),
        told("invoice.paid", JANUARY, bill(2000)),
    ];
    let with = |more: &[Value]| left(&[&paid_twice[..], more].concat());
    assert_eq!(with(&[]), 500);
    assert_eq!(with(&[goes_back("pi_2", 1500)]), 125);
    assert_eq!(with(&[goes_back("pi_1", 500)]), 375);
    assert_eq!(with(&[goes_back("pi_1", 500), goes_back("pi_2", 1500)]), 0);
    // Rounded once, over all that went back: 1 and 3 of 2000 are a quarter and three quarters of a credit.
    assert_eq!(with(&[goes_back("pi_1", 1)]), 500);
    assert_eq!(with(&[goes_back("pi_1", 1), goes_back("pi_2", 3)]), 499);
}

/// Before 2025-03-31 payments said which invoice they were for, and the invoice named one of them.
#[test]
fn payments_that_name_their_invoice_are_all_counted() {
    let names_its_invoice = |id: &str, amount: i64| {
        let mut intent = intent(id, amount);
        intent["invoice"] = json!("in_1");
        told("payment_intent.succeeded", JANUARY, intent)
    };
    let mut bill = bill(2000);
    bill["payment_intent"] = json!("pi_2");
    let events = [
        names_its_invoice("pi_1", 500),
        names_its_invoice("pi_2", 1500),
        told("invoice.paid", JANUARY, bill),
        goes_back("pi_1", 500),
    ];
    let fold = Fold::of_seller(SELLER);
    let end = end_in_any_order(&fold, JANUARY + 90, &events);
    assert_eq!(available(&fold, &end, JANUARY + 90), 375);
}

/// Not every endpoint is sent the payments.
#[test]
fn a_refund_alone_is_a_share_of_the_invoice() {
    let events =
        [is_attached("pi_1"), is_attached("pi_2"), told("invoice.paid", JANUARY, bill(2000)), goes_back("pi_2", 1500)];
    assert_eq!(left(&events), 125);
}

#[test]
fn a_payment_that_was_canceled_pays_nothing_and_takes_nothing() {
    let mut bill = bill(2000);
    bill["payments"] = json!({"data": [attached("pi_a", "canceled"), attached("pi_b", "paid")]});
    let mut canceled = intent("pi_a", 2000);
    (canceled["status"], canceled["amount_received"]) = (json!("canceled"), json!(0));
    let events = [
        told("invoice.paid", JANUARY, bill.clone()),
        told("payment_intent.canceled", JANUARY, canceled),
        is_paid("pi_b", 2000),
        goes_back("pi_b", 2000),
    ];
    let fold = Fold::of_seller(SELLER);
    let end = end_in_any_order(&fold, JANUARY + 90, &events);
    assert_eq!(available(&fold, &end, JANUARY + 90), 0);
    assert_eq!(end.billing.invoices["in_1"].payment_intent.as_deref(), Some("pi_b"));
    // One that was detached may pay for something else.
    let detached = [
        told("invoice.created", JANUARY - 1, {
            let mut open = bill.clone();
            (open["status"], open["amount_paid"]) = (json!("open"), json!(0));
            open["payments"] = json!({"data": [attached("pi_a", "open")]});
            open
        }),
        told("invoice.paid", JANUARY, bill),
        is_paid("pi_a", 700),
        is_paid("pi_b", 2000),
        goes_back("pi_a", 700),
    ];
    let end = end_in_any_order(&fold, JANUARY + 90, &detached);
    assert_eq!(available(&fold, &end, JANUARY + 90), 500);
    assert_eq!(end.billing.invoices["in_1"].payment_intent.as_deref(), Some("pi_b"));
}

#[test]
fn what_came_from_the_balance_is_not_refunded_with_the_rest() {
    let events =
        [is_attached("pi_1"), is_paid("pi_1", 500), told("invoice.paid", JANUARY, bill(500)), goes_back("pi_1", 500)];
    assert_eq!(left(&events), 375, "a quarter was paid by card");
    // A credit note before the payment lowers the price itself.
    let mut noted = bill(1500);
    noted["pre_payment_credit_notes_amount"] = json!(500);
    let events =
        [is_attached("pi_1"), is_paid("pi_1", 1500), told("invoice.paid", JANUARY, noted), goes_back("pi_1", 1500)];
    assert_eq!(left(&events), 0);
}
