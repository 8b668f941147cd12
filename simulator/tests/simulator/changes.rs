//! Changes of subscriptions: what they cost, what previews say of them, and what schedules do later.

use serde_json::{Value, json};
use subledger_simulator::World;

use crate::support::{
    START, advance_days, advance_months, ask, call, customer_with, get, id, kinds, post, recorded, refusal, world,
};

/// A subscription to `basic` that began at the start, and its item; half of the period is over.
fn halfway(world: &mut World, quantity: i64) -> (String, String, i64) {
    let customer = customer_with(world, "pm_card_visa");
    let form = format!("customer={customer}&items[0][price]=price_basic&items[0][quantity]={quantity}");
    let subscription = post(world, "subscriptions", &form);
    assert_eq!(subscription["status"], "active");
    let item = id(&subscription["items"]["data"][0]);
    let end = subscription["items"]["data"][0]["current_period_end"].as_i64().expect("an end");
    world.advance_to(START + (end - START) / 2);
    (id(&subscription), item, end)
}

fn amounts(invoice: &Value) -> Vec<i64> {
    invoice["lines"]["data"].as_array().expect("lines").iter().filter_map(|line| line["amount"].as_i64()).collect()
}

#[test]
fn an_upgrade_that_is_invoiced_at_once_charges_the_difference() {
    let mut world = world();
    let (subscription, item, _) = halfway(&mut world, 1);
    let from = recorded(&world);
    let form = format!(
        "items[0][id]={item}&items[0][price]=price_pro&proration_behavior=always_invoice&expand[]=latest_invoice"
    );
    let changed = post(&mut world, &format!("subscriptions/{subscription}"), &form);
    let invoice = &changed["latest_invoice"];
    assert_eq!(amounts(invoice), [-500, 1_500]);
    assert_eq!(
        (invoice["billing_reason"].as_str(), invoice["status"].as_str()),
        (Some("subscription_update"), Some("paid"))
    );
    assert_eq!((invoice["total"].as_i64(), invoice["amount_paid"].as_i64()), (Some(1_000), Some(1_000)));
    let credited = &invoice["lines"]["data"][0]["parent"]["subscription_item_details"];
    assert_eq!(
        (credited["proration"].as_bool(), credited["subscription_item"].as_str()),
        (Some(true), Some(item.as_str()))
    );
    assert!(credited["proration_details"]["credited_items"]["invoice"].is_string());
    let kinds = kinds(&world, from);
    assert_eq!(kinds[..3], ["invoiceitem.created", "invoiceitem.created", "customer.subscription.updated"]);
    assert_eq!(kinds.last(), Some(&"invoice.payment_succeeded"));
    assert_eq!(changed["items"]["data"][0]["id"], item.as_str(), "the item stays the same one");
}

#[test]
fn prorations_wait_for_the_next_invoice() {
    let mut world = world();
    let (subscription, item, end) = halfway(&mut world, 3);
    post(&mut world, &format!("subscriptions/{subscription}"), &format!("items[0][id]={item}&items[0][quantity]=5"));
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    assert_eq!(amounts(&renewed["latest_invoice"]), [-1_499, 2_498, 4_995]);
    assert_eq!(renewed["latest_invoice"]["status"], "paid");
}

#[test]
fn a_change_without_prorations_costs_nothing_now() {
    let mut world = world();
    let (subscription, item, end) = halfway(&mut world, 1);
    let form = format!("items[0][id]={item}&items[0][price]=price_pro&proration_behavior=none");
    post(&mut world, &format!("subscriptions/{subscription}"), &form);
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    assert_eq!(amounts(&renewed["latest_invoice"]), [2_999]);
}

#[test]
fn another_interval_begins_a_new_period_now() {
    let mut world = world();
    let (subscription, item, _) = halfway(&mut world, 1);
    let form = format!("items[0][id]={item}&items[0][price]=price_yearly&expand[]=latest_invoice");
    let changed = post(&mut world, &format!("subscriptions/{subscription}"), &form);
    assert_eq!(amounts(&changed["latest_invoice"]), [-500, 29_000]);
    assert_eq!(changed["latest_invoice"]["amount_paid"], 28_500);
    let now = world.now();
    assert_eq!(changed["items"]["data"][0]["current_period_start"], now);
    assert_eq!(changed["billing_cycle_anchor"], now);
}

