//! Queueing again what endpoints ask for again, piece by piece, so that a replay of years is no longer a transaction, and
//! goes on where it was when the service starts again. Any replica may do the next piece.

use std::sync::Arc;
use std::time::Duration;

use super::Outbound;
use super::message;
use crate::domain::message::{MESSAGE_TYPES, wants};
use crate::store::cursors::Positions;
use crate::store::error::StoreError;
use crate::store::webhook_deliveries::{self, Message, Repeat};
use crate::store::webhook_endpoints::{self, WebhookEndpoint};
use crate::store::{notifications, read, webhook_replays};

/// Between two looks for replays.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Events of one piece.
const PIECE: i64 = 500;

/// Works until the service stops.
pub(super) async fn run(outbound: Arc<Outbound>) {
    let mut is_failing = false;
    while !outbound.is_stopping() {
        let queued = queue_piece(&outbound).await;
        if let Err(error) = &queued
            && !is_failing
        {
            tracing::warn!(%error, "a replay cannot go on; trying again");
        }
        is_failing = queued.is_err();
        if !matches!(queued, Ok(true)) {
            outbound.pause(LOOK_EVERY).await;
        }
    }
}

/// Queues the next piece of the oldest replay; `false`: there is none.
async fn queue_piece(outbound: &Outbound) -> Result<bool, StoreError> {
    let mut client = outbound.connection().await?;
    let tx = client.transaction().await?;
    let Some(replay) = webhook_replays::take(&*tx).await? else { return Ok(false) };
    let now = outbound.clock.now();
    let Some(endpoint) = webhook_endpoints::get(&*tx, &replay.endpoint).await? else { return Ok(false) };
    let (mut messages, reached) = piece(&*tx, &endpoint, &replay.positions, &replay.upto).await?;
    let told = notifications::between(&*tx, &replay.positions, &reached).await?;
    messages.extend(told.into_iter().filter(|told| wants(&endpoint.event_types, &told.message_type)));
    let addressed: Vec<(&str, &Message)> = messages.iter().map(|message| (endpoint.id.as_str(), message)).collect();
    let queued = webhook_deliveries::queue(&*tx, &addressed, Repeat::Again, now).await?;
    let is_over = reached.iter().zip(&replay.upto).all(|(at, end)| at.1 >= end.1);
    let queued = i64::try_from(queued).unwrap_or(0);
    webhook_replays::advance(&*tx, replay.id, &reached, queued, is_over.then_some(now)).await?;
    tx.commit().await?;
    outbound.wake.notify_waiters();
    Ok(true)
}

/// The next events that an endpoint wants, and how far they go.
async fn piece(
    client: &impl tokio_postgres::GenericClient,
    endpoint: &WebhookEndpoint,
    positions: &Positions,
    upto: &Positions,
) -> Result<(Vec<Message>, Positions), StoreError> {
    let is_of_log = |name: &&&str| !name.starts_with("notification.") && wants(&endpoint.event_types, name);
    let types: Vec<String> = match endpoint.event_types.is_empty() {
        true => Vec::new(),
        false => MESSAGE_TYPES.iter().filter(is_of_log).map(|name| (*name).to_owned()).collect(),
    };
    if types.is_empty() && !endpoint.event_types.is_empty() {
        return Ok((Vec::new(), upto.clone()));
    }
    let page = read::feed(client, positions, &types, PIECE).await?;
    let end_of = |partition: i16| upto.iter().find(|(id, _)| *id == partition).map_or(0, |(_, end)| *end);
    let within = page.events.iter().filter(|event| event.position <= end_of(event.partition_id));
    let messages = within.map(message::of_event).collect();
    let reached = page.positions.into_iter().map(|(id, at)| (id, at.min(end_of(id)))).collect();
    Ok((messages, reached))
}
