//! Answers to questions, out of the read models: from memory while it is known to be fresh, else from the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::balance_cache::Balance;
use super::balance_reader::Reading;
use super::history::{Moment, Past};
use crate::app::catalog::ActiveCatalog;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::account::Account;
use crate::domain::credit::Credits;
use crate::domain::event::Event;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::settle::{credits_at, due_events, is_clock_due};
use crate::domain::standing::Standing;
use crate::store::log;

/// How long a read waits for `min_position`.
const POSITION_WAIT: Duration = Duration::from_millis(1_000);
const POSITION_POLL: Duration = Duration::from_millis(10);

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Within the bound that the service is set to; `as_of` says how old it is.
    #[default]
    Bounded,
    /// As the database has it when it is asked.
    Strong,
}

/// Why an answer was not taken from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadThrough {
    /// It was asked for.
    Strong,
    /// The last successful poll is too long ago.
    Stale,
    /// The account was not in memory.
    Cold,
    /// `min_position` had not been reached.
    Behind,
}

impl ReadThrough {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Stale => "stale",
            Self::Cold => "cold",
            Self::Behind => "behind",
        }
    }
}

/// An account as it stands now.
#[derive(Debug, Clone)]
pub struct AccountNow {
    pub id: AccountId,
    credits: CreditsNow,
    pub version: i64,
    pub partition_id: i16,
    pub position: i64,
    /// What is said is no older than this.
    pub read_at: Instant,
    /// The moment that refills, expiry and limits are evaluated at.
    pub at: DateTime<Utc>,
    /// The catalog in force at that moment.
    pub catalog: Arc<ActiveCatalog>,
}

/// An account's credits: as they are in memory, or, where the clock has made something due since, as it leaves them.
#[derive(Debug, Clone)]
enum CreditsNow {
    Recorded(Arc<Balance>),
    Settled { now: Box<Credits>, recorded: Option<Arc<Balance>> },
}

impl AccountNow {
    /// With all that the clock has made due.
    pub fn credits(&self) -> &Credits {
        match &self.credits {
            CreditsNow::Recorded(balance) => &balance.credits,
            CreditsNow::Settled { now, .. } => now,
        }
    }

    pub fn standing(&self) -> Standing<'_> {
        Standing::of(self.credits(), &self.catalog.catalog, self.at)
    }

    /// What is in the credits, but not on record yet.
    pub fn due_events(&self) -> Vec<Event> {
        match &self.credits {
            CreditsNow::Settled { recorded: Some(balance), .. } => {
                due_events(&self.id, &balance.credits, self.catalog.context(self.at))
            }
            _ => Vec::new(),
        }
    }
}

impl From<Past> for AccountNow {
    fn from(past: Past) -> Self {
        let Past { account, at, partition_id, position, catalog, .. } = past;
        let Account { id, credits, version, .. } = account;
        let now = Box::new(credits);
        let (credits, read_at) = (CreditsNow::Settled { now, recorded: None }, Instant::now());
        Self { id, credits, version, partition_id, position, read_at, at, catalog }
    }
}

/// What a caller asks of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    pub min_position: i64,
    pub consistency: Consistency,
    /// The past, in place of the present.
    pub as_of: Option<Moment>,
}

impl Service {
    /// Reads an account by its own id or by a Stripe id linked to it, at `min_position` or later, as the database has it.
    pub async fn account_now(&self, name: &AccountId, min_position: i64) -> Result<AccountNow, AppError> {
        self.account(name, Read { min_position, consistency: Consistency::Strong, as_of: None }).await
    }

    /// The same, from memory if that is fresh enough, or out of the log if it is the past.
    pub async fn account(&self, name: &AccountId, read: Read) -> Result<AccountNow, AppError> {
        let Read { min_position, consistency, as_of } = read;
        if let Some(moment) = as_of {
            return Ok(self.past(name, moment, min_position).await?.into());
        }
        let reason = match consistency {
            Consistency::Strong => ReadThrough::Strong,
            Consistency::Bounded => match self.remembered(name, min_position) {
                Err(ReadThrough::Cold) if name.standing() != Ownership::Account => {
                    let id = self.resolve(name).await?;
                    match self.remembered(&id, min_position) {
                        Ok(account) => return Ok(account),
                        Err(reason) => reason,
                    }
                }
                Ok(account) => return Ok(account),
                Err(reason) => reason,
            },
        };
        self.metrics.read_throughs.with_label_values(&[reason.as_str()]).inc();
        self.read_through(name, min_position).await
    }

