//! Changing the catalog, one at a time.

use tokio_postgres::GenericClient;

use super::error::StoreError;

/// Held while the catalog is changed; any fixed number, unlikely to be somebody else's.
const CATALOG_LOCK: i64 = 0x7375_626c_6361_7461;

/// Waits until nobody else, on whatever replica, changes the catalog; until the end of the transaction nobody else can.
pub async fn lock_catalog(client: &impl GenericClient) -> Result<(), StoreError> {
    client.execute("/* lock_catalog */ select pg_advisory_xact_lock($1)", &[&CATALOG_LOCK]).await?;
    Ok(())
}
