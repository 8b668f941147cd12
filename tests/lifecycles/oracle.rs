//! What we read out of a notification, beside what async-stripe's own types read out of it.
//!
//! Those types are generated from Stripe's published description of the current API version, so they take only bodies of
//! recent ones; of these we must say the same.

use std::collections::BTreeMap;

use miniserde::json;
use serde_json::Value;
use stripe_shared as typed;
use subledger::domain::stripe_object::{Invoice, StripeObject, Subscription};

use crate::corpus::{Bodies, read};
use crate::support::lifecycle::{self, shared_folder};

/// Bodies of each kind that must have been compared at the least: else this test has gone blind.
const COMPARED: [(&str, usize); 8] = [
    ("charge", 200),
    ("credit_note", 2),
    ("customer", 200),
    ("dispute", 20),
    ("invoice", 250),
    ("payment_intent", 300),
    ("refund", 20),
    ("subscription", 150),
];

#[test]
fn our_reading_agrees_with_the_typed_one() {
    let Some(Bodies(mut bodies)) = Bodies::read() else { return };
    for lifecycle in lifecycle::all() {
        let events = lifecycle.events.iter().map(|event| (lifecycle.name.clone(), event.to_string().into_bytes()));
        bodies.extend(events);
    }
    let templates = templates();
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, body) in &bodies {
        let Ok(Some(facts)) = read(body) else { continue };
        let event: Value = serde_json::from_slice(body).expect("read before");
        let object = complete(&event["data"]["object"], &templates).to_string();
        for observation in &facts.observations {
            if let Some(kind) = compare(name, &observation.object, &object) {
                *compared.entry(kind).or_default() += 1;
            }
        }
    }
    println!("compared: {compared:?}");
    for (kind, least) in COMPARED {
        assert!(compared.get(kind).copied().unwrap_or(0) >= least, "{kind}: {compared:?}");
    }
}

/// Stripe's own samples of whole objects, by kind.
fn templates() -> Value {
    let folder = shared_folder().expect("it was there for the bodies").with_file_name("stripe-openapi");
    let text = std::fs::read_to_string(folder.join("fixtures3.json")).expect("readable samples");
    serde_json::from_str::<Value>(&text).expect("JSON")["resources"].take()
}

/// Fills in what the typed reading cannot do without and a body written for tests leaves out; never what is compared.
fn complete(object: &Value, templates: &Value) -> Value {
    const COMPARED_FIELDS: [&str; 9] = [
        "cancel_at",
        "canceled_at",
        "ended_at",
        "trial_end",
        "current_period_start",
        "current_period_end",
        "items",
        "lines",
        "price",
    ];
    // The typed readings of the others ask for less.
    let kind =
        object["object"].as_str().filter(|kind| matches!(*kind, "subscription" | "subscription_item" | "dispute"));
    let Some(Value::Object(template)) = kind.map(|kind| &templates[kind]) else {
        return object.clone();
    };
    let mut whole = object.clone();
    if let Value::Object(fields) = &mut whole {
        for (key, value) in template.iter().filter(|(key, _)| !COMPARED_FIELDS.contains(&key.as_str())) {
            fields.entry(key).or_insert_with(|| value.clone());
        }
        if let Some(Value::Array(items)) = fields.get_mut("items").and_then(|items| items.get_mut("data")) {
            for item in items {
                let completed = complete(item, templates);
                *item = completed;
            }
        }
    }
    whole
}

