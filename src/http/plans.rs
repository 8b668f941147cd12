//! What is for sale.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::problem::ApiError;
use super::server::State;

/// All plans, by rank.
pub async fn list(state: web::Data<State>) -> HttpResponse {
    let catalog = state.service.catalog.current();
    HttpResponse::Ok().json(json!({"data": catalog.catalog.plans, "catalog": catalog.digest}))
}

pub async fn get(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let catalog = state.service.catalog.current();
    let not_found = || ApiError::NotFound { what: "plan", id: path.to_string() };
    let plan = catalog.catalog.plan(&path).ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(plan))
}

/// All credit packs.
pub async fn list_credit_packs(state: web::Data<State>) -> HttpResponse {
    let catalog = state.service.catalog.current();
    HttpResponse::Ok().json(json!({"data": catalog.catalog.credit_packs, "catalog": catalog.digest}))
}
