use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::Registry;
use serde::Deserialize;
use serde_json::json;
use stripe_core::customer::{CreateCustomer, RetrieveCustomer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{body_string_contains, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

const KEY: &str = "sk_test_of_the_tests";

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

fn settings(base: &str) -> ClientSettings {
    ClientSettings {
        secret_key: Some(KEY.to_owned()),
        base: base.to_owned(),
        first_delay: Duration::from_millis(1),
        ..ClientSettings::default()
    }
}

fn client(settings: ClientSettings) -> StripeClient {
    let metrics = CallMetrics::new(&Registry::new()).expect("metrics");
    StripeClient::new(settings, metrics).expect("a client")
}

fn cause() -> IdempotencyKey {
    IdempotencyKey::derived("customer", &[b"user_1"])
}

fn made() -> ResponseTemplate {
    ResponseTemplate::new(200).insert_header("request-id", "req_1").set_body_json(json!({"id": "cus_1", "new": [1]}))
}

async fn create(client: &StripeClient) -> Result<Named, StripeCallError> {
    let request = CreateCustomer::new().email("a@example.com");
    client.write("customer.create", &request, &cause()).await?.parse()
}

/// Answers the first so many requests with `first`, all others well.
async fn troubled(first: ResponseTemplate, times: u64) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(first).up_to_n_times(times).mount(&server).await;
    Mock::given(method("POST")).respond_with(made()).mount(&server).await;
    server
}

/// The keys that arrived, one for each try.
async fn keys(server: &MockServer) -> Vec<String> {
    let requests = server.received_requests().await.expect("recorded");
    let key = |request: &wiremock::Request| {
        request.headers.get("idempotency-key").expect("a key").to_str().expect("text").to_owned()
    };
    requests.iter().map(key).collect()
}

#[test]
fn the_version_is_that_of_the_request_builders() {
    assert_eq!(API_VERSION, stripe_client_core::VERSION.as_str());
}

#[tokio::test]
async fn a_request_is_sent_as_stripe_wants_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/customers"))
        .and(header("authorization", format!("Bearer {KEY}")))
        .and(header("stripe-version", API_VERSION))
        .and(header("idempotency-key", cause().as_str()))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string_contains("email=a"))
        .respond_with(made())
        .expect(1)
        .mount(&server)
        .await;
    assert_eq!(create(&client(settings(&server.uri()))).await.expect("made").id, "cus_1");
}

