//! `/v1/receipts/{receipt}`: decisions explained out of the log.

use chrono::Duration;
use serde_json::{Value, json};

use crate::support::*;

async fn explain(app: &TestApp, receipt: &Value) -> Value {
    let explained = app.get(&format!("/v1/receipts/{}", receipt.as_str().expect("a receipt"))).await.expect(200);
    assert_ne!(explained["agrees"], false, "{explained}");
    explained
}

#[tokio::test]
async fn a_debit_is_explained_as_it_was_whatever_has_happened_since() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let body = json!({"feature": "generation", "quantity": 3});
        let debit = app.debit("user_1", "key-1", body).await.expect(201);
        app.grant("user_1", 50).await.expect(201);
        app.debit("user_1", "key-2", json!({"amount": 40})).await.expect(201);
        let dearer = SELLER.replacen("credit_cost = 1\n", "credit_cost = 9\n", 1);
        app.apply_catalog(&dearer).await;
        app.clock.advance(Duration::days(40));
        let explained = explain(&app, &debit["receipt"]).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!("debit"), &json!(true)));
        assert_eq!((&explained["available_before"], &explained["available_after"]), (&json!(10), &json!(7)));
        assert_eq!((&explained["plan"], &explained["position"]), (&json!("free"), &debit["position"]));
        assert_eq!(explained["lots"][0]["lot"], debit["lots"][0]["id"]);
        let because = explained["because"].to_string();
        assert!(because.contains("3 of generation cost 3 credits, 1 each"), "{because}");
        let by_id = explain(&app, &debit["id"]).await;
        assert_eq!(by_id, explained);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_explained_although_it_changed_nothing() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let problem = app.debit("user_1", "key-1", json!({"amount": 11})).await.problem(402, "insufficient_credits");
    let hold = app.post("/v1/accounts/user_1/credits/holds", json!({"feature": "export"})).await;
    let held = hold.problem(403, "feature_not_in_plan");
    app.grant("user_1", 50).await.expect(201);
    let explained = explain(&app, &problem["receipt"]).await;
    assert_eq!((&explained["allowed"], &explained["reason"]), (&json!(false), &json!("insufficient_credits")));
    assert_eq!((&explained["available_before"], &explained["agrees"]), (&json!(10), &json!(true)));
    let explained = explain(&app, &held["receipt"]).await;
    assert_eq!((&explained["reason"], &explained["agrees"]), (&json!("feature_not_in_plan"), &json!(true)));
    // What lies in the request has no receipt: it says all there is to say.
    let problem = app.debit("user_1", "key-2", json!({"amount": 0})).await.problem(400, "out_of_range");
    assert_eq!(problem.get("receipt"), None);
}

#[tokio::test]
async fn every_step_of_a_hold_is_explained() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grant = json!({"amount": 5, "priority": 1, "expires_at": rfc3339(START + 60)});
    app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201);
    let place = async || app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 2})).await.expect(201);
    let (captured, released) = (place().await, place().await);
    let explained = explain(&app, &captured["receipt"]).await;
    assert_eq!((&explained["kind"], &explained["available_after"]), (&json!("hold"), &json!(13)));
    // The lot has expired when they end, so what returns to it expires at once: another event, of the same decision.
    app.clock.set(START + 61);
    for (hold, act, kind) in [(&captured, "capture", "capture"), (&released, "release", "hold_released")] {
        let path = format!("/v1/holds/{}/{act}", hold["id"].as_str().expect("an id"));
        let body = if act == "capture" { json!({"amount": 1}) } else { json!({}) };
        let ended = app.post(&path, body).await.expect(200);
        let explained = explain(&app, &ended["receipt"]).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!(kind), &json!(true)), "{explained}");
    }
}

#[tokio::test]
async fn a_grant_by_hand_is_explained_and_a_check_in_the_future_is_not() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 5).await.expect(201);
    let entries = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
    for entry in entries["data"].as_array().expect("entries") {
        let account = app.get("/v1/accounts/user_1/credits").await.expect(200);
        let partition = account["as_of"]["partition"].as_i64().expect("a partition");
        let explained = explain(&app, &json!(format!("{partition}-{}", entry["position"]))).await;
        assert_ne!(explained["agrees"], false, "{explained}");
    }
    let check = app.get("/v1/accounts/user_1/entitlements/generation").await.expect(200);
    let receipt = check["receipt"].as_str().expect("a receipt");
    let mut parts: Vec<&str> = receipt.split('.').collect();
    let later = format!("{}", (START + 86_400) * 1_000_000);
    parts[2] = &later;
    app.get(&format!("/v1/receipts/{}", parts.join("."))).await.problem(404, "receipt_not_found");
}

