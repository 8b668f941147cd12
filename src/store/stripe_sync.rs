//! What comparing with Stripe reads of the read models, and how far an import has come.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::error::StoreError;

/// A row of `billing_objects`.
#[derive(Debug, Clone)]
pub struct KnownObject {
    pub account_id: String,
    pub object_id: String,
    /// JSON.
    pub state: String,
}

/// Objects of one kind, each given with its account. What is not known is left out.
pub async fn known_objects(
    client: &impl GenericClient,
    kind: &str,
    accounts: &[&str],
    ids: &[&str],
) -> Result<Vec<KnownObject>, StoreError> {
    let rows = client
        .query_typed(
            "/* known_objects */ select q.account_id, q.object_id, o.state
             from unnest($2::text[], $3::text[]) as q (account_id, object_id)
             cross join lateral (
                 select state::text as state from billing_objects b
                 where b.account_id = q.account_id and b.kind = $1 and b.object_id = q.object_id offset 0) o",
            &[(&kind, Type::TEXT), (&accounts, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(rows.iter().map(known).collect())
}

/// All objects of one kind, in the order of accounts and ids: those after a place, of one account only if it is given.
pub async fn objects_after(
    client: &impl GenericClient,
    kind: &str,
    account: Option<&str>,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<KnownObject>, StoreError> {
    let rows = client
        .query(
            "/* objects_after */ select account_id, object_id, state::text from billing_objects
             where kind = $1 and (account_id, object_id) > ($2, $3) and ($4::text is null or account_id = $4)
             order by account_id, object_id limit $5",
            &[&kind, &after.0, &after.1, &account, &limit],
        )
        .await?;
    Ok(rows.iter().map(known).collect())
}

fn known(row: &tokio_postgres::Row) -> KnownObject {
    KnownObject { account_id: row.get(0), object_id: row.get(1), state: row.get(2) }
}

/// Of these StripeEvents, those that are parked, with the reason.
pub async fn parked_reasons(
    client: &impl GenericClient,
    ids: &[&str],
) -> Result<Vec<(String, Option<String>)>, StoreError> {
    let rows = client
        .query(
            "/* parked_reasons */ select stripe_event_id, reason from inbox
             where stripe_event_id = any($1) and status = 'parked'",
            &[&ids],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// How far an import of one kind has come.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct ImportCursor {
    pub starting_after: Option<String>,
    pub objects: i64,
    pub changed: i64,
    pub is_finished: bool,
}

pub async fn import_cursor(client: &impl GenericClient, kind: &str) -> Result<Option<ImportCursor>, StoreError> {
    let row = client
        .query_opt(
            "/* import_cursor */ select starting_after, objects, changed, finished_at is not null
             from stripe_imports where kind = $1",
            &[&kind],
        )
        .await?;
    Ok(row.map(|row| ImportCursor {
        starting_after: row.get(0),
        objects: row.get(1),
        changed: row.get(2),
        is_finished: row.get(3),
    }))
}

pub async fn put_import_cursor(
    client: &impl GenericClient,
    kind: &str,
    cursor: &ImportCursor,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let finished_at = cursor.is_finished.then_some(now);
    client
        .execute(
            "/* put_import_cursor */ insert into stripe_imports
                 (kind, starting_after, objects, changed, started_at, finished_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (kind) do update set starting_after = excluded.starting_after, objects = excluded.objects,
                 changed = excluded.changed, finished_at = excluded.finished_at",
            &[&kind, &cursor.starting_after, &cursor.objects, &cursor.changed, &now, &finished_at],
        )
        .await?;
    Ok(())
}

/// Forgets how far imports have come: the next one begins at the beginning.
pub async fn forget_imports(client: &impl GenericClient) -> Result<(), StoreError> {
    client.execute("/* forget_imports */ delete from stripe_imports", &[]).await?;
    Ok(())
}
