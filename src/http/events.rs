//! The feed of the log: gapless, in order within each partition.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::problem::ApiError;
use super::reading;
use super::request::{account_id, number, plain_id};
use super::server::State;
use crate::app::reads::AccountNow;
use crate::store::log::{self, StoredEvent};
use crate::store::read;

#[derive(Debug, Deserialize)]
pub struct FeedQuery {
    after: Option<String>,
    account: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    limit: Option<String>,
    min_position: Option<String>,
}

const MAX_EVENTS: i64 = 1_000;

/// Events after a cursor; of one account, if one is named. Ask again with `next_cursor`: it never skips an event.
pub async fn list(query: web::Query<FeedQuery>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let limit = number(query.limit.as_deref(), "limit", 100, 1, MAX_EVENTS)?;
    let min_position = reading::min_position(query.min_position.as_deref())?;
    let types = query.event_type.iter().flat_map(|types| types.split(','));
    let types: Vec<String> = types.map(|name| plain_id(name, "type").map(str::to_owned)).collect::<Result<_, _>>()?;
    let (events, next) = match &query.account {
        Some(account) => {
            let account = state.service.account_now(&account_id(account)?, min_position).await?;
            of_account(&state, &account, query.after.as_deref(), &types, limit).await?
        }
        None => of_all(&state, query.after.as_deref(), &types, limit).await?,
    };
    let has_more = events.len() as i64 == limit;
    let data: Vec<Value> = events.iter().map(view).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(json!({"data": data, "has_more": has_more, "next_cursor": next})))
}

fn view(event: &StoredEvent) -> Result<Value, ApiError> {
    let payload: Box<RawValue> = RawValue::from_string(event.payload.clone()).map_err(|_| ApiError::Internal)?;
    Ok(json!({
        "partition": event.partition_id,
        "position": event.position,
        "account": event.account_id,
        "version": event.version,
        "type": event.event_type,
        "type_version": event.type_version,
        "at": event.at,
        "payload": payload,
    }))
}

fn invalid_cursor() -> ApiError {
    ApiError::InvalidParameter {
        field: "after".to_owned(),
        problem: "must be a next_cursor that this feed gave, with the same account".to_owned(),
    }
}

async fn of_account(
    state: &State,
    account: &AccountNow,
    after: Option<&str>,
    types: &[String],
    limit: i64,
) -> Result<(Vec<StoredEvent>, String), ApiError> {
    let after = after.map_or(Some(0), |after| after.parse::<i64>().ok().filter(|version| *version >= 0));
    let after = after.ok_or_else(invalid_cursor)?;
    let client = state.service.connection().await?;
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    let events = log::of_account(&**client, account.id.as_str(), after, &types, limit).await?;
    let next = events.last().map_or(after, |event| event.version).to_string();
    Ok((events, next))
}

/// The cursor of the whole feed names each partition's position, in order, joined by dots.
async fn of_all(
    state: &State,
    after: Option<&str>,
    types: &[String],
    limit: i64,
) -> Result<(Vec<StoredEvent>, String), ApiError> {
    let partitions = state.service.partitions;
    let mut positions: Vec<i64> = match after {
        None => vec![0; usize::from(partitions.unsigned_abs())],
        Some(cursor) => {
            let positions = cursor.split('.').map(|position| position.parse::<i64>().ok().filter(|p| *p >= 0));
            positions.collect::<Option<_>>().ok_or_else(invalid_cursor)?
        }
    };
    if positions.len() != usize::from(partitions.unsigned_abs()) {
        return Err(invalid_cursor());
    }
    let cursor: Vec<(i16, i64)> = (0..partitions).zip(positions.iter().copied()).collect();
    let client = state.service.connection().await?;
    let events = read::feed(&**client, &cursor, types, limit).await?;
    for event in &events {
        let position = &mut positions[usize::from(event.partition_id.unsigned_abs())];
        *position = (*position).max(event.position);
    }
    let next = positions.iter().map(i64::to_string).collect::<Vec<_>>().join(".");
    Ok((events, next))
}
