//! Every error code, provoked: what a caller sees of it, and that the service goes on afterwards.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use reqwest::Method;
use serde_json::json;
use subledger::app::outbound::OutboundSettings;

use crate::support::stripe::*;
use crate::support::*;

#[tokio::test]
async fn what_is_no_route_says_so() {
    let app = TestApp::start().await;
    for path in ["/", "/v1", "/v1/accounts", "/v1/accounts/a/b/c/d", "/v2/plans", "/webhooks/stripe/", "/docs/x"] {
        app.get(path).await.problem(404, "no_such_route");
    }
}

#[tokio::test]
async fn a_query_parameter_that_a_route_does_not_know_is_refused_and_those_it_knows_are_named() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let table = subledger::http::routes::RouteTable::new();
    let of_account = table.all().iter().filter(|route| route.scope.is_some());
    for route in of_account {
        let method: Method = route.method.as_str().parse().expect("a method");
        let path = route.path.replace("{account}", "user_1").replace(['{', '}'], "");
        let problem = app.call(method, &format!("{path}?qantity=1")).send().await;
        let problem = problem.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().expect("a detail");
        let known = if route.query.is_empty() { "none".to_owned() } else { route.query.join(", ") };
        assert_eq!(detail, format!("qantity: no such query parameter; this route has {known}"), "{path}");
    }
    for (query, name) in [("a%26b=1", "a&b"), ("limit=1&%6cimits=2", "limits"), ("cursor", ""), ("&&limit=1", "")] {
        let answer = app.get(&format!("/v1/accounts/user_1/invoices?{query}")).await;
        let detail = answer.body["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(detail.starts_with(&format!("{name}: no such")), !name.is_empty(), "{query}: {detail}");
    }
    let probe = b"GET /healthz?from=a-probe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let text = talk(&app, probe, |_| {});
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn a_wrong_method_says_which_ones_there_are() {
    let app = TestApp::start().await;
    let answer = app.call(Method::DELETE, "/v1/accounts/user_1").without_key().send().await;
    assert_eq!(answer.header("allow"), Some("GET, PUT"));
    answer.problem(405, "method_not_allowed");
    for method in [Method::PATCH, Method::TRACE, Method::OPTIONS, Method::PUT] {
        app.call(method, "/webhooks/stripe").send().await.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn every_problem_has_the_fields_of_a_problem_and_the_id_of_its_request() {
    let app = TestApp::start().await;
    let answer = app.get("/v1/accounts/nobody").await;
    assert_eq!(answer.media_type(), "application/problem+json");
    let body = answer.problem(404, "account_not_found");
    assert_eq!(body["type"], "urn:subledger:problem:account_not_found");
    assert_eq!(body["status"], 404);
    assert_eq!(body["request_id"], "test-request");
}

#[tokio::test]
async fn a_defect_in_a_handler_is_a_500_that_tells_nothing_but_the_request_id() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.clock.break_down();
    let answer = app.get("/v1/accounts/user_1/credits").await;
    assert_eq!(answer.header("x-request-id"), Some("test-request"));
    let body = answer.problem(500, "internal");
    assert_eq!(body["request_id"], "test-request");
    app.clock.repair();
    app.get("/v1/accounts/user_1/credits").await.expect(200);
    let series =
        "subledger_http_requests_total{method=\"GET\",route=\"/v1/accounts/{account}/credits\",status=\"500\"}";
    assert_eq!(app.metric(series).await, 1.0);
}

#[tokio::test]
async fn a_lane_that_dies_with_a_command_in_hand_leaves_its_outcome_open() {
    // Nobody else asks the time.
    let app = TestApp::with(Setup { outbound: OutboundSettings::default(), ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 5).await.expect(201);
    // The handler asks the time to make the debit's id.
    app.clock.break_down_after(1);
    let answer = app.debit("user_1", "key-1", json!({"amount": 1})).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    answer.problem(503, "outcome_unknown");
    app.clock.repair();
    app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
    assert_eq!(app.available("user_1").await, FREE_CREDITS + 4);
}

#[tokio::test]
async fn data_that_cannot_be_read_are_a_500_without_the_databases_words() {
    let mut app = TestApp::start().await;
    app.skip_checks();
    app.put_account("user_1", json!({})).await.expect(201);
    let spoil = "update balances set state = '{\"lots\": \"spoilt\"}' where account_id = 'user_1'";
    app.database().await.execute(spoil, &[]).await.expect("spoilt");
    let body = app.get("/v1/accounts/user_1/credits?consistency=strong").await.problem(500, "internal");
    assert!(!body["detail"].as_str().expect("a detail").contains("spoilt"));
}

#[tokio::test]
async fn a_stopping_service_sends_callers_to_another_replica() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.service.stop();
    let answer = app.debit("user_1", "key-1", json!({"amount": 1})).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    answer.problem(503, "stopping");
}

#[tokio::test]
async fn more_than_the_queue_holds_is_turned_away_before_any_work_is_done() {
    let app = TestApp::with(Setup { partitions: 1, queue_length: 1, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 100).await.expect(201);
    // While the heads are locked nothing can be appended, and commands pile up.
    let mut blocker = app.database().await;
    let blocking = blocker.transaction().await.expect("a transaction");
    blocking.execute("select from heads for update", &[]).await.expect("locked");
    let debit = async |n: usize| app.debit("user_1", &format!("key-{n}"), json!({"amount": 1})).await;
    let (answers, ()) = futures_util::join!(futures_util::future::join_all((0..40).map(debit)), async {
        // At least one is turned away; the rest wait for the lock.
        while !app.seen().iter().any(|seen| seen.answer.status == 503) {
            tokio::task::yield_now().await;
        }
        blocking.rollback().await.expect("unlocked");
    });
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert!(!done.is_empty() && !refused.is_empty());
    let done = done.len() as i64;
    for answer in refused {
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.problem(503, "overloaded");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS + 100 - done);
}

/// Sends bytes as they are, and reads what comes back.
fn talk(app: &TestApp, bytes: &[u8], then: impl FnOnce(&TcpStream)) -> String {
    let mut stream = TcpStream::connect(app.address).expect("a connection");
    stream.write_all(bytes).expect("sent");
    then(&stream);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

fn assert_raw_problem(text: &str, status: u16, code: &str) {
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains(&format!("\"code\":\"{code}\"")),
        "{text}"
    );
}

const HALF_A_BODY: &[u8] =
    b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{\"id\"";

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let app = TestApp::start().await;
    let text = talk(&app, HALF_A_BODY, |stream| stream.shutdown(Shutdown::Write).expect("half closed"));
    assert_raw_problem(&text, 400, "body_incomplete");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let app = TestApp::start().await;
    let text = talk(&app, HALF_A_BODY, |_| {});
    assert_raw_problem(&text, 408, "body_too_slow");
}

#[tokio::test]
async fn garbage_on_the_wire_is_a_400_and_no_panic() {
    let app = TestApp::start().await;
    for bytes in [
        &b"GET / HTTP/9.9\r\n\r\n"[..],
        b"\x00\x01\x02\r\n\r\n",
        b"POST /v1/plans HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ] {
        let text = talk(&app, bytes, |_| {});
        assert!(text.starts_with("HTTP/1.1 400"), "{bytes:?}: {text}");
    }
    app.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn nul_characters_anywhere_are_refused_and_never_reach_the_database() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    for path in [
        "/v1/accounts/a%00b",
        "/v1/accounts/user_1/entitlements/a%00b",
        "/v1/events?type=a%00b",
        "/v1/events?account=a%00b",
        "/v1/events?after=%00",
        "/v1/plans/a%00b",
        "/v1/accounts/user_1/invoices?cursor=312f00",
    ] {
        let answer = app.get(path).await;
        assert!((400..500).contains(&answer.status), "{}: {}", answer.request, answer.text);
    }
    for (method, path) in [
        (Method::DELETE, "/v1/admin/keys/a%00b"),
        (Method::POST, "/v1/admin/parked/a%00b/retry"),
        (Method::PUT, "/v1/accounts/a%00b"),
    ] {
        let answer = app.call(method, path).send().await;
        assert!((400..500).contains(&answer.status), "{}: {}", answer.request, answer.text);
    }
    let debits = "/v1/accounts/user_1/credits/debits";
    let answer = app.post(debits, json!({"feature": "a\u{0}b", "quantity": 1})).await;
    assert!((400..500).contains(&answer.status), "{}", answer.text);
    let grants = "/v1/accounts/user_1/credits/grants";
    app.post(grants, json!({"amount": 1, "reason": "a\u{0}b"})).await.problem(400, "invalid_parameter");
    app.post("/v1/admin/keys", json!({"scope": "read", "name": "a\u{0}b"})).await.problem(400, "invalid_parameter");
    let metadata = app.put_account("user_1", json!({"metadata": {"a": "b\u{0}"}})).await;
    assert!(metadata.status < 500, "{}", metadata.text);
}
