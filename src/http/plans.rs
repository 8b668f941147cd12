//! What is for sale.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};

use super::page::PageQuery;
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, parse_json, parse_strictly, read_body};
use super::server::State;
use crate::app::catalog::ActiveCatalog;

/// All plans, by rank.
pub async fn list(query: web::Query<PageQuery>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let catalog = catalog(&query, &state).await?;
    Ok(for_sale(&catalog, json!(catalog.catalog.plans)))
}

async fn catalog(query: &PageQuery, state: &State) -> Result<Arc<ActiveCatalog>, ApiError> {
    let (min_position, consistency) = (query.min_position()?, query.consistency()?);
    Ok(state.service.catalog_now(min_position, consistency).await?)
}

fn for_sale(ActiveCatalog { catalog, digest }: &ActiveCatalog, data: Value) -> HttpResponse {
    let scale = catalog.credit_display_scale;
    HttpResponse::Ok().json(json!({"data": data, "credit_display_scale": scale, "catalog": digest}))
}

pub async fn get(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let catalog = catalog(&query, &state).await?;
    let not_found = || ApiError::NotFound { what: "plan", id: path.to_string() };
    let plan = catalog.catalog.plan(&path).ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(plan))
}

/// Puts a plan into the catalog.
pub async fn put(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = path.into_inner();
    let mut body: Map<String, Value> = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    if body.entry("id").or_insert_with(|| json!(id)) != &json!(id) {
        let problem = "must be that of the path, or be left out".to_owned();
        return Err(ApiError::InvalidParameter { field: "id".to_owned(), problem });
    }
    let applied = state.service.put_plan(parse_strictly(Value::Object(body))?).await?;
    let plan = applied.active.catalog.plan(&id);
    Ok(HttpResponse::Ok().json(json!({"plan": plan, "catalog": applied.active.digest, "position": applied.position})))
}

/// All credit packs.
pub async fn list_credit_packs(
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let catalog = catalog(&query, &state).await?;
    Ok(for_sale(&catalog, json!(catalog.catalog.credit_packs)))
}
