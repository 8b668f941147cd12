//! A lane's connection: it appends batches, and finds out what became of one when the connection breaks.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::{Client, Statement};

use crate::store::append::{self, Batch, Refusal};
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::load::{self, Head};
use crate::store::log::{self, StoredEvent};

/// Waits between attempts to find out whether a batch was committed.
const FIND_OUT_MS: [u64; 6] = [0, 50, 200, 500, 1_000, 2_000];

/// One connection, made anew when it breaks.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    connection: Option<Connection>,
    is_new: bool,
    holds_locks: bool,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    append: Statement,
    accounts: Statement,
    lock_heads: Statement,
    after: Statement,
}

impl Connection {
    async fn new(client: Client) -> Result<Self, StoreError> {
        append::limit_stall(&client).await?;
        let append = append::prepare(&client).await?;
        let accounts = client.prepare(load::ACCOUNTS).await?;
        let lock_heads = client.prepare(load::LOCK_HEADS).await?;
        let after = log::prepare_after(&client).await?;
        Ok(Self { client, append, accounts, lock_heads, after })
    }
}

impl Writer {
    pub fn new(database: Database) -> Self {
        Self { database, connection: None, is_new: false, holds_locks: false }
    }

    /// Sees to it that there is a connection.
    pub async fn connect(&mut self) -> Result<(), StoreError> {
        if self.connection.as_ref().is_some_and(|connection| !connection.client.is_closed()) {
            return Ok(());
        }
        self.disconnect();
        self.connection = Some(Connection::new(self.database.connect().await?).await?);
        self.is_new = true;
        Ok(())
    }

    /// Whether the connection was made since this was asked last.
    pub fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    pub fn disconnect(&mut self) {
        self.connection = None;
        self.holds_locks = false;
    }

    /// For reading what a decision needs.
    pub fn client(&self) -> Result<&Client, StoreError> {
        self.connection().map(|connection| &connection.client)
    }

    /// For reading accounts ([`load::ACCOUNTS`]).
    pub fn accounts(&self) -> Result<&Statement, StoreError> {
        self.connection().map(|connection| &connection.accounts)
    }

    fn connection(&self) -> Result<&Connection, StoreError> {
        self.connection.as_ref().ok_or_else(|| StoreError::Unavailable("no connection".to_owned()))
    }

    /// Keeps all others from writing to these partitions until the next append, or [`release`](Self::release). Answers
    /// their heads and, of those whose position is `known`, the events after it; of partitions with too many, for `limit` in
    /// all, none. One round trip.
    pub async fn lock(
        &mut self,
        partitions: &[i16],
        known: &[(i16, i64)],
        limit: usize,
    ) -> Result<(HashMap<i16, Head>, Vec<StoredEvent>), StoreError> {
        self.holds_locks = true;
        let Connection { client, lock_heads, after, .. } = self.connection()?;
        // Sent together, in this order: with the heads locked, what follows sees all that was written before.
        let ((), heads, events) = tokio::try_join!(
            biased;
            append::begin(client),
            load::lock_heads(client, lock_heads, partitions),
            log::after(client, after, known, limit),
        )?;
        Ok((heads, events))
    }

    /// Lets go of what was locked and not appended to.
    pub async fn release(&mut self) {
        if !std::mem::take(&mut self.holds_locks) {
            return;
        }
        let Ok(client) = self.client() else { return };
        if append::rollback(client).await.is_err() {
            self.disconnect();
        }
    }

    /// Appends a batch. Answers the partitions that were refused; everything else is durable.
    pub async fn append(&mut self, batch: &Batch) -> Result<Vec<(i16, Refusal)>, StoreError> {
        let holds_locks = std::mem::take(&mut self.holds_locks);
        let Connection { client, append: statement, .. } = self.connection()?;
        let appended = if holds_locks {
            // Sent together, in this order. After an append that failed, the commit undoes the transaction.
            let (appended, committed) = tokio::join!(
                biased;
                append::append(client, statement, batch),
                append::commit(client),
            );
            appended.and_then(|refused| committed.map(|()| refused))
        } else {
            append::append(client, statement, batch).await
        };
        let is_closed = client.is_closed();
        match appended {
            // The connection broke with the transaction under way: only the log can tell whether it was committed.
            Err(StoreError::Unavailable(_)) if is_closed => self.find_out(batch).await,
            appended => appended,
        }
    }

    async fn find_out(&mut self, batch: &Batch) -> Result<Vec<(i16, Refusal)>, StoreError> {
        for pause_ms in FIND_OUT_MS {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            if self.connect().await.is_err() {
                continue;
            }
            let Some(connection) = &mut self.connection else { continue };
            let Ok(tx) = connection.client.transaction().await else { continue };
            if let Ok(refused) = load::not_committed(&tx, batch).await {
                return Ok(refused.into_iter().map(|partition_id| (partition_id, Refusal::Stale)).collect());
            }
        }
        Err(StoreError::OutcomeUnknown)
    }
}
