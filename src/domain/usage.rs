//! Usage: how much of each feature was used, by day, and within the windows that a plan may limit.
//!
//! The account's hot part holds one set of counters a feature, all around the moment of the latest use. A day that is over
//! leaves it for a row of its own, so a debit never reads more than the hot part, however long the account has lived.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use super::account::{Account, Changes};
use super::billing::Kind;
use super::catalog::{FeatureKind, Per};
use super::command::{MAX_AMOUNT, Outcome, require_known};
use super::draft::{Context, Draft};
use super::event::{Event, UsageRecorded};
use super::limits::{goes_on, period_of, same_window};
use super::period_usage::OtherPeriod;
use super::rejection::Rejection;
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
    #[serde(skip_serializing_if = "LiteMap::is_empty")]
    pub features: LiteMap<String, Counters>,
    /// Periods that go on, too, and may decide again.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub others: ThinVec<OtherPeriod>,
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

impl Usage {
    /// Nothing was ever counted.
    pub fn is_unused(&self) -> bool {
        self.at == 0
    }

    /// Units used of a feature so far within the window that holds `at`.
    pub(super) fn used(&self, feature: &str, per: Per, at: i64, period_start: i64) -> i64 {
        let counters = self.features.get(feature).copied().unwrap_or_default();
        let count = match per {
            Per::Minute => counters.minute,
            Per::Hour => counters.hour,
            Per::Day => counters.day,
            Per::Month => counters.month,
            Per::Period => return self.of_period(feature, period_start).used,
        };
        if same_window(per, at, self.at) { count } else { 0 }
    }

    /// The day of the latest use, as far as anything was used on it.
    pub fn open_day(&self) -> UsageDay {
        let of_day = |c: &Counters| DayUse { used: c.day, credits: c.day_credits };
        let days = self.features.iter().map(|(feature, counters)| (feature.clone(), of_day(counters)));
        days.filter(|(_, day)| *day != DayUse::default()).collect()
    }

