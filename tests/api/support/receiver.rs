//! A receiver of webhooks on this machine, which answers as a test wants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::{TestApp, contract};

/// Nothing here takes as long; who waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so, and says what was if it never is.
pub async fn eventually<T: std::fmt::Debug>(look: impl AsyncFn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never came to that: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub text: Vec<u8>,
    pub body: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).expect("the header").to_str().expect("text")
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

type Answering = Arc<Mutex<Box<dyn Fn(&Value) -> ResponseTemplate + Send>>>;

/// Answers 204, unless told otherwise.
pub struct Receiver {
    server: MockServer,
    answering: Answering,
}

impl Receiver {
    pub async fn start() -> Self {
        let answering: Answering = Arc::new(Mutex::new(Box::new(|_| ResponseTemplate::new(204))));
        let server = MockServer::start().await;
        let answer = Arc::clone(&answering);
        let respond = move |request: &Request| {
            let body = serde_json::from_slice(&request.body).expect("JSON");
            answer.lock().unwrap_or_else(PoisonError::into_inner)(&body)
        };
        Mock::given(any()).respond_with(respond).mount(&server).await;
        Self { server, answering }
    }

    pub fn url(&self) -> String {
        format!("{}/hooks", self.server.uri())
    }

    /// From now on each message is answered so.
    pub fn answer(&self, answer: impl Fn(&Value) -> ResponseTemplate + Send + 'static) {
        *self.answering.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(answer);
    }

    pub fn answer_status(&self, status: u16) {
        self.answer(move |_| ResponseTemplate::new(status));
    }

    /// Every request so far, taken or not, each held against the contract.
    pub async fn received(&self) -> Vec<Received> {
        let requests = self.server.received_requests().await.expect("recorded");
        let received = requests.into_iter().map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            let problems = contract::problems("/components/schemas/WebhookMessage", &body);
            assert!(problems.is_empty(), "{problems:?}: {body}");
            Received { headers: request.headers, text: request.body, body }
        });
        received.collect()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(async || self.received().await, |received| received.len() >= count).await
    }
}

/// Makes an endpoint. Answers its id and its secret.
pub async fn endpoint(app: &TestApp, url: &str, event_types: &[&str]) -> (String, String) {
    let made = app.post("/v1/webhook-endpoints", json!({"url": url, "event_types": event_types})).await.expect(201);
    let text = |field: &str| made[field].as_str().expect("text").to_owned();
    (text("id"), text("secret"))
}
