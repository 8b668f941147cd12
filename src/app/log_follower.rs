//! Following the log by a named, durable cursor: for whatever is to happen once for each event.
//!
//! A [`Consumer`] says which events it wants and what is to be done about them, in the transaction that moves the cursor:
//! both happen, or neither, so no event is skipped, and what stands in the database is done once. Effects elsewhere (mail,
//! calls) belong into rows that another task works off. Of all replicas one follows at a time: it holds a lease in the
//! database, and when it dies another takes over.
//!
//! To add one: implement [`Consumer`], and start [`LogFollower::run`] beside the others (`outbound::Outbound::start`).

use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, Transaction};
use tokio::sync::watch;
use tokio_postgres::Client;
use uuid::Uuid;

use super::metrics::Metrics;
use crate::store::cursors::{self, Beginning, Positions};
use crate::store::error::StoreError;
use crate::store::log::{self, StoredEvent};
use crate::store::read;

/// Whoever holds a lease and is silent for so long is taken for dead.
const LEASE_SECONDS: f64 = 10.0;
/// An idle holder says that it lives.
const KEEP_EVERY: Duration = Duration::from_secs(3);
/// How often others look whether the holder is gone; and the holder for events, when nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two batches while the log grows: few larger ones are less work than many small ones.
const PAUSE: Duration = Duration::from_millis(50);
/// Events in one transaction.
const MAX_BATCH: i64 = 500;

/// Which events a consumer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    All,
    Types(Vec<String>),
    /// None for now: the cursor moves past them.
    Nothing,
}

/// Somebody who has something to do about events.
pub trait Consumer: Send + 'static {
    /// Names the cursor, for ever.
    const NAME: &'static str;
    const BEGINNING: Beginning;

    /// Asked before each batch.
    fn wanted(&mut self, client: &Client) -> impl Future<Output = Result<Wanted, StoreError>> + Send;

    /// Does what is to be done about some events, in the order of each partition, within the transaction. What was done is
    /// undone when it fails, or when another process took over: then the same events come again, perhaps there.
    fn take(
        &mut self,
        tx: &Transaction<'_>,
        events: &[StoredEvent],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Called once a batch with events is durable.
    fn done(&mut self) {}
}

/// The task of one consumer in one process.
#[derive(Debug)]
pub struct LogFollower<C> {
    consumer: C,
    pool: Pool,
    news: watch::Receiver<i64>,
    metrics: Metrics,
    holder: Uuid,
}

impl<C: Consumer> LogFollower<C> {
    /// Makes the cursor if this is the first follower ever: what is appended once this has answered is followed, though
    /// [`run`](Self::run) may need a moment to begin.
    pub async fn new(
        consumer: C,
        pool: Pool,
        news: watch::Receiver<i64>,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        cursors::make(&**pool.get().await?, C::NAME, C::BEGINNING).await?;
        Ok(Self { consumer, pool, news, metrics, holder: Uuid::new_v4() })
    }

    /// Follows until it is told to stop; then the lease is given up. What fails is tried again for ever: an event that cannot
    /// be taken in stops this follower, and its lag shows that.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            // A sender that is gone tells nobody to stop.
            Ok(_) = stop.wait_for(|stop| *stop) => {}
        }
        if let Ok(client) = self.pool.get().await {
            let _ = cursors::release(&**client, C::NAME, self.holder).await;
        }
    }

    async fn follow(&mut self) {
        let mut is_failing = false;
        loop {
            let followed = self.follow_while_held().await;
            // Whoever holds the lease says how far it is.
            self.metrics.cursor_lag.with_label_values(&[C::NAME]).set(0);
            match followed {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(follower = C::NAME, %error, "cannot follow the log; trying again");
                    }
                    is_failing = true;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns when another process holds the lease.
    async fn follow_while_held(&mut self) -> Result<(), StoreError> {
        let client = self.pool.get().await?;
        let held = cursors::hold(&**client, C::NAME, self.holder, LEASE_SECONDS).await?;
        drop(client);
        let Some(mut positions) = held else { return Ok(()) };
        let mut kept_at = Instant::now();
        loop {
            // Before the question: what is appended after it is news.
            self.news.borrow_and_update();
            let (ends, wanted) = {
                let client = self.pool.get().await?;
                // In this order: what is appended after somebody came to want it is not passed by unseen.
                (log::positions(&**client).await?, self.consumer.wanted(&client).await?)
            };
            let (events, reached, has_more) = self.read(&positions, &wanted, ends).await?;
            if reached != positions {
                if !self.take(&events, &reached).await? {
                    return Ok(());
                }
                (positions, kept_at) = (reached, Instant::now());
            } else if kept_at.elapsed() >= KEEP_EVERY {
                let client = self.pool.get().await?;
                if cursors::hold(&**client, C::NAME, self.holder, LEASE_SECONDS).await?.is_none() {
                    return Ok(());
                }
                kept_at = Instant::now();
            }
            if wanted == Wanted::Nothing {
                tokio::time::sleep(LOOK_EVERY).await;
            } else if !has_more {
                tokio::time::sleep(PAUSE).await;
                let _ = tokio::time::timeout(LOOK_EVERY, self.news.changed()).await;
            }
        }
    }

    /// The events that are wanted up to some positions, and how far they go.
    async fn read(
        &self,
        positions: &Positions,
        wanted: &Wanted,
        ends: Positions,
    ) -> Result<(Vec<StoredEvent>, Positions, bool), StoreError> {
        let types: &[String] = match wanted {
            Wanted::All => &[],
            Wanted::Types(types) => types,
            Wanted::Nothing => return Ok((Vec::new(), ends, false)),
        };
        let client = self.pool.get().await?;
        let read::FeedPage { mut events, positions: mut reached, has_more } =
            read::feed(&**client, positions, types, MAX_BATCH).await?;
        for (at, end) in reached.iter_mut().zip(&ends) {
            at.1 = at.1.min(end.1);
        }
        let at = |partition: i16| reached.get(usize::from(partition.unsigned_abs())).map_or(0, |at| at.1);
        events.retain(|event| event.position <= at(event.partition_id));
        let lag = ends.iter().zip(&reached).map(|(end, at)| end.1 - at.1).sum();
        self.metrics.cursor_lag.with_label_values(&[C::NAME]).set(lag);
        Ok((events, reached, has_more))
    }

    /// `false`: another process took over, and nothing was done.
    async fn take(&mut self, events: &[StoredEvent], reached: &Positions) -> Result<bool, StoreError> {
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        if !events.is_empty() {
            self.consumer.take(&tx, events).await?;
        }
        if !cursors::advance(&*tx, C::NAME, self.holder, LEASE_SECONDS, reached).await? {
            return Ok(false);
        }
        tx.commit().await?;
        if !events.is_empty() {
            self.consumer.done();
        }
        Ok(true)
    }
}
