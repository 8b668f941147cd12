//! Explaining a decision: made again from the log alone, as it stood then, under the catalog of then.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::receipt::{Check, Receipt};
use crate::app::catalog::ActiveCatalog;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::account::{Account, Changes};
use crate::domain::catalog::{Feature, Overage};
use crate::domain::charge::{Charge, overage_left};
use crate::domain::command::{Command, decide};
use crate::domain::credit::{Credits, Draw, Lot, LotSource};
use crate::domain::draft::{Context, Draft};
use crate::domain::dunning::Stage;
use crate::domain::event::{ChargeRejected, Event};
use crate::domain::hold::{Hold, Used};
use crate::domain::ids::{AccountId, LotId};
use crate::domain::limits::{LimitNow, limits_at, period_of};
use crate::domain::overrides::{Limit, OverrideView, Unlimited, ruling};
use crate::domain::rejection::Rejection;
use crate::domain::replay;
use crate::domain::settle::credits_at;
use crate::domain::standing::{AccountState, Entitlement, Missing, Standing, check, why_missing};
use crate::store::error::StoreError;
use crate::store::log::{self, StoredEvent};
use crate::store::partition::partition_of;

mod returns;

/// A decision, and all that it followed from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub receipt: String,
    /// `debit`, `hold`, `capture`, `refusal`, `check`, or the name of another event.
    pub kind: String,
    pub account: AccountId,
    pub at: DateTime<Utc>,
    pub partition: i16,
    /// Of the event; of a check: of the account's last event before it.
    pub position: i64,
    /// The account's events before the decision.
    pub version: i64,
    /// Digest of the catalog in force.
    pub catalog: String,
    pub plan: Option<String>,
    pub allowed: bool,
    /// The refusal's code, or the check's reason.
    pub reason: Option<String>,
    /// The override that held in place of what the plan says of the feature.
    #[serde(rename = "override")]
    pub overridden: Option<OverrideView>,
    /// The limits that the feature had, as far as they were used up.
    pub limits: Vec<LimitNow>,
    /// Step by step, in words.
    pub because: Vec<String>,
    pub available_before: i64,
    pub available_after: i64,
    /// Lots as they stood before, in burn order.
    pub lots_before: Vec<LotBefore>,
    /// What was taken out of them, or is set aside; when a hold was given back, what returned to them.
    pub lots: Vec<Draw>,
    /// Whether deciding again from the log gives the same; null for what was not decided on a request.
    pub agrees: Option<bool>,
    /// What is on record; null for a check.
    pub event: Option<Value>,
}

/// A lot before a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotBefore {
    pub id: LotId,
    pub source: LotSource,
    pub cause: String,
    pub remaining: i64,
    pub held: i64,
    pub priority: i32,
    pub expires_at: Option<DateTime<Utc>>,
}

impl From<&Lot> for LotBefore {
    fn from(lot: &Lot) -> Self {
        Self {
            id: lot.id,
            source: lot.source,
            cause: lot.cause.to_string(),
            remaining: lot.remaining,
            held: lot.held,
            priority: lot.priority,
            expires_at: lot.expires_at,
        }
    }
}

impl Service {
    /// Explains a decision by its receipt, or by the id of a debit or a hold.
    pub async fn explain_id(&self, id: &str) -> Result<Explanation, AppError> {
        let receipt = match Uuid::try_parse(id) {
            Ok(id) => self.receipt_of(id).await?,
            Err(_) => id.parse::<Receipt>().map_err(|_| AppError::ReceiptNotFound(id.to_owned()))?,
        };
        self.explain(&receipt).await
    }

    /// Explains what a receipt is for.
    pub async fn explain(&self, receipt: &Receipt) -> Result<Explanation, AppError> {
        match receipt {
            Receipt::Event { partition_id, position } => {
                let client = self.connection().await?;
                let not_found = || AppError::ReceiptNotFound(receipt.to_string());
                let at_position = async |position| log::at_position(&**client, *partition_id, position).await;
                let mut stored = at_position(*position).await?.ok_or_else(not_found)?;
                // What came of the end of a hold, at once, is explained by that.
                let mut cause = stored.clone();
                while matches!(cause.event_type.as_str(), "credits_clawed_back" | "credits_expired" | "debt_repaid") {
                    let earlier = at_position(cause.previous_position).await?;
                    let is_same = |earlier: &StoredEvent| earlier.at == stored.at;
                    let Some(earlier) = earlier.filter(is_same) else { break };
                    cause = earlier;
                }
                if matches!(cause.event_type.as_str(), "hold_captured" | "hold_released" | "hold_expired") {
                    stored = cause;
                }
                drop(client);
                self.explain_event(receipt, &stored).await
            }
            Receipt::Check(check) => self.explain_check(receipt, check).await,
        }
    }

