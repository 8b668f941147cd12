//! Lifecycles of customers as files: `name.jsonl` holds the StripeEvents, `name.expect.json` the facts they end in.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use subledger::domain::billing::Billing;
use subledger::domain::credit::{Credits, Lot, LotSource};
use subledger::domain::payment::Payment;

/// A customer's whole story.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    pub name: String,
    pub events: Vec<Value>,
    pub expect: Value,
}

impl Lifecycle {
    /// Reads a story and its expectation.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a readable lifecycle");
        let expect = std::fs::read_to_string(path.with_extension("expect.json")).expect("its expectation");
        let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Self {
            name: format!("{}/{}", folder.unwrap_or_default(), stem.unwrap_or_default()),
            events: text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect(),
            expect: serde_json::from_str(&expect).expect("facts"),
        }
    }
}

/// Where the large collection lies beside a development checkout, if it does.
pub fn shared_folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/stripe-events");
    let named = std::env::var_os("SUBLEDGER_SHARED").map(PathBuf::from);
    let folder = named.unwrap_or(beside);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no collection of StripeEvents at {}; only this repository's own are played", folder.display());
    None
}

/// All stories at hand: this repository's own, and the large collection where it is there.
pub fn all() -> Vec<Lifecycle> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lifecycles");
    let mut folders = vec![own];
    if let Some(shared) = shared_folder() {
        folders.extend(["pre-basil", "basil", "dahlia"].map(|shape| shared.join("lifecycles").join(shape)));
    }
    let mut stories = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        paths.sort();
        stories.extend(paths.iter().map(|path| Lifecycle::read(path)));
    }
    // The sellers' catalogs tell of no customer.
    stories.retain(|story| story.expect.get("subscriptions").is_some());
    stories
}

/// The sections of an expectation that a consumer must end with, sorted, in the collection's own names.
pub fn expected_facts(expect: &Value) -> Value {
    let section = |name: &str, drop: &[&str]| {
        let mut rows: Vec<Value> = expect[name].as_array().cloned().unwrap_or_default();
        for row in &mut rows {
            let fields = row.as_object_mut().expect("an object");
            fields.retain(|key, _| !drop.contains(&key.as_str()));
        }
        sorted(rows)
    };
    json!({
        "customers": section("customers", &["email", "user_id"]),
        "subscriptions": section("subscriptions", &["price_key", "list_amount_per_month"]),
        "invoices": section("invoices", &[]),
        "payments": section("payments", &[]),
        "credit_packs": section("credit_packs", &["customer", "client_reference_id"]),
        "credit_notes": section("credit_notes", &[]),
    })
}

