//! What every read takes: how fresh it is to be, and a position that it must have reached.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::simulated::Simulated;
use crate::support::*;

/// No write of these ledgers gives it.
const FAR: i64 = 1_000_000;

/// Each path, as it is asked at a position that has been and at one that has not.
async fn assert_takes_min_position(app: &TestApp, paths: &[String], reached: i64) {
    for path in paths {
        app.get(&format!("{path}?min_position={reached}")).await.expect(200);
        let problem = app.get(&format!("{path}?min_position=-1")).await.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("min_position: must be"), "{path}: {detail}");
    }
    // All at once: each waits for a while.
    let asked = paths.iter().map(|path| async move { app.get(&format!("{path}?min_position={FAR}")).await });
    for answer in join_all(asked).await {
        answer.problem(409, "position_not_reached");
    }
}

async fn assert_takes_consistency(app: &TestApp, paths: &[String]) {
    for path in paths {
        for consistency in ["bounded", "strong"] {
            app.get(&format!("{path}?consistency={consistency}")).await.expect(200);
        }
        let problem = app.get(&format!("{path}?consistency=eventual")).await.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("consistency: must be"), "{path}: {detail}");
    }
}

#[tokio::test]
async fn every_read_takes_a_position_and_every_read_of_an_account_says_how_fresh() {
    let world = Simulated::start().await;
    let app = &world.app;
    world.buy(json!({"plan": "starter"})).await;
    let account = "/v1/accounts/user_1";
    let held = app.post(&format!("{account}/credits/holds"), json!({"amount": 1})).await.expect(201);
    let text = |name: &str| held[name].as_str().expect("a text").to_owned();
    let checked = app.get(&format!("{account}/entitlements/generation")).await.expect(200);
    let mut paths: Vec<String> = [
        "",
        "/subscription",
        "/subscriptions",
        "/invoices",
        "/payments",
        "/credit-purchases",
        "/payment-methods",
        "/upcoming-invoice",
        "/entitlements",
        "/entitlements/generation",
        "/credits",
        "/credits/entries",
        "/credits/holds",
        "/usage",
        "/overrides",
    ]
    .map(|part| format!("{account}{part}"))
    .to_vec();
    paths.push(format!("/v1/holds/{}", text("id")));
    paths.push(format!("/v1/receipts/{}", text("receipt")));
    paths.push(format!("/v1/receipts/{}", text("id")));
    paths.push(format!("/v1/receipts/{}", checked["receipt"].as_str().expect("a receipt")));
    assert_takes_consistency(app, &paths).await;
    assert_takes_min_position(app, &paths, held["position"].as_i64().expect("a position")).await;
}

/// What is told of the whole ledger is no older than any position that anybody was given.
#[tokio::test]
async fn reads_of_the_whole_log_take_both() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let granted = app.grant("user_1", 7).await.expect(201);
    let paths = ["/v1/events", "/v1/analytics/revenue"].map(str::to_owned);
    assert_takes_consistency(&app, &paths).await;
    assert_takes_min_position(&app, &paths, granted["position"].as_i64().expect("a position")).await;
    for query in ["type=credits_granted&consistency=strong".to_owned(), "account=user_1&consistency=strong".to_owned()]
    {
        app.get(&format!("/v1/events?{query}")).await.expect(200);
    }
}

/// The report that was made last is good enough for whoever asks for nothing newer.
#[tokio::test]
async fn a_report_is_made_anew_for_whoever_has_written_since() {
    let app = TestApp::start().await;
    let as_of =
        async |query: &str| app.get(&format!("/v1/analytics/revenue?{query}")).await.expect(200)["as_of"].clone();
    let first = as_of("").await;
    app.put_account("user_1", json!({})).await.expect(201);
    let position = app.grant("user_1", 7).await.expect(201)["position"].clone();
    app.clock.advance(chrono::Duration::minutes(1));
    assert_eq!(as_of("consistency=bounded").await, first);
    assert_eq!(as_of(&format!("min_position={position}")).await, rfc3339(START + 60));
    app.clock.advance(chrono::Duration::minutes(1));
    assert_eq!(as_of("consistency=bounded").await, rfc3339(START + 60));
    assert_eq!(as_of("consistency=strong").await, rfc3339(START + 120));
}

/// Their position is that of `PUT /v1/plans/{plan}`, in the catalog's partition.
#[tokio::test]
async fn reads_of_the_catalog_take_both_and_the_position_of_a_plan_that_was_put() {
    let app = TestApp::start().await;
    let plan = json!({"name": "Support", "rank": 500, "features": {"export": {}}});
    let put = app.call(reqwest::Method::PUT, "/v1/plans/support").json(plan).send().await.expect(200);
    let paths = ["/v1/plans", "/v1/plans/support", "/v1/credit-packs"].map(str::to_owned);
    assert_takes_consistency(&app, &paths).await;
    assert_takes_min_position(&app, &paths, put["position"].as_i64().expect("a position")).await;
}
