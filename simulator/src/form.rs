//! Form-encoded requests with nested keys, such as `items[0][price]=price_1`.

use serde_json::{Map, Value};

use crate::error::{Result, StripeError};

/// More pairs than this in one request are nobody's.
const MAX_PAIRS: usize = 5_000;
const MAX_DEPTH: usize = 10;

/// Makes one tree of a query string and a body. Leaves are strings; `[0]`, `[1]` and `[]` make arrays.
pub fn parse(encoded: &[u8]) -> Result<Map<String, Value>> {
    let mut root = Map::new();
    for (count, (key, value)) in form_urlencoded::parse(encoded).enumerate() {
        if count == MAX_PAIRS {
            return Err(StripeError::malformed(key, format!("More than {MAX_PAIRS} parameters.")));
        }
        let path = segments(&key).ok_or_else(|| StripeError::malformed(&*key, format!("Malformed key: {key}")))?;
        insert(&mut root, &path, &value)
            .ok_or_else(|| StripeError::malformed(&*key, format!("Two values for {key} do not go together.")))?;
    }
    for value in root.values_mut() {
        make_arrays(value);
    }
    Ok(root)
}

/// `a[b][0]` is a, b, 0.
fn segments(key: &str) -> Option<Vec<&str>> {
    let (first, mut rest) = match key.find('[') {
        None => return (!key.is_empty()).then(|| vec![key]),
        Some(at) => key.split_at(at),
    };
    let mut path = vec![first];
    while !rest.is_empty() {
        let inside = rest.strip_prefix('[')?;
        let (segment, after) = inside.split_once(']')?;
        path.push(segment);
        rest = after;
    }
    (!first.is_empty() && path.len() <= MAX_DEPTH).then_some(path)
}

fn insert(into: &mut Map<String, Value>, path: &[&str], value: &str) -> Option<()> {
    let (first, rest) = path.split_first()?;
    // `[]` is the next one; what it holds is told apart by number until the end.
    let key = if first.is_empty() { into.len().to_string() } else { (*first).to_owned() };
    if rest.is_empty() {
        into.insert(key, Value::String(value.to_owned()));
        return Some(());
    }
    match into.entry(key).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => insert(inner, rest, value),
        _ => None,
    }
}

fn make_arrays(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    for inner in fields.values_mut() {
        make_arrays(inner);
    }
    let numbers: Option<Vec<usize>> = fields.keys().map(|key| key.parse().ok()).collect();
    if let Some(mut numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
        numbers.sort_unstable();
        let ordered = numbers.iter().filter_map(|number| fields.remove(&number.to_string())).collect();
        *value = Value::Array(ordered);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(encoded: &str) -> Value {
        Value::Object(parse(encoded.as_bytes()).unwrap())
    }

    #[test]
    fn keys_nest() {
        assert_eq!(
            parsed("customer=cus_1&items%5B0%5D%5Bprice%5D=price_1&items[0][quantity]=2&metadata[a+b]=c%26d"),
            json!({"customer": "cus_1", "items": [{"price": "price_1", "quantity": "2"}], "metadata": {"a b": "c&d"}})
        );
    }

    #[test]
    fn lists_come_numbered_or_not() {
        assert_eq!(parsed("expand[]=a&expand[]=b"), json!({"expand": ["a", "b"]}));
        assert_eq!(parsed("expand[1]=b&expand[0]=a"), json!({"expand": ["a", "b"]}));
        let many = (0..12).map(|n| format!("a[{n}]={n}")).collect::<Vec<_>>().join("&");
        assert_eq!(parsed(&many)["a"][11], "11");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(parse(b"a=1&a[b]=2").is_err());
        assert!(parse(b"a[b=2").is_err());
        assert!(parse(b"[b]=2").is_err());
    }
}
