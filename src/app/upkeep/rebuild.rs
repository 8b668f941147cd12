//! Rebuilding: the read models made anew from the log, beside the live ones, and put in their place while the service
//! goes on reading and writing.
//!
//! Whole partitions are folded first, as of one snapshot. What was written meanwhile is caught up with, round by round.
//! The last round happens with all writers waiting, for as long as a few thousand events take; then the tables swap.
//!
//! Services keep accounts in memory. If their rows had been damaged, restart them after a rebuild.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::verify::{Progress, groups};
use crate::app::fold::{Fold, FoldError, Folded};
use crate::projection;
use crate::store::append::{self, Batch};
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::fill::{self, Claim};
use crate::store::load;
use crate::store::log::{self, StoredEvent};
use crate::store::scan::{Scan, Scanned};
use crate::store::shadow::Shadow;
use crate::store::snapshot::Snapshot;

/// Partitions folded at a time.
const FOLDERS: usize = 2;
/// Events whose accounts a folder keeps in memory, unless a single partition holds more.
const FOLDED_AT_ONCE: i64 = 500_000;
/// Groups of partitions up to which each may read the whole log.
const MAX_WHOLE_SCANS: usize = 16;
/// Events that are caught up with at once, and accounts that are written at once.
const CHUNK: usize = 2_000;
/// So many new events may be left for the time when writers wait.
const FEW: u64 = 2_000;
/// Rounds of catching up before the writers are made to wait anyway.
const MAX_ROUNDS: usize = 20;
/// Tries to find a moment without long reads.
const MAX_SWAPS: u32 = 200;
/// Events between two reports of progress.
const PROGRESS_EVERY: u64 = 50_000;

/// What a rebuild did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rebuilt {
    /// Events folded, those that were caught up with too.
    pub events: u64,
    pub accounts: u64,
    /// Events written while the rebuild was under way.
    pub caught_up: u64,
    /// How often a long read made the swap try again.
    pub swap_retries: u32,
    /// How long writers waited, and at the end of it readers.
    pub writers_waited_ms: u64,
    pub readers_waited_ms: u64,
    /// Until all partitions were folded and their rows written.
    pub fold_seconds: f64,
    pub seconds: f64,
}

/// Rebuilds all read models of a ledger. On an error they stay as they were.
pub async fn rebuild(database: &Database, progress: Progress) -> Result<Rebuilt, StoreError> {
    let started = Instant::now();
    let shadow = Shadow::create(database).await?;
    let rebuilt = build(database, &shadow, progress).await;
    if rebuilt.is_err()
        && let Err(left) = shadow.discard().await
    {
        tracing::warn!(error = %left, "tables of a failed rebuild were left behind; the next one removes them");
    }
    shadow.finish().await;
    Ok(Rebuilt { seconds: started.elapsed().as_secs_f64(), ..rebuilt? })
}

async fn build(database: &Database, shadow: &Shadow, progress: Progress) -> Result<Rebuilt, StoreError> {
    let started = Instant::now();
    let (mut rebuilt, ends) = fold_partitions(database, shadow, progress).await?;
    rebuilt.fold_seconds = started.elapsed().as_secs_f64();
    shadow.complete().await?;

    let mut writer = shadow.writer(database).await?;
    let reader = database.connect().await?;
    let statement = append::prepare(&writer).await?;
    let mut tail = Tail { ends, reader, statement };
    loop {
        for _ in 0..MAX_ROUNDS {
            if tail.catch_up(&writer).await? < FEW {
                break;
            }
        }
        let before = tail.ends.clone();
        let waiting = Instant::now();
        match swap(shadow, &mut writer, &mut tail).await {
            Ok(readers_waited) => {
                rebuilt.writers_waited_ms = millis(waiting.elapsed());
                rebuilt.readers_waited_ms = millis(readers_waited);
                break;
            }
            // Somebody reads for long: a backup, a verification.
            Err(error) if error.is_transient() && rebuilt.swap_retries < MAX_SWAPS && !writer.is_closed() => {
                tracing::debug!(%error, "the read models are in use; trying again");
                tail.ends = before;
                rebuilt.swap_retries += 1;
                tokio::time::sleep(Duration::from_millis(50 << rebuilt.swap_retries.min(5))).await;
            }
            Err(error) => return Err(error),
        }
    }
    let events: i64 = tail.ends.iter().map(|(_, position)| position).sum();
    rebuilt.caught_up = events.unsigned_abs().saturating_sub(rebuilt.events);
    rebuilt.events += rebuilt.caught_up;
    Ok(rebuilt)
}

