//! What is wrong with a JSON body, in words for whoever sent it: the field, what was given, and what it takes.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_path_to_error::{Deserializer, Path, Track};

use super::problem::ApiError;

/// The refusal of JSON that is no `T`; `place` is where it stands in the body. It is read once more, slowly, with the place
/// kept in view: bodies that can be read do not pay for that.
pub fn unfit_json<'a, T: Deserialize<'a>>(place: &str, json: &'a [u8]) -> ApiError {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let mut track = Track::new();
    let error = match T::deserialize(Deserializer::new(&mut reader, &mut track)) {
        Err(error) => error,
        // What follows is too much; or it is an array of the right length.
        Ok(_) => match reader.end() {
            Err(error) => return ApiError::InvalidBody(at(place, &error.to_string())),
            Ok(()) => return ApiError::InvalidBody(at(place, NO_OBJECT)),
        },
    };
    let is_json = serde_json::from_slice::<IgnoredAny>(json).is_ok();
    let is_object = json.trim_ascii_start().first() == Some(&b'{');
    if is_json && !is_object {
        return ApiError::InvalidBody(at(place, NO_OBJECT));
    }
    let place = match path_of(&track.path()) {
        path if path.is_empty() || path.starts_with('[') || place.is_empty() => format!("{place}{path}"),
        path => format!("{place}.{path}"),
    };
    let problem = if is_json { without_position(&error.to_string()) } else { error.to_string() };
    ApiError::InvalidBody(at(&place, &in_plain_words(&problem)))
}

const NO_OBJECT: &str = "must be a JSON object, with its fields by name";

fn at(place: &str, problem: &str) -> String {
    if place.is_empty() { problem.to_owned() } else { format!("{place}: {problem}") }
}

/// Such as `debits[2].amount`; empty for the whole, and where only a part of the way is known.
fn path_of(path: &Path) -> String {
    let text = path.to_string();
    if text == "." || text.contains('?') { String::new() } else { text }
}

fn without_position(problem: &str) -> String {
    problem.rfind(" at line ").map_or(problem, |end| &problem[..end]).to_owned()
}

/// In place of the words of the parser and the names of our types.
fn in_plain_words(problem: &str) -> String {
    if let Some((given, expected)) = problem.rsplit_once(", expected ") {
        let largest = match expected {
            "i64" => Some(i64::MAX.to_string()),
            "u64" => Some(u64::MAX.to_string()),
            "i32" => Some(i32::MAX.to_string()),
            "u32" => Some(u32::MAX.to_string()),
            "u16" => Some(u16::MAX.to_string()),
            "u8" => Some(u8::MAX.to_string()),
            _ => None,
        };
        if let Some(largest) = largest {
            return format!("{given}, expected a whole number without a fraction, at most {largest}");
        }
        if expected.starts_with("struct ") {
            return format!("{given}, expected an object");
        }
    }
    match problem {
        "number out of range" => "the number is beyond what can be read; write it out, without an exponent".to_owned(),
        "expected value" => "must be one of the texts that the schema names".to_owned(),
        problem => problem.to_owned(),
    }
}
