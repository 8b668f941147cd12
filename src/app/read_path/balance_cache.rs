//! What checks need of accounts, in memory, kept current by following the log.
//!
//! **What holds.** An account in the cache shows every event of its own up to its partition's cursor. The follower notes
//! the time, reads where the partitions end, raises every cursor to that, and only then calls the poll successful: so the
//! cache shows all that was committed before that time.
//!
//! **Why it holds.** An account is *watched* from before its row is read until that row is dropped. Whoever learns of an
//! event (the lane that wrote it, once it is durable; the follower, of whatever no lane of this process wrote) tells the
//! cache before the cursor passes the event. Then there are four cases:
//!
//! - The account is in the cache: it is replaced. The lane has the new state in its hands; the follower reads it again.
//!   Never an older version over a newer one: versions are compared under the partition's lock.
//! - Its row is being read: the read is told the version it must show at least, or it is not put in. The row may have been
//!   read before the event was committed, or after; that it may have been put in and dropped again meanwhile makes no
//!   difference, since the read is told, too.
//! - It is neither, and is read later: then the event, committed before, is in what is read.
//! - It was dropped: an absent account is never wrong. Lanes and follower bring nothing in, so nothing old comes back.
//!
//! Lanes tell before their callers are answered, so whoever wrote through this replica reads his own writes here. A merge
//! is events of both accounts. A rebuild swaps tables whose rows are those of the same heads, with all writers stopped, so a
//! row and its version mean the same before and after.
//!
//! A reader takes the time of the poll and the cursor first, and the account after: what it gets is at least as new.

mod bytes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use self::bytes::bytes_of;
use crate::domain::account::Account;
use crate::domain::credit::Credits;
use crate::domain::ids::AccountId;
use crate::store::follow::{Stretch, Touched};
use crate::store::partition::partition_of;

/// What an account takes in memory, roughly: how many the cache makes ready for.
const USUAL_BYTES: usize = 800;
/// An account's hot part, as it is shared by all who read it.
#[derive(Debug)]
pub struct Balance {
    pub credits: Credits,
    pub version: i64,
    /// A position of its partition at which it was current.
    pub position: i64,
    pub partition_id: i16,
    bytes: u32,
}

impl Balance {
    pub fn new(id: &AccountId, version: i64, credits: &Credits, partition_id: i16, position: i64) -> Self {
        // A copy is as large as it must be; lists that were read from JSON, or have grown, have room to spare.
        let credits = credits.clone();
        let bytes = u32::try_from(bytes_of(id, &credits)).unwrap_or(u32::MAX);
        Self { credits, version, position, partition_id, bytes }
    }
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<AccountId, Arc<Balance>> for ByBytes {
    fn weight(&self, _: &AccountId, balance: &Arc<Balance>) -> u64 {
        u64::from(balance.bytes)
    }
}

/// Accounts' hot parts, bounded in bytes, those least used dropped first.
pub struct BalanceCache {
    balances: Cache<AccountId, Arc<Balance>, ByBytes>,
    partitions: Box<[Partition]>,
    born: Instant,
    /// When the last successful poll began, in microseconds since `born`; 0: none did.
    polled_us: AtomicU64,
}

#[derive(Debug, Default)]
struct Partition {
    cursor: AtomicI64,
    watch: Mutex<Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    /// A stretch that lanes of this process wrote and told of: positions after the first, up to the second.
    own: (i64, i64),
    loading: HashMap<AccountId, Loading>,
}

#[derive(Debug, Default)]
struct Loading {
    readers: usize,
    /// What is read must not be older than this.
    least_version: i64,
}

impl std::fmt::Debug for BalanceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BalanceCache").field("accounts", &self.accounts()).field("bytes", &self.bytes()).finish()
    }
}

