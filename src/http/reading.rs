//! What a caller may ask of a read, and how an answer says what it rests on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::problem::ApiError;
use super::request::number;
use crate::app::reads::{AccountNow, Consistency};

/// How fresh an answer is to be.
#[derive(Debug, Default, Deserialize)]
pub struct ReadQuery {
    min_position: Option<String>,
    consistency: Option<String>,
}

impl ReadQuery {
    pub fn min_position(&self) -> Result<i64, ApiError> {
        min_position(self.min_position.as_deref())
    }

    pub fn consistency(&self) -> Result<Consistency, ApiError> {
        consistency(self.consistency.as_deref())
    }
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
    partition: i16,
    position: i64,
    at: DateTime<Utc>,
    age_ms: u64,
}

impl AsOf {
    pub fn of(account: &AccountNow, at: DateTime<Utc>) -> Self {
        // Rounded up: nothing is said to be fresher than it is.
        let age = account.read_at.elapsed() + Duration::from_micros(999);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self { partition: account.partition_id, position: account.position, at, age_ms }
    }
}

/// All rows of a list.
#[derive(Debug, Serialize)]
pub struct Data<T> {
    pub data: Vec<T>,
}
