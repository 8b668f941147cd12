//! Plan changes within a period, from the webhooks to the statement; what the ledger holds in the end is checked against its
//! log whenever an application ends.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// A paid invoice for a change at `at` from one price to another.
fn change(id: &str, from: (&str, i64), to: (&str, i64), at: i64) -> Value {
    let line = |(price, amount): (&str, i64)| {
        json!({"id": format!("il_{id}_{price}"), "object": "line_item", "amount": amount, "currency": "usd", "quantity": 1,
            "period": {"start": at, "end": START + 31 * 86_400},
            "parent": {"type": "subscription_item_details", "subscription_item_details": {
                "subscription": "sub_1", "subscription_item": "si_sub_1", "proration": true,
            }},
            "pricing": {"type": "price_details", "price_details": {"price": price, "product": "prod_1"}}})
    };
    let total = from.1 + to.1;
    let lines = json!({"object": "list", "has_more": false, "data": [line(from), line(to)]});
    with(
        invoice("cus_1", id, "sub_1", to.0, at),
        json!({"billing_reason": "subscription_update", "subtotal": total, "total": total, "amount_due": total.max(0),
            "amount_paid": total.max(0), "lines": lines}),
    )
}

async fn statement(app: &TestApp) -> Vec<(String, i64, Option<String>)> {
    let page = app.get("/v1/accounts/user_1/credits/entries?limit=500").await.expect(200);
    let entry = |entry: &Value| {
        let cause = entry["cause"].as_str().map(str::to_owned);
        (entry["type"].as_str().expect("a type").to_owned(), entry["amount"].as_i64().expect("an amount"), cause)
    };
    page["data"].as_array().expect("entries").iter().map(entry).collect()
}

#[tokio::test]
async fn up_down_and_up_again_grants_once_whenever_the_downgrade_is_heard_of() {
    on_both(async |app: TestApp| {
        let [up, down, up_again] = [
            change("in_2", (STARTER, -450), (PRO, 1_450), day(10)),
            change("in_3", (PRO, -1_450), (STARTER, 450), day(10) + 60),
            change("in_4", (STARTER, -450), (PRO, 1_450), day(10) + 120),
        ];
        let paid =
            |invoice: &Value| event("invoice.paid", invoice["created"].as_i64().expect("a time"), invoice.clone());
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        app.deliver_all(&[
            event("customer.subscription.created", START, subscription("cus_1", "sub_1", STARTER, START)),
            event("invoice.paid", START, invoice("cus_1", "in_1", "sub_1", STARTER, START)),
        ])
        .await;
        app.clock.set(day(10) + 300);
        app.deliver_all(&[paid(&up), paid(&up_again)]).await;
        assert_eq!(app.available("user_1").await, STARTER_CREDITS + 400, "as if there had been two upgrades");
        app.deliver_all(&[paid(&down)]).await;
        assert_eq!(app.available("user_1").await, STARTER_CREDITS + 200);
        let mut expected = vec![
            ("grant".to_owned(), 100, Some("invoice:in_1/il_in_1".to_owned())),
            ("grant".to_owned(), 200, Some("invoice:in_2/prorations/sub_1".to_owned())),
            ("grant".to_owned(), 200, Some("invoice:in_4/prorations/sub_1".to_owned())),
            ("clawback".to_owned(), -200, Some("plan_change:sub_1".to_owned())),
        ];
        assert_eq!(statement(&app).await, expected);
        // Heard of in time, a further round grants nothing, and the statement says so.
        let again = [
            change("in_5", (PRO, -1_400), (STARTER, 430), day(11)),
            change("in_6", (STARTER, -430), (PRO, 1_400), day(11) + 60),
        ];
        app.deliver_all(&again.map(|invoice| paid(&invoice))).await;
        expected.push(("grant".to_owned(), 0, Some("invoice:in_6/prorations/sub_1".to_owned())));
        assert_eq!(statement(&app).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_refill_that_the_subscription_did_not_live_to_see_is_undone() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    let active = subscription("cus_1", "sub_1", PRO_YEARLY, START);
    app.deliver_all(&[
        event("customer.subscription.created", START, active.clone()),
        event("invoice.paid", START, invoice("cus_1", "in_1", "sub_1", PRO_YEARLY, START)),
    ])
    .await;
    app.clock.set(day(35));
    assert_eq!(app.service.sweep().await.expect("swept"), 1);
    assert_eq!(app.available("user_1").await, PRO_CREDITS);
    let ended = json!({"status": "canceled", "canceled_at": day(10), "ended_at": day(10)});
    app.deliver_all(&[event("customer.subscription.deleted", day(10), with(active, ended))]).await;
    assert_eq!(app.available("user_1").await, FREE_CREDITS);
    let credits = app.get("/v1/accounts/user_1/credits").await.expect(200);
    assert_eq!(credits["lots"].as_array().map(Vec::len), Some(1), "the free plan's");
}
