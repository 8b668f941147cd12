//! What Prometheus is told. Labels are route patterns, event types and reasons: never ids.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::revenue::RevenueGauges;

/// Event types counted by name; Stripe has more, and will have others: those count as `other`.
const MAX_TYPE_LABEL: usize = 64;

/// All metrics of the service.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub registry: Registry,
    /// StripeEvents by `type` and `status` (applied, duplicate, superseded, ignored, parked, refused).
    pub stripe_events: IntCounterVec,
    /// Parked StripeEvents waiting now.
    pub parked: IntGauge,
    /// Events of subscriptions whose price no plan names.
    pub unmapped_prices: IntCounter,
    /// StripeEvents whose metadata names another account than the one their customer is linked to.
    pub conflicting_claims: IntCounter,
    /// News of subscriptions whose account has another that goes on, too.
    pub second_subscriptions: IntCounter,
    pub appended_events: IntCounter,
    /// Idle accounts for which refills or expiry were recorded.
    pub swept_accounts: IntCounter,
    /// Commands per append.
    pub append_batch_size: Histogram,
    pub append_seconds: Histogram,
    /// Commands waiting, by lane.
    pub lane_queue_depth: IntGaugeVec,
    /// How long a command waited for its lane.
    pub lane_queue_seconds: Histogram,
    /// Appends tried again, by reason (stale, key, link, conflict, unavailable).
    pub tx_retries: IntCounterVec,
    /// Connections of the pool by state (size, available, waiting).
    pub pool_connections: IntGaugeVec,
    /// How far read models are behind the log, in events: 0 while projections are inline.
    pub projection_lag: IntGauge,
    /// Reads of accounts answered from memory.
    pub cached_reads: IntCounter,
    /// Reads of accounts answered from the database, by reason (cold, stale, strong, behind).
    pub read_throughs: IntCounterVec,
    /// What readers have in memory.
    pub cached_accounts: IntGauge,
    pub cached_bytes: IntGauge,
    /// How long ago the follower's last successful poll began.
    pub follower_age_seconds: Gauge,
    /// Events that the last poll found others had written.
    pub follower_lag: IntGauge,
    pub revenue: RevenueGauges,
    /// Events that a named follower has not taken in yet, by `follower`; 0 on replicas that leave it to another.
    pub cursor_lag: IntGaugeVec,
    /// Tries to report usage to Stripe, by outcome (reported, duplicate, too_old, no_customer, refused, unavailable).
    pub usage_reports: IntCounterVec,
    /// Since when the oldest usage waits that Stripe has not been told of.
    pub usage_oldest_pending_seconds: IntGauge,
    /// Usage there is now that Stripe takes no more.
    pub usage_too_old: IntGauge,
    /// Attempts to deliver webhooks, by outcome (delivered, refused, timed_out, unreachable, blocked).
    pub webhook_attempts: IntCounterVec,
    /// Deliveries whose last attempt failed.
    pub webhook_dead_letters: IntCounter,
    /// Endpoints that were disabled for having failed for days, or for being gone.
    pub webhook_endpoints_disabled: IntCounter,
    /// Endpoints there are now, by status (enabled, disabled).
    pub webhook_endpoints: IntGaugeVec,
    /// Deliveries there are now, by status (pending, dead).
    pub webhook_deliveries: IntGaugeVec,
    /// Age of the oldest delivery that waits.
    pub webhook_oldest_pending_seconds: IntGauge,
    /// Notifications given, by type.
    pub notifications: IntCounterVec,
    /// Mails, by outcome (sent, no_address, failed, postponed).
    pub mails: IntCounterVec,
    pub http_requests: IntCounterVec,
    pub http_seconds: HistogramVec,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let short = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        };
        let sizes = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
        let metrics = Self {
            stripe_events: counter(
                "subledger_stripe_events_total",
                "StripeEvents received, by type and what became of them",
                &["type", "status"],
            )?,
            parked: IntGauge::new("subledger_parked_events", "StripeEvents parked now")?,
            unmapped_prices: IntCounter::new(
                "subledger_unmapped_prices_total",
                "Subscription events whose price no plan of the catalog names",
            )?,
            conflicting_claims: IntCounter::new(
                "subledger_conflicting_claims_total",
                "StripeEvents that name another account than the one their customer is linked to",
            )?,
            second_subscriptions: IntCounter::new(
                "subledger_second_subscriptions_total",
                "News of a subscription whose account has another one that goes on, too",
            )?,
            appended_events: IntCounter::new("subledger_appended_events_total", "Events appended to the log")?,
            swept_accounts: IntCounter::new(
                "subledger_swept_accounts_total",
                "Idle accounts for which refills or expiry were recorded",
            )?,
            append_batch_size: histogram("subledger_append_batch_size", "Commands per append", sizes)?,
            append_seconds: histogram("subledger_append_seconds", "Time of an append, to durable", short.clone())?,
            lane_queue_depth: IntGaugeVec::new(
                Opts::new("subledger_lane_queue_depth", "Commands waiting for a lane"),
                &["lane"],
            )?,
            lane_queue_seconds: histogram(
                "subledger_lane_queue_seconds",
                "Age of a command when its lane took it",
                short.clone(),
            )?,
            tx_retries: counter("subledger_tx_retries_total", "Appends tried again, by reason", &["reason"])?,
            pool_connections: IntGaugeVec::new(
                Opts::new("subledger_pool_connections", "Connections of the pool, by state"),
                &["state"],
            )?,
            projection_lag: IntGauge::new(
                "subledger_projection_lag_events",
                "Events that read models do not show yet; 0 by construction, since both commit together",
            )?,
            cached_reads: IntCounter::new("subledger_cached_reads_total", "Reads of accounts answered from memory")?,
            read_throughs: counter(
                "subledger_read_throughs_total",
                "Reads of accounts answered from the database, by reason",
                &["reason"],
            )?,
            cached_accounts: IntGauge::new("subledger_cached_accounts", "Accounts in memory for reads")?,
            cached_bytes: IntGauge::new("subledger_cached_bytes", "Bytes that accounts in memory for reads take")?,
            follower_age_seconds: Gauge::new(
                "subledger_follower_age_seconds",
                "Time since the last successful poll of the log began; past the staleness bound, checks read through",
            )?,
            follower_lag: IntGauge::new(
                "subledger_follower_lag_events",
                "Events of other replicas that the last poll found",
            )?,
            revenue: RevenueGauges::register(&registry)?,
            cursor_lag: IntGaugeVec::new(
                Opts::new("subledger_cursor_lag_events", "Events that a named follower has not taken in yet"),
                &["follower"],
            )?,
            usage_reports: counter(
                "subledger_usage_reports_total",
                "Tries to report usage to Stripe, by outcome",
                &["outcome"],
            )?,
            usage_oldest_pending_seconds: IntGauge::new(
                "subledger_usage_oldest_pending_seconds",
                "Since when the oldest usage waits that Stripe has not been told of",
            )?,
            usage_too_old: IntGauge::new("subledger_usage_too_old", "Reports of usage that Stripe takes no more")?,
            webhook_attempts: counter(
                "subledger_webhook_attempts_total",
                "Attempts to deliver webhooks, by outcome",
                &["outcome"],
            )?,
            webhook_dead_letters: IntCounter::new(
                "subledger_webhook_dead_letters_total",
                "Webhook deliveries whose last attempt failed",
            )?,
            webhook_endpoints_disabled: IntCounter::new(
                "subledger_webhook_endpoints_disabled_total",
                "Webhook endpoints that were disabled for having failed for days, or for being gone",
            )?,
            webhook_endpoints: IntGaugeVec::new(
                Opts::new("subledger_webhook_endpoints", "Webhook endpoints, by status"),
                &["status"],
            )?,
            webhook_deliveries: IntGaugeVec::new(
                Opts::new("subledger_webhook_deliveries", "Webhook deliveries that wait or are dead, by status"),
                &["status"],
            )?,
            webhook_oldest_pending_seconds: IntGauge::new(
                "subledger_webhook_oldest_pending_seconds",
                "Age of the oldest webhook delivery that waits",
            )?,
            notifications: counter("subledger_notifications_total", "Notifications given, by type", &["type"])?,
            mails: counter("subledger_mails_total", "Notifications by mail, by outcome", &["outcome"])?,
            http_requests: counter(
                "subledger_http_requests_total",
                "Requests, by route pattern, method and status",
                &["route", "method", "status"],
            )?,
            http_seconds: HistogramVec::new(
                HistogramOpts::new("subledger_http_seconds", "Time to answer, by route pattern").buckets(short),
                &["route", "method"],
            )?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.stripe_events.clone()))?;
        registry.register(Box::new(self.parked.clone()))?;
        registry.register(Box::new(self.unmapped_prices.clone()))?;
        registry.register(Box::new(self.conflicting_claims.clone()))?;
        registry.register(Box::new(self.second_subscriptions.clone()))?;
        registry.register(Box::new(self.appended_events.clone()))?;
        registry.register(Box::new(self.swept_accounts.clone()))?;
        registry.register(Box::new(self.append_batch_size.clone()))?;
        registry.register(Box::new(self.append_seconds.clone()))?;
        registry.register(Box::new(self.lane_queue_depth.clone()))?;
        registry.register(Box::new(self.lane_queue_seconds.clone()))?;
        registry.register(Box::new(self.tx_retries.clone()))?;
        registry.register(Box::new(self.pool_connections.clone()))?;
        registry.register(Box::new(self.projection_lag.clone()))?;
        registry.register(Box::new(self.cached_reads.clone()))?;
        registry.register(Box::new(self.read_throughs.clone()))?;
        registry.register(Box::new(self.cached_accounts.clone()))?;
        registry.register(Box::new(self.cached_bytes.clone()))?;
        registry.register(Box::new(self.follower_age_seconds.clone()))?;
        registry.register(Box::new(self.follower_lag.clone()))?;
        registry.register(Box::new(self.cursor_lag.clone()))?;
        registry.register(Box::new(self.usage_reports.clone()))?;
        registry.register(Box::new(self.usage_oldest_pending_seconds.clone()))?;
        registry.register(Box::new(self.usage_too_old.clone()))?;
        registry.register(Box::new(self.webhook_attempts.clone()))?;
        registry.register(Box::new(self.webhook_dead_letters.clone()))?;
        registry.register(Box::new(self.webhook_endpoints_disabled.clone()))?;
        registry.register(Box::new(self.webhook_endpoints.clone()))?;
        registry.register(Box::new(self.webhook_deliveries.clone()))?;
        registry.register(Box::new(self.webhook_oldest_pending_seconds.clone()))?;
        registry.register(Box::new(self.notifications.clone()))?;
        registry.register(Box::new(self.mails.clone()))?;
        registry.register(Box::new(self.http_requests.clone()))?;
        registry.register(Box::new(self.http_seconds.clone()))?;
        Ok(())
    }

    /// Counts a StripeEvent. Types that are not Stripe's shape cannot blow up the number of series.
    pub fn count_stripe_event(&self, event_type: &str, status: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c == '.' || c == '_';
        let known = event_type.len() <= MAX_TYPE_LABEL && event_type.chars().all(plain);
        let label = if known && status != "ignored" { event_type } else { "other" };
        self.stripe_events.with_label_values(&[label, status]).inc();
    }
}
