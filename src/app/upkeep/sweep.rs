//! Recording what time has made due for accounts that nobody asks about: refills, and credits that expired.
//!
//! Reads evaluate both at the moment they are asked, so nothing waits for this; but statements, followers and the log would
//! say nothing of an idle account until it is used. Several replicas may sweep at once: each command is decided on the
//! account as it is, and whoever comes second finds nothing due.

use std::time::Duration;

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::account::Account;
use crate::domain::command::Command;
use crate::domain::settle::is_idle_work_due;
use crate::store::read;

/// Accounts looked at in one go, and recorded at most.
const PAGE: i64 = 256;
/// Between two pages, so that a sweep is never more than a small part of the load.
const PAUSE: Duration = Duration::from_millis(50);

impl Service {
    /// Goes through all accounts once, in the order of their ids. Gives how many had something due.
    ///
    /// There is no index by what is due next: it would change with every debit, and cost more than this reading.
    pub async fn sweep(&self) -> Result<u64, AppError> {
        let mut swept = 0;
        let mut after = String::new();
        loop {
            let client = self.connection().await?;
            let page = read::balances_after(&**client, &after, PAGE).await?;
            drop(client);
            let Some(last) = page.last() else { return Ok(swept) };
            after = last.id.as_str().to_owned();
            swept += self.sweep_page(page).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn sweep_page(&self, page: Vec<Account>) -> u64 {
        let (catalog, now) = (self.catalog.current(), self.clock.now());
        let context = catalog.context(now);
        let due = page.into_iter().filter(|account| is_idle_work_due(&account.id, &account.credits, context));
        let commands = due.map(|account| self.execute(account.id, Command::Settle, None));
        let outcomes = futures_util::future::join_all(commands).await;
        let swept = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        // The next sweep tries those again; the accounts after them are not kept waiting.
        if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.is_err()) {
            tracing::warn!(%error, failed = outcomes.len() as u64 - swept, "idle accounts could not be settled");
        }
        self.metrics.swept_accounts.inc_by(swept);
        swept
    }
}