/// The last of the log and the swap, in one transaction. Answers how long readers may have waited.
async fn swap(shadow: &Shadow, writer: &mut Client, tail: &mut Tail) -> Result<Duration, StoreError> {
    let tx = writer.transaction().await?;
    shadow.stop_writers(&tx).await?;
    tail.catch_up(tx.client()).await?;
    let started = Instant::now();
    shadow.swap(&tx).await?;
    tx.commit().await?;
    Ok(started.elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the folders share.
struct Shared {
    /// With many groups, reading the whole table for each would cost more than reading in order.
    reads_in_order: bool,
    groups: Mutex<VecDeque<(i16, i16)>>,
    heads: HashMap<i16, i64>,
    progress: Progress,
    read: AtomicU64,
    total: u64,
}

/// Folds all partitions as of one snapshot. Answers where each ended.
async fn fold_partitions(
    database: &Database,
    shadow: &Shadow,
    progress: Progress,
) -> Result<(Rebuilt, Vec<(i16, i64)>), StoreError> {
    let snapshot = Snapshot::take(database).await?;
    let ends = log::positions(snapshot.client()).await?;
    let groups = groups(&ends, FOLDERS, FOLDED_AT_ONCE);
    let shared = Arc::new(Shared {
        reads_in_order: groups.len() > MAX_WHOLE_SCANS,
        groups: Mutex::new(groups.into()),
        heads: ends.iter().copied().collect(),
        progress,
        read: AtomicU64::new(0),
        total: ends.iter().map(|(_, position)| position.unsigned_abs()).sum(),
    });
    let mut folders = tokio::task::JoinSet::new();
    for _ in 0..FOLDERS {
        let folder =
            Folder { reader: snapshot.reader(database).await?, writer: shadow.filler(database).await?, accounts: 0 };
        folders.spawn(folder.run(Arc::clone(&shared)));
    }
    let mut rebuilt = Rebuilt::default();
    while let Some(folder) = folders.join_next().await {
        let folder = folder.map_err(|error| StoreError::Corrupt(format!("a folder ended badly: {error}")))?;
        rebuilt.accounts += folder?;
    }
    rebuilt.events = shared.read.load(Ordering::Relaxed);
    if rebuilt.events != shared.total {
        return Err(damaged(format!("{} events, but heads say {}", rebuilt.events, shared.total)));
    }
    snapshot.release().await?;
    Ok((rebuilt, ends))
}

/// Folds partitions, one after the other.
struct Folder {
    reader: Client,
    writer: Client,
    accounts: u64,
}

impl Folder {
    async fn run(mut self, shared: Arc<Shared>) -> Result<u64, StoreError> {
        loop {
            let group = shared.groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((first, last)) = group else { return Ok(self.accounts) };
            self.fold_group(first, last, &shared).await?;
        }
    }

    async fn fold_group(&mut self, first: i16, last: i16, shared: &Shared) -> Result<(), StoreError> {
        let mut scan = match shared.reads_in_order {
            true => Scan::of_partitions(&self.reader, first, last, false).await?,
            false => Scan::as_stored(&self.reader, first, last).await?,
        };
        let mut line = Line::default();
        let (mut partition_id, mut unreported) = (first, 0);
        while let Some(scanned) = scan.next().await? {
            // In order, a partition is complete when the next one begins, and need not be kept.
            if shared.reads_in_order && scanned.partition_id != partition_id {
                write(&self.writer, std::mem::take(&mut line.fold), &mut self.accounts).await?;
                partition_id = scanned.partition_id;
            }
            line.take(&scanned)?;
            unreported += 1;
            if unreported == PROGRESS_EVERY {
                let read = shared.read.fetch_add(unreported, Ordering::Relaxed) + unreported;
                (shared.progress)(read, shared.total);
                unreported = 0;
            }
        }
        shared.read.fetch_add(unreported, Ordering::Relaxed);
        for partition_id in first..=last {
            line.check_end(partition_id, shared)?;
        }
        write(&self.writer, line.fold, &mut self.accounts).await
    }
}

/// Events put in line: folded when their turn has come, kept until then when they come too early.
#[derive(Default)]
struct Line {
    fold: Fold,
    /// Position of the last event folded, by partition.
    positions: HashMap<i16, i64>,
    early: BTreeMap<(i16, i64), StoredEvent>,
}

impl Line {
    fn take(&mut self, scanned: &Scanned<'_>) -> Result<(), StoreError> {
        let position = self.positions.entry(scanned.partition_id).or_default();
        if scanned.position > *position + 1 {
            self.early.insert((scanned.partition_id, scanned.position), scanned.to_stored());
            return Ok(());
        }
        follows(scanned, *position)?;
        self.fold.take(scanned).map_err(|error| unfoldable(scanned, &error))?;
        *position += 1;
        while let Some(stored) = self.early.remove(&(scanned.partition_id, *position + 1)) {
            let next = Scanned::from(&stored);
            self.fold.take(&next).map_err(|error| unfoldable(&next, &error))?;
            *position += 1;
        }
        Ok(())
    }

    /// The partition ends where its head says, and nothing of it is missing on the way.
    fn check_end(&self, partition_id: i16, shared: &Shared) -> Result<(), StoreError> {
        let position = self.positions.get(&partition_id).copied().unwrap_or(0);
        if let Some((_, stored)) = self.early.range((partition_id, 0)..=(partition_id, i64::MAX)).next() {
            follows(&Scanned::from(stored), position)?;
        }
        check_end(partition_id, position, shared)
    }
}

/// Writes all rows of some accounts that have none yet.
async fn write(writer: &Client, fold: Fold, accounts: &mut u64) -> Result<(), StoreError> {
    *accounts += fold.len() as u64;
    let mut folded = fold.into_accounts();
    while folded.len() > 0 {
        let (mut balances, mut objects, mut claims) = (Vec::with_capacity(CHUNK), Vec::new(), Vec::new());
        for folded in folded.by_ref().take(CHUNK) {
            let partition_id = folded.partition_id;
            balances.push((partition_id, projection::balance_row(&folded.account, folded.last_at)?));
            objects.extend(
                projection::all_object_rows(&folded.account, &folded.changes)?
                    .into_iter()
                    .map(|row| (partition_id, row)),
            );
            claims.extend(claims_of(&folded));
        }
        fill::copy_balances(writer, &balances).await?;
        if !objects.is_empty() {
            fill::copy_objects(writer, &objects).await?;
        }
        if !claims.is_empty() {
            fill::copy_claims(writer, &claims).await?;
        }
    }
    Ok(())
}

fn claims_of(folded: &Folded) -> impl Iterator<Item = Claim> + '_ {
    folded.standing_links().map(|(stripe_id, at)| Claim {
        stripe_id: stripe_id.clone(),
        account_id: folded.account.id.as_str().to_owned(),
        partition_id: folded.partition_id,
        at: *at,
    })
}

/// What is written to the log while a rebuild is under way.
struct Tail {
    /// Position in each partition up to which the new tables are.
    ends: Vec<(i16, i64)>,
    reader: Client,
    /// The live append: it writes these rows as it writes all others.
    statement: Statement,
}

impl Tail {
    /// Brings the new tables up to the log as it is now. Answers how many events that took.
    async fn catch_up(&mut self, writer: &Client) -> Result<u64, StoreError> {
        let mut scan = Scan::of_tails(&self.reader, &self.ends).await?;
        let mut ends: HashMap<i16, i64> = self.ends.iter().copied().collect();
        let mut chunk: Vec<StoredEvent> = Vec::new();
        let mut events = 0;
        while let Some(scanned) = scan.next().await? {
            let end = ends.entry(scanned.partition_id).or_default();
            follows(&scanned, *end)?;
            *end = scanned.position;
            events += 1;
            chunk.push(scanned.to_stored());
            if chunk.len() == CHUNK {
                apply(writer, &self.statement, &chunk).await?;
                chunk.clear();
            }
        }
        apply(writer, &self.statement, &chunk).await?;
        if events > 0 {
            fill::settle_claims(writer).await?;
        }
        self.ends = ends.into_iter().collect();
        Ok(events)
    }
}

/// Applies events to accounts that may have rows already.
async fn apply(writer: &Client, statement: &Statement, events: &[StoredEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut fold = Fold::new();
    let ids: HashSet<&str> = events.iter().map(|event| event.account_id.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let partitions: HashMap<&str, i16> =
        events.iter().map(|event| (event.account_id.as_str(), event.partition_id)).collect();
    let mut billings = load::billings(writer, &ids).await?;
    for mut account in load::accounts(writer, load::ACCOUNTS, &ids).await? {
        account.billing = Some(Box::new(billings.remove(&account.id).unwrap_or_default()));
        let partition_id = partitions.get(account.id.as_str()).copied().unwrap_or_default();
        fold.insert(account, partition_id);
    }
    for event in events {
        let scanned = Scanned::from(event);
        fold.take(&scanned).map_err(|error| unfoldable(&scanned, &error))?;
    }
    let mut batch = Batch::new(Uuid::nil(), i64::MAX);
    let mut claims = Vec::new();
    for folded in fold.into_accounts() {
        batch.push_balance(folded.partition_id, projection::balance_row(&folded.account, folded.last_at)?);
        for row in projection::object_rows(&folded.account, &folded.changes)? {
            batch.push_object(folded.partition_id, row);
        }
        claims.extend(claims_of(&folded));
    }
    append::append(writer, statement, &batch).await?;
    if !claims.is_empty() {
        fill::copy_claims(writer, &claims).await?;
    }
    Ok(())
}

fn follows(scanned: &Scanned<'_>, position: i64) -> Result<(), StoreError> {
    if scanned.position == position + 1 {
        return Ok(());
    }
    Err(damaged(format!("in partition {} position {} follows {position}", scanned.partition_id, scanned.position)))
}

fn check_end(partition_id: i16, position: i64, shared: &Shared) -> Result<(), StoreError> {
    match shared.heads.get(&partition_id) {
        Some(head) if *head == position => Ok(()),
        head => Err(damaged(format!("partition {partition_id} ends at {position}, its head says {head:?}"))),
    }
}

fn unfoldable(scanned: &Scanned<'_>, error: &FoldError) -> StoreError {
    let (partition_id, position, account) = (scanned.partition_id, scanned.position, scanned.account_id);
    damaged(format!("partition {partition_id} position {position} (account {account}): {error}"))
}

/// Nothing is rebuilt from a log that is not whole.
fn damaged(what: String) -> StoreError {
    StoreError::Corrupt(format!("the log is damaged, verify says more: {what}"))
}
