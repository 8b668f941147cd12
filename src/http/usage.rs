//! `/v1/accounts/{account}/usage`: recording what was used, and what has been used so far.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::debits::created;
use super::fields::{amount_or_none, or_default, time_if_given};
use super::problem::ApiError;
use super::reading;
use super::request::{account_id, keyed_json};
use super::server::State;
use crate::app::read_path::reads::AccountNow;
use crate::domain::billing::Kind;
use crate::domain::catalog::{Catalog, FeatureKind, Per};
use crate::domain::command::{Command, Outcome};
use crate::domain::credit::Lot;
use crate::domain::limits::{LimitNow, Period, credits_period_of, limits_at, period_of, tightest};
use crate::domain::overrides::ruling;
use crate::domain::plan_credits::PlanCredits;
use crate::domain::rejection::Rejection;
use crate::domain::standing::{AccountState, Standing};
use crate::domain::usage::{DayUse, RecordUsage, UsageAction, UsageDay, day_of};
use crate::store::error::StoreError;
use crate::store::read;

/// Days in one answer.
const MAX_DAYS: i64 = 366;
/// Lots of the plan that were used up within the period; the newest come first.
const MAX_CLOSED_LOTS: i64 = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostUsage {
    feature: String,
    #[serde(deserialize_with = "amount_or_none")]
    quantity: i64,
    #[serde(default, deserialize_with = "or_default")]
    action: UsageAction,
    #[serde(default, alias = "at", deserialize_with = "time_if_given")]
    timestamp: Option<DateTime<Utc>>,
}

/// Takes in that a feature was used. Draws no credits.
pub async fn record(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let (key, PostUsage { feature, quantity, action, timestamp }) = keyed_json(&request, payload).await?;
    let command = Command::RecordUsage(RecordUsage { feature, quantity, action, at: timestamp });
    let account = state.service.resolve(&account).await?;
    let answer = state.service.execute(account, command, Some(key)).await?;
    let position = answer.position;
    created(answer, |outcome| match outcome {
        Outcome::UsageRecorded(recorded) => Ok(json!({
            "feature": recorded.feature,
            "action": recorded.action,
            "quantity": recorded.quantity,
            "timestamp": DateTime::from_timestamp(recorded.counted.at, 0),
            "day": recorded.day,
            "day_total": recorded.day_total,
            "position": position,
        })),
        _ => Err(ApiError::Internal),
    })
}

#[derive(Debug, Deserialize)]
pub struct UsageQuery {
    feature: Option<String>,
    from: Option<String>,
    to: Option<String>,
    min_position: Option<String>,
    consistency: Option<String>,
}

/// The days that are asked for, both included.
#[derive(Debug, Clone, Copy)]
struct Days {
    from: NaiveDate,
    to: NaiveDate,
    /// Nothing else was asked than the running period.
    is_period: bool,
}

#[derive(Debug, Serialize)]
struct Statistics {
    plan: Option<String>,
    state: AccountState,
    period: PeriodView,
    from: NaiveDate,
    to: NaiveDate,
    credits: CreditsUsed,
    features: Vec<FeatureUsed>,
    position: i64,
}

#[derive(Debug, Serialize)]
struct PeriodView {
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
}

impl PeriodView {
    fn of(period: Period) -> Self {
        let time = |at| DateTime::from_timestamp(at, 0);
        Self { start: time(period.start), end: time(period.end) }
    }
}

/// What became of the plan's credits within the period that they are for.
#[derive(Debug, Serialize)]
struct CreditsUsed {
    period: PeriodView,
    #[serde(flatten)]
    of_plan: PlanCredits,
    percentage: Option<f64>,
    available: i64,
    unlimited: bool,
}

#[derive(Debug, Serialize)]
struct FeatureUsed {
    feature: String,
    used: i64,
    credits: i64,
    limit: Option<i64>,
    per: Option<Per>,
    remaining: Option<i64>,
    percentage: Option<f64>,
    resets_at: Option<DateTime<Utc>>,
    limits: Vec<LimitUsed>,
    days: Vec<DayUsed>,
}

