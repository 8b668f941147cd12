//! Working the queues off: which endpoint has something due, and a place free for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Outbound;
use super::worker::Worker;
use crate::store::error::StoreError;
use crate::store::webhook_deliveries;

/// Accounts that are delivered to one endpoint at a time, by each replica.
const PLACES: usize = 8;
/// Between two looks, when nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Attempts under way are given so long when the service stops; what they deliver later is delivered twice.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Deliveries and their attempts are kept for so long after they ended.
const KEPT_FOR: TimeDelta = TimeDelta::days(30);
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The task.
pub(super) struct Dispatcher {
    outbound: Arc<Outbound>,
    /// By endpoint: so one that hangs takes no place from others.
    places: HashMap<String, Arc<Semaphore>>,
    workers: JoinSet<()>,
    pruned_at: Option<tokio::time::Instant>,
}

impl Dispatcher {
    pub fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound, places: HashMap::new(), workers: JoinSet::new(), pruned_at: None }
    }

    /// Works until the service stops.
    pub async fn run(mut self) {
        let mut is_failing = false;
        while !self.outbound.is_stopping() {
            let looked = self.look().await;
            if let Err(error) = &looked
                && !is_failing
            {
                tracing::warn!(%error, "webhooks cannot be delivered; trying again");
            }
            is_failing = looked.is_err();
            while self.workers.try_join_next().is_some() {}
            self.outbound.pause(LOOK_EVERY).await;
        }
        let finish = async { while self.workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FINISH_WITHIN, finish).await;
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let client = self.outbound.connection().await?;
        let now = self.outbound.clock.now();
        let due = webhook_deliveries::due_endpoints(&**client, now).await?;
        for endpoint in due {
            let places =
                Arc::clone(self.places.entry(endpoint.clone()).or_insert_with(|| Semaphore::new(PLACES).into()));
            let free = i64::try_from(places.available_permits()).unwrap_or(0);
            if free == 0 {
                continue;
            }
            let claim = Uuid::new_v4();
            let until = now + Worker::CLAIMED_FOR;
            for account in webhook_deliveries::claim(&**client, &endpoint, claim, free, now, until).await? {
                // Only this task takes places, so there is one.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let worker = Worker::new(Arc::clone(&self.outbound), endpoint.clone(), account, claim);
                self.workers.spawn(async move {
                    worker.run().await;
                    drop(place);
                });
            }
        }
        if self.pruned_at.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
            webhook_deliveries::prune(&**client, now - KEPT_FOR).await?;
            self.pruned_at = Some(tokio::time::Instant::now());
        }
        Ok(())
    }
}
