//! Whole stories of selling, with a simulated Stripe at the other end: what callers ask for, what customers pay, what
//! webhooks tell, and what is there in the end.

use reqwest::Method;
use serde_json::{Value, json};
use subledger_simulator::Request;

use crate::support::simulated::*;
use crate::support::stripe::*;
use crate::support::*;

const CHANGE: &str = "/v1/accounts/user_1/subscription/change";

#[tokio::test]
async fn a_plan_is_bought_and_its_credits_are_there() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "starter"})).await;
    assert_eq!(world.app.available("user_1").await, STARTER_CREDITS);
    let bought = world.subscription().await;
    assert_eq!((&bought["status"], &bought["plan"]), (&json!("active"), &json!("starter")));
    let account = world.app.get("/v1/accounts/user_1").await.expect(200);
    assert_eq!(account["stripe_customer_ids"].as_array().map(Vec::len), Some(1));
    let again =
        json!({"plan": "team", "success_url": "https://app.example.com", "cancel_url": "https://app.example.com"});
    world.app.post("/v1/accounts/user_1/checkout-sessions", again).await.problem(409, "subscription_exists");
}

#[tokio::test]
async fn in_place_of_a_customer_that_was_deleted_another_is_made() {
    let world = Simulated::start().await;
    world.open(json!({"plan": "starter"})).await;
    let account = world.app.get("/v1/accounts/user_1").await.expect(200);
    let customer = account["stripe_customer_ids"][0].as_str().expect("an id").to_owned();
    let delete = Request { method: "DELETE".to_owned(), path: format!("customers/{customer}"), ..Request::default() };
    assert_eq!(world.stripe.with_world(|world| world.handle(&delete)).status, 200);
    world.settle().await;
    world.buy(json!({"plan": "starter"})).await;
    assert_ne!(world.subscription().await["stripe_customer_id"], customer.as_str());
}

#[tokio::test]
async fn a_pack_is_bought_and_given_back() {
    let world = Simulated::start().await;
    world.buy(json!({"credit_pack": "credits_500", "quantity": 2})).await;
    assert_eq!(world.app.available("user_1").await, 2 * PACK_CREDITS + FREE_CREDITS);
    let payments = world.app.get("/v1/accounts/user_1/payments").await.expect(200);
    let payment = payments["data"][0]["stripe_payment_intent_id"].as_str().expect("an id");
    let refunds = format!("/v1/payments/{payment}/refunds");
    world.app.post(&refunds, json!({"amount": 1_000})).await.expect(201);
    world.settle().await;
    assert_eq!(world.app.available("user_1").await, PACK_CREDITS + FREE_CREDITS);
    world.app.post(&refunds, json!({"amount": 1_001})).await.problem(422, "refund_exceeds_payment");
    world.app.post(&refunds, json!({})).await.expect(201);
    world.settle().await;
    assert_eq!(world.app.available("user_1").await, FREE_CREDITS);
    let purchases = world.app.get("/v1/accounts/user_1/credit-purchases").await.expect(200);
    assert_eq!(purchases["data"][0]["status"], "refunded");
}

#[tokio::test]
async fn an_upgrade_costs_what_its_preview_said_and_gives_its_credits() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "starter"})).await;
    world.advance_to(day(15)).await;
    let preview =
        world.app.post("/v1/accounts/user_1/subscription/change-preview", json!({"plan": "pro"})).await.expect(200);
    let changed =
        world.app.post(CHANGE, json!({"plan": "pro", "proration_date": preview["proration_date"]})).await.expect(200);
    assert_eq!(changed["plan"], "pro");
    assert_eq!(world.subscription().await["plan"], "pro", "seen before any webhook was awaited");
    world.settle().await;
    let invoices = world.app.get("/v1/accounts/user_1/invoices").await.expect(200);
    assert_eq!(invoices["data"][0]["billing_reason"], "subscription_update");
    assert_eq!(invoices["data"][0]["total"], preview["total"]);
    let credits = world.app.available("user_1").await;
    assert!(
        credits > STARTER_CREDITS && credits < PRO_CREDITS,
        "{credits}: the rest of the month's share of the difference"
    );
    world.app.post(CHANGE, json!({"plan": "pro"})).await.problem(409, "subscription_unchanged");
}

