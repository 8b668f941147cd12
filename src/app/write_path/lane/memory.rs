//! What a lane has in memory of the partitions it writes to: where they end, and their accounts.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;

use crate::app::write_path::account_cache::AccountCache;
use crate::app::write_path::work::Work;
use crate::app::write_path::writer::Writer;
use crate::domain::account::{Account, Changes};
use crate::domain::event::Event;
use crate::domain::ids::AccountId;
use crate::store::error::StoreError;
use crate::store::follow::Stretch;
use crate::store::load::{self, Head};
use crate::store::log::StoredEvent;
use crate::store::partition::partition_of;

/// Heads and accounts, as the last events left them: those of this lane, and those of others that it has caught up with.
/// Whatever is not current is not in it.
#[derive(Debug)]
pub struct LaneMemory {
    pub heads: HashMap<i16, Head>,
    pub accounts: AccountCache,
    partitions: i16,
}

/// What others wrote to a partition, and whom it was about.
#[derive(Debug)]
pub struct CaughtUp {
    pub stretch: Stretch,
    pub accounts: Vec<AccountId>,
}

impl LaneMemory {
    /// An empty memory of at most so many accounts, on a ledger of so many partitions.
    pub fn new(accounts: NonZeroUsize, partitions: i16) -> Self {
        Self { heads: HashMap::new(), accounts: AccountCache::new(accounts, partitions), partitions }
    }

    pub fn clear(&mut self) {
        self.heads.clear();
        self.accounts.clear();
    }

    /// Drops the partitions of these commands: the store knows better.
    pub fn forget(&mut self, batch: &[Work]) {
        for partition_id in self.partitions(batch) {
            self.forget_partition(partition_id);
        }
    }

    fn forget_partition(&mut self, partition_id: i16) {
        self.accounts.forget_partition(partition_id);
        self.heads.remove(&partition_id);
    }

    /// The partitions of some commands, ascending.
    pub fn partitions(&self, batch: &[Work]) -> Vec<i16> {
        let mut partitions: Vec<i16> = batch.iter().map(|work| self.partition(&work.account)).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    pub fn partition(&self, account: &AccountId) -> i16 {
        partition_of(account.as_str(), self.partitions)
    }

    /// Takes in what others wrote to partitions since they were seen last: their heads as they are, and the events after
    /// those that are known. A partition whose events are not all there is forgotten.
    pub fn catch_up(&mut self, heads: &HashMap<i16, Head>, events: &[StoredEvent]) -> Vec<CaughtUp> {
        let mut written: BTreeMap<i16, Vec<&StoredEvent>> = BTreeMap::new();
        for event in events {
            written.entry(event.partition_id).or_default().push(event);
        }
        let mut caught_up = Vec::new();
        for (partition_id, head) in heads {
            let Some(known) = self.heads.insert(*partition_id, *head) else {
                self.accounts.forget_partition(*partition_id);
                continue;
            };
            if known == *head {
                continue;
            }
            let events = written.remove(partition_id).unwrap_or_default();
            let follows = |(event, position): (&&StoredEvent, i64)| event.position == position;
            let is_whole = events.iter().zip(known.position + 1..).all(follows)
                && events.last().is_some_and(|last| last.position == head.position);
            if !is_whole {
                self.accounts.forget_partition(*partition_id);
                continue;
            }
            let mut accounts: Vec<AccountId> = Vec::new();
            for event in events {
                let Ok(id) = AccountId::new(&event.account_id) else { continue };
                self.take(&id, event);
                accounts.push(id);
            }
            accounts.sort_unstable();
            accounts.dedup();
            let stretch = Stretch { partition_id: *partition_id, after: known.position, to: head.position };
            caught_up.push(CaughtUp { stretch, accounts });
        }
        caught_up
    }

    /// Brings an account past an event of its own, or drops it.
    fn take(&mut self, id: &AccountId, event: &StoredEvent) {
        let Some(account) = self.accounts.get_mut(id) else { return };
        let follows = account.version + 1 == event.version;
        match event.event().ok().filter(|read| follows && is_hot(read)) {
            Some(read) => {
                // Read when it was needed, it may show the event already. It is read again when it is needed.
                account.billing = None;
                account.evolve(&read, &mut Changes::default());
                account.position = event.position;
            }
            // It is read again when it is needed.
            None => self.accounts.forget(id),
        }
    }

    /// Brings the heads and accounts that the batch needs into memory, in one round trip.
    pub async fn load(&mut self, writer: &Writer, batch: &[Work]) -> Result<(), StoreError> {
        let (client, statement) = (writer.client()?, writer.accounts()?);
        let mut partitions = self.partitions(batch);
        partitions.retain(|partition| !self.heads.contains_key(partition));

        let mut cold: Vec<&AccountId> = Vec::new();
        let mut cold_billing: Vec<&AccountId> = Vec::new();
        for work in batch {
            let Some(command) = &work.command else { continue };
            // Used now, it is not the one that makes room for the others.
            let cached = self.accounts.get_mut(&work.account);
            if cached.is_none() {
                cold.push(&work.account);
            }
            if command.needs_billing() && cached.is_none_or(|account| account.billing.is_none()) {
                cold_billing.push(&work.account);
            }
        }
        for list in [&mut cold, &mut cold_billing] {
            list.sort_unstable();
            list.dedup();
        }
        let cold_ids: Vec<&str> = cold.iter().map(|id| id.as_str()).collect();
        let billing_ids: Vec<&str> = cold_billing.iter().map(|id| id.as_str()).collect();
        // Sent together, in this order. The heads are read first, so whatever is read of accounts is at least as new: if
        // it is newer, the head has moved and the append will be refused.
        let (heads, accounts, billings) = tokio::try_join!(
            biased;
            async { if partitions.is_empty() { Ok(HashMap::new()) } else { load::heads(client, &partitions).await } },
            async { if cold_ids.is_empty() { Ok(Vec::new()) } else { load::accounts(client, statement, &cold_ids).await } },
            async {
                if billing_ids.is_empty() { Ok(HashMap::new()) } else { load::billings(client, &billing_ids).await }
            },
        )?;
        self.heads.extend(heads);
        for id in cold {
            self.accounts.put(Account { billing: None, ..Account::new(id.clone()) });
        }
        for account in accounts {
            self.accounts.put(account);
        }
        let mut billings = billings;
        for id in cold_billing {
            if let Some(account) = self.accounts.get_mut(id) {
                account.billing = Some(Box::new(billings.remove(id).unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// Whether all that the event changes of an account's hot part is told by the event and the hot part.
fn is_hot(event: &Event) -> bool {
    matches!(
        event,
        Event::CreditsDebited(_)
            | Event::DebtRepaid(_)
            | Event::HoldPlaced(_)
            | Event::HoldExtended(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::HoldExpired(_)
            | Event::ChargeRejected(_)
            | Event::UsageRecorded(_)
    )
}

#[cfg(test)]
mod tests;
