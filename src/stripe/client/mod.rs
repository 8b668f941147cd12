//! Calls to Stripe's API: requests built by async-stripe's typed builders, sent by an executor of our own.
//!
//! Each write carries an Idempotency-Key that its caller chose, the same on every try, so that a try whose answer was lost
//! has its effect once (<https://docs.stripe.com/api/idempotent_requests>). Tries are made again on network errors, 409,
//! 424, 429 and 5xx, or as Stripe's own `Stripe-Should-Retry` says, with jitter and no sooner than `Retry-After`. Bodies
//! are never logged.

mod attempt;
mod breaker;
mod error;
mod metrics;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::Bytes;
use reqwest::Client;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use stripe_client_core::{RequestBuilder, StripeRequest};

use crate::domain::stripe_refusal::StripeRefusal;
use attempt::{Failure, Target};
use breaker::Breaker;
pub use error::{StripeCallError, Unavailability};
pub use metrics::CallMetrics;

/// The version whose parameters the request builders have, and in whose shape Stripe answers.
pub const API_VERSION: &str = "2026-09-30.endive";
/// Where Stripe's API is.
pub const DEFAULT_BASE: &str = "https://api.stripe.com";
/// An idle connection is kept this long: Stripe closes its side after a minute or so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How Stripe is called.
#[derive(Clone)]
pub struct ClientSettings {
    /// `None`: it is not; every call answers [`StripeCallError::NotConfigured`].
    pub secret_key: Option<String>,
    /// Such as `https://api.stripe.com`, without a path.
    pub base: String,
    /// Longest time of one try.
    pub attempt_timeout: Duration,
    /// Longest time of a call with all its tries.
    pub timeout: Duration,
    /// Tries of a call at most.
    pub max_attempts: usize,
    /// Time before the second try, doubled before each further one, and with jitter.
    pub first_delay: Duration,
    /// So many failed tries in a row, and none is made for a while.
    pub breaker_failures: u32,
    /// That while.
    pub breaker_pause: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            secret_key: None,
            base: DEFAULT_BASE.to_owned(),
            attempt_timeout: Duration::from_secs(15),
            timeout: Duration::from_secs(30),
            max_attempts: 4,
            first_delay: Duration::from_millis(250),
            breaker_failures: 10,
            breaker_pause: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for ClientSettings {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("is_configured", &self.secret_key.is_some())
            .field("base", &self.base)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the Stripe key contains characters that no key has")]
    InvalidKey,
    #[error("no HTTP client can be made: {0}")]
    Http(#[from] reqwest::Error),
    #[error("metrics of calls to Stripe exist already: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Stripe's own Idempotency-Key of one write: derived from what causes it, so the same cause makes the same key for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// `purpose` tells apart the writes that one cause brings about.
    pub fn derived(purpose: &str, cause: &[&[u8]]) -> Self {
        let mut sha = Sha256::new();
        for part in std::iter::once(purpose.as_bytes()).chain(cause.iter().copied()) {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
        Self(format!("subledger-{purpose}-{}", &hex::encode(sha.finalize())[..40]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What Stripe answered, in its own bytes.
#[derive(Debug, Clone)]
pub struct StripeAnswer {
    pub body: Bytes,
    /// Finds the request in Stripe's dashboard.
    pub request_id: Option<String>,
}

impl StripeAnswer {
    /// Reads what is needed of it. Whatever else is there, or of a kind not known yet, does no harm.
    ///
    /// # Errors
    /// [`StripeCallError::Unreadable`] when what is needed is missing or of another type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, StripeCallError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Without values: those may be somebody's.
            let (kind, line) = (error.classify(), error.line());
            tracing::error!(?kind, line, stripe_request_id = self.request_id, "Stripe's answer cannot be read");
            StripeCallError::Unreadable(error.to_string())
        })
    }
}

/// Calls Stripe. Clones share connections and breaker.
#[derive(Clone)]
pub struct StripeClient(Arc<Inner>);

struct Inner {
    http: Client,
    authorization: Option<HeaderValue>,
    settings: ClientSettings,
    breaker: Breaker,
    metrics: CallMetrics,
}

impl fmt::Debug for StripeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StripeClient").field(&self.0.settings).finish()
    }
}

impl StripeClient {
    /// # Errors
    /// See [`ClientError`].
    pub fn new(settings: ClientSettings, metrics: CallMetrics) -> Result<Self, ClientError> {
        crate::crypto::install_provider();
        let http = Client::builder()
            .user_agent(concat!("subledger/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        let authorization = settings.secret_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ClientError::InvalidKey)?;
            value.set_sensitive(true);
            Ok::<_, ClientError>(value)
        });
        let authorization = authorization.transpose()?;
        let breaker = Breaker::new(settings.breaker_failures, settings.breaker_pause);
        let base = settings.base.trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner {
            http,
            authorization,
            settings: ClientSettings { base, secret_key: None, ..settings },
            breaker,
            metrics,
        })))
    }

    pub fn is_configured(&self) -> bool {
        self.0.authorization.is_some()
    }

    /// Reads something. `operation` names it in metrics, such as `customer.search`.
    ///
    /// # Errors
    /// See [`StripeCallError`].
    pub async fn read<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        request: &impl StripeRequest,
    ) -> Result<T, StripeCallError> {
        self.fetch(operation, request).await?.parse()
    }

    /// Reads something whose bytes are wanted whole.
    ///
    /// # Errors
    /// See [`StripeCallError`].
    pub async fn fetch(
        &self,
        operation: &'static str,
        request: &impl StripeRequest,
    ) -> Result<StripeAnswer, StripeCallError> {
        self.call(operation, &request.build(), None).await
    }

    /// Changes something, once for each key.
    ///
    /// # Errors
    /// See [`StripeCallError`]. After [`StripeCallError::Unavailable`] nobody knows whether it was done; the same request
    /// under the same key does it once.
    pub async fn write(
        &self,
        operation: &'static str,
        request: &impl StripeRequest,
        key: &IdempotencyKey,
    ) -> Result<StripeAnswer, StripeCallError> {
        self.call(operation, &request.build(), Some(key)).await
    }

    /// Sends what a builder built; for requests that no builder builds.
    ///
    /// # Errors
    /// See [`StripeCallError`].
    pub async fn call(
        &self,
        operation: &'static str,
        request: &RequestBuilder,
        key: Option<&IdempotencyKey>,
    ) -> Result<StripeAnswer, StripeCallError> {
        let inner = &*self.0;
        let authorization = inner.authorization.as_ref().ok_or(StripeCallError::NotConfigured)?;
        let target = Target { http: &inner.http, base: &inner.settings.base, authorization };
        let started = Instant::now();
        let deadline = started + inner.settings.timeout;
        let attempt = || inner.attempt(&target, request, key, deadline);
        let answered = attempt
            .retry(inner.delays())
            .when(|failure: &Failure| failure.may_retry)
            .adjust(|failure, delay| {
                let delay = delay?.max(failure.retry_after.unwrap_or_default());
                // A try that could not be waited for is none.
                (Instant::now() + delay < deadline).then_some(delay)
            })
            .notify(|failure, delay| {
                inner.metrics.retries.with_label_values(&[operation]).inc();
                let delay_ms = delay.as_millis() as u64;
                tracing::warn!(operation, outcome = failure.error.label(), delay_ms, "a call to Stripe is tried again");
            })
            .await
            .map_err(|failure| failure.error);
        let outcome = answered.as_ref().err().map_or("ok", StripeCallError::label);
        inner.metrics.calls.with_label_values(&[operation, outcome]).inc();
        inner.metrics.seconds.with_label_values(&[operation]).observe(started.elapsed().as_secs_f64());
        if let Err(error) = &answered {
            if error.refusal().is_some_and(StripeRefusal::is_our_key) {
                inner.metrics.key_refusals.inc();
            }
            report(operation, error);
        }
        answered
    }
}