fn amounts(invoice: &Value) -> Vec<i64> {
    let lines = invoice["lines"].as_array().expect("lines").iter();
    let mut amounts: Vec<i64> = lines.map(|line| line["amount"].as_i64().expect("a number")).collect();
    amounts.sort_unstable();
    amounts
}

/// Changes a subscription in the middle of its second month. Answers the preview of it, and the invoice it is on.
async fn preview_and_invoice(change: &Value, billed_at: i64) -> (Value, Value) {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "pro", "currency": "usd", "trial_days": 0})).await;
    world.advance_to(day(45)).await;
    let preview = "/v1/accounts/user_1/subscription/change-preview";
    let preview = world.app.post(preview, change.clone()).await.expect(200);
    let mut as_seen = change.clone();
    if preview["proration_date"].is_string() {
        as_seen["proration_date"] = preview["proration_date"].clone();
    }
    world.app.post(CHANGE, as_seen).await.expect(200);
    world.settle().await;
    world.advance_to(billed_at).await;
    let invoices = world.app.get("/v1/accounts/user_1/invoices").await.expect(200);
    (preview, invoices["data"][0].clone())
}

#[tokio::test]
async fn a_change_now_is_invoiced_as_its_preview_said() {
    for change in [
        json!({"plan": "team", "quantity": 5}),
        json!({"price": STARTER}),
        json!({"quantity": 3}),
        json!({"interval": "year"}),
    ] {
        let (preview, invoice) = preview_and_invoice(&change, day(45) + 60).await;
        assert_eq!(invoice["billing_reason"], "subscription_update", "{change}");
        assert_eq!(
            (&preview["total"], &preview["amount_due"]),
            (&invoice["total"], &invoice["amount_due"]),
            "{change}"
        );
        assert_eq!(amounts(&preview), amounts(&invoice), "{change}");
    }
}

#[tokio::test]
async fn a_change_that_is_paid_for_later_is_on_the_renewal_as_its_preview_said() {
    for change in [
        json!({"plan": "team", "quantity": 5, "proration": "create_prorations"}),
        json!({"plan": "team", "quantity": 5, "proration": "none"}),
        json!({"plan": "team", "quantity": 5, "when": "period_end"}),
    ] {
        let (preview, invoice) = preview_and_invoice(&change, day(60) + 7_200).await;
        assert_eq!(invoice["billing_reason"], "subscription_cycle", "{change}");
        assert_eq!(
            (&preview["total"], &preview["amount_due"]),
            (&invoice["total"], &invoice["amount_due"]),
            "{change}"
        );
        assert_eq!(amounts(&preview), amounts(&invoice), "{change}");
    }
}

#[tokio::test]
async fn an_upgrade_whose_payment_fails_waits_for_it() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "starter"})).await;
    world.pause().await;
    let account = world.app.get("/v1/accounts/user_1").await.expect(200);
    let card = format!("customers/{}/card", account["stripe_customer_ids"][0].as_str().expect("an id"));
    world.control(&card, json!({"card": "declines"})).await;
    let waiting = world.app.post(CHANGE, json!({"plan": "pro"})).await.expect(200);
    let pending = &waiting["pending_change"];
    assert_eq!((&waiting["plan"], &pending["waits_for"]), (&json!("starter"), &json!("payment")));
    assert_eq!(pending["plan"], "pro");
    world.settle().await;
    assert_eq!(world.subscription().await["plan"], "starter");
    assert_eq!(world.app.available("user_1").await, STARTER_CREDITS, "nothing is given before it is paid for");

    world.control(&card, json!({"card": "good"})).await;
    world.pause().await;
    let invoice = waiting["latest_invoice"].as_str().expect("an invoice").to_owned();
    world.call(&format!("invoices/{invoice}/pay")).await;
    world.settle().await;
    assert_eq!(world.subscription().await["plan"], "pro");
    assert!(world.app.available("user_1").await > STARTER_CREDITS);
}

