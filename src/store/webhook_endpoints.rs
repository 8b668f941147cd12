//! Endpoints of outbound webhooks, and the secrets that what goes to them is signed with.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::error::StoreError;

/// An endpoint, but for its secrets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WebhookEndpoint {
    pub id: String,
    pub url: String,
    pub description: Option<String>,
    /// Filters; none: all types.
    pub event_types: Vec<String>,
    /// `enabled` or `disabled`.
    pub status: String,
    /// Why it is disabled: `requested`, `failing` or `gone`.
    pub disabled_reason: Option<String>,
    pub disabled_at: Option<DateTime<Utc>>,
    /// First failed attempt since the last one that went well.
    pub failing_since: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Events after these positions are for it.
    #[serde(skip)]
    pub begins: Vec<i64>,
}

/// What may be changed of an endpoint; `None`: it stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointChange {
    pub url: Option<String>,
    pub description: Option<Option<String>>,
    pub event_types: Option<Vec<String>>,
    pub is_enabled: Option<bool>,
}

const COLUMNS: &str = "endpoint_id, url, description, event_types, status, disabled_reason, disabled_at, failing_since,
    created_at, updated_at, begins";

fn endpoint(row: &Row) -> WebhookEndpoint {
    WebhookEndpoint {
        id: row.get(0),
        url: row.get(1),
        description: row.get(2),
        event_types: row.get(3),
        status: row.get(4),
        disabled_reason: row.get(5),
        disabled_at: row.get(6),
        failing_since: row.get(7),
        created_at: row.get(8),
        updated_at: row.get(9),
        begins: row.get(10),
    }
}

/// Adds an endpoint, unless there are so many already; `false`: there are.
pub async fn create(
    client: &impl GenericClient,
    endpoint: &WebhookEndpoint,
    secret: &[u8],
    max: i64,
) -> Result<bool, StoreError> {
    let created = client
        .execute(
            "/* create_webhook_endpoint */ with created as (
                 insert into webhook_endpoints (endpoint_id, url, description, event_types, status, begins, created_at,
                     updated_at)
                 select $1::text, $2::text, $3::text, $4::text[], $5::text, $6::bigint[], $7::timestamptz, $7
                 where (select count(*) from webhook_endpoints) < $9
                 returning endpoint_id)
             insert into webhook_secrets (endpoint_id, secret, created_at) select endpoint_id, $8::bytea, $7 from created",
            &[
                &endpoint.id,
                &endpoint.url,
                &endpoint.description,
                &endpoint.event_types,
                &endpoint.status,
                &endpoint.begins,
                &endpoint.created_at,
                &secret,
                &max,
            ],
        )
        .await?;
    Ok(created == 1)
}

/// All endpoints, oldest first.
pub async fn list(client: &impl GenericClient) -> Result<Vec<WebhookEndpoint>, StoreError> {
    let statement = format!(
        "/* list_webhook_endpoints */ select {COLUMNS} from webhook_endpoints order by created_at, endpoint_id"
    );
    let rows = client.query(&statement, &[]).await?;
    Ok(rows.iter().map(endpoint).collect())
}

/// Those that events are queued for now. No statement is prepared for it.
pub async fn enabled(client: &impl GenericClient) -> Result<Vec<WebhookEndpoint>, StoreError> {
    let statement =
        format!("/* enabled_webhook_endpoints */ select {COLUMNS} from webhook_endpoints where status = 'enabled'");
    let rows = client.query_typed(&statement, &[]).await?;
    Ok(rows.iter().map(endpoint).collect())
}

pub async fn get(client: &impl GenericClient, id: &str) -> Result<Option<WebhookEndpoint>, StoreError> {
    let statement =
        format!("/* get_webhook_endpoint */ select {COLUMNS} from webhook_endpoints where endpoint_id = $1");
    Ok(client.query_opt(&statement, &[&id]).await?.as_ref().map(endpoint))
}

/// Changes an endpoint; `None`: there is none. One that is enabled begins where the log ends, at `ends`.
pub async fn update(
    client: &impl GenericClient,
    id: &str,
    change: &EndpointChange,
    ends: &[i64],
    now: DateTime<Utc>,
) -> Result<Option<WebhookEndpoint>, StoreError> {
    let statement = format!(
        "/* update_webhook_endpoint */ update webhook_endpoints set
             url = coalesce($2, url),
             description = case when $3 then $4 else description end,
             event_types = coalesce($5, event_types),
             begins = case when $6 and status = 'disabled' then $7 else begins end,
             disabled_reason = case when $6 then null when not $6 and status = 'enabled' then 'requested'
                 else disabled_reason end,
             disabled_at = case when $6 then null when not $6 and status = 'enabled' then $8 else disabled_at end,
             failing_since = case when $6 and status = 'disabled' then null else failing_since end,
             status = case when $6 then 'enabled' when not $6 then 'disabled' else status end,
             updated_at = $8
         where endpoint_id = $1 returning {COLUMNS}"
    );
    let description = change.description.clone().flatten();
    let row = client
        .query_opt(
            &statement,
            &[
                &id,
                &change.url,
                &change.description.is_some(),
                &description,
                &change.event_types,
                &change.is_enabled,
                &ends,
                &now,
            ],
        )
        .await?;
    Ok(row.as_ref().map(endpoint))
}