    async fn explain_event(&self, receipt: &Receipt, stored: &StoredEvent) -> Result<Explanation, AppError> {
        let event = stored.event()?;
        let id = AccountId::new(&stored.account_id).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (mut before, _) = self.fold_while(&id, |earlier| earlier.version < stored.version).await?;
        let catalog = self.catalog_of(catalog_version(&event), stored.at).await?;
        let context = catalog.context(stored.at);
        let standing = Standing::of(&before.credits, context.catalog, context.now);
        let plan = standing.plan.map(|plan| plan.id.clone());
        let Rule { overridden, limits, because } = reasons(&before.credits, &event, context);
        let available_before = before.credits.available_at(stored.at);
        let lots_before = before.credits.lots.iter().map(LotBefore::from).collect();
        let lots = draws_of(&before.credits, &event);
        let version = before.version;
        let agrees = replay::command_of(&event, stored.at)
            .map(|command| decides_again(before.clone(), &command, &event, context));
        before.evolve(&event, &mut Changes::default());
        let rejection = match &event {
            Event::ChargeRejected(rejected) => Some(code(&rejected.rejection)),
            _ => None,
        };
        Ok(Explanation {
            receipt: receipt.to_string(),
            kind: kind_of(&event).to_owned(),
            account: id,
            at: stored.at,
            partition: stored.partition_id,
            position: stored.position,
            version,
            catalog: catalog.digest.clone(),
            plan,
            allowed: rejection.is_none(),
            reason: rejection,
            overridden,
            limits,
            because,
            available_before,
            available_after: before.credits.available_at(stored.at),
            lots_before,
            lots,
            agrees,
            event: Some(serde_json::from_str(&stored.payload).map_err(StoreError::from)?),
        })
    }

    async fn explain_check(&self, receipt: &Receipt, asked: &Check<'_>) -> Result<Explanation, AppError> {
        let not_found = || AppError::ReceiptNotFound(receipt.to_string());
        // Nobody was answered in the future, but for what replicas' clocks disagree by.
        let latest = self.clock.now() + TimeDelta::minutes(1);
        let at = asked.at().filter(|at| *at <= latest && asked.quantity > 0).ok_or_else(not_found)?;
        let (account, _) = self.fold_while(&asked.account, |event| event.version <= asked.version).await?;
        if account.version != asked.version {
            return Err(not_found());
        }
        let catalog = self.catalog_of(Some(&asked.catalog), at).await?;
        let context = catalog.context(at);
        let credits = &credits_at(&account.id, &account.credits, context);
        let answer = check(credits, context.catalog, &asked.feature, asked.quantity, at);
        let available = credits.available_at(at);
        let Rule { overridden, limits, because } =
            of_charge(&asked.feature, (asked.quantity, asked.quantity), credits, context);
        Ok(Explanation {
            receipt: receipt.to_string(),
            kind: "check".to_owned(),
            account: asked.account.clone().into_owned(),
            at,
            partition: partition_of(asked.account.as_str(), self.partitions),
            position: account.position,
            version: account.version,
            catalog: catalog.digest.clone(),
            plan: answer.plan.map(str::to_owned),
            allowed: answer.allowed,
            reason: reason_of(&answer),
            overridden,
            limits,
            because,
            available_before: available,
            available_after: available,
            lots_before: credits.lots.iter().map(LotBefore::from).collect(),
            lots: Vec::new(),
            agrees: Some(answer.allowed == asked.allowed),
            event: None,
        })
    }