    /// An account by its own id, if it is in memory and that is fresh enough.
    pub fn account_in_memory(&self, id: &AccountId) -> Option<AccountNow> {
        self.remembered(id, 0).ok()
    }

    /// An account out of memory.
    ///
    /// A stream in memory that bears a Stripe id is where that id leads: had it been linked elsewhere, it would have been
    /// merged into that account.
    fn remembered(&self, id: &AccountId, min_position: i64) -> Result<AccountNow, ReadThrough> {
        let read_at = self.balances.polled_at().filter(|at| at.elapsed() <= self.staleness);
        let read_at = read_at.ok_or(ReadThrough::Stale)?;
        let mut owner = id.clone();
        let (mut balance, mut position) = self.balances.get(id).ok_or(ReadThrough::Cold)?;
        while let Some(into) = balance.credits.merged_into.clone() {
            (balance, position) = self.balances.get(&into).ok_or(ReadThrough::Cold)?;
            owner = into;
        }
        // In the account's own partition: how far a merged stream's has got says nothing of the account.
        if position < min_position {
            return Err(ReadThrough::Behind);
        }
        self.metrics.cached_reads.inc();
        Ok(self.settled(owner, balance, position, read_at, self.catalog.current()))
    }

    /// Waits, not for long, until the account's partition has reached a position that a write gave.
    async fn read_through(&self, name: &AccountId, min_position: i64) -> Result<AccountNow, AppError> {
        let deadline = Instant::now() + POSITION_WAIT;
        loop {
            let (id, Reading { balance, position, catalog_position, read_at }) =
                self.read_owner(self.resolve(name).await?).await?;
            if position >= min_position || self.is_of_before_link(name, &id, min_position).await? {
                let balance = balance.ok_or_else(|| AppError::AccountNotFound(id.to_string()))?;
                let catalog = self.catalog_at_least(catalog_position).await?;
                return Ok(self.settled(id, balance, position, read_at, catalog));
            }
            if Instant::now() >= deadline {
                return Err(AppError::PositionNotReached { wanted: min_position, reached: position });
            }
            tokio::time::sleep(POSITION_POLL).await;
        }
    }

    /// The catalog in force, which is no older than the one that was seen at a position.
    async fn catalog_at_least(&self, position: i64) -> Result<Arc<ActiveCatalog>, AppError> {
        let (catalog, known) = self.catalog.current_at();
        if known >= position {
            return Ok(catalog);
        }
        let client = self.connection().await?;
        Ok(self.catalog.at_least(position, &**client).await?)
    }

    /// Waits, not for long, until a partition has reached a position that a write gave.
    pub async fn wait_for_position(&self, partition_id: i16, wanted: i64) -> Result<(), AppError> {
        let reached = async || log::position(&**self.connection().await?, partition_id).await.map_err(AppError::from);
        wait_until_reached(wanted, reached).await
    }

    /// Waits, not for long, until some partition has reached a position. None is given before it is there, so what is read of
    /// all partitions then holds the write that gave it.
    pub async fn wait_for_some_position(&self, wanted: i64) -> Result<(), AppError> {
        let reached = async || {
            let positions = log::positions(&**self.connection().await?).await?;
            Ok(positions.into_iter().map(|(_, position)| position).max().unwrap_or(0))
        };
        wait_until_reached(wanted, reached).await
    }

    /// A stream, or the account that took it over.
    async fn read_owner(&self, stream: AccountId) -> Result<(AccountId, Reading), AppError> {
        let mut owner = stream;
        loop {
            let reading = self.reader.read(&owner).await?;
            match reading.balance.as_ref().and_then(|balance| balance.credits.merged_into.clone()) {
                Some(into) => owner = into,
                None => return Ok((owner, reading)),
            }
        }
    }

