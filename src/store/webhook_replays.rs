//! Replays: stretches of the log that an endpoint is sent again, queued piece by piece.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::cursors::{Positions, array, positions};
use super::error::StoreError;
use super::webhook_deliveries;

/// A replay as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Replay {
    pub id: Uuid,
    pub endpoint: String,
    /// Messages queued so far.
    pub queued: i64,
    pub created_at: DateTime<Utc>,
    /// Everything is queued.
    pub ended_at: Option<DateTime<Utc>>,
    /// How far it has come.
    #[serde(skip)]
    pub positions: Positions,
    #[serde(skip)]
    pub upto: Positions,
}

/// Adds a replay of what lies after some positions, up to others.
pub async fn create(client: &impl GenericClient, replay: &Replay) -> Result<(), StoreError> {
    client
        .execute(
            "/* create_replay */ insert into webhook_replays (replay_id, endpoint_id, positions, upto, created_at)
             values ($1, $2, $3, $4, $5)",
            &[&replay.id, &replay.endpoint, &array(&replay.positions), &array(&replay.upto), &replay.created_at],
        )
        .await?;
    Ok(())
}

/// Takes a replay that is under way, within a transaction; none that somebody else has in hand.
pub async fn take(client: &impl GenericClient) -> Result<Option<Replay>, StoreError> {
    let oldest = "/* oldest_replay */ select endpoint_id from webhook_replays where ended_at is null
         order by created_at limit 1";
    let Some(endpoint) = client.query_opt(oldest, &[]).await?.map(|row| row.get::<_, String>(0)) else {
        return Ok(None);
    };
    // The endpoint first, as whoever removes it has it: else each could wait for the other.
    webhook_deliveries::keep_endpoint(client, &endpoint).await?;
    let row = client
        .query_opt(
            "/* take_replay */ select replay_id, endpoint_id, queued, created_at, positions, upto from webhook_replays
             where ended_at is null and endpoint_id = $1 order by created_at limit 1 for update skip locked",
            &[&endpoint],
        )
        .await?;
    Ok(row.map(|row| Replay {
        id: row.get(0),
        endpoint: row.get(1),
        queued: row.get(2),
        created_at: row.get(3),
        ended_at: None,
        positions: positions(row.get(4)),
        upto: positions(row.get(5)),
    }))
}

/// Notes how far a replay has come, within the transaction that queued what lies before.
pub async fn advance(
    client: &impl GenericClient,
    id: Uuid,
    to: &Positions,
    queued: i64,
    ended_at: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* advance_replay */ update webhook_replays set positions = $2, queued = queued + $3, ended_at = $4
             where replay_id = $1",
            &[&id, &array(to), &queued, &ended_at],
        )
        .await?;
    Ok(())
}