    /// The catalog of a version, told by the beginning of its digest; else the one in force at a time.
    async fn catalog_of(&self, version: Option<&str>, at: DateTime<Utc>) -> Result<Arc<ActiveCatalog>, AppError> {
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return self.catalog_as_of(at).await;
        };
        self.catalog_named(version).await
    }

    /// The receipt of a debit or a hold that only its id is known of. An id tells its time, so each partition is searched
    /// for that.
    pub async fn receipt_of(&self, id: Uuid) -> Result<Receipt, AppError> {
        const EARLIER: TimeDelta = TimeDelta::seconds(5);
        const LATER: TimeDelta = TimeDelta::seconds(60);
        let not_found = || AppError::ReceiptNotFound(id.to_string());
        let time = id.get_timestamp().ok_or_else(not_found)?.to_unix();
        let time = DateTime::from_timestamp(i64::try_from(time.0).unwrap_or(i64::MAX), time.1).ok_or_else(not_found)?;
        let client = self.connection().await?;
        for (partition_id, head) in log::positions(&**client).await? {
            let found =
                log::find_charge(&**client, partition_id, head, (time - EARLIER, time + LATER), &id.to_string())
                    .await?;
            if let Some(position) = found {
                return Ok(Receipt::Event { partition_id, position });
            }
        }
        Err(not_found())
    }
}

fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::CreditsDebited(_) => "debit",
        Event::HoldPlaced(_) => "hold",
        Event::HoldCaptured(_) => "capture",
        Event::ChargeRejected(_) => "refusal",
        event => event.name(),
    }
}

fn catalog_version(event: &Event) -> Option<&str> {
    match event {
        Event::CreditsDebited(debited) => debited.catalog.as_deref(),
        Event::CreditsGranted(granted) => Some(&granted.catalog),
        Event::HoldPlaced(placed) => Some(&placed.catalog),
        Event::HoldCaptured(captured) => Some(&captured.catalog),
        Event::ChargeRejected(rejected) => Some(&rejected.catalog),
        _ => None,
    }
}

fn draws_of(credits: &Credits, event: &Event) -> Vec<Draw> {
    match event {
        Event::HoldExtended(_) | Event::HoldReleased(_) | Event::HoldExpired(_) => {
            returns::hold_of(credits, event).map_or_else(Vec::new, |hold| hold.cover.lots.clone())
        }
        Event::CreditsDebited(debited) => debited.lots.clone(),
        Event::HoldPlaced(placed) => placed.hold.cover.lots.clone(),
        Event::HoldCaptured(captured) => captured.cover.lots.clone(),
        Event::CreditsExpired(expired) => expired.lots.clone(),
        Event::DebtRepaid(repaid) => repaid.lots.clone(),
        _ => Vec::new(),
    }
}

fn decides_again(mut account: Account, command: &Command, event: &Event, context: Context<'_>) -> bool {
    let mut changes = Changes::default();
    let mut draft = Draft::new(&mut account, &mut changes);
    let _ = decide(&mut draft, command, context);
    draft.events.contains(event)
}

/// What a decision rests on beside the credits, and all of it in words.
#[derive(Debug, Default)]
struct Rule {
    overridden: Option<OverrideView>,
    limits: Vec<LimitNow>,
    because: Vec<String>,
}

