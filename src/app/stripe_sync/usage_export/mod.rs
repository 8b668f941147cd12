//! Metered usage to Stripe, as meter events: at least once from here, and by their identifiers once there.
//!
//! [`gather`] follows the log and adds up, in the transaction that moves its cursor. [`report`] turns each window that is
//! over into a report, durably, before anything is sent, and sends it until Stripe has it. Neither is on the write path.

mod gather;
mod report;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::catalog::CatalogHolder;
use crate::app::log_follower::LogFollower;
use crate::app::metrics::Metrics;
use crate::clock::Clock;
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::stripe::client::StripeClient;

/// What ends the tasks.
#[derive(Debug)]
pub struct UsageExport(watch::Sender<bool>);

impl UsageExport {
    /// Starts the tasks, if this process is at work and Stripe can be called.
    pub async fn start(
        is_at_work: bool,
        client: &StripeClient,
        database: &Database,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
        catalog: &CatalogHolder,
        news: watch::Receiver<i64>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StoreError> {
        let (stop, stopping) = watch::channel(false);
        if !is_at_work || !client.is_configured() {
            return Ok((Self(stop), Vec::new()));
        }
        let gather = gather::Gather { catalog: catalog.clone(), clock: Arc::clone(clock) };
        let follower = LogFollower::new(gather, database.pool(1)?, news, metrics.clone()).await?;
        let reporter = report::Reporter {
            client: client.clone(),
            pool: database.pool(1)?,
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
        };
        let tasks = vec![tokio::spawn(follower.run(stopping.clone())), tokio::spawn(reporter.run(stopping))];
        Ok((Self(stop), tasks))
    }

    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
