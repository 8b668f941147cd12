//! Lists in pages: `{data, has_more, next_cursor}`.

use serde::{Deserialize, Serialize};

use super::problem::ApiError;
use super::reading::{consistency, min_position};
use super::request::number;
use crate::app::read_path::reads::Consistency;

/// What a caller asks of a list.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PageQuery {
    pub limit: Option<String>,
    pub cursor: Option<String>,
    pub min_position: Option<String>,
    pub consistency: Option<String>,
    /// A moment of the past, where a list has one.
    pub as_of: Option<String>,
}

/// Rows in a page unless asked otherwise, and at most.
const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;

/// A place in a list that is ordered by time, then id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Unix microseconds.
    pub at_us: i64,
    pub id: String,
}

impl Cursor {
    pub fn encode(&self) -> String {
        hex::encode(format!("{}/{}", self.at_us, self.id))
    }

    pub fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = hex::decode(text).map_err(|_| Self::invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| Self::invalid())?;
        let (at_us, id) = text.split_once('/').ok_or_else(Self::invalid)?;
        if id.contains('\0') {
            return Err(Self::invalid());
        }
        Ok(Self { at_us: at_us.parse().map_err(|_| Self::invalid())?, id: id.to_owned() })
    }

    /// It is none that the list gave.
    pub fn invalid() -> ApiError {
        ApiError::InvalidParameter {
            field: "cursor".to_owned(),
            problem: "must be a next_cursor that this list gave".to_owned(),
        }
    }
}

impl PageQuery {
    /// Reads with these parameters go to the database, so they are as fresh as anybody may ask.
    pub fn min_position(&self) -> Result<i64, ApiError> {
        consistency(self.consistency.as_deref())?;
        min_position(self.min_position.as_deref())
    }

    pub fn consistency(&self) -> Result<Consistency, ApiError> {
        consistency(self.consistency.as_deref())
    }

    pub fn limit(&self) -> Result<i64, ApiError> {
        number(self.limit.as_deref(), "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    }

    pub fn cursor(&self) -> Result<Option<Cursor>, ApiError> {
        self.cursor.as_deref().map(Cursor::decode).transpose()
    }
}

/// One page.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub has_more: bool,
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` rows out of up to `limit + 1` that were read.
    pub fn of(mut rows: Vec<(Cursor, T)>, limit: i64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|(cursor, _)| cursor.encode());
        Self { data: rows.into_iter().map(|(_, row)| row).collect(), has_more, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_garbage_is_refused() {
        let cursor = Cursor { at_us: -5, id: "in_1/2".to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode()).ok(), Some(cursor));
        for garbage in ["", "zz", "6162", &hex::encode("x/y"), &hex::encode("1/\0")] {
            assert!(Cursor::decode(garbage).is_err(), "{garbage}");
        }
    }
}
