//! `/v1/receipts/{receipt}`: why a decision was as it was.

use actix_web::{HttpResponse, web};

use super::page::PageQuery;
use super::problem::ApiError;
use super::server::State;

/// Explains a decision, by its receipt, or by the id of a debit or a hold.
pub async fn get(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let min_position = query.min_position()?;
    let explained = state.service.explain_id(&path).await?;
    // What was decided stays as it was.
    state.service.wait_for_position(explained.partition, min_position).await?;
    Ok(HttpResponse::Ok().json(explained))
}
