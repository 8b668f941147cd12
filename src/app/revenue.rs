//! Revenue: collected out of the log as it grows, told over all accounts now and then, and kept for whoever asks.
//!
//! Telling it reads every account once, page by page, so it is done every now and then by one replica and on request, and
//! never for a scrape. Several replicas may do it at once: a stretch of the log is collected by whoever comes first, and of
//! two reports the later is kept.

mod gauges;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

pub use gauges::RevenueGauges;

use super::error::AppError;
use super::service::Service;
use crate::domain::billing::Observation;
use crate::domain::event::Event;
use crate::domain::revenue::flows::{CreditFlows, FLOWING, packs_of, uses_of};
use crate::domain::revenue::month::Month;
use crate::domain::revenue::recurring::ToldSubscription;
use crate::domain::revenue::{AccountFacts, Books, Report};
use crate::domain::stripe_object::StripeObject;
use crate::store::error::StoreError;
use crate::store::log;
use crate::store::revenue::{self, Collected, CollectedSnapshot, Cursor};

/// Events collected in one go.
const STRETCH: i64 = 2_000;
/// Accounts read in one go.
const PAGE: i64 = 256;

/// One report is made at a time; others that ask wait for it.
#[derive(Debug, Default)]
pub struct Revenue(Mutex<()>);

impl Service {
    /// The report that was kept last, or a new one if that is older than `max_age` or there is none.
    pub async fn revenue(&self, max_age: Option<TimeDelta>) -> Result<Report, AppError> {
        let _one_at_a_time = self.revenue.0.lock().await;
        let now = self.clock.now();
        let oldest = max_age.and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH);
        let kept = match max_age {
            Some(age) if age <= TimeDelta::zero() => None,
            _ => revenue::kept(&**self.connection().await?, oldest).await?,
        };
        // One that another version of the program made may not be readable: it is made anew.
        if let Some(report) = kept.and_then(|kept| serde_json::from_str::<Report>(&kept).ok()) {
            return Ok(report);
        }
        self.make_revenue_report(now).await
    }

    /// Has a report made if the kept one is that old, and shows the newest in the metrics.
    pub async fn refresh_revenue(&self, max_age: TimeDelta) -> Result<(), AppError> {
        let report = self.revenue(Some(max_age)).await?;
        self.metrics.revenue.show(&report);
        Ok(())
    }

    async fn make_revenue_report(&self, now: DateTime<Utc>) -> Result<Report, AppError> {
        self.collect_revenue().await?;
        let catalog = self.catalog.current();
        let mut books = Books::new(&catalog.catalog, now);
        let mut after = String::new();
        loop {
            let mut client = self.connection().await?;
            let page = revenue::account_page(&mut client, &after, PAGE).await?;
            drop(client);
            let Some((last, _)) = page.accounts.last() else { break };
            after = last.id.as_str().to_owned();
            for (account, billing) in &page.accounts {
                books.add(&AccountFacts {
                    billing,
                    credits: &account.credits,
                    snapshots: &page.snapshots,
                    pack_uses: &page.pack_uses,
                });
            }
        }
        let client = self.connection().await?;
        let report = books.report(revenue::credit_flows(&**client).await?);
        let json = serde_json::to_string(&report).map_err(StoreError::from)?;
        revenue::keep(&**client, now, &json).await?;
        self.metrics.revenue.show(&report);
        Ok(report)
    }

    /// Takes in what the log says since last time.
    async fn collect_revenue(&self) -> Result<(), AppError> {
        let cursors = revenue::cursors(&**self.connection().await?).await?;
        for cursor in cursors {
            self.collect_partition(cursor).await?;
        }
        Ok(())
    }

    async fn collect_partition(&self, mut cursor: Cursor) -> Result<(), AppError> {
        let mut types = vec!["subscription_observed"];
        types.extend(FLOWING);
        while cursor.position < cursor.head {
            let client = self.connection().await?;
            let events = log::of_partition(&**client, cursor.partition_id, cursor.position, &types, STRETCH).await?;
            let is_all = i64::try_from(events.len()) != Ok(STRETCH);
            // Up to the head that was there before they were read, none can be missing.
            let read = events.last().map_or(cursor.position, |event| event.position);
            let to = if is_all { read.max(cursor.head) } else { read };
            let mut collected = Collected::default();
            for stored in &events {
                let event = stored.event()?;
                let month = Month::of(stored.at.date_naive()).first_day();
                collected.packs.extend(packs_of(&event));
                for used in uses_of(&event) {
                    *collected.uses.entry((used.lot, month)).or_default() += used.amount;
                }
                if let Some(flows) = CreditFlows::of(&event) {
                    collected.flows.entry(month).or_default().add(&flows);
                }
                if let Event::StripeObserved(observation) = event
                    && let Observation { created: observed_at, change, object, .. } = *observation
                    && let StripeObject::Subscription(subscription) = object
                {
                    let told = ToldSubscription { observed_at, change, subscription };
                    collected.snapshots.push(CollectedSnapshot { position: stored.position, told });
                }
            }
            if !revenue::collect(&**client, cursor, to, &collected).await? {
                // Another replica is at it.
                return Ok(());
            }
            cursor.position = to;
        }
        Ok(())
    }
}
