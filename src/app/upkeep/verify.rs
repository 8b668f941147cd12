//! Verifying: from the log alone, is everything as it must be?
//!
//! Checks the log against itself (the hash chain of every partition and its head, gapless positions, gapless versions
//! of every account), and every row of the read models against a fold of the log. It reads one snapshot, so the service
//! may go on writing.
//!
//! What it can't see without help from outside: somebody who may write every table can cut the end off the log, or write
//! it anew, together with its heads, keys and rows. Anchors of an earlier report, kept elsewhere, show that.

mod chain;
mod report;
mod tables;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio_postgres::Client;

use chain::Chain;
use report::Findings;
pub use report::{Anchor, DEFAULT_LISTED, Difference, Report};
use tables::Counts;

use crate::app::fold::{Fold, FoldError};
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::load::{self, Head};
use crate::store::scan::{Scan, Scanned};
use crate::store::snapshot::Snapshot;
use crate::store::{log, rows};

/// Readers at a time.
const READERS: usize = 2;
/// Events of the partitions that are folded together: what bounds the memory of a reader, unless a single partition
/// holds more.
pub(super) const GROUP_EVENTS: i64 = 1_000_000;
/// Events between two reports of progress.
pub(super) const PROGRESS_EVERY: u64 = 50_000;

/// Told how many events of how many have been read.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to verify.
#[derive(Clone)]
pub struct VerifyOptions {
    /// From an earlier report: the log must still go through them.
    pub anchors: Vec<Anchor>,
    /// Differences to list; all are counted.
    pub listed: usize,
    pub progress: Progress,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { anchors: Vec::new(), listed: DEFAULT_LISTED, progress: Arc::new(|_, _| {}) }
    }
}

impl std::fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyOptions").field("anchors", &self.anchors).field("listed", &self.listed).finish()
    }
}

