//! `POST /v1/holds/{hold}/capture`: what a capture took is told, and why one was refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Generations whose captures may go beyond their holds, at one credit each.
async fn start_with(free_plan: &str) -> TestApp {
    let catalog = SELLER.replacen("credit_cost = 1\n", "credit_cost = 1\ncapture_beyond_hold = true\n", 1);
    let catalog = catalog.replacen("credits = 10\n", free_plan, 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app
}

async fn hold(app: &TestApp, quantity: i64) -> Value {
    let body = json!({"feature": "generation", "quantity": quantity});
    app.post("/v1/accounts/user_1/credits/holds", body).await.expect(201)
}

async fn capture(app: &TestApp, hold: &Value, body: Value) -> Answer {
    app.post(&format!("/v1/holds/{}/capture", hold["id"].as_str().expect("an id")), body).await
}

fn told(hold: &Value) -> Value {
    let lots = hold["lots"].as_array().expect("lots").iter().map(|draw| draw["amount"].clone());
    json!([hold["status"], hold["captured"], lots.collect::<Vec<_>>(), hold["debt"], hold["overage"]])
}

#[tokio::test]
async fn a_captured_hold_tells_what_the_capture_took() {
    let app = start_with("credits = 10\noverage = { limit = 20 }\n").await;
    let grant = json!({"amount": 5, "priority": 1});
    app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201);
    // The five of the grant come first, then the ten of the free month, and then what may be owed.
    let beyond = hold(&app, 5).await;
    assert_eq!(told(&beyond), json!(["open", 0, [5], 0, 0]));
    let captured = capture(&app, &beyond, json!({"quantity": 8})).await.expect(200);
    assert_eq!(told(&captured), json!(["captured", 8, [5, 3], 0, 0]));
    let part = hold(&app, 5).await;
    let captured_in_part = capture(&app, &part, json!({"quantity": 3})).await.expect(200);
    assert_eq!(told(&captured_in_part), json!(["captured", 3, [3], 0, 0]));
    let owing = hold(&app, 2).await;
    let owed = capture(&app, &owing, json!({"quantity": 9})).await.expect(200);
    assert_eq!(told(&owed), json!(["captured", 9, [4], 5, 0]));
    assert_eq!(owed["amount"], 2, "what was set aside stays told");
    let released = hold(&app, 1).await;
    let path = format!("/v1/holds/{}/release", released["id"].as_str().expect("an id"));
    assert_eq!(told(&app.post(&path, json!({})).await.expect(200)), json!(["released", 0, [], 1, 0]));
    for (hold, answer) in [(&beyond, &captured), (&part, &captured_in_part), (&owing, &owed)] {
        let shown = app.get(&format!("/v1/holds/{}", hold["id"].as_str().expect("an id"))).await.expect(200);
        assert_eq!((told(&shown), &shown["lots"]), (told(answer), &answer["lots"]));
    }
    let listed = app.get("/v1/accounts/user_1/credits/holds").await.expect(200);
    let listed = listed["data"].as_array().expect("holds");
    assert!(listed.iter().any(|hold| told(hold) == told(&owed)), "{listed:?}");
}

#[tokio::test]
async fn a_repeated_capture_is_answered_as_it_was() {
    let app = start_with("credits = 10\n").await;
    let held = hold(&app, 5).await;
    let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
    let ask =
        async || app.call(Method::POST, &path).idempotency_key("capture-1").json(json!({"quantity": 8})).send().await;
    let first = ask().await.expect(200);
    let again = ask().await;
    assert!(again.is_replay());
    assert_eq!(again.expect(200), first);
}

#[tokio::test]
async fn a_capture_that_is_refused_is_explained() {
    let app = start_with("credits = 10\n").await;
    let held = hold(&app, 5).await;
    let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
    let ask =
        async || app.call(Method::POST, &path).idempotency_key("capture-1").json(json!({"quantity": 50})).send().await;
    // The five that are held are within this limit, and so are 45 more.
    let overrides = "/v1/accounts/user_1/overrides/generation";
    app.call(Method::PUT, overrides).json(json!({"limit": 50, "per": "day"})).send().await.expect(200);
    let refused = ask().await.problem(402, "insufficient_credits");
    let replayed = ask().await;
    assert!(replayed.is_replay());
    assert_eq!(replayed.problem(402, "insufficient_credits")["receipt"], refused["receipt"]);
    let denied = async {
        app.call(Method::PUT, overrides).json(json!({"allowed": false})).send().await.expect(200);
        let denied = capture(&app, &held, json!({"quantity": 6})).await.problem(403, "override_denied");
        app.call(Method::DELETE, overrides).send().await.expect(200);
        denied
    }
    .await;
    app.grant("user_1", 50).await.expect(201);
    capture(&app, &held, json!({"quantity": 50})).await.expect(200);

    let explain = async |receipt: &Value| {
        app.get(&format!("/v1/receipts/{}", receipt.as_str().expect("a receipt"))).await.expect(200)
    };
    let explained = explain(&refused["receipt"]).await;
    let decision = json!([explained["kind"], explained["allowed"], explained["reason"], explained["agrees"]]);
    assert_eq!(decision, json!(["refusal", false, "insufficient_credits", true]), "{explained}");
    assert_eq!((&explained["available_before"], &explained["available_after"]), (&json!(5), &json!(5)));
    let because = explained["because"].to_string();
    let of_hold = format!("the hold {} had set 5 credits aside", held["id"].as_str().expect("an id"));
    for text in [of_hold.as_str(), "50 of generation cost 50 credits", "so it was refused: 45 credits are needed"] {
        assert!(because.contains(text), "{text}: {because}");
    }
    assert!(!because.contains("too many"), "{because}");
    let explained = explain(&denied["receipt"]).await;
    assert_eq!((&explained["reason"], &explained["agrees"]), (&json!("override_denied"), &json!(true)), "{explained}");
    assert_eq!(explained["override"]["allowed"], false, "{explained}");

    // The hold's own id still leads to the hold, and what lies in the request has no receipt.
    assert_eq!(explain(&held["id"]).await["kind"], "hold");
    let events = app.get("/v1/events?account=user_1&type=charge_rejected").await.expect(200);
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2), "{events}");
    let of_amount = app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 2})).await.expect(201);
    let problem = capture(&app, &of_amount, json!({"amount": 3})).await.problem(422, "capture_exceeds_hold");
    assert_eq!(problem.get("receipt"), None);
}