#[test]
fn a_downgrade_that_is_invoiced_at_once_leaves_a_balance_that_pays_later() {
    let mut world = world();
    let (subscription, item, _) = halfway(&mut world, 4);
    let form =
        format!("items[0][id]={item}&items[0][quantity]=1&proration_behavior=always_invoice&expand[]=latest_invoice");
    let changed = post(&mut world, &format!("subscriptions/{subscription}"), &form);
    let invoice = &changed["latest_invoice"];
    assert_eq!((invoice["total"].as_i64(), invoice["amount_due"].as_i64()), (Some(-1_498), Some(0)));
    assert_eq!(invoice["status"], "paid");
    let customer = changed["customer"].as_str().expect("a customer").to_owned();
    assert_eq!(get(&mut world, &format!("customers/{customer}"))["balance"], -1_498);
    advance_months(&mut world, 1);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    let invoice = &renewed["latest_invoice"];
    assert_eq!((invoice["total"].as_i64(), invoice["amount_due"].as_i64()), (Some(999), Some(0)));
    assert_eq!(get(&mut world, &format!("customers/{customer}"))["balance"], -499);
}

#[test]
fn a_preview_says_what_the_change_then_does() {
    for change in [
        "items[0][price]=price_pro&proration_behavior=always_invoice",
        "items[0][price]=price_pro&proration_behavior=create_prorations",
        "items[0][price]=price_pro&proration_behavior=none",
        "items[0][price]=price_yearly",
        "items[0][quantity]=7",
        "items[0][quantity]=1&proration_behavior=always_invoice",
    ] {
        let mut world = world();
        let (subscription, item, end) = halfway(&mut world, 2);
        let at = world.now();
        let form = change.split('&').map(|pair| {
            let (key, value) = pair.split_once('=').expect("a pair");
            let (first, rest) =
                key.split_once('[').map_or((key, String::new()), |(first, rest)| (first, format!("[{rest}")));
            format!("&subscription_details[{first}]{rest}={value}")
        });
        let details: String = form.collect();
        let events = recorded(&world);
        let preview = post(
            &mut world,
            "invoices/create_preview",
            &format!(
                "subscription={subscription}&subscription_details[items][0][id]={item}&subscription_details[proration_date]={at}{details}"
            ),
        );
        assert_eq!(recorded(&world), events, "a preview causes nothing");
        post(
            &mut world,
            &format!("subscriptions/{subscription}"),
            &format!("items[0][id]={item}&proration_date={at}&{change}"),
        );
        let mut invoice = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice")
            .body["latest_invoice"]
            .clone();
        if invoice["billing_reason"] != "subscription_update" {
            world.advance_to(end + 7_200);
            invoice = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body
                ["latest_invoice"]
                .clone();
        }
        assert_eq!(amounts(&preview), amounts(&invoice), "{change}");
        for key in ["total", "subtotal", "amount_due", "currency", "starting_balance", "customer"] {
            assert_eq!(preview[key], invoice[key], "{change}: {key}");
        }
    }
}

#[test]
fn a_subscription_ends_with_its_period_unless_it_is_kept() {
    let mut world = world();
    let (subscription, _, end) = halfway(&mut world, 1);
    let path = format!("subscriptions/{subscription}");
    let ending = post(&mut world, &path, "cancel_at_period_end=true");
    assert_eq!((ending["cancel_at"].as_i64(), ending["canceled_at"].as_i64()), (Some(end), Some(world.now())));
    let preview = refusal(&mut world, "POST", "invoices/create_preview", &format!("subscription={subscription}"));
    assert_eq!(preview.1["code"], "invoice_upcoming_none");
    let kept = post(&mut world, &path, "cancel_at_period_end=false");
    assert!(kept["cancel_at"].is_null() && kept["canceled_at"].is_null());
    post(&mut world, &path, "cancel_at_period_end=true");
    let from = recorded(&world);
    world.advance_to(end + 10);
    assert_eq!(kinds(&world, from), ["customer.subscription.deleted"]);
    let ended = get(&mut world, &path);
    assert_eq!((ended["status"].as_str(), ended["ended_at"].as_i64()), (Some("canceled"), Some(end)));
    assert_eq!(refusal(&mut world, "DELETE", &path, "").0, 404);
    assert_eq!(refusal(&mut world, "POST", &path, "cancel_at_period_end=true").0, 400);
}

