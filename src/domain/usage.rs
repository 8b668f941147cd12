//! Usage: how much of each feature was used, by day, and within the windows that a plan may limit.
//!
//! The account's hot part holds one set of counters a feature, all around the moment of the latest use. A day that is over
//! leaves it for a row of its own, so a debit never reads more than the hot part, however long the account has lived.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::account::{Account, Changes};
use super::billing::Kind;
use super::catalog::{FeatureKind, Per, WindowLimit};
use super::command::{MAX_AMOUNT, Outcome, require_known};
use super::credit::Credits;
use super::draft::{Context, Draft};
use super::event::{Event, UsageRecorded};
use super::overrides::ruling;
use super::rejection::Rejection;
use super::settle::month_around;
use super::standing::Standing;

/// How far back a use may be recorded.
pub const MAX_AGE: TimeDelta = TimeDelta::days(35);
/// How far a caller's clock may be ahead. What is recorded ahead of ours counts as now.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// What recording does to the day's total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageAction {
    /// Adds to it.
    #[default]
    Increment,
    /// Replaces it.
    Set,
}

/// A use that a caller states. It draws no credits and is never refused for a limit: it has happened.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordUsage {
    pub feature: String,
    pub quantity: i64,
    pub action: UsageAction,
    /// `None`: now.
    pub at: Option<DateTime<Utc>>,
}

/// The moment that a use counts at, and the account's period that was current then. Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub at: i64,
    pub period_start: i64,
}

/// What was used of a feature on one day, and the credits that debits took for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayUse {
    pub used: i64,
    pub credits: i64,
}

/// One day, by feature.
pub type UsageDay = BTreeMap<String, DayUse>;

/// The counters of all features, as far as their windows hold the latest use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Unix second of the latest use: counters are of the minute, hour, day and month that hold it. It never goes back, so
    /// every day with a row of its own lies before this one.
    pub at: i64,
    /// Unix second in which the period began that the counters are of.
    pub period_start: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, Counters>,
}

/// Units used within each window, and the credits that debits took for them. Stored as a list of numbers, since every
/// debit writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[i64; 7]", into = "[i64; 7]")]
pub struct Counters {
    pub minute: i64,
    pub hour: i64,
    pub day: i64,
    pub month: i64,
    pub period: i64,
    pub day_credits: i64,
    pub period_credits: i64,
}

impl From<[i64; 7]> for Counters {
    fn from([minute, hour, day, month, period, day_credits, period_credits]: [i64; 7]) -> Self {
        Self { minute, hour, day, month, period, day_credits, period_credits }
    }
}

impl From<Counters> for [i64; 7] {
    fn from(c: Counters) -> Self {
        [c.minute, c.hour, c.day, c.month, c.period, c.day_credits, c.period_credits]
    }
}

/// A billing period, in Unix seconds: `end` is the first that is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub start: i64,
    pub end: i64,
}

/// A limit, and how far it is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitNow {
    pub limit: i64,
    pub per: Per,
    pub used: i64,
    /// Never below zero, however much was recorded.
    pub remaining: i64,
    pub resets_at: DateTime<Utc>,
}

/// A use on its way into the counters.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    pub feature: &'a str,
    pub quantity: i64,
    pub credits: i64,
    pub counted: Counted,
    /// A day's total was set: nobody can tell at which minutes.
    pub is_total: bool,
}

/// Name of the day that holds a Unix second, such as `2026-01-15`.
pub fn day_of(at: i64) -> String {
    DateTime::from_timestamp(at, 0).unwrap_or_default().date_naive().to_string()
}

fn start_of_month(at: i64) -> DateTime<Utc> {
    let day = DateTime::from_timestamp(at, 0).unwrap_or_default().date_naive();
    day.with_day(1).unwrap_or(day).and_time(chrono::NaiveTime::MIN).and_utc()
}

/// First second of the window that holds `at`, and the first one after it.
fn window_around(per: Per, at: i64, period: Period) -> Period {
    let of_length = |length: i64| {
        let start = at - at.rem_euclid(length);
        Period { start, end: start + length }
    };
    match per {
        Per::Minute => of_length(60),
        Per::Hour => of_length(3_600),
        Per::Day => of_length(86_400),
        Per::Month => {
            let start = start_of_month(at);
            let end = start.checked_add_months(Months::new(1)).unwrap_or(start);
            Period { start: start.timestamp(), end: end.timestamp() }
        }
        Per::Period => period,
    }
}

