//! Deliveries to endpoints: queued, worked off account by account, looked at, and sent again.
//!
//! Whoever touches the deliveries of an endpoint and account locks their row of `webhook_queues` first, in a statement of its
//! own, so that what it then reads is what others left. Else one could find a queue empty while another fills it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::error::StoreError;

/// Something to tell: an event of the log, or a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub message_type: String,
    pub account_id: String,
    pub partition_id: i16,
    pub position: i64,
    /// 0: the event at the position; else a notification, told after it.
    pub part: i16,
}

/// The id under which an event of the log is told.
pub fn event_message_id(partition_id: i16, position: i64) -> String {
    format!("evt_{partition_id}-{position}")
}

/// A message for one endpoint.
pub type Addressed<'a> = (&'a str, &'a Message);

/// What becomes of a message that its endpoint was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It is not sent again.
    Never,
    /// It is, unless it waits already.
    Again,
}

/// Queues messages for endpoints, within a transaction. Answers how many.
pub async fn queue(
    client: &impl GenericClient,
    addressed: &[Addressed<'_>],
    repeat: Repeat,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    if addressed.is_empty() {
        return Ok(0);
    }
    let endpoints: Vec<&str> = addressed.iter().map(|(endpoint, _)| *endpoint).collect();
    let accounts: Vec<&str> = addressed.iter().map(|(_, message)| message.account_id.as_str()).collect();
    let ids: Vec<&str> = addressed.iter().map(|(_, message)| message.id.as_str()).collect();
    let types: Vec<&str> = addressed.iter().map(|(_, message)| message.message_type.as_str()).collect();
    let partitions: Vec<i16> = addressed.iter().map(|(_, message)| message.partition_id).collect();
    let positions: Vec<i64> = addressed.iter().map(|(_, message)| message.position).collect();
    let parts: Vec<i16> = addressed.iter().map(|(_, message)| message.part).collect();
    // An endpoint may have been deleted meanwhile; locking it keeps it until this is done.
    client
        .execute(
            "/* queue_accounts */ insert into webhook_queues (endpoint_id, account_id, due_at)
             select distinct e.endpoint_id, m.account_id, $3::timestamptz
             from unnest($1::text[], $2::text[]) as m (endpoint_id, account_id)
             join (select endpoint_id from webhook_endpoints order by endpoint_id for key share) e using (endpoint_id)
             order by 1, 2
             on conflict (endpoint_id, account_id) do update set endpoint_id = excluded.endpoint_id",
            &[&endpoints, &accounts, &now],
        )
        .await?;
    let repeated = match repeat {
        Repeat::Never => "do nothing",
        Repeat::Again => {
            "do update set status = 'pending', attempts = 0, next_attempt_at = null, ended_at = null
             where webhook_deliveries.status <> 'pending'"
        }
    };
    let statement = format!(
        "/* queue_deliveries */ insert into webhook_deliveries
             (endpoint_id, account_id, message_id, type, partition_id, position, part, status, created_at)
         select m.*, 'pending', $8::timestamptz
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::bigint[], $7::smallint[])
             as m (endpoint_id, account_id, message_id, type, partition_id, position, part)
         join webhook_endpoints e on e.endpoint_id = m.endpoint_id
         on conflict (endpoint_id, message_id) {repeated}"
    );
    let queued = client
        .execute(&statement, &[&endpoints, &accounts, &ids, &types, &partitions, &positions, &parts, &now])
        .await?;
    Ok(queued)
}

