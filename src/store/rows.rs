//! Read-model rows as they stand, for comparing them with the log.

use std::collections::HashMap;

use tokio_postgres::GenericClient;

use super::error::StoreError;

/// A row of `balances`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBalance {
    pub account_id: String,
    pub partition_id: i16,
    pub version: i64,
    pub position: i64,
    pub available: i64,
    pub state: String,
}

/// A row of `billing_objects`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub account_id: String,
    pub kind: String,
    pub object_id: String,
    pub partition_id: i16,
    /// Unix seconds.
    pub sort_at: i64,
    pub state: String,
}

/// A row of `stripe_links`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLink {
    pub stripe_id: String,
    pub account_id: String,
    pub partition_id: i16,
}

pub async fn balances(client: &impl GenericClient, accounts: &[&str]) -> Result<Vec<StoredBalance>, StoreError> {
    let rows = client
        .query(
            "/* stored_balances */ select account_id, partition_id, version, position, available, state::text
             from balances where account_id = any($1)",
            &[&accounts],
        )
        .await?;
    let balance = |row: &tokio_postgres::Row| StoredBalance {
        account_id: row.get(0),
        partition_id: row.get(1),
        version: row.get(2),
        position: row.get(3),
        available: row.get(4),
        state: row.get(5),
    };
    Ok(rows.iter().map(balance).collect())
}

pub async fn objects(client: &impl GenericClient, accounts: &[&str]) -> Result<Vec<StoredObject>, StoreError> {
    let rows = client
        .query(
            "/* stored_objects */ select account_id, kind, object_id, partition_id, sort_at, state::text
             from billing_objects where account_id = any($1)",
            &[&accounts],
        )
        .await?;
    let object = |row: &tokio_postgres::Row| StoredObject {
        account_id: row.get(0),
        kind: row.get(1),
        object_id: row.get(2),
        partition_id: row.get(3),
        sort_at: row.get::<_, chrono::DateTime<chrono::Utc>>(4).timestamp(),
        state: row.get(5),
    };
    Ok(rows.iter().map(object).collect())
}

pub async fn links_to(client: &impl GenericClient, accounts: &[&str]) -> Result<Vec<StoredLink>, StoreError> {
    let rows = client
        .query(
            "/* stored_links_to */ select stripe_id, account_id, partition_id
             from stripe_links where account_id = any($1)",
            &[&accounts],
        )
        .await?;
    let link = |row: &tokio_postgres::Row| StoredLink {
        stripe_id: row.get(0),
        account_id: row.get(1),
        partition_id: row.get(2),
    };
    Ok(rows.iter().map(link).collect())
}

/// The account a Stripe id leads to.
pub async fn link(client: &impl GenericClient, stripe_id: &str) -> Result<Option<String>, StoreError> {
    let row = client
        .query_opt("/* stored_link */ select account_id from stripe_links where stripe_id = $1", &[&stripe_id])
        .await?;
    Ok(row.map(|row| row.get(0)))
}

/// Rows of a read model whose account no event is about: at most `limit` of them as (account, key), and how many there
/// are.
pub async fn strays(
    client: &impl GenericClient,
    table: &'static str,
    limit: i64,
) -> Result<(i64, Vec<(String, String)>), StoreError> {
    let key = match table {
        "billing_objects" => "t.kind || ' ' || t.object_id",
        "stripe_links" => "t.stripe_id",
        _ => "t.account_id",
    };
    let statement = format!(
        "/* strays */ select t.account_id, {key}, count(*) over () from {table} t
         where not exists (select from events e where e.account_id = t.account_id and e.version % 16 = 1)
         order by 1, 2 limit $1"
    );
    let rows = client.query(&statement, &[&limit]).await?;
    let count = rows.first().map_or(0, |row| row.get(2));
    Ok((count, rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
}

/// The furthest position in each partition that an answered key points to.
pub async fn furthest_keys(client: &impl GenericClient) -> Result<HashMap<i16, i64>, StoreError> {
    let rows = client
        .query("/* furthest_keys */ select partition_id, max(position) from idempotency group by partition_id", &[])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Partitions with events that the ledger does not have.
pub async fn partitions_beyond(client: &impl GenericClient, partitions: i16) -> Result<Vec<i16>, StoreError> {
    let rows = client
        .query(
            "/* partitions_beyond */ select distinct partition_id from events
             where partition_id < 0 or partition_id >= $1 order by partition_id",
            &[&partitions],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
