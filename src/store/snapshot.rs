//! One view of the database for several connections, while others go on writing.

use tokio_postgres::Client;

use super::connect::Database;
use super::error::StoreError;

/// Long reads must not fall to limits that are meant for requests.
pub(super) const UNLIMITED: &str = "
    set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0;
    set work_mem = '64MB'";

/// A transaction that keeps the snapshot alive; readers join it.
#[derive(Debug)]
pub struct Snapshot {
    client: Client,
    name: String,
}

impl Snapshot {
    /// Takes a snapshot. The read models that a rebuild swaps stay in place until the snapshot is dropped: new ones
    /// would look empty to it.
    pub async fn take(database: &Database) -> Result<Self, StoreError> {
        let client = database.connect().await?;
        client.batch_execute(UNLIMITED).await?;
        client
            .batch_execute(
                "/* take_snapshot */ begin isolation level repeatable read read only;
                 lock table balances, billing_objects, stripe_links in access share mode",
            )
            .await?;
        let row = client.query_one("/* take_snapshot */ select pg_export_snapshot()", &[]).await?;
        Ok(Self { name: row.get(0), client })
    }

    /// The connection that holds the snapshot, for reading through it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Another connection that reads the same.
    pub async fn reader(&self, database: &Database) -> Result<Client, StoreError> {
        let client = database.connect().await?;
        client.batch_execute(UNLIMITED).await?;
        let name = self.name.replace('\'', "''");
        client
            .batch_execute(&format!(
                "/* join_snapshot */ begin isolation level repeatable read read only;
                 set transaction snapshot '{name}'"
            ))
            .await?;
        Ok(client)
    }

    /// Gives the snapshot up.
    pub async fn release(self) -> Result<(), StoreError> {
        Ok(self.client.batch_execute("/* release_snapshot */ rollback").await?)
    }
}