#[derive(Debug, Serialize)]
struct LimitUsed {
    #[serde(flatten)]
    limit: LimitNow,
    percentage: Option<f64>,
}

#[derive(Debug, Serialize)]
struct DayUsed {
    day: String,
    #[serde(flatten)]
    of_day: DayUse,
}

/// How much was used: of the running period, unless days are named.
pub async fn statistics(
    path: web::Path<String>,
    query: web::Query<UsageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    reading::consistency(query.consistency.as_deref())?;
    let min_position = reading::min_position(query.min_position.as_deref())?;
    let account = state.service.account_now(&account_id(&path)?, min_position).await?;
    let catalog = state.service.catalog.current();
    let now = state.service.clock.now();
    let standing = Standing::of(account.credits(), &catalog.catalog, now);
    let period = period_of(account.credits(), &standing, now);
    let asked = days_asked(&query, period, now)?;
    let days = days_of(&state, &account, asked).await?;
    let names = features_of(&account, &standing, &catalog.catalog, &days, now);
    let names = match &query.feature {
        None => names,
        Some(name) if names.contains(name) || catalog.catalog.feature(name).is_some() => BTreeSet::from([name.clone()]),
        Some(name) => return Err(Rejection::UnknownFeature { feature: name.clone() }.into()),
    };
    let features = names.into_iter().map(|name| {
        let grant = ruling(account.credits(), &standing, &name, now).grant;
        let windows = grant.as_ref().map_or(&[][..], |grant| &grant.windows);
        let limits = limits_at(account.credits(), windows, &name, period, now);
        feature_used(name, &account, limits, &days, asked.is_period.then_some(period))
    });
    let features: Vec<FeatureUsed> = features.collect();
    Ok(HttpResponse::Ok().json(Statistics {
        plan: standing.plan.map(|plan| plan.id.clone()),
        state: standing.state(account.credits()),
        period: PeriodView::of(period),
        from: asked.from,
        to: asked.to,
        credits: credits_used(&state, &account, &standing, now).await?,
        features,
        position: account.position,
    }))
}

fn days_asked(query: &UsageQuery, period: Period, now: DateTime<Utc>) -> Result<Days, ApiError> {
    let invalid = |field: &str, problem: String| ApiError::InvalidParameter { field: field.to_owned(), problem };
    let day = |text: &Option<String>, field: &str| {
        let Some(text) = text else { return Ok(None) };
        let parsed = text.parse::<NaiveDate>().ok().filter(|day| (1970..=9999).contains(&day.year()));
        let problem = || invalid(field, "must be a day in UTC, such as 2026-01-15".to_owned());
        parsed.map(Some).ok_or_else(problem)
    };
    let (from, to) = (day(&query.from, "from")?, day(&query.to, "to")?);
    let is_period = from.is_none() && to.is_none();
    let to = to.unwrap_or_else(|| now.date_naive());
    let period_start = DateTime::from_timestamp(period.start, 0).unwrap_or(now).date_naive();
    if from.is_none() && to < period_start {
        let problem = format!("must be given, too: to lies before the running period, which began on {period_start}");
        return Err(invalid("from", problem));
    }
    // A period is hardly ever longer than the longest answer; of one that is, the last days are told.
    let from = from.unwrap_or_else(|| period_start.max(to - TimeDelta::days(MAX_DAYS - 1)));
    if from > to {
        return Err(invalid("from", "must not lie after to".to_owned()));
    }
    if (to - from).num_days() >= MAX_DAYS {
        return Err(invalid("from", format!("must be at most {MAX_DAYS} days before to, both included")));
    }
    Ok(Days { from, to, is_period })
}