/// Answers the kind of object that was compared; `None` if the typed reading does not take the body.
fn compare(name: &str, ours: &StripeObject, object: &str) -> Option<&'static str> {
    match ours {
        StripeObject::Invoice(ours) => {
            compare_invoices(name, ours, &json::from_str(object).ok()?);
            Some("invoice")
        }
        StripeObject::Subscription(ours) => {
            compare_subscriptions(name, ours, &json::from_str(object).ok()?);
            Some("subscription")
        }
        StripeObject::Charge(ours) => {
            let theirs: typed::Charge = json::from_str(object).ok()?;
            assert_eq!(ours.id, theirs.id.as_str(), "{name}");
            assert_eq!((ours.amount, ours.amount_refunded), (theirs.amount, theirs.amount_refunded), "{name}");
            assert_eq!(ours.status, theirs.status.as_str(), "{name}");
            assert_eq!(ours.currency, theirs.currency.to_string(), "{name}");
            assert_eq!(ours.disputed, theirs.disputed, "{name}");
            let intent = theirs.payment_intent.as_ref().map(|intent| intent.id().to_string());
            assert_eq!(ours.payment_intent, intent, "{name}");
            Some("charge")
        }
        StripeObject::PaymentIntent(ours) => {
            let theirs: typed::PaymentIntent = json::from_str(object).ok()?;
            assert_eq!((ours.amount, ours.amount_received), (theirs.amount, theirs.amount_received), "{name}");
            // Old API versions say "source" where newer ones say "payment_method"; we say it the new way.
            assert_eq!(ours.status, theirs.status.as_str().replace("source", "payment_method"), "{name}");
            assert_eq!(ours.customer, theirs.customer.as_ref().map(|customer| customer.id().to_string()), "{name}");
            Some("payment_intent")
        }
        StripeObject::Refund(ours) => {
            let theirs: typed::Refund = json::from_str(object).ok()?;
            assert_eq!((&ours.currency, ours.amount), (&theirs.currency.to_string(), theirs.amount), "{name}");
            assert_eq!(Some(&ours.status), theirs.status.as_ref(), "{name}");
            assert_eq!(ours.charge, theirs.charge.as_ref().map(|charge| charge.id().to_string()), "{name}");
            Some("refund")
        }
        StripeObject::Dispute(ours) => {
            let theirs: typed::Dispute = json::from_str(object).ok()?;
            assert_eq!((ours.amount, ours.status.as_str()), (theirs.amount, theirs.status.as_str()), "{name}");
            assert_eq!(ours.charge, Some(theirs.charge.id().to_string()), "{name}");
            Some("dispute")
        }
        StripeObject::CreditNote(ours) => {
            let theirs: typed::CreditNote = json::from_str(object).ok()?;
            assert_eq!((ours.amount, ours.status.as_str()), (theirs.amount, theirs.status.as_str()), "{name}");
            assert_eq!(ours.invoice, theirs.invoice.id().as_ref().map(ToString::to_string), "{name}");
            Some("credit_note")
        }
        StripeObject::Customer(ours) => {
            let theirs: typed::Customer = json::from_str(object).ok()?;
            assert_eq!(ours.id, theirs.id.as_str(), "{name}");
            assert_eq!(ours.currency, theirs.currency.map(|currency| currency.to_string()), "{name}");
            Some("customer")
        }
        _ => None,
    }
}

fn compare_invoices(name: &str, ours: &Invoice, theirs: &typed::Invoice) {
    let due = (theirs.amount_due, theirs.amount_paid, theirs.amount_remaining);
    assert_eq!((ours.amount_due, ours.amount_paid, ours.amount_remaining), due, "{name}");
    assert_eq!((ours.total, ours.subtotal), (theirs.total, theirs.subtotal), "{name}");
    assert_eq!(Some(ours.status.as_str()), theirs.status.as_ref().map(|status| status.as_str()), "{name}");
    assert_eq!(ours.billing_reason.as_deref(), theirs.billing_reason.as_ref().map(|reason| reason.as_str()), "{name}");
    assert_eq!(ours.customer, theirs.customer.as_ref().map(|customer| customer.id().to_string()), "{name}");
    let details = theirs.parent.as_ref().and_then(|parent| parent.subscription_details.as_ref());
    assert_eq!(ours.subscription, details.map(|details| details.subscription.id().to_string()), "{name}");
    assert_eq!(ours.lines.len(), theirs.lines.data.len(), "{name}");
    for (ours, theirs) in ours.lines.iter().zip(&theirs.lines.data) {
        assert_eq!((ours.id.as_str(), ours.amount), (theirs.id.as_str(), theirs.amount), "{name}");
        assert_eq!((ours.period_start, ours.period_end), (theirs.period.start, theirs.period.end), "{name}");
    }
}

fn compare_subscriptions(name: &str, ours: &Subscription, theirs: &typed::Subscription) {
    assert_eq!(ours.status, theirs.status.as_str(), "{name}");
    assert_eq!(ours.customer, Some(theirs.customer.id().to_string()), "{name}");
    assert_eq!(ours.cancel_at_period_end, theirs.cancel_at_period_end, "{name}");
    let ends = (theirs.cancel_at, theirs.canceled_at, theirs.ended_at, theirs.trial_end);
    assert_eq!((ours.cancel_at, ours.canceled_at, ours.ended_at, ours.trial_end), ends, "{name}");
    assert_eq!(ours.items.len(), theirs.items.data.len(), "{name}");
    for (item, theirs) in ours.items.iter().zip(&theirs.items.data) {
        assert_eq!(
            (item.id.as_str(), item.price.id.as_str()),
            (theirs.id.as_str(), theirs.price.id.as_str()),
            "{name}"
        );
        assert_eq!(Some(item.quantity), theirs.quantity.and_then(|quantity| i64::try_from(quantity).ok()), "{name}");
        let period = (Some(theirs.current_period_start), Some(theirs.current_period_end));
        // An item says its period only where it is another than the subscription's.
        let start = item.current_period_start.or(ours.current_period_start);
        let end = item.current_period_end.or(ours.current_period_end);
        assert_eq!((start, end), period, "{name}");
        assert_eq!(item.price.unit_amount, theirs.price.unit_amount, "{name}");
        assert_eq!(item.price.currency, Some(theirs.price.currency.to_string()), "{name}");
    }
}
