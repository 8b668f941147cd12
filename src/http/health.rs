//! For probes and Prometheus.

use actix_web::{HttpResponse, web};
use prometheus::{Encoder, TextEncoder};
use serde_json::json;

use super::problem::ApiError;
use super::server::State;
use crate::store::inbox;

/// The process lives. Depends on nothing else.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// The service can do its work: the database answers, and it is not stopping.
pub async fn ready(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    if state.is_stopping() {
        return Err(ApiError::App(crate::app::error::AppError::Stopping));
    }
    state.service.ping().await?;
    Ok(HttpResponse::Ok().json(json!({"status": "ready"})))
}

/// Metrics in Prometheus' text format. Answers also while the database does not.
pub async fn metrics(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let service = &state.service;
    if service.ping().await.is_ok()
        && let Ok(client) = service.connection().await
        && let Ok(parked) = inbox::count_parked(&**client).await
    {
        service.metrics.parked.set(parked);
        drop(client);
        let _ = service.measure_webhooks().await;
    }
    service.measure_memory();
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    encoder.encode(&service.metrics.registry.gather(), &mut body).map_err(|_| ApiError::Internal)?;
    Ok(HttpResponse::Ok().content_type(encoder.format_type()).body(body))
}