impl Inner {
    /// Whatever jitter adds, so many tries and no more.
    fn delays(&self) -> impl BackoffBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.settings.first_delay)
            .with_max_delay(self.settings.attempt_timeout)
            .with_max_times(self.settings.max_attempts.saturating_sub(1))
            .with_jitter()
    }

    async fn attempt(
        &self,
        target: &Target<'_>,
        request: &RequestBuilder,
        key: Option<&IdempotencyKey>,
        deadline: Instant,
    ) -> Result<StripeAnswer, Failure> {
        let permit = self.breaker.admit(Instant::now()).map_err(|pause| {
            let reason = Unavailability::BreakerOpen;
            let error = StripeCallError::Unavailable { reason, retry_after: pause };
            Failure { error, may_retry: false, retry_after: None, works: None }
        })?;
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = attempt::send(target, request, key, left.min(self.settings.attempt_timeout)).await;
        match sent.as_ref().map_or_else(|failure| failure.works, |_| Some(true)) {
            Some(true) => permit.succeeded(),
            Some(false) => permit.failed(Instant::now()),
            None => drop(permit),
        }
        self.metrics.breaker.set(self.breaker.level());
        sent
    }
}

/// Stripe's codes and no more: its message may quote what was sent.
fn report(operation: &'static str, error: &StripeCallError) {
    match error {
        StripeCallError::Refused(refusal) => tracing::warn!(
            operation,
            status = refusal.status,
            code = refusal.stripe_code,
            param = refusal.param,
            stripe_request_id = refusal.stripe_request_id,
            "Stripe refused a call"
        ),
        error => tracing::warn!(operation, outcome = error.label(), "a call to Stripe failed"),
    }
}