#[tokio::test]
async fn a_downgrade_waits_for_the_periods_end() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "team", "quantity": 3})).await;
    let downgrade = json!({"plan": "starter", "quantity": 1, "when": "period_end"});
    world.pause().await;
    let waiting = world.app.post(CHANGE, downgrade.clone()).await.expect(200);
    assert_eq!((&waiting["plan"], &waiting["pending_change"]["plan"]), (&json!("team"), &json!("starter")));
    world.settle().await;
    assert_eq!(world.subscription().await["pending_change"], waiting["pending_change"]);
    world.pause().await;
    let back = world.app.post("/v1/accounts/user_1/subscription/cancel-change", json!({})).await.expect(200);
    assert_eq!(back["pending_change"], Value::Null);
    world.settle().await;
    assert_eq!(world.subscription().await["pending_change"], Value::Null);

    world.pause().await;
    world.app.post(CHANGE, downgrade).await.expect(200);
    world.advance_to(day(32)).await;
    let renewed = world.subscription().await;
    assert_eq!((&renewed["plan"], &renewed["quantity"]), (&json!("starter"), &json!(1)));
    assert_eq!(world.app.available("user_1").await, STARTER_CREDITS);
}

#[tokio::test]
async fn a_subscription_is_canceled_resumed_and_canceled_at_once() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "starter"})).await;
    let act = async |what: &str, body: Value| {
        world.pause().await;
        let done = world.app.post(&format!("/v1/accounts/user_1/subscription/{what}"), body).await.expect(200);
        world.settle().await;
        done
    };
    assert_eq!(act("cancel", json!({})).await["cancel_at_period_end"], true);
    assert_eq!(world.subscription().await["cancel_at_period_end"], true);
    assert_eq!(act("resume", json!({})).await["cancel_at_period_end"], false);
    assert_eq!(act("pause-collection", json!({"behavior": "void"})).await["paused"], true);
    assert_eq!(act("resume-collection", json!({})).await["paused"], false);
    assert_eq!(world.subscription().await["paused"], false);
    assert_eq!(act("cancel", json!({"at_period_end": false})).await["status"], "canceled");
    assert_eq!(world.app.available("user_1").await, FREE_CREDITS);
    world.app.post("/v1/accounts/user_1/subscription/cancel", json!({})).await.problem(409, "subscription_ended");
    world.buy(json!({"plan": "starter"})).await;
    assert_eq!(world.subscription().await["status"], "active", "and a new one can be had");
}

#[tokio::test]
async fn the_upcoming_invoice_is_the_renewal() {
    let world = Simulated::start().await;
    world.buy(json!({"plan": "starter"})).await;
    let upcoming = world.app.get("/v1/accounts/user_1/upcoming-invoice").await.expect(200);
    assert_eq!((&upcoming["total"], &upcoming["lines"][0]["plan"]), (&json!(900), &json!("starter")));
    world.advance_to(day(32)).await;
    let invoices = world.app.get("/v1/accounts/user_1/invoices").await.expect(200);
    assert_eq!(invoices["data"][0]["billing_reason"], "subscription_cycle");
    assert_eq!(invoices["data"][0]["total"], upcoming["total"]);
}

