//! What surrounds every request: an id, a log line, metrics, the right to ask, and a net under panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError, web};
use futures_util::FutureExt;
use uuid::Uuid;

use super::problem::ApiError;
use super::routes::RouteTable;
use super::server::State;

tokio::task_local! {
    static REQUEST_ID: String;
}

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Id of the request being answered.
pub fn request_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_else(|_| "none".to_owned())
}

/// Answers one request within all of the above.
pub async fn surround(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = incoming_id(&request).unwrap_or_else(|| Uuid::new_v4().to_string());
    REQUEST_ID.scope(id.clone(), answer(request, next, id)).await
}

async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    id: String,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let state = request.app_data::<web::Data<State>>().cloned();

    let permitted = match (&state, request.app_data::<web::Data<RouteTable>>()) {
        (Some(state), Some(routes)) => match routes.scope_of(&method, &route) {
            Some(Some(scope)) => state.auth.permit(&state.service, request.headers(), scope).await,
            _ => Ok(()),
        },
        _ => Ok(()),
    };
    let mut response = match permitted {
        Err(error) => request.into_response(error.error_response()),
        // The request may not be held on to here: routing needs it to itself.
        Ok(()) => match AssertUnwindSafe(next.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response.map_into_boxed_body(),
            Ok(Err(error)) => return Err(error),
            Err(_panic) => {
                tracing::error!(request_id = id, route, "a handler panicked");
                let mut response = ApiError::Internal.error_response();
                mark(response.headers_mut(), &id);
                count(state.as_ref(), &route, &method, response.status(), started);
                // The panic took the request with it, so there is nothing to put the response together with.
                return Err(InternalError::from_response("a handler panicked", response).into());
            }
        },
    };

    mark(response.headers_mut(), &id);
    let status = response.status();
    let seconds = count(state.as_ref(), &route, &method, status, started);
    // A line for each success would cost more than the success itself; metrics count those.
    if status.is_client_error() {
        tracing::info!(request_id = id, method = method.as_str(), route, status = status.as_u16(), "refused");
    } else {
        tracing::debug!(
            request_id = id,
            method = method.as_str(),
            route,
            status = status.as_u16(),
            seconds,
            "answered"
        );
    }
    Ok(response)
}

fn mark(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
}

/// Counts an answer, and says how many seconds it took.
fn count(state: Option<&web::Data<State>>, route: &str, method: &Method, status: StatusCode, started: Instant) -> f64 {
    let seconds = started.elapsed().as_secs_f64();
    if let Some(state) = state {
        let metrics = &state.service.metrics;
        metrics.http_requests.with_label_values(&[route, method.as_str(), status.as_str()]).inc();
        metrics.http_seconds.with_label_values(&[route, method.as_str()]).observe(seconds);
    }
    seconds
}

/// A caller's own id is taken over if it cannot spoil a log line.
fn incoming_id(request: &ServiceRequest) -> Option<String> {
    let id = request.headers().get(REQUEST_ID_HEADER)?.to_str().ok()?;
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
    (plain && (1..=128).contains(&id.len())).then(|| id.to_owned())
}
