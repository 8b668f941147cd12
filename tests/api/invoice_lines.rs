//! Invoices with more lines than Stripe shows.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::stripe_api::*;
use crate::support::*;

const LINES: &str = "GET /v1/invoices/in_sub_1_1/lines";

/// Twelve changes of seats that cost nothing, and the line of the period after them.
fn lines() -> Vec<Value> {
    let whole = invoice("cus_1", "in_sub_1_1", "sub_1", PRO, START);
    let period = whole["lines"]["data"][0].clone();
    let change = |n: usize| {
        let details = json!({"subscription_item_details": {"proration": true}});
        with(period.clone(), json!({"id": format!("il_{n}"), "amount": 0, "quantity": 0, "parent": details}))
    };
    (0..12).map(change).chain([period.clone()]).collect()
}

fn page(rows: &[Value], has_more: bool) -> Value {
    json!({"object": "list", "data": rows, "has_more": has_more, "url": "/v1/invoices/in_sub_1_1/lines"})
}

/// What comes of a subscription whose invoice has them.
fn events() -> Vec<Value> {
    let mut events = sign_up("cus_1", PRO, START);
    events[1]["data"]["object"]["lines"] = page(&lines()[..10], true);
    events
}

async fn app(stripe_api: Option<String>) -> TestApp {
    let app = TestApp::with(Setup { stripe_api, ..Setup::default() }).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app
}

#[tokio::test]
async fn the_others_are_asked_for_page_by_page() {
    let stripe = StripeApi::start().await;
    stripe.first(1, LINES, 200, page(&lines()[..11], true)).await;
    stripe.on(LINES, page(&lines()[11..], false)).await;
    let app = app(Some(stripe.base())).await;
    app.deliver_all(&events()).await;
    assert_eq!(app.available("user_1").await, PRO_CREDITS);
    let calls = stripe.calls_of(LINES).await;
    assert_eq!(calls.iter().map(|call| call.field("starting_after")).collect::<Vec<_>>(), [None, Some("il_10")]);
    let invoices = app.get("/v1/accounts/user_1/invoices").await.expect(200);
    assert_eq!(invoices["data"][0]["lines"].as_array().map(Vec::len), Some(13));
    assert_eq!(invoices["data"][0]["has_more_lines"], false);
}

#[tokio::test]
async fn while_stripe_is_away_the_event_is_not_taken_and_comes_again() {
    let stripe = StripeApi::start().await;
    stripe.fail(500).await;
    let app = app(Some(stripe.base())).await;
    let events = events();
    let refused = app.deliver_body(events[1].to_string()).await;
    assert!(refused.header("retry-after").is_some());
    refused.problem(503, "stripe_unavailable");
    stripe.reset().await;
    stripe.on(LINES, page(&lines(), false)).await;
    app.deliver_all(&events).await;
    assert_eq!(app.available("user_1").await, PRO_CREDITS);
}

#[tokio::test]
async fn without_a_key_to_stripe_the_event_is_parked_with_the_cure() {
    let app = app(None).await;
    let invoice = &events()[1];
    assert_eq!(app.deliver(invoice).await, "parked");
    let parked = app.get("/v1/admin/parked").await.expect(200);
    let reason = parked["data"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("more lines") && reason.contains("STRIPE_SECRET_KEY"), "{reason}");
}
