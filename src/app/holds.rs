//! Holds, found by their ids alone.

use uuid::Uuid;

use super::error::AppError;
use super::service::Service;
use super::work::{Answer, Key};
use crate::domain::command::{Command, HoldAct, OfHold};
use crate::domain::hold::{HoldRecord, HoldStatus};
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::store::read;

/// How often a hold may end, or move, between reading its row and deciding.
const MAX_TRIES: usize = 8;

impl Service {
    /// Whose hold it is, and how it stands by its row.
    pub async fn hold(&self, hold: Uuid) -> Result<(AccountId, HoldRecord), AppError> {
        let client = self.connection().await?;
        let found = read::hold(&**client, &hold.to_string()).await?;
        found.ok_or_else(|| Rejection::HoldNotFound { hold: hold.to_string() }.into())
    }

    /// Ends a hold, or lets it last until another time.
    pub async fn act_on_hold(&self, hold: Uuid, act: HoldAct, key: Key) -> Result<Answer, AppError> {
        for _ in 0..MAX_TRIES {
            let (account, record) = self.hold(hold).await?;
            let ended = Some(record.status).filter(|status| *status != HoldStatus::Open);
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
