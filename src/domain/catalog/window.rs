//! Limits within windows of time.

use serde::{Deserialize, Serialize};

/// At most so many units of a metered feature within each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowLimit {
    pub limit: i64,
    pub per: Per,
}

/// Which window. They are fixed, not sliding: all but the period begin where UTC's clock and calendar have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    Minute,
    Hour,
    Day,
    /// The calendar month.
    Month,
    /// The subscription's billing period, a year on a yearly price; on the default plan the account's own month. From its end
    /// on it is the next one, whether or not Stripe has told of the renewal.
    Period,
}

impl Per {
    pub const ALL: [(&'static str, Per); 5] = [
        ("minute", Per::Minute),
        ("hour", Per::Hour),
        ("day", Per::Day),
        ("month", Per::Month),
        ("period", Per::Period),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Per::Minute => "minute",
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Month => "month",
            Per::Period => "period",
        }
    }
}
