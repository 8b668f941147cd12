//! Stripe's calls, as their clients make them.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::State;
use super::faults::Kind;
use crate::error::StripeError;
use crate::shape::ApiVersion;
use crate::world::{Answer, Request};

/// How long a client is kept waiting that is to time out.
const HANG: Duration = Duration::from_secs(90);

pub async fn handle(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let asked = match read(&request, &body) {
        Ok(asked) => asked,
        Err(error) => return refuse(&error),
    };
    let fault = {
        let mut inner = state.lock();
        let inner = &mut *inner;
        inner.faults.next(&asked.method, &asked.path, &mut inner.chance)
    };
    match fault.map(|fault| (fault.kind, fault.delay)) {
        None => answer(&execute(&state, &asked)),
        Some((Kind::RateLimited, _)) => {
            let mut response = answer_error(&StripeError::rate_limited());
            response.insert_header((header::RETRY_AFTER, "1"));
            response.json(StripeError::rate_limited().body("req_fault"))
        }
        Some((Kind::ServerError, _)) => refuse(&StripeError::server_error()),
        Some((Kind::ServerErrorAfter, _)) => {
            execute(&state, &asked);
            refuse(&StripeError::server_error())
        }
        Some((Kind::CutBefore, _)) => cut(&StripeError::server_error().body("req_fault")),
        Some((Kind::CutAfter, _)) => cut(&execute(&state, &asked).body),
        Some((Kind::TimeOut, delay)) => {
            execute(&state, &asked);
            tokio::time::sleep(delay.unwrap_or(HANG)).await;
            cut(&Value::Null)
        }
        Some((Kind::Slow, delay)) => slowly(&state, &asked, delay.unwrap_or(Duration::from_secs(1))).await,
    }
}

/// The request is under way for a while before it takes effect.
async fn slowly(state: &State, asked: &Request, delay: Duration) -> HttpResponse {
    let key = asked.idempotency_key.as_deref().filter(|_| asked.method == "POST");
    if let Some(key) = key {
        let mut inner = state.lock();
        if !inner.world.hold_key(key) {
            return answer(&inner.world.key_in_use(key));
        }
    }
    tokio::time::sleep(delay).await;
    if let Some(key) = key {
        state.lock().world.release_key(key);
    }
    answer(&execute(state, asked))
}

fn execute(state: &State, asked: &Request) -> Answer {
    let answer = state.lock().world.handle(asked);
    state.bell.notify_one();
    answer
}

fn read(request: &HttpRequest, body: &Bytes) -> Result<Request, StripeError> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    authenticate(text("Authorization"))?;
    let version = match text("Stripe-Version") {
        None => None,
        Some(version) => Some(ApiVersion::parse(version).ok_or_else(|| {
            StripeError::malformed("Stripe-Version", format!("Invalid Stripe API version: {version}"))
        })?),
    };
    let is_form = text("Content-Type").is_none_or(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if !body.is_empty() && !is_form {
        let message = "Stripe's v1 API takes application/x-www-form-urlencoded bodies.";
        return Err(StripeError::malformed("Content-Type", message));
    }
    let mut parameters = request.query_string().as_bytes().to_vec();
    if !parameters.is_empty() && !body.is_empty() {
        parameters.push(b'&');
    }
    parameters.extend_from_slice(body);
    Ok(Request {
        method: request.method().to_string(),
        path: request.match_info().query("path").trim_end_matches('/').to_owned(),
        parameters,
        idempotency_key: text("Idempotency-Key").map(str::to_owned),
        version,
    })
}

/// Any test key is good: as a bearer token, or as the user of Basic authentication.
fn authenticate(header: Option<&str>) -> Result<(), StripeError> {
    let missing = || StripeError::unauthorized("You did not provide an API key: Authorization: Bearer sk_test_…");
    let (scheme, value) = header.and_then(|header| header.split_once(' ')).ok_or_else(missing)?;
    let key = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
    } else {
        value.trim().to_owned()
    };
    if key.is_empty() {
        return Err(missing());
    }
    if !["sk_test_", "rk_test_"].iter().any(|prefix| key.starts_with(prefix)) {
        let message = "Invalid API Key provided: the simulator takes those that begin with sk_test_ or rk_test_.";
        return Err(StripeError::unauthorized(message));
    }
    Ok(())
}

fn answer(answer: &Answer) -> HttpResponse {
    let mut response = builder(answer.status, &answer.request_id);
    if answer.replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    if matches!(answer.status, 400 | 404) {
        response.insert_header(("Stripe-Should-Retry", "false"));
    }
    response.json(&answer.body)
}

fn refuse(error: &StripeError) -> HttpResponse {
    answer_error(error).json(error.body("req_refused"))
}

fn answer_error(error: &StripeError) -> HttpResponseBuilder {
    builder(error.status, "req_refused")
}

fn builder(status: u16, request_id: &str) -> HttpResponseBuilder {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap_or(actix_web::http::StatusCode::OK);
    let mut response = HttpResponse::build(status);
    response.insert_header(("Request-Id", request_id));
    response
}

/// Sends half of an answer, and cuts the connection.
fn cut(body: &Value) -> HttpResponse {
    let whole = body.to_string();
    let half = Bytes::from(whole[..whole.len() / 2].to_owned().into_bytes());
    let parts: Vec<Result<Bytes, std::io::Error>> =
        vec![Ok(half), Err(std::io::Error::other("the simulator was told to cut the connection"))];
    HttpResponse::Ok()
        .content_type("application/json")
        .no_chunking(u64::try_from(whole.len()).unwrap_or_default())
        .streaming(futures_util::stream::iter(parts))
}
