//! Reading requests: bodies within limits, keys, ids, numbers; whatever is wrong is named.

use std::time::Duration;

use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::problem::ApiError;
use super::unfit::unfit_json;
use crate::app::write_path::work::Key;
use crate::domain::ids::AccountId;
use crate::domain::overrides::MAX_REASON;
use crate::stripe::translate::SYSTEM_ACCOUNT;

/// Largest JSON body.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// A body must arrive within this time: actix itself would wait for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(15);
const MAX_KEY_LEN: usize = 255;

/// Reads a whole body of at most `max` bytes.
pub async fn read_body(mut payload: web::Payload, max: usize) -> Result<Bytes, ApiError> {
    let read = async {
        let mut body = Bytes::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| ApiError::BodyBroken)?;
            if body.len() + chunk.len() > max {
                return Err(ApiError::BodyTooLarge { max });
            }
            // Nearly every body comes in one piece.
            body = if body.is_empty() {
                chunk
            } else {
                let mut joined = BytesMut::from(body);
                joined.extend_from_slice(&chunk);
                joined.freeze()
            };
        }
        Ok(body)
    };
    let too_slow = |_| ApiError::BodyTooSlow { seconds: BODY_DEADLINE.as_secs() };
    tokio::time::timeout(BODY_DEADLINE, read).await.map_err(too_slow)?
}

/// Reads a JSON body.
pub fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).ok().filter(|_| is_object(body)).ok_or_else(|| unfit_json::<T>("", body))
}

/// Reads what is kept for ever in a type that takes what later versions add: here, unknown fields are refused, and whatever
/// is wrong is told with its place.
pub fn parse_strictly<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    let mut track = serde_path_to_error::Track::new();
    let mut unknown = None;
    let read = {
        let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
        serde_ignored::deserialize(tracked, |path| {
            unknown.get_or_insert_with(|| path.to_string());
        })
    };
    let invalid = |field: String, problem: String| Err(ApiError::InvalidParameter { field, problem });
    match (read, unknown) {
        (Err(error), _) => match track.path().to_string() {
            // It is the whole that lacks something.
            whole if whole == "." => Err(ApiError::InvalidBody(error.to_string())),
            field => invalid(field.replace('[', ".").replace(']', ""), error.to_string()),
        },
        (Ok(_), Some(field)) => invalid(field, "is not known here; leave it out".to_owned()),
        (Ok(read), None) => Ok(read),
    }
}

/// Reads a JSON body that may be left out.
pub fn parse_json_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() { Ok(T::default()) } else { parse_json(body) }
}

/// A row of a batch, which `list` holds at `index`.
pub fn parse_row<'a, T: Deserialize<'a>>(row: &'a RawValue, list: &str, index: usize) -> Result<T, ApiError> {
    let json = row.get().as_bytes();
    let unfit = || unfit_json::<T>(&format!("{list}[{index}]"), json);
    serde_json::from_slice(json).ok().filter(|_| is_object(json)).ok_or_else(unfit)
}

/// Else an array of the right length would do for an object.
fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// The key of a request that must have one, and its JSON body.
pub async fn keyed_json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Key, T), ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let key = idempotency_key(request, &body)?;
    Ok((key, parse_json(&body)?))
}

/// The same, of a request whose body may be left out.
pub async fn keyed_json_or_default<T: DeserializeOwned + Default>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Key, T), ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let key = idempotency_key(request, &body)?;
    Ok((key, parse_json_or_default(&body)?))
}

/// The key of a request that must have one. It stands for the route, the path and the body.
pub fn idempotency_key(request: &HttpRequest, body: &[u8]) -> Result<Key, ApiError> {
    let mut headers = request.headers().get_all("idempotency-key");
    let header = headers.next().ok_or(ApiError::IdempotencyKeyMissing)?;
    // With another one in front of it, the same key would be another.
    if headers.next().is_some() {
        return Err(ApiError::SeveralIdempotencyKeys);
    }
    let key = header.to_str().map_err(|_| ApiError::IdempotencyKeyInvalid)?;
    key_of(key, &[request.method().as_str().as_bytes(), request.path().as_bytes(), body])
}

/// Checks a key's form.
pub fn key_of(key: &str, request: &[&[u8]]) -> Result<Key, ApiError> {
    let printable = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    // HTTP takes the blanks around a header's value away: with them, a row's key could never be a header's.
    if key.is_empty() || key.trim() != key || key.len() > MAX_KEY_LEN || !printable {
        return Err(ApiError::IdempotencyKeyInvalid);
    }
    Ok(Key::of_request(key, request))
}

/// An account as named in a path or body.
pub fn account_id(name: &str) -> Result<AccountId, ApiError> {
    let invalid = |problem: String| ApiError::InvalidParameter { field: "account".to_owned(), problem };
    if name == SYSTEM_ACCOUNT {
        return Err(invalid(format!("{SYSTEM_ACCOUNT} is the service's own")));
    }
    // What stands for bytes that were no text: different ones would all mean the same account.
    if !name.is_ascii() && name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(invalid("must be UTF-8".to_owned()));
    }
    AccountId::new(name).map_err(|error| invalid(error.to_string()))
}

/// An id that is looked up as it is. Postgres takes no U+0000, and no id has control characters.
pub fn plain_id<'a>(id: &'a str, field: &str) -> Result<&'a str, ApiError> {
    if id.chars().any(char::is_control) {
        let problem = "must not contain control characters".to_owned();
        return Err(ApiError::InvalidParameter { field: field.to_owned(), problem });
    }
    Ok(id)
}

/// An id of Stripe's, which becomes part of a path there.
pub fn stripe_id<'a>(field: &str, id: &'a str) -> Result<&'a str, ApiError> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain && (1..=255).contains(&id.len()) {
        return Ok(id);
    }
    let problem = "must be 1 to 255 letters, digits, _ and -".to_owned();
    Err(ApiError::InvalidParameter { field: field.to_owned(), problem })
}

/// A reason that goes into the log, which is kept for ever.
pub fn reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON || reason.contains('\0')) {
        let problem = format!("must have at most {MAX_REASON} characters, and no U+0000");
        return Err(ApiError::InvalidParameter { field: "reason".to_owned(), problem });
    }
    Ok(reason)
}

/// A query parameter that must be a whole number within bounds.
pub fn number(value: Option<&str>, field: &str, default: i64, min: i64, max: i64) -> Result<i64, ApiError> {
    let Some(value) = value else { return Ok(default) };
    let parsed = value.parse::<i64>().ok().filter(|number| (min..=max).contains(number));
    parsed.ok_or_else(|| ApiError::InvalidParameter {
        field: field.to_owned(),
        problem: format!("must be a whole number from {min} to {max}"),
    })
}
