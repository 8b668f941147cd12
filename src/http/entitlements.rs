//! "May this account do this?" Authorises no spending: only a debit does.

use std::borrow::Cow;

use actix_web::http::Uri;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::amount_if_given;
use super::json;
use super::problem::{ApiError, Problem};
use super::reading::{AsOf, Data, as_of, consistency, min_position};
use super::request::{MAX_JSON_BYTES, account_id, number, parse_json, parse_row, read_body};
use super::server::State;
use crate::app::read_path::reads::{AccountNow, Consistency, Read};
use crate::app::read_path::receipt::Check;
use crate::app::service::Service;
use crate::domain::command::MAX_AMOUNT;
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::domain::standing::{Entitlement, check};

/// The route of one check, as the table has it.
pub const CHECK_PATH: &str = "/v1/accounts/{account}/entitlements/{feature}";
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
struct CheckView<'a> {
    #[serde(flatten)]
    entitlement: Entitlement<'a>,
    receipt: Check<'a>,
    as_of: AsOf,
}

impl CheckView<'_> {
    /// What serializing it would give, in a fraction of the time.
    fn to_json(&self) -> Vec<u8> {
        let Self { entitlement: seen, receipt, as_of } = self;
        json::object(512, |object| {
            object.boolean("allowed", seen.allowed);
            object.value("reason", &seen.reason);
            object.text("feature", seen.feature);
            object.text_or_null("plan", seen.plan);
            object.value("state", &seen.state);
            if let Some(overdue) = &seen.dunning {
                object.value("dunning", overdue);
            }
            object.number_or_null("remaining", seen.remaining);
            object.number_or_null("limit", seen.limit);
            object.value_or_null("per", seen.per.as_ref());
            object.value_or_null("resets_at", seen.resets_at.as_ref());
            object.boolean("unlimited", seen.unlimited);
            if !seen.values.is_empty() {
                object.value("values", &seen.values);
            }
            if !seen.limits.is_empty() {
                object.value("limits", &seen.limits);
            }
            object.value_or_null("override", seen.overridden.as_ref());
            object.written("receipt", |text| receipt.write_to(text));
            object.object("as_of", |object| as_of.write(object));
        })
    }
}

fn answer<'a>(account: &'a AccountNow, feature: &'a str, quantity: i64) -> CheckView<'a> {
    let entitlement = check(account.credits(), &account.catalog.catalog, feature, quantity, account.at);
    let receipt = Check {
        account: Cow::Borrowed(&account.id),
        version: account.version,
        at_us: account.at.timestamp_micros(),
        feature: Cow::Borrowed(feature),
        quantity,
        catalog: Cow::Borrowed(account.catalog.version()),
        allowed: entitlement.allowed,
    };
    CheckView { entitlement, receipt, as_of: AsOf::of(account) }
}

/// An answer for a feature that has to be in the catalog.
fn answer_known<'a>(account: &'a AccountNow, feature: &'a str, quantity: i64) -> Result<CheckView<'a>, ApiError> {
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
    let answer = answer_known(&account, &feature, quantity)?.to_json();
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(answer))
}

/// A check by its names alone: account, feature, quantity.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    account: &'a str,
    feature: &'a str,
    quantity: i64,
}

impl<'a> Question<'a> {
    /// What an address asks, if it is a check's and says nothing that has to be looked at twice.
    pub fn of(uri: &'a Uri) -> Option<Self> {
        let (account, rest) = uri.path().strip_prefix("/v1/accounts/")?.split_once('/')?;
        let feature = rest.strip_prefix("entitlements/")?;
        let quantity = match uri.query() {
            None => 1,
            Some(query) => quantity_alone(query)?,
        };
        let is_plain = !feature.contains('/') && !uri.path().contains('%');
        is_plain.then_some(Self { account, feature, quantity })
    }

    /// The answer of [`get`], if it can be given out of memory.
    pub fn answer_at_once(&self, service: &Service) -> Option<Vec<u8>> {
        let account = service.account_in_memory(&AccountId::new(self.account).ok()?)?;
        answer_known(&account, self.feature, self.quantity).ok().map(|answer| answer.to_json())
    }
}

/// The quantity, if a query says nothing else.
fn quantity_alone(query: &str) -> Option<i64> {
    let digits = query.strip_prefix("quantity=").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|quantity| (1..=MAX_AMOUNT).contains(quantity))
}

