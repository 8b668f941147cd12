//! Control routes, under `/_simulator`: what no call of Stripe's does. JSON in, JSON out; README.md lists them.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, web};
use bytes::Bytes;
use serde_json::{Value, json};

use super::State;
use super::deliveries::Spoiling;
use super::faults::Fault;
use crate::error::StripeError;
use crate::settings::AfterTheLast;
use crate::shape::ApiVersion;
use crate::time::{self, DAY_S, HOUR_S};
use crate::world::{Card, Endpoint, Entered, Outcome};

type Shared = web::Data<State>;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/clock", web::get().to(clock))
        .route("/clock", web::post().to(move_clock))
        .route("/checkout/sessions/{session}/complete", web::post().to(complete))
        .route("/checkout/sessions/{session}/settle", web::post().to(settle_session))
        .route("/customers/{customer}/card", web::post().to(change_card))
        .route("/payment_intents/{intent}/authenticate", web::post().to(authenticate))
        .route("/charges/{charge}/dispute", web::post().to(dispute))
        .route("/disputes/{dispute}/close", web::post().to(close_dispute))
        .route("/refunds/{refund}/fail", web::post().to(fail_refund))
        .route("/webhook_endpoints", web::post().to(add_endpoint))
        .route("/dunning", web::post().to(set_dunning))
        .route("/faults", web::post().to(plan_fault))
        .route("/faults", web::delete().to(clear_faults))
        .route("/deliveries", web::get().to(deliveries))
        .route("/deliveries/faults", web::post().to(spoil))
        .route("/deliveries/faults", web::delete().to(stop_spoiling))
        .route("/deliveries/retries", web::post().to(set_retries))
        .route("/deliveries/settle", web::post().to(settle))
        .route("/events/{event}/resend", web::post().to(resend));
}

/// A request that makes no sense, or does not fit the state.
#[derive(Debug)]
struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl ResponseError for Wrong {
    fn error_response(&self) -> HttpResponse {
        HttpResponse::BadRequest().json(json!({ "error": { "message": self.0 } }))
    }
}

impl From<StripeError> for Wrong {
    fn from(error: StripeError) -> Self {
        Self(error.message)
    }
}

type Answered = Result<HttpResponse, Wrong>;

fn wrong(message: impl Into<String>) -> Wrong {
    Wrong(message.into())
}

fn done(body: Value) -> Answered {
    Ok(HttpResponse::Ok().json(body))
}

fn read(body: &Bytes) -> Result<Value, Wrong> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body).map_err(|error| wrong(format!("The body is no JSON: {error}")))
}

fn shown(now: i64) -> Value {
    json!({ "now": now, "at": time::rfc3339(now) })
}

async fn clock(state: Shared) -> Answered {
    done(shown(state.lock().world.now()))
}

/// `{"to": 1790000000}`, `{"to": "2026-10-01T00:00:00Z"}`, `{"by": {"months": 1, "days": 2, "hours": 3, "seconds": 4}}`;
/// `"settle": true` delivers all that one moment causes before the next one comes.
async fn move_clock(state: Shared, body: Bytes) -> Answered {
    let body = read(&body)?;
    let now = state.lock().world.now();
    let Some(target) = target(&body, now) else {
        return Err(wrong(
            "Say to (Unix seconds or RFC 3339) or by (months, days, hours, seconds); time goes forward.",
        ));
    };
    let settles = body["settle"].as_bool().unwrap_or_default();
    loop {
        let reached = {
            let mut inner = state.lock();
            let inner = &mut *inner;
            let next = inner.world.next_due().filter(|due| settles && *due < target);
            let moment = next.unwrap_or(target).max(inner.world.now());
            inner.clock = inner.clock.moved_to(moment);
            inner.world.advance_to(moment);
            inner.queue_deliveries();
            moment >= target
        };
        state.bell.notify_one();
        if settles && !wait_until_done(&state, Duration::from_secs(30)).await {
            return Err(wrong("Deliveries were not done within 30 s; the clock stopped on the way."));
        }
        if reached {
            break;
        }
    }
    done(shown(target))
}

fn target(body: &Value, now: i64) -> Option<i64> {
    let to = body["to"].as_i64().or_else(|| {
        let text = body["to"].as_str()?;
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.timestamp())
    });
    let target = match to {
        Some(to) => to,
        None => {
            let by = body.get("by")?;
            let part = |key: &str| by[key].as_i64().unwrap_or_default();
            let after = time::add_months(now, part("months"))?;
            after
                .checked_add(part("days").checked_mul(DAY_S)?)?
                .checked_add(part("hours") * HOUR_S + part("seconds"))?
        }
    };
    (target >= now).then_some(target)
}

/// The customer pays, by `{"card": "good", "email": …, "name": …, "promotion_code": …}`.
async fn complete(state: Shared, session: web::Path<String>, body: Bytes) -> Answered {
    let body = read(&body)?;
    let Some(card) = Card::parse(body["card"].as_str().unwrap_or("good")) else { return Err(wrong(CARDS)) };
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let entered = Entered { card, email: text("email"), name: text("name"), promotion_code: text("promotion_code") };
    let outcome = state.lock().world.pay_session(&session, &entered);
    state.bell.notify_one();
    match outcome? {
        Outcome::Completed => done(json!({ "completed": true })),
        Outcome::Declined { code } => done(json!({ "completed": false, "code": code })),
    }
}

const CARDS: &str = "card must be good, declines, declines_for_funds, needs_authentication, refused or settles_later";

async fn settle_session(state: Shared, session: web::Path<String>, body: Bytes) -> Answered {
    let body = read(&body)?;
    let settled = state.lock().world.settle_session(&session, body["succeeds"].as_bool().unwrap_or(true));
    state.bell.notify_one();
    settled?;
    done(json!({}))
}

