//! What is kept of an answer under its key, and how it is given again.

use super::work::{Answer, Key};
use crate::app::error::AppError;
use crate::domain::command::Outcome;
use crate::domain::event::Event;
use crate::domain::rejection::Rejection;
use crate::store::append::Digest;
use crate::store::error::StoreError;
use crate::store::load::StoredKey;

/// What is kept of an outcome. The event of a debit or a use says all of it, so nothing is written twice.
pub fn stored_outcome(result: &Result<Outcome, Rejection>) -> Option<String> {
    match result {
        Ok(Outcome::Debited(_) | Outcome::UsageRecorded(_)) => None,
        result => serde_json::to_string(result).ok(),
    }
}

/// The answer that a stored key stands for.
pub fn stored_answer(stored: &StoredKey) -> Result<Answer, StoreError> {
    let result = match (&stored.outcome, &stored.event) {
        (Some(outcome), _) if outcome == "null" => Ok(Outcome::Done),
        (Some(outcome), _) => serde_json::from_str(outcome)?,
        (None, Some((event_type, version, payload))) => match Event::read(event_type, *version, payload) {
            Ok(Event::CreditsDebited(debited)) => Ok(Outcome::Debited(debited)),
            Ok(Event::UsageRecorded(recorded)) => Ok(Outcome::UsageRecorded(recorded)),
            Ok(_) => return Err(StoreError::Corrupt("a key's event is no outcome".to_owned())),
            Err(error) => return Err(StoreError::Corrupt(error.to_string())),
        },
        (None, None) => return Err(StoreError::Corrupt("a key has no outcome".to_owned())),
    };
    Ok(Answer { result, partition_id: stored.partition_id, position: stored.position, replayed: true })
}

/// Gives an answer again, if it was given to the same request.
pub fn replayed(request: Digest, answer: &Answer, key: Key) -> Result<Answer, AppError> {
    if request != key.request {
        return Err(AppError::KeyReused);
    }
    Ok(Answer { replayed: true, ..answer.clone() })
}
