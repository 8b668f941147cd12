//! Giving payments back.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::stripe_api::*;
use crate::support::*;

const REFUNDS: &str = "/v1/payments/pi_1/refunds";

/// A service of somebody who has paid 900 for a month.
async fn paid(stripe: &StripeApi) -> TestApp {
    let app = TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
    app
}

fn made(id: &str, amount: i64) -> Value {
    refund("pi_1", id, amount, START + 60)
}

#[tokio::test]
async fn a_part_then_the_rest_and_never_more() {
    let stripe = StripeApi::start().await;
    stripe.first(1, "POST /v1/refunds", 200, made("re_1", 400)).await;
    stripe.on("POST /v1/refunds", made("re_2", 500)).await;
    let app = paid(&stripe).await;
    app.post(REFUNDS, json!({"amount": 901})).await.problem(422, "refund_exceeds_payment");
    let first = app.post(REFUNDS, json!({"amount": 400, "reason": "requested_by_customer"})).await.expect(201);
    assert_eq!((&first["stripe_refund_id"], &first["amount"]), (&json!("re_1"), &json!(400)));
    assert_eq!(first["status"], "succeeded");

    // Seen at once, and what is left counts with it.
    let payments = app.get("/v1/accounts/user_1/payments").await.expect(200);
    assert_eq!(payments["data"][0]["amount_refunded"], 400);
    let problem = app.post(REFUNDS, json!({"amount": 501})).await.problem(422, "refund_exceeds_payment");
    assert!(problem["detail"].as_str().expect("text").starts_with("500 of the payment are left"));
    app.post(REFUNDS, json!({})).await.expect(201);
    app.post(REFUNDS, json!({})).await.problem(422, "refund_exceeds_payment");

    let asked = stripe.calls().await;
    let amounts: Vec<_> = asked.iter().map(|call| call.field("amount")).collect();
    assert_eq!(amounts, [Some("400"), Some("500")]);
    assert_eq!(asked[0].field("payment_intent"), Some("pi_1"));
    assert_eq!(asked[0].field("reason"), Some("requested_by_customer"));
    assert_ne!(asked[0].key, asked[1].key);

    // Stripe's own news of it is none.
    let told = event("refund.created", START + 60, made("re_1", 400));
    assert_eq!(app.deliver(&told).await, "superseded");
    let payments = app.get("/v1/accounts/user_1/payments").await.expect(200);
    assert_eq!(payments["data"][0]["amount_refunded"], 900);
    assert_eq!(app.available("user_1").await, 0, "and the credits it paid for are gone, once");
}

#[tokio::test]
async fn what_is_in_dispute_or_lost_in_one_is_not_given_back() {
    let stripe = StripeApi::start().await;
    let app = paid(&stripe).await;
    for (status, at) in [("needs_response", 10), ("lost", 20)] {
        let told = dispute("pi_1", "du_1", status, 600, START);
        app.deliver(&event("charge.dispute.updated", START + at, told)).await;
        let problem = app.post(REFUNDS, json!({"amount": 301})).await.problem(422, "refund_exceeds_payment");
        assert!(problem["detail"].as_str().expect("text").starts_with("300 of the payment are left"));
    }
    assert!(stripe.calls().await.is_empty());
}

#[tokio::test]
async fn what_was_not_paid_is_not_given_back() {
    let stripe = StripeApi::start().await;
    let app = paid(&stripe).await;
    app.post("/v1/payments/pi_none/refunds", json!({})).await.problem(404, "payment_not_found");
    let failed = json!({"status": "requires_payment_method", "amount_received": 0, "latest_charge": null});
    let failed = with(payment_intent("cus_1", "pi_2", 500, START), failed);
    app.deliver(&event("payment_intent.payment_failed", START, failed)).await;
    app.post("/v1/payments/pi_2/refunds", json!({})).await.problem(409, "payment_not_refundable");
    app.post(REFUNDS, json!({"amount": 0})).await.problem(400, "invalid_parameter");
    app.post(REFUNDS, json!({"reason": "because"})).await.problem(400, "invalid_body");
    app.post("/v1/payments/pi_1%2F..%2Fx/refunds", json!({})).await.problem(400, "invalid_parameter");
    assert!(stripe.calls().await.is_empty());
}
