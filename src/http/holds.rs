//! Holds: credits set aside now, for work whose cost is known afterwards.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::billing;
use super::debits::{PostCharge, changed, created};
use super::fields::{amount_if_given, time, time_if_given};
use super::page::{Cursor, PageQuery};
use super::problem::ApiError;
use super::reading::as_of;
use super::request::{account_id, keyed_json, keyed_json_or_default};
use super::server::State;
use super::views::HoldView;
use crate::app::read_path::receipt::Receipt;
use crate::app::write_path::work::{Answer, Key};
use crate::domain::billing::Kind;
use crate::domain::command::{HoldAct, Outcome};
use crate::domain::hold::{HoldRecord, HoldStatus, Used};
use crate::domain::rejection::Rejection;
use crate::store::error::StoreError;

/// How long a hold lasts if the caller does not say.
const DEFAULT_HOLD: TimeDelta = TimeDelta::hours(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostHold {
    feature: Option<String>,
    #[serde(default, deserialize_with = "amount_if_given")]
    quantity: Option<i64>,
    #[serde(default, deserialize_with = "amount_if_given")]
    amount: Option<i64>,
    #[serde(default, deserialize_with = "time_if_given")]
    expires_at: Option<DateTime<Utc>>,
}

/// Sets credits aside, if there are enough.
pub async fn place(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let (key, body) = keyed_json::<PostHold>(&request, payload).await?;
    let expires_at = body.expires_at.unwrap_or_else(|| state.service.clock.now() + DEFAULT_HOLD);
    let charge = PostCharge { feature: body.feature, quantity: body.quantity, amount: body.amount }.charge()?;
    let answer = state.service.place_hold(&account, charge, expires_at, key).await?;
    let (receipt, position) = (answer.receipt(), answer.position);
    created(answer, |outcome| view(outcome, &receipt, position))
}

fn view(outcome: &Outcome, receipt: &Receipt, position: i64) -> Result<Value, ApiError> {
    let (record, available) = match outcome {
        Outcome::Held { hold, available } => (HoldRecord::of(hold.clone(), HoldStatus::Open), *available),
        Outcome::HoldEnded { record, available } => (record.clone(), *available),
        _ => return Err(ApiError::Internal),
    };
    // The first outcome is given again as it was, also when the hold has expired since.
    let as_it_was = HoldView::of(&record, record.hold.created_at);
    let mut view = serde_json::to_value(as_it_was).map_err(StoreError::from)?;
    view["available"] = json!(available);
    view["receipt"] = json!(receipt);
    view["position"] = json!(position);
    Ok(view)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostCapture {
    #[serde(default, deserialize_with = "amount_if_given")]
    amount: Option<i64>,
    #[serde(default, deserialize_with = "amount_if_given")]
    quantity: Option<i64>,
}

/// Spends what was used of a hold, and gives the rest back.
pub async fn capture(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (key, body) = keyed_json_or_default::<PostCapture>(&request, payload).await?;
    let used = match (body.amount, body.quantity) {
        (None, None) => Used::All,
        (Some(amount), None) => Used::Amount(amount),
        (None, Some(quantity)) => Used::Quantity(quantity),
        (Some(_), Some(_)) => {
            return Err(ApiError::InvalidBody("give either amount or quantity, or neither for all of it".to_owned()));
        }
    };
    act(&path, &state, HoldAct::Capture(used), key).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostRelease {}

/// Gives all of a hold back.
pub async fn release(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (key, PostRelease {}) = keyed_json_or_default(&request, payload).await?;
    act(&path, &state, HoldAct::Release, key).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostExtend {
    #[serde(deserialize_with = "time")]
    expires_at: DateTime<Utc>,
}

/// Lets a hold last until another time.
pub async fn extend(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (key, PostExtend { expires_at }) = keyed_json(&request, payload).await?;
    act(&path, &state, HoldAct::Extend { expires_at }, key).await
}

async fn act(name: &str, state: &State, act: HoldAct, key: Key) -> Result<HttpResponse, ApiError> {
    let answer: Answer = state.service.act_on_hold(hold_id(name)?, act, key).await?;
    let (receipt, position) = (answer.receipt(), answer.position);
    changed(answer, |outcome| view(outcome, &receipt, position))
}

/// One hold, open or ended.
pub async fn get(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let (hold, min_position, now) = (hold_id(&path)?, query.min_position()?, state.service.clock.now());
    let (account, record, at) = match as_of(query.as_of.as_deref(), now)? {
        None => {
            let (account, record) = state.service.hold_now(hold, min_position).await?;
            (account, record, now)
        }
        Some(moment) => {
            let (past, record) = state.service.hold_at(hold, moment, min_position).await?;
            (past.account.id, record, past.at)
        }
    };
    let mut view = serde_json::to_value(HoldView::of(&record, at)).map_err(StoreError::from)?;
    view["account"] = json!(account);
    Ok(HttpResponse::Ok().json(view))
}

/// All holds of an account, newest first.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    if let Some(past) = billing::past(&state, &path, &query).await? {
        let rows = past.changes.holds.into_values().flatten().map(|record| {
            let at_us = record.hold.created_at.timestamp().saturating_mul(1_000_000);
            (Cursor { at_us, id: record.hold.id.to_string() }, HoldView::of(&record, past.at))
        });
        return Ok(HttpResponse::Ok().json(billing::page_of(rows.collect(), &query)?));
    }
    let now = state.service.clock.now();
    let account = billing::account(&state, &path, &query).await?;
    let page = billing::list(&state, &account, Kind::Hold, &query, |object| {
        Ok(Some(HoldView::of(&billing::parse(object)?, now)))
    });
    Ok(HttpResponse::Ok().json(page.await?))
}

fn hold_id(name: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(name).map_err(|_| ApiError::from(Rejection::HoldNotFound { hold: name.to_owned() }))
}
