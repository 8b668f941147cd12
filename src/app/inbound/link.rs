//! Linking: a stream turns out to belong to another account, and moves there whole.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;

use crate::app::catalog::CatalogHolder;
use crate::app::error::AppError;
use crate::app::write_path::plan::Plan;
use crate::domain::account::{Account, Changes};
use crate::domain::command::{Command, decide};
use crate::domain::draft::{Context, Draft};
use crate::domain::ids::AccountId;
use crate::store::append;
use crate::store::error::StoreError;
use crate::store::load::{self, Head};
use crate::store::partition::partition_of;
use crate::store::profiles;

/// Moves everything of the stream `from` into the account `into`, in one transaction. Doing it twice is doing it once.
/// Answers both accounts as they are now, with their partitions.
///
/// Two partitions are involved, so this goes past the lanes: it locks both heads first, and the lanes, whose heads have
/// moved then, reload.
pub async fn move_stream(
    pool: &Pool,
    partitions: i16,
    catalog: &CatalogHolder,
    now: DateTime<Utc>,
    from: &AccountId,
    into: &AccountId,
) -> Result<Vec<(i16, Account)>, AppError> {
    let mut client = pool.get().await.map_err(StoreError::from)?;
    let statement = append::prepare(&client).await?;
    let tx = client.transaction().await.map_err(StoreError::from)?;
    tx.batch_execute(append::CUT_OFF).await.map_err(StoreError::from)?;
    let (from_partition, into_partition) =
        (partition_of(from.as_str(), partitions), partition_of(into.as_str(), partitions));
    let mut both = vec![from_partition, into_partition];
    both.dedup();
    let heads = load::lock_heads(&*tx, load::LOCK_HEADS, &both).await?;

    let mut source = read_account(&*tx, from).await?;
    let mut target = read_account(&*tx, into).await?;
    if source.credits.merged_into.is_some() {
        return Ok(Vec::new());
    }
    if let Some(elsewhere) = &target.credits.merged_into {
        return Err(AppError::Moved(elsewhere.clone()));
    }
    let links = load::links_to(&*tx, from).await?;
    let absorb = Command::Absorb {
        from: from.clone(),
        credits: Box::new(source.credits.clone()),
        billing: source.billing.clone().unwrap_or_default(),
        links: links.clone(),
    };
    // As it is now that nobody else writes to these accounts; so no append need ask again.
    let catalog = catalog.read_through(&*tx).await?;
    let context = catalog.context(now);
    let mut plan = Plan::new(i64::MAX);
    for link in &links {
        plan.batch.push_link(into_partition, link, into.as_str(), Some(from.as_str()));
    }
    if !source.is_unknown() {
        let merge = Command::MergeInto { into: into.clone() };
        write(&mut plan, &mut source, &merge, from_partition, &heads, context)?;
    }
    write(&mut plan, &mut target, &absorb, into_partition, &heads, context)?;
    plan.seal();
    let refused = append::append(&*tx, &statement, &plan.batch).await?;
    if !refused.is_empty() {
        return Err(AppError::LinkedElsewhere);
    }
    profiles::move_profile(&*tx, from, into).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(vec![(from_partition, source), (into_partition, target)])
}

async fn read_account(client: &impl tokio_postgres::GenericClient, id: &AccountId) -> Result<Account, StoreError> {
    let ids = [id.as_str()];
    let known = load::accounts(client, load::ACCOUNTS, &ids).await?.pop();
    let mut account = known.unwrap_or_else(|| Account::new(id.clone()));
    account.billing = Some(Box::new(load::billings(client, &ids).await?.remove(id).unwrap_or_default()));
    Ok(account)
}

fn write(
    plan: &mut Plan,
    account: &mut Account,
    command: &Command,
    partition_id: i16,
    heads: &HashMap<i16, Head>,
    context: Context<'_>,
) -> Result<(), AppError> {
    plan.enter(partition_id, heads)?;
    let mut changes = Changes::default();
    let mut draft = Draft::new(account, &mut changes);
    decide(&mut draft, command, context)?;
    let events = draft.events;
    plan.add_events(partition_id, account, &events, context.now, |_| false)?;
    plan.add_rows(partition_id, account, &changes, context.now)?;
    Ok(())
}
