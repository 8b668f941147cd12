//! `/v1/webhook-endpoints…`: where callers want to be told of events.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;

use super::events::Cursor;
use super::fields::{or_default, time_if_given};
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, parse_json, plain_id, read_body};
use super::server::State;
use crate::app::outbound::{NewEndpoint, ReplayFrom};
use crate::domain::message::is_known_filter;
use crate::store::webhook_endpoints::{self, EndpointChange};

const MAX_FILTERS: usize = 100;
const MAX_DESCRIPTION_CHARS: usize = 200;
/// How long the secret before is good after a rotation, unless told otherwise, and at most.
const OVERLAP_SECONDS: i64 = 86_400;
const MAX_OVERLAP_SECONDS: i64 = 30 * 86_400;

fn invalid(field: &str, problem: impl Into<String>) -> ApiError {
    ApiError::InvalidParameter { field: field.to_owned(), problem: problem.into() }
}

fn not_found(id: &str) -> ApiError {
    ApiError::NotFound { what: "webhook endpoint", id: id.to_owned() }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostEndpoint {
    url: String,
    description: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    event_types: Vec<String>,
}

/// Makes an endpoint. Its secret is shown in this answer, and never again.
pub async fn create(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body: PostEndpoint = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    state.service.check_webhook_url(&body.url).map_err(|problem| invalid("url", problem))?;
    let PostEndpoint { url, description, event_types } = body;
    let new = NewEndpoint { url, description: checked_description(description)?, event_types: filters(event_types)? };
    let (endpoint, secret) = state.service.create_webhook_endpoint(new).await?;
    let mut view = serde_json::to_value(endpoint).map_err(|_| ApiError::Internal)?;
    view["secret"] = json!(secret);
    Ok(HttpResponse::Created().json(view))
}

fn checked_description(description: Option<String>) -> Result<Option<String>, ApiError> {
    let is_unfit = |text: &String| text.chars().count() > MAX_DESCRIPTION_CHARS || text.chars().any(char::is_control);
    if description.as_ref().is_some_and(is_unfit) {
        let problem = format!("must have at most {MAX_DESCRIPTION_CHARS} characters, and no control characters");
        return Err(invalid("description", problem));
    }
    Ok(description)
}

fn filters(mut filters: Vec<String>) -> Result<Vec<String>, ApiError> {
    if filters.len() > MAX_FILTERS {
        return Err(invalid("event_types", format!("must be at most {MAX_FILTERS}")));
    }
    if let Some(unknown) = filters.iter().find(|filter| !is_known_filter(filter)) {
        let problem = format!("{unknown:?} is no type, nor the beginning of one and a `*`; /docs lists them");
        return Err(invalid("event_types", problem));
    }
    filters.sort();
    filters.dedup();
    Ok(filters)
}

/// All endpoints, oldest first.
pub async fn list(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let client = state.service.connection().await?;
    Ok(HttpResponse::Ok().json(json!({"data": webhook_endpoints::list(&**client).await?})))
}

pub async fn get(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let client = state.service.connection().await?;
    let endpoint = webhook_endpoints::get(&**client, id).await?.ok_or_else(|| not_found(id))?;
    Ok(HttpResponse::Ok().json(endpoint))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchEndpoint {
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    description: Option<Option<String>>,
    event_types: Option<Vec<String>>,
    enabled: Option<bool>,
}

/// Tells null from absence.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// Changes what is given; the same twice is the same once.
pub async fn update(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let body: PatchEndpoint = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    if let Some(url) = &body.url {
        state.service.check_webhook_url(url).map_err(|problem| invalid("url", problem))?;
    }
    let change = EndpointChange {
        url: body.url,
        description: body.description.map(checked_description).transpose()?,
        event_types: body.event_types.map(filters).transpose()?,
        is_enabled: body.enabled,
    };
    let endpoint = state.service.update_webhook_endpoint(id, &change).await?.ok_or_else(|| not_found(id))?;
    Ok(HttpResponse::Ok().json(endpoint))
}

/// Removes an endpoint, its secrets and its deliveries.
pub async fn delete(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let client = state.service.connection().await?;
    if !webhook_endpoints::delete(&**client, id).await? {
        return Err(not_found(id));
    }
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostRotation {
    overlap_seconds: Option<i64>,
}

/// Gives an endpoint a new secret. Until the overlap ends, deliveries are signed with both.
pub async fn rotate_secret(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostRotation = if body.is_empty() { PostRotation::default() } else { parse_json(&body)? };
    let seconds = body.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    if !(0..=MAX_OVERLAP_SECONDS).contains(&seconds) {
        return Err(invalid("overlap_seconds", format!("must be from 0 to {MAX_OVERLAP_SECONDS}")));
    }
    let rotated = state.service.rotate_webhook_secret(id, TimeDelta::seconds(seconds)).await?;
    let (secret, previous_expires_at) = rotated.ok_or_else(|| not_found(id))?;
    Ok(HttpResponse::Ok().json(json!({"id": id, "secret": secret, "previous_expires_at": previous_expires_at})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostReplay {
    after: Option<String>,
    #[serde(default, deserialize_with = "time_if_given")]
    since: Option<DateTime<Utc>>,
}

/// Sends again what the endpoint wants of the log, from a cursor or a time on.
pub async fn replay(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let body: PostReplay = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    let from = match (body.after, body.since) {
        (Some(after), None) => match Cursor::of_log(Some(&after), state.service.partitions) {
            Some(Cursor::Log(positions)) => ReplayFrom::Positions(positions),
            _ => return Err(invalid("after", "must be a next_cursor that the whole feed, /v1/events, gave")),
        },
        (None, Some(since)) => ReplayFrom::Time(since),
        _ => return Err(invalid("since", "give either since, a time, or after, a cursor of /v1/events")),
    };
    let replay = state.service.replay_webhooks(id, from).await?.ok_or_else(|| not_found(id))?;
    Ok(HttpResponse::Accepted().json(replay))
}
