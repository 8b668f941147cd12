//! Checkout: what completing, declining and expiring a session causes, in which order and shape.

use serde_json::Value;
use subledger_simulator::{ApiVersion, Card, Outcome};

use crate::support::{
    advance_days, ask, entered, get, id, kinds, newest, post, recorded, refusal, shared, subscribe, subscription_of,
    world,
};

/// The kinds of a recorded lifecycle's events, in causal order.
fn lifecycle(name: &str) -> Option<Vec<String>> {
    let text =
        std::fs::read_to_string(shared(&format!("stripe-events/lifecycles/basil/{name}.jsonl"))?).expect("readable");
    let kind =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["type"].as_str().expect("a type").to_owned();
    Some(text.lines().map(kind).collect())
}

#[test]
fn a_sign_up_causes_what_it_causes_at_stripe() {
    let mut world = world();
    let from = recorded(&world);
    let session = subscribe(&mut world, "price_pro", "");
    assert_eq!((session["status"].as_str(), session["payment_status"].as_str()), (Some("complete"), Some("paid")));
    assert_eq!(
        (session["amount_total"].as_i64(), session["client_reference_id"].as_str()),
        (Some(2_999), Some("user_1"))
    );
    assert!(session["customer"].is_string() && session["url"].is_null());
    if let Some(expected) = lifecycle("signup_checkout") {
        assert_eq!(kinds(&world, from), expected);
    }
    let statuses: Vec<Value> = world
        .events_from(from)
        .iter()
        .filter(|event| event.kind.starts_with("customer.subscription"))
        .map(|event| event.render(&newest())["data"]["object"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["incomplete", "active"]);
}

#[test]
fn a_trial_needs_no_payment() {
    let mut world = world();
    let from = recorded(&world);
    let session = subscribe(&mut world, "price_pro", "&subscription_data[trial_period_days]=14");
    assert_eq!(
        (session["payment_status"].as_str(), session["amount_total"].as_i64()),
        (Some("no_payment_required"), Some(0))
    );
    if let Some(expected) = lifecycle("signup_trial_converts") {
        let count = kinds(&world, from).len();
        assert_eq!(kinds(&world, from), expected[..count]);
    }
    let subscription = get(&mut world, &format!("subscriptions/{}", subscription_of(&session)));
    assert_eq!(subscription["status"], "trialing");
    assert_eq!(subscription["trial_end"], subscription["items"]["data"][0]["current_period_end"]);
    advance_days(&mut world, 15);
    if let Some(expected) = lifecycle("signup_trial_converts") {
        let seen: Vec<&str> = kinds(&world, from).into_iter().filter(|kind| *kind != "invoice.upcoming").collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_pack_is_paid_once() {
    let mut world = world();
    let from = recorded(&world);
    let form = "mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=3&success_url=https://a.example/done\
        &metadata[kind]=credit_pack&payment_intent_data[metadata][order]=7";
    let session = id(&post(&mut world, "checkout/sessions", form));
    assert_eq!(world.pay_session(&session, &entered(Card::Declines)), Ok(Outcome::Declined { code: "card_declined" }));
    assert_eq!(get(&mut world, &format!("checkout/sessions/{session}"))["status"], "open");
    assert_eq!(world.pay_session(&session, &entered(Card::Good)), Ok(Outcome::Completed));
    let expected = [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
        "charge.updated",
    ];
    assert_eq!(kinds(&world, from), expected);
    let session = ask(
        &mut world,
        "GET",
        &format!("checkout/sessions/{session}"),
        "expand[]=payment_intent.latest_charge&expand[]=line_items",
    )
    .body;
    assert_eq!((session["payment_status"].as_str(), session["amount_total"].as_i64()), (Some("paid"), Some(3_000)));
    assert_eq!(session["payment_intent"]["metadata"]["order"], "7");
    assert_eq!(session["payment_intent"]["latest_charge"]["amount"], 3_000);
    assert_eq!(session["line_items"]["data"][0]["quantity"], 3);
    assert!(session["customer"].is_null(), "a guest");
    assert_eq!(session["customer_details"]["email"], "ada@example.com");
    assert!(world.pay_session(session["id"].as_str().expect("id"), &entered(Card::Good)).is_err(), "once");
}

#[test]
fn a_bank_payment_is_settled_later() {
    for succeeds in [true, false] {
        let mut world = world();
        let form =
            "mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=1&success_url=https://a.example/";
        let session = id(&post(&mut world, "checkout/sessions", form));
        world.pay_session(&session, &entered(Card::SettlesLater)).expect("payable");
        assert_eq!(get(&mut world, &format!("checkout/sessions/{session}"))["payment_status"], "unpaid");
        let from = recorded(&world);
        world.settle_session(&session, succeeds).expect("pending");
        let last = kinds(&world, from).last().copied();
        let expected =
            if succeeds { "checkout.session.async_payment_succeeded" } else { "checkout.session.async_payment_failed" };
        assert_eq!(last, Some(expected));
    }
}

#[test]
fn sessions_expire_after_a_day_or_when_told() {
    let mut world = world();
    let form = "mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=1&success_url=https://a.example/";
    let session = id(&post(&mut world, "checkout/sessions", form));
    let told = id(&post(&mut world, "checkout/sessions", form));
    post(&mut world, &format!("checkout/sessions/{told}/expire"), "");
    assert_eq!(refusal(&mut world, "POST", &format!("checkout/sessions/{told}/expire"), "").0, 400);
    let from = recorded(&world);
    advance_days(&mut world, 1);
    assert_eq!(kinds(&world, from), ["checkout.session.expired"]);
    assert_eq!(get(&mut world, &format!("checkout/sessions/{session}"))["status"], "expired");
    assert!(world.pay_session(&session, &entered(Card::Good)).is_err());
}

#[test]
fn sessions_that_make_no_sense_are_refused() {
    let mut world = world();
    let good = "success_url=https://a.example/&line_items[0][quantity]=1";
    for (form, param) in [
        (format!("mode=payment&line_items[0][price]=price_pro&{good}"), "mode"),
        (format!("mode=subscription&line_items[0][price]=price_pack&{good}"), "line_items"),
        (format!("mode=payment&line_items[0][price]=price_none&{good}"), "line_items[0][price]"),
        (format!("mode=payment&line_items[0][price]=prod_pack&{good}"), "line_items[0][price]"),
        (format!("mode=payment&{good}"), "line_items[0][price]"),
        ("mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=1".to_owned(), "success_url"),
        (format!("mode=payment&line_items[0][price]=price_pack&{good}&cancel_url=nowhere"), "cancel_url"),
        (format!("mode=payment&line_items[0][price]=price_pack&{good}&expires_at=5"), "expires_at"),
        (format!("mode=payment&line_items[0][price]=price_pack&{good}&customer=cus_none"), "customer"),
    ] {
        let (status, error) = refusal(&mut world, "POST", "checkout/sessions", &form);
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{form}: {error}");
    }
}

#[test]
fn promotion_codes_are_entered_on_the_page() {
    let mut world = world();
    post(&mut world, "coupons", "id=half&percent_off=50&duration=once");
    post(&mut world, "promotion_codes", "promotion[type]=coupon&promotion[coupon]=half&code=HALF");
    let form = "mode=subscription&line_items[0][price]=price_pro&line_items[0][quantity]=1&success_url=https://a.example/&allow_promotion_codes=true";
    let session = id(&post(&mut world, "checkout/sessions", form));
    let mut with_code = entered(Card::Good);
    with_code.promotion_code = Some("half".to_owned());
    assert_eq!(world.pay_session(&session, &with_code), Ok(Outcome::Completed));
    let session = ask(&mut world, "GET", &format!("checkout/sessions/{session}"), "expand[]=invoice").body;
    assert_eq!(
        (session["amount_total"].as_i64(), session["total_details"]["amount_discount"].as_i64()),
        (Some(1_499), Some(1_500))
    );
    assert_eq!(
        (session["invoice"]["total"].as_i64(), session["invoice"]["amount_paid"].as_i64()),
        (Some(1_499), Some(1_499))
    );
    let used = ask(&mut world, "GET", "promotion_codes", "code=HALF").body;
    assert_eq!(used["data"][0]["times_redeemed"], 1);
}

#[test]
fn older_receivers_get_the_older_shape() {
    let mut world = world();
    let from = recorded(&world);
    let session = subscribe(&mut world, "price_pro", "");
    let old = ApiVersion::parse("2024-06-20").expect("a version");
    let last = |kind: &str, version: &ApiVersion| {
        let event = world.events_from(from).iter().rev().find(|event| event.kind == kind).expect("one").render(version);
        event["data"]["object"].clone()
    };
    let invoice = last("invoice.paid", &old);
    assert_eq!(invoice["subscription"], session["subscription"]);
    assert!(invoice["payment_intent"].is_string() && invoice["charge"].is_string() && invoice["parent"].is_null());
    assert_eq!(
        (invoice["paid"].as_bool(), invoice["lines"]["data"][0]["type"].as_str()),
        (Some(true), Some("subscription"))
    );
    assert_eq!(invoice["lines"]["data"][0]["price"]["id"], "price_pro");
    assert_eq!(last("charge.succeeded", &old)["invoice"], session["invoice"]);
    let subscription = last("customer.subscription.updated", &old);
    assert!(
        subscription["current_period_end"].is_i64() && subscription["items"]["data"][0]["current_period_end"].is_null()
    );

    let invoice = last("invoice.paid", &newest());
    assert!(invoice.get("subscription").is_none() && invoice.get("payment_intent").is_none());
    assert_eq!(invoice["parent"]["subscription_details"]["subscription"], session["subscription"]);
    assert!(last("customer.subscription.updated", &newest()).get("current_period_end").is_none());
}
