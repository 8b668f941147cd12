//! The contract, to read and to load.

use actix_web::HttpResponse;

const OPENAPI: &str = include_str!("../../openapi.yaml");
const PAGE: &str = include_str!("docs.html");

pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/yaml").body(OPENAPI)
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
