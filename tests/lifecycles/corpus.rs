//! Real notifications of forty API versions, which nobody on this project wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use subledger::domain::stripe_object::StripeObject;
use subledger::stripe::translate::{self, Facts, Family, Settings, TranslateError};

use crate::support::lifecycle::shared_folder;

/// What is no notification of Stripe's: samples that were cut by hand, and what is wrong with them.
const GARBAGE: &[(&str, &str)] = &[
    (
        "arlyon-async-stripe/2024-06-20/entitlements.active_entitlement_summary.updated.2",
        "data.object.customer: is missing",
    ),
    // An upcoming invoice in the place of a customer.
    ("stripe-openapi/2017-02-14/customer.created", "data.object.id: is missing"),
    ("stripe-openapi/2017-06-05/customer.created", "data.object.id: is missing"),
    ("stripe-ruby-mock-stripe-ruby-mock/unversioned/invoice.finalized", "data.object.id: is missing"),
    ("stripe-ruby-mock-stripe-ruby-mock/unversioned/invoice.finalized.2", "data.object.id: is missing"),
    ("stripe-ruby-mock-stripe-ruby-mock/unversioned/invoice.paid", "data.object.id: is missing"),
];

pub type Reading = Result<Option<Facts>, TranslateError>;

pub fn read(body: &[u8]) -> Reading {
    let keys = vec!["user_id".to_owned()];
    let (event, value) = translate::parse(body)?;
    translate::translate(&event, &value, Settings { account_metadata_keys: &keys })
}

#[test]
fn every_real_notification_is_read_and_garbage_is_refused_by_field() {
    let Some(bodies) = Bodies::read() else { return };
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let (mut known, mut unknown) = (0, 0);
    for (name, body) in &bodies.0 {
        let reading = read(body);
        assert_eq!(reading, read(body), "{name} means two things");
        match reading {
            Ok(Some(_)) => known += 1,
            Ok(None) => {
                unknown += 1;
                let (event, _) = translate::parse(body).expect("read before");
                // A preview outside a subscription says nothing that the ledger keeps.
                let is_preview = event.event_type == "invoice.upcoming";
                assert!(is_preview || Family::of(&event.event_type).is_none(), "{name} is passed over");
            }
            Err(error) => drop(refused.insert(name.clone(), error.to_string())),
        }
    }
    println!("{known} known, {unknown} of other types or without a subscription, {} refused", refused.len());
    let garbage = GARBAGE.iter().map(|(name, problem)| ((*name).to_owned(), (*problem).to_owned()));
    assert_eq!(refused, garbage.collect());
}

#[test]
fn a_real_notification_is_read_as_it_says_whatever_its_version() {
    let Some(bodies) = Bodies::read() else { return };
    for (name, body) in &bodies.0 {
        let Ok(Some(facts)) = read(body) else { continue };
        let event: Value = serde_json::from_slice(body).expect("read before");
        let object = &event["data"]["object"];
        match &facts.observations[0].object {
            StripeObject::Subscription(subscription) => {
                let item = |key: &str| text(object, &["items", "data", "0", key, "id"]);
                let price = item("price").or(item("plan")).or(text(object, &["plan", "id"]));
                assert_eq!(subscription.items.first().map(|item| item.price.id.clone()), price, "price of {name}");
                let quantity = number(object, &["items", "data", "0", "quantity"]).or(number(object, &["quantity"]));
                assert_eq!(subscription.items.first().map(|item| item.quantity), quantity.or(Some(1)), "{name}");
                let end = number(object, &["items", "data", "0", "current_period_end"]);
                let end = end.or(number(object, &["current_period_end"]));
                assert_eq!(subscription.current_period_end, end, "period of {name}");
                assert!(end.is_some(), "every subscription has a period: {name}");
                assert_eq!(Some(subscription.status.clone()), text(object, &["status"]), "status of {name}");
            }
            StripeObject::Invoice(invoice) => {
                let parent = text(object, &["parent", "subscription_details", "subscription"]);
                let subscription = parent.or(text(object, &["subscription"]));
                assert_eq!(invoice.subscription, subscription, "subscription of {name}");
                assert_eq!(Some(invoice.total), number(object, &["total"]), "total of {name}");
                assert_eq!(Some(invoice.amount_due), number(object, &["amount_due"]), "amount due of {name}");
                let paid = object["paid"].as_bool() == Some(true) || object["status"] == "paid";
                assert_eq!(invoice.status == "paid", paid, "status of {name}");
                let lines = object["lines"]["data"].as_array().expect("lines");
                for (line, told) in invoice.lines.iter().zip(lines) {
                    let priced = text(told, &["pricing", "price_details", "price"]);
                    let price = priced.or(text(told, &["price", "id"])).or(text(told, &["plan", "id"]));
                    assert_eq!(line.price, price, "price of a line of {name}");
                    assert_eq!(Some(line.amount), number(told, &["amount"]), "amount of a line of {name}");
                    assert_eq!(Some(line.period_end), number(told, &["period", "end"]), "period of a line of {name}");
                    let of_subscription = told["type"] == "subscription";
                    let named = line.subscription.is_some() || subscription.is_some();
                    assert!(!of_subscription || named, "whose line is it, in {name}?");
                }
            }
            StripeObject::Charge(charge) => {
                let by_flag = if object["paid"] == true { "succeeded" } else { "failed" };
                let status = object["status"].as_str().unwrap_or(by_flag);
                assert_eq!(charge.status, status, "status of {name}");
                assert_eq!(Some(charge.amount_refunded), number(object, &["amount_refunded"]).or(Some(0)), "{name}");
            }
            StripeObject::PaymentIntent(intent) => {
                let status = object["status"].as_str().map(|status| status.replace("source", "payment_method"));
                assert_eq!(Some(intent.status.clone()), status, "status of {name}");
            }
            _ => {}
        }
    }
}

fn text(value: &Value, path: &[&str]) -> Option<String> {
    value.pointer(&format!("/{}", path.join("/"))).and_then(Value::as_str).map(str::to_owned)
}

fn number(value: &Value, path: &[&str]) -> Option<i64> {
    value.pointer(&format!("/{}", path.join("/"))).and_then(Value::as_i64)
}

/// Name and body of each notification.
pub struct Bodies(pub Vec<(String, Vec<u8>)>);

impl Bodies {
    pub fn read() -> Option<Self> {
        let root = shared_folder()?.join("events");
        let mut bodies = Vec::new();
        for path in files_in(&root) {
            let name = path.strip_prefix(&root).expect("inside").with_extension("");
            bodies.push((name.to_string_lossy().into_owned(), std::fs::read(&path).expect("a readable body")));
        }
        assert!(bodies.len() > 1000, "the collection has {}", bodies.len());
        Some(Self(bodies))
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            paths.extend(files_in(&path));
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}
