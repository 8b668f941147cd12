//! Short ways into objects, which are JSON as Stripe has them.

use serde_json::Value;

pub trait Read {
    fn text(&self, key: &str) -> &str;
    fn int(&self, key: &str) -> i64;
    fn maybe_int(&self, key: &str) -> Option<i64>;
    fn maybe_text(&self, key: &str) -> Option<&str>;
    fn is(&self, key: &str) -> bool;
    /// The `data` of a list in a field, or an array.
    fn rows(&self, key: &str) -> &[Value];
}

impl Read for Value {
    fn text(&self, key: &str) -> &str {
        self[key].as_str().unwrap_or_default()
    }

    fn int(&self, key: &str) -> i64 {
        self[key].as_i64().unwrap_or_default()
    }

    fn maybe_int(&self, key: &str) -> Option<i64> {
        self[key].as_i64()
    }

    fn maybe_text(&self, key: &str) -> Option<&str> {
        self[key].as_str()
    }

    fn is(&self, key: &str) -> bool {
        self[key].as_bool().unwrap_or_default()
    }

    fn rows(&self, key: &str) -> &[Value] {
        let rows = self[key].as_array().or_else(|| self[key]["data"].as_array());
        rows.map(Vec::as_slice).unwrap_or_default()
    }
}

/// What a change took away: of each field that differs, the value it had (Stripe's `previous_attributes`).
pub fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return before.clone() };
    let mut previous = serde_json::Map::new();
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    for key in keys.filter(|key| !key.starts_with('_')) {
        let (was, is) = (&before[key], &after[key]);
        if was == is {
            continue;
        }
        let change = if was.is_object() && is.is_object() { difference(was, is) } else { was.clone() };
        previous.insert(key.clone(), change);
    }
    Value::Object(previous)
}

/// Like `difference`, and `None` where nothing differs that is to be seen.
pub fn changed(before: &Value, after: &Value) -> Option<Value> {
    let previous = difference(before, after);
    previous.as_object().is_some_and(|fields| !fields.is_empty()).then_some(previous)
}
