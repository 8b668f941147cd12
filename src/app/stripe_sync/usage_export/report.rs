//! Sends what was added up, until Stripe has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use deadpool_postgres::Pool;
use futures_util::{StreamExt, stream};
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use tokio::sync::watch;
use tokio_postgres::GenericClient;

use crate::app::metrics::Metrics;
use crate::clock::Clock;
use crate::domain::metering::OLDEST_S;
use crate::domain::stripe_refusal::StripeRefusal;
use crate::store::error::StoreError;
use crate::store::usage_export::{self, Report};
use crate::stripe::client::{IdempotencyKey, StripeCallError, StripeClient};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Windows that become reports in one transaction, and reports that are sent before the next ones are looked for.
const BATCH: i64 = 100;
/// Calls at a time.
const AT_ONCE: usize = 8;
/// Whoever took a report and has not said what became of it is taken for dead.
const CLAIMED_S: i64 = 120;
/// The first wait after a refusal, doubled after each further one, and the longest.
const RETRY_S: i64 = 60;
const MAX_RETRY_S: i64 = 6 * 3_600;
/// What has ended is kept a little longer than late usage may come.
const KEPT_DAYS: i64 = 45;
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

pub(super) struct Reporter {
    pub client: StripeClient,
    pub pool: Pool,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Reported,
    /// An earlier try had reached Stripe.
    Duplicate,
    /// Stripe takes it no more.
    TooOld,
    NoCustomer,
    Refused(String),
    Unavailable(String),
}

