//! `/v1/accounts/{account}/overrides…` and `/suspension`: what an account may do whatever its plan says.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::time_if_given;
use super::page::PageQuery;
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, account_id, parse_json, read_body, reason};
use super::server::State;
use crate::domain::catalog::Per;
use crate::domain::command::Command;
use crate::domain::ids::AccountId;
use crate::domain::overrides::{Limit, Override, OverrideTerms, OverrideView, Unlimited};
use crate::domain::rejection::Rejection;

/// Values of one override, and the longest of them, in characters.
const MAX_VALUES: usize = 100;
const MAX_VALUE_CHARS: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutOverride {
    allowed: Option<bool>,
    limit: Option<Limit>,
    per: Option<Per>,
    values: Option<Vec<String>>,
    #[serde(default, deserialize_with = "time_if_given")]
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
}

/// Sets an override. Setting the same again changes nothing, so a retry needs no key.
pub async fn put(
    path: web::Path<(String, String)>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (account, feature) = path.into_inner();
    let account = account_id(&account)?;
    let body: PutOverride = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    let catalog = state.service.catalog_read_through().await?;
    let unknown = || Rejection::UnknownFeature { feature: feature.clone() };
    let kind = catalog.catalog.feature(&feature).ok_or_else(unknown)?.kind;
    let set = read(body, kind, state.service.clock.now())?;
    let view = set.view(&feature);
    let position = execute(&state, &account, Command::SetOverride { feature, set }).await?;
    let mut view = serde_json::to_value(view).map_err(|_| ApiError::Internal)?;
    view["position"] = json!(position);
    Ok(HttpResponse::Ok().json(view))
}

fn read(
    body: PutOverride,
    kind: crate::domain::catalog::FeatureKind,
    now: DateTime<Utc>,
) -> Result<Override, ApiError> {
    let invalid = |field: &str, problem: String| ApiError::InvalidParameter { field: field.to_owned(), problem };
    if body.expires_at.is_some_and(|end| end <= now) {
        return Err(invalid(
            "expires_at",
            "must lie in the future; leave it out for an override without end".to_owned(),
        ));
    }
    if let Some(values) = &body.values {
        let is_fit = |value: &String| {
            let length = value.chars().count();
            (1..=MAX_VALUE_CHARS).contains(&length) && !value.chars().any(char::is_control)
        };
        if values.is_empty() || values.len() > MAX_VALUES || !values.iter().all(is_fit) {
            let problem = format!("must be 1 to {MAX_VALUES} texts of 1 to {MAX_VALUE_CHARS} plain characters");
            return Err(invalid("values", problem));
        }
    }
    let limit = body.limit.map(|limit| match limit {
        Limit::Number(limit) => Some(limit),
        Limit::Word(Unlimited::Unlimited) => None,
    });
    let terms = OverrideTerms { allowed: body.allowed, limit, per: body.per, values: body.values };
    let effect = terms.effect(kind).map_err(|unfit| invalid(unfit.field, unfit.problem))?;
    Ok(Override { effect, expires_at: body.expires_at, reason: reason(body.reason)? })
}

/// Removes an override; doing it twice is doing it once.
pub async fn remove(path: web::Path<(String, String)>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let (account, feature) = path.into_inner();
    let position = execute(&state, &account_id(&account)?, Command::RemoveOverride { feature }).await?;
    Ok(HttpResponse::Ok().json(json!({"position": position})))
}

/// Those that hold now, by feature.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let min_position = query.min_position()?;
    let account = state.service.account_now(&account_id(&path)?, min_position).await?;
    let now = state.service.clock.now();
    let holding = account.credits().overrides.iter().filter(|(_, known)| known.holds_at(now));
    let rows: Vec<OverrideView> = holding.map(|(feature, known)| known.view(feature)).collect();
    Ok(HttpResponse::Ok().json(json!({"data": rows, "position": account.position})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutSuspension {
    reason: Option<String>,
}

/// Suspends an account. Doing it twice is doing it once.
pub async fn suspend(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PutSuspension = if body.is_empty() { PutSuspension::default() } else { parse_json(&body)? };
    let position = execute(&state, &account, Command::Suspend { reason: reason(body.reason)? }).await?;
    suspension_view(&state, &account, position).await
}

/// Ends a suspension; doing it twice is doing it once.
pub async fn reinstate(path: web::Path<String>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let position = execute(&state, &account, Command::Reinstate).await?;
    suspension_view(&state, &account, position).await
}

async fn suspension_view(state: &State, account: &AccountId, position: i64) -> Result<HttpResponse, ApiError> {
    let account = state.service.account_now(account, position).await?;
    let view: Value = json!({"suspension": account.credits().suspension, "position": position});
    Ok(HttpResponse::Ok().json(view))
}

async fn execute(state: &State, account: &AccountId, command: Command) -> Result<i64, ApiError> {
    let account = state.service.resolve(account).await?;
    let answer = state.service.execute(account, command, None).await?;
    answer.result?;
    Ok(answer.position)
}
