//! Spoils JSON in the ways that senders and attackers do; the same seed always spoils the same.

use serde_json::{Value, json};

use super::shuffle::Random;

/// Changes up to four places of a body.
pub fn spoil(body: &mut Value, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let places = places(body);
        let place = &places[random.below(places.len())];
        let copied = body.pointer(&places[random.below(places.len())]).cloned();
        let dropped = random.below(4) == 0;
        if dropped {
            drop_at(body, place);
        } else if let Some(value) = body.pointer_mut(place) {
            *value = wrong_value(value, copied, random);
        }
    }
}

/// The paths of all members and elements.
fn places(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, String::new(), &mut found);
    found
}

fn collect(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| collect(field, format!("{path}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| collect(item, format!("{path}/{n}"), found))
        }
        _ => {}
    }
    found.push(path);
}

fn drop_at(body: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else {
        return;
    };
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(key)),
        Some(Value::Array(items)) => items.clear(),
        _ => {}
    }
}

fn wrong_value(value: &Value, copied: Option<Value>, random: &mut Random) -> Value {
    let numbers = [i64::MAX, i64::MIN, i64::MAX - 1, -1, 0, 1, 9_007_199_254_740_993, 8_210_266_876_799, 1 << 40];
    match random.below(12) {
        0 => Value::Null,
        1 => json!([true, false][random.below(2)]),
        2 | 3 => json!(numbers[random.below(numbers.len())]),
        4 => json!([u64::MAX as f64, 1.5, -1e300][random.below(3)]),
        5 => json!(["", "\u{0}", "a\u{7}b", "☃", "an_unknown_value", "-9"][random.below(6)]),
        6 => json!("x".repeat(5000)),
        7 => json!([]),
        8 => json!({}),
        9 => (0..60).fold(value.clone(), |inner, _| json!([inner])),
        10 => json!([value, value]),
        _ => copied.unwrap_or_default(),
    }
}
