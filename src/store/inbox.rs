//! Raw StripeEvents: parked ones until they can be applied, others for a time.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use super::append::InboxRow;
use super::error::StoreError;
use crate::domain::ids::AccountId;

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

/// Whether a row is about an account: it was applied to it or to a stream that became part of it, or its body names a
/// Stripe id of the account's, as those do that no use was made of.
const IS_ABOUT: &str = "(account_id = any($1) or exists (
    select from unnest($2::bytea[]) as named (id) where position(named.id in body) > 0))";

/// The parameters of [`IS_ABOUT`].
fn names(account: &AccountId, stripe_ids: &[String]) -> (Vec<String>, Vec<Vec<u8>>) {
    let streams = stripe_ids.iter().cloned().chain([account.to_string()]).collect();
    let in_body = stripe_ids.iter().map(|id| format!("\"{id}\"").into_bytes()).collect();
    (streams, in_body)
}

/// Drops the bodies of StripeEvents about an account, but for parked ones. Answers how many.
pub async fn erase(client: &impl GenericClient, account: &AccountId, stripe_ids: &[String]) -> Result<u64, StoreError> {
    let (streams, in_body) = names(account, stripe_ids);
    let statement = format!("/* erase */ delete from inbox where status <> 'parked' and {IS_ABOUT}");
    Ok(client.execute(&statement, &[&streams, &in_body]).await?)
}

/// Ids and bodies of the parked StripeEvents about an account.
pub async fn parked_about(
    client: &impl GenericClient,
    account: &AccountId,
    stripe_ids: &[String],
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let (streams, in_body) = names(account, stripe_ids);
    let statement = format!(
        "/* parked_about */ select stripe_event_id, body from inbox where status = 'parked' and {IS_ABOUT} for update"
    );
    let rows = client.query(&statement, &[&streams, &in_body]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Puts another body in place of a parked StripeEvent's.
pub async fn replace_parked_body(client: &impl GenericClient, id: &str, body: &[u8]) -> Result<(), StoreError> {
    client
        .execute(
            "/* replace_parked_body */ update inbox set body = $2 where stripe_event_id = $1 and status = 'parked'",
            &[&id, &body],
        )
        .await?;
    Ok(())
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