fn same_window(per: Per, a: i64, b: i64) -> bool {
    let no_period = Period { start: 0, end: 0 };
    window_around(per, a, no_period).start == window_around(per, b, no_period).start
}

/// The billing period of the deciding subscription; on the default plan, the account's own month.
pub fn period_of(credits: &Credits, standing: &Standing<'_>, now: DateTime<Utc>) -> Period {
    if let Some(access) = standing.subscription
        && let (Some(start), Some(end)) = (access.period_start, access.period_end)
    {
        return Period { start, end };
    }
    let anchor = credits.opened_at.map(|opened| credits.free_since.map_or(opened, |since| since.max(opened)));
    match anchor.and_then(|anchor| month_around(anchor, now)) {
        Some((start, end)) => Period { start: start.timestamp(), end: end.timestamp() },
        None => window_around(Per::Month, now.timestamp(), Period { start: 0, end: 0 }),
    }
}

impl Usage {
    /// Nothing was ever counted.
    pub fn is_unused(&self) -> bool {
        self.at == 0
    }

    /// Units used of a feature so far within the window that holds `at`, and the credits taken for them where the window
    /// is a period.
    fn used(&self, feature: &str, per: Per, at: i64, period_start: i64) -> i64 {
        let Some(counters) = self.features.get(feature) else { return 0 };
        let (count, is_current) = match per {
            Per::Minute => (counters.minute, same_window(per, at, self.at)),
            Per::Hour => (counters.hour, same_window(per, at, self.at)),
            Per::Day => (counters.day, same_window(per, at, self.at)),
            Per::Month => (counters.month, same_window(per, at, self.at)),
            Per::Period => (counters.period, period_start == self.period_start),
        };
        if is_current { count } else { 0 }
    }

    /// What was used of a feature in the period that began at `start`.
    pub fn of_period(&self, feature: &str, start: i64) -> DayUse {
        let counters = self.features.get(feature).filter(|_| self.period_start == start);
        counters.map_or_else(DayUse::default, |c| DayUse { used: c.period, credits: c.period_credits })
    }

    /// The day of the latest use, as far as anything was used on it.
    pub fn open_day(&self) -> UsageDay {
        let of_day = |c: &Counters| DayUse { used: c.day, credits: c.day_credits };
        let days = self.features.iter().map(|(feature, counters)| (feature.clone(), of_day(counters)));
        days.filter(|(_, day)| *day != DayUse::default()).collect()
    }

    /// Begins another period.
    fn enter_period(&mut self, start: i64) {
        if self.period_start != start {
            self.period_start = start;
            for counters in self.features.values_mut() {
                (counters.period, counters.period_credits) = (0, 0);
            }
        }
    }

    /// Moves on to a later moment. Gives the day that is over with it.
    fn advance(&mut self, at: i64) -> Option<(String, UsageDay)> {
        if at <= self.at {
            return None;
        }
        let was = std::mem::replace(&mut self.at, at);
        let closed = (!same_window(Per::Day, was, at)).then(|| (day_of(was), self.open_day()));
        for counters in self.features.values_mut() {
            if !same_window(Per::Minute, was, at) {
                counters.minute = 0;
            }
            if !same_window(Per::Hour, was, at) {
                counters.hour = 0;
            }
            if !same_window(Per::Day, was, at) {
                (counters.day, counters.day_credits) = (0, 0);
            }
            if !same_window(Per::Month, was, at) {
                counters.month = 0;
            }
        }
        self.features.retain(|_, counters| *counters != Counters::default());
        closed.filter(|(_, day)| !day.is_empty())
    }

