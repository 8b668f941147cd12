//! Accounts out of the log: the same `evolve` as live, over a stretch of events.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::domain::account::{Account, Changes};
use crate::domain::event::{Event, EventError};
use crate::domain::ids::{AccountId, AccountIdError};
use crate::projection;
use crate::store::scan::Scanned;

/// Why an event cannot follow those before it.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Unreadable(#[from] EventError),
    #[error("the account's next version would be {expected}, not {found}")]
    Gap { expected: i64, found: i64 },
    #[error("the account's event before this one stands at position {expected}, not {found}")]
    Previous { expected: i64, found: i64 },
    #[error("the account id is no account id: {0}")]
    AccountId(#[from] AccountIdError),
}

/// An account, and what the rows need to know beside its state.
#[derive(Debug)]
pub struct Folded {
    pub account: Account,
    pub partition_id: i16,
    /// When the last event happened.
    pub last_at: DateTime<Utc>,
    /// Stripe ids that its events link to it, and since when.
    pub links: BTreeMap<String, DateTime<Utc>>,
    /// What changed since the account was put in.
    pub changes: Changes,
}

impl Folded {
    pub fn new(account: Account, partition_id: i16) -> Self {
        let (links, changes) = (BTreeMap::new(), Changes::default());
        Self { account, partition_id, last_at: DateTime::UNIX_EPOCH, links, changes }
    }

    /// Links that lead here still: those of an account that was taken over have moved with it.
    pub fn standing_links(&self) -> impl Iterator<Item = (&String, &DateTime<Utc>)> {
        self.links.iter().filter(|_| self.account.credits.merged_into.is_none())
    }
}

/// Accounts under way.
#[derive(Debug, Default)]
pub struct Fold {
    accounts: HashMap<Box<str>, Folded>,
}

impl Fold {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an account in as it stands so far.
    pub fn insert(&mut self, account: Account, partition_id: i16) {
        self.accounts.insert(account.id.as_str().into(), Folded::new(account, partition_id));
    }

    /// Applies an event to its account. After an error the fold goes on as if the event had been left out, so that each
    /// defect of a log is told once.
    pub fn take(&mut self, scanned: &Scanned<'_>) -> Result<(), FoldError> {
        // Looked up twice for the first event of an account only: the entry API would copy the id for every event.
        let folded = match self.accounts.get_mut(scanned.account_id) {
            Some(folded) => folded,
            None => {
                let account = Account::new(AccountId::new(scanned.account_id)?);
                let new = Folded::new(account, scanned.partition_id);
                self.accounts.entry(scanned.account_id.into()).or_insert(new)
            }
        };
        folded.take(scanned)
    }

    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The accounts, in no order.
    pub fn into_accounts(self) -> impl ExactSizeIterator<Item = Folded> {
        self.accounts.into_values()
    }
}

impl Folded {
    fn take(&mut self, scanned: &Scanned<'_>) -> Result<(), FoldError> {
        let expected = self.account.version + 1;
        let read = Event::read(scanned.event_type, scanned.type_version, scanned.payload);
        self.last_at = scanned.at();
        match &read {
            Ok(event) => {
                self.account.evolve(event, &mut self.changes);
                for link in projection::links(&self.account.id, scanned.version, event) {
                    self.links.entry(link).or_insert(self.last_at);
                }
            }
            Err(_) => self.account.version += 1,
        }
        let previous = std::mem::replace(&mut self.account.position, scanned.position);
        self.account.version = scanned.version;
        read?;
        if expected != scanned.version {
            return Err(FoldError::Gap { expected, found: scanned.version });
        }
        if previous != scanned.previous_position {
            return Err(FoldError::Previous { expected: previous, found: scanned.previous_position });
        }
        Ok(())
    }
}
