//! Revenue of the whole ledger.

use reqwest::Method;
use serde_json::{Value, json};
use subledger::app::service::Service;

use crate::support::stripe::*;
use crate::support::*;

async fn report(app: &TestApp, query: &str) -> Value {
    app.get(&format!("/v1/analytics/revenue?max_age_seconds=0{query}")).await.expect(200)
}

#[tokio::test]
async fn a_ledger_without_revenue_has_a_report_all_the_same() {
    let app = TestApp::start().await;
    let told = app.get("/v1/analytics/revenue").await.expect(200);
    assert_eq!((&told["currencies"], &told["from"], &told["to"]), (&json!([]), &json!("2025-02"), &json!("2026-01")));
    assert_eq!(told["credits"]["outstanding"], 0);
}

#[tokio::test]
async fn subscriptions_move_mrr_and_invoices_are_earned_by_day() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.deliver_all(&sign_up("cus_2", PRO_YEARLY, START)).await;
        app.deliver(&event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START))).await;
        app.debit("cus_1", "key-1", json!({"amount": 5})).await.expect(201);
        let told = report(&app, "").await;
        let usd = &told["currencies"][0];
        // 29.00 a month, and 290.00 a year.
        assert_eq!(
            (&usd["mrr"], &usd["arr"], &usd["active_subscriptions"]),
            (&json!(5_317), &json!(63_804), &json!(2))
        );
        let by_plan = json!([{"plan": "pro", "mrr": 5_317, "active_subscriptions": 2, "trialing_subscriptions": 0}]);
        assert_eq!(usd["by_plan"], by_plan);
        let months = usd["months"].as_array().expect("months");
        assert_eq!((months.len(), &months[11]["new"], &months[11]["new_accounts"]), (12, &json!(5_317), &json!(2)));
        // Of 15 January one day in 31 and one in 365: 94 and 79.
        assert_eq!((&months[11]["recognised"], &usd["money"]["recognised"]), (&json!(173), &json!(173)));
        assert_eq!((&usd["money"]["paid"], &usd["money"]["deferred"]), (&json!(31_900), &json!(31_727)));
        assert_eq!(usd["packs"], json!({"paid": 1_000, "returned": 0, "outstanding": 1_000, "recognised": 0}));
        assert_eq!(usd["deferred"].as_array().expect("months").len(), 13);
        let credits = &told["credits"]["months"][11];
        assert_eq!((&credits["sold"], &credits["granted"], &credits["spent"]), (&json!(500), &json!(1_000), &json!(5)));
        assert_eq!(told["credits"]["outstanding"], 1_495);

        // A month later one has moved to the small plan, and the other has gone.
        app.clock.set(day(40));
        let smaller = with(subscription("cus_1", "sub_1", STARTER, day(31)), json!({"created": START}));
        let gone = json!({"status": "canceled", "ended_at": day(35)});
        app.deliver_all(&[
            event("customer.subscription.updated", day(33), smaller),
            event(
                "customer.subscription.deleted",
                day(35),
                with(subscription("cus_2", "sub_2", PRO_YEARLY, START), gone),
            ),
        ])
        .await;
        let told = report(&app, "&from=2026-02&currency=USD").await;
        let february = &told["currencies"][0]["months"][0];
        let moved = ["mrr_start", "new", "expansion", "contraction", "churn", "mrr_end"].map(|name| &february[name]);
        assert_eq!(moved, [&json!(5_317), &json!(0), &json!(0), &json!(2_000), &json!(2_417), &json!(900)]);
        assert_eq!(
            (&february["account_churn_percent"], &february["revenue_churn_percent"]),
            (&json!(50.0), &json!(83.1))
        );
        let pro = report(&app, "&from=2026-02&plan=pro").await;
        let february = &pro["currencies"][0]["months"][0];
        assert_eq!((&february["churn"], &february["churned_accounts"]), (&json!(5_317), &json!(2)));
        assert_eq!((&pro["credits"], &pro["currencies"][0]["money"]), (&Value::Null, &Value::Null));
        assert_eq!(report(&app, "&currency=eur").await["currencies"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_report_is_kept_until_somebody_asks_for_a_newer_one() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let first = app.get("/v1/analytics/revenue").await.expect(200);
    assert_eq!((&first["as_of"], &first["currencies"][0]["mrr"]), (&json!(rfc3339(START)), &json!(2_900)));
    assert_eq!(app.metric("subledger_mrr{currency=\"usd\",plan=\"pro\"}").await, 2_900.0);
    assert_eq!(app.metric("subledger_active_subscriptions{currency=\"usd\",plan=\"pro\"}").await, 1.0);
    assert_eq!(app.metric("subledger_revenue_as_of_seconds").await, START as f64);
    app.clock.set(START + 3_600);
    app.deliver_all(&sign_up("cus_2", STARTER, START)).await;
    assert_eq!(app.get("/v1/analytics/revenue").await.expect(200), first);
    let young_enough = app.get("/v1/analytics/revenue?max_age_seconds=3600").await.expect(200);
    assert_eq!(young_enough, first);
    let newer = app.get("/v1/analytics/revenue?max_age_seconds=3599").await.expect(200);
    assert_eq!((&newer["as_of"], &newer["currencies"][0]["mrr"]), (&json!(rfc3339(START + 3_600)), &json!(3_800)));
    assert_eq!(app.metric("subledger_mrr{currency=\"usd\",plan=\"starter\"}").await, 900.0);
    // The task that does so every now and then.
    app.clock.set(START + 7_201);
    let service: &Service = &app.service;
    service.refresh_revenue(chrono::TimeDelta::seconds(3_600)).await.expect("made");
    assert_eq!(app.metric("subledger_revenue_as_of_seconds").await, (START + 7_201) as f64);
}

#[tokio::test]
async fn what_a_customer_did_before_it_was_linked_is_the_accounts_own() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
        report(&app, "").await;
        app.clock.set(day(40));
        let bigger = with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"created": START}));
        app.deliver(&event("customer.subscription.updated", day(33), bigger)).await;
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        let told = report(&app, "&from=2026-01").await;
        let months = told["currencies"][0]["months"].as_array().expect("months");
        assert_eq!((&months[0]["new"], &months[1]["expansion"]), (&json!(900), &json!(2_000)));
        assert_eq!((&months[1]["accounts_end"], &months[1]["mrr_end"]), (&json!(1), &json!(2_900)));
        // It is collected once, whatever is asked how often, and on a rebuilt ledger as on this one.
        assert_eq!(report(&app, "&from=2026-01").await["credits"], told["credits"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said() {
    let app = TestApp::start().await;
    for query in [
        "from=2026",
        "from=2026-13",
        "to=yesterday",
        "from=2026-01&to=2025-12",
        "from=2001-01",
        "to=2026-02",
        "currency=dollars",
        "currency=",
        "max_age_seconds=-1",
        "max_age_seconds=soon",
        "from=2026-01&from=2026-01",
    ] {
        app.get(&format!("/v1/analytics/revenue?{query}")).await.problem(400, "invalid_parameter");
    }
    app.get("/v1/analytics/revenue?plan=flying").await.problem(404, "not_found");
    let made = app.post("/v1/admin/keys", json!({"scope": "bill"})).await.expect(201);
    let key = made["key"].as_str().expect("a key");
    app.call(Method::GET, "/v1/analytics/revenue").key(key).send().await.problem(403, "forbidden");
}

#[tokio::test]
async fn replicas_that_report_at_once_count_everything_once() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.debit("cus_1", "key-1", json!({"amount": 5})).await.expect(201);
    let database_url = Some(app.database_url.clone());
    let other = TestApp::with(Setup { database_url, ..Setup::default() }).await;
    let (one, two) = futures_util::join!(report(&app, ""), report(&other, ""));
    let again = report(&other, "").await;
    for told in [&one, &two, &again] {
        let credits = &told["credits"]["months"][11];
        assert_eq!((&credits["granted"], &credits["spent"]), (&json!(500), &json!(5)));
        assert_eq!(told["currencies"][0]["months"][11]["new"], 2_900);
    }
}