/// What led to an event.
fn reasons(credits: &Credits, event: &Event, context: Context<'_>) -> Rule {
    let mut rule = match replay::charge_of(event) {
        Some(Charge::Feature { feature, quantity }) => {
            // A hold's own units count towards its feature's limits already.
            let held = captured_hold(credits, event).and_then(|hold| hold.quantity).unwrap_or(0);
            of_charge(&feature, (quantity, (quantity - held).max(0)), credits, context)
        }
        Some(Charge::Amount(amount)) => {
            let because = vec![format!("{amount} credits were asked for"), of_credits(credits, None, context)];
            Rule { because, ..Rule::default() }
        }
        None => Rule::default(),
    };
    let because = &mut rule.because;
    match event {
        Event::ChargeRejected(rejected) => {
            let hold = captured_hold(credits, event);
            because.extend(hold.map(|hold| format!("the hold {} had set {} credits aside", hold.id, hold.amount)));
            if let Some(Used::Amount(amount)) = rejected.capture {
                because.push(format!("{amount} credits were used, whatever its units cost"));
            }
            because.push(format!("so it was refused: {}", rejected.rejection));
        }
        Event::CreditsDebited(debited) if debited.unlimited => because.push("so nothing was taken".to_owned()),
        Event::CreditsDebited(debited) => because.push(taken(&debited.lots, debited.debt, debited.overage)),
        Event::HoldPlaced(placed) => {
            let cover = &placed.hold.cover;
            because.push(taken(&cover.lots, cover.debt, cover.overage));
            because.push(format!("they are set aside until {}", placed.hold.expires_at));
        }
        Event::HoldCaptured(captured) => {
            because.push(format!("{} credits of the hold {} were used", captured.amount, captured.hold));
            because.push(taken(&captured.cover.lots, captured.cover.debt, captured.cover.overage));
            because.push(format!("{} returned", captured.released.max(0)));
        }
        Event::HoldExtended(_) | Event::HoldReleased(_) | Event::HoldExpired(_) => {
            let hold = returns::hold_of(credits, event);
            because.extend(hold.into_iter().flat_map(|hold| returns::of_hold(hold, event)));
        }
        Event::CreditsExpired(expired) => because.extend(returns::of_expiry(credits, expired)),
        Event::DebtRepaid(repaid) => {
            let repaid: i64 = repaid.lots.iter().map(|draw| draw.amount).sum();
            because.push(format!("{repaid} credits that came to be spendable made good what was owed"));
        }
        Event::CreditsGranted(granted) => because.push(format!("granted by {}", granted.lot.cause)),
        Event::CreditsClawedBack(clawed) => because.push(format!("claimed back by {}", clawed.cause)),
        Event::CreditsReinstated(reinstated) => because.push(format!("given back by {}", reinstated.cause)),
        Event::LotAmended(amended) => because.push(format!("late news changed what came of {}", amended.cause)),
        _ => {}
    }
    rule
}

fn taken(lots: &[Draw], debt: i64, overage: i64) -> String {
    let drawn: i64 = lots.iter().map(|draw| draw.amount).sum();
    let mut text = match lots {
        [] => "so nothing came out of lots".to_owned(),
        [_] => format!("so {drawn} came out of one lot, the first in burn order"),
        lots => format!("so {drawn} came out of {} lots, in burn order", lots.len()),
    };
    if debt > 0 {
        text.push_str(&format!(", and {debt} are owed"));
    }
    if overage > 0 {
        text.push_str(&format!(", and {overage} are to be billed"));
    }
    text
}

/// The hold whose capture was refused.
fn captured_hold<'a>(credits: &'a Credits, event: &Event) -> Option<&'a Hold> {
    match event {
        Event::ChargeRejected(ChargeRejected { id, capture: Some(_), .. }) => credits.hold(*id),
        _ => None,
    }
}

/// The plan, what holds for the feature in it or in its place, its limits and price, and the credits there were. Of the
/// quantity asked for, `more` were to count towards the limits.
fn of_charge(feature: &str, (quantity, more): (i64, i64), credits: &Credits, context: Context<'_>) -> Rule {
    let standing = Standing::of(credits, context.catalog, context.now);
    let plan = standing.plan.map_or("none", |plan| plan.id.as_str());
    let mut because = vec![match standing.subscription {
        Some(access) => format!("the plan is {plan}, by subscription {} ({})", access.subscription, access.status),
        None => format!("the plan is {plan}, for no subscription grants another"),
    }];
    because.extend(standing.overdue.map(|overdue| {
        let since = overdue.since.format("%FT%TZ");
        match overdue.stage {
            Stage::InGrace => format!("a payment failed at {since}, and the days of grace were running"),
            Stage::Restricted => format!("a payment failed at {since}, and the days of grace were over"),
            Stage::Suspended => format!("a payment failed at {since}, and the account was suspended for it"),
        }
    }));
    let Some(declared) = context.catalog.feature(feature) else {
        because.push(format!("the catalog has no feature {feature}"));
        return Rule { because, ..Rule::default() };
    };
    if standing.state(credits) == AccountState::Suspended {
        because.extend(credits.suspension.as_deref().map(|suspension| {
            format!("the account was suspended at {}{}", told(suspension.since), in_words_of(&suspension.reason))
        }));
        return Rule { because, ..Rule::default() };
    }
    let ruling = ruling(credits, &standing, feature, context.now);
    let overridden = ruling.by.map(|by| by.view(feature));
    because.push(match (&overridden, &ruling.grant) {
        (Some(by), _) => of_override(by),
        (None, Some(_)) => format!("{plan} includes {feature}"),
        (None, None) => {
            let is_kept_back = standing.plan.is_some_and(|plan| plan.features.contains_key(feature));
            let because = match why_missing(credits, context.catalog, feature) {
                Missing::PaymentOverdue if is_kept_back => " until it is paid for",
                Missing::Paused => ", and the subscription that would is paused",
                Missing::PaymentOverdue | Missing::NotInPlan => "",
            };
            format!("{plan} does not include {feature}{because}")
        }
    });
    let Some(grant) = ruling.grant else {
        return Rule { overridden, because, ..Rule::default() };
    };
    because.extend(grant.limit.map(|limit| format!("{feature} is limited to {limit}")));
    let period = period_of(credits, &standing, context.now);
    let limits = limits_at(credits, &grant.windows, feature, period, context.now);
    because.extend(limits.iter().map(|limit| of_limit(feature, more, limit)));
    because.extend(of_price(declared, quantity));
    if declared.costs_credits() {
        because.push(of_credits(credits, Some(feature), context));
    }
    Rule { overridden, limits, because }
}

