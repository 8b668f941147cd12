//! Probes, metrics, request ids and logs: what operators look at.

use serde_json::json;

use crate::support::house::{janitor, migrate_database, new_folder, start_postgres};
use crate::support::stripe::*;
use crate::support::*;

#[tokio::test]
async fn a_fresh_service_lives_and_is_ready() {
    on_both(async |app: TestApp| {
        app.get("/healthz").await.expect(200);
        app.get("/readyz").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn while_the_database_is_away_stripe_is_told_to_come_again_and_then_it_is_taken() {
    let folder = new_folder();
    let _janitor = janitor(&folder);
    let postgres = start_postgres(folder.clone()).await;
    migrate_database(&postgres.url(), 64).await;
    let setup = Setup { database_url: Some(postgres.url()), ..Setup::default() };
    let app = TestApp::with(setup).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.grant("user_1", 100).await.expect(201);
    postgres.stop().await.expect("stopped");

    let events = sign_up("cus_1", PRO, START);
    let refused = app.deliver_body(events[0].to_string()).await;
    assert!(refused.header("retry-after").is_some());
    refused.problem(503, "database_unavailable");
    app.debit("user_1", "key-1", json!({"amount": 5})).await.problem(503, "database_unavailable");
    app.get("/v1/accounts/user_1/credits?consistency=strong").await.problem(503, "database_unavailable");
    app.call(reqwest::Method::GET, "/v1/plans").key("unknown").send().await.problem(503, "database_unavailable");
    let not_ready = app.get("/readyz").await;
    assert!(not_ready.header("retry-after").is_some());
    not_ready.problem(503, "database_unavailable");
    app.get("/healthz").await.expect(200);
    assert!(app.get("/metrics").await.text.contains("subledger_http_requests_total"));

    let postgres = start_postgres(folder).await;
    app.get("/readyz").await.expect(200);
    app.deliver_all(&events).await;
    app.debit("user_1", "key-1", json!({"amount": 5})).await.expect(201);
    assert_eq!(app.available("user_1").await, FREE_CREDITS + 100 + PRO_CREDITS - 5);
    drop(app);
    postgres.stop().await.expect("stopped");
}

#[tokio::test]
async fn metrics_are_labelled_by_route_and_never_by_path() {
    let app = TestApp::start().await;
    app.put_account("user_secret_name", json!({})).await.expect(201);
    app.get("/v1/accounts/user_secret_name/entitlements/generation").await.expect(200);
    app.get("/v1/accounts/user_secret_name/nonsense").await.problem(404, "no_such_route");
    let metrics = app.get("/metrics").await.text;
    let route = "route=\"/v1/accounts/{account}/entitlements/{feature}\"";
    assert!(metrics.contains(route), "{metrics}");
    assert!(metrics.contains("route=\"unmatched\""));
    assert!(!metrics.contains("user_secret_name") && !metrics.contains("nonsense"));
}

#[tokio::test]
async fn event_types_nobody_knows_make_no_series_of_their_own() {
    let app = TestApp::start().await;
    for n in 0..5 {
        let kind = format!("invented_type_{}", "abcde".chars().nth(n).expect("a letter"));
        app.deliver(&event(&kind, START, json!({"id": "x", "object": "x"}))).await;
    }
    assert!(!app.get("/metrics").await.text.contains("invented_type"));
}

#[tokio::test]
async fn a_request_id_is_echoed_if_it_is_harmless_and_made_if_not() {
    let app = TestApp::start().await;
    let get = |id: &str| {
        let url = format!("http://{}/v1/accounts/nobody", app.address);
        let request = reqwest::Client::new().get(url).bearer_auth(ADMIN_KEY);
        if id.is_empty() { request } else { request.header("x-request-id", id) }
    };
    let answered = async |id: &str| {
        let answer = Answer::read("GET".to_owned(), get(id).send().await.expect("an answer")).await;
        let said = answer.header("x-request-id").expect("an id").to_owned();
        assert_eq!(answer.body["request_id"], said.as_str());
        said
    };
    for id in ["abc", "A-1_b.c:d", &"x".repeat(128)] {
        assert_eq!(answered(id).await, id);
    }
    for id in ["", "a b", "a\"b", "{}", &"x".repeat(129)] {
        let made = answered(id).await;
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{made}");
    }
}

#[tokio::test]
async fn no_secret_and_no_address_is_logged_at_any_level() {
    let app = TestApp::start().await;
    let email = "very.private@person.example";
    app.put_account("user_1", json!({"email": email, "metadata": {"note": "hush-hush"}})).await.expect(201);
    let session = checkout("cus_1", "cs_1", "sub_1", START);
    let session = with(session, json!({"customer_details": {"email": email, "name": "Private Person"}}));
    app.deliver(&event("checkout.session.completed", START, session)).await;
    let bad = with(
        checkout("cus_2", "cs_2", "sub_2", START),
        json!({"currency": "zzz",
        "customer_details": {"email": email}}),
    );
    assert_eq!(app.deliver(&event("checkout.session.completed", START, bad)).await, "parked");
    app.deliver_body(format!("{{\"email\": \"{email}\"")).await.expect(200);
    app.put_account("user_2", json!({"email": format!(" {email}")})).await.problem(400, "invalid_parameter");
    let made = app.post("/v1/admin/keys", json!({"scope": "read"})).await.expect(201);
    let key = made["key"].as_str().expect("a key");
    app.call(reqwest::Method::GET, "/v1/plans").key(key).send().await.expect(200);

    let logged = logs::text();
    assert!(logged.contains("StripeEvent parked"), "the log is captured");
    for secret in [email, "hush-hush", "Private Person", key, ADMIN_KEY, WEBHOOK_SECRET] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret:?} is in the log");
    }
}
