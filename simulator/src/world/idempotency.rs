//! Requests, their answers, and keys under which an answer is kept (<https://docs.stripe.com/api/idempotent_requests>).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{World, no_cause};
use crate::error::{Result, StripeError};
use crate::form;
use crate::ids::fingerprint;
use crate::params::Params;
use crate::shape::{self, ApiVersion};

/// Stripe forgets keys after a day at the earliest.
const KEPT_S: i64 = 86_400;
const MAX_KEY_CHARACTERS: usize = 255;

#[derive(Debug, Clone, Default)]
pub struct Request {
    /// GET, POST or DELETE.
    pub method: String,
    /// Below `/v1/`.
    pub path: String,
    /// Query string, and body, form-encoded.
    pub parameters: Vec<u8>,
    pub idempotency_key: Option<String>,
    pub version: Option<ApiVersion>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// `Request-Id`.
    pub request_id: String,
    /// `Idempotent-Replayed`.
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Keys {
    kept: HashMap<String, Kept>,
    in_use: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Kept {
    at: i64,
    call: String,
    fingerprint: u64,
    answer: Answer,
}

impl World {
    /// Answers a request, once for ever under its key.
    pub fn handle(&mut self, request: &Request) -> Answer {
        let request_id = format!("req_{}", self.ids.text(14));
        let answered = match self.fields(request) {
            Err(error) => Err(error),
            Ok(fields) => match self.kept(request, &fields) {
                Err(error) => Err(error),
                Ok(Some(answer)) => return Answer { replayed: true, ..answer },
                Ok(None) => self.execute(request, &fields, &request_id),
            },
        };
        let is_kept = !matches!(&answered, Err(error) if !error.begun);
        let answer = match answered {
            Ok(body) => Answer { status: 200, body, request_id, replayed: false },
            Err(error) => Answer { status: error.status, body: error.body(&request_id), request_id, replayed: false },
        };
        if is_kept {
            self.keep(request, &answer);
        }
        answer
    }

    /// Holds the key of a request that takes long, until `release_key`: others with it are refused meanwhile.
    pub fn hold_key(&mut self, key: &str) -> bool {
        self.keys.in_use.insert(key.to_owned())
    }

    pub fn release_key(&mut self, key: &str) {
        self.keys.in_use.remove(key);
    }

    /// The refusal of a request whose key is held.
    pub fn key_in_use(&mut self, key: &str) -> Answer {
        let request_id = format!("req_{}", self.ids.text(14));
        let error = StripeError::idempotency_in_use(key);
        Answer { status: error.status, body: error.body(&request_id), request_id, replayed: false }
    }

    fn fields(&self, request: &Request) -> Result<Map<String, Value>> {
        if request.idempotency_key.as_ref().is_some_and(|key| key.chars().count() > MAX_KEY_CHARACTERS) {
            return Err(StripeError::malformed("Idempotency-Key", "Idempotency keys have 255 characters at most"));
        }
        form::parse(&request.parameters)
    }

    fn kept(&self, request: &Request, fields: &Map<String, Value>) -> Result<Option<Answer>> {
        let Some(key) = key_of(request) else { return Ok(None) };
        if self.keys.in_use.contains(key) {
            return Err(StripeError::idempotency_in_use(key));
        }
        let Some(kept) = self.keys.kept.get(key).filter(|kept| kept.at > self.now - KEPT_S) else { return Ok(None) };
        if kept.call != call_of(request) {
            return Err(StripeError::idempotency_mismatch(key, &format!("another call ({})", kept.call)));
        }
        if kept.fingerprint != fingerprint_of(fields) {
            return Err(StripeError::idempotency_mismatch(key, "other parameters"));
        }
        Ok(Some(kept.answer.clone()))
    }

    fn keep(&mut self, request: &Request, answer: &Answer) {
        let Some(key) = key_of(request) else { return };
        let Ok(fields) = form::parse(&request.parameters) else { return };
        let kept =
            Kept { at: self.now, call: call_of(request), fingerprint: fingerprint_of(&fields), answer: answer.clone() };
        self.keys.kept.insert(key.to_owned(), kept);
    }

    fn execute(&mut self, request: &Request, fields: &Map<String, Value>, request_id: &str) -> Result<Value> {
        self.cause = json!({ "id": request_id, "idempotency_key": key_of(request) });
        let params = Params::new(fields);
        let answered = self.route(&request.method, &request.path, &params);
        self.cause = no_cause();
        let mut body = answered?;
        for path in params.texts("expand")? {
            self.expand(&mut body, path)?;
        }
        // Events are written in the account's version for ever, whatever the request asks for.
        let is_event = request.path.starts_with("events");
        let version = request.version.as_ref().unwrap_or(&self.version);
        Ok(if is_event { body } else { shape::render(&body, version) })
    }
}

/// Only what writes is idempotent by a key.
fn key_of(request: &Request) -> Option<&str> {
    request.idempotency_key.as_deref().filter(|_| request.method == "POST")
}

fn call_of(request: &Request) -> String {
    format!("{} /v1/{}", request.method, request.path)
}

fn fingerprint_of(fields: &Map<String, Value>) -> u64 {
    fingerprint(&Value::Object(fields.clone()).to_string())
}
