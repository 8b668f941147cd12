//! The contract, to read and to load.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use serde_json::Value;

use super::problem::ApiError;

const OPENAPI: &str = include_str!("../../openapi.yaml");
const PAGE: &str = include_str!("docs.html");

pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/yaml").body(OPENAPI)
}

/// The same as JSON, made from the YAML once: browsers read no YAML.
static OPENAPI_JSON: LazyLock<Option<String>> =
    LazyLock::new(|| serde_saphyr::from_str::<Value>(OPENAPI).ok().map(|document| document.to_string()));

pub async fn openapi_json() -> Result<HttpResponse, ApiError> {
    let document = OPENAPI_JSON.as_ref().ok_or(ApiError::Internal)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(document.as_str()))
}

/// A page that shows the contract, without fetching anything from elsewhere.
pub async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        ))
        .body(PAGE)
}
