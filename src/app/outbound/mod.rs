//! What leaves the ledger: webhooks to callers' endpoints, and notifications, also by mail.
//!
//! [`fan_out`] follows the log and queues, in one transaction, a delivery for each endpoint that wants an event, and the
//! notifications that events give cause for. [`dispatcher`] works the queues off: any replica any queue, each endpoint with
//! places of its own, so that one that hangs takes none from others. [`replayer`] queues again what endpoints ask for again.
//! Nothing of this is on the write path, and nothing waits for it.

pub mod address;
mod dispatcher;
mod endpoints;
mod fan_out;
mod message;
mod reminders;
mod replayer;
pub mod secrets;
pub mod sender;
pub mod signature;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, Pool};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

pub use endpoints::{NewEndpoint, ReplayFrom};
use sender::Sender;

use super::catalog::CatalogHolder;
use super::log_follower::LogFollower;
use super::mail::{MailSettings, Mailer};
use super::metrics::Metrics;
use crate::clock::Clock;
use crate::sealing::MasterKeys;
use crate::store::connect::Database;
use crate::store::error::StoreError;

/// Connections for working the queues off, mailing and replaying together.
const CONNECTIONS: usize = 2;

/// How things leave the ledger.
#[derive(Debug, Clone, Default)]
pub struct OutboundSettings {
    /// Whether this process follows the log, delivers, and reports usage to Stripe. A command beside a service leaves that
    /// to the service: its environment may be another, without the mail server or the leave to call private addresses.
    pub is_at_work: bool,
    /// Endpoints may lie in this network, and be reached without TLS.
    pub allow_private_webhooks: bool,
    /// Secrets of endpoints are sealed under the first of them; without one they are not sealed.
    pub master_keys: MasterKeys,
    /// `None`: notifications are not mailed.
    pub mail: Option<MailSettings>,
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Outbound {
    pub sender: Sender,
    pub master_keys: MasterKeys,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub partitions: i16,
    /// Told when something may be due.
    pub wake: Notify,
    pool: Pool,
    places: Arc<Semaphore>,
    stop: watch::Sender<bool>,
}

/// A connection, with its place among those that may be open.
#[derive(Debug)]
pub(super) struct Connection {
    object: Object,
    _place: OwnedSemaphorePermit,
}

impl std::ops::Deref for Connection {
    type Target = ClientWrapper;
    fn deref(&self) -> &ClientWrapper {
        &self.object
    }
}

impl std::ops::DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.object
    }
}

impl Outbound {
    /// Starts the tasks, if this process is at work. They end some seconds after [`stop`](Self::stop).
    pub async fn start(
        settings: &OutboundSettings,
        database: &Database,
        partitions: i16,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        catalog: CatalogHolder,
        news: watch::Receiver<i64>,
    ) -> Result<(Arc<Self>, Vec<JoinHandle<()>>), StoreError> {
        let (stop, stopping) = watch::channel(false);
        let outbound = Arc::new(Self {
            sender: Sender::new(settings.allow_private_webhooks)?,
            master_keys: settings.master_keys.clone(),
            clock,
            metrics,
            partitions,
            wake: Notify::new(),
            pool: database.pool(CONNECTIONS)?,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            stop,
        });
        if !settings.is_at_work {
            return Ok((outbound, Vec::new()));
        }
        let fan_out = fan_out::FanOut::new(Arc::clone(&outbound), catalog, settings.mail.is_some());
        let follower = LogFollower::new(fan_out, database.pool(1)?, news, outbound.metrics.clone()).await?;
        let mut tasks = vec![
            tokio::spawn(follower.run(stopping)),
            tokio::spawn(dispatcher::Dispatcher::new(Arc::clone(&outbound)).run()),
            tokio::spawn(replayer::run(Arc::clone(&outbound))),
            tokio::spawn(reminders::run(Arc::clone(&outbound), settings.mail.is_some())),
        ];
        if let Some(mail) = &settings.mail {
            tasks.push(tokio::spawn(Mailer::new(mail, Arc::clone(&outbound))?.run()));
        }
        Ok((outbound, tasks))
    }

    /// Ends the tasks: attempts under way are finished, within limits.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.wake.notify_waiters();
    }

    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Pauses a task until something may be due, for so long at most.
    pub async fn pause(&self, most: Duration) {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(most) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// A connection, once one is free.
    pub async fn connection(&self) -> Result<Connection, StoreError> {
        let closed = |_| StoreError::Unavailable("the service is stopping".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        Ok(Connection { object: self.pool.get().await?, _place: place })
    }
}
