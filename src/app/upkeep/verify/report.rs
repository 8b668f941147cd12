//! What a verification found.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Differences listed one by one unless told otherwise; all are counted.
pub const DEFAULT_LISTED: usize = 100;
/// Bytes of a long value that are shown around the place where it differs.
const EXCERPT: usize = 120;

/// A place in the log and the hash there, kept where nobody who can write the database can change it. Without one,
/// somebody who rewrites the end of the log, its head and every row that follows from it leaves no trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub partition_id: i16,
    pub position: i64,
    /// Hexadecimal.
    pub hash: String,
}

/// Something that is not as the log says, or a log that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub table: &'static str,
    /// The column, or `row` when it is there and should not be, or the reverse.
    pub what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_id: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The rest of the row's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub expected: String,
    pub found: String,
}

impl Difference {
    pub fn new(table: &'static str, what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        let (expected, found) = excerpts(&expected.to_string(), &found.to_string());
        Self { table, what, partition_id: None, position: None, account_id: None, key: None, expected, found }
    }

    pub fn at(self, partition_id: i16, position: i64) -> Self {
        Self { partition_id: Some(partition_id), position: Some(position), ..self }
    }

    pub fn of_account(self, account_id: &str) -> Self {
        Self { account_id: Some(account_id.to_owned()), ..self }
    }

    pub fn keyed(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(partition_id) = self.partition_id {
            write!(f, " partition {partition_id}")?;
        }
        if let Some(position) = self.position {
            write!(f, " position {position}")?;
        }
        if let Some(account_id) = &self.account_id {
            write!(f, " account {account_id}")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        write!(f, ": {} should be {}, is {}", self.what, self.expected, self.found)
    }
}

/// Short values whole; of long ones the part where they part.
fn excerpts(expected: &str, found: &str) -> (String, String) {
    if expected.len().max(found.len()) <= EXCERPT {
        return (expected.to_owned(), found.to_owned());
    }
    let same = expected.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(EXCERPT / 3);
    (excerpt(expected, from), excerpt(found, from))
}

fn excerpt(text: &str, from: usize) -> String {
    let start = (0..=from.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let end = (start..=text.len().min(start + EXCERPT)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(start);
    let before = if start > 0 { "…" } else { "" };
    let after = if end < text.len() { "…" } else { "" };
    format!("{before}{}{after}", &text[start..end])
}

/// Differences: all counted, the first ones kept.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub count: u64,
    pub listed: Vec<Difference>,
    limit: usize,
}

impl Findings {
    pub fn new(limit: usize) -> Self {
        Self { count: 0, listed: Vec::new(), limit }
    }

    pub fn push(&mut self, difference: Difference) {
        self.count += 1;
        if self.listed.len() < self.limit {
            self.listed.push(difference);
        }
    }

    /// Counts differences that are not listed.
    pub fn count_more(&mut self, count: u64) {
        self.count += count;
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = self.limit.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
    }
}

/// The outcome of a verification.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub events: u64,
    pub accounts: u64,
    pub billing_objects: u64,
    pub stripe_links: u64,
    /// The end of every partition as verified: keep it elsewhere, and give it to the next verification.
    pub anchors: Vec<Anchor>,
    /// How many there are.
    pub differences: u64,
    /// The first of them.
    pub listed: Vec<Difference>,
    pub seconds: f64,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shown_where_it_differs() {
        let (mut expected, mut found) = ("é".repeat(500), "é".repeat(500));
        expected.push_str("left");
        found.push_str("right");
        let difference = Difference::new("balances", "state", &expected, &found);
        assert!(difference.expected.starts_with('…') && difference.expected.ends_with("left"), "{difference}");
        assert!(difference.found.ends_with("right"), "{difference}");
    }

    #[test]
    fn all_are_counted_and_some_listed() {
        let mut findings = Findings::new(1);
        findings.push(Difference::new("heads", "position", 1, 2));
        findings.extend(Findings { count: 3, listed: vec![Difference::new("heads", "position", 3, 4)], limit: 1 });
        assert_eq!((findings.count, findings.listed.len()), (4, 1));
    }
}
