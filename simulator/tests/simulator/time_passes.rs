//! Renewals, warnings, and the record of events.

use subledger_simulator::{Settings, time};

use crate::support::{
    advance_days, advance_months, ask, customer_with, get, id, kinds, post, recorded, shared, subscribe,
    subscription_of, world, world_with,
};

#[test]
fn renewals_come_in_stripes_order() {
    let mut world = world();
    let session = subscribe(&mut world, "price_pro", "");
    let from = recorded(&world);
    advance_months(&mut world, 3);
    advance_days(&mut world, 1);
    let one = [
        "invoice.upcoming",
        "invoice.created",
        "customer.subscription.updated",
        "invoice.finalized",
        "invoice.updated",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.updated",
        "invoice.paid",
        "invoice_payment.paid",
        "invoice.payment_succeeded",
    ];
    assert_eq!(kinds(&world, from), one.repeat(3));
    if let Some(path) = shared("stripe-events/lifecycles/basil/monthly_renewal_x3.jsonl") {
        let text = std::fs::read_to_string(path).expect("readable");
        let kind = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"].clone();
        let expected: Vec<_> = text.lines().map(kind).collect();
        assert_eq!(kinds(&world, 0)[kinds(&world, 0).len() - expected.len()..], expected[..]);
    }
    let subscription = subscription_of(&session);
    let invoices = ask(&mut world, "GET", "invoices", &format!("subscription={subscription}")).body;
    let reasons: Vec<_> =
        invoices["data"].as_array().expect("data").iter().map(|invoice| invoice["billing_reason"].clone()).collect();
    assert_eq!(reasons, ["subscription_cycle", "subscription_cycle", "subscription_cycle", "subscription_create"]);
    let numbers: Vec<_> = invoices["data"]
        .as_array()
        .expect("data")
        .iter()
        .map(|invoice| invoice["number"].as_str().map(|number| number[number.len() - 4..].to_owned()))
        .collect();
    assert_eq!(numbers.iter().flatten().collect::<Vec<_>>(), ["0004", "0003", "0002", "0001"]);
}

#[test]
fn an_invoice_is_a_draft_for_an_hour() {
    let mut world = world();
    let session = subscribe(&mut world, "price_pro", "");
    let path = format!("subscriptions/{}", subscription_of(&session));
    let end = get(&mut world, &path)["items"]["data"][0]["current_period_end"].as_i64().expect("an end");
    world.advance_to(end);
    let draft = ask(&mut world, "GET", &path, "expand[]=latest_invoice").body["latest_invoice"].clone();
    assert_eq!(
        (draft["status"].as_str(), draft["automatically_finalizes_at"].as_i64()),
        (Some("draft"), Some(end + 3_600))
    );
    assert!(draft["number"].is_null() && draft["hosted_invoice_url"].is_null());
    world.advance_to(end + 3_600);
    let paid = get(&mut world, &format!("invoices/{}", id(&draft)));
    assert_eq!((paid["status"].as_str(), paid["attempt_count"].as_i64()), (Some("paid"), Some(1)));
    assert!(paid["hosted_invoice_url"].as_str().is_some_and(|url| url.starts_with("http://")));
}

#[test]
fn a_trial_warns_three_days_before() {
    let mut world = world();
    subscribe(&mut world, "price_pro", "&subscription_data[trial_period_days]=10");
    let from = recorded(&world);
    advance_days(&mut world, 6);
    assert!(!kinds(&world, from).contains(&"customer.subscription.trial_will_end"));
    advance_days(&mut world, 1);
    assert!(kinds(&world, from).contains(&"customer.subscription.trial_will_end"));
}

#[test]
fn a_trial_without_a_card_ends_as_it_was_told() {
    for (behavior, status) in [("cancel", "canceled"), ("pause", "paused")] {
        let mut world = world();
        let customer = id(&post(&mut world, "customers", ""));
        let form = format!(
            "customer={customer}&items[0][price]=price_pro&trial_period_days=5&trial_settings[end_behavior][missing_payment_method]={behavior}"
        );
        let path = format!("subscriptions/{}", id(&post(&mut world, "subscriptions", &form)));
        advance_days(&mut world, 6);
        assert_eq!(get(&mut world, &path)["status"], status);
        if status == "paused" {
            let method = id(&post(&mut world, "payment_methods/pm_card_visa/attach", &format!("customer={customer}")));
            post(&mut world, &path, &format!("default_payment_method={method}"));
            let resumed =
                post(&mut world, &format!("{path}/resume"), "billing_cycle_anchor=now&expand[]=latest_invoice");
            assert_eq!(
                (resumed["status"].as_str(), resumed["latest_invoice"]["status"].as_str()),
                (Some("active"), Some("paid"))
            );
        }
    }
}

#[test]
fn events_are_listed_for_thirty_days() {
    let mut world = world_with(Settings { upcoming_days: 0, ..Settings::default() });
    subscribe(&mut world, "price_pro", "");
    let all = ask(&mut world, "GET", "events", "limit=100").body["data"].as_array().map_or(0, Vec::len);
    assert_eq!(all, recorded(&world));
    let invoices = ask(&mut world, "GET", "events", "limit=100&types[]=invoice.*").body;
    assert!(
        invoices["data"]
            .as_array()
            .expect("data")
            .iter()
            .all(|event| event["type"].as_str().is_some_and(|kind| kind.starts_with("invoice.")))
    );
    let newest = &invoices["data"][0];
    assert_eq!(newest["type"], "invoice.payment_succeeded");
    assert_eq!(get(&mut world, &format!("events/{}", id(newest)))["data"], newest["data"]);
    let since = world.now();
    advance_months(&mut world, 1);
    let recent = ask(&mut world, "GET", "events", &format!("limit=100&created[gt]={since}")).body;
    assert_eq!(recent["data"].as_array().map(Vec::len), Some(2));
    advance_days(&mut world, 40);
    let later = ask(&mut world, "GET", "events", "limit=100").body;
    assert!(
        later["data"]
            .as_array()
            .expect("data")
            .iter()
            .all(|event| event["created"].as_i64() > Some(world.now() - 30 * time::DAY_S))
    );
}

#[test]
fn a_thousand_subscriptions_renew_in_no_time() {
    let mut world = world();
    for _ in 0..1_000 {
        let customer = customer_with(&mut world, "pm_card_visa");
        post(&mut world, "subscriptions", &format!("customer={customer}&items[0][price]=price_basic"));
    }
    let before = std::time::Instant::now();
    advance_months(&mut world, 2);
    println!("two months of a thousand subscriptions: {:?}", before.elapsed());
    let paid = world.objects("invoice").filter(|invoice| invoice["status"] == "paid").count();
    assert_eq!(paid, 2_000, "the last ones are drafts");
}
