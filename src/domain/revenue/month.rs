//! Calendar months of UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate};
use serde_with::{DeserializeFromStr, SerializeDisplay};

/// A calendar month of UTC; written `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct Month {
    year: i32,
    /// From 1.
    month: u32,
}

/// A text that is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a month such as 2026-01, from 1970-01 to 9999-12")]
pub struct NoMonth;

impl Month {
    pub fn of(day: NaiveDate) -> Self {
        Self { year: day.year(), month: day.month() }
    }

    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// So many months later, or earlier.
    pub fn plus(self, months: i32) -> Self {
        let count = self.year * 12 + self.month.cast_signed() - 1 + months;
        Self { year: count.div_euclid(12), month: count.rem_euclid(12).cast_unsigned() + 1 }
    }

    pub fn first_day(self) -> NaiveDate {
        NaiveDate::from_ymd_opt(self.year, self.month, 1).unwrap_or_default()
    }

    /// Every month from this one to another, both included.
    pub fn until(self, last: Self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |month| Some(month.next())).take_while(move |month| *month <= last)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let (year, month) = text.split_once('-').ok_or(NoMonth)?;
        let is_written_so =
            year.len() == 4 && month.len() == 2 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let (year, month) = (year.parse().map_err(|_| NoMonth)?, month.parse().map_err(|_| NoMonth)?);
        let is_known = is_written_so && (1970..=9999).contains(&year) && (1..=12).contains(&month);
        if is_known { Ok(Self { year, month }) } else { Err(NoMonth) }
    }
}

/// The UTC day that holds a Unix second; 1970-01-01 for one that no calendar of four digits has.
pub fn day_of(second: i64) -> NaiveDate {
    let day = DateTime::from_timestamp(second, 0).unwrap_or_default().date_naive();
    if (1970..=9998).contains(&day.year()) { day } else { NaiveDate::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_written_as_they_are_read_and_follow_each_other() {
        let month: Month = "2025-11".parse().expect("a month");
        let run: Vec<String> = month.until(month.plus(3)).map(|month| month.to_string()).collect();
        assert_eq!(run, ["2025-11", "2025-12", "2026-01", "2026-02"]);
        assert_eq!(month.plus(-11).to_string(), "2024-12");
        for wrong in
            ["", "2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-01-01", "+026-01", "1969-12", "２０２６-01"]
        {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
    }
}