#[test]
fn canceling_at_once_credits_only_when_asked() {
    let mut world = world();
    let (subscription, _, _) = halfway(&mut world, 1);
    let from = recorded(&world);
    let ended = call(&mut world, "DELETE", &format!("subscriptions/{subscription}"), "");
    assert_eq!(ended["status"], "canceled");
    assert_eq!(ended["cancellation_details"]["reason"], "cancellation_requested");
    assert_eq!(kinds(&world, from), ["customer.subscription.deleted"]);

    let (subscription, _, _) = {
        let mut other = crate::support::world();
        let made = halfway(&mut other, 2);
        world = other;
        made
    };
    call(&mut world, "DELETE", &format!("subscriptions/{subscription}"), "prorate=true&invoice_now=true");
    advance_days(&mut world, 1);
    let ended = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    assert_eq!(amounts(&ended["latest_invoice"]), [-999]);
}

#[test]
fn paused_collection_leaves_the_status_and_voids() {
    let mut world = world();
    let (subscription, _, end) = halfway(&mut world, 1);
    let path = format!("subscriptions/{subscription}");
    post(&mut world, &path, "pause_collection[behavior]=void");
    world.advance_to(end + 7_200);
    let paused = ask(&mut world, "GET", &path, "expand[]=latest_invoice").body;
    assert_eq!(
        (paused["status"].as_str(), paused["latest_invoice"]["status"].as_str()),
        (Some("active"), Some("void"))
    );
    let resumed = post(&mut world, &path, "pause_collection=");
    assert!(resumed["pause_collection"].is_null());
}

#[test]
fn a_schedule_downgrades_at_the_end_of_the_period_and_can_be_undone() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_visa");
    let made = post(&mut world, "subscriptions", &format!("customer={customer}&items[0][price]=price_pro"));
    let (subscription, period) = (id(&made), made["items"]["data"][0].clone());
    let (start, end) = (period["current_period_start"].clone(), period["current_period_end"].as_i64().expect("an end"));
    let schedule = post(&mut world, "subscription_schedules", &format!("from_subscription={subscription}"));
    let path = format!("subscription_schedules/{}", id(&schedule));
    let form = format!(
        "end_behavior=release&phases[0][items][0][price]=price_pro&phases[0][items][0][quantity]=1&phases[0][start_date]={start}\
         &phases[0][end_date]={end}&phases[1][items][0][price]=price_basic&phases[1][items][0][quantity]=1\
         &phases[1][iterations]=1&phases[1][proration_behavior]=none"
    );
    let planned = post(&mut world, &path, &form);
    assert_eq!(planned["phases"].as_array().map(Vec::len), Some(2));
    assert_eq!(get(&mut world, &format!("subscriptions/{subscription}"))["schedule"], schedule["id"]);
    let ending = refusal(&mut world, "POST", &format!("subscriptions/{subscription}"), "cancel_at_period_end=true");
    assert_eq!(ending.0, 400, "a schedule manages its end");
    let undone = {
        let mut other = world.clone();
        post(&mut other, &format!("{path}/release"), "");
        other.advance_to(end + 7_200);
        get(&mut other, &format!("subscriptions/{subscription}"))
    };
    assert_eq!(undone["items"]["data"][0]["price"]["id"], "price_pro");
    assert!(undone["schedule"].is_null());

    let from = recorded(&world);
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    assert_eq!(renewed["items"]["data"][0]["price"]["id"], "price_basic");
    assert_eq!(renewed["items"]["data"][0]["id"], period["id"]);
    assert_eq!(amounts(&renewed["latest_invoice"]), [999]);
    let seen = kinds(&world, from);
    assert_eq!(
        seen[1..4],
        ["invoice.created", "customer.subscription.updated", "subscription_schedule.updated"],
        "{seen:?}"
    );
    advance_months(&mut world, 1);
    let released = get(&mut world, &path);
    assert_eq!(
        (released["status"].as_str(), &released["released_subscription"]),
        (Some("released"), &subscription.into())
    );
}