/// Every feature of the catalog.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<CheckQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = query.account(&state, &path).await?;
    let features = account.catalog.catalog.features.iter();
    let answers: Vec<CheckView<'_>> = features.map(|feature| answer(&account, &feature.id, 1)).collect();
    Ok(HttpResponse::Ok().json(Data { data: answers }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostChecks<'a> {
    /// Each is read by itself, so that a bad one spoils no other.
    #[serde(borrow)]
    checks: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostCheck {
    account: String,
    feature: String,
    #[serde(default, deserialize_with = "amount_if_given")]
    quantity: Option<i64>,
    min_position: Option<i64>,
    consistency: Option<String>,
}

impl PostCheck {
    fn quantity(&self) -> i64 {
        self.quantity.unwrap_or(1)
    }
}

/// What became of one check of a batch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Checked<'a> {
    Answered { status: u16, entitlement: CheckView<'a> },
    Refused { status: u16, problem: Problem },
}

/// Up to 1,000 checks of any accounts, each with its own outcome.
pub async fn check_batch(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostChecks<'_> = parse_json(&body)?;
    if body.checks.is_empty() || body.checks.len() > MAX_CHECKS {
        let problem = format!("must hold 1 to {MAX_CHECKS} checks");
        return Err(ApiError::InvalidParameter { field: "checks".to_owned(), problem });
    }
    // All at once: those that are not in memory share a query.
    let read = join_all(body.checks.iter().enumerate().map(|(index, row)| read_one(&state, row, index))).await;
    let answers: Vec<Checked<'_>> = read.iter().map(checked).collect();
    Ok(HttpResponse::Ok().json(Data { data: answers }))
}

fn checked(read: &Result<(PostCheck, AccountNow), ApiError>) -> Checked<'_> {
    let refused = |problem: Problem| Checked::Refused { status: problem.status, problem };
    match read {
        Ok((check, account)) => match answer_known(account, &check.feature, check.quantity()) {
            Ok(entitlement) => Checked::Answered { status: 200, entitlement },
            Err(error) => refused(error.problem()),
        },
        Err(error) => refused(error.problem()),
    }
}

async fn read_one(state: &State, row: &RawValue, index: usize) -> Result<(PostCheck, AccountNow), ApiError> {
    let check: PostCheck = parse_row(row, "checks", index)?;
    let invalid = |field: &str, problem: String| ApiError::InvalidParameter { field: field.to_owned(), problem };
    if !(1..=MAX_AMOUNT).contains(&check.quantity()) {
        return Err(invalid("quantity", format!("must be a whole number from 1 to {MAX_AMOUNT}")));
    }
    let min_position = check.min_position.unwrap_or(0);
    if min_position < 0 {
        return Err(invalid("min_position", format!("must be a whole number from 0 to {}", i64::MAX)));
    }
    let consistency: Consistency = consistency(check.consistency.as_deref())?;
    let name = account_id(&check.account)?;
    let read = Read { min_position, consistency, as_of: None };
    let account = state.service.account(&name, read).await?;
    Ok((check, account))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::catalog::Per;
    use crate::domain::dunning::{Overdue, Stage};
    use crate::domain::ids::AccountId;
    use crate::domain::limits::LimitNow;
    use crate::domain::standing::{AccountState, OverrideSeen, Reason};

    fn view<'a>(entitlement: Entitlement<'a>, account: &'a AccountId) -> CheckView<'a> {
        let at = DateTime::from_timestamp_micros(1_768_478_400_123_456).expect("a time");
        let receipt = Check {
            account: Cow::Borrowed(account),
            version: 7,
            at_us: at.timestamp_micros(),
            feature: Cow::Borrowed(entitlement.feature),
            quantity: 3,
            catalog: Cow::Borrowed("0123456789ab"),
            allowed: entitlement.allowed,
        };
        CheckView { entitlement, receipt, as_of: AsOf { partition: 3, position: 41, at, age_ms: 12 } }
    }

    #[test]
    fn the_answer_is_written_as_serde_would() {
        let account = AccountId::new("user.1?#é@example").expect("an id");
        let bare = Entitlement {
            allowed: false,
            reason: Reason::NotInPlan,
            feature: "models",
            plan: None,
            state: AccountState::Free,
            dunning: None,
            remaining: None,
            limit: None,
            per: None,
            resets_at: None,
            unlimited: true,
            values: Cow::default(),
            limits: Vec::new(),
            overridden: None,
        };
        let resets_at = DateTime::from_timestamp(1_768_478_460, 0).expect("a time");
        let overdue = Overdue {
            stage: Stage::InGrace,
            since: resets_at,
            next_stage: Some(Stage::Suspended),
            next_stage_at: Some(resets_at),
        };
        let limit = LimitNow { limit: 60, per: Per::Minute, used: 70, held: 2, remaining: 0, resets_at };
        let full = Entitlement {
            allowed: true,
            plan: Some("pro"),
            dunning: Some(overdue),
            remaining: Some(-1),
            limit: Some(60),
            per: Some(Per::Minute),
            resets_at: Some(resets_at),
            values: Cow::Owned(vec!["one".to_owned(), "the \"other\"".to_owned()]),
            limits: vec![limit, limit],
            overridden: Some(OverrideSeen { expires_at: Some(resets_at), reason: Some("said \"yes\"\n") }),
            ..bare.clone()
        };
        for entitlement in [bare, full] {
            let view = view(entitlement, &account);
            let serialized = serde_json::to_string(&view).expect("JSON");
            assert_eq!(String::from_utf8_lossy(&view.to_json()), serialized);
        }
    }
}
