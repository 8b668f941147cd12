//! What surrounds every request: an id, the right to ask, a net under panics, metrics and a log line.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{RequestHead, Response, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError, web};
use futures_util::FutureExt;
use percent_encoding::percent_decode_str;
use prometheus::{Histogram, IntCounter};
use uuid::Uuid;

use super::auth::Scope;
use super::problem::ApiError;
use super::server::State;
use crate::app::metrics::Metrics;

tokio::task_local! {
    static REQUEST_ID: HeaderValue;
}

/// Of a parameter's name, so much is said again.
const MAX_NAME: usize = 100;
const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Id of the request being answered.
pub fn request_id() -> String {
    let text = |id: &HeaderValue| id.to_str().map(str::to_owned).ok();
    REQUEST_ID.try_with(text).ok().flatten().unwrap_or_else(|| "none".to_owned())
}

fn new_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Gives a request its id, and sees it through its route.
///
/// The route's pattern is given, not asked of the router, which would match all of its patterns once more.
pub async fn at_route(
    local: Rc<Local>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // Kept as the header will carry it: copies share it.
    let id = incoming_id(request.headers()).unwrap_or_else(new_id);
    let mut response = REQUEST_ID.scope(id.clone(), answer(&local, request, next)).await?;
    response.headers_mut().insert(REQUEST_ID_HEADER, id);
    Ok(response)
}

/// Gives an answer from outside the app its request's id, and counts it.
pub fn see_off(
    local: &Local,
    metrics: &Metrics,
    request: &RequestHead,
    response: &mut Response<BoxBody>,
    started: Instant,
) {
    let id = incoming_id(request.headers()).unwrap_or_else(new_id);
    let count = || local.count(Some(metrics), &request.method, response.status(), started);
    REQUEST_ID.sync_scope(id.clone(), count);
    response.headers_mut().insert(REQUEST_ID_HEADER, id);
}

/// Answers a request: if its key may, counted and timed under the route's pattern, and also when the handler panics.
async fn answer(
    local: &Local,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let state = request.app_data::<web::Data<State>>().cloned();
    let metrics = state.as_ref().map(|state| &state.service.metrics);
    let known = local.known.iter().find(|known| known.method == method);
    let permitted = match (&state, known.and_then(|known| known.scope)) {
        (Some(state), Some(scope)) => state.auth.permit(&state.service, request.headers(), scope).await,
        _ => Ok(()),
    };
    let permitted =
        permitted.and_then(|()| refuse_unknown(request.query_string(), known.and_then(|known| known.query)));
    let answering = match permitted {
        Err(error) => Ok(Ok(request.into_response(error.error_response()))),
        Ok(()) => {
            let answered = AssertUnwindSafe(next.call(request)).catch_unwind().await;
            answered.map(|response| response.map(ServiceResponse::map_into_boxed_body))
        }
    };
    let Ok(response) = answering else {
        tracing::error!(request_id = request_id(), route = local.route, "a handler panicked");
        let mut response = ApiError::Internal.error_response();
        if let Ok(id) = REQUEST_ID.try_with(Clone::clone) {
            response.headers_mut().insert(REQUEST_ID_HEADER, id);
        }
        local.count(metrics, &method, response.status(), started);
        // The panic took the request with it, so there is nothing to put the response together with.
        return Err(InternalError::from_response("a handler panicked", response).into());
    };
    let response = response?;
    local.count(metrics, &method, response.status(), started);
    Ok(response)
}

/// A query parameter that a route does not know would do nothing, and whoever misspelt it would not notice.
fn refuse_unknown(query: &str, known: Option<&'static [&'static str]>) -> Result<(), ApiError> {
    let Some(known) = known.filter(|_| !query.is_empty()) else { return Ok(()) };
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or(pair));
    let names = names.map(|name| percent_decode_str(name).decode_utf8_lossy());
    let unknown = names.into_iter().find(|name| !name.is_empty() && !known.contains(&name.as_ref()));
    let Some(name) = unknown else { return Ok(()) };
    let problem = match known {
        [] => "no such query parameter; this route has none".to_owned(),
        known => format!("no such query parameter; this route has {}", known.join(", ")),
    };
    Err(ApiError::InvalidParameter { field: name.chars().take(MAX_NAME).collect(), problem })
}

/// What is known of a route for one method.
#[derive(Debug)]
pub struct Known {
    pub method: Method,
    pub scope: Option<Scope>,
    /// `None`: anything may be asked.
    pub query: Option<&'static [&'static str]>,
}

/// What a route has in each thread that serves it.
#[derive(Debug)]
pub struct Local {
    /// Its pattern.
    route: &'static str,
    known: Vec<Known>,
    /// Looking a series up by its labels costs more than counting, and a route has few.
    series: RefCell<Vec<Series>>,
}

#[derive(Debug)]
struct Series {
    method: Method,
    status: StatusCode,
    requests: IntCounter,
    seconds: Histogram,
}

impl Local {
    pub fn new(route: &'static str, known: Vec<Known>) -> Rc<Self> {
        Rc::new(Self { route, known, series: RefCell::default() })
    }

    /// Counts an answer, and logs a line for it. A line for each success would cost more than the success itself; metrics
    /// count those.
    fn count(&self, metrics: Option<&Metrics>, method: &Method, status: StatusCode, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        if let Some(metrics) = metrics {
            self.observe(metrics, method, status, seconds);
        }
        let (route, method, status_code) = (self.route, method.as_str(), status.as_u16());
        if status.is_client_error() {
            tracing::info!(request_id = request_id(), method, route, status = status_code, "refused");
        } else {
            tracing::debug!(request_id = request_id(), method, route, status = status_code, seconds, "answered");
        }
    }

    fn observe(&self, metrics: &Metrics, method: &Method, status: StatusCode, seconds: f64) {
        let requests = || metrics.http_requests.with_label_values(&[self.route, method.as_str(), status.as_str()]);
        let timed = || metrics.http_seconds.with_label_values(&[self.route, method.as_str()]);
        // Anybody can make methods up.
        if !self.known.iter().any(|known| known.method == *method) {
            requests().inc();
            timed().observe(seconds);
            return;
        }
        let mut series = self.series.borrow_mut();
        let known = series.iter().position(|series| series.status == status && series.method == *method);
        let at = known.unwrap_or_else(|| {
            series.push(Series { method: method.clone(), status, requests: requests(), seconds: timed() });
            series.len() - 1
        });
        series[at].requests.inc();
        series[at].seconds.observe(seconds);
    }
}

/// A caller's own id is taken over if it cannot spoil a log line.
fn incoming_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID_HEADER)?;
    let plain = id.as_bytes().iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':'));
    (plain && (1..=128).contains(&id.len())).then(|| id.clone())
}
