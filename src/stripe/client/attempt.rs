//! One HTTP exchange with Stripe, and what its answer means for the next try.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::error::{StripeCallError, Unavailability};
use super::{API_VERSION, IdempotencyKey, StripeAnswer};
use crate::domain::stripe_refusal::StripeRefusal;

/// Longer answers than this are none of Stripe's.
const MAX_BODY_BYTES: usize = 16 << 20;
/// When Stripe says nothing about when to come again.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Longest that Stripe's word is taken for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// A try that brought no good answer.
#[derive(Debug)]
pub struct Failure {
    pub error: StripeCallError,
    pub may_retry: bool,
    /// What Stripe wants to be waited before the next try.
    pub retry_after: Option<Duration>,
    /// What it says about Stripe: `None` nothing, else whether it works.
    pub works: Option<bool>,
}

/// Where and as whom to call.
#[derive(Debug)]
pub struct Target<'a> {
    pub http: &'a Client,
    /// Without a slash at its end.
    pub base: &'a str,
    /// `Bearer …`, marked as a secret.
    pub authorization: &'a HeaderValue,
}

/// Sends a request once.
pub async fn send(
    target: &Target<'_>,
    request: &RequestBuilder,
    key: Option<&IdempotencyKey>,
    timeout: Duration,
) -> Result<StripeAnswer, Failure> {
    let method = match request.method {
        StripeMethod::Get => Method::GET,
        StripeMethod::Post => Method::POST,
        StripeMethod::Delete => Method::DELETE,
    };
    let query = request.query.as_deref().filter(|query| !query.is_empty());
    let url = match query {
        Some(query) => format!("{}/v1{}?{query}", target.base, request.path),
        None => format!("{}/v1{}", target.base, request.path),
    };
    let mut call = target
        .http
        .request(method, url)
        .timeout(timeout)
        .header(AUTHORIZATION, target.authorization)
        .header(STRIPE_VERSION, API_VERSION);
    if let Some(key) = key {
        call = call.header(IDEMPOTENCY_KEY, key.as_str());
    }
    if let Some(body) = &request.body {
        call = call.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.clone());
    }
    let started = Instant::now();
    let mut response = call.send().await.map_err(|error| unreachable(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            let error = StripeCallError::Unreadable(format!("it has more than {MAX_BODY_BYTES} bytes"));
            return Err(Failure { error, may_retry: false, retry_after: None, works: None });
        }
        body.extend_from_slice(&chunk);
    }
    let request_id = text(&headers, &REQUEST_ID);
    tracing::debug!(
        path = request.path,
        status = status.as_u16(),
        stripe_request_id = request_id,
        seconds = started.elapsed().as_secs_f64(),
        "Stripe answered"
    );
    let answer = StripeAnswer { body: body.freeze(), request_id };
    if status.is_success() { Ok(answer) } else { Err(refused(status, &headers, &answer)) }
}

fn unreachable(error: &reqwest::Error) -> Failure {
    let reason = if error.is_timeout() { Unavailability::TimedOut } else { Unavailability::Network };
    let error = StripeCallError::Unavailable { reason, retry_after: DEFAULT_RETRY_AFTER };
    Failure { error, may_retry: true, retry_after: None, works: Some(false) }
}

/// An answer that is no success. Stripe says itself whether to try again; where it does not, the status does.
/// <https://docs.stripe.com/error-low-level>
fn refused(status: StatusCode, headers: &HeaderMap, answer: &StripeAnswer) -> Failure {
    let asked = text(headers, &RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let retry_after = asked.map(|asked| asked.min(MAX_RETRY_AFTER));
    let transient = match status.as_u16() {
        409 => Some(Unavailability::Busy),
        424 | 500..=599 => Some(Unavailability::ServerError),
        429 => Some(Unavailability::RateLimited),
        _ => None,
    };
    let may_retry = match text(headers, &SHOULD_RETRY).as_deref() {
        Some("true") => true,
        Some("false") => false,
        _ => transient.is_some(),
    };
    let error = match transient {
        // A conflict that does not pass is an answer like any other.
        Some(reason) if may_retry || reason != Unavailability::Busy => {
            StripeCallError::Unavailable { reason, retry_after: retry_after.unwrap_or(DEFAULT_RETRY_AFTER) }
        }
        _ => StripeCallError::Refused(Box::new(refusal(status, answer))),
    };
    let works = match status.as_u16() {
        429 => None,
        status => Some(status < 500),
    };
    Failure { error, may_retry, retry_after, works }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorFields {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

fn refusal(status: StatusCode, answer: &StripeAnswer) -> StripeRefusal {
    let ErrorBody { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
    StripeRefusal {
        status: status.as_u16(),
        kind: error.kind.unwrap_or_else(|| "invalid_request_error".to_owned()),
        stripe_code: error.code,
        decline_code: error.decline_code,
        message: error.message.unwrap_or_else(|| format!("Stripe answered with status {}", status.as_u16())),
        param: error.param,
        stripe_request_id: answer.request_id.clone(),
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
