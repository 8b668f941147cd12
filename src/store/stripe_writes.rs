//! Requests to Stripe, kept before they are sent.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use super::append::Digest;
use super::error::StoreError;

/// A request that changes something at Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeWrite {
    /// Digest of the caller's request.
    pub request: Digest,
    /// `POST` or `DELETE`.
    pub method: String,
    pub path: String,
    /// Form-encoded.
    pub body: Option<String>,
}

/// The write that was kept under a caller's key for an operation.
pub async fn get(client: &impl GenericClient, key: Digest, operation: &str) -> Result<Option<StripeWrite>, StoreError> {
    let row = client
        .query_opt(
            "/* stripe_write */ select request, method, path, body from stripe_writes where key = $1 and operation = $2",
            &[&key, &operation],
        )
        .await?;
    let write = |row: tokio_postgres::Row| StripeWrite {
        request: row.get(0),
        method: row.get(1),
        path: row.get(2),
        body: row.get(3),
    };
    Ok(row.map(write))
}

/// Keeps a write, and answers the one that is kept: somebody else may have been first.
pub async fn put(
    client: &impl GenericClient,
    key: Digest,
    operation: &str,
    write: StripeWrite,
) -> Result<StripeWrite, StoreError> {
    let StripeWrite { request, method, path, body } = &write;
    let inserted = client
        .execute(
            "/* put_stripe_write */ insert into stripe_writes (key, operation, request, method, path, body)
             values ($1, $2, $3, $4, $5, $6) on conflict (key, operation) do nothing",
            &[&key, &operation, request, method, path, body],
        )
        .await?;
    if inserted == 1 {
        return Ok(write);
    }
    Ok(get(client, key, operation).await?.unwrap_or(write))
}

/// Drops writes of before a moment: Stripe forgets its keys after a day or so, and repeats come sooner.
pub async fn prune(client: &impl GenericClient, before: DateTime<Utc>) -> Result<u64, StoreError> {
    Ok(client.execute("/* prune_stripe_writes */ delete from stripe_writes where created_at < $1", &[&before]).await?)
}
