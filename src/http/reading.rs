//! What a caller may ask of a read, and how an answer says what it rests on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::json::JsonObject;
use super::problem::ApiError;
use super::request::number;
use crate::app::read_path::history::Moment;
use crate::app::read_path::reads::{AccountNow, Consistency, Read};

/// How fresh an answer is to be.
#[derive(Debug, Default, Deserialize)]
pub struct ReadQuery {
    min_position: Option<String>,
    consistency: Option<String>,
    as_of: Option<String>,
}

impl ReadQuery {
    pub fn read(&self, now: DateTime<Utc>) -> Result<Read, ApiError> {
        Ok(Read {
            min_position: min_position(self.min_position.as_deref())?,
            consistency: consistency(self.consistency.as_deref())?,
            as_of: as_of(self.as_of.as_deref(), now)?,
        })
    }
}

/// A position, or a time that has been.
pub fn as_of(value: Option<&str>, now: DateTime<Utc>) -> Result<Option<Moment>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let position = value.parse::<i64>().ok().filter(|position| *position >= 0).map(Moment::Position);
    let time = || DateTime::parse_from_rfc3339(value).ok().map(|time| time.to_utc());
    let time = || time().filter(|time| *time <= now).map(Moment::Time);
    position.or_else(time).map(Some).ok_or_else(|| ApiError::InvalidParameter {
        field: "as_of".to_owned(),
        problem: "must be a position, or a time that has been, such as 2026-01-15T12:00:00Z".to_owned(),
    })
}

pub fn min_position(value: Option<&str>) -> Result<i64, ApiError> {
    number(value, "min_position", 0, 0, i64::MAX)
}

pub fn consistency(value: Option<&str>) -> Result<Consistency, ApiError> {
    match value {
        None | Some("bounded") => Ok(Consistency::Bounded),
        Some("strong") => Ok(Consistency::Strong),
        Some(_) => Err(ApiError::InvalidParameter {
            field: "consistency".to_owned(),
            problem: "must be bounded or strong".to_owned(),
        }),
    }
}

/// What an answer rests on: every event of the account up to a position, and all that was committed `age_ms` before `at`.
#[derive(Debug, Serialize)]
pub struct AsOf {
    pub partition: i16,
    pub position: i64,
    pub at: DateTime<Utc>,
    pub age_ms: u64,
}

impl AsOf {
    pub fn of(account: &AccountNow) -> Self {
        // Rounded up: nothing is said to be fresher than it is.
        let age = account.read_at.elapsed() + Duration::from_micros(999);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self { partition: account.partition_id, position: account.position, at: account.at, age_ms }
    }

    pub fn write(&self, object: &mut JsonObject<'_>) {
        object.number("partition", i64::from(self.partition));
        object.number("position", self.position);
        object.time("at", self.at);
        object.number("age_ms", i64::try_from(self.age_ms).unwrap_or(i64::MAX));
    }
}

/// All rows of a list.
#[derive(Debug, Serialize)]
pub struct Data<T> {
    pub data: Vec<T>,
}
