//! The catalogs on record, and changing the one in force, one at a time.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use super::error::StoreError;
use super::log::{COLUMNS, StoredEvent, stored};

/// Held while the catalog is changed; any fixed number, unlikely to be somebody else's.
const CATALOG_LOCK: i64 = 0x7375_626c_6361_7461;

/// Waits until nobody else, on whatever replica, changes the catalog; until the end of the transaction nobody else can.
pub async fn lock_catalog(client: &impl GenericClient) -> Result<(), StoreError> {
    client.execute("/* lock_catalog */ select pg_advisory_xact_lock($1)", &[&CATALOG_LOCK]).await?;
    Ok(())
}

/// Where the last catalog on record stands; 0: none is. An expression for other statements, too: it costs them a look into
/// an index that has one entry a catalog.
pub(super) const LAST_POSITION: &str =
    "coalesce((select position from events where type = 'catalog_applied' order by position desc limit 1), 0)";

/// Where the last catalog on record stands; 0: none is.
pub async fn last_position(client: &impl GenericClient) -> Result<i64, StoreError> {
    let row = client.query_typed(&format!("/* last_position */ select {LAST_POSITION}"), &[]).await?.pop();
    Ok(row.map_or(0, |row| row.get(0)))
}

/// The catalog that was put on record last.
pub async fn last(client: &impl GenericClient) -> Result<Option<StoredEvent>, StoreError> {
    let row = client
        .query_opt(
            &format!(
                "/* last */ select {COLUMNS}, payload::text from events where type = 'catalog_applied'
                 order by position desc limit 1"
            ),
            &[],
        )
        .await?;
    Ok(row.as_ref().map(stored))
}

/// The catalog that was put on record last by a time.
pub async fn last_by(client: &impl GenericClient, at: DateTime<Utc>) -> Result<Option<StoredEvent>, StoreError> {
    let row = client
        .query_opt(
            &format!(
                "/* last_by */ select {COLUMNS}, payload::text from events where type = 'catalog_applied' and at <= $1
                 order by position desc limit 1"
            ),
            &[&at],
        )
        .await?;
    Ok(row.as_ref().map(stored))
}

/// A catalog whose digest begins so, in lower-case hexadecimal digits. That it may be on record several times makes no
/// difference.
pub async fn by_digest(client: &impl GenericClient, beginning: &str) -> Result<Option<StoredEvent>, StoreError> {
    let row = client
        .query_opt(
            &format!(
                r#"/* by_digest */ select {COLUMNS}, payload::text from events
                 where type = 'catalog_applied' and (payload ->> 'digest') collate "C" between $1 and $2 limit 1"#
            ),
            // No digit is as high as that.
            &[&beginning, &format!("{beginning}g")],
        )
        .await?;
    Ok(row.as_ref().map(stored))
}
