//! "May this account do this?" Authorises no spending: only a debit does.

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, account_id, number, parse_json, read_body};
use super::server::State;
use crate::app::reads::AccountNow;
use crate::domain::command::MAX_AMOUNT;
use crate::domain::standing::check;

/// Checks in one batch.
const MAX_CHECKS: usize = 1_000;

#[derive(Debug, Deserialize)]
pub struct CheckQuery {
    quantity: Option<String>,
    min_position: Option<String>,
}

impl CheckQuery {
    fn quantity(&self) -> Result<i64, ApiError> {
        number(self.quantity.as_deref(), "quantity", 1, 1, MAX_AMOUNT)
    }

    fn min_position(&self) -> Result<i64, ApiError> {
        number(self.min_position.as_deref(), "min_position", 0, 0, i64::MAX)
    }
}

fn answer(state: &State, account: &AccountNow, feature: &str, quantity: i64) -> Result<Value, ApiError> {
    let catalog = state.service.catalog.current();
    let now = state.service.clock.now();
    let entitlement = check(&account.credits, &catalog.catalog, feature, quantity, now);
    let mut view = serde_json::to_value(entitlement).map_err(|_| ApiError::Internal)?;
    view["as_of"] = json!({
        "partition": account.partition_id,
        "position": account.position,
        "at": now,
        "age_ms": u64::try_from(account.read_at.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    Ok(view)
}

/// One feature.
pub async fn get(
    path: web::Path<(String, String)>,
    query: web::Query<CheckQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let (account, feature) = path.into_inner();
    let quantity = query.quantity()?;
    let account = state.service.account_now(&account_id(&account)?, query.min_position()?).await?;
    if state.service.catalog.current().catalog.feature(&feature).is_none() {
        return Err(ApiError::from(crate::domain::rejection::Rejection::UnknownFeature { feature }));
    }
    Ok(HttpResponse::Ok().json(answer(&state, &account, &feature, quantity)?))
}

/// Every feature of the catalog.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<CheckQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = state.service.account_now(&account_id(&path)?, query.min_position()?).await?;
    let catalog = state.service.catalog.current();
    let features = catalog.catalog.features.iter();
    let answers: Vec<Value> =
        features.map(|feature| answer(&state, &account, &feature.id, 1)).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(json!({"data": answers})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostChecks {
    checks: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostCheck {
    account: String,
    feature: String,
    #[serde(default = "one")]
    quantity: i64,
    #[serde(default)]
    min_position: i64,
}

fn one() -> i64 {
    1
}

/// Up to 1,000 checks of any accounts, each with its own outcome.
pub async fn check_batch(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostChecks = parse_json(&body)?;
    if body.checks.is_empty() || body.checks.len() > MAX_CHECKS {
        let problem = format!("must hold 1 to {MAX_CHECKS} checks");
        return Err(ApiError::InvalidParameter { field: "checks".to_owned(), problem });
    }
    let answers = join_all(body.checks.into_iter().map(|row| one_check(&state, row))).await;
    let rows = answers.into_iter().map(|answer| match answer {
        Ok(answer) => json!({"status": 200, "entitlement": answer}),
        Err(error) => {
            let problem = error.problem();
            json!({"status": problem.status, "problem": problem})
        }
    });
    Ok(HttpResponse::Ok().json(json!({"data": rows.collect::<Vec<Value>>()})))
}

async fn one_check(state: &State, row: Value) -> Result<Value, ApiError> {
    let check: PostCheck = serde_json::from_value(row).map_err(|error| ApiError::InvalidBody(error.to_string()))?;
    if !(1..=MAX_AMOUNT).contains(&check.quantity) {
        let problem = format!("must be a whole number from 1 to {MAX_AMOUNT}");
        return Err(ApiError::InvalidParameter { field: "quantity".to_owned(), problem });
    }
    let account = state.service.account_now(&account_id(&check.account)?, check.min_position).await?;
    if state.service.catalog.current().catalog.feature(&check.feature).is_none() {
        return Err(ApiError::from(crate::domain::rejection::Rejection::UnknownFeature { feature: check.feature }));
    }
    answer(state, &account, &check.feature, check.quantity)
}