/// Disables an endpoint by itself; `false`: it was not enabled.
pub async fn disable(
    client: &impl GenericClient,
    id: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let disabled = client
        .execute(
            "/* disable_webhook_endpoint */ update webhook_endpoints
             set status = 'disabled', disabled_reason = $2, disabled_at = $3, updated_at = $3
             where endpoint_id = $1 and status = 'enabled'",
            &[&id, &reason, &now],
        )
        .await?;
    Ok(disabled == 1)
}

/// Removes an endpoint with all its deliveries; `false`: there is none.
pub async fn delete(client: &impl GenericClient, id: &str) -> Result<bool, StoreError> {
    let statement = "/* delete_webhook_endpoint */ delete from webhook_endpoints where endpoint_id = $1";
    Ok(client.execute(statement, &[&id]).await? == 1)
}

/// Notes that an attempt failed, or that one went well. Answers since when attempts have been failing.
pub async fn note_attempt(
    client: &impl GenericClient,
    id: &str,
    failed_at: Option<DateTime<Utc>>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let row = client
        .query_opt(
            "/* note_attempt */ update webhook_endpoints
             set failing_since = case when $2::timestamptz is null then null else coalesce(failing_since, $2) end
             where endpoint_id = $1 and (failing_since is null) <> ($2::timestamptz is null)
             returning failing_since",
            &[&id, &failed_at],
        )
        .await?;
    match row {
        Some(row) => Ok(row.get(0)),
        // Nothing changed: it has been failing, or well, all along.
        None if failed_at.is_none() => Ok(None),
        None => Ok(get(client, id).await?.and_then(|endpoint| endpoint.failing_since)),
    }
}

/// Replaces an endpoint's secret, within a transaction: the ones before are good until `overlap_ends`. `false`: there is no
/// such endpoint.
pub async fn rotate(
    client: &impl GenericClient,
    id: &str,
    secret: &[u8],
    now: DateTime<Utc>,
    overlap_ends: DateTime<Utc>,
) -> Result<bool, StoreError> {
    // Locked first, so that two who rotate at once do not miss each other's secret.
    let lock = "/* lock_webhook_endpoint */ select from webhook_endpoints where endpoint_id = $1 for update";
    if client.query_opt(lock, &[&id]).await?.is_none() {
        return Ok(false);
    }
    client
        .execute(
            "/* expire_webhook_secrets */ update webhook_secrets set expires_at = least(coalesce(expires_at, $2), $2)
             where endpoint_id = $1",
            &[&id, &overlap_ends],
        )
        .await?;
    client
        .execute(
            "/* add_webhook_secret */ insert into webhook_secrets (endpoint_id, secret, created_at) values ($1, $2, $3)",
            &[&id, &secret, &now],
        )
        .await?;
    Ok(true)
}

/// The secrets that are good at a time, newest first, as they are stored.
pub async fn secrets(client: &impl GenericClient, id: &str, now: DateTime<Utc>) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = client
        .query_typed(
            "/* webhook_secrets */ select secret from webhook_secrets
             where endpoint_id = $1 and (expires_at is null or expires_at > $2) order by secret_id desc",
            &[(&id, Type::TEXT), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A secret as it is stored.
#[derive(Debug)]
pub struct StoredSecret {
    pub secret_id: i64,
    pub endpoint: String,
    pub secret: Vec<u8>,
}

/// Every secret there is.
pub async fn all_secrets(client: &impl GenericClient) -> Result<Vec<StoredSecret>, StoreError> {
    let rows = client
        .query(
            "/* all_webhook_secrets */ select secret_id, endpoint_id, secret from webhook_secrets order by secret_id",
            &[],
        )
        .await?;
    let stored = |row: &Row| StoredSecret { secret_id: row.get(0), endpoint: row.get(1), secret: row.get(2) };
    Ok(rows.iter().map(stored).collect())
}

/// Stores a secret in another form.
pub async fn put_secret(client: &impl GenericClient, secret_id: i64, secret: &[u8]) -> Result<(), StoreError> {
    let statement = "/* put_webhook_secret */ update webhook_secrets set secret = $2 where secret_id = $1";
    client.execute(statement, &[&secret_id, &secret]).await?;
    Ok(())
}

/// How many endpoints there are, by status.
pub async fn count(client: &impl GenericClient) -> Result<(i64, i64), StoreError> {
    let row = client
        .query_one(
            "/* count_webhook_endpoints */ select count(*) filter (where status = 'enabled'),
                 count(*) filter (where status = 'disabled') from webhook_endpoints",
            &[],
        )
        .await?;
    Ok((row.get(0), row.get(1)))
}