/// Verifies a ledger. Differences are in the report; an error means that it could not be read.
pub async fn verify(database: &Database, options: &VerifyOptions) -> Result<Report, StoreError> {
    let started = Instant::now();
    let snapshot = Snapshot::take(database).await?;
    let ledger = log::partitions(snapshot.client()).await?;
    let known = log::positions(snapshot.client()).await?;
    let partitions: Vec<i16> = known.iter().map(|(partition_id, _)| *partition_id).collect();
    let heads = load::heads(snapshot.client(), &partitions).await?;
    let position_of = |partition_id| heads.get(&partition_id).map_or(0, |head: &Head| head.position);
    let positions: Vec<(i16, i64)> =
        (0..ledger).map(|partition_id| (partition_id, position_of(partition_id))).collect();
    let total = positions.iter().map(|(_, position)| position.unsigned_abs()).sum();
    let shared = Arc::new(Shared {
        groups: Mutex::new(groups(&positions, READERS, GROUP_EVENTS).into()),
        heads,
        partitions: ledger,
        options: options.clone(),
        read: AtomicU64::new(0),
        total,
    });
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let client = snapshot.reader(database).await?;
        readers.spawn(read_groups(client, Arc::clone(&shared)));
    }
    let mut verified = Verified::new(options.listed);
    while let Some(reader) = readers.join_next().await {
        let reader = reader.map_err(|error| StoreError::Corrupt(format!("a reader ended badly: {error}")))?;
        verified.extend(reader?);
    }
    let Verified { mut findings, events, counts, mut anchors } = verified;
    anchors.sort_unstable_by_key(|anchor| anchor.partition_id);
    for partition_id in rows::partitions_beyond(snapshot.client(), ledger).await? {
        findings.push(
            Difference::new("events", "partition_id", format!("below {ledger}"), partition_id).at(partition_id, 1),
        );
    }
    for partition_id in partitions.iter().filter(|partition_id| !(0..ledger).contains(*partition_id)) {
        findings.push(Difference::new("heads", "row", "absent", "present").at(*partition_id, 0));
    }
    check_keys(&rows::furthest_keys(snapshot.client()).await?, &anchors, &mut findings);
    tables::find_strays(snapshot.client(), &mut findings).await?;
    snapshot.release().await?;
    (options.progress)(events, total);
    Ok(Report {
        events,
        accounts: counts.accounts,
        billing_objects: counts.billing_objects,
        stripe_links: counts.stripe_links,
        anchors,
        differences: findings.count,
        listed: findings.listed,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Cuts the partitions into runs that together hold so many events at most, and at least one run for each reader.
pub(super) fn groups(positions: &[(i16, i64)], readers: usize, max_events: i64) -> Vec<(i16, i16)> {
    let total: i64 = positions.iter().map(|(_, position)| position).sum();
    let share = (total / i64::try_from(readers).unwrap_or(1).max(1)).clamp(1, max_events);
    let mut groups: Vec<(i16, i16)> = Vec::new();
    let mut events = share;
    for (partition_id, position) in positions {
        match groups.last_mut() {
            Some(last) if events < share => last.1 = *partition_id,
            _ => {
                groups.push((*partition_id, *partition_id));
                events = 0;
            }
        }
        events += position;
    }
    groups
}

/// What the readers share.
struct Shared {
    groups: Mutex<VecDeque<(i16, i16)>>,
    heads: HashMap<i16, Head>,
    partitions: i16,
    options: VerifyOptions,
    read: AtomicU64,
    total: u64,
}

/// What a reader found.
struct Verified {
    findings: Findings,
    events: u64,
    counts: Counts,
    anchors: Vec<Anchor>,
}

impl Verified {
    fn new(listed: usize) -> Self {
        Self { findings: Findings::new(listed), events: 0, counts: Counts::default(), anchors: Vec::new() }
    }

    fn extend(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.events += other.events;
        self.counts.accounts += other.counts.accounts;
        self.counts.billing_objects += other.counts.billing_objects;
        self.counts.stripe_links += other.counts.stripe_links;
        self.anchors.extend(other.anchors);
    }
}

async fn read_groups(client: Client, shared: Arc<Shared>) -> Result<Verified, StoreError> {
    let mut verified = Verified::new(shared.options.listed);
    loop {
        let group = shared.groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((first, last)) = group else { return Ok(verified) };
        read_group(&client, first, last, &shared, &mut verified).await?;
    }
}

async fn read_group(
    client: &Client,
    first: i16,
    last: i16,
    shared: &Shared,
    verified: &mut Verified,
) -> Result<(), StoreError> {
    let anchors = &shared.options.anchors;
    let mut chains = (first..=last).map(|partition_id| Chain::new(partition_id, shared.partitions, anchors));
    let mut chain = chains.next();
    let mut fold = Fold::new();
    let mut scan = Scan::of_partitions(client, first, last, true).await?;
    let mut unreported = 0;
    while let Some(scanned) = scan.next().await? {
        while let Some(done) = chain.take_if(|chain| chain.partition_id() < scanned.partition_id) {
            finish_chain(done, shared, verified);
            chain = chains.next();
        }
        if let Some(chain) = &mut chain {
            chain.take(&scanned, &mut verified.findings);
        }
        if let Err(error) = fold.take(&scanned) {
            verified.findings.push(fold_difference(&scanned, &error));
        }
        verified.events += 1;
        unreported += 1;
        if unreported == PROGRESS_EVERY {
            let read = shared.read.fetch_add(unreported, Ordering::Relaxed) + unreported;
            (shared.options.progress)(read, shared.total);
            unreported = 0;
        }
    }
    shared.read.fetch_add(unreported, Ordering::Relaxed);
    for chain in chain.into_iter().chain(chains) {
        finish_chain(chain, shared, verified);
    }
    tables::compare(client, fold, &mut verified.counts, &mut verified.findings).await
}

fn finish_chain(chain: Chain, shared: &Shared, verified: &mut Verified) {
    let head = shared.heads.get(&chain.partition_id());
    verified.anchors.push(chain.finish(head, &mut verified.findings));
}

fn fold_difference(scanned: &Scanned<'_>, error: &FoldError) -> Difference {
    let difference = match error {
        FoldError::Gap { expected, found } => Difference::new("events", "version", expected, found),
        FoldError::Previous { expected, found } => Difference::new("events", "previous_position", expected, found),
        FoldError::Unreadable(error) => Difference::new("events", "payload", "readable", error),
        FoldError::AccountId(error) => Difference::new("events", "account_id", "an account id", error),
    };
    difference.at(scanned.partition_id, scanned.position).of_account(scanned.account_id)
}

/// No answered key points past the end of its partition: that is the trace of a log that was cut short.
fn check_keys(furthest: &HashMap<i16, i64>, anchors: &[Anchor], findings: &mut Findings) {
    for anchor in anchors {
        let Some(position) = furthest.get(&anchor.partition_id).filter(|position| **position > anchor.position) else {
            continue;
        };
        let expected = format!("at most {}, the last event's", anchor.position);
        let difference = Difference::new("idempotency", "position", expected, position);
        findings.push(difference.at(anchor.partition_id, anchor.position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_all_partitions_once() {
        let positions: Vec<(i16, i64)> = (0..64).map(|partition_id| (partition_id, 100)).collect();
        assert_eq!(groups(&positions, 2, 1_000_000), [(0, 31), (32, 63)]);
        assert_eq!(groups(&positions, 2, 250).len(), 22);
        assert_eq!(groups(&[(0, 10)], 2, 5), [(0, 0)]);
        assert_eq!(groups(&[(0, 0), (1, 0)], 2, 5), [(0, 1)]);
        assert_eq!(groups(&[], 2, 5), []);
    }
}