    /// Counts a use in all windows that hold both it and the latest one. Answers whether that goes for the day.
    fn add(&mut self, used: Use<'_>) -> bool {
        let Use { feature, quantity, credits, counted, is_total } = used;
        let is_open = |per| same_window(per, counted.at, self.at);
        let (minute, hour) = (is_open(Per::Minute) && !is_total, is_open(Per::Hour) && !is_total);
        let (day, month) = (is_open(Per::Day), is_open(Per::Month));
        let period = counted.at >= self.period_start;
        let counters = self.features.entry(feature.to_owned()).or_default();
        // A total may be set below what was counted within it.
        let plus = |count: &mut i64, n: i64, belongs: bool| {
            if belongs {
                *count = count.saturating_add(n).max(0);
            }
        };
        plus(&mut counters.minute, quantity, minute);
        plus(&mut counters.hour, quantity, hour);
        plus(&mut counters.day, quantity, day);
        plus(&mut counters.month, quantity, month);
        plus(&mut counters.period, quantity, period);
        plus(&mut counters.day_credits, credits, day);
        plus(&mut counters.period_credits, credits, period);
        if *counters == Counters::default() {
            self.features.remove(feature);
        }
        day
    }

    /// Takes in the counters of another stream, as far as their windows are the same. Its days are taken in apart.
    fn absorb(&mut self, theirs: &Self) {
        let same = |per| same_window(per, self.at, theirs.at);
        let (minute, hour, month) = (same(Per::Minute), same(Per::Hour), same(Per::Month));
        let period = self.period_start == theirs.period_start;
        for (feature, other) in &theirs.features {
            let counters = self.features.entry(feature.clone()).or_default();
            counters.minute += if minute { other.minute } else { 0 };
            counters.hour += if hour { other.hour } else { 0 };
            counters.month += if month { other.month } else { 0 };
            counters.period += if period { other.period } else { 0 };
            counters.period_credits += if period { other.period_credits } else { 0 };
        }
        self.features.retain(|_, counters| *counters != Counters::default());
    }
}

impl Account {
    /// Counts a use.
    pub(super) fn count_use(&mut self, used: Use<'_>, changes: &mut Changes) {
        let usage = &mut self.credits.usage;
        usage.enter_period(used.counted.period_start);
        let closed = usage.advance(used.counted.at);
        let is_open_day = usage.add(used);
        if let Some((day, record)) = closed {
            self.close_day(day, record, changes);
        }
        if !is_open_day {
            let more = DayUse { used: used.quantity, credits: used.credits };
            self.change_closed_day(day_of(used.counted.at), used.feature, more, changes);
        }
    }

    /// A day that is over leaves the hot part. It has no row yet: rows are of days before the open one.
    fn close_day(&mut self, day: String, record: UsageDay, changes: &mut Changes) {
        changes.touched.insert((Kind::UsageDay, day.clone()));
        if let Some(billing) = &mut self.billing {
            billing.usage_days.insert(day.clone(), record.clone());
        }
        changes.usage_days.insert(day, record);
    }

    /// Counts a use on a day that is over. Needs the account's billing.
    fn change_closed_day(&mut self, day: String, feature: &str, more: DayUse, changes: &mut Changes) {
        let Some(billing) = &mut self.billing else { return };
        let record = billing.usage_days.entry(day.clone()).or_default();
        let known = record.entry(feature.to_owned()).or_default();
        known.used = known.used.saturating_add(more.used).max(0);
        known.credits = known.credits.saturating_add(more.credits).max(0);
        if *known == DayUse::default() {
            record.remove(feature);
        }
        if record.is_empty() {
            billing.usage_days.remove(&day);
        }
        changes.touched.insert((Kind::UsageDay, day));
    }

    /// Takes over what another stream used: its counters, the day it had open, and its days before that.
    pub(super) fn absorb_usage(&mut self, theirs: &Usage, days: BTreeMap<String, UsageDay>, changes: &mut Changes) {
        if theirs.is_unused() {
            return;
        }
        let usage = &mut self.credits.usage;
        if usage.is_unused() {
            usage.period_start = theirs.period_start;
        }
        if let Some((day, record)) = usage.advance(theirs.at) {
            self.close_day(day, record, changes);
        }
        let usage = &mut self.credits.usage;
        usage.absorb(theirs);
        let open = day_of(usage.at);
        for (day, record) in days.into_iter().chain([(day_of(theirs.at), theirs.open_day())]) {
            for (feature, more) in record {
                if day == open {
                    let counters = self.credits.usage.features.entry(feature).or_default();
                    counters.day = counters.day.saturating_add(more.used);
                    counters.day_credits = counters.day_credits.saturating_add(more.credits);
                } else {
                    self.change_closed_day(day.clone(), &feature, more, changes);
                }
            }
        }
    }

