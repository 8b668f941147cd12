//! The shape of every object: as async-stripe's types read it, as Stripe's samples have it, and as recorded events show it.

use std::collections::{BTreeMap, BTreeSet};

use miniserde::{Deserialize, json};
use serde_json::Value;
use stripe_shared as typed;
use subledger_simulator::{ApiVersion, Card, World};

use crate::support::{
    advance_days, advance_months, ask, customer_with, entered, get, id, newest, post, shared, subscribe,
    subscription_of, world,
};

/// Keys of Stripe's samples that recorded objects of these versions do not have, or that hold something else there.
const NOT_HELD: [&str; 14] = [
    "charge.refunds",
    "invoice.subscription",
    "line_item.subscription",
    // Of lines that credit a line; those here credit an invoice.
    "credit_note.lines.data.invoice_line_item",
    "credit_note_line_item.invoice_line_item",
    "invoice.lines.data.subscription",
    // Metered items have none.
    "subscription.items.data.quantity",
    "subscription_item.quantity",
    // Ids, where the sample has whole objects.
    "customer.discount",
    "subscription_schedule.phases.items.plan",
    "subscription.default_source",
    // Only with an option that is never set here.
    "subscription.billing_thresholds",
    "charge.source",
    "payment_intent.source",
];

/// A world in which everything there is has happened.
fn full() -> World {
    let mut world = world();
    post(&mut world, "coupons", "id=half&percent_off=50&duration=forever&name=Half");
    post(&mut world, "promotion_codes", "promotion[type]=coupon&promotion[coupon]=half&code=HALF");
    let meter =
        id(&post(&mut world, "billing/meters", "display_name=Calls&event_name=calls&default_aggregation[formula]=sum"));
    let metered = format!(
        "currency=usd&product=prod_pro&unit_amount=2&recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}"
    );
    let metered = id(&post(&mut world, "prices", &metered));

    let session = subscribe(&mut world, "price_basic", "&discounts[0][coupon]=half");
    let subscription = subscription_of(&session);
    let customer = session["customer"].as_str().expect("a customer").to_owned();
    post(&mut world, "billing_portal/sessions", &format!("customer={customer}&return_url=https://a.example"));
    subscribe(&mut world, "price_pro", "&subscription_data[trial_period_days]=14");
    let form = "mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=1&success_url=https://a.example/";
    let pack = id(&post(&mut world, "checkout/sessions", form));
    let _ = world.pay_session(&pack, &entered(Card::Declines));
    world.pay_session(&pack, &entered(Card::Good)).expect("payable");
    post(&mut world, "checkout/sessions", form);
    advance_days(&mut world, 5);
    let item = id(&get(&mut world, &format!("subscriptions/{subscription}"))["items"]["data"][0]);
    post(
        &mut world,
        &format!("subscriptions/{subscription}"),
        &format!("items[0][id]={item}&items[0][price]=price_pro"),
    );
    let schedule = post(&mut world, "subscription_schedules", &format!("from_subscription={subscription}"));
    assert_eq!(schedule["status"], "active");
    let other = customer_with(&mut world, "pm_card_visa");
    let made = post(
        &mut world,
        "subscriptions",
        &format!("customer={other}&items[0][price]={metered}&items[1][price]=price_basic"),
    );
    post(
        &mut world,
        "billing/meter_events",
        &format!("event_name=calls&payload[stripe_customer_id]={other}&payload[value]=5"),
    );
    let declining = customer_with(&mut world, "pm_card_chargeCustomerFail");
    post(&mut world, "subscriptions", &format!("customer={declining}&items[0][price]=price_pro"));
    advance_months(&mut world, 1);
    advance_days(&mut world, 1);
    let invoice =
        get(&mut world, &format!("subscriptions/{}", id(&made)))["latest_invoice"].as_str().expect("one").to_owned();
    post(&mut world, "credit_notes", &format!("invoice={invoice}&amount=10&refund_amount=10"));
    let charge = ask(&mut world, "GET", "charges", &format!("customer={other}")).body["data"][0].clone();
    post(&mut world, "refunds", &format!("charge={}&amount=5", id(&charge)));
    world.dispute(&id(&charge)).expect("disputable");
    post(&mut world, &format!("subscriptions/{subscription}"), "pause_collection[behavior]=void");
    post(&mut world, "webhook_endpoints", "url=https://a.example&enabled_events[]=*");
    world.change_card(&customer, Card::Declines).expect("a customer");
    advance_months(&mut world, 2);
    world
}

