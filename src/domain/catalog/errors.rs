//! How problems of a catalog are told.

use serde::Serialize;
use std::fmt;

/// One problem, and how to cure it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogError {
    /// Line of the file, from 1; 0 when the catalog did not come from a file.
    pub line: usize,
    /// Dotted path such as `plans.basic.credits`; empty for the file as a whole.
    pub field: String,
    /// The problem, and the cure in brackets.
    pub message: String,
}

/// All problems of one catalog, by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CatalogErrors(pub Vec<CatalogError>);

impl fmt::Display for CatalogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(formatter, "line {}: ", self.line)?;
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}

impl fmt::Display for CatalogErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CatalogError {}
impl std::error::Error for CatalogErrors {}

/// A problem whose line is not known yet.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) field: String,
    pub(super) message: String,
}

/// `value` when there is no problem, else the problems in the order of their lines.
pub(super) fn result<T>(value: T, problems: Vec<Problem>, line_of: impl Fn(&str) -> usize) -> Result<T, CatalogErrors> {
    if problems.is_empty() {
        return Ok(value);
    }
    let mut errors: Vec<_> = problems
        .into_iter()
        .map(|Problem { field, message }| CatalogError { line: line_of(&field), field, message })
        .collect();
    errors.sort_by_key(|error| error.line);
    Err(CatalogErrors(errors))
}

/// The path of `key` under `parent`; a key that TOML would have to quote is quoted.
pub(super) fn path(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let key = if bare && key.len() <= MAX_QUOTED_CHARS { key.to_owned() } else { quoted(key) };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

const MAX_QUOTED_CHARS: usize = 80;

/// `text` fit for a message: quoted, with control characters escaped, and not endless.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// A number as it was written, but not endless.
pub(super) fn shortened(digits: &str) -> String {
    match digits.char_indices().nth(MAX_QUOTED_CHARS) {
        None => digits.to_owned(),
        Some((end, _)) => format!("{}…", &digits[..end]),
    }
}

/// The known name that `name` was most likely meant to be.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A long name is no slip of the pen, and the distance costs the product of the lengths.
    if name.len() > MAX_QUOTED_CHARS {
        return None;
    }
    let tolerated = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_QUOTED_CHARS)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, remove, replace or swap with their neighbour to get from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested_and_a_far_one_is_not() {
        let known = ["credits", "clawback", "rollover", "rank"];
        assert_eq!(nearest("credit", known), Some("credits"));
        assert_eq!(nearest("rnak", known), Some("rank"));
        assert_eq!(nearest("claw_back", known), Some("clawback"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn what_is_quoted_is_escaped_and_bounded() {
        assert_eq!(quoted("a\u{0}\n"), "\"a\\0\\n\"");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), MAX_QUOTED_CHARS + 3);
        assert_eq!(path("plans", "a b"), "plans.\"a b\"");
        assert_eq!(path("", "plans"), "plans");
    }

    #[test]
    fn an_error_without_line_or_field_leaves_them_out() {
        let error = |line, field: &str| CatalogError { line, field: field.to_owned(), message: "m".to_owned() };
        let errors = CatalogErrors(vec![error(3, "plans"), error(0, "plans"), error(2, "")]);
        assert_eq!(errors.to_string(), "line 3: plans: m\nplans: m\nline 2: m");
    }
}
