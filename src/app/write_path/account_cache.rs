//! The accounts a lane keeps in memory.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::domain::account::Account;
use crate::domain::ids::AccountId;
use crate::store::partition::partition_of;

/// Accounts as their last events left them, the least recently used dropped first.
///
/// A whole partition is forgotten at once, and at no cost: its generation passes, and what is of an older generation
/// counts as absent until it is loaded again.
#[derive(Debug)]
pub struct AccountCache {
    accounts: LruCache<AccountId, Cached>,
    generations: Vec<u64>,
}

#[derive(Debug)]
struct Cached {
    generation: u64,
    account: Account,
}

impl AccountCache {
    pub fn new(capacity: NonZeroUsize, partitions: i16) -> Self {
        let partitions = usize::from(partitions.max(1).unsigned_abs());
        Self { accounts: LruCache::new(capacity), generations: vec![0; partitions] }
    }

    /// An account, if it is known; it counts as used.
    pub fn get_mut(&mut self, id: &AccountId) -> Option<&mut Account> {
        let generation = self.generation(id);
        let cached = self.accounts.get_mut(id).filter(|cached| cached.generation == generation)?;
        Some(&mut cached.account)
    }

    /// An account, if it is known.
    pub fn peek(&self, id: &AccountId) -> Option<&Account> {
        let generation = self.generation(id);
        let cached = self.accounts.peek(id).filter(|cached| cached.generation == generation)?;
        Some(&cached.account)
    }

    pub fn put(&mut self, account: Account) {
        let generation = self.generation(&account.id);
        self.accounts.put(account.id.clone(), Cached { generation, account });
    }

    /// Forgets every account of a partition.
    pub fn forget_partition(&mut self, partition_id: i16) {
        if let Some(generation) = self.generations.get_mut(usize::from(partition_id.unsigned_abs())) {
            *generation += 1;
        }
    }

    /// Forgets one account.
    pub fn forget(&mut self, id: &AccountId) {
        self.accounts.pop(id);
    }

    pub fn clear(&mut self) {
        self.accounts.clear();
    }

    fn generation(&self, id: &AccountId) -> u64 {
        let partitions = i16::try_from(self.generations.len()).unwrap_or(i16::MAX);
        let partition_id = partition_of(id.as_str(), partitions);
        self.generations.get(usize::from(partition_id.unsigned_abs())).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: i16 = 4;

    fn account(name: &str) -> Account {
        Account::new(AccountId::new(name).expect("a plain name"))
    }

    #[test]
    fn a_partition_is_forgotten_whole_and_alone() {
        let mut cache = AccountCache::new(NonZeroUsize::new(100).expect("not zero"), PARTITIONS);
        let all: Vec<Account> = (0..20).map(|n| account(&format!("user_{n}"))).collect();
        all.iter().for_each(|account| cache.put(account.clone()));
        cache.forget_partition(2);
        for account in &all {
            let forgotten = partition_of(account.id.as_str(), PARTITIONS) == 2;
            assert_eq!(cache.peek(&account.id).is_none(), forgotten, "{}", account.id);
            assert_eq!(cache.get_mut(&account.id).is_none(), forgotten, "{}", account.id);
        }
        all.iter().for_each(|account| cache.put(account.clone()));
        assert!(all.iter().all(|account| cache.peek(&account.id).is_some()), "loaded anew, they count again");
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = AccountCache::new(NonZeroUsize::new(2).expect("not zero"), PARTITIONS);
        cache.put(account("a"));
        cache.put(account("b"));
        assert!(cache.get_mut(&account("a").id).is_some());
        cache.put(account("c"));
        assert!(cache.peek(&account("b").id).is_none());
        assert!(cache.peek(&account("a").id).is_some());
    }
}
