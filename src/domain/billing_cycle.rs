//! Months as billing counts them: from a day of the month on, or from the last day of months that are too short for it.

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};

/// The day and time of the month that a subscription is billed on, and the months that begin there: 31 January,
/// 28 February, 31 March.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingCycle {
    /// In a January: every day of the month is one of its days.
    anchor: DateTime<Utc>,
}

impl BillingCycle {
    /// Of a period that was billed. Its start tells the day, unless its month was too short for it; then the end may: what
    /// goes from 30 April to 31 July is billed on the 31st. Where both months are too short, the later of the two days
    /// counts.
    pub fn of_period(start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Self> {
        let next_day = start.checked_add_signed(TimeDelta::days(1))?;
        let day = if next_day.month() == start.month() { start.day() } else { start.day().max(end.day()) };
        Some(Self { anchor: start.with_month(1)?.with_day(day)? })
    }

    /// When the n-th month begins.
    pub fn month(&self, n: u32) -> Option<DateTime<Utc>> {
        self.anchor.checked_add_months(Months::new(n))
    }

    /// The number of the month that holds `at`.
    pub fn month_of(&self, at: DateTime<Utc>) -> Option<u32> {
        months_begun(self.anchor, at)
    }

    /// A month after `at`: on the cycle's day, if `at` is on it.
    pub fn month_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let month = self.month_of(at)?;
        if self.month(month)? == at { self.month(month + 1) } else { at.checked_add_months(Months::new(1)) }
    }
}

/// How many months from `anchor` had ended by `at`; none if that is earlier.
pub fn months_begun(anchor: DateTime<Utc>, at: DateTime<Utc>) -> Option<u32> {
    // A month has at most 31 days, so this many have passed at least; at most a few more follow.
    let mut month = u32::try_from((at - anchor).num_days().max(0) / 31).ok()?;
    while anchor.checked_add_months(Months::new(month + 1))? <= at {
        month += 1;
    }
    Some(month)
}

/// The month, counted from `anchor`, that holds `now`.
pub fn month_around(anchor: DateTime<Utc>, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    if now < anchor {
        return None;
    }
    let month = months_begun(anchor, now)?;
    let start = anchor.checked_add_months(Months::new(month))?;
    Some((start, anchor.checked_add_months(Months::new(month + 1))?))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn noon(year: i32, month: u32, day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(year, month, day, 12, 0, 0).single().expect("a day")
    }

    #[test]
    fn a_short_month_at_one_end_hides_nothing() {
        for (start, end, second) in [
            (noon(2026, 1, 31), noon(2026, 4, 30), noon(2026, 2, 28)),
            (noon(2026, 4, 30), noon(2026, 7, 31), noon(2026, 5, 31)),
            (noon(2026, 4, 30), noon(2026, 7, 30), noon(2026, 5, 30)),
            (noon(2026, 2, 28), noon(2026, 8, 31), noon(2026, 3, 31)),
            (noon(2026, 2, 28), noon(2026, 8, 28), noon(2026, 3, 28)),
            (noon(2027, 2, 28), noon(2028, 2, 29), noon(2027, 3, 29)),
            (noon(2026, 1, 10), noon(2026, 1, 24), noon(2026, 2, 10)),
        ] {
            let cycle = BillingCycle::of_period(start, end).expect("a cycle");
            let first = cycle.month_of(start).expect("a month");
            assert_eq!((cycle.month(first), cycle.month(first + 1)), (Some(start), Some(second)), "{start} to {end}");
        }
    }

    proptest! {
        #[test]
        fn months_part_every_period_exactly_and_as_many_as_it_has(
            year in 2020..2030i32, month in 1..13u32, day in 1..32u32, second in 0..86_400i64,
            months in 1..37u32, nth in 0..60u32,
        ) {
            let anchor = noon(year, month, 1).with_day(day).map(|day| day + TimeDelta::seconds(second - 43_200));
            let Some(anchor) = anchor else { return Ok(()) };
            let edge = |n: u32| anchor.checked_add_months(Months::new(n)).expect("a time");
            let (start, end) = (edge(nth * months), edge((nth + 1) * months));
            let cycle = BillingCycle::of_period(start, end).expect("a cycle");
            let first = cycle.month_of(start).expect("a month");
            prop_assert_eq!(cycle.month(first), Some(start));
            prop_assert_eq!(cycle.month(first + months), Some(end));
            // Where one of the two ends has the anchor's day, so has each month that is long enough.
            let is_told = start.day() == anchor.day() || end.day() == anchor.day();
            for n in 0..=months {
                let (is, was) = (cycle.month(first + n).expect("a time"), edge(nth * months + n));
                prop_assert!(!is_told || is == was, "{} and not {}", is, was);
                prop_assert_eq!((is.year(), is.month()), (was.year(), was.month()));
                prop_assert_eq!(cycle.month_of(is), Some(first + n));
            }
        }
    }
}
