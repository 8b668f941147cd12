//! Follows the log, so that what this process has in memory shows what any process wrote.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use super::balance_cache::BalanceCache;
use crate::app::catalog::CatalogHolder;
use crate::app::metrics::Metrics;
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::follow::{self, Touched};
use crate::store::read;

/// Time between polls: a tenth of the usual bound, and little work.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Time before another try after one that failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// A poll that takes longer is given up, with its connection.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Accounts read again by one query.
const MAX_BATCH: usize = 500;
/// Past so many events, reading all accounts anew when they are asked for is less work than following.
const MAX_BACKLOG: i64 = 20_000;

/// The follower's task. It has a connection of its own: polls must not wait for readers.
#[derive(Debug)]
pub struct Follower {
    database: Database,
    cache: Arc<BalanceCache>,
    catalog: CatalogHolder,
    metrics: Metrics,
    /// Events in the log, as of the last poll: whoever waits for news watches it.
    news: watch::Sender<i64>,
    connection: Option<Client>,
    has_begun: bool,
}

impl Follower {
    pub fn new(
        database: Database,
        cache: Arc<BalanceCache>,
        catalog: CatalogHolder,
        metrics: Metrics,
        news: watch::Sender<i64>,
    ) -> Self {
        Self { database, cache, catalog, metrics, news, connection: None, has_begun: false }
    }

    /// Polls until the task is aborted.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first of a row may be a connection that was cut, by whatever reason, and has no consequence.
        let mut failures: u32 = 0;
        loop {
            ticks.tick().await;
            let too_long = || StoreError::Unavailable(format!("no answer within {} s", POLL_TIMEOUT.as_secs()));
            let polled = tokio::time::timeout(POLL_TIMEOUT, self.poll()).await.unwrap_or_else(|_| Err(too_long()));
            match &polled {
                Ok(()) if failures > 1 => tracing::info!("the log is followed again"),
                Err(error) if failures == 1 => {
                    tracing::warn!(%error, "the log cannot be followed; checks are answered from the database");
                }
                _ => {}
            }
            failures = if polled.is_err() { failures.saturating_add(1) } else { 0 };
            if failures > 0 {
                self.connection = None;
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn poll(&mut self) -> Result<(), StoreError> {
        let client = match self.connection.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.database.connect().await?,
        };
        // Noted before the question: what is committed by now is in the answer.
        let began = Instant::now();
        let ends = follow::ends(&client).await?;
        self.catch_up(&client, &ends).await?;
        self.cache.polled(began);
        let events = ends.iter().map(|(_, position)| position).sum();
        self.news.send_if_modified(|known| std::mem::replace(known, events) != events);
        self.connection = Some(client);
        Ok(())
    }

    async fn catch_up(&mut self, client: &Client, ends: &[(i16, i64)]) -> Result<(), StoreError> {
        let behind = self.cache.behind(ends);
        let lag: i64 = behind.iter().map(|stretch| stretch.to - stretch.after).sum();
        self.metrics.follower_lag.set(lag);
        if !self.has_begun || lag > MAX_BACKLOG {
            self.catalog.read_again(client).await?;
            self.cache.restart(ends);
            self.has_begun = true;
            return Ok(());
        }
        if behind.is_empty() {
            return Ok(());
        }
        let touched = follow::touched(client, &behind).await?;
        if touched.iter().any(|touched| touched.applies_catalog) {
            self.catalog.read_again(client).await?;
        }
        for outdated in self.cache.outdated(&touched).chunks(MAX_BATCH) {
            self.read_again(client, outdated).await?;
        }
        self.cache.reached(&behind);
        Ok(())
    }

    async fn read_again(&self, client: &Client, outdated: &[&Touched]) -> Result<(), StoreError> {
        let ids: Vec<&str> = outdated.iter().map(|touched| touched.id.as_str()).collect();
        let partitions: Vec<i16> = outdated.iter().map(|touched| touched.partition_id).collect();
        for seen in read::balances(client, &ids, &partitions).await? {
            match seen.account {
                Ok(Some(account)) => self.cache.renew(&account, seen.partition_id, seen.position),
                // Whoever asks for it is told what is wrong.
                Ok(None) | Err(_) => self.cache.forget(&seen.id),
            }
        }
        Ok(())
    }
}