#[test]
fn discounts_come_and_go() {
    let mut world = world();
    post(&mut world, "coupons", "id=fifth&percent_off=20&duration=forever");
    let (subscription, _, end) = halfway(&mut world, 1);
    let path = format!("subscriptions/{subscription}");
    let code = id(&post(&mut world, "promotion_codes", "promotion[type]=coupon&promotion[coupon]=fifth&code=FIFTH"));
    let changed = post(&mut world, &path, &format!("discounts[0][promotion_code]={code}&expand[]=discounts"));
    assert_eq!(changed["discounts"][0]["promotion_code"], code.as_str());
    assert_eq!(changed["discounts"][0]["source"]["coupon"], "fifth");
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &path, "expand[]=latest_invoice").body;
    assert_eq!(
        (renewed["latest_invoice"]["subtotal"].as_i64(), renewed["latest_invoice"]["total"].as_i64()),
        (Some(999), Some(799))
    );
    assert_eq!(post(&mut world, &path, "discounts=")["discounts"], serde_json::json!([]));
    assert_eq!(
        refusal(&mut world, "POST", &path, "discounts[0][promotion_code]=promo_none").1["code"],
        "resource_missing"
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut world = world();
    let (subscription, item, _) = halfway(&mut world, 1);
    let path = format!("subscriptions/{subscription}");
    let before = (get(&mut world, &path), recorded(&world));
    for form in [
        format!("metadata[a]=1&items[0][id]={item}&items[0][price]=price_none"),
        format!("metadata[a]=1&items[0][id]={item}&items[0][price]=price_pack"),
        "metadata[a]=1&items[0][id]=si_none&items[0][price]=price_pro".to_owned(),
        format!("metadata[a]=1&items[0][id]={item}&items[0][deleted]=true"),
        "metadata[a]=1&trial_end=5".to_owned(),
        "metadata[a]=1&cancel_at=5".to_owned(),
        "metadata[a]=1&default_payment_method=pm_none".to_owned(),
    ] {
        assert_eq!(refusal(&mut world, "POST", &path, &form).0, 400, "{form}");
        assert_eq!((get(&mut world, &path), recorded(&world)), before, "{form}");
    }
}

#[test]
fn a_trial_can_be_made_longer_and_ended() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_visa");
    let made = post(
        &mut world,
        "subscriptions",
        &format!("customer={customer}&items[0][price]=price_pro&trial_period_days=7"),
    );
    let path = format!("subscriptions/{}", id(&made));
    let later = START + 20 * 86_400;
    let longer = post(&mut world, &path, &format!("trial_end={later}&expand[]=latest_invoice"));
    assert_eq!(
        (longer["status"].as_str(), longer["items"]["data"][0]["current_period_end"].as_i64()),
        (Some("trialing"), Some(later))
    );
    let invoice = &longer["latest_invoice"];
    assert_eq!((&invoice["billing_reason"], &invoice["status"]), (&json!("subscription_update"), &json!("paid")));
    assert_eq!(amounts(invoice), [0]);
    advance_days(&mut world, 10);
    assert_eq!(get(&mut world, &path)["status"], "trialing");
    let ended = post(&mut world, &path, "trial_end=now&expand[]=latest_invoice");
    assert_eq!(
        (ended["status"].as_str(), ended["latest_invoice"]["amount_paid"].as_i64()),
        (Some("active"), Some(2_999))
    );
}