impl Sent {
    /// For metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::NoCustomer => "no_customer",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl Reporter {
    /// Works until it is told to stop. Any replica may: no report is taken by two.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut is_failing = false;
        let mut pruned_at: Option<tokio::time::Instant> = None;
        while !*stop.borrow() {
            let worked = self.work().await;
            if let Err(error) = &worked
                && !is_failing
            {
                tracing::warn!(%error, "usage cannot be reported; trying again");
            }
            is_failing = worked.is_err();
            if pruned_at.is_none_or(|at| at.elapsed() > PRUNE_EVERY) && self.prune().await.is_ok() {
                pruned_at = Some(tokio::time::Instant::now());
            }
            if !matches!(worked, Ok(true)) {
                let _ = tokio::time::timeout(LOOK_EVERY, stop.wait_for(|stop| *stop)).await;
            }
        }
    }

    /// Answers whether there may be more to do at once. No connection is held while Stripe is called.
    async fn work(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        let sealed = usage_export::seal(&tx, now, BATCH).await?;
        tx.commit().await?;
        let claimed = usage_export::claim(&**client, now, now + TimeDelta::seconds(CLAIMED_S), BATCH).await?;
        let mut reports = Vec::with_capacity(claimed.len());
        for report in claimed {
            let customer = usage_export::paying_customer(&**client, &report.account_id).await?;
            // A stream that belongs to no account yet bears its customer's own id.
            let own = Some(report.account_id.clone()).filter(|id| id.starts_with("cus_"));
            reports.push((report, customer.or(own)));
        }
        drop(client);
        let sending = stream::iter(reports).map(|(report, customer)| async move {
            let sent = self.send(&report, customer.as_deref()).await;
            (report, sent)
        });
        let sent: Vec<(Report, Sent)> = sending.buffer_unordered(AT_ONCE).collect().await;
        let client = self.pool.get().await?;
        for (report, sent) in &sent {
            self.note(&**client, report, sent).await?;
        }
        self.measure(&**client).await?;
        let is_away = sent.iter().any(|(_, sent)| matches!(sent, Sent::Unavailable(_)));
        Ok(!is_away && (sealed as i64 == BATCH || sent.len() as i64 == BATCH))
    }

    async fn send(&self, report: &Report, customer: Option<&str>) -> Sent {
        if report.at < self.clock.now().timestamp() - OLDEST_S {
            return Sent::TooOld;
        }
        let Some(customer) = customer else { return Sent::NoCustomer };
        let payload = HashMap::from([
            ("stripe_customer_id".to_owned(), customer.to_owned()),
            ("value".to_owned(), report.quantity.to_string()),
        ]);
        let request =
            CreateBillingMeterEvent::new(&report.meter, payload).identifier(&report.identifier).timestamp(report.at);
        // Stripe knows the event by its identifier. Under the key of an earlier try it would refuse another customer, and
        // might repeat an answer that does not hold any more.
        let attempt = report.attempts.to_be_bytes();
        let key = IdempotencyKey::derived("meter-event", &[report.identifier.as_bytes(), &attempt]);
        match self.client.write("meter_event.create", &request, &key).await {
            Ok(_) => Sent::Reported,
            Err(StripeCallError::Refused(refusal)) if is_duplicate(&refusal) => Sent::Duplicate,
            Err(StripeCallError::Refused(refusal)) if is_too_old(&refusal) => Sent::TooOld,
            // Without Stripe's message, which may quote what was sent.
            Err(StripeCallError::Refused(refusal)) => {
                let code = refusal.stripe_code.as_deref().unwrap_or(&refusal.kind);
                Sent::Refused(format!("Stripe refused with status {}: {code}", refusal.status))
            }
            Err(error) => Sent::Unavailable(error.to_string()),
        }
    }

    async fn note(&self, client: &impl GenericClient, report: &Report, sent: &Sent) -> Result<(), StoreError> {
        self.metrics.usage_reports.with_label_values(&[sent.label()]).inc();
        let now = self.clock.now();
        let problem = match sent {
            Sent::Reported | Sent::Duplicate => {
                return usage_export::end(client, &report.identifier, "reported", None, now).await;
            }
            Sent::TooOld => {
                let Report { identifier, account_id, meter, quantity, .. } = report;
                tracing::error!(
                    identifier,
                    account_id,
                    meter,
                    quantity,
                    "usage is too old for Stripe: bill it by hand"
                );
                let problem = Some("older than Stripe takes");
                return usage_export::end(client, identifier, "too_old", problem, now).await;
            }
            Sent::NoCustomer => "the account has no Stripe customer",
            Sent::Refused(problem) | Sent::Unavailable(problem) => problem,
        };
        let tries = u32::try_from(report.attempts.clamp(1, 16)).unwrap_or(1) - 1;
        let wait_s = match sent {
            Sent::Unavailable(_) => RETRY_S,
            _ => (RETRY_S << tries).min(MAX_RETRY_S),
        };
        if matches!(sent, Sent::Refused(_)) {
            tracing::warn!(identifier = report.identifier, meter = report.meter, problem, "a meter event was refused");
        }
        usage_export::postpone(client, &report.identifier, problem, now + TimeDelta::seconds(wait_s)).await
    }

    async fn measure(&self, client: &impl GenericClient) -> Result<(), StoreError> {
        let backlog = usage_export::backlog(client).await?;
        let age = backlog.oldest_pending.map_or(0, |oldest| (self.clock.now() - oldest).num_seconds());
        self.metrics.usage_oldest_pending_seconds.set(age.max(0));
        self.metrics.usage_too_old.set(backlog.too_old);
        Ok(())
    }

    async fn prune(&self) -> Result<(), StoreError> {
        let client = self.pool.get().await?;
        usage_export::prune(&**client, self.clock.now() - TimeDelta::days(KEPT_DAYS)).await
    }
}

/// Stripe has an event of this identifier.
fn is_duplicate(refusal: &StripeRefusal) -> bool {
    let code = refusal.stripe_code.as_deref().unwrap_or_default();
    let told = refusal.message.contains("already exists with identifier");
    code == "duplicate_meter_event" || (told && (code.is_empty() || code == "resource_already_exists"))
}

fn is_too_old(refusal: &StripeRefusal) -> bool {
    let of_time = refusal.param.as_deref() == Some("timestamp") && refusal.message.contains("35");
    refusal.stripe_code.as_deref() == Some("timestamp_too_far_in_past") || of_time
}
