//! Overrides: what an account may do whatever its plan says, for a while or for ever.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::catalog::{FeatureGrant, FeatureKind, Per, WindowLimit};
use super::command::{MAX_AMOUNT, Outcome, require_known};
use super::credit::Credits;
use super::draft::{Context, Draft};
use super::dunning::Stage;
use super::event::{AccountReinstated, AccountSuspended, Event, OverrideRemoved, OverrideSet};
use super::rejection::Rejection;
use super::standing::Standing;

/// Overrides of one account: they are in the part of it that every debit writes.
pub const MAX_OVERRIDES: usize = 50;
/// Longest reason, in characters. It goes into the log, so it must not name a person.
pub const MAX_REASON: usize = 500;

/// What holds for one feature of one account, in place of what its plan says.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    pub effect: OverrideEffect,
    /// `None`: until it is removed.
    pub expires_at: Option<DateTime<Utc>>,
    /// In the words of whoever set it.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideEffect {
    /// The feature may not be used.
    Denied,
    /// It may be used, within the plan's limits, if the plan has any.
    Allowed,
    /// For kind `limit`: how many at most; `None`: as many as one likes.
    Limit(Option<i64>),
    /// For kind `metered`: this one limit in place of the plan's; `None`: none of them.
    Window(Option<WindowLimit>),
    /// For kind `list`: these values in place of the plan's.
    Values(Vec<String>),
}

/// An override as a caller words it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverrideTerms {
    pub allowed: Option<bool>,
    /// `Some(None)`: unlimited.
    pub limit: Option<Option<i64>>,
    pub per: Option<Per>,
    pub values: Option<Vec<String>>,
}

/// A limit as callers word it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "limit must be a whole number or \"unlimited\"")]
pub enum Limit {
    Number(i64),
    Word(Unlimited),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlimited {
    Unlimited,
}

/// An override as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OverrideView {
    pub feature: String,
    pub allowed: bool,
    /// `None`: the plan's limits hold.
    pub limit: Option<Limit>,
    pub per: Option<Per>,
    pub values: Option<Vec<String>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

/// Why an override's terms do not fit the feature: which field, and the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub field: &'static str,
    pub problem: String,
}

/// That an account may do nothing, whatever its plan says.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    pub since: DateTime<Utc>,
    pub reason: Option<String>,
}

/// What holds for a feature: the plan's grant, or an override's in its place.
#[derive(Debug, Clone)]
pub struct Ruling<'a> {
    /// `None`: it may not be used.
    pub grant: Option<Cow<'a, FeatureGrant>>,
    /// The override that decided.
    pub by: Option<&'a Override>,
}

/// What holds for a feature of an account that stands so.
pub fn ruling<'a>(credits: &'a Credits, standing: &Standing<'a>, feature: &str, now: DateTime<Utc>) -> Ruling<'a> {
    let planned = standing.grant(feature);
    match credits.overrides.get(feature).filter(|known| known.holds_at(now)) {
        Some(by) => Ruling { grant: by.grant(planned), by: Some(by) },
        None => Ruling { grant: planned.map(Cow::Borrowed), by: None },
    }
}

impl Override {
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// How callers see it.
    pub fn view(&self, feature: &str) -> OverrideView {
        let unlimited = Limit::Word(Unlimited::Unlimited);
        let (limit, per, values) = match &self.effect {
            OverrideEffect::Denied | OverrideEffect::Allowed => (None, None, None),
            OverrideEffect::Limit(limit) => (Some(limit.map_or(unlimited, Limit::Number)), None, None),
            OverrideEffect::Window(Some(WindowLimit { limit, per })) => (Some(Limit::Number(*limit)), Some(*per), None),
            OverrideEffect::Window(None) => (Some(unlimited), None, None),
            OverrideEffect::Values(values) => (None, None, Some(values.clone())),
        };
        OverrideView {
            feature: feature.to_owned(),
            allowed: self.effect != OverrideEffect::Denied,
            limit,
            per,
            values,
            expires_at: self.expires_at,
            reason: self.reason.clone(),
        }
    }

    fn grant<'a>(&self, planned: Option<&'a FeatureGrant>) -> Option<Cow<'a, FeatureGrant>> {
        let grant = match &self.effect {
            OverrideEffect::Denied => return None,
            OverrideEffect::Allowed => {
                return Some(planned.map_or_else(|| Cow::Owned(FeatureGrant::default()), Cow::Borrowed));
            }
            OverrideEffect::Limit(limit) => FeatureGrant { limit: *limit, ..FeatureGrant::default() },
            OverrideEffect::Window(window) => {
                FeatureGrant { windows: window.iter().copied().collect(), ..FeatureGrant::default() }
            }
            OverrideEffect::Values(values) => FeatureGrant { values: values.clone(), ..FeatureGrant::default() },
        };
        Some(Cow::Owned(grant))
    }
}

