//! What was used within billing periods. One period decides at a time, and others may go on beside it: that of a
//! subscription which is paused or overdue, and the default plan's month. Each keeps its counters until it is over, so that
//! no limit can be passed by going to and fro between them.

use litemap::LiteMap;
use serde::{Deserialize, Serialize};

use super::credit::Credits;
use super::limits::{free_month, goes_on};
use super::usage::{DayUse, Usage};

/// Periods that are remembered beside the one that decides: more than an account has subscriptions that go on.
const MAX_OTHERS: usize = 4;

/// What was used within a period that does not decide now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherPeriod {
    /// Unix second in which it began.
    pub start: i64,
    pub features: LiteMap<String, DayUse>,
}

impl Usage {
    /// What was used of a feature in the period that began at `start`, while that goes on.
    pub fn of_period(&self, feature: &str, start: i64) -> DayUse {
        if start == self.period_start {
            let counters = self.features.get(feature);
            return counters.map_or_else(DayUse::default, |c| DayUse { used: c.period, credits: c.period_credits });
        }
        let other = self.others.iter().find(|other| other.start == start);
        other.and_then(|other| other.features.get(feature)).copied().unwrap_or_default()
    }

    /// Lets another period decide. `goes_on` tells which of those that began at a time are not over.
    pub(super) fn enter_period(&mut self, start: i64, goes_on: impl Fn(i64) -> bool) {
        if self.period_start == start {
            return;
        }
        let left = self.deciding_period();
        for (_, counters) in self.features.iter_mut() {
            (counters.period, counters.period_credits) = (0, 0);
        }
        self.period_start = start;
        self.take_in(left);
        self.take_back();
        self.others.retain(|other| goes_on(other.start));
        while self.others.len() > MAX_OTHERS {
            self.others.remove(0);
        }
    }

    /// Takes in what another stream used within periods.
    pub(super) fn absorb_periods(&mut self, theirs: &Self, goes_on: impl Fn(i64) -> bool) {
        // The later is more likely to be the one that decides from now on.
        self.enter_period(self.period_start.max(theirs.period_start), &goes_on);
        for period in theirs.others.iter().cloned().chain([theirs.deciding_period()]) {
            if period.start == self.period_start || goes_on(period.start) {
                self.take_in(period);
            }
        }
        self.take_back();
    }

    /// A period begins at another moment than was known.
    fn move_period(&mut self, known: i64, start: i64) {
        if self.period_start == known {
            self.period_start = start;
        } else if let Some(at) = self.others.iter().position(|other| other.start == known) {
            let moved = OtherPeriod { start, ..self.others.remove(at) };
            self.take_in(moved);
        }
        self.take_back();
    }

    fn deciding_period(&self) -> OtherPeriod {
        let start = self.period_start;
        let features = self.features.keys().map(|feature| (feature.clone(), self.of_period(feature, start)));
        OtherPeriod { start, features: features.filter(|(_, used)| *used != DayUse::default()).collect() }
    }

    /// Adds what was used to the others. They are in the order of their starts, so that equal histories make equal rows.
    fn take_in(&mut self, period: OtherPeriod) {
        if period.features.is_empty() {
            return;
        }
        let place = self.others.partition_point(|other| other.start < period.start);
        match self.others.get_mut(place).filter(|known| known.start == period.start) {
            None => self.others.insert(place, period),
            Some(known) => {
                for (feature, more) in period.features {
                    let used = known.features.entry(feature).or_default();
                    used.used = used.used.saturating_add(more.used);
                    used.credits = used.credits.saturating_add(more.credits);
                }
            }
        }
    }

    /// The period that decides is none of the others.
    fn take_back(&mut self) {
        let Some(at) = self.others.iter().position(|other| other.start == self.period_start) else { return };
        for (feature, more) in self.others.remove(at).features {
            let counters = self.features.entry(feature).or_default();
            counters.period = counters.period.saturating_add(more.used);
            counters.period_credits = counters.period_credits.saturating_add(more.credits);
        }
    }
}

impl Credits {
    /// Lets the period decide that a use at `at` counts in.
    pub(super) fn enter_period(&mut self, start: i64, at: i64) {
        if self.usage.period_start != start {
            let mut usage = std::mem::take(&mut self.usage);
            let now = at.max(usage.at);
            usage.enter_period(start, |known| goes_on(self, known, now));
            self.usage = usage;
        }
    }

    /// Changes what the default plan's months are counted from. What was used within the month that held the latest use was
    /// used within the one that holds it now.
    pub(super) fn recount_free_months(&mut self, change: impl FnOnce(&mut Self)) {
        let month = |credits: &Self| free_month(credits, credits.usage.at).start;
        let known = month(self);
        change(self);
        let start = month(self);
        let has_begun = self.free_plan_anchor().is_some_and(|anchor| anchor.timestamp() <= self.usage.at);
        let is_subscriptions = self.access.iter().any(|access| access.period_start == Some(known));
        if start != known && has_begun && !is_subscriptions {
            self.usage.move_period(known, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::Counters;

    #[test]
    fn no_more_periods_are_remembered_than_an_account_may_need() {
        let mut usage = Usage::default();
        for start in 1..20 {
            usage.enter_period(start, |_| true);
            usage.features.insert("calls".to_owned(), Counters { period: start, ..Counters::default() });
        }
        let starts: Vec<i64> = usage.others.iter().map(|other| other.start).collect();
        assert_eq!(starts, [15, 16, 17, 18]);
        assert_eq!([15, 19, 14].map(|start| usage.of_period("calls", start).used), [15, 19, 0]);
    }
}
