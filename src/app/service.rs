//! The service: lanes, a pool, the catalog, and the ways in.

use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use super::catalog::{CatalogHolder, recorded_catalog};
use super::error::AppError;
use super::metrics::Metrics;
use super::outbound::{Outbound, OutboundSettings};
use super::revenue::Revenue;
use crate::app::inbound::link;
use crate::app::inbound::links::LinkReader;
use crate::app::read_path::balance_cache::BalanceCache;
use crate::app::read_path::balance_reader::BalanceReader;
use crate::app::read_path::follower::Follower;
use crate::app::read_path::holds::HoldOwners;
use crate::app::stripe_sync::usage_export::UsageExport;
use crate::app::upkeep::jobs::Jobs;
use crate::app::write_path::lane::{Lane, LaneSettings};
use crate::app::write_path::work::{Answer, Key, Work};
use crate::clock::Clock;
use crate::domain::command::Command;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::redirect::Redirects;
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::partition::partition_of;
use crate::stripe::client::{CallMetrics, ClientError, ClientSettings, StripeClient};

/// How often a command follows its account before giving up.
const MAX_MOVES: usize = 8;
/// A caller hears something by then, whatever the database does. Stripe waits about as long.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What a service is made of.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    pub database: Database,
    pub partitions: i16,
    pub clock: Arc<dyn Clock>,
    /// In-process writers; see BENCHMARKS.md for how many are best.
    pub lanes: usize,
    /// Connections for reading.
    pub pool_size: usize,
    /// How long to wait for one of them.
    pub pool_wait: Duration,
    /// Commands that may wait for one lane; more are turned away.
    pub queue_length: usize,
    /// Accounts kept in memory, over all lanes.
    pub cached_accounts: usize,
    /// Memory for the accounts that are read.
    pub cache_bytes: usize,
    /// How old an answer from memory may be.
    pub staleness: Duration,
    pub stripe: StripeSettings,
    pub outbound: OutboundSettings,
}

/// How Stripe's events are taken.
#[derive(Clone, Default)]
pub struct StripeSettings {
    /// All are accepted, so that they can be rotated; empty: Stripe is not configured.
    pub webhook_secrets: Vec<String>,
    /// Events of the other mode are kept, not applied.
    pub livemode: bool,
    /// Metadata keys that hold our account id.
    pub account_metadata_keys: Vec<String>,
    /// How Stripe is called.
    pub client: ClientSettings,
    /// Where customers may be sent back to.
    pub redirects: Redirects,
    /// Calls of payment routes within a minute, for each account; 0: as many as one likes.
    pub payment_routes_per_minute: u32,
}

impl std::fmt::Debug for StripeSettings {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripeSettings")
            .field("webhook_secrets", &self.webhook_secrets.len())
            .field("livemode", &self.livemode)
            .field("account_metadata_keys", &self.account_metadata_keys)
            .finish()
    }
}

/// The running service.
#[derive(Debug)]
pub struct Service {
    pub pool: Pool,
    pub partitions: i16,
    pub catalog: CatalogHolder,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub stripe: StripeSettings,
    /// Calls Stripe.
    pub stripe_client: StripeClient,
    pub database: Database,
    lanes: RwLock<Vec<mpsc::Sender<Work>>>,
    pub links: LinkReader,
    pub(super) balances: Arc<BalanceCache>,
    pub(super) reader: BalanceReader,
    pub(super) staleness: Duration,
    pub(super) started_at: Instant,
    pub(super) holds: HoldOwners,
    follower: AbortHandle,
    /// Changes when events were appended, by whatever replica: see [`Service::news`].
    news: watch::Receiver<i64>,
    pub(super) jobs: Jobs,
    pub(super) revenue: Revenue,
    pub(super) outbound: Arc<Outbound>,
    usage_export: UsageExport,
}

/// The tasks of a service's lanes, and of what leaves it.
#[derive(Debug)]
pub struct Lanes(Vec<JoinHandle<()>>);

