//! Raw StripeEvents: parked ones until they can be applied, others for a time.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use super::append::InboxRow;
use super::error::StoreError;

/// A StripeEvent that waits for a fix.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Parked {
    pub stripe_event_id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub reason: Option<String>,
    pub api_version: Option<String>,
    pub received_at: DateTime<Utc>,
}

/// Keeps a body that could not be applied. One that was applied meanwhile stays applied.
pub async fn park(client: &impl GenericClient, row: &InboxRow) -> Result<(), StoreError> {
    let body: &[u8] = &row.body;
    client
        .execute(
            "/* park */ insert into inbox
                 (stripe_event_id, type, status, reason, account_id, api_version, created_at, received_at, body)
             values ($1, $2, 'parked', $3, $4, $5, $6, $7, $8)
             on conflict (stripe_event_id) do update set reason = excluded.reason where inbox.status = 'parked'",
            &[
                &row.stripe_event_id,
                &row.event_type,
                &row.reason,
                &row.account_id,
                &row.api_version,
                &row.created_at,
                &row.received_at,
                &body,
            ],
        )
        .await?;
    Ok(())
}

/// Parked StripeEvents, oldest first, after a given one.
pub async fn list_parked(
    client: &impl GenericClient,
    after: Option<(DateTime<Utc>, String)>,
    limit: i64,
) -> Result<Vec<Parked>, StoreError> {
    let (after_at, after_id) = after.unwrap_or((DateTime::<Utc>::UNIX_EPOCH, String::new()));
    let rows = client
        .query(
            "/* list_parked */ select stripe_event_id, type, reason, api_version, received_at from inbox
             where status = 'parked' and (received_at, stripe_event_id) > ($1, $2)
             order by received_at, stripe_event_id limit $3",
            &[&after_at, &after_id, &limit],
        )
        .await?;
    let parked = rows.iter().map(|row| Parked {
        stripe_event_id: row.get(0),
        event_type: row.get(1),
        reason: row.get(2),
        api_version: row.get(3),
        received_at: row.get(4),
    });
    Ok(parked.collect())
}

pub async fn count_parked(client: &impl GenericClient) -> Result<i64, StoreError> {
    let row = client.query_one("/* count_parked */ select count(*) from inbox where status = 'parked'", &[]).await?;
    Ok(row.get(0))
}

/// The raw body of a parked StripeEvent.
pub async fn parked_body(client: &impl GenericClient, id: &str) -> Result<Option<bytes::Bytes>, StoreError> {
    let row = client
        .query_opt("/* parked_body */ select body from inbox where stripe_event_id = $1 and status = 'parked'", &[&id])
        .await?;
    Ok(row.map(|row| row.get::<_, Vec<u8>>(0).into()))
}

/// Drops the bodies of StripeEvents received before `before`, but for parked ones. Answers how many.
pub async fn prune(client: &impl GenericClient, before: DateTime<Utc>) -> Result<u64, StoreError> {
    let pruned = client
        .execute("/* prune */ delete from inbox where received_at < $1 and status <> 'parked'", &[&before])
        .await?;
    Ok(pruned)
}

/// Marks a parked StripeEvent that had been applied all along.
pub async fn mark_applied(client: &impl GenericClient, id: &str) -> Result<(), StoreError> {
    client
        .execute(
            "/* mark_applied */ update inbox set status = 'applied', reason = null
             where stripe_event_id = $1 and status = 'parked'",
            &[&id],
        )
        .await?;
    Ok(())
}
