//! Stripe's API, as each test says what it answers.

use serde_json::{Value, json};
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Answers what it was told to, and remembers what it was asked.
pub struct StripeApi(MockServer);

/// One request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCall {
    /// Method and path, such as `POST /v1/customers`.
    pub route: String,
    pub key: Option<String>,
    /// Query and form, decoded.
    pub fields: Vec<(String, String)>,
}

impl ApiCall {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl StripeApi {
    pub async fn start() -> Self {
        Self(MockServer::start().await)
    }

    pub fn base(&self) -> String {
        self.0.uri()
    }

    /// Answers a route from now on.
    pub async fn on(&self, route: &str, body: Value) {
        self.answer(route, ResponseTemplate::new(200).set_body_json(body), u64::MAX).await;
    }

    /// Answers a route so many times; what was said of it before counts after that.
    pub async fn first(&self, times: u64, route: &str, status: u16, body: Value) {
        self.answer(
            route,
            ResponseTemplate::new(status).insert_header("request-id", "req_1").set_body_json(body),
            times,
        )
        .await;
    }

    async fn answer(&self, route: &str, template: ResponseTemplate, times: u64) {
        let (verb, at) = route.split_once(' ').expect("a method and a path");
        let priority = if times == u64::MAX { 5 } else { 1 };
        let mock = Mock::given(method(verb)).and(path(at)).respond_with(template).with_priority(priority);
        if times == u64::MAX { mock.mount(&self.0).await } else { mock.up_to_n_times(times).mount(&self.0).await }
    }

    /// Forgets what it was told, and what it was asked.
    pub async fn reset(&self) {
        self.0.reset().await;
    }

    /// Is not there any more.
    pub async fn fail(&self, status: u16) {
        self.0.reset().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(status)).mount(&self.0).await;
    }

    pub async fn calls(&self) -> Vec<ApiCall> {
        let requests = self.0.received_requests().await.expect("recorded");
        requests.iter().map(call).collect()
    }

    /// The calls of one route.
    pub async fn calls_of(&self, route: &str) -> Vec<ApiCall> {
        self.calls().await.into_iter().filter(|call| call.route == route).collect()
    }
}

fn call(request: &wiremock::Request) -> ApiCall {
    let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = url::form_urlencoded::parse(&request.body).into_owned();
    ApiCall {
        route: format!("{} {}", request.method, request.url.path()),
        key: text("idempotency-key"),
        fields: request.url.query_pairs().into_owned().chain(body).collect(),
    }
}

/// The body of a refusal.
pub fn refusal(kind: &str, code: &str, message: &str) -> Value {
    json!({"error": {"type": kind, "code": code, "message": message}})
}
