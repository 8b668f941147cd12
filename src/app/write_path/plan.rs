//! A batch in the making: decided events get their places in the log, changed accounts their rows.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::account::{Account, Changes};
use crate::domain::event::{EVENT_VERSION, Event};
use crate::domain::ids::AccountId;
use crate::projection;
use crate::store::append::{Batch, EventRow};
use crate::store::chain::{self, Link};
use crate::store::error::StoreError;
use crate::store::follow::Stretch;
use crate::store::load::Head;

/// What one append will write.
#[derive(Debug)]
pub struct Plan {
    pub batch: Batch,
    /// Each partition's head: as it was read, and as it will be.
    heads: BTreeMap<i16, (Head, Head)>,
}

impl Plan {
    /// Plans an append to partitions whose heads are as read, decided under the catalog at a position, and void once there
    /// is a later one.
    pub fn new(catalog_position: i64) -> Self {
        Self { batch: Batch::new(Uuid::new_v4(), catalog_position), heads: BTreeMap::new() }
    }

    /// Takes a partition in, so that the append checks its head. Answers the head as it will be.
    pub fn enter(&mut self, partition_id: i16, known: &HashMap<i16, Head>) -> Result<Head, StoreError> {
        if let Some((_, after)) = self.heads.get(&partition_id) {
            return Ok(*after);
        }
        let no_head = || StoreError::Corrupt(format!("partition {partition_id} has no head"));
        let head = *known.get(&partition_id).ok_or_else(no_head)?;
        self.heads.insert(partition_id, (head, head));
        Ok(head)
    }

    /// Whether the append will check a partition's head.
    pub fn has_entered(&self, partition_id: i16) -> bool {
        self.heads.contains_key(&partition_id)
    }

    /// Puts the events that an account has just gone through at the end of its partition, which was entered. Stripe ids
    /// that are linked to the account already need no link. Answers the last position.
    pub fn add_events(
        &mut self,
        partition_id: i16,
        account: &mut Account,
        events: &[Event],
        at: DateTime<Utc>,
        is_linked: impl Fn(&str) -> bool,
    ) -> Result<i64, StoreError> {
        let no_head = || StoreError::Corrupt(format!("partition {partition_id} was not entered"));
        let (_, end) = self.heads.get_mut(&partition_id).ok_or_else(no_head)?;
        let Account { id, version, position, .. } = account;
        let first = *version - i64::try_from(events.len()).unwrap_or(i64::MAX) + 1;
        for (event, version) in events.iter().zip(first..) {
            let row = place(event, id, version, *position, partition_id, *end, at)?;
            *end = Head { position: row.position, hash: row.hash };
            *position = row.position;
            self.batch.push_event(row);
            for link in projection::links(id, version, event).iter().filter(|link| !is_linked(link)) {
                self.batch.push_link(partition_id, link, id.as_str(), None);
            }
        }
        Ok(end.position)
    }

    /// Writes an account's rows as they are after its events.
    pub fn add_rows(
        &mut self,
        partition_id: i16,
        account: &Account,
        changes: &Changes,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if account.is_unknown() {
            return Ok(());
        }
        self.batch.push_balance(partition_id, projection::balance_row(account, now)?);
        for row in projection::object_rows(account, changes)? {
            self.batch.push_object(partition_id, row);
        }
        Ok(())
    }

    /// Closes the plan: from here on only the append is missing.
    pub fn seal(&mut self) {
        for (partition_id, (before, after)) in &self.heads {
            self.batch.push_head(*partition_id, before.position, after.position, &after.hash);
        }
    }

    /// What the batch writes of each partition.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> + '_ {
        self.heads.iter().map(|(partition_id, (before, after))| Stretch {
            partition_id: *partition_id,
            after: before.position,
            to: after.position,
        })
    }

    /// The heads as they will be once the batch is appended.
    pub fn heads_after(&self) -> impl Iterator<Item = (i16, Head)> + '_ {
        self.heads.iter().map(|(partition_id, (_, after))| (*partition_id, *after))
    }
}

/// Gives an event its place after the end of a partition.
fn place(
    event: &Event,
    account: &AccountId,
    version: i64,
    previous_position: i64,
    partition_id: i16,
    end: Head,
    at: DateTime<Utc>,
) -> Result<EventRow, StoreError> {
    let payload = event.payload()?;
    let position = end.position + 1;
    let link = Link {
        partition_id,
        position,
        account_id: account.as_str(),
        version,
        previous_position,
        event_type: event.name(),
        type_version: EVENT_VERSION,
        at_us: at.timestamp_micros(),
        payload: &payload,
    };
    let hash = chain::hash(&end.hash, link);
    let account_id = account.as_str().to_owned();
    let event_type = event.name();
    Ok(EventRow { partition_id, position, account_id, version, previous_position, event_type, at, payload, hash })
}