    /// Moves on to a later moment. Gives the day that is over with it.
    fn advance(&mut self, at: i64) -> Option<(String, UsageDay)> {
        if at <= self.at {
            return None;
        }
        let was = std::mem::replace(&mut self.at, at);
        let closed = (!same_window(Per::Day, was, at)).then(|| (day_of(was), self.open_day()));
        for (_, counters) in self.features.iter_mut() {
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

    /// Takes in the counters of another stream, as far as their windows are the same. Its days and periods are taken in apart.
    fn absorb(&mut self, theirs: &Self) {
        let same = |per| same_window(per, self.at, theirs.at);
        let (minute, hour, month) = (same(Per::Minute), same(Per::Hour), same(Per::Month));
        for (feature, other) in &theirs.features {
            let counters = self.features.entry(feature.clone()).or_default();
            counters.minute += if minute { other.minute } else { 0 };
            counters.hour += if hour { other.hour } else { 0 };
            counters.month += if month { other.month } else { 0 };
        }
        self.features.retain(|_, counters| *counters != Counters::default());
    }
}

impl Account {
    /// Counts a use.
    pub(super) fn count_use(&mut self, used: Use<'_>, changes: &mut Changes) {
        self.credits.enter_period(used.counted.period_start, used.counted.at);
        let usage = &mut self.credits.usage;
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
        if let Some((day, record)) = self.credits.usage.advance(theirs.at) {
            self.close_day(day, record, changes);
        }
        let mut usage = std::mem::take(&mut self.credits.usage);
        let now = usage.at;
        usage.absorb_periods(theirs, |start| goes_on(&self.credits, start, now));
        usage.absorb(theirs);
        self.credits.usage = usage;
        let open = day_of(self.credits.usage.at);
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
        return Err(Rejection::TimeOutOfRange { field: "timestamp".to_owned(), earliest, latest });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::billing::Billing;
    use crate::domain::ids::AccountId;

    /// 2026-01-15 12:00 UTC.
    const NOON: i64 = 1_768_478_400;
    const DAY: i64 = 86_400;

    fn account(with_billing: bool) -> Account {
        let billing = with_billing.then(Box::<Billing>::default);
        Account { billing, ..Account::new(AccountId::new("user_1").expect("valid")) }
    }

    fn count(account: &mut Account, at: i64, quantity: i64) -> Changes {
        let mut changes = Changes::default();
        let counted = Counted { at, period_start: NOON };
        let used = Use { feature: "calls", quantity, credits: 2 * quantity, counted, is_total: false };
        account.count_use(used, &mut changes);
        changes
    }

    fn used(account: &Account, per: Per, at: i64) -> i64 {
        account.credits.usage.used("calls", per, at, NOON)
    }

    #[test]
    fn each_window_begins_anew_where_utc_has_it() {
        let mut account = account(false);
        count(&mut account, NOON + 59, 5);
        for (per, last) in [
            (Per::Minute, NOON + 59),
            (Per::Hour, NOON + 3_599),
            (Per::Day, NOON + DAY / 2 - 1),
            (Per::Month, NOON + DAY / 2 + 16 * DAY - 1),
        ] {
            assert_eq!(used(&account, per, last), 5, "{per:?}");
            assert_eq!(used(&account, per, last + 1), 0, "{per:?}");
        }
        count(&mut account, NOON + 60, 2);
        let counts = [Per::Minute, Per::Hour, Per::Day, Per::Month, Per::Period].map(|p| used(&account, p, NOON + 60));
        assert_eq!(counts, [2, 7, 7, 7, 7]);
    }

    #[test]
    fn a_day_that_is_over_leaves_the_hot_part_once() {
        let mut account = account(false);
        assert!(count(&mut account, NOON, 5).touched.is_empty());
        assert!(count(&mut account, NOON + 1, 1).touched.is_empty());
        let changes = count(&mut account, NOON + DAY, 1);
        let expected = UsageDay::from([("calls".to_owned(), DayUse { used: 6, credits: 12 })]);
        assert_eq!(changes.usage_days, BTreeMap::from([("2026-01-15".to_owned(), expected)]));
        assert_eq!(changes.touched, [(Kind::UsageDay, "2026-01-15".to_owned())].into());
        assert!(count(&mut account, NOON + DAY + 1, 1).usage_days.is_empty());
        let hot = *account.credits.usage.features.get("calls").expect("counted");
        assert_eq!((hot.day, hot.day_credits, hot.month, hot.period_credits), (2, 4, 8, 16));
    }

    #[test]
    fn what_is_recorded_late_counts_in_the_windows_it_belongs_to() {
        let mut account = account(true);
        count(&mut account, NOON + 2 * DAY, 1);
        let changes = count(&mut account, NOON + DAY, 10);
        assert_eq!(changes.touched.len(), 1);
        let billing = account.billing.as_ref().expect("loaded");
        assert_eq!(billing.usage_days["2026-01-16"]["calls"].used, 10);
        let now = NOON + 2 * DAY;
        let counts = [Per::Minute, Per::Day, Per::Month, Per::Period].map(|per| used(&account, per, now));
        assert_eq!(counts, [1, 1, 11, 11]);
        count(&mut account, NOON - 20 * DAY, 100);
        assert_eq!([Per::Month, Per::Period].map(|per| used(&account, per, now)), [11, 11], "of another month");
        assert_eq!(account.credits.usage.at, now, "time does not go back");
    }

    #[test]
    fn a_total_may_go_down_and_counts_in_no_minute() {
        let mut account = account(true);
        count(&mut account, NOON, 10);
        let counted = Counted { at: NOON, period_start: NOON };
        let used_now = Use { feature: "calls", quantity: -7, credits: 0, counted, is_total: true };
        account.count_use(used_now, &mut Changes::default());
        assert_eq!([Per::Minute, Per::Day, Per::Month].map(|per| used(&account, per, NOON)), [10, 3, 3]);
    }

    #[test]
    fn another_period_begins_at_nothing() {
        let mut account = account(false);
        count(&mut account, NOON, 5);
        let usage = &account.credits.usage;
        assert_eq!(usage.used("calls", Per::Period, NOON + DAY, NOON + 1), 0);
        assert_eq!(usage.of_period("calls", NOON), DayUse { used: 5, credits: 10 });
    }

    /// Whoever is absorbed, the account ends with the uses of both.
    #[test]
    fn two_streams_that_are_one_account_add_up() {
        for (ours_at, theirs_at) in [(NOON, NOON + DAY), (NOON + DAY, NOON), (NOON, NOON)] {
            let (mut ours, mut theirs) = (account(true), account(true));
            for (account, last) in [(&mut ours, ours_at), (&mut theirs, theirs_at)] {
                count(account, NOON - DAY, 1);
                count(account, NOON, 2);
                if last > NOON {
                    count(account, last, 4);
                }
            }
            let days = theirs.billing.take().expect("loaded").usage_days;
            ours.absorb_usage(&theirs.credits.usage, days, &mut Changes::default());
            let billing = ours.billing.as_ref().expect("loaded");
            assert_eq!(billing.usage_days["2026-01-14"]["calls"].used, 2);
            let of_noon = billing.usage_days.get("2026-01-15").map(|day| day["calls"].used);
            let last = *ours.credits.usage.features.get("calls").expect("counted");
            if ours_at == theirs_at {
                assert_eq!((of_noon, last.day), (None, 4));
            } else {
                assert_eq!((of_noon, last.day), (Some(4), 4));
                assert_eq!(last.month, 10, "all of both");
            }
        }
    }

    #[test]
    fn counters_are_stored_as_numbers() {
        let mut account = account(false);
        count(&mut account, NOON, 3);
        let stored = serde_json::to_string(&account.credits.usage).expect("JSON");
        assert_eq!(stored, r#"{"at":1768478400,"period_start":1768478400,"features":{"calls":[3,3,3,3,3,6,6]}}"#);
        assert_eq!(serde_json::from_str::<Usage>(&stored).expect("readable"), account.credits.usage);
    }
}