/// Every object as it is and as each event shows it, by kind.
fn objects(world: &mut World, version: &ApiVersion) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in world.events_from(0) {
        collect(&event.render(version)["data"]["object"], &mut found);
    }
    for (path, form) in [
        ("checkout/sessions", "expand[]=data.line_items"),
        ("webhook_endpoints", ""),
        ("payment_methods", ""),
        ("subscriptions", "status=all&expand[]=data.discounts"),
        ("coupons", ""),
        ("promotion_codes", ""),
    ] {
        let list = ask(world, "GET", path, form).body;
        assert!(list["data"].as_array().is_some_and(|data| !data.is_empty()), "{path}: {list}");
        collect(&list, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut BTreeMap<String, Vec<Value>>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => {
            fields.values().for_each(|value| collect(value, found));
            if let Some(kind) = value["object"].as_str().filter(|kind| *kind != "list") {
                found.entry(kind.to_owned()).or_default().push(value.clone());
            }
        }
        _ => {}
    }
}

fn parses<T: Deserialize>(object: &str) -> bool {
    json::from_str::<T>(object).is_ok()
}

fn is_read(kind: &str, object: &str) -> Option<bool> {
    Some(match kind {
        "billing.meter" => parses::<stripe_billing::BillingMeter>(object),
        "billing_portal.session" => parses::<stripe_billing::BillingPortalSession>(object),
        "charge" => parses::<typed::Charge>(object),
        "checkout.session" => parses::<typed::CheckoutSession>(object),
        "coupon" => parses::<typed::Coupon>(object),
        "credit_note" => parses::<typed::CreditNote>(object),
        "customer" => parses::<typed::Customer>(object),
        "discount" => parses::<typed::Discount>(object),
        "dispute" => parses::<typed::Dispute>(object),
        "invoice" => parses::<typed::Invoice>(object),
        "invoice_payment" => parses::<typed::InvoicePayment>(object),
        "item" => parses::<typed::CheckoutSessionItem>(object),
        "line_item" => parses::<typed::InvoiceLineItem>(object),
        "payment_intent" => parses::<typed::PaymentIntent>(object),
        "payment_method" => parses::<typed::PaymentMethod>(object),
        "price" => parses::<typed::Price>(object),
        "product" => parses::<typed::Product>(object),
        "promotion_code" => parses::<typed::PromotionCode>(object),
        "refund" => parses::<typed::Refund>(object),
        "setup_intent" => parses::<typed::SetupIntent>(object),
        "subscription" => parses::<typed::Subscription>(object),
        "subscription_item" => parses::<typed::SubscriptionItem>(object),
        "subscription_schedule" => parses::<typed::SubscriptionSchedule>(object),
        _ => return None,
    })
}

#[test]
fn async_stripes_types_read_every_object() {
    let mut world = full();
    let mut read = BTreeMap::new();
    for (kind, objects) in objects(&mut world, &newest()) {
        for object in objects {
            // What is upcoming has no id, at Stripe neither.
            if kind == "invoice" && object["id"].is_null() {
                continue;
            }
            match is_read(&kind, &object.to_string()) {
                Some(true) => *read.entry(kind.clone()).or_insert(0) += 1,
                Some(false) => panic!("{kind} is not read: {}", serde_json::to_string_pretty(&object).expect("JSON")),
                None => {}
            }
        }
    }
    println!("read: {read:?}");
    assert!(read.len() >= 22, "{read:?}");
}

