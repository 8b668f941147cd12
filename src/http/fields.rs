//! Fields of JSON bodies that say what they take when they are given something else.

use std::fmt;

use chrono::{DateTime, Datelike, Utc};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::domain::command::MAX_AMOUNT;

/// A number of credits or units. Any that can be counted is read: the domain refuses what is out of range, and that refusal
/// is kept under the request's key.
struct Amount<const LEAST: i64>(i64);

struct AmountVisitor<const LEAST: i64>;

impl<const LEAST: i64> Visitor<'_> for AmountVisitor<LEAST> {
    type Value = Amount<LEAST>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a whole number without a fraction, from {LEAST} to {MAX_AMOUNT}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Amount(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        i64::try_from(number).map(Amount).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl<'de, const LEAST: i64> Deserialize<'de> for Amount<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(AmountVisitor::<LEAST>)
    }
}

/// Credits or units that must be given.
pub fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Amount::<1>::deserialize(deserializer).map(|Amount(number)| number)
}

/// The same, where none are an amount, too.
pub fn amount_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Amount::<0>::deserialize(deserializer).map(|Amount(number)| number)
}

/// Credits or units that may be left out.
pub fn amount_if_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::<Amount<1>>::deserialize(deserializer)?.map(|Amount(number)| number))
}

/// A time that can be given back as RFC 3339 has it: with four digits for the year.
struct Time(DateTime<Utc>);

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an RFC 3339 time such as 2026-01-31T12:00:00Z, with a year from 0000 to 9999")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        let time = text.parse::<DateTime<Utc>>().ok().filter(|time| (0..=9_999).contains(&time.year()));
        time.map(Time).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimeVisitor)
    }
}

/// A time that must be given.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    Time::deserialize(deserializer).map(|Time(time)| time)
}

/// A time that may be left out.
pub fn time_if_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
}

/// A field that has a default, for which null stands as well.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
