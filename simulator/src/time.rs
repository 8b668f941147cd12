//! Calendar arithmetic in UTC, as billing has it.

use chrono::{DateTime, Days, Months, Utc};

pub const HOUR_S: i64 = 3_600;
pub const DAY_S: i64 = 86_400;

fn utc(moment: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(moment, 0)
}

/// The same day of a later month, or that month's last day.
pub fn add_months(moment: i64, months: i64) -> Option<i64> {
    let months = Months::new(u32::try_from(months).ok()?);
    Some(utc(moment)?.checked_add_months(months)?.timestamp())
}

/// A number of intervals (`day`, `week`, `month`, `year`) after a moment.
pub fn add_intervals(moment: i64, interval: &str, count: i64) -> Option<i64> {
    let days = |count: i64| {
        let days = Days::new(u64::try_from(count).ok()?);
        Some(utc(moment)?.checked_add_days(days)?.timestamp())
    };
    match interval {
        "day" => days(count),
        "week" => days(count.checked_mul(7)?),
        "month" => add_months(moment, count),
        "year" => add_months(moment, count.checked_mul(12)?),
        _ => None,
    }
}

/// The first end of a period after a moment, where periods are counted from their anchor.
pub fn period_end(anchor: i64, interval: &str, count: i64, after: i64) -> i64 {
    if anchor > after {
        return anchor;
    }
    let shortest_s = match interval {
        "day" => DAY_S,
        "week" => 7 * DAY_S,
        "month" => 28 * DAY_S,
        _ => 365 * DAY_S,
    } * count.max(1);
    // No more intervals than this can have passed; from there on few are left to try.
    let most = (after - anchor) / shortest_s;
    let longest_s = shortest_s + shortest_s / 8 + DAY_S;
    let least = ((after - anchor) / longest_s).max(0);
    let ends = (least..=most + 1).filter_map(|passed| add_intervals(anchor, interval, passed * count.max(1)));
    ends.into_iter().find(|end| *end > after).unwrap_or(after + shortest_s)
}

/// `24 Apr 2026`, as invoice lines have it.
pub fn spoken_day(moment: i64) -> String {
    utc(moment).map(|moment| moment.format("%-d %b %Y").to_string()).unwrap_or_default()
}

pub fn rfc3339(moment: i64) -> String {
    utc(moment).map(|moment| moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp()
    }

    #[test]
    fn months_end_where_they_can() {
        let anchor = at("2026-01-31T10:00:00Z");
        let mut end = anchor;
        let ends: Vec<String> = (0..4)
            .map(|_| {
                end = period_end(anchor, "month", 1, end);
                rfc3339(end)
            })
            .collect();
        let expected = ["2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z", "2026-04-30T10:00:00Z", "2026-05-31T10:00:00Z"];
        assert_eq!(ends, expected);
    }

    #[test]
    fn the_end_of_a_period_is_the_first_after_any_moment() {
        for (interval, count) in [("day", 1), ("week", 2), ("month", 1), ("month", 3), ("year", 1)] {
            let anchor = at("2024-02-29T23:59:59Z");
            for days in (0..2_000).step_by(13) {
                let moment = anchor + days * DAY_S;
                let end = period_end(anchor, interval, count, moment);
                let naive = (0..).filter_map(|n| add_intervals(anchor, interval, n * count)).find(|end| *end > moment);
                assert_eq!(Some(end), naive, "{count} {interval} after {days} days");
            }
        }
    }
}