#[tokio::test]
async fn requests_with_one_key_at_the_same_time_are_one() {
    let world = Simulated::start().await;
    let count = |kind: &str| world.stripe.with_world(|world| world.objects(kind).count());
    let at_once = async |path: &str, body: Value| {
        let calls = (0..4).map(|_| world.app.call(Method::POST, path).idempotency_key(path).json(body.clone()).send());
        let answers: Vec<Value> =
            futures_util::future::join_all(calls).await.into_iter().map(|answer| answer.expect(201)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    };
    let pack = json!({"credit_pack": "credits_500", "success_url": "https://app.example.com/", "cancel_url": "https://app.example.com/"});
    at_once("/v1/accounts/user_1/checkout-sessions", pack).await;
    assert_eq!((count("customer"), count("checkout.session")), (1, 1));
    world.buy(json!({"credit_pack": "credits_500"})).await;
    let payments = world.app.get("/v1/accounts/user_1/payments").await.expect(200);
    let payment = payments["data"][0]["stripe_payment_intent_id"].as_str().expect("an id");
    at_once(&format!("/v1/payments/{payment}/refunds"), json!({"amount": 300})).await;
    assert_eq!(count("refund"), 1);

    // Under keys of their own, the ledger or Stripe refuses the one that is too much: of 1000, 700 are left.
    let refunds = format!("/v1/payments/{payment}/refunds");
    let answers =
        futures_util::future::join_all((0..3).map(|_| world.app.post(&refunds, json!({"amount": 400})))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses.as_slice(), count("refund")), (&[201, 422, 422][..], 2));
}

/// Answers that are lost after the effect, and a Stripe that has had enough: whatever it is, things are done once.
#[tokio::test]
async fn whatever_happens_on_the_wire_there_is_one_customer_one_session_one_refund() {
    let world = Simulated::start().await;
    for kind in ["cut_after", "rate_limited", "server_error", "cut_before"] {
        world.control("faults", json!({"kind": kind, "method": "POST", "count": 2})).await;
        let body = json!({"credit_pack": "credits_500", "success_url": "https://app.example.com/", "cancel_url": "https://app.example.com/"});
        let open = async || {
            let call = world.app.call(Method::POST, "/v1/accounts/user_1/checkout-sessions").idempotency_key(kind);
            call.json(body.clone()).send().await
        };
        open().await.expect(201);
        assert!(open().await.is_replay());
    }
    let count = |kind: &str| world.stripe.with_world(|world| world.objects(kind).count());
    assert_eq!((count("customer"), count("checkout.session")), (1, 4));

    world.buy(json!({"credit_pack": "credits_500"})).await;
    let payments = world.app.get("/v1/accounts/user_1/payments").await.expect(200);
    let payment = payments["data"][0]["stripe_payment_intent_id"].as_str().expect("an id");
    world.control("faults", json!({"kind": "cut_after", "path": "refunds", "count": 3})).await;
    world.app.post(&format!("/v1/payments/{payment}/refunds"), json!({"amount": 300})).await.expect(201);
    assert_eq!(count("refund"), 1);
    world.settle().await;
    let payments = world.app.get("/v1/accounts/user_1/payments").await.expect(200);
    assert_eq!(payments["data"][0]["amount_refunded"], 300);
}

#[tokio::test]
async fn a_session_that_expires_leaves_nothing_and_another_one_can_be_paid() {
    let world = Simulated::start().await;
    let left = world.open(json!({"credit_pack": "credits_500"})).await;
    world.advance_to(day(2)).await;
    assert_eq!(world.app.available("user_1").await, FREE_CREDITS);
    let purchases = async || world.app.get("/v1/accounts/user_1/credit-purchases").await.expect(200)["data"].clone();
    assert_eq!(purchases().await, json!([]));
    world.buy(json!({"credit_pack": "credits_500"})).await;
    assert_eq!(world.app.available("user_1").await, FREE_CREDITS + PACK_CREDITS);
    let bought = purchases().await;
    assert_eq!((bought.as_array().map(Vec::len), &bought[0]["status"]), (Some(1), &json!("paid")));
    assert_ne!(bought[0]["stripe_checkout_session_id"], left.as_str());
}