/// The endpoints that something is due for now.
pub async fn due_endpoints(client: &impl GenericClient, now: DateTime<Utc>) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query_typed(
            "/* due_endpoints */ select endpoint_id from webhook_endpoints
             where status = 'enabled' and exists (
                 select from webhook_queues q
                 where q.endpoint_id = webhook_endpoints.endpoint_id and q.due_at <= $1)",
            &[(&now, tokio_postgres::types::Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Claims the accounts of an endpoint that have waited longest, until `until`.
pub async fn claim(
    client: &impl GenericClient,
    endpoint: &str,
    claim: Uuid,
    most: i64,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query(
            "/* claim_queues */ with due as (
                 select account_id from webhook_queues where endpoint_id = $1 and due_at <= $4
                 order by due_at limit $3 for update skip locked)
             update webhook_queues q set claim = $2, due_at = $5 from due
             where q.endpoint_id = $1 and q.account_id = due.account_id returning q.account_id",
            &[&endpoint, &claim, &most, &now, &until],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Locks a queue that was claimed, within a transaction; `false`: the claim has run out, and it is somebody else's, or the
/// endpoint is gone.
pub async fn lock(client: &impl GenericClient, endpoint: &str, account: &str, claim: Uuid) -> Result<bool, StoreError> {
    // The endpoint first, as whoever removes it has it: else each could wait for the other.
    keep_endpoint(client, endpoint).await?;
    let row = client
        .query_opt(
            "/* lock_queue */ select claim from webhook_queues where endpoint_id = $1 and account_id = $2 for update",
            &[&endpoint, &account],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get::<_, Option<Uuid>>(0) == Some(claim)))
}

/// Keeps an endpoint from being removed until the transaction ends.
pub(super) async fn keep_endpoint(client: &impl GenericClient, endpoint: &str) -> Result<(), StoreError> {
    let statement = "/* keep_endpoint */ select from webhook_endpoints where endpoint_id = $1 for key share";
    client.query_opt(statement, &[&endpoint]).await?;
    Ok(())
}

/// Makes all queues of an endpoint due that nobody is at work on.
pub async fn make_due(client: &impl GenericClient, endpoint: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
    client
        .execute(
            "/* make_queues_due */ update webhook_queues set due_at = $2 where endpoint_id = $1 and claim is null",
            &[&endpoint, &now],
        )
        .await?;
    Ok(())
}

/// When a queue is next to be worked at, and who works at it until then.
pub async fn set_due(
    client: &impl GenericClient,
    endpoint: &str,
    account: &str,
    due_at: DateTime<Utc>,
    claim: Option<Uuid>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* set_queue_due */ update webhook_queues set due_at = $3, claim = $4
             where endpoint_id = $1 and account_id = $2",
            &[&endpoint, &account, &due_at, &claim],
        )
        .await?;
    Ok(())
}

/// Removes a queue that has nothing left to deliver.
pub async fn remove_queue(client: &impl GenericClient, endpoint: &str, account: &str) -> Result<(), StoreError> {
    client
        .execute(
            "/* remove_queue */ delete from webhook_queues where endpoint_id = $1 and account_id = $2",
            &[&endpoint, &account],
        )
        .await?;
    Ok(())
}

/// A message that waits to be delivered, with what it says.
#[derive(Debug, Clone)]
pub struct PendingDelivery {
    pub message: Message,
    /// Attempts so far.
    pub attempts: u32,
    pub occurred_at: DateTime<Utc>,
    /// JSON.
    pub data: String,
}

/// The first pending delivery of an endpoint and account.
pub async fn next(
    client: &impl GenericClient,
    endpoint: &str,
    account: &str,
) -> Result<Option<PendingDelivery>, StoreError> {
    let row = client
        .query_opt(
            "/* next_delivery */ select d.message_id, d.type, d.partition_id, d.position, d.part, d.attempts,
                 coalesce(n.occurred_at, e.at), coalesce(n.data::text, e.payload::text)
             from webhook_deliveries d
             left join events e on d.part = 0 and e.partition_id = d.partition_id and e.position = d.position
             left join notifications n on d.part > 0 and n.message_id = d.message_id
             where d.endpoint_id = $1 and d.account_id = $2 and d.status = 'pending'
             order by d.position, d.part limit 1",
            &[&endpoint, &account],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let message = Message {
        id: row.get(0),
        message_type: row.get(1),
        account_id: account.to_owned(),
        partition_id: row.get(2),
        position: row.get(3),
        part: row.get(4),
    };
    let said: (Option<DateTime<Utc>>, Option<String>) = (row.get(6), row.get(7));
    let (Some(occurred_at), Some(data)) = said else {
        return Err(StoreError::Corrupt(format!("the message {} is neither event nor notification", message.id)));
    };
    let attempts = u32::try_from(row.get::<_, i32>(5)).unwrap_or(0);
    Ok(Some(PendingDelivery { message, attempts, occurred_at, data }))
}

/// One try to deliver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    pub at: DateTime<Utc>,
    pub duration_ms: i32,
    /// `delivered`, `refused`, `timed_out`, `unreachable` or `blocked`.
    pub outcome: String,
    pub status_code: Option<i32>,
    /// What went wrong.
    pub problem: Option<String>,
    /// The beginning of the answer, unless it was delivered.
    pub response: Option<String>,
}

/// What an attempt makes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryEnd {
    Delivered,
    /// It is tried again.
    Pending(DateTime<Utc>),
    /// It is not.
    Dead,
}

/// Puts an attempt on record, and what it makes of the delivery.
pub async fn record(
    client: &impl GenericClient,
    endpoint: &str,
    message_id: &str,
    attempt: &Attempt,
    end: DeliveryEnd,
) -> Result<(), StoreError> {
    let (status, next) = match end {
        DeliveryEnd::Delivered => ("delivered", None),
        DeliveryEnd::Pending(next) => ("pending", Some(next)),
        DeliveryEnd::Dead => ("dead", None),
    };
    client
        .execute(
            "/* record_attempt */ with attempted as (
                 update webhook_deliveries set status = $3, attempts = attempts + 1, next_attempt_at = $4,
                     ended_at = case when $3 = 'pending' then null else $5::timestamptz end
                 where endpoint_id = $1 and message_id = $2 returning endpoint_id, message_id)
             insert into webhook_attempts (endpoint_id, message_id, attempted_at, duration_ms, outcome, status_code,
                 problem, response)
             select endpoint_id, message_id, $5::timestamptz, $6::integer, $7::text, $8::integer, $9::text, $10::text
             from attempted",
            &[
                &endpoint,
                &message_id,
                &status,
                &next,
                &attempt.at,
                &attempt.duration_ms,
                &attempt.outcome,
                &attempt.status_code,
                &attempt.problem,
                &attempt.response,
            ],
        )
        .await?;
    Ok(())
}

