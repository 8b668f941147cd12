//! Payments that fail, and what follows.

use subledger_simulator::{AfterTheLast, Card, Dunning, Settings, World};

use crate::support::{
    advance_days, advance_months, ask, customer_with, get, id, kinds, post, recorded, refusal, subscribe,
    subscription_of, world, world_with,
};

/// A subscription whose card fails from its first renewal on; the first try has failed.
fn failing(mut world: World, card: Card) -> (World, String, String) {
    let session = subscribe(&mut world, "price_pro", "");
    let (subscription, customer) = (subscription_of(&session), session["customer"].as_str().expect("one").to_owned());
    world.change_card(&customer, card).expect("a customer");
    advance_months(&mut world, 1);
    let from = recorded(&world);
    advance_days(&mut world, 1);
    let expected = [
        "invoice.finalized",
        "invoice.updated",
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "invoice.updated",
        "invoice.payment_failed",
        "customer.subscription.updated",
        "customer.updated",
    ];
    if card != Card::NeedsAuthentication {
        assert_eq!(kinds(&world, from), expected);
    }
    assert_eq!(get(&mut world, &format!("subscriptions/{subscription}"))["status"], "past_due");
    (world, subscription, customer)
}

fn with(after_the_last: AfterTheLast) -> World {
    world_with(Settings { dunning: Dunning { retry_days: vec![3, 5, 7], after_the_last }, ..Settings::default() })
}

#[test]
fn retries_end_as_they_are_set_to() {
    for (after_the_last, status) in [
        (AfterTheLast::Cancel, "canceled"),
        (AfterTheLast::MarkUnpaid, "unpaid"),
        (AfterTheLast::LeavePastDue, "past_due"),
    ] {
        let (mut world, subscription, customer) = failing(with(after_the_last), Card::Declines);
        assert_eq!(get(&mut world, &format!("customers/{customer}"))["delinquent"], true);
        advance_days(&mut world, 16);
        let ended = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
        assert_eq!(ended["status"], status);
        assert_eq!(
            (ended["latest_invoice"]["attempt_count"].as_i64(), ended["latest_invoice"]["status"].as_str()),
            (Some(4), Some("open"))
        );
        assert!(ended["latest_invoice"]["next_payment_attempt"].is_null());
        let canceled = kinds(&world, 0).contains(&"customer.subscription.deleted");
        assert_eq!(canceled, status == "canceled");
    }
}

#[test]
fn a_retry_that_succeeds_restores() {
    let (mut world, subscription, customer) = failing(world(), Card::DeclinesForFunds);
    world.change_card(&customer, Card::Good).expect("a customer");
    let from = recorded(&world);
    advance_days(&mut world, 3);
    let seen = kinds(&world, from);
    assert_eq!(seen[..2], ["charge.succeeded", "payment_intent.succeeded"], "{seen:?}");
    assert!(seen.contains(&"customer.subscription.updated") && seen.contains(&"invoice_payment.paid"));
    assert_eq!(get(&mut world, &format!("subscriptions/{subscription}"))["status"], "active");
    assert_eq!(get(&mut world, &format!("customers/{customer}"))["delinquent"], false);
}

#[test]
fn an_invoice_can_be_paid_by_another_card() {
    let (mut world, subscription, customer) = failing(world(), Card::Declines);
    let invoice =
        get(&mut world, &format!("subscriptions/{subscription}"))["latest_invoice"].as_str().expect("one").to_owned();
    let (status, error) = refusal(&mut world, "POST", &format!("invoices/{invoice}/pay"), "");
    assert_eq!(
        (status, error["type"].as_str(), error["code"].as_str()),
        (402, Some("card_error"), Some("card_declined"))
    );
    assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
    let method = id(&post(&mut world, "payment_methods/pm_card_mastercard/attach", &format!("customer={customer}")));
    let paid = post(&mut world, &format!("invoices/{invoice}/pay"), &format!("payment_method={method}"));
    assert_eq!(paid["status"], "paid");
    let (_, error) = refusal(&mut world, "POST", &format!("invoices/{invoice}/pay"), "");
    assert_eq!(error["code"], "invoice_already_paid");
}

#[test]
fn a_card_that_needs_its_holder_waits_for_it() {
    let (mut world, subscription, _) = failing(world(), Card::NeedsAuthentication);
    assert!(kinds(&world, 0).contains(&"invoice.payment_action_required"));
    let waiting = ask(
        &mut world,
        "GET",
        &format!("subscriptions/{subscription}"),
        "expand[]=latest_invoice.payments.data.payment.payment_intent",
    )
    .body;
    let intent = waiting["latest_invoice"]["payments"]["data"][0]["payment"]["payment_intent"].clone();
    assert_eq!(intent["status"], "requires_action");
    world.authenticate(&id(&intent), true).expect("it waits");
    assert_eq!(get(&mut world, &format!("subscriptions/{subscription}"))["status"], "active");
}

