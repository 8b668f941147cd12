//! `/v1/receipts/{receipt}`: why a decision was as it was.

use actix_web::{HttpResponse, web};

use super::problem::ApiError;
use super::server::State;

/// Explains a decision, by its receipt, or by the id of a debit or a hold.
pub async fn get(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(state.service.explain_id(&path).await?))
}
