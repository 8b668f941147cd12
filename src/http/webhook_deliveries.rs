//! `/v1/webhook-endpoints/{endpoint}/deliveries…`: what became of each message.

use actix_web::{HttpResponse, web};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::json;

use super::page::{Cursor, Page};
use super::problem::ApiError;
use super::request::{account_id, number, plain_id};
use super::server::State;
use crate::store::webhook_deliveries::{self, DeliveryFilter};
use crate::store::webhook_endpoints;

const STATUSES: [&str; 3] = ["pending", "delivered", "dead"];

#[derive(Debug, Deserialize)]
pub struct DeliveriesQuery {
    status: Option<String>,
    account: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

fn not_found(what: &'static str, id: &str) -> ApiError {
    ApiError::NotFound { what, id: id.to_owned() }
}

/// An endpoint's deliveries, newest first.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<DeliveriesQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let id = plain_id(&path, "endpoint")?;
    let limit = number(query.limit.as_deref(), "limit", 50, 1, 500)?;
    if query.status.as_ref().is_some_and(|status| !STATUSES.contains(&status.as_str())) {
        let problem = format!("must be one of {}", STATUSES.join(", "));
        return Err(ApiError::InvalidParameter { field: "status".to_owned(), problem });
    }
    let account = query.account.as_deref().map(account_id).transpose()?;
    let account = match account {
        Some(account) => Some(state.service.resolve(&account).await?.as_str().to_owned()),
        None => None,
    };
    let filter = DeliveryFilter { status: query.status.clone(), account };
    let cursor = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let before = match &cursor {
        None => None,
        Some(cursor) => {
            let at = DateTime::from_timestamp_micros(cursor.at_us).ok_or_else(Cursor::invalid)?;
            Some((at, cursor.id.as_str()))
        }
    };
    let client = state.service.connection().await?;
    webhook_endpoints::get(&**client, id).await?.ok_or_else(|| not_found("webhook endpoint", id))?;
    let deliveries = webhook_deliveries::list(&**client, id, &filter, before, limit + 1).await?;
    let cursor_of = |row: &webhook_deliveries::Delivery| Cursor {
        at_us: row.created_at.timestamp_micros(),
        id: row.message_id.clone(),
    };
    let rows = deliveries.into_iter().map(|row| (cursor_of(&row), row)).collect();
    Ok(HttpResponse::Ok().json(Page::of(rows, limit)))
}

/// One delivery with all its attempts.
pub async fn get(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let (endpoint, message) = path.into_inner();
    let (endpoint, message) = (plain_id(&endpoint, "endpoint")?, plain_id(&message, "message")?);
    let client = state.service.connection().await?;
    let found = webhook_deliveries::get(&**client, endpoint, message).await?;
    let (delivery, attempts) = found.ok_or_else(|| not_found("delivery", message))?;
    let mut view = serde_json::to_value(delivery).map_err(|_| ApiError::Internal)?;
    view["attempt_log"] = json!(attempts);
    Ok(HttpResponse::Ok().json(view))
}

/// Tries a delivery again, whatever became of it.
pub async fn retry(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let (endpoint, message) = path.into_inner();
    let (endpoint, message) = (plain_id(&endpoint, "endpoint")?, plain_id(&message, "message")?);
    if !state.service.retry_delivery(endpoint, message).await? {
        return Err(not_found("delivery", message));
    }
    Ok(HttpResponse::Accepted().json(json!({"message_id": message, "status": "pending"})))
}
