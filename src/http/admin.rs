//! `/v1/admin/…`: for operators.

use actix_web::{HttpResponse, web};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::{Cursor, Page, PageQuery};
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, account_id, parse_json, plain_id, read_body};
use super::server::State;
use crate::store::inbox;
use crate::store::keys::{self, Scope};

/// Parked StripeEvents, oldest first.
pub async fn list_parked(query: web::Query<PageQuery>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let limit = query.limit()?;
    let after =
        query.cursor()?.map(|cursor| (DateTime::from_timestamp_micros(cursor.at_us).unwrap_or_default(), cursor.id));
    let client = state.service.connection().await?;
    let parked = inbox::list_parked(&**client, after, limit + 1).await?;
    let rows = parked
        .into_iter()
        .map(|row| (Cursor { at_us: row.received_at.timestamp_micros(), id: row.stripe_event_id.clone() }, row));
    Ok(HttpResponse::Ok().json(Page::of(rows.collect(), limit)))
}

/// Tries one parked StripeEvent again.
pub async fn retry_parked(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "stripe_event")?;
    let received = state.service.retry_parked(id).await?;
    let received = received.ok_or_else(|| ApiError::NotFound { what: "parked StripeEvent", id: id.to_owned() })?;
    Ok(HttpResponse::Ok().json(json!({"stripe_event_id": id, "status": received})))
}

/// Tries all parked StripeEvents again.
pub async fn retry_all_parked(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let outcomes = state.service.retry_all_parked().await?;
    let data: Vec<Value> =
        outcomes.iter().map(|(id, received)| json!({"stripe_event_id": id, "status": received})).collect();
    Ok(HttpResponse::Ok().json(json!({"data": data})))
}

/// Starts verifying the log and every read model, in the background.
pub async fn start_verify(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Accepted().json(state.service.start_verify())
}

/// How far this replica's last verification is, and what it found.
pub async fn get_verify(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let job = state.service.last_verify().ok_or_else(|| no_job("verification"))?;
    Ok(HttpResponse::Ok().json(job))
}

/// Starts rebuilding the read models, in the background.
pub async fn start_rebuild(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Accepted().json(state.service.start_rebuild())
}

/// How far this replica's last rebuild is, and what it did.
pub async fn get_rebuild(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let job = state.service.last_rebuild().ok_or_else(|| no_job("rebuild"))?;
    Ok(HttpResponse::Ok().json(job))
}

fn no_job(what: &'static str) -> ApiError {
    ApiError::NotFound { what, id: "started on this replica".to_owned() }
}

/// Erases an account's profile and the bodies of the StripeEvents about it. Asking again erases what came since.
pub async fn erase_personal_data(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    Ok(HttpResponse::Ok().json(state.service.erase_personal_data(&account).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostKey {
    scope: Scope,
    name: Option<String>,
}

/// Makes an API key. It is shown in this answer, and never again.
pub async fn create_key(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostKey = parse_json(&body)?;
    if body.name.as_ref().is_some_and(|name| name.len() > 200 || name.chars().any(char::is_control)) {
        let problem = "must have at most 200 bytes, and no control characters".to_owned();
        return Err(ApiError::InvalidParameter { field: "name".to_owned(), problem });
    }
    let client = state.service.connection().await?;
    let (key_id, key) = keys::create(&**client, body.scope, body.name.as_deref()).await?;
    state.auth.forget();
    Ok(HttpResponse::Created().json(json!({"key_id": key_id, "key": key, "scope": body.scope, "name": body.name})))
}

pub async fn list_keys(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let client = state.service.connection().await?;
    Ok(HttpResponse::Ok().json(json!({"data": keys::list(&**client).await?})))
}

/// Revokes a key. This replica stops taking it at once, every other one within five seconds.
pub async fn revoke_key(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "key")?;
    let client = state.service.connection().await?;
    if !keys::revoke(&**client, id).await? {
        return Err(ApiError::NotFound { what: "live API key", id: id.to_owned() });
    }
    state.auth.forget();
    Ok(HttpResponse::NoContent().finish())
}