#[test]
fn a_trial_that_is_set_on_a_running_subscription_gives_the_rest_back_and_moves_the_billing_date() {
    for (behavior, credited) in [("create_prorations", true), ("none", false)] {
        let mut world = world();
        let (subscription, _, end) = halfway(&mut world, 1);
        let (path, now) = (format!("subscriptions/{subscription}"), START + (end - START) / 2);
        let trial_end = end + 10 * 86_400;
        let form = format!("trial_end={trial_end}&proration_behavior={behavior}&expand[]=latest_invoice");
        let trial = post(&mut world, &path, &form);
        assert_eq!(
            (&trial["status"], &trial["billing_cycle_anchor"], &trial["trial_start"]),
            (&json!("trialing"), &json!(trial_end), &json!(now))
        );
        let invoice = &trial["latest_invoice"];
        assert_eq!((&invoice["billing_reason"], &invoice["status"]), (&json!("subscription_update"), &json!("paid")));
        let amounts = amounts(invoice);
        assert_eq!((amounts[0] < 0, amounts.last(), amounts.len()), (credited, Some(&0), 1 + usize::from(credited)));
        let line = invoice["lines"]["data"].as_array().and_then(|lines| lines.last()).expect("a line");
        assert_eq!(line["period"], json!({"start": now, "end": trial_end}));
        world.advance_to(trial_end);
        assert_eq!(get(&mut world, &path)["status"], "active");
    }
}

#[test]
fn what_was_discounted_is_credited_and_charged_with_its_discount() {
    let mut world = world();
    post(&mut world, "coupons", "id=half&percent_off=50&duration=forever");
    let customer = customer_with(&mut world, "pm_card_visa");
    let form = format!("customer={customer}&items[0][price]=price_basic&discounts[0][coupon]=half");
    let made = post(&mut world, "subscriptions", &form);
    let item = &made["items"]["data"][0];
    let end = item["current_period_end"].as_i64().expect("an end");
    world.advance_to(START + (end - START) / 2);
    let form = format!(
        "items[0][id]={}&items[0][price]=price_pro&proration_behavior=always_invoice&expand[]=latest_invoice",
        id(item)
    );
    let changed = post(&mut world, &format!("subscriptions/{}", id(&made)), &form);
    let amounts = amounts(&changed["latest_invoice"]);
    assert!((amounts[0] + 250).abs() <= 1 && (amounts[1] - 750).abs() <= 1, "{amounts:?}");
}

#[test]
fn a_schedule_may_end_its_subscription() {
    let mut world = world();
    let (subscription, _, end) = halfway(&mut world, 1);
    post(&mut world, "subscription_schedules", &format!("from_subscription={subscription}&end_behavior=cancel"));
    let from = recorded(&world);
    world.advance_to(end + 7_200);
    let seen = kinds(&world, from);
    assert!(seen.contains(&"customer.subscription.deleted") && !seen.contains(&"invoice.created"), "{seen:?}");
    assert_eq!(get(&mut world, &format!("subscriptions/{subscription}"))["ended_at"], end);
}

#[test]
fn a_phase_that_begins_within_a_period_is_prorated_if_it_says_so() {
    for (behavior, items) in [("create_prorations", 2), ("none", 0)] {
        let mut world = world();
        let (subscription, _, end) = halfway(&mut world, 1);
        let schedule = post(&mut world, "subscription_schedules", &format!("from_subscription={subscription}"));
        let turn = world.now() + 86_400;
        let form = format!(
            "phases[0][items][0][price]=price_basic&phases[0][items][0][quantity]=1&phases[0][start_date]={START}\
             &phases[0][end_date]={turn}&phases[1][items][0][price]=price_pro&phases[1][items][0][quantity]=1\
             &phases[1][end_date]={end}&phases[1][proration_behavior]={behavior}"
        );
        post(&mut world, &format!("subscription_schedules/{}", id(&schedule)), &form);
        let from = recorded(&world);
        world.advance_to(turn);
        let seen = kinds(&world, from);
        assert_eq!(seen.iter().filter(|kind| **kind == "invoiceitem.created").count(), items, "{behavior}: {seen:?}");
        let changed = get(&mut world, &format!("subscriptions/{subscription}"));
        assert_eq!(changed["items"]["data"][0]["price"]["id"], "price_pro", "{behavior}");
    }
}
