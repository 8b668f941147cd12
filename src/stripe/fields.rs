//! Tolerant reading of JSON whose shape changes with Stripe's API versions: what is absent is absent, what is of a
//! wrong type is an error that names the field.

use serde_json_borrow::{ObjectAsVec, Value};

/// A field that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Dotted path within the StripeEvent.
    pub field: String,
    pub problem: String,
}

/// A JSON object and its place in the StripeEvent.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    object: &'a ObjectAsVec<'a>,
    path: String,
}

type Result<T> = std::result::Result<T, FieldError>;

impl<'a> Fields<'a> {
    /// Reads `value`, which must be an object.
    pub fn new(value: &'a Value<'a>, path: &str) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Self { object, path: path.to_owned() }),
            _ => Err(FieldError { field: path.to_owned(), problem: "must be an object".to_owned() }),
        }
    }

    fn error(&self, key: &str, problem: &str) -> FieldError {
        FieldError { field: format!("{}.{key}", self.path), problem: problem.to_owned() }
    }

    /// The raw value of a field that is present and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub fn string(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(text)) => self.clean(key, text).map(Some),
            Some(_) => Err(self.error(key, "must be a string")),
        }
    }

    pub fn required_string(&self, key: &str) -> Result<String> {
        self.string(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// Postgres cannot hold U+0000 in a text, and no id or status of Stripe's contains control characters.
    fn clean(&self, key: &str, text: &str) -> Result<String> {
        if text.chars().any(char::is_control) {
            return Err(self.error(key, "contains a control character"));
        }
        Ok(text.to_owned())
    }

    /// A whole number small enough that sums of many stay far from overflow; Stripe's own have at most 12 digits.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_i64().filter(|number| number.unsigned_abs() < 1_000_000_000_000_000);
        number.map(Some).ok_or_else(|| self.error(key, "must be a whole number of at most 15 digits"))
    }

    /// An integer that older API versions leave out when it is zero or did not exist.
    pub fn integer_or_zero(&self, key: &str) -> Result<i64> {
        Ok(self.integer(key)?.unwrap_or(0))
    }

    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.error(key, "must be true or false")),
        }
    }

    /// An object; an empty list is none, for that is how PHP writes an object without fields.
    pub fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let is_object = |value: &&Value<'_>| value.as_array().is_none_or(|list| !list.is_empty());
        self.get(key).filter(is_object).map(|value| Fields::new(value, &format!("{}.{key}", self.path))).transpose()
    }

    /// The id of a field that may be expanded to the whole object.
    pub fn id_of(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            Some(Value::Object(_)) => match self.object(key)? {
                Some(object) => object.string("id"),
                None => Ok(None),
            },
            _ => self.string(key),
        }
    }

    /// The members of an array, or of one of Stripe's list objects.
    pub fn list(&self, key: &str) -> Result<Vec<Fields<'a>>> {
        let (items, path) = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => (items, format!("{}.{key}", self.path)),
            Some(Value::Object(list)) => match list.get("data") {
                Some(Value::Array(items)) => (items, format!("{}.{key}.data", self.path)),
                _ => return Err(self.error(key, "must be a list")),
            },
            Some(_) => return Err(self.error(key, "must be a list")),
        };
        items.iter().enumerate().map(|(n, item)| Fields::new(item, &format!("{path}[{n}]"))).collect()
    }

    /// A currency code that ISO 4217 knows, in lower case.
    pub fn currency(&self, key: &str) -> Result<Option<String>> {
        let Some(code) = self.string(key)? else {
            return Ok(None);
        };
        match crate::domain::money::Currency::parse(&code) {
            Ok(currency) => Ok(Some(currency.as_str().to_owned())),
            Err(_) => Err(self.error(key, "is not an ISO 4217 currency")),
        }
    }

    pub fn required_currency(&self, key: &str) -> Result<String> {
        self.currency(key)?.ok_or_else(|| self.error(key, "is missing"))
    }
}
