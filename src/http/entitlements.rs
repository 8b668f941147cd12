//! "May this account do this?" Authorises no spending: only a debit does.

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::{ApiError, Problem};
use super::reading::{AsOf, Data, as_of, consistency, min_position};
use super::request::{MAX_JSON_BYTES, account_id, number, parse_json, parse_row, read_body};
use super::server::State;
use crate::app::reads::{AccountNow, Consistency, Read};
use crate::app::receipt::{Check, Receipt};
use crate::domain::command::MAX_AMOUNT;
use crate::domain::rejection::Rejection;
use crate::domain::standing::{Entitlement, check};

/// Checks in one batch.
const MAX_CHECKS: usize = 1_000;

#[derive(Debug, Deserialize)]
pub struct CheckQuery {
    quantity: Option<String>,
    min_position: Option<String>,
    consistency: Option<String>,
    as_of: Option<String>,
}

impl CheckQuery {
    fn quantity(&self) -> Result<i64, ApiError> {
        number(self.quantity.as_deref(), "quantity", 1, 1, MAX_AMOUNT)
    }

    async fn account(&self, state: &State, name: &str) -> Result<AccountNow, ApiError> {
        let min_position = min_position(self.min_position.as_deref())?;
        let consistency = consistency(self.consistency.as_deref())?;
        let as_of = match &self.as_of {
            None => None,
            Some(moment) => as_of(Some(moment), state.service.clock.now())?,
        };
        Ok(state.service.account(&account_id(name)?, Read { min_position, consistency, as_of }).await?)
    }
}

/// An answer to a check.
#[derive(Debug, Serialize)]
struct CheckView {
    #[serde(flatten)]
    entitlement: Entitlement,
    receipt: Receipt,
    as_of: AsOf,
}

fn answer(account: &AccountNow, feature: &str, quantity: i64) -> CheckView {
    let entitlement = check(account.credits(), &account.catalog.catalog, feature, quantity, account.at);
    let receipt = Receipt::Check(Check {
        account: account.id.clone(),
        version: account.version,
        at_us: account.at.timestamp_micros(),
        feature: feature.to_owned(),
        quantity,
        catalog: account.catalog.version().to_owned(),
        allowed: entitlement.allowed,
    });
    CheckView { entitlement, receipt, as_of: AsOf::of(account) }
}

/// An answer for a feature that has to be in the catalog.
fn answer_known(account: &AccountNow, feature: &str, quantity: i64) -> Result<CheckView, ApiError> {
    if account.catalog.catalog.feature(feature).is_none() {
        return Err(ApiError::from(Rejection::UnknownFeature { feature: feature.to_owned() }));
    }
    Ok(answer(account, feature, quantity))
}

/// One feature.
pub async fn get(
    path: web::Path<(String, String)>,
    query: web::Query<CheckQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let (account, feature) = path.into_inner();
    let quantity = query.quantity()?;
    let account = query.account(&state, &account).await?;
    Ok(HttpResponse::Ok().json(answer_known(&account, &feature, quantity)?))
}

/// Every feature of the catalog.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<CheckQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = query.account(&state, &path).await?;
    let features = account.catalog.catalog.features.iter();
    let answers: Vec<CheckView> = features.map(|feature| answer(&account, &feature.id, 1)).collect();
    Ok(HttpResponse::Ok().json(Data { data: answers }))
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
    consistency: Option<String>,
}

/// What became of one check of a batch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Checked {
    Answered { status: u16, entitlement: CheckView },
    Refused { status: u16, problem: Problem },
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
    // All at once: those that are not in memory share a query.
    let answers = join_all(body.checks.into_iter().map(|row| one_check(&state, row))).await;
    let answers: Vec<Checked> = answers.into_iter().map(|answer| answer.unwrap_or_else(refused)).collect();
    Ok(HttpResponse::Ok().json(Data { data: answers }))
}

fn refused(error: ApiError) -> Checked {
    let problem = error.problem();
    Checked::Refused { status: problem.status, problem }
}

async fn one_check(state: &State, row: Value) -> Result<Checked, ApiError> {
    let check: PostCheck = parse_row(&row)?;
    if !(1..=MAX_AMOUNT).contains(&check.quantity) {
        let problem = format!("must be a whole number from 1 to {MAX_AMOUNT}");
        return Err(ApiError::InvalidParameter { field: "quantity".to_owned(), problem });
    }
    let consistency: Consistency = consistency(check.consistency.as_deref())?;
    let name = account_id(&check.account)?;
    let read = Read { min_position: check.min_position, consistency, as_of: None };
    let account = state.service.account(&name, read).await?;
    let entitlement = answer_known(&account, &check.feature, check.quantity)?;
    Ok(Checked::Answered { status: 200, entitlement })
}