#[test]
fn a_first_payment_that_fails_expires_in_a_day() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_chargeCustomerFail");
    let refused = refusal(
        &mut world,
        "POST",
        "subscriptions",
        &format!("customer={customer}&items[0][price]=price_pro&payment_behavior=error_if_incomplete"),
    );
    assert_eq!((refused.0, refused.1["code"].as_str()), (402, Some("card_declined")));
    let made = post(
        &mut world,
        "subscriptions",
        &format!("customer={customer}&items[0][price]=price_pro&expand[]=latest_invoice"),
    );
    assert_eq!(
        (made["status"].as_str(), made["latest_invoice"]["status"].as_str()),
        (Some("incomplete"), Some("open"))
    );
    advance_days(&mut world, 1);
    let expired = ask(&mut world, "GET", &format!("subscriptions/{}", id(&made)), "expand[]=latest_invoice").body;
    assert_eq!(
        (expired["status"].as_str(), expired["latest_invoice"]["status"].as_str()),
        (Some("incomplete_expired"), Some("void"))
    );
}

#[test]
fn an_incomplete_subscription_is_made_active_by_paying() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_visa");
    let form = format!(
        "customer={customer}&items[0][price]=price_pro&payment_behavior=default_incomplete&expand[]=latest_invoice.confirmation_secret"
    );
    let made = post(&mut world, "subscriptions", &form);
    assert_eq!(made["status"], "incomplete");
    assert!(made["latest_invoice"]["confirmation_secret"]["client_secret"].is_string());
    post(&mut world, &format!("invoices/{}/pay", id(&made["latest_invoice"])), "");
    assert_eq!(get(&mut world, &format!("subscriptions/{}", id(&made)))["status"], "active");
}

#[test]
fn a_declined_change_leaves_the_old_plan_if_asked() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_visa");
    let made = post(&mut world, "subscriptions", &format!("customer={customer}&items[0][price]=price_basic"));
    world.change_card(&customer, Card::Declines).expect("a customer");
    advance_days(&mut world, 5);
    let item = id(&made["items"]["data"][0]);
    let path = format!("subscriptions/{}", id(&made));
    let change = format!("items[0][id]={item}&items[0][price]=price_pro&proration_behavior=always_invoice");
    let (status, _) = refusal(&mut world, "POST", &path, &format!("{change}&payment_behavior=error_if_incomplete"));
    assert_eq!(status, 402);
    assert_eq!(get(&mut world, &path)["items"]["data"][0]["price"]["id"], "price_basic");
    let changed = post(&mut world, &path, &change);
    assert_eq!(
        (changed["status"].as_str(), changed["items"]["data"][0]["price"]["id"].as_str()),
        (Some("past_due"), Some("price_pro"))
    );
}

#[test]
fn a_change_can_wait_for_its_payment() {
    let mut world = world();
    let customer = customer_with(&mut world, "pm_card_visa");
    let made = post(&mut world, "subscriptions", &format!("customer={customer}&items[0][price]=price_basic"));
    world.change_card(&customer, Card::Declines).expect("a customer");
    advance_days(&mut world, 5);
    let item = id(&made["items"]["data"][0]);
    let path = format!("subscriptions/{}", id(&made));
    let change = format!(
        "items[0][id]={item}&items[0][price]=price_pro&proration_behavior=always_invoice\
         &payment_behavior=pending_if_incomplete"
    );
    let from = recorded(&world);
    let held = post(&mut world, &path, &format!("{change}&expand[]=latest_invoice"));
    assert_eq!(held["items"]["data"][0]["price"]["id"], "price_basic");
    assert_eq!((held["status"].as_str(), held["latest_invoice"]["status"].as_str()), (Some("active"), Some("open")));
    assert_eq!(held["pending_update"]["subscription_items"][0]["price"]["id"], "price_pro");
    assert!(!kinds(&world, from).contains(&"customer.subscription.deleted"));

    let mut other = world.clone();
    other.change_card(&customer, Card::Good).expect("a customer");
    post(&mut other, &format!("invoices/{}/pay", id(&held["latest_invoice"])), "");
    let applied = get(&mut other, &path);
    assert_eq!(applied["items"]["data"][0]["price"]["id"], "price_pro");
    assert!(applied["pending_update"].is_null());
    assert!(kinds(&other, from).contains(&"customer.subscription.pending_update_applied"));

    advance_days(&mut world, 1);
    let expired = get(&mut world, &path);
    assert_eq!(expired["items"]["data"][0]["price"]["id"], "price_basic");
    assert!(expired["pending_update"].is_null());
    assert_eq!(get(&mut world, &format!("invoices/{}", id(&held["latest_invoice"])))["status"], "void");
    assert!(kinds(&world, from).contains(&"customer.subscription.pending_update_expired"));
    let (status, error) = refusal(&mut world, "POST", &path, &format!("{change}&metadata[a]=1"));
    assert_eq!((status, error["param"].as_str()), (400, Some("metadata")));
}