/// A delivery as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    pub message_id: String,
    #[serde(rename = "type")]
    pub message_type: String,
    pub account: String,
    pub partition: i16,
    pub position: i64,
    pub status: String,
    pub attempts: i32,
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "message_id, type, account_id, partition_id, position, status, attempts, next_attempt_at,
    created_at, ended_at";

fn delivery(row: &Row) -> Delivery {
    Delivery {
        message_id: row.get(0),
        message_type: row.get(1),
        account: row.get(2),
        partition: row.get(3),
        position: row.get(4),
        status: row.get(5),
        attempts: row.get(6),
        next_attempt_at: row.get(7),
        created_at: row.get(8),
        ended_at: row.get(9),
    }
}

/// Which deliveries are asked for.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    pub status: Option<String>,
    pub account: Option<String>,
}

/// An endpoint's deliveries, newest first, from a place in the list on.
pub async fn list(
    client: &impl GenericClient,
    endpoint: &str,
    filter: &DeliveryFilter,
    before: Option<(DateTime<Utc>, &str)>,
    limit: i64,
) -> Result<Vec<Delivery>, StoreError> {
    let statement = format!(
        "/* list_deliveries */ select {COLUMNS} from webhook_deliveries
         where endpoint_id = $1 and ($2::text is null or status = $2) and ($3::text is null or account_id = $3)
             and ($4::timestamptz is null or (created_at, message_id) < ($4, $5))
         order by created_at desc, message_id desc limit $6"
    );
    let (at, id) = before.unzip();
    let rows = client.query(&statement, &[&endpoint, &filter.status, &filter.account, &at, &id, &limit]).await?;
    Ok(rows.iter().map(delivery).collect())
}

/// One delivery, with what it says and all attempts, oldest first.
pub async fn get(
    client: &impl GenericClient,
    endpoint: &str,
    message_id: &str,
) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
    let statement = format!(
        "/* get_delivery */ select {COLUMNS} from webhook_deliveries where endpoint_id = $1 and message_id = $2"
    );
    let Some(row) = client.query_opt(&statement, &[&endpoint, &message_id]).await? else { return Ok(None) };
    let rows = client
        .query(
            "/* attempts_of_delivery */ select attempted_at, duration_ms, outcome, status_code, problem, response
             from webhook_attempts where endpoint_id = $1 and message_id = $2 order by attempt_id limit 200",
            &[&endpoint, &message_id],
        )
        .await?;
    let attempt = |row: &Row| Attempt {
        at: row.get(0),
        duration_ms: row.get(1),
        outcome: row.get(2),
        status_code: row.get(3),
        problem: row.get(4),
        response: row.get(5),
    };
    Ok(Some((delivery(&row), rows.iter().map(attempt).collect())))
}

/// Has a delivery tried again at once, whatever became of it, within a transaction; `false`: there is none.
pub async fn retry(
    client: &impl GenericClient,
    endpoint: &str,
    message_id: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    keep_endpoint(client, endpoint).await?;
    let queued = client
        .execute(
            "/* retry_queue */ insert into webhook_queues (endpoint_id, account_id, due_at)
             select endpoint_id, account_id, $3::timestamptz from webhook_deliveries
             where endpoint_id = $1 and message_id = $2
             on conflict (endpoint_id, account_id) do update
             set due_at = case when webhook_queues.claim is null then excluded.due_at else webhook_queues.due_at end",
            &[&endpoint, &message_id, &now],
        )
        .await?;
    client
        .execute(
            "/* retry_delivery */ update webhook_deliveries
             set status = 'pending', attempts = 0, next_attempt_at = null, ended_at = null
             where endpoint_id = $1 and message_id = $2",
            &[&endpoint, &message_id],
        )
        .await?;
    Ok(queued == 1)
}

/// Drops deliveries that ended before a time. Answers how many; no more than 10,000 at once.
pub async fn prune(client: &impl GenericClient, before: DateTime<Utc>) -> Result<u64, StoreError> {
    let pruned = client
        .execute(
            "/* prune_deliveries */ delete from webhook_deliveries where (endpoint_id, message_id) in (
                 select endpoint_id, message_id from webhook_deliveries
                 where created_at < $1 and status <> 'pending' and ended_at < $1 limit 10000)",
            &[&before],
        )
        .await?;
    Ok(pruned)
}

/// Deliveries that wait, since when the oldest of them has, and dead ones.
pub async fn backlog(client: &impl GenericClient) -> Result<(i64, Option<DateTime<Utc>>, i64), StoreError> {
    let row = client
        .query_one(
            "/* delivery_backlog */ select (select count(*) from webhook_deliveries where status = 'pending'),
                 (select min(created_at) from webhook_deliveries where status = 'pending'),
                 (select count(*) from webhook_deliveries where status = 'dead')",
            &[],
        )
        .await?;
    Ok((row.get(0), row.get(1), row.get(2)))
}