    /// What is counted for a feature on the day that holds `at`.
    fn total_of_day(&self, feature: &str, at: i64) -> i64 {
        if same_window(Per::Day, at, self.credits.usage.at) {
            return self.credits.usage.features.get(feature).map_or(0, |counters| counters.day);
        }
        let day = self.billing.as_ref().and_then(|billing| billing.usage_days.get(&day_of(at)));
        day.and_then(|day| day.get(feature)).map_or(0, |day| day.used)
    }
}

/// How far each of a feature's limits is used up at `now`.
pub fn limits_at(
    credits: &Credits,
    windows: &[WindowLimit],
    feature: &str,
    period: Period,
    now: DateTime<Utc>,
) -> Vec<LimitNow> {
    let at = now.timestamp().max(credits.usage.at);
    let limit_now = |window: &WindowLimit| {
        let used = credits.usage.used(feature, window.per, at, period.start);
        let end = window_around(window.per, at, period).end;
        LimitNow {
            limit: window.limit,
            per: window.per,
            used,
            remaining: window.limit.saturating_sub(used).max(0),
            resets_at: DateTime::from_timestamp(end, 0).unwrap_or(now),
        }
    };
    windows.iter().map(limit_now).collect()
}

/// The limit that allows least; of several, the one that does so longest.
pub fn tightest(limits: &[LimitNow]) -> Option<&LimitNow> {
    limits.iter().min_by_key(|limit| (limit.remaining, std::cmp::Reverse(limit.resets_at)))
}

/// Whether the limits of a feature let a debit through. Gives the moment that the use counts at.
pub fn admit(credits: &Credits, feature: &str, quantity: i64, context: Context<'_>) -> Result<Counted, Rejection> {
    let standing = Standing::of(credits, context.catalog, context.now);
    let period = period_of(credits, &standing, context.now);
    let grant = ruling(credits, standing.plan, feature, context.now).grant;
    let windows = grant.as_ref().map_or(&[][..], |grant| &grant.windows);
    let limits = limits_at(credits, windows, feature, period, context.now);
    let exceeded = limits.iter().filter(|limit| quantity > limit.remaining).max_by_key(|limit| limit.resets_at);
    match exceeded {
        Some(&LimitNow { limit, per, used, resets_at, .. }) => {
            Err(Rejection::LimitExceeded { feature: feature.to_owned(), limit, per, used, resets_at })
        }
        // Replicas' clocks differ; a use counts no earlier than those before it.
        None => Ok(Counted { at: context.now.timestamp().max(credits.usage.at), period_start: period.start }),
    }
}

/// Decides on a use that a caller states.
pub fn decide_usage(draft: &mut Draft<'_>, record: &RecordUsage, context: Context<'_>) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    let RecordUsage { feature, quantity, action, at } = record;
    let declared = context.catalog.feature(feature);
    let declared = declared.ok_or_else(|| Rejection::UnknownFeature { feature: feature.clone() })?;
    if declared.kind != FeatureKind::Metered {
        return Err(Rejection::FeatureNotMetered { feature: feature.clone() });
    }
    let least = i64::from(*action == UsageAction::Increment);
    if !(least..=MAX_AMOUNT).contains(quantity) {
        return Err(Rejection::QuantityOutOfRange { min: least, max: MAX_AMOUNT });
    }
    let (earliest, latest) = (context.now - MAX_AGE, context.now + MAX_AHEAD);
    if at.is_some_and(|at| at < earliest || at > latest) {
        return Err(Rejection::TimeOutOfRange { field: "at".to_owned(), earliest, latest });
    }
    let credits = &draft.account.credits;
    let standing = Standing::of(credits, context.catalog, context.now);
    let period_start = period_of(credits, &standing, context.now).start;
    let at = at.map_or_else(|| context.now.timestamp().max(credits.usage.at), |at| at.min(context.now).timestamp());
    let before = draft.account.total_of_day(feature, at);
    let added = match action {
        UsageAction::Increment => *quantity,
        UsageAction::Set => quantity - before,
    };
    let recorded = UsageRecorded {
        feature: feature.clone(),
        action: *action,
        quantity: *quantity,
        added,
        day: day_of(at),
        day_total: before.saturating_add(added),
        counted: Counted { at, period_start },
    };
    draft.emit(Event::UsageRecorded(recorded.clone()));
    Ok(Outcome::UsageRecorded(recorded))
}
