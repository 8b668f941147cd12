//! Reading the log.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, GenericClient, Row, Statement};

use super::error::StoreError;
use crate::domain::event::Event;

/// What is read of each event, beside its payload and hash.
pub(super) const COLUMNS: &str =
    "partition_id, position, account_id, version, previous_position, type, type_version, at";

/// Events of an account read at once, where most may be of other types than those asked for.
const MIN_CHUNK: i64 = 100;

/// An event as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub partition_id: i16,
    pub position: i64,
    pub account_id: String,
    pub version: i64,
    /// Of the account's event before this one; 0 before its first.
    pub previous_position: i64,
    pub event_type: String,
    pub type_version: i16,
    pub at: DateTime<Utc>,
    /// JSON.
    pub payload: String,
}

impl StoredEvent {
    /// What it says.
    pub fn event(&self) -> Result<Event, StoreError> {
        let event = Event::read(&self.event_type, self.type_version, &self.payload);
        event.map_err(|error| StoreError::Corrupt(error.to_string()))
    }
}

pub(super) fn stored(row: &Row) -> StoredEvent {
    StoredEvent {
        partition_id: row.get(0),
        position: row.get(1),
        account_id: row.get(2),
        version: row.get(3),
        previous_position: row.get(4),
        event_type: row.get(5),
        type_version: row.get(6),
        at: row.get(7),
        payload: row.get(8),
    }
}

/// An account's events after a version, oldest first; of certain types only, if any are given.
pub async fn of_account(
    client: &impl GenericClient,
    account: &str,
    after_version: i64,
    types: &[&str],
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let statement = format!("/* of_account */ select {COLUMNS}, payload::text from account_events($1, $2, $3)");
    let chunk = if types.is_empty() { limit } else { limit.max(MIN_CHUNK) };
    let wanted = usize::try_from(limit).unwrap_or(0);
    let (mut after, mut events) = (after_version, Vec::new());
    while events.len() < wanted {
        let rows = client.query(&statement, &[&account, &after, &chunk]).await?;
        let page: Vec<StoredEvent> = rows.iter().map(stored).collect();
        let is_last = i64::try_from(page.len()) != Ok(chunk);
        after = page.last().map_or(after, |event| event.version);
        let matching = page.into_iter().filter(|event| types.is_empty() || types.contains(&event.event_type.as_str()));
        events.extend(matching.take(wanted - events.len()));
        if is_last {
            break;
        }
    }
    Ok(events)
}

/// The hash of the event at a version of an account's stream.
pub async fn hash_of(client: &impl GenericClient, account: &str, version: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let statement = "/* hash_of */ select hash from account_events($1, $2::bigint - 1, 1) where version = $2";
    let row = client.query_opt(statement, &[&account, &version]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// A partition's events after a position, oldest first.
pub async fn of_partition(
    client: &impl GenericClient,
    partition_id: i16,
    after: i64,
    types: &[&str],
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let rows = client
        .query(
            &format!(
                "/* of_partition */ select {COLUMNS}, payload::text from events
                 where partition_id = $1 and position > $2 and (cardinality($3::text[]) = 0 or type = any($3))
                 order by position limit $4"
            ),
            &[&partition_id, &after, &types, &limit],
        )
        .await?;
    Ok(rows.iter().map(stored).collect())
}

/// Prepares [`after`] on a connection.
pub async fn prepare_after(client: &Client) -> Result<Statement, StoreError> {
    let text = format!(
        "/* after */ select e.* from unnest($1::smallint[], $2::bigint[]) as k (partition_id, after)
         join heads on heads.partition_id = k.partition_id and heads.position between k.after + 1 and k.after + $3
         cross join lateral (
             select {COLUMNS}, payload::text from events
             where events.partition_id = k.partition_id and events.position > k.after
             order by events.position) e"
    );
    Ok(client.prepare(&text).await?)
}

/// The events of some partitions after a position each, in order; of those where there are too many, for `limit` in all,
/// none.
pub async fn after(
    client: &Client,
    statement: &Statement,
    positions: &[(i16, i64)],
    limit: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let (partitions, after): (Vec<i16>, Vec<i64>) = positions.iter().copied().unzip();
    let limit_each = i64::try_from(limit / positions.len().max(1)).unwrap_or(i64::MAX);
    let rows = client.query(statement, &[&partitions, &after, &limit_each]).await?;
    Ok(rows.iter().map(stored).collect())
}

/// The event at a position.
pub async fn at_position(
    client: &impl GenericClient,
    partition_id: i16,
    position: i64,
) -> Result<Option<StoredEvent>, StoreError> {
    let row = client
        .query_opt(
            &format!(
                "/* at_position */ select {COLUMNS}, payload::text from events where partition_id = $1 and position = $2"
            ),
            &[&partition_id, &position],
        )
        .await?;
    Ok(row.as_ref().map(stored))
}

/// Where in a partition a debit, a hold or a refusal of one with this id stands, if it was written between two times.
pub async fn find_charge(
    client: &impl GenericClient,
    partition_id: i16,
    head: i64,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    id: &str,
) -> Result<Option<i64>, StoreError> {
    let first = first_since(client, partition_id, head, from).await?;
    let end = first_since(client, partition_id, head, to).await?;
    let row = client
        .query_opt(
            "/* find_charge */ select position from events
             where partition_id = $1 and position >= $2 and position < $3 and (
                 type = 'credits_debited' and payload ->> 'debit' = $4
                 or type in ('hold_placed', 'charge_rejected') and payload ->> 'id' = $4
                     and payload -> 'capture' is null)
             limit 1",
            &[&partition_id, &first, &end, &id],
        )
        .await?;
    Ok(row.map(|row| row.get(0)))
}

/// The first position of a partition that was written at a time or later; past its head, if none was.
///
/// Times grow along a partition, but for what writers' clocks disagree by, so halving finds it.
async fn first_since(
    client: &impl GenericClient,
    partition_id: i16,
    head: i64,
    time: DateTime<Utc>,
) -> Result<i64, StoreError> {
    let (mut before, mut found) = (0, head + 1);
    while found - before > 1 {
        let middle = before + (found - before) / 2;
        let row = client
            .query_one(
                "/* first_since */ select at < $3 from events where partition_id = $1 and position = $2",
                &[&partition_id, &middle, &time],
            )
            .await?;
        if row.get(0) { before = middle } else { found = middle }
    }
    Ok(found)
}

/// Every partition's last position before a time.
pub async fn positions_before(client: &impl GenericClient, time: DateTime<Utc>) -> Result<Vec<(i16, i64)>, StoreError> {
    let mut before = positions(client).await?;
    for (partition_id, position) in &mut before {
        *position = first_since(client, *partition_id, *position, time).await? - 1;
    }
    Ok(before)
}

/// Every partition's last position, ascending by partition.
pub async fn positions(client: &impl GenericClient) -> Result<Vec<(i16, i64)>, StoreError> {
    let rows = client
        .query_typed("/* positions */ select partition_id, position from heads order by partition_id", &[])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A partition's last position.
pub async fn position(client: &impl GenericClient, partition_id: i16) -> Result<i64, StoreError> {
    let row =
        client.query_one("/* position */ select position from heads where partition_id = $1", &[&partition_id]).await?;
    Ok(row.get(0))
}

/// How many partitions the ledger was made with.
pub async fn partitions(client: &impl GenericClient) -> Result<i16, StoreError> {
    Ok(client.query_one("/* partitions */ select partitions from ledger", &[]).await?.get(0))
}
