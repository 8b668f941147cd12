//! What surrounds every request: an id and a net under panics; at a route, the right to ask, metrics and a log line.

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

use super::auth::Scope;
use super::problem::ApiError;
use super::server::State;

tokio::task_local! {
    static REQUEST_ID: String;
}

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Id of the request being answered.
pub fn request_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_else(|_| "none".to_owned())
}

/// Gives a request its id.
pub async fn surround(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = incoming_id(&request).unwrap_or_else(|| Uuid::new_v4().to_string());
    let mut response = REQUEST_ID.scope(id.clone(), next.call(request)).await?.map_into_boxed_body();
    mark(response.headers_mut(), &id);
    Ok(response)
}

fn mark(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
}

/// Answers a request of a known route: if its key may, counted and timed under the route's pattern, and also when the
/// handler panics.
///
/// The pattern is given, not asked of the router, which would match all of its patterns once more.
pub async fn at_route(
    route: &'static str,
    scopes: Vec<(Method, Option<Scope>)>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let state = request.app_data::<web::Data<State>>().cloned();
    let scope = scopes.iter().find(|(known, _)| *known == method).and_then(|(_, scope)| *scope);
    let permitted = match (&state, scope) {
        (Some(state), Some(scope)) => state.auth.permit(&state.service, request.headers(), scope).await,
        _ => Ok(()),
    };
    let answering = match permitted {
        Err(error) => Ok(Ok(request.into_response(error.error_response()))),
        Ok(()) => {
            let answered = AssertUnwindSafe(next.call(request)).catch_unwind().await;
            answered.map(|response| response.map(ServiceResponse::map_into_boxed_body))
        }
    };
    let Ok(response) = answering else {
        tracing::error!(request_id = request_id(), route, "a handler panicked");
        let mut response = ApiError::Internal.error_response();
        mark(response.headers_mut(), &request_id());
        count(state.as_ref(), route, &method, response.status(), started);
        // The panic took the request with it, so there is nothing to put the response together with.
        return Err(InternalError::from_response("a handler panicked", response).into());
    };
    let response = response?;
    count(state.as_ref(), route, &method, response.status(), started);
    Ok(response)
}

/// Counts an answer, and logs a line for it. A line for each success would cost more than the success itself; metrics
/// count those.
fn count(state: Option<&web::Data<State>>, route: &'static str, method: &Method, status: StatusCode, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    if let Some(state) = state {
        let metrics = &state.service.metrics;
        metrics.http_requests.with_label_values(&[route, method.as_str(), status.as_str()]).inc();
        metrics.http_seconds.with_label_values(&[route, method.as_str()]).observe(seconds);
    }
    let (method, status_code) = (method.as_str(), status.as_u16());
    if status.is_client_error() {
        tracing::info!(request_id = request_id(), method, route, status = status_code, "refused");
    } else {
        tracing::debug!(request_id = request_id(), method, route, status = status_code, seconds, "answered");
    }
}

/// A caller's own id is taken over if it cannot spoil a log line.
fn incoming_id(request: &ServiceRequest) -> Option<String> {
    let id = request.headers().get(REQUEST_ID_HEADER)?.to_str().ok()?;
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
    (plain && (1..=128).contains(&id.len())).then(|| id.to_owned())
}