/// Usage by day: the rows of days that are over, and the day that is open.
async fn days_of(state: &State, account: &AccountNow, asked: Days) -> Result<BTreeMap<String, UsageDay>, ApiError> {
    let (from, to) = (asked.from.to_string(), asked.to.to_string());
    let client = state.service.connection().await?;
    let kind = Kind::UsageDay.as_str();
    let rows = read::objects_between(&**client, account.id.as_str(), kind, &from, &to).await?;
    drop(client);
    let mut days = BTreeMap::new();
    for row in rows {
        days.insert(row.id, serde_json::from_str(&row.state).map_err(StoreError::from)?);
    }
    // The account was read first. If its day has been closed since, its row says the same, or more than the position.
    let open = day_of(account.credits().usage.at);
    if (from..=to).contains(&open) {
        days.insert(open, account.credits().usage.open_day());
    }
    Ok(days)
}

/// What was used, and what is metered in the plan.
fn features_of(
    account: &AccountNow,
    standing: &Standing<'_>,
    catalog: &Catalog,
    days: &BTreeMap<String, UsageDay>,
    now: DateTime<Utc>,
) -> BTreeSet<String> {
    let used = days.values().flat_map(|day| day.keys().cloned());
    let metered = catalog.features.iter().filter(|feature| feature.kind == FeatureKind::Metered);
    let granted = metered.filter(|feature| ruling(account.credits(), standing, &feature.id, now).grant.is_some());
    used.chain(granted.map(|feature| feature.id.clone())).collect()
}

fn feature_used(
    feature: String,
    account: &AccountNow,
    limits: Vec<LimitNow>,
    days: &BTreeMap<String, UsageDay>,
    period: Option<Period>,
) -> FeatureUsed {
    let of_feature = |(day, uses): (&String, &UsageDay)| {
        uses.get(&feature).map(|of_day| DayUsed { day: day.clone(), of_day: *of_day })
    };
    let days: Vec<DayUsed> = days.iter().filter_map(of_feature).collect();
    // A period begins in the middle of a day, so its own counter tells, and not the days.
    let total = match period {
        Some(period) => account.credits().usage.of_period(&feature, period.start),
        None => days.iter().fold(DayUse::default(), |sum, DayUsed { of_day, .. }| DayUse {
            used: sum.used.saturating_add(of_day.used),
            credits: sum.credits.saturating_add(of_day.credits),
        }),
    };
    let tightest = tightest(&limits).copied();
    FeatureUsed {
        used: total.used,
        credits: total.credits,
        limit: tightest.map(|limit| limit.limit),
        per: tightest.map(|limit| limit.per),
        remaining: tightest.map(|limit| limit.remaining),
        percentage: tightest.and_then(|limit| percentage(limit.used, limit.limit)),
        resets_at: tightest.map(|limit| limit.resets_at),
        limits: limits
            .into_iter()
            .map(|limit| LimitUsed { percentage: percentage(limit.used, limit.limit), limit })
            .collect(),
        days,
        feature,
    }
}

/// To one decimal; past a hundred when more was recorded than allowed.
fn percentage(used: i64, of: i64) -> Option<f64> {
    (of > 0).then(|| (used as f64 * 1_000.0 / of as f64).round() / 10.0)
}

/// Adds up the plan's lots, used up or not.
async fn credits_used(
    state: &State,
    account: &AccountNow,
    standing: &Standing<'_>,
    now: DateTime<Utc>,
) -> Result<CreditsUsed, ApiError> {
    let period = credits_period_of(account.credits(), standing, now);
    let client = state.service.connection().await?;
    let rows = read::plan_lots_used_up(&**client, account.id.as_str(), period.start, MAX_CLOSED_LOTS).await?;
    drop(client);
    let mut lots: BTreeMap<_, Lot> = BTreeMap::new();
    for row in rows {
        let lot: Lot = serde_json::from_str(&row.state).map_err(StoreError::from)?;
        lots.insert(lot.id, lot);
    }
    lots.extend(account.credits().lots.iter().map(|lot| (lot.id, lot.clone())));
    let of_plan = PlanCredits::within(period, lots.values(), now);
    Ok(CreditsUsed {
        period: PeriodView::of(period),
        percentage: percentage(of_plan.used, of_plan.granted + of_plan.rolled_over),
        of_plan,
        available: account.credits().available_at(now),
        unlimited: standing.is_unlimited(None),
    })
}
