//! `POST /webhooks/stripe`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::problem::ApiError;
use super::request::read_body;
use super::server::State;
use crate::stripe::signature;

/// Stripe's own bodies stay far below.
const MAX_WEBHOOK_BYTES: usize = 1024 * 1024;

/// Takes in a StripeEvent. 200 means it is kept, whatever became of it.
pub async fn receive(
    request: HttpRequest,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let service = &state.service;
    if service.stripe.webhook_secrets.is_empty() {
        return Err(ApiError::StripeNotConfigured);
    }
    let body = read_body(payload, MAX_WEBHOOK_BYTES).await?;
    let header = request.headers().get("stripe-signature").and_then(|header| header.to_str().ok());
    let now = service.clock.now().timestamp();
    let verified = signature::verify(&body, header, &service.stripe.webhook_secrets, now);
    if let Err(error) = verified {
        service.metrics.count_stripe_event("unverified", "refused");
        return Err(error.into());
    }
    let received = service.receive(body).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({"received": true, "status": received})))
}
