//! `/v1/admin/…`: parked events in pages, keys. Who may come here at all is in `auth.rs`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn parked_events_are_listed_oldest_first_in_pages() {
    let app = TestApp::start().await;
    for n in 0..5 {
        // Two of the same moment, so that the time alone is no order.
        app.clock.set(START + n / 2);
        app.deliver_body(format!("not json {n}")).await.expect(200);
    }
    let all = app.get("/v1/admin/parked").await.expect(200)["data"].as_array().expect("rows").clone();
    let times: Vec<&str> = all.iter().filter_map(|row| row["received_at"].as_str()).collect();
    assert!(times.is_sorted() && times.len() == 5, "{times:?}");
    for limit in [1, 2, 4] {
        let mut paged: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get(&format!("/v1/admin/parked?limit={limit}{cursor}")).await.expect(200);
            paged.extend(page["data"].as_array().expect("rows").iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, all);
    }
    for query in ["limit=0", "cursor=x"] {
        app.get(&format!("/v1/admin/parked?{query}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn only_what_is_parked_can_be_tried_again() {
    let app = TestApp::start().await;
    app.call(Method::POST, "/v1/admin/parked/evt_nobody/retry").send().await.problem(404, "not_found");
    let none = app.call(Method::POST, "/v1/admin/parked/retry").send().await.expect(200);
    assert_eq!(none, json!({"data": []}));
}

/// Waits until a job that was started has ended.
async fn finished(app: &TestApp, job: &str) -> Value {
    loop {
        let seen = app.get(job).await.expect(200);
        if seen["status"] != "running" {
            return seen;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_ledger_is_verified_and_rebuilt_on_request() {
    let app = TestApp::start().await;
    for job in ["/v1/admin/verify", "/v1/admin/rebuild"] {
        app.get(job).await.problem(404, "not_found");
    }
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 10).await.expect(201);
    app.call(Method::POST, "/v1/admin/verify").send().await.expect(202);
    let sound = finished(&app, "/v1/admin/verify").await;
    assert_eq!((&sound["status"], &sound["result"]["differences"]), (&json!("done"), &json!(0)));
    assert!(sound["result"]["events"].as_u64() >= Some(2) && sound["events"] == sound["total_events"], "{sound}");

    let damage = "update balances set available = available + 5 where account_id = 'user_1'";
    app.database().await.batch_execute(damage).await.expect("damaged");
    app.call(Method::POST, "/v1/admin/verify").send().await.expect(202);
    let damaged = finished(&app, "/v1/admin/verify").await;
    assert_eq!(damaged["result"]["differences"], 1, "{damaged}");
    assert_eq!(damaged["result"]["listed"][0]["account_id"], "user_1");

    app.call(Method::POST, "/v1/admin/rebuild").send().await.expect(202);
    let rebuilt = finished(&app, "/v1/admin/rebuild").await;
    assert_eq!((&rebuilt["status"], &rebuilt["result"]["accounts"]), (&json!("done"), &sound["result"]["accounts"]));
    assert_eq!((&rebuilt["events"], &rebuilt["total_events"]), (&sound["events"], &sound["events"]), "{rebuilt}");
    assert_eq!(rebuilt["result"]["events"], rebuilt["events"]);
    app.call(Method::POST, "/v1/admin/verify").send().await.expect(202);
    assert_eq!(finished(&app, "/v1/admin/verify").await["result"]["differences"], 0);
}

#[tokio::test]
async fn a_key_is_shown_once_and_listed_until_after_it_is_revoked() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/v1/admin/keys").await.expect(200), json!({"data": []}));
    let made = app.post("/v1/admin/keys", json!({"scope": "bill", "name": "back office"})).await.expect(201);
    assert_eq!((&made["scope"], &made["name"]), (&json!("bill"), &json!("back office")));
    let key_id = made["key_id"].as_str().expect("an id");
    let listed = app.get("/v1/admin/keys").await.expect(200)["data"][0].clone();
    assert_eq!((&listed["key_id"], &listed["revoked_at"]), (&json!(key_id), &Value::Null));
    app.call(Method::DELETE, &format!("/v1/admin/keys/{key_id}")).send().await.expect(204);
    let listed = app.get("/v1/admin/keys").await.expect(200)["data"][0].clone();
    assert!(listed["revoked_at"].is_string());
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused() {
    let app = TestApp::start().await;
    for body in [json!({}), json!({"scope": "root"}), json!({"scope": "read", "expires": 5}), json!([])] {
        app.post("/v1/admin/keys", body).await.problem(400, "invalid_body");
    }
    for name in ["x".repeat(201), "a\nb".to_owned()] {
        let body = json!({"scope": "read", "name": name});
        app.post("/v1/admin/keys", body).await.problem(400, "invalid_parameter");
    }
    app.call(Method::DELETE, "/v1/admin/keys/key_nobody").send().await.problem(404, "not_found");
}
