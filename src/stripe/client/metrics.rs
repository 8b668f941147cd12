//! What Prometheus is told of calls to Stripe. Labels are operations and outcomes: never ids.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone)]
pub struct CallMetrics {
    /// Calls by `operation` and `outcome` (ok, refused, unreadable, or how Stripe was not available).
    pub calls: IntCounterVec,
    /// Time of a call with all its tries, by `operation`.
    pub seconds: HistogramVec,
    /// Tries after the first, by `operation`.
    pub retries: IntCounterVec,
    /// Calls that were refused because of our API key.
    pub key_refusals: IntCounter,
    /// 0 closed, 1 half open, 2 open.
    pub breaker: IntGauge,
}

impl CallMetrics {
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            calls: counter(
                "subledger_stripe_calls_total",
                "Calls to Stripe, by operation and outcome",
                &["operation", "outcome"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("subledger_stripe_call_seconds", "Time of a call to Stripe, all tries together")
                    .buckets(buckets),
                &["operation"],
            )?,
            retries: counter(
                "subledger_stripe_retries_total",
                "Tries of calls to Stripe after the first, by operation",
                &["operation"],
            )?,
            key_refusals: IntCounter::new(
                "subledger_stripe_key_refusals_total",
                "Calls to Stripe that were refused because of our API key",
            )?,
            breaker: IntGauge::new(
                "subledger_stripe_breaker_state",
                "Whether calls to Stripe are made: 0 yes, 1 one tries, 2 none for a while",
            )?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.key_refusals.clone()))?;
        registry.register(Box::new(metrics.breaker.clone()))?;
        Ok(metrics)
    }
}
