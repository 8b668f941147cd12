//! Telling of trials that end soon, when the time has come. Any replica may.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Transaction;

use super::Outbound;
use super::message::{self, Place};
use crate::domain::message::wants;
use crate::domain::notification::trial_ending;
use crate::store::error::StoreError;
use crate::store::notifications::{self, TrialReminder};
use crate::store::partition::partition_of;
use crate::store::webhook_deliveries::{self, Repeat};
use crate::store::{read, webhook_endpoints};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Reminders in one transaction.
const MAX_BATCH: i64 = 50;

/// Works until the service stops.
pub(super) async fn run(outbound: Arc<Outbound>, is_mailed: bool) {
    let mut is_failing = false;
    while !outbound.is_stopping() {
        let told = tell(&outbound, is_mailed).await;
        if let Err(error) = &told
            && !is_failing
        {
            tracing::warn!(%error, "trials that end cannot be told of; trying again");
        }
        is_failing = told.is_err();
        if !matches!(told, Ok(true)) {
            outbound.pause(LOOK_EVERY).await;
        }
    }
}

/// Tells of some trials; `false`: of none.
async fn tell(outbound: &Outbound, is_mailed: bool) -> Result<bool, StoreError> {
    let mut client = outbound.connection().await?;
    let tx = client.transaction().await?;
    let due = notifications::take_reminders(&*tx, outbound.clock.now(), MAX_BATCH).await?;
    for reminder in &due {
        tell_of(outbound, &tx, reminder, is_mailed).await?;
    }
    tx.commit().await?;
    outbound.wake.notify_waiters();
    Ok(!due.is_empty())
}

async fn tell_of(
    outbound: &Outbound,
    tx: &Transaction<'_>,
    reminder: &TrialReminder,
    is_mailed: bool,
) -> Result<(), StoreError> {
    let now = outbound.clock.now();
    let mut account_id = reminder.account_id.clone();
    let mut place = place_of(outbound, tx, &account_id).await?;
    if let Some(into) = place.2.take() {
        place = place_of(outbound, tx, &into).await?;
        account_id = into;
    }
    let (partition_id, position, _) = place;
    let place = Place { account_id: &account_id, partition_id, position, part: 1 };
    let notification = trial_ending(&reminder.subscription, reminder.trial_end);
    let new = message::of_notification(&notification, place, now, is_mailed)?;
    if !notifications::claim_cause(&**tx, &new).await? {
        return Ok(());
    }
    // Whoever listens now: that the account's last event was long ago does not matter.
    let endpoints = webhook_endpoints::enabled(&**tx).await?;
    let wanting = endpoints.iter().filter(|endpoint| wants(&endpoint.event_types, &new.message.message_type));
    let addressed: Vec<_> = wanting.map(|endpoint| (endpoint.id.as_str(), &new.message)).collect();
    webhook_deliveries::queue(&**tx, &addressed, Repeat::Never, now).await?;
    outbound.metrics.notifications.with_label_values(&[&new.message.message_type]).inc();
    Ok(())
}

/// An account's partition, its last position there, and the account it was merged into.
async fn place_of(
    outbound: &Outbound,
    tx: &Transaction<'_>,
    account_id: &str,
) -> Result<(i16, i64, Option<String>), StoreError> {
    let partition_id = partition_of(account_id, outbound.partitions);
    let seen = read::balances(&**tx, &[account_id], &[partition_id]).await?;
    let Some(Ok(Some(account))) = seen.into_iter().next().map(|seen| seen.account) else {
        return Ok((partition_id, 0, None));
    };
    let into = account.credits.merged_into.as_ref().map(|into| into.as_str().to_owned());
    Ok((partition_id, account.position, into))
}