/// The same sections out of an account's state.
pub fn facts_of(billing: &Billing) -> Value {
    let customers = billing.customers.values().map(|tracked| {
        let customer = &tracked.current;
        json!({"id": customer.id, "deleted": customer.deleted, "delinquent": customer.delinquent,
               "currency": customer.currency})
    });
    let subscriptions = billing.subscriptions.values().map(|tracked| {
        let subscription = &tracked.current;
        let item = &subscription.items[0];
        json!({"id": subscription.id, "customer": subscription.customer, "status": subscription.status,
            "price": item.price.id, "product": item.price.product, "unit_amount": item.price.unit_amount,
            "currency": subscription.currency, "interval": item.price.interval,
            "interval_count": item.price.interval_count, "quantity": item.quantity,
            "current_period_start": subscription.current_period_start,
            "current_period_end": subscription.current_period_end,
            "cancel_at_period_end": subscription.cancel_at_period_end, "cancel_at": subscription.cancel_at,
            "canceled_at": subscription.canceled_at, "ended_at": subscription.ended_at,
            "trial_end": subscription.trial_end,
            "pause_collection": subscription.pause_collection.as_ref().map(|pause| &pause.behavior),
            "latest_invoice": subscription.latest_invoice, "schedule": subscription.schedule})
    });
    let invoices = billing.invoices.values().filter_map(|record| {
        let invoice = record.current()?;
        Some(json!({"id": invoice.id, "customer": invoice.customer, "subscription": invoice.subscription,
            "billing_reason": invoice.billing_reason, "currency": invoice.currency, "status": invoice.status,
            "total": invoice.total, "tax": invoice.tax, "amount_due": invoice.amount_due,
            "amount_paid": invoice.amount_paid, "amount_remaining": invoice.amount_remaining,
            "pre_payment_credit_notes_amount": invoice.pre_payment_credit_notes_amount,
            "post_payment_credit_notes_amount": invoice.post_payment_credit_notes_amount,
            "payment_intent": record.payment_intent}))
    });
    let payments = billing.payments.iter().map(|(id, payment)| {
        json!({"payment_intent": id, "charge": payment.last_charge_id(), "customer": customer_of(payment),
            "invoice": payment.stripe_invoice_id, "checkout_session": payment.stripe_checkout_session_id,
            "currency": payment.currency(), "amount": payment.amount(), "status": payment.status(),
            "charge_attempts": payment.charges.len(), "amount_received": payment.amount_received(),
            "amount_refunded": payment.amount_refunded(),
            "dispute": payment.last_dispute().map(|dispute| &dispute.status),
            "amount_lost_in_dispute": payment.amount_lost_in_dispute()})
    });
    let packs = billing.checkout_sessions.values().filter_map(|record| {
        let session = &record.session.current;
        // A session that nobody completed sold nothing.
        let order = session.order.as_ref().filter(|_| session.status.as_deref() == Some("complete"))?;
        Some(json!({"checkout_session": session.id, "payment_intent": session.payment_intent,
            "credits": order.credits, "currency": session.currency, "amount": session.amount_total,
            "status": record.status(), "amount_refunded": record.amount_refunded}))
    });
    let notes = billing.credit_notes.values().map(|tracked| {
        let note = &tracked.current;
        json!({"id": note.id, "invoice": note.invoice, "amount": note.amount, "currency": note.currency,
            "type": note.kind, "status": note.status})
    });
    json!({
        "customers": sorted(customers.collect()),
        "subscriptions": sorted(subscriptions.collect()),
        "invoices": sorted(invoices.collect()),
        "payments": sorted(payments.collect()),
        "credit_packs": sorted(packs.collect()),
        "credit_notes": sorted(notes.collect()),
    })
}

/// The credits that an expectation states, if it does (`tests/fixtures/lifecycles/README.md`).
pub fn expected_credits(expect: &Value) -> Option<Value> {
    let mut credits = expect.get("credits")?.clone();
    let lots = credits["lots"].as_array().cloned().unwrap_or_default();
    credits["lots"] = sorted(lots);
    Some(credits)
}

/// The same section out of an account's state at `now`.
pub fn credits_of(billing: &Billing, credits: &Credits, now: DateTime<Utc>) -> Value {
    let of_facts = |lot: &&Lot| lot.source != LotSource::FreePlan;
    let row = |lot: &Lot| {
        json!({"source": lot.source, "cause": lot.cause, "granted": lot.granted, "remaining": lot.remaining,
            "clawed_back": lot.clawed_back, "expired": lot.expired,
            "expires_at": lot.expires_at.map(|at| at.timestamp())})
    };
    let usable = credits.lots.iter().filter(of_facts).filter(|lot| lot.is_usable_at(now));
    let available = usable.map(|lot| lot.remaining).sum::<i64>() - credits.debt;
    let free = credits.lots.iter().find(|lot| lot.source == LotSource::FreePlan && lot.is_usable_at(now));
    json!({
        "lots": sorted(credits.lots.iter().chain(billing.closed_lots.values()).filter(of_facts).map(row).collect()),
        "debt": credits.debt,
        "available": available,
        "free_plan_until": free.and_then(|lot| lot.expires_at).map(|at| at.timestamp()),
    })
}

fn customer_of(payment: &Payment) -> Option<String> {
    let intent = payment.intent.as_ref().and_then(|intent| intent.current.customer.clone());
    intent.or_else(|| payment.last_charge().and_then(|charge| charge.customer.clone()))
}

fn sorted(mut rows: Vec<Value>) -> Value {
    rows.sort_by_key(|row| row.to_string());
    Value::Array(rows)
}
