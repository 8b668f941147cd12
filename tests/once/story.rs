//! A customer's story for one delivery: with ids of its own, so that a database can hold it many times, and with one of
//! the ways in which a customer and an account find each other.

use serde_json::{Value, json};
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Billing;
use subledger::domain::command::{Command, decide};
use subledger::domain::credit::Credits;
use subledger::domain::draft::{Context, Draft};
use subledger::domain::ids::AccountId;
use subledger::domain::settle::credits_at;
use subledger::stripe::translate::{self, Settings};

use super::support::lifecycle::{self, Lifecycle};
use super::support::shuffle::{Random, delivery_order};

/// What says whose the customer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The events themselves.
    Told,
    /// The caller alone, with a PUT.
    Put,
    /// Both.
    ToldAndPut,
    /// Nobody: the customer keeps its own stream.
    Never,
}

/// One delivery of a story.
#[derive(Debug)]
pub struct Story {
    pub name: String,
    pub seed: u64,
    pub link: Link,
    /// The caller's own id for the account.
    pub account: String,
    /// Bodies of the StripeEvents, in the order they happened.
    pub bodies: Vec<String>,
    pub ids: Vec<String>,
    pub expect: Value,
    /// In what order they are delivered; `None`: here the caller links.
    pub order: Vec<Option<usize>>,
}

const PREFIXES: &[&str] = &[
    "evt_", "cus_", "gcus_", "sub_", "in_", "pi_", "py_", "ch_", "cs_", "du_", "dp_", "re_", "pyr_", "pm_", "card_",
    "si_", "il_", "ii_", "cn_", "txn_", "seti_", "user_",
];

/// Tags every id of a story, and every e-mail address. At the front: Stripe refers to an invoice by the first letters of
/// its id.
fn rename(value: &mut Value, tag: &str) {
    match value {
        Value::String(text) => {
            let prefix = PREFIXES.iter().find(|prefix| text.starts_with(**prefix));
            if let Some(place) = prefix.map(|prefix| prefix.len()).or(text.contains('@').then_some(0)) {
                text.insert_str(place, tag);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, tag)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, tag)),
        _ => {}
    }
}

/// The account that a body names.
fn claim_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get("user_id").or(fields.get("client_reference_id")) {
            Some(Value::String(account)) => Some(account.clone()),
            _ => fields.values().find_map(claim_in),
        },
        Value::Array(items) => items.iter().find_map(claim_in),
        _ => None,
    }
}

/// Takes out all that names the account.
fn hush(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("client_reference_id");
            fields.remove("user_id");
            fields.values_mut().for_each(hush);
        }
        Value::Array(items) => items.iter_mut().for_each(hush),
        _ => {}
    }
}

impl Story {
    pub fn new(lifecycle: &Lifecycle, copy: usize, seed: u64) -> Self {
        let mut random = Random(seed ^ 0x5eed);
        let has = |section: &str| !lifecycle.expect[section].as_array().is_none_or(Vec::is_empty);
        // Without a customer there is nothing to link; without a payment either, only the account's name leads there.
        let ways = match (has("customers"), has("payments")) {
            (true, _) => &[Link::Told, Link::Never, Link::Put, Link::ToldAndPut][..],
            (false, true) => &[Link::Told, Link::Never],
            (false, false) => &[Link::Told],
        };
        let link = ways[random.below(ways.len())];
        let tag = format!("z{copy}z{seed}");
        let mut expect = lifecycle.expect.clone();
        rename(&mut expect, &tag);
        let mut events = lifecycle.events.clone();
        events.iter_mut().for_each(|event| rename(event, &tag));
        let account = events.iter().find_map(claim_in).unwrap_or_else(|| format!("user_{tag}"));
        for event in &mut events {
            if matches!(link, Link::Put | Link::Never) {
                hush(event);
            }
        }
        let mut order: Vec<Option<usize>> = delivery_order(events.len(), seed).into_iter().map(Some).collect();
        if matches!(link, Link::Put | Link::ToldAndPut) {
            order.insert(random.below(order.len() + 1), None);
        }
        let ids = events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
        let bodies = events.iter().map(Value::to_string).collect();
        Self { name: lifecycle.name.clone(), seed, link, account, bodies, ids, expect, order }
    }

    pub fn customers(&self) -> impl Iterator<Item = &str> {
        self.expect["customers"].as_array().into_iter().flatten().filter_map(|customer| customer["id"].as_str())
    }

    /// A name that the end can be asked by: a Stripe id if there is one.
    pub fn reference(&self) -> &str {
        let payment = self.expect["payments"][0]["payment_intent"].as_str();
        self.customers().next().or(payment).unwrap_or(&self.account)
    }
}