#[tokio::test]
async fn a_capture_of_credits_that_are_no_whole_units_is_explained() {
    let catalog = SELLER.replacen("credit_cost = 1\n", "credit_cost = 2\n", 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    for body in [json!({"amount": 1}), json!({"amount": 3}), json!({"quantity": 1}), json!({})] {
        let placed = json!({"feature": "generation", "quantity": 2});
        let held = app.post("/v1/accounts/user_1/credits/holds", placed).await.expect(201);
        let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
        let captured = app.post(&path, body.clone()).await.expect(200);
        let explained = explain(&app, &captured["receipt"]).await;
        assert_eq!(explained["agrees"], true, "{body}: {explained}");
    }
}

#[tokio::test]
async fn a_record_that_the_rules_would_not_have_made_is_found_out() {
    let mut app = TestApp::start().await;
    app.skip_checks();
    app.put_account("user_1", json!({})).await.expect(201);
    let debit = app.debit("user_1", "key-1", json!({"feature": "generation", "quantity": 3})).await.expect(201);
    let forged = "alter table events disable trigger all;
        update events set payload = replace(payload::text, '\"amount\":3', '\"amount\":1')::json
        where type = 'credits_debited'";
    app.database().await.batch_execute(forged).await.expect("an owner can");
    let path = format!("/v1/receipts/{}", debit["receipt"].as_str().expect("a receipt"));
    assert_eq!(app.get(&path).await.expect(200)["agrees"], false);
}

#[tokio::test]
async fn what_is_no_receipt_is_a_404() {
    let app = TestApp::start().await;
    for receipt in [
        "nonsense",
        "0-999",
        "999-1",
        "check.1.2",
        "01a1fdf1-7c44-7b0e-b1c1-4f2a7d3e9c55",
        "5f0c6a52-7f3c-4b8e-9a52-2f6f4a0d9f11",
    ] {
        app.get(&format!("/v1/receipts/{receipt}")).await.problem(404, "receipt_not_found");
    }
}

#[tokio::test]
async fn a_check_is_explained_although_it_left_no_trace() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.debit("user_1", "key-1", json!({"amount": 4})).await.expect(201);
    let check = async |feature: &str, quantity: i64| {
        let path = format!("/v1/accounts/user_1/entitlements/{feature}?quantity={quantity}");
        app.get(&path).await.expect(200)["receipt"].clone()
    };
    let (allowed, refused) = (check("generation", 6).await, check("generation", 7).await);
    let not_in_plan = check("export", 1).await;
    app.grant("user_1", 50).await.expect(201);
    app.apply_catalog(&SELLER.replacen("credit_cost = 1\n", "credit_cost = 9\n", 1)).await;
    app.clock.advance(Duration::days(40));
    for (receipt, is_allowed, reason) in
        [(allowed, true, "included"), (refused, false, "insufficient_credits"), (not_in_plan, false, "not_in_plan")]
    {
        let explained = explain(&app, &receipt).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!("check"), &json!(true)), "{explained}");
        assert_eq!((&explained["allowed"], &explained["reason"]), (&json!(is_allowed), &json!(reason)));
        assert_eq!(explained["available_before"], 6);
    }
}

#[tokio::test]
async fn a_refused_row_of_a_batch_has_a_receipt_and_a_capture_that_is_not_on_record_has_none() {
    let catalog = SELLER.replacen("credit_cost = 1\n", "credit_cost = 1\ncapture_beyond_hold = true\n", 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debits = json!({"debits": [{"account": "user_1", "idempotency_key": "key-1", "amount": 11}]});
    let batch = app.call(reqwest::Method::POST, "/v1/debits/batch").json(debits).send().await.expect(200);
    let explained = explain(&app, &batch["data"][0]["problem"]["receipt"]).await;
    assert_eq!((&explained["reason"], &explained["agrees"]), (&json!("insufficient_credits"), &json!(true)));
    let held = json!({"feature": "generation", "quantity": 2});
    let held = app.post("/v1/accounts/user_1/credits/holds", held).await.expect(201);
    let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
    let problem = app.post(&path, json!({"amount": 11})).await.problem(402, "insufficient_credits");
    assert_eq!(problem.get("receipt"), None);
}
