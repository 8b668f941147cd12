//! One attempt to deliver: a signed request, and what came of it.

use std::error::Error;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};

use super::address::{Blocked, PublicResolver, parse_url};
use super::signature;
use crate::store::error::StoreError;
use crate::store::webhook_deliveries::Attempt;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole attempt.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Of an answer, at most so much is read, and kept when it is no success.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;
const MAX_RESPONSE_CHARS: usize = 500;
/// A receiver may ask for so much patience at most.
const MAX_RETRY_AFTER: TimeDelta = TimeDelta::days(1);

/// Sends to endpoints.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Client,
    allow_private: bool,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub attempt: Attempt,
    pub is_delivered: bool,
    /// The receiver says that it is gone for good.
    pub is_gone: bool,
    /// The receiver asks not to be tried again before.
    pub retry_after: Option<TimeDelta>,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub url: &'a str,
    pub secrets: &'a [Vec<u8>],
    pub message_id: &'a str,
    pub body: &'a [u8],
    pub at: DateTime<Utc>,
}

impl Sender {
    pub fn new(allow_private: bool) -> Result<Self, StoreError> {
        let http = Client::builder()
            .dns_resolver(PublicResolver { allow_private })
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(4)
            .user_agent(concat!("subledger/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| StoreError::Refused(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, allow_private })
    }

    /// Whether webhooks may go to a URL; says why not.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        parse_url(url, self.allow_private).map(drop)
    }

    /// Makes one attempt.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Sent {
        let begun = Instant::now();
        let mut sent = match self.post(outgoing).await {
            Ok(response) => read(response).await,
            Err((outcome, problem)) => failed(outcome, problem),
        };
        sent.attempt.at = outgoing.at;
        sent.attempt.duration_ms = i32::try_from(begun.elapsed().as_millis()).unwrap_or(i32::MAX);
        sent
    }

    /// Else the outcome, and what went wrong.
    async fn post(&self, outgoing: Outgoing<'_>) -> Result<Response, (&'static str, String)> {
        // Addresses written out are not resolved, so they are looked at here.
        let url = parse_url(outgoing.url, self.allow_private).map_err(|problem| ("blocked", problem))?;
        let timestamp = outgoing.at.timestamp();
        let signature = signature::sign(outgoing.secrets, outgoing.message_id, timestamp, outgoing.body);
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", outgoing.message_id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(outgoing.body.to_vec());
        request.send().await.map_err(|error| {
            let error = error.without_url();
            let causes = causes(&error);
            let outcome = match causes.iter().any(|cause| cause.is::<Blocked>()) {
                true => "blocked",
                false if error.is_timeout() => "timed_out",
                false => "unreachable",
            };
            (outcome, causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": "))
        })
    }
}

fn failed(outcome: &str, problem: String) -> Sent {
    let attempt = Attempt {
        at: DateTime::UNIX_EPOCH,
        duration_ms: 0,
        outcome: outcome.to_owned(),
        status_code: None,
        problem: Some(printable(&problem)),
        response: None,
    };
    Sent { attempt, is_delivered: false, is_gone: false, retry_after: None }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut cause = error;
    while let Some(source) = cause.source() {
        causes.push(source);
        cause = source;
    }
    causes
}

async fn read(mut response: Response) -> Sent {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let retry_after = seconds.map(|seconds| TimeDelta::seconds(seconds.into()).min(MAX_RETRY_AFTER));
    // Also a success is read, so that its connection can be used again.
    let mut bytes = Vec::new();
    while bytes.len() < MAX_RESPONSE_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    let is_delivered = status.is_success();
    let mut sent = failed("refused", problem_of(status));
    sent.attempt.status_code = Some(status.as_u16().into());
    if is_delivered {
        sent.attempt.outcome = "delivered".to_owned();
        sent.attempt.problem = None;
    } else {
        sent.attempt.response = Some(printable(&String::from_utf8_lossy(&bytes))).filter(|text| !text.is_empty());
    }
    Sent { is_delivered, is_gone: status == StatusCode::GONE, retry_after, ..sent }
}

fn problem_of(status: StatusCode) -> String {
    if status.is_redirection() {
        format!("the receiver answered {status}; redirects are not followed, so give its final URL")
    } else {
        format!("the receiver answered {status}; only 2xx counts as received")
    }
}

/// The beginning of a text from outside, as it can be kept and shown.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_RESPONSE_CHARS).collect()
}