#[tokio::test]
async fn every_try_carries_the_same_key() {
    let troubles = [
        ResponseTemplate::new(429).insert_header("retry-after", "0"),
        ResponseTemplate::new(500).set_body_json(json!({"error": {"type": "api_error"}})),
        ResponseTemplate::new(503),
        ResponseTemplate::new(409).set_body_json(json!({"error": {"type": "idempotency_error"}})),
        ResponseTemplate::new(400).insert_header("stripe-should-retry", "true"),
    ];
    for trouble in troubles {
        let server = troubled(trouble, 2).await;
        assert_eq!(create(&client(settings(&server.uri()))).await.expect("made in the end").id, "cus_1");
        assert_eq!(keys(&server).await, [cause().as_str(); 3]);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_asked_for_again_under_the_same_key() {
    let server = troubled(made().set_delay(Duration::from_secs(60)), 1).await;
    let settings = ClientSettings { attempt_timeout: Duration::from_secs(3), ..settings(&server.uri()) };
    assert_eq!(create(&client(settings)).await.expect("made").id, "cus_1");
    assert_eq!(keys(&server).await, [cause().as_str(); 2]);
}

#[tokio::test]
async fn no_try_is_made_that_could_not_be_waited_for() {
    let server = troubled(ResponseTemplate::new(429).insert_header("retry-after", "60"), 9).await;
    let error = create(&client(settings(&server.uri()))).await.expect_err("rate limited");
    let reason = Unavailability::RateLimited;
    assert_eq!(error, StripeCallError::Unavailable { reason, retry_after: Duration::from_secs(60) });
    assert_eq!(keys(&server).await.len(), 1);
}

#[tokio::test]
async fn tries_come_to_an_end_and_stripe_may_forbid_them() {
    let server = troubled(ResponseTemplate::new(500), 99).await;
    let error = create(&client(settings(&server.uri()))).await.expect_err("never made");
    assert!(matches!(error, StripeCallError::Unavailable { reason: Unavailability::ServerError, .. }));
    assert_eq!(keys(&server).await.len(), 4);
    let server = troubled(ResponseTemplate::new(500).insert_header("stripe-should-retry", "false"), 99).await;
    create(&client(settings(&server.uri()))).await.expect_err("never made");
    assert_eq!(keys(&server).await.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final_and_carries_stripes_words() {
    let body = json!({"error": {
        "type": "invalid_request_error", "code": "resource_missing", "message": "No such price: 'price_1'",
        "param": "line_items[0][price]",
    }});
    let refused = ResponseTemplate::new(400).insert_header("request-id", "req_9").set_body_json(body);
    let server = troubled(refused, 9).await;
    let error = create(&client(settings(&server.uri()))).await.expect_err("refused");
    let refusal = error.refusal().expect("a refusal");
    assert_eq!(refusal.message, "No such price: 'price_1'");
    assert_eq!(refusal.param.as_deref(), Some("line_items[0][price]"));
    assert_eq!(refusal.stripe_request_id.as_deref(), Some("req_9"));
    assert!(error.is_missing());
    assert_eq!(keys(&server).await.len(), 1);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error_and_no_panic() {
    let bodies = ["", "<html>", "[]", "{}"];
    for body in bodies {
        let server = troubled(ResponseTemplate::new(200).set_body_string(body), 9).await;
        let error = create(&client(settings(&server.uri()))).await.expect_err("unreadable");
        assert!(matches!(error, StripeCallError::Unreadable(_)), "{body:?}: {error}");
    }
}

#[tokio::test]
async fn the_breaker_opens_and_closes() {
    let server = troubled(ResponseTemplate::new(500), 3).await;
    let once = ClientSettings { max_attempts: 1, breaker_failures: 3, ..settings(&server.uri()) };
    let calls = client(ClientSettings { breaker_pause: Duration::from_secs(3_600), ..once.clone() });
    for _ in 0..3 {
        create(&calls).await.expect_err("failing");
    }
    assert_eq!(calls.0.metrics.breaker.get(), 2);
    let error = create(&calls).await.expect_err("not made");
    assert!(matches!(error, StripeCallError::Unavailable { reason: Unavailability::BreakerOpen, .. }));
    assert_eq!(keys(&server).await.len(), 3, "the fourth was not sent");

    let server = troubled(ResponseTemplate::new(500), 3).await;
    let calls = client(ClientSettings { base: server.uri(), breaker_pause: Duration::ZERO, ..once });
    for _ in 0..3 {
        create(&calls).await.expect_err("failing");
    }
    create(&calls).await.expect("the probe goes through");
    assert_eq!(calls.0.metrics.breaker.get(), 0);
}

#[tokio::test]
async fn without_a_key_nothing_is_called() {
    let server = MockServer::start().await;
    let calls = client(ClientSettings { secret_key: None, ..settings(&server.uri()) });
    assert_eq!(create(&calls).await.expect_err("not configured"), StripeCallError::NotConfigured);
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

/// Speaks just enough HTTP: cuts the first `cuts` connections in the middle of an answer, counts all of them.
async fn server_that_cuts(cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                while connection.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let body = r#"{"id": "cus_1"}"#;
                    let length = if number < cuts { body.len() + 10 } else { body.len() };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    let _ = connection.write_all(answer.as_bytes()).await;
                    if number < cuts {
                        return;
                    }
                }
            });
        }
    });
    (base, connections)
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_again_and_connections_are_kept() {
    let (base, connections) = server_that_cuts(1).await;
    let calls = client(settings(&base));
    let retrieve = RetrieveCustomer::new("cus_1");
    for _ in 0..5 {
        let customer: Named = calls.read("customer.retrieve", &retrieve).await.expect("an answer");
        assert_eq!(customer.id, "cus_1");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one that was cut, and one for all that followed");
}

#[test]
fn the_key_is_in_no_debug_output() {
    let calls = client(settings("http://127.0.0.1:1"));
    assert!(!format!("{calls:?} {:?}", settings("http://127.0.0.1:1")).contains(KEY));
}
