//! Reading of parameters: each wrong one is named in the answer.

use serde_json::{Map, Value};

use crate::error::{Result, StripeError};

/// The parameters of a request, or of one object inside it.
#[derive(Debug, Clone)]
pub struct Params<'a> {
    fields: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Params<'a> {
    pub fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields: Some(fields), path: String::new() }
    }

    /// All of them, as they were given.
    pub fn given(&self) -> Map<String, Value> {
        self.fields.cloned().unwrap_or_default()
    }

    /// The name of one as an error tells it: `items[0][price]`.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}[{key}]", self.path) }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.and_then(|fields| fields.get(key))
    }

    /// Refuses what is not among the known ones.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        let mut given = self.fields.into_iter().flat_map(Map::keys);
        let is_known = |key: &String| known.contains(&key.as_str()) || (self.path.is_empty() && key == "expand");
        match given.find(|key| !is_known(key)) {
            Some(key) => Err(StripeError::unknown(self.name(key))),
            None => Ok(()),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Given, and empty: Stripe's way to unset a field.
    pub fn clears(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::String(String::new()))
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(StripeError::malformed(self.name(key), format!("Invalid string: {}", self.name(key)))),
        }
    }

    pub fn required(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| StripeError::missing(self.name(key)))
    }

    pub fn one_of(&self, key: &str, allowed: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = allowed.iter().find(|value| **value == text).copied();
        found.map(Some).ok_or_else(|| {
            let message = format!("Invalid {}: must be one of {}", self.name(key), allowed.join(", "));
            StripeError::malformed(self.name(key), message)
        })
    }

    pub fn int(&self, key: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let invalid = || StripeError {
            code: Some("parameter_invalid_integer"),
            ..StripeError::malformed(self.name(key), format!("Invalid integer: {text}"))
        };
        text.parse().map(Some).map_err(|_| invalid())
    }

    /// An amount or a number that may not be below zero.
    pub fn natural(&self, key: &str) -> Result<Option<i64>> {
        match self.int(key)? {
            Some(number) if number < 0 => {
                Err(StripeError::malformed(self.name(key), format!("Invalid {}: must be zero or more", self.name(key))))
            }
            other => Ok(other),
        }
    }

    pub fn decimal(&self, key: &str) -> Result<Option<f64>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number
            .map(Some)
            .ok_or_else(|| StripeError::malformed(self.name(key), format!("Invalid decimal: {}", self.name(key))))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.text(key)? {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(StripeError::malformed(self.name(key), format!("Invalid boolean: {other}"))),
        }
    }

    /// The parameters inside one; none of them if it is not given.
    pub fn map(&self, key: &str) -> Result<Params<'a>> {
        let path = self.name(key);
        match self.get(key) {
            None => Ok(Self { fields: None, path }),
            Some(Value::Object(fields)) => Ok(Self { fields: Some(fields), path }),
            Some(Value::String(text)) if text.is_empty() => Ok(Self { fields: None, path }),
            Some(_) => Err(StripeError::malformed(path.clone(), format!("Invalid object: {path}"))),
        }
    }

    pub fn list(&self, key: &str) -> Result<Vec<Params<'a>>> {
        let path = self.name(key);
        let invalid = || StripeError::malformed(path.clone(), format!("Invalid array: {path}"));
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let each = values.iter().enumerate().map(|(index, value)| match value {
                    Value::Object(fields) => Ok(Self { fields: Some(fields), path: format!("{path}[{index}]") }),
                    _ => Err(invalid()),
                });
                each.collect()
            }
            Some(_) => Err(invalid()),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
            Some(Value::Array(values)) if values.iter().all(Value::is_string) => {
                Ok(values.iter().filter_map(Value::as_str).collect())
            }
            Some(_) => Err(StripeError::malformed(self.name(key), format!("Invalid array: {}", self.name(key)))),
        }
    }

    /// Puts the given metadata over those there are: an empty value removes a key, an empty parameter all of them.
    pub fn merge_metadata(&self, key: &str, into: &mut Value) -> Result<()> {
        if self.clears(key) {
            *into = Value::Object(Map::new());
            return Ok(());
        }
        let given: Vec<(String, &Value)> = match self.get(key) {
            None => return Ok(()),
            Some(Value::Object(fields)) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Some(Value::Array(values)) => {
                values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
            }
            Some(_) => {
                return Err(StripeError::malformed(self.name(key), "Invalid metadata: must be keys and values"));
            }
        };
        if !into.is_object() {
            *into = Value::Object(Map::new());
        }
        let Value::Object(fields) = into else { return Ok(()) };
        for (name, value) in given {
            let param = format!("{}[{name}]", self.name(key));
            let Some(text) = value.as_str() else {
                return Err(StripeError::malformed(param, "Metadata values must be strings"));
            };
            if name.chars().count() > 40 || text.chars().count() > 500 {
                return Err(StripeError::malformed(param, "Metadata: keys have 40 characters at most, values 500"));
            }
            if text.is_empty() {
                fields.remove(&name);
            } else {
                fields.insert(name, Value::String(text.to_owned()));
            }
        }
        if fields.len() > 50 {
            return Err(StripeError::malformed(self.name(key), "Metadata have 50 keys at most"));
        }
        Ok(())
    }

    pub fn metadata(&self, key: &str) -> Result<Value> {
        let mut metadata = Value::Object(Map::new());
        self.merge_metadata(key, &mut metadata)?;
        Ok(metadata)
    }
}