async fn change_card(state: Shared, customer: web::Path<String>, body: Bytes) -> Answered {
    let body = read(&body)?;
    let Some(card) = body["card"].as_str().and_then(Card::parse) else { return Err(wrong(CARDS)) };
    let changed = state.lock().world.change_card(&customer, card);
    changed?;
    done(json!({}))
}

async fn authenticate(state: Shared, intent: web::Path<String>, body: Bytes) -> Answered {
    let body = read(&body)?;
    let authenticated = state.lock().world.authenticate(&intent, body["succeeds"].as_bool().unwrap_or(true));
    state.bell.notify_one();
    authenticated?;
    done(json!({}))
}

async fn dispute(state: Shared, charge: web::Path<String>) -> Answered {
    let disputed = state.lock().world.dispute(&charge);
    state.bell.notify_one();
    done(json!({ "id": disputed? }))
}

/// `{"won": true}`.
async fn close_dispute(state: Shared, dispute: web::Path<String>, body: Bytes) -> Answered {
    let body = read(&body)?;
    let closed = state.lock().world.close_dispute(&dispute, body["won"].as_bool().unwrap_or_default());
    state.bell.notify_one();
    closed?;
    done(json!({}))
}

async fn fail_refund(state: Shared, refund: web::Path<String>) -> Answered {
    let failed = state.lock().world.fail_refund(&refund);
    state.bell.notify_one();
    failed?;
    done(json!({}))
}

/// `{"url": …, "secret": "whsec_…", "api_version": "2024-06-20", "enabled_events": ["invoice.*"]}`.
async fn add_endpoint(state: Shared, body: Bytes) -> Answered {
    let body = read(&body)?;
    let Some(url) = body["url"].as_str() else { return Err(wrong("url is missing")) };
    let version = body["api_version"].as_str();
    let parsed = version.and_then(ApiVersion::parse);
    if version.is_some() && parsed.is_none() {
        return Err(wrong("api_version must begin with a date, like 2024-06-20 or 2025-08-27.basil"));
    }
    let events = body["enabled_events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let endpoint = Endpoint {
        url: url.to_owned(),
        secret: body["secret"].as_str().map(str::to_owned),
        api_version: parsed,
        enabled_events: events.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let mut inner = state.lock();
    let id = inner.world.add_endpoint(endpoint);
    let secret = inner.world.object(&id).map(|endpoint| endpoint["_secret"].clone());
    done(json!({ "id": id, "secret": secret }))
}

/// `{"retry_days": [3, 5, 7], "after_the_last": "cancel"}`.
async fn set_dunning(state: Shared, body: Bytes) -> Answered {
    let body = read(&body)?;
    let mut inner = state.lock();
    let dunning = &mut inner.world.settings.dunning;
    if let Some(days) = body["retry_days"].as_array() {
        dunning.retry_days = days.iter().filter_map(Value::as_i64).filter(|days| *days > 0).collect();
    }
    match body["after_the_last"].as_str() {
        None => {}
        Some("cancel") => dunning.after_the_last = AfterTheLast::Cancel,
        Some("unpaid") => dunning.after_the_last = AfterTheLast::MarkUnpaid,
        Some("past_due") => dunning.after_the_last = AfterTheLast::LeavePastDue,
        Some(_) => return Err(wrong("after_the_last must be cancel, unpaid or past_due")),
    }
    done(json!({}))
}

async fn plan_fault(state: Shared, body: Bytes) -> Answered {
    let fault = Fault::read(&read(&body)?).map_err(wrong)?;
    state.lock().faults.plan(fault);
    done(json!({}))
}

async fn clear_faults(state: Shared) -> Answered {
    state.lock().faults.clear();
    done(json!({}))
}

async fn deliveries(state: Shared) -> Answered {
    done(json!({ "data": state.lock().deliveries.log() }))
}

async fn spoil(state: Shared, body: Bytes) -> Answered {
    let spoiling = Spoiling::read(&read(&body)?);
    state.lock().deliveries.spoiling = spoiling;
    done(json!({}))
}

async fn stop_spoiling(state: Shared) -> Answered {
    state.lock().deliveries.spoiling = Spoiling::default();
    done(json!({}))
}

/// `{"delays_ms": [100, 1000]}`: from one try to the next.
async fn set_retries(state: Shared, body: Bytes) -> Answered {
    let body = read(&body)?;
    let Some(delays) = body["delays_ms"].as_array() else {
        return Err(wrong("delays_ms must be a list of milliseconds"));
    };
    let delays = delays.iter().filter_map(Value::as_u64).map(Duration::from_millis).collect();
    state.lock().deliveries.retry_delays = delays;
    done(json!({}))
}

/// Answers when nothing waits to be delivered; 409 after `timeout_ms` (30 s).
async fn settle(state: Shared, body: Bytes) -> Answered {
    let body = read(&body)?;
    let timeout = Duration::from_millis(body["timeout_ms"].as_u64().unwrap_or(30_000));
    if wait_until_done(&state, timeout).await {
        return done(json!({}));
    }
    Ok(HttpResponse::Conflict().json(json!({ "error": { "message": "Deliveries still wait." } })))
}

async fn wait_until_done(state: &State, timeout: Duration) -> bool {
    let end = tokio::time::Instant::now() + timeout;
    while tokio::time::Instant::now() < end {
        {
            let mut inner = state.lock();
            inner.queue_deliveries();
            if inner.deliveries.are_done() {
                return true;
            }
        }
        state.bell.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn resend(state: Shared, event: web::Path<String>) -> Answered {
    let found = state.lock().send_again(&event);
    state.bell.notify_one();
    if found { done(json!({})) } else { Err(wrong("There is no such event.")) }
}