/// What is left of a story in the end.
#[derive(Debug, PartialEq)]
pub struct End {
    pub billing: Billing,
    pub credits: Credits,
}

/// What the story must end in: its events in order, folded into one account.
pub fn end_in_order(story: &Story, account: &AccountId, context: Context<'_>) -> End {
    let keys = ["user_id".to_owned()];
    let mut account = Account::new(account.clone());
    let mut changes = Changes::default();
    for body in &story.bodies {
        let (event, value) = translate::parse(body.as_bytes()).expect("an envelope");
        let facts = translate::translate(&event, &value, Settings { account_metadata_keys: &keys });
        let Some(facts) = facts.expect("translatable") else { continue };
        let observe = Command::Observe { observations: facts.observations, link: None, reconciled: None };
        decide(&mut Draft::new(&mut account, &mut changes), &observe, context).expect("never refused");
    }
    let credits = credits_at(&account.id, &account.credits, context);
    End { billing: *account.billing.expect("loaded"), credits }
}

impl End {
    pub fn assert_facts(&self, story: &Story) {
        let (got, want) = (lifecycle::facts_of(&self.billing), lifecycle::expected_facts(&story.expect));
        for section in want.as_object().expect("sections").keys() {
            assert_eq!(got[section], want[section], "{section} of {}", story.hint());
        }
    }
}

impl Story {
    /// Enough to play it again.
    pub fn hint(&self) -> String {
        format!("{} with seed {} ({:?}), order {:?}", self.name, self.seed, self.link, self.order)
    }

    /// The expectation in the fields of the GET routes.
    pub fn expected_answers(&self) -> Value {
        let pick = |section: &str, names: &[(&str, &str)]| pick(&self.expect[section], names);
        json!({
            "subscriptions": pick("subscriptions", &[("id", "stripe_subscription_id"), ("status", "status"),
                ("cancel_at_period_end", "cancel_at_period_end"), ("latest_invoice", "latest_invoice")]),
            "invoices": pick("invoices", &[("id", "stripe_invoice_id"), ("status", "status"), ("total", "total"),
                ("amount_paid", "amount_paid"), ("amount_remaining", "amount_remaining")]),
            "payments": pick("payments", &[("payment_intent", "stripe_payment_intent_id"), ("status", "status"),
                ("amount_received", "amount_received"), ("amount_refunded", "amount_refunded"),
                ("amount_lost_in_dispute", "amount_lost_in_dispute")]),
            "credit-purchases": pick("credit_packs", &[("checkout_session", "stripe_checkout_session_id"),
                ("credits", "credits"), ("status", "status"), ("amount_refunded", "amount_refunded")]),
        })
    }
}

/// Some fields of each row, under other names, sorted.
fn pick(rows: &Value, names: &[(&str, &str)]) -> Value {
    let rows = rows.as_array().into_iter().flatten();
    let picked =
        rows.map(|row| Value::Object(names.iter().map(|(from, to)| ((*to).to_owned(), row[*from].clone())).collect()));
    let mut picked: Vec<Value> = picked.collect();
    picked.sort_by_key(Value::to_string);
    Value::Array(picked)
}

/// Answers of the GET routes, in the fields of an expectation.
pub fn answers_like(want: &Value, route: &str, rows: &Value) -> Value {
    let first = want[route].as_array().and_then(|rows| rows.first());
    let Some(fields) = first.and_then(Value::as_object) else { return rows.clone() };
    let names: Vec<(&str, &str)> = fields.keys().map(|name| (name.as_str(), name.as_str())).collect();
    pick(rows, &names)
}

/// Now, in Unix seconds.
pub fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// A customer comes to be.
pub fn customer_event(n: usize, customer: &str) -> Value {
    json!({"id": format!("evt_created_{n}_{customer}"), "object": "event", "created": now(), "livemode": false,
        "type": "customer.created", "data": {"object": {"id": customer, "object": "customer", "created": now()}}})
}

/// Somebody buys a pack of credits as a guest: the event alone says who, what and how much.
pub fn sale(id: &str, account: &str, credits: i64) -> Value {
    json!({"id": format!("evt_{id}"), "object": "event", "created": 1_770_000_000, "livemode": false,
        "type": "checkout.session.completed", "data": {"object": {"id": format!("cs_{id}"),
        "object": "checkout.session", "mode": "payment", "status": "complete", "payment_status": "paid",
        "client_reference_id": account, "payment_intent": format!("pi_{id}"), "amount_total": 1_000,
        "currency": "usd", "created": 1_770_000_000,
        "metadata": {"kind": "credit_pack", "credits": credits.to_string()}}}})
}