fn of_override(by: &OverrideView) -> String {
    let feature = &by.feature;
    let effect = match (by.allowed, by.limit, by.per, &by.values) {
        (false, ..) => format!("an override denies {feature}"),
        (true, Some(Limit::Number(limit)), Some(per), _) => {
            format!("an override limits {feature} to {limit} per {}", per.as_str())
        }
        (true, Some(Limit::Number(limit)), None, _) => format!("an override limits {feature} to {limit}"),
        (true, Some(Limit::Word(Unlimited::Unlimited)), ..) => format!("an override allows {feature} without limit"),
        (true, None, _, Some(values)) => format!("an override allows these of {feature}: {}", values.join(", ")),
        (true, None, _, None) => format!("an override allows {feature}"),
    };
    let until = by.expires_at.map_or_else(String::new, |end| format!(" until {}", told(end)));
    format!("{effect}{until}{}", in_words_of(&by.reason))
}

fn of_limit(feature: &str, quantity: i64, now: &LimitNow) -> String {
    let LimitNow { limit, per, used, held, remaining, resets_at } = now;
    let (per, resets_at) = (per.as_str(), told(*resets_at));
    let too_many = if quantity > *remaining { format!(", so {quantity} would be too many") } else { String::new() };
    format!(
        "{feature} is limited to {limit} per {per}: {used} were used and {held} held, the count begins anew at \
         {resets_at}{too_many}"
    )
}

/// The words of whoever set an override or suspended an account.
fn in_words_of(reason: &Option<String>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(", because: {reason}"))
}

fn told(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn of_price(feature: &Feature, quantity: i64) -> Option<String> {
    if !feature.costs_credits() {
        return Some(format!("{quantity} of {} cost no credits", feature.id));
    }
    let cost = feature.cost_of(quantity)?;
    let each = match feature.credit_cost {
        Some(each) => format!("{each} each"),
        None => "by its tiers".to_owned(),
    };
    Some(format!("{quantity} of {} cost {cost} credits, {each}", feature.id))
}

fn of_credits(credits: &Credits, feature: Option<&str>, context: Context<'_>) -> String {
    let standing = Standing::of(credits, context.catalog, context.now);
    if standing.is_unlimited(feature) {
        return "the plan's credits are unlimited".to_owned();
    }
    let available = credits.available_at(context.now);
    let beyond = match standing.overage(feature) {
        Overage::Deny => "and nothing beyond".to_owned(),
        Overage::Limit(limit) => format!("and {} of {limit} could still be owed", overage_left(limit, available)),
        Overage::Unlimited => "and what goes beyond is billed".to_owned(),
    };
    format!("{available} credits were available, {} held, {beyond}", credits.held())
}

/// A rejection's stable code.
fn code(rejection: &Rejection) -> String {
    let json = serde_json::to_value(rejection).unwrap_or_default();
    json["code"].as_str().unwrap_or_default().to_owned()
}

fn reason_of(answer: &Entitlement<'_>) -> Option<String> {
    serde_json::to_value(answer.reason).ok()?.as_str().map(str::to_owned)
}