impl BalanceCache {
    /// A cache of at most so many bytes.
    pub fn new(bytes: usize, partitions: i16) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        let balances = Cache::with_weighter(bytes / USUAL_BYTES, bytes as u64, ByBytes);
        Self { balances, partitions, born: Instant::now(), polled_us: AtomicU64::new(0) }
    }

    /// How many accounts are in memory.
    pub fn accounts(&self) -> usize {
        self.balances.len()
    }

    /// What they take.
    pub fn bytes(&self) -> u64 {
        self.balances.weight()
    }

    /// When the last successful poll began. To be asked before [`get`](Self::get).
    pub fn polled_at(&self) -> Option<Instant> {
        let polled_us = self.polled_us.load(Ordering::Acquire);
        (polled_us > 0).then(|| self.born + Duration::from_micros(polled_us))
    }

    /// An account, if it is in memory, and the position of its partition up to which it is known to be current.
    pub fn get(&self, id: &AccountId) -> Option<(Arc<Balance>, i64)> {
        let cursor = self.partition(self.partition_of(id))?.cursor.load(Ordering::Acquire);
        let balance = self.balances.get(id)?;
        let position = balance.position.max(cursor);
        Some((balance, position))
    }

    fn partition_of(&self, id: &AccountId) -> i16 {
        partition_of(id.as_str(), i16::try_from(self.partitions.len()).unwrap_or(i16::MAX))
    }

    fn partition(&self, partition_id: i16) -> Option<&Partition> {
        self.partitions.get(usize::from(partition_id.unsigned_abs()))
    }

    fn watch(&self, partition_id: i16) -> Option<MutexGuard<'_, Watch>> {
        Some(self.partition(partition_id)?.lock())
    }

    // ---- reading ----

    /// Announces that the rows of these accounts are about to be read.
    pub fn begin_load<'a>(&'a self, ids: &'a [AccountId]) -> Load<'a> {
        for id in ids {
            if let Some(mut watch) = self.watch(self.partition_of(id)) {
                watch.loading.entry(id.clone()).or_default().readers += 1;
            }
        }
        Load { cache: self, ids }
    }

    // ---- writing ----

    /// Takes in what a lane wrote, once it is durable: the accounts that all events of a stretch are about, as they are
    /// now. With one of them missing, the others are taken in, and the stretch is left to the follower.
    pub fn publish<'a>(&self, stretch: Stretch, accounts: impl Iterator<Item = Option<&'a Account>>) {
        let mut is_whole = true;
        for account in accounts {
            match account {
                Some(account) => self.renew(account, stretch.partition_id, stretch.to),
                None => is_whole = false,
            }
        }
        let Some(partition) = self.partition(stretch.partition_id).filter(|_| is_whole) else { return };
        let mut watch = partition.lock();
        let (after, to) = watch.own;
        watch.own = if to == stretch.after { (after, stretch.to) } else { (stretch.after, stretch.to) };
        partition.raise(&watch, 0);
    }

    /// Replaces an account that is in memory by a newer state of it; brings none in.
    pub fn renew(&self, account: &Account, partition_id: i16, position: i64) {
        let Some(mut watch) = self.watch(partition_id) else { return };
        if let Some(loading) = watch.loading.get_mut(&account.id) {
            loading.least_version = loading.least_version.max(account.version);
        }
        if self.balances.peek(&account.id).is_some_and(|known| known.version < account.version) {
            let Account { id, version, credits, .. } = account;
            let balance = Arc::new(Balance::new(id, *version, credits, partition_id, position));
            // If it was dropped this very moment, it is not there: good.
            let _ = self.balances.replace(id.clone(), balance, true);
        }
    }

    // ---- following ----

    /// What the follower has to read to get to these ends.
    pub fn behind(&self, ends: &[(i16, i64)]) -> Vec<Stretch> {
        let stretches = ends.iter().filter_map(|(partition_id, to)| {
            let after = self.partition(*partition_id)?.cursor.load(Ordering::Acquire);
            (after < *to).then_some(Stretch { partition_id: *partition_id, after, to: *to })
        });
        stretches.collect()
    }

    /// Which of the accounts that the follower met are in memory, and older. Reads under way are told.
    pub fn outdated<'a>(&self, touched: &'a [Touched]) -> Vec<&'a Touched> {
        let is_outdated = |touched: &&Touched| {
            let Some(mut watch) = self.watch(touched.partition_id) else { return false };
            if let Some(loading) = watch.loading.get_mut(&touched.id) {
                loading.least_version = loading.least_version.max(touched.version);
            }
            self.balances.peek(&touched.id).is_some_and(|known| known.version < touched.version)
        };
        touched.iter().filter(is_outdated).collect()
    }

    /// Drops an account.
    pub fn forget(&self, id: &AccountId) {
        let _watch = self.watch(self.partition_of(id));
        self.balances.remove(id);
    }

    /// The accounts of these stretches are as new as they say.
    pub fn reached(&self, stretches: &[Stretch]) {
        for stretch in stretches {
            if let Some(partition) = self.partition(stretch.partition_id) {
                partition.raise(&partition.lock(), stretch.to);
            }
        }
    }

    /// Forgets everything, and goes on from these ends.
    pub fn restart(&self, ends: &[(i16, i64)]) {
        // All at once: nobody puts anything in while it is emptied.
        let mut watches: Vec<MutexGuard<'_, Watch>> = self.partitions.iter().map(Partition::lock).collect();
        for loading in watches.iter_mut().flat_map(|watch| watch.loading.values_mut()) {
            loading.least_version = i64::MAX;
        }
        self.balances.clear();
        for (partition_id, to) in ends {
            let at = usize::from(partition_id.unsigned_abs());
            if let (Some(partition), Some(watch)) = (self.partitions.get(at), watches.get(at)) {
                partition.raise(watch, *to);
            }
        }
    }

    /// A poll that began then has been successful.
    pub fn polled(&self, began: Instant) {
        let polled_us = began.saturating_duration_since(self.born).as_micros();
        self.polled_us.store(u64::try_from(polled_us).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }
}

impl Partition {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the cursor, over what lanes of this process wrote from there on, too.
    fn raise(&self, watch: &Watch, to: i64) {
        let (own_after, own_to) = watch.own;
        let mut cursor = self.cursor.load(Ordering::Acquire).max(to);
        if own_after <= cursor {
            cursor = cursor.max(own_to);
        }
        self.cursor.store(cursor, Ordering::Release);
    }
}

/// Rows that are being read.
#[derive(Debug)]
pub struct Load<'a> {
    cache: &'a BalanceCache,
    ids: &'a [AccountId],
}

impl Load<'_> {
    /// Puts in what was read, unless something newer is known to exist.
    pub fn keep(&self, id: &AccountId, balance: &Arc<Balance>) {
        let Some(watch) = self.cache.watch(balance.partition_id) else { return };
        let is_old = watch.loading.get(id).is_none_or(|loading| balance.version < loading.least_version);
        let is_known = || self.cache.balances.peek(id).is_some_and(|known| known.version >= balance.version);
        if !is_old && !is_known() {
            self.cache.balances.insert(id.clone(), Arc::clone(balance));
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        for id in self.ids {
            let Some(mut watch) = self.cache.watch(self.cache.partition_of(id)) else { continue };
            if let Some(loading) = watch.loading.get_mut(id) {
                loading.readers -= 1;
                if loading.readers == 0 {
                    watch.loading.remove(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
