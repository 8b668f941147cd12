//! Answers to questions, out of the read models.

use std::time::{Duration, Instant};

use super::error::AppError;
use super::service::Service;
use crate::domain::credit::Credits;
use crate::domain::draft::Context;
use crate::domain::ids::AccountId;
use crate::domain::settle::credits_at;
use crate::store::log;
use crate::store::partition::partition_of;
use crate::store::read::{self, Balance};

/// How long a read waits for `min_position`.
const POSITION_WAIT: Duration = Duration::from_millis(1_000);
const POSITION_POLL: Duration = Duration::from_millis(10);

/// An account as it stands now.
#[derive(Debug, Clone)]
pub struct AccountNow {
    pub id: AccountId,
    /// With all that the clock has made due.
    pub credits: Credits,
    pub version: i64,
    pub partition_id: i16,
    pub position: i64,
    pub read_at: Instant,
}

impl Service {
    /// Reads an account by its own id or by a Stripe id linked to it, at `min_position` or later.
    pub async fn account_now(&self, name: &AccountId, min_position: i64) -> Result<AccountNow, AppError> {
        let id = self.resolve(name).await?;
        let read_at = Instant::now();
        self.wait_for_position(&id, min_position).await?;
        let mut balance = self.balance(&id).await?;
        if let Some(into) = &balance.account.credits.merged_into {
            balance = self.balance(&into.clone()).await?;
        }
        let Balance { account, partition_id, position } = balance;
        let catalog = self.catalog.current();
        let now = self.clock.now();
        let context = Context { catalog: &catalog.catalog, catalog_digest: &catalog.digest, now };
        let credits = credits_at(&account.id, &account.credits, context);
        Ok(AccountNow { id: account.id, credits, version: account.version, partition_id, position, read_at })
    }

    async fn balance(&self, id: &AccountId) -> Result<Balance, AppError> {
        let client = self.connection().await?;
        let balance = read::balance(&**client, id.as_str()).await?;
        balance.ok_or_else(|| AppError::AccountNotFound(id.to_string()))
    }

    /// Waits, not for long, until an account's partition has reached a position that a write gave.
    async fn wait_for_position(&self, id: &AccountId, min_position: i64) -> Result<(), AppError> {
        if min_position <= 0 {
            return Ok(());
        }
        let partition = partition_of(id.as_str(), self.partitions);
        let deadline = Instant::now() + POSITION_WAIT;
        loop {
            let client = self.connection().await?;
            let reached = log::position(&**client, partition).await?;
            drop(client);
            if reached >= min_position {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(AppError::PositionNotReached { wanted: min_position, reached });
            }
            tokio::time::sleep(POSITION_POLL).await;
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
}