    /// Whether a position that the account's partition has not reached may have been given under this name before the account
    /// took its stream over: no write of the account gave it, and the stream's partition has got so far.
    async fn is_of_before_link(
        &self,
        name: &AccountId,
        owner: &AccountId,
        min_position: i64,
    ) -> Result<bool, AppError> {
        let mut stream = name.clone();
        while stream != *owner {
            let Reading { balance, position, .. } = self.reader.read(&stream).await?;
            let Some(into) = balance.and_then(|balance| balance.credits.merged_into.clone()) else {
                return Ok(false);
            };
            if position >= min_position {
                return Ok(true);
            }
            stream = into;
        }
        Ok(false)
    }

    /// With all that the clock has made due.
    fn settled(
        &self,
        id: AccountId,
        balance: Arc<Balance>,
        position: i64,
        read_at: Instant,
        catalog: Arc<ActiveCatalog>,
    ) -> AccountNow {
        let Balance { version, partition_id, .. } = *balance;
        let now = self.clock.now();
        let context = catalog.context(now);
        let credits = if is_clock_due(&balance.credits, context) {
            let settled = Box::new(credits_at(&id, &balance.credits, context));
            CreditsNow::Settled { now: settled, recorded: Some(balance) }
        } else {
            CreditsNow::Recorded(balance)
        };
        AccountNow { id, credits, version, partition_id, position, read_at, at: now, catalog }
    }

    /// The past of an account, by its own id or by a Stripe id linked to it, once its partition has reached `min_position`. A
    /// time is told of what the name led to then; a position is one of the account's partition that it leads to now.
    pub async fn past(&self, name: &AccountId, moment: Moment, min_position: i64) -> Result<Past, AppError> {
        if min_position > 0 {
            self.read_through(name, min_position).await?;
        }
        if matches!(moment, Moment::Time(_))
            && name.standing() != Ownership::Account
            && let Some(past) = self.stream_at(name, moment).await?
        {
            return Ok(past);
        }
        let id = self.resolve(name).await?;
        self.account_at(&id, moment).await
    }

    /// What a stream of this very name was at a time, or the account that had taken it over by then; `None` if there never
    /// was such a stream.
    async fn stream_at(&self, name: &AccountId, moment: Moment) -> Result<Option<Past>, AppError> {
        let mut id = name.clone();
        loop {
            let past = match self.account_at(&id, moment).await {
                Err(AppError::AccountNotFound(_)) if id == *name => return Ok(None),
                past => past?,
            };
            match &past.account.credits.merged_into {
                Some(into) => id = into.clone(),
                None => return Ok(Some(past)),
            }
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), AppError> {
        let client = self.connection().await?;
        log::positions(&**client).await?;
        let status = self.pool.status();
        let pool = &self.metrics.pool_connections;
        pool.with_label_values(&["size"]).set(i64::try_from(status.size).unwrap_or(i64::MAX));
        pool.with_label_values(&["available"]).set(i64::try_from(status.available).unwrap_or(i64::MAX));
        pool.with_label_values(&["waiting"]).set(i64::try_from(status.waiting).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Brings the metrics of what is in memory up to date.
    pub fn measure_memory(&self) {
        let metrics = &self.metrics;
        metrics.cached_accounts.set(i64::try_from(self.balances.accounts()).unwrap_or(i64::MAX));
        metrics.cached_bytes.set(i64::try_from(self.balances.bytes()).unwrap_or(i64::MAX));
        let polled_at = self.balances.polled_at().unwrap_or(self.started_at);
        metrics.follower_age_seconds.set(polled_at.elapsed().as_secs_f64());
    }
}

async fn wait_until_reached(wanted: i64, reached: impl AsyncFn() -> Result<i64, AppError>) -> Result<(), AppError> {
    if wanted == 0 {
        return Ok(());
    }
    let deadline = Instant::now() + POSITION_WAIT;
    loop {
        let reached = reached().await?;
        if reached >= wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(AppError::PositionNotReached { wanted, reached });
        }
        tokio::time::sleep(POSITION_POLL).await;
    }
}
