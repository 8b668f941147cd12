//! Giving payments back.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::fields::amount_if_given;
use super::payment_routes;
use super::problem::ApiError;
use super::request::{keyed_json_or_default, stripe_id};
use super::server::State;
use crate::app::selling::refunds::RefundReason;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostRefund {
    #[serde(default, deserialize_with = "amount_if_given")]
    amount: Option<i64>,
    reason: Option<RefundReason>,
}

/// Gives a payment back, as a whole or in part.
pub async fn create(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let payment = stripe_id("payment", &path)?.to_owned();
    let (key, body) = keyed_json_or_default::<PostRefund>(&request, payload).await?;
    if body.amount.is_some_and(|amount| amount < 1) {
        let problem = "must be a whole number from 1, in minor units of the payment's currency".to_owned();
        return Err(ApiError::InvalidParameter { field: "amount".to_owned(), problem });
    }
    let account = state.service.owner_of_payment(&payment).await?;
    payment_routes::run(&state, StatusCode::CREATED, &account, key, async |errand| {
        state.service.refund(errand, &payment, body.amount, body.reason).await
    })
    .await
}