impl OverrideTerms {
    /// What the terms come to for a feature of this kind.
    pub fn effect(self, kind: FeatureKind) -> Result<OverrideEffect, Unfit> {
        let unfit = |field, problem: &str| Err(Unfit { field, problem: problem.to_owned() });
        let Self { allowed, limit, per, values } = self;
        if per.is_some() && (kind != FeatureKind::Metered || !matches!(limit, Some(Some(_)))) {
            return unfit("per", "goes with the limit of a metered feature, as a number");
        }
        if values.is_some() && kind != FeatureKind::List {
            return unfit("values", "only a feature of kind list has values");
        }
        if limit.is_some() && !matches!(kind, FeatureKind::Limit | FeatureKind::Metered) {
            return unfit("limit", "only a metered feature or one of kind limit has a limit");
        }
        if allowed == Some(false) {
            let says_more = limit.is_some() || values.is_some();
            return if says_more {
                unfit("allowed", "false leaves nothing to say of limit or values")
            } else {
                Ok(OverrideEffect::Denied)
            };
        }
        let least = i64::from(kind == FeatureKind::Metered);
        if let Some(Some(limit)) = limit
            && !(least..=MAX_AMOUNT).contains(&limit)
        {
            let problem = format!("must be \"unlimited\" or a whole number from {least} to {MAX_AMOUNT}");
            return Err(Unfit { field: "limit", problem });
        }
        match (kind, limit, values) {
            (FeatureKind::Limit, Some(limit), _) => Ok(OverrideEffect::Limit(limit)),
            (FeatureKind::Limit, None, _) => unfit("limit", "must be given: a number, or \"unlimited\""),
            (FeatureKind::List, _, Some(values)) => Ok(OverrideEffect::Values(values)),
            (FeatureKind::List, _, None) => unfit("values", "must be given: the values that are allowed"),
            (FeatureKind::Metered, Some(None), _) => Ok(OverrideEffect::Window(None)),
            (FeatureKind::Metered, Some(Some(limit)), _) => match per {
                Some(per) => Ok(OverrideEffect::Window(Some(WindowLimit { limit, per }))),
                None => unfit("per", "must be given with limit: minute, hour, day, month or period"),
            },
            (FeatureKind::Metered | FeatureKind::Boolean, None, _) | (FeatureKind::Boolean, ..) => match allowed {
                Some(_) => Ok(OverrideEffect::Allowed),
                None => unfit("allowed", "must be given, unless limit or values are"),
            },
        }
    }
}

/// Sets an override, and removes those that have expired. Setting it again as it is changes nothing.
pub fn decide_override(
    draft: &mut Draft<'_>,
    feature: &str,
    set: &Override,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    if context.catalog.feature(feature).is_none() {
        return Err(Rejection::UnknownFeature { feature: feature.to_owned() });
    }
    let known = &draft.account.credits.overrides;
    let is_over = |(name, known): &(&String, &Override)| !known.holds_at(context.now) && *name != feature;
    let expired: Vec<String> = known.iter().filter(is_over).map(|(name, _)| name.clone()).collect();
    for feature in expired {
        draft.emit(Event::OverrideRemoved(OverrideRemoved { feature, expired: true }));
    }
    let known = &draft.account.credits.overrides;
    if known.get(feature) == Some(set) {
        return Ok(Outcome::Done);
    }
    if known.len() >= MAX_OVERRIDES && !known.contains_key(feature) {
        return Err(Rejection::TooManyOverrides { max: MAX_OVERRIDES });
    }
    draft.emit(Event::OverrideSet(OverrideSet { feature: feature.to_owned(), set: set.clone() }));
    Ok(Outcome::Done)
}

/// Removes an override; without one, does nothing.
pub fn decide_override_removal(
    draft: &mut Draft<'_>,
    feature: &str,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    if draft.account.credits.overrides.contains_key(feature) {
        draft.emit(Event::OverrideRemoved(OverrideRemoved { feature: feature.to_owned(), expired: false }));
    } else if context.catalog.feature(feature).is_none() {
        return Err(Rejection::UnknownFeature { feature: feature.to_owned() });
    }
    Ok(Outcome::Done)
}

/// Suspends an account, or gives another reason for its suspension.
pub fn decide_suspension(
    draft: &mut Draft<'_>,
    reason: Option<&String>,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    let known = draft.account.credits.suspension.as_ref();
    if known.is_none_or(|known| reason.is_some() && known.reason.as_ref() != reason) {
        let since = known.map_or(context.now, |known| known.since);
        let suspension = Suspension { since, reason: reason.cloned() };
        draft.emit(Event::AccountSuspended(AccountSuspended { suspension }));
    }
    Ok(Outcome::Done)
}

/// Ends a suspension; without one, does nothing.
pub fn decide_reinstatement(draft: &mut Draft<'_>, context: Context<'_>) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    if draft.account.credits.suspension.is_some() {
        draft.emit(Event::AccountReinstated(AccountReinstated { at: context.now }));
    }
    Ok(Outcome::Done)
}

/// A suspended account spends nothing, whether a caller or an overdue payment suspended it; its credits are kept.
pub fn refuse_suspended(draft: &Draft<'_>, context: Context<'_>) -> Result<(), Rejection> {
    let credits = &draft.account.credits;
    if let Some(suspension) = &credits.suspension {
        return Err(Rejection::AccountSuspended { since: suspension.since });
    }
    if credits.access.iter().all(|access| access.past_due_since.is_none()) {
        return Ok(());
    }
    match Standing::of(credits, context.catalog, context.now).overdue {
        Some(overdue) if overdue.stage == Stage::Suspended => Err(Rejection::SuspendedUnpaid { since: overdue.since }),
        _ => Ok(()),
    }
}
