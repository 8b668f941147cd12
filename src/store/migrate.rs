//! Bringing a database up to date.

use tokio_postgres::Client;

use super::connect::Database;
use super::error::StoreError;

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Held while migrating; any fixed number, unlikely to be somebody else's.
const MIGRATION_LOCK: i64 = 0x7375_626c_6564_6772;

/// Partitions of a new ledger unless told otherwise.
pub const DEFAULT_PARTITIONS: i16 = 64;

/// Applies the migrations that are missing, one process at a time, and fixes the number of partitions of a new ledger.
///
/// Answers the number of partitions, which an existing ledger keeps whatever is asked.
pub async fn migrate(database: &Database, partitions: i16) -> Result<i16, StoreError> {
    // A connection of its own: a lock held by a pooled one would outlive a panic.
    let mut client = database.connect_as_owner().await?;
    client.execute("/* migrate */ select pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    let report = embedded::migrations::runner().run_async(&mut client).await;
    report.map_err(|error| StoreError::Refused(with_causes(&error)))?;
    init_ledger(&client, partitions).await
}

async fn init_ledger(client: &Client, partitions: i16) -> Result<i16, StoreError> {
    client
        .execute("/* init_ledger */ insert into ledger (partitions) values ($1) on conflict do nothing", &[&partitions])
        .await?;
    let row = client.query_one("/* init_ledger */ select partitions from ledger", &[]).await?;
    let partitions: i16 = row.get(0);
    client
        .execute(
            "/* init_ledger */ insert into heads (partition_id)
             select n::smallint from generate_series(0, $1::int - 1) n on conflict do nothing",
            &[&i32::from(partitions)],
        )
        .await?;
    Ok(partitions)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
