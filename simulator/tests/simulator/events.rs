//! Events and answers: what they tell of the state before, how long they are kept, and which version's shape they have.

use serde_json::Value;
use subledger_simulator::{ApiVersion, World};

use crate::support::{
    advance_days, advance_months, ask, get, id, newest, post, recorded, refusal, request, subscribe, subscription_of,
    world,
};

fn old() -> ApiVersion {
    ApiVersion::parse("2024-06-20").expect("a version")
}

#[test]
fn a_change_tells_what_was_before_in_the_receivers_shape() {
    let mut world = world();
    let subscription = format!("subscriptions/{}", subscription_of(&subscribe(&mut world, "price_basic", "")));
    let started = get(&mut world, &subscription)["items"]["data"][0]["current_period_start"].clone();
    let from = recorded(&world);
    post(&mut world, &subscription, "cancel_at_period_end=true");
    let told = world.events_from(from)[0].render(&newest());
    assert_eq!(told["data"]["previous_attributes"]["cancel_at_period_end"], false);
    post(&mut world, &subscription, "cancel_at_period_end=false");

    let from = recorded(&world);
    advance_months(&mut world, 1);
    let is_renewal = |event: &Value| event["data"]["previous_attributes"]["latest_invoice"].is_string();
    let events = world.events_from(from);
    let renewed = events.iter().find(|event| is_renewal(&event.render(&newest()))).expect("a renewal");
    let previous = renewed.render(&newest())["data"]["previous_attributes"].clone();
    assert_eq!(previous["items"]["data"][0]["current_period_start"], started);
    let previous = renewed.render(&old())["data"]["previous_attributes"].clone();
    assert_eq!(previous["current_period_start"], started);
    assert!(previous.get("items").is_none(), "nothing else of them has changed: {previous}");
}

#[test]
fn events_are_kept_for_thirty_days() {
    let mut world = world();
    post(&mut world, "customers", "");
    let listed = |world: &mut World| ask(world, "GET", "events", "type=customer.created").body["data"].clone();
    let event = id(&listed(&mut world)[0]);
    advance_days(&mut world, 29);
    assert_eq!(get(&mut world, &format!("events/{event}"))["id"], event);
    advance_days(&mut world, 2);
    assert_eq!(listed(&mut world), Value::Array(Vec::new()));
    assert_eq!(refusal(&mut world, "GET", &format!("events/{event}"), "").0, 404);
}

fn hidden(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| hidden(value, found)),
        Value::Object(fields) => {
            found.extend(fields.keys().filter(|key| key.starts_with('_')).cloned());
            fields.values().for_each(|value| hidden(value, found));
        }
        _ => {}
    }
}

#[test]
fn what_is_kept_beside_objects_is_never_shown() {
    let mut world = world();
    subscribe(&mut world, "price_basic", "");
    let mut found = Vec::new();
    for path in ["checkout/sessions", "subscriptions", "invoices", "payment_intents", "charges", "payment_methods"] {
        let list = ask(&mut world, "GET", path, "").body;
        assert!(list["data"][0].is_object(), "{path}: {list}");
        hidden(&list, &mut found);
    }
    for version in [newest(), old()] {
        world.events_from(0).iter().for_each(|event| hidden(&event.render(&version), &mut found));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn an_answer_has_the_shape_of_the_version_asked_for() {
    let mut world = world();
    post(&mut world, "coupons", "id=half&percent_off=50&duration=forever");
    let session = subscribe(&mut world, "price_basic", "&discounts[0][coupon]=half");
    let path = format!("subscriptions/{}", subscription_of(&session));
    let mut shown = |version: Option<&str>| {
        let mut asked = request("GET", &path, "expand[]=discounts&expand[]=latest_invoice");
        asked.version = version.map(|version| ApiVersion::parse(version).expect("a version"));
        world.handle(&asked).body
    };
    let now = shown(None);
    assert!(now["current_period_end"].is_null() && now["items"]["data"][0]["current_period_end"].is_i64());
    assert_eq!(now["discounts"][0]["source"]["coupon"], "half");
    let basil = shown(Some("2025-08-27.basil"));
    assert!(basil["current_period_end"].is_null());
    assert_eq!(basil["discounts"][0]["coupon"]["id"], "half");
    let old = shown(Some("2024-06-20"));
    assert!(old["current_period_start"].is_i64() && old["current_period_end"].is_i64());
    assert!(old["items"]["data"][0]["current_period_end"].is_null());
    assert_eq!(old["latest_invoice"]["lines"]["data"][0]["proration"], false);
}
