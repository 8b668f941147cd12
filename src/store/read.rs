//! Reading the read models.

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::catalog::LAST_POSITION;
use super::error::StoreError;
use super::load::{account, account_id};
use super::log::{COLUMNS, StoredEvent, stored};
use crate::domain::account::Account;
use crate::domain::hold::HoldRecord;
use crate::domain::ids::AccountId;

/// An account's hot part, and how far its partition was when it was read.
#[derive(Debug, Clone)]
pub struct Balance {
    pub account: Account,
    pub partition_id: i16,
    pub position: i64,
}

/// Reads an account's balance row; `None` for an account that nothing is known of.
pub async fn balance(client: &impl GenericClient, account: &str) -> Result<Option<Balance>, StoreError> {
    let row = client
        .query_opt(
            "/* balance */ select b.account_id, b.version, b.state::text, b.position, h.partition_id, h.position
             from balances b join heads h on h.partition_id = b.partition_id where b.account_id = $1",
            &[&account],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let credits = serde_json::from_str(row.get(2))?;
    let (id, version, position) = (account_id(row.get(0))?, row.get(1), row.get(3));
    let account = Account { id, version, position, credits, billing: None };
    Ok(Some(Balance { account, partition_id: row.get(4), position: row.get(5) }))
}

/// The hot part of accounts, in the order of their ids: those after `after`, at most `limit`.
pub async fn balances_after(client: &impl GenericClient, after: &str, limit: i64) -> Result<Vec<Account>, StoreError> {
    let rows = client
        .query(
            "/* balances_after */ select account_id, version, position, state::text from balances
             where account_id > $1 order by account_id limit $2",
            &[&after, &limit],
        )
        .await?;
    rows.iter().map(account).collect()
}

/// What one statement saw of an account.
#[derive(Debug)]
pub struct Seen {
    pub id: AccountId,
    pub partition_id: i16,
    /// How far the partition was.
    pub position: i64,
    /// Where the catalog in force stood.
    pub catalog_position: i64,
    /// `None` for an account that nothing is known of. A row that cannot be read must not hide the others.
    pub account: Result<Option<Account>, StoreError>,
}

/// Reads the balances of many accounts, each given with its partition. Like those of [`load`](super::load), the statement
/// is sent when it is first polled.
pub async fn balances(client: &impl GenericClient, ids: &[&str], partitions: &[i16]) -> Result<Vec<Seen>, StoreError> {
    // Laterally, behind an offset: row by row through the key, whatever the statistics say.
    let rows = client
        .query_typed(
            &format!(
                "/* balances */ select q.account_id, h.partition_id, h.position, b.version, b.position, b.state, {LAST_POSITION}
             from unnest($1::text[], $2::smallint[]) as q (account_id, partition_id)
             join heads h on h.partition_id = q.partition_id
             left join lateral (
                 select version, position, state::text as state from balances
                 where balances.account_id = q.account_id offset 0) b on true"
            ),
            &[(&ids, Type::TEXT_ARRAY), (&partitions, Type::INT2_ARRAY)],
        )
        .await?;
    rows.iter().map(seen).collect()
}

fn seen(row: &Row) -> Result<Seen, StoreError> {
    let id = account_id(row.get(0))?;
    let account = match row.get::<_, Option<&str>>(5) {
        None => Ok(None),
        Some(state) => serde_json::from_str(state).map_err(StoreError::from).map(|credits| {
            let (id, version, position) = (id.clone(), row.get(3), row.get(4));
            Some(Account { id, version, position, credits, billing: None })
        }),
    };
    Ok(Seen { id, partition_id: row.get(1), position: row.get(2), catalog_position: row.get(6), account })
}

/// A row of `billing_objects`.
#[derive(Debug, Clone)]
pub struct StoredObject {
    pub sort_at: DateTime<Utc>,
    pub id: String,
    /// JSON.
    pub state: String,
}

/// An account's objects of a kind, newest first, from a place in the list on.
pub async fn objects(
    client: &impl GenericClient,
    account: &str,
    kind: &str,
    before: Option<(DateTime<Utc>, &str)>,
    limit: i64,
) -> Result<Vec<StoredObject>, StoreError> {
    let rows = match before {
        None => {
            client
                .query(
                    "/* objects */ select sort_at, object_id, state::text from billing_objects
                     where account_id = $1 and kind = $2 order by sort_at desc, object_id desc limit $3",
                    &[&account, &kind, &limit],
                )
                .await?
        }
        Some((sort_at, id)) => {
            client
                .query(
                    "/* objects */ select sort_at, object_id, state::text from billing_objects
                     where account_id = $1 and kind = $2 and (sort_at, object_id) < ($3, $4)
                     order by sort_at desc, object_id desc limit $5",
                    &[&account, &kind, &sort_at, &id, &limit],
                )
                .await?
        }
    };
    let objects = rows.iter().map(|row| StoredObject { sort_at: row.get(0), id: row.get(1), state: row.get(2) });
    Ok(objects.collect())
}

/// An account's lots that a plan gave since a period began, or that something was spent of since, and that are used up; newest
/// first.
pub async fn plan_lots_used_up(
    client: &impl GenericClient,
    account: &str,
    period_start: i64,
    limit: i64,
) -> Result<Vec<StoredObject>, StoreError> {
    let rows = client
        .query(
            "/* plan_lots_used_up */ select sort_at, object_id, state::text from billing_objects
             where account_id = $1 and kind = 'closed_lot' and state ->> 'source' in ('plan', 'free_plan')
                 and (extract(epoch from (state ->> 'effective_at')::timestamptz)::bigint >= $2
                     or (state #>> '{spent_later,since}')::bigint >= $2)
             order by sort_at desc, object_id desc limit $3",
            &[&account, &period_start, &limit],
        )
        .await?;
    let objects = rows.iter().map(|row| StoredObject { sort_at: row.get(0), id: row.get(1), state: row.get(2) });
    Ok(objects.collect())
}

/// An account's objects of a kind whose ids lie between two, both included.
pub async fn objects_between(
    client: &impl GenericClient,
    account: &str,
    kind: &str,
    from: &str,
    to: &str,
) -> Result<Vec<StoredObject>, StoreError> {
    let rows = client
        .query(
            "/* objects_between */ select sort_at, object_id, state::text from billing_objects
             where account_id = $1 and kind = $2 and object_id between $3 and $4",
            &[&account, &kind, &from, &to],
        )
        .await?;
    let objects = rows.iter().map(|row| StoredObject { sort_at: row.get(0), id: row.get(1), state: row.get(2) });
    Ok(objects.collect())
}

/// A stretch of the log over several partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPage {
    pub events: Vec<StoredEvent>,
    /// How far each partition was read: there is nothing asked for up to there but what is in the page.
    pub positions: Vec<(i16, i64)>,
    /// More may follow at once.
    pub has_more: bool,
}

/// Positions of one partition looked through by one query, where most may be of other types than those asked for.
const MAX_SCAN: i64 = 10_000;

/// The feed of the log over several partitions, each from its own position on, roughly by time; of certain types only, if
/// any are given.
///
/// The order by time must not break that by position within a partition, or a page could end past an event it does not
/// hold: writers' clocks disagree. So an event counts as no earlier than those before it.
pub async fn feed(
    client: &impl GenericClient,
    after: &[(i16, i64)],
    types: &[String],
    limit: i64,
) -> Result<FeedPage, StoreError> {
    let (partitions, positions): (Vec<i16>, Vec<i64>) = after.iter().copied().unzip();
    let rows = client
        .query(
            &format!(
                "/* feed */ with scanned as (
                     select c.of_partition, c.after, least(heads.position, c.after + $5::bigint) as upto, heads.position
                     from unnest($1::smallint[], $2::bigint[]) as c (of_partition, after)
                     join heads on heads.partition_id = c.of_partition
                 ), page as (
                     select e.* from scanned c
                     cross join lateral (
                         select page.*, max(page.at) over (order by page.position) as not_before from (
                             select * from events where events.partition_id = c.of_partition
                                 and events.position > c.after and events.position <= c.upto
                                 and (cardinality($3::text[]) = 0 or events.type = any($3))
                             order by events.position limit $4) page) e
                     order by e.not_before, e.partition_id, e.position limit $4
                 )
                 select {COLUMNS}, payload::text, not_before, null::bigint, null::bigint from page
                 union all
                 select of_partition, 0, '', 0, 0, '', 0::smallint, 'epoch', '', null, upto, position from scanned
                 order by not_before, partition_id, position"
            ),
            &[&partitions, &positions, &types, &limit, &MAX_SCAN],
        )
        .await?;
    let (events, ends): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.get::<_, Option<i64>>(10).is_none());
    let events: Vec<StoredEvent> = events.into_iter().map(stored).collect();
    let is_full = i64::try_from(events.len()).is_ok_and(|found| found >= limit);
    let mut has_more = is_full;
    let mut reached: Vec<(i16, i64)> = after.to_vec();
    for (partition, position) in &mut reached {
        if is_full {
            let last = events.iter().rev().find(|event| event.partition_id == *partition);
            *position = last.map_or(*position, |event| event.position);
        } else if let Some(end) = ends.iter().find(|row| row.get::<_, i16>(0) == *partition) {
            *position = end.get::<_, i64>(10).max(*position);
            has_more |= end.get::<_, i64>(11) > *position;
        }
    }
    Ok(FeedPage { events, positions: reached, has_more })
}

/// Whose hold it is, and its row.
pub async fn hold(client: &impl GenericClient, id: &str) -> Result<Option<(AccountId, HoldRecord)>, StoreError> {
    let row = client
        .query_opt(
            "/* hold */ select account_id, state::text from billing_objects where kind = 'hold' and object_id = $1
             order by account_id limit 1",
            &[&id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((account_id(row.get(0))?, serde_json::from_str(row.get(1))?)))
}

/// Some of an account's objects, by id.
pub async fn objects_by_id(
    client: &impl GenericClient,
    account: &str,
    kind: &str,
    ids: &[String],
) -> Result<Vec<StoredObject>, StoreError> {
    let rows = client
        .query(
            "/* objects_by_id */ select sort_at, object_id, state::text from billing_objects
             where account_id = $1 and kind = $2 and object_id = any($3)",
            &[&account, &kind, &ids],
        )
        .await?;
    let objects = rows.iter().map(|row| StoredObject { sort_at: row.get(0), id: row.get(1), state: row.get(2) });
    Ok(objects.collect())
}