/// Where an object differs from a sample: a key that it lacks, or a value of another type.
fn differences(path: &str, sample: &Value, object: &Value, found: &mut BTreeSet<String>) {
    if NOT_HELD.contains(&path) || path.ends_with(".metadata") {
        return;
    }
    match (sample, object) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(sample), Value::Object(fields)) => {
            for (key, value) in sample {
                let inner = format!("{path}.{key}");
                match fields.get(key) {
                    Some(shown) => differences(&inner, value, shown, found),
                    None if NOT_HELD.contains(&inner.as_str()) => {}
                    None => {
                        found.insert(format!("{inner} is missing"));
                    }
                }
            }
        }
        (Value::Array(sample), Value::Array(values)) => {
            for (value, shown) in values.iter().flat_map(|shown| sample.first().map(|value| (value, shown))) {
                differences(path, value, shown, found);
            }
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        _ => {
            found.insert(format!("{path} is {object}, not like {sample}"));
        }
    }
}

#[test]
fn every_object_has_the_keys_of_stripes_sample() {
    let Some(samples) = shared("stripe-openapi/fixtures3.json") else { return };
    let samples: Value = serde_json::from_str(&std::fs::read_to_string(samples).expect("readable")).expect("JSON");
    let mut world = full();
    let (mut found, mut held) = (BTreeSet::new(), BTreeSet::new());
    for (kind, objects) in objects(&mut world, &newest()) {
        let sample = &samples["resources"][kind.as_str()];
        if sample.is_null() {
            continue;
        }
        held.insert(kind.clone());
        for object in objects.iter().filter(|object| !(kind == "invoice" && object["id"].is_null())) {
            differences(&kind, sample, object, &mut found);
        }
    }
    assert!(held.len() >= 22, "{held:?}");
    assert!(found.is_empty(), "{}", found.into_iter().collect::<Vec<_>>().join("\n"));
}

/// What is recorded of bank debits, of invoice items made by hand, and of what is settled days later.
const NOT_SIMULATED: [&str; 5] = [
    "sepa_debit",
    "invoice_item_details.",
    "subscription_schedule.phases.coupon",
    "credit_note.lines.data.invoice_line_item",
    "refund.destination_details.card.reference",
];

/// The keys of an object, those of the objects within it too; lists count as one.
fn keys(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| keys(path, value, found)),
        Value::Object(fields) if !path.ends_with(".metadata") => {
            for (key, inner) in fields {
                let path = format!("{path}.{key}");
                keys(&path, inner, found);
                found.insert(path);
            }
        }
        _ => {}
    }
}

#[test]
fn events_have_the_keys_of_those_composed_from_recordings() {
    let Some(folder) = shared("stripe-events/lifecycles") else { return };
    let mut world = full();
    for (shape, version) in [("pre-basil", "2024-06-20"), ("dahlia", "2026-03-25.dahlia")] {
        let version = ApiVersion::parse(version).expect("a version");
        let ours = objects(&mut world, &version);
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in std::fs::read_dir(folder.join(shape)).expect("a folder").flatten() {
            if entry.path().extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            for line in std::fs::read_to_string(entry.path()).expect("readable").lines() {
                let event: Value = serde_json::from_str(line).expect("JSON");
                let object = &event["data"]["object"];
                let kind = object["object"].as_str().expect("a kind");
                keys(kind, object, expected.entry(kind.to_owned()).or_default());
            }
        }
        let mut missing = Vec::new();
        for (kind, expected) in &expected {
            let Some(objects) = ours.get(kind) else { continue };
            let mut have = BTreeSet::new();
            objects.iter().for_each(|object| keys(kind, object, &mut have));
            // What is null here has nothing within it to compare.
            let is_within = |path: &&String| {
                let parent = path.rsplit_once('.').map_or(kind.as_str(), |(parent, _)| parent);
                parent == kind || have.iter().any(|other| other.starts_with(&format!("{parent}.")))
            };
            let is_known = |path: &&String| !NOT_SIMULATED.iter().any(|part| path.contains(part));
            missing.extend(expected.difference(&have).filter(is_within).filter(is_known).cloned());
        }
        assert!(missing.is_empty(), "{shape}:\n{}", missing.join("\n"));
    }
}