impl Lanes {
    /// Waits until everything accepted is done.
    pub async fn finish(self) {
        for lane in self.0 {
            if let Err(error) = lane.await {
                tracing::error!(%error, "a lane ended badly");
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.follower.abort();
        self.outbound.stop();
        self.usage_export.stop();
    }
}

impl Service {
    /// Starts the lanes on a migrated database, under the catalog recorded last.
    pub async fn start(settings: ServiceSettings) -> Result<(Arc<Self>, Lanes), StoreError> {
        let pool = settings.database.pool_with_wait(settings.pool_size, settings.pool_wait)?;
        let metrics = Metrics::new().map_err(|error| StoreError::Refused(error.to_string()))?;
        let stripe_client = CallMetrics::new(&metrics.registry)
            .map_err(ClientError::from)
            .and_then(|calls| StripeClient::new(settings.stripe.client.clone(), calls))
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        let recorded = recorded_catalog(&**pool.get().await?).await?;
        let catalog = CatalogHolder::new(recorded);
        let balances = Arc::new(BalanceCache::new(settings.cache_bytes, settings.partitions));
        let lanes = settings.lanes.max(1);
        let per_lane = NonZeroUsize::new((settings.cached_accounts / lanes).max(1_024)).unwrap_or(NonZeroUsize::MIN);
        let mut senders = Vec::with_capacity(lanes);
        let mut tasks = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let (sender, receiver) = mpsc::channel(settings.queue_length);
            let settings = LaneSettings {
                database: settings.database.clone(),
                partitions: settings.partitions,
                catalog: catalog.clone(),
                clock: Arc::clone(&settings.clock),
                metrics: metrics.clone(),
                cached_accounts: per_lane,
                own_partitions: (0..settings.partitions).filter(|id| lane_of(*id, lanes) == lane).collect(),
                balances: Arc::clone(&balances),
                name: lane.to_string(),
            };
            senders.push(sender);
            tasks.push(tokio::spawn(Lane::new(settings, receiver).run()));
        }
        let links = LinkReader::start(pool.clone());
        let reader = BalanceReader::start(pool.clone(), Arc::clone(&balances), settings.partitions);
        let database = settings.database.clone();
        let (news_sender, news) = watch::channel(0);
        let follower = Follower::new(database, Arc::clone(&balances), catalog.clone(), metrics.clone(), news_sender);
        let follower = tokio::spawn(follower.run()).abort_handle();
        let (outbound, outbound_tasks) = Outbound::start(
            &settings.outbound,
            &settings.database,
            settings.partitions,
            Arc::clone(&settings.clock),
            metrics.clone(),
            catalog.clone(),
            news.clone(),
        )
        .await?;
        tasks.extend(outbound_tasks);
        let (usage_export, export_tasks) = UsageExport::start(
            settings.outbound.is_at_work,
            &stripe_client,
            &settings.database,
            &settings.clock,
            &metrics,
            &catalog,
            news.clone(),
        )
        .await?;
        tasks.extend(export_tasks);
        let service = Self {
            pool,
            partitions: settings.partitions,
            catalog,
            clock: settings.clock,
            metrics,
            stripe: settings.stripe,
            stripe_client,
            database: settings.database,
            lanes: RwLock::new(senders),
            links,
            balances,
            reader,
            staleness: settings.staleness,
            started_at: Instant::now(),
            follower,
            news,
            holds: HoldOwners::default(),
            jobs: Jobs::default(),
            revenue: Revenue::default(),
            outbound,
            usage_export,
        };
        Ok((Arc::new(service), Lanes(tasks)))
    }

    /// Takes no more commands; the lanes end once they have done what was accepted.
    pub fn stop(&self) {
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.follower.abort();
        self.outbound.stop();
        self.usage_export.stop();
        self.pool.close();
    }

    /// An id that begins with the time.
    pub fn new_id(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos()))
    }

    /// Wakes whoever waits for events that were appended, within some 20 ms. While the log cannot be followed it does not:
    /// look now and then all the same.
    pub fn news(&self) -> watch::Receiver<i64> {
        self.news.clone()
    }

    /// A connection of the pool.
    pub async fn connection(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Executes a command, durably, following the account if it was taken over.
    pub async fn execute(&self, account: AccountId, command: Command, key: Option<Key>) -> Result<Answer, AppError> {
        let mut account = account;
        let customer = match &command {
            Command::Open { stripe_customer_id } => stripe_customer_id.clone(),
            _ => None,
        };
        for _ in 0..MAX_MOVES {
            let (reply, answer) = oneshot::channel();
            let work = Work {
                account: account.clone(),
                command: Some(command.clone()),
                key,
                links: customer.iter().cloned().collect(),
                inbox: None,
                reply,
                enqueued_at: Instant::now(),
            };
            match self.submit(work, answer).await {
                Err(AppError::Moved(into)) => account = into,
                Err(AppError::LinkedElsewhere) => {
                    return Err(AppError::CustomerLinkedElsewhere { customer: customer.unwrap_or_default() });
                }
                outcome => return outcome,
            }
        }
        Err(AppError::Overloaded)
    }

    /// Hands work to the lane of its partition and waits for the durable answer.
    pub async fn submit(
        &self,
        work: Work,
        answer: oneshot::Receiver<Result<Answer, AppError>>,
    ) -> Result<Answer, AppError> {
        self.enqueue(work)?;
        // A lane that panics with a command in hand, or waits for a silent database, leaves the outcome open: the key tells.
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        answer.ok().and_then(Result::ok).unwrap_or(Err(AppError::Store(StoreError::OutcomeUnknown)))
    }

    fn enqueue(&self, work: Work) -> Result<(), AppError> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        if lanes.is_empty() {
            return Err(AppError::Stopping);
        }
        let partition = partition_of(work.account.as_str(), self.partitions);
        let lane = &lanes[lane_of(partition, lanes.len())];
        lane.try_send(work).map_err(|_| AppError::Overloaded)
    }

    /// The account that a name in a path means: the caller's own id, or a Stripe id linked to it.
    pub async fn resolve(&self, name: &AccountId) -> Result<AccountId, AppError> {
        if name.standing() == Ownership::Account {
            return Ok(name.clone());
        }
        let owners = self.links.owners(&[name.as_str().to_owned()]).await?;
        Ok(owners.get(name.as_str()).cloned().unwrap_or_else(|| name.clone()))
    }

    /// Moves a stream to the account it belongs to.
    pub async fn move_stream(&self, from: &AccountId, into: &AccountId) -> Result<(), AppError> {
        let moved = link::move_stream(&self.pool, self.partitions, &self.catalog, self.clock.now(), from, into).await?;
        for (partition_id, account) in moved {
            self.balances.renew(&account, partition_id, account.position);
        }
        Ok(())
    }
}

/// Which lane writes to a partition.
fn lane_of(partition_id: i16, lanes: usize) -> usize {
    usize::from(partition_id.unsigned_abs()) % lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_no_debug_output() {
        let client = ClientSettings { secret_key: Some("sk_test_hidden".to_owned()), ..ClientSettings::default() };
        let webhook_secrets = vec!["whsec_hidden".to_owned()];
        let shown = format!("{:?}", StripeSettings { webhook_secrets, client, ..StripeSettings::default() });
        assert!(shown.contains("webhook_secrets: 1") && !shown.contains("hidden"), "{shown}");
    }
}
