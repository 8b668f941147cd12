//! Holds, found by their ids alone.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use lru::LruCache;
use uuid::Uuid;

use super::history::{Moment, Past};
use super::receipt::Receipt;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::write_path::work::{Answer, Key};
use crate::domain::charge::Charge;
use crate::domain::command::{Command, HoldAct, OfHold, Outcome};
use crate::domain::hold::{HoldRecord, HoldStatus};
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::store::error::StoreError;
use crate::store::{log, read};

/// How often a hold may end, or move, between reading its row and deciding.
const MAX_TRIES: usize = 8;
/// Holds whose account is kept in memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// Whose the holds are that were placed here: most are captured where they were placed, and soon. It never changes, but
/// for streams that are taken over, which the lane says.
pub struct HoldOwners(Mutex<LruCache<Uuid, AccountId>>);

impl Default for HoldOwners {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl fmt::Debug for HoldOwners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HoldOwners")
    }
}

impl HoldOwners {
    fn put(&self, hold: Uuid, account: AccountId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(hold, account);
    }

    fn get(&self, hold: Uuid) -> Option<AccountId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&hold).cloned()
    }
}

impl Service {
    /// Sets credits aside.
    pub async fn place_hold(
        &self,
        account: &AccountId,
        charge: Charge,
        expires_at: DateTime<Utc>,
        key: Key,
    ) -> Result<Answer, AppError> {
        let account = self.resolve(account).await?;
        let command = Command::Hold { hold: self.new_id(), charge, expires_at };
        let answer = self.execute(account.clone(), command, Some(key)).await?;
        if let Ok(Outcome::Held { hold, .. }) = &answer.result {
            self.holds.put(hold.id, account);
        }
        Ok(answer)
    }

    /// Whose hold it is, and how it stands by its row.
    pub async fn hold(&self, hold: Uuid) -> Result<(AccountId, HoldRecord), AppError> {
        let client = self.connection().await?;
        let found = read::hold(&**client, &hold.to_string()).await?;
        found.ok_or_else(|| Rejection::HoldNotFound { hold: hold.to_string() }.into())
    }

    /// The same, once its account's partition has reached a position.
    pub async fn hold_now(&self, hold: Uuid, min_position: i64) -> Result<(AccountId, HoldRecord), AppError> {
        let found = self.hold(hold).await?;
        if min_position == 0 {
            return Ok(found);
        }
        self.account_now(&found.0, min_position).await?;
        self.hold(hold).await
    }

    /// The same, as it stood at a moment that has been, and the account that had it then.
    pub async fn hold_at(&self, hold: Uuid, moment: Moment, min_position: i64) -> Result<(Past, HoldRecord), AppError> {
        let (owner, _) = self.hold_now(hold, min_position).await?;
        // Where its row is, it is told of until it ended, though that stream may have been taken over since.
        if let Ok(past) = self.account_at(&owner, moment).await
            && let Some(Some(record)) = past.changes.holds.get(&hold).cloned()
        {
            return Ok((past, record));
        }
        let stream = match moment {
            // It may have been placed in a stream that its account has taken over since.
            Moment::Time(_) => self.stream_of_hold(hold).await?,
            Moment::Position(_) => owner,
        };
        let not_found = || AppError::from(Rejection::HoldNotFound { hold: hold.to_string() });
        let past = self.past(&stream, moment, 0).await.map_err(|error| match error {
            AppError::AccountNotYetOpen { .. } => not_found(),
            error => error,
        })?;
        let record = past.changes.holds.get(&hold).cloned().flatten().ok_or_else(not_found)?;
        Ok((past, record))
    }

    /// The stream in which a hold was placed.
    async fn stream_of_hold(&self, hold: Uuid) -> Result<AccountId, AppError> {
        let receipt = self.receipt_of(hold).await?;
        let not_found = || AppError::ReceiptNotFound(receipt.to_string());
        let Receipt::Event { partition_id, position } = &receipt else { return Err(not_found()) };
        let placed = log::at_position(&**self.connection().await?, *partition_id, *position).await?;
        let account = placed.ok_or_else(not_found)?.account_id;
        AccountId::new(&account).map_err(|error| StoreError::Corrupt(error.to_string()).into())
    }

    /// Ends a hold, or lets it last until another time.
    pub async fn act_on_hold(&self, hold: Uuid, act: HoldAct, key: Key) -> Result<Answer, AppError> {
        let mut owner = self.holds.get(hold);
        for _ in 0..MAX_TRIES {
            let (account, ended) = match owner.take() {
                // As long as it is open, its row has nothing to add.
                Some(account) => (account, None),
                None => {
                    let (account, record) = self.hold(hold).await?;
                    (account, Some(record.status).filter(|status| *status != HoldStatus::Open))
                }
            };
            let command = Command::OfHold(OfHold { hold, ended, act });
            match self.execute(account, command, Some(key)).await {
                // By now the row says how.
                Err(AppError::HoldEnded) => {}
                outcome => return outcome,
            }
        }
        Err(AppError::Overloaded)
    }
}
