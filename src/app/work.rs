//! What a lane is given to do, and what it answers.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::error::AppError;
use crate::domain::command::{Command, Outcome};
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::store::append::{Digest, InboxRow};

/// A key under which a request is answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub key: Digest,
    /// Of the request itself; a StripeEvent's is empty, since its id alone says which it is.
    pub request: Digest,
}

impl Key {
    /// The key of a StripeEvent: its id, once and for ever.
    pub fn of_stripe_event(id: &str) -> Self {
        Self { key: digest(&[b"stripe_event", id.as_bytes()]), request: Digest::nil() }
    }

    /// The key a caller gave, and the request it stands for: route, account and body.
    pub fn of_request(key: &str, request: &[&[u8]]) -> Self {
        Self { key: digest(&[b"request", key.as_bytes()]), request: digest(request) }
    }
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let hash = sha.finalize();
    let mut first = uuid::Bytes::default();
    first.copy_from_slice(&hash[..16]);
    Digest::from_bytes(first)
}

/// A command on its way through a lane.
#[derive(Debug)]
pub struct Work {
    /// Decides the partition; for work without a command, any fixed name.
    pub account: AccountId,
    /// `None`: only keep the inbox row and claim the key.
    pub command: Option<Command>,
    pub key: Option<Key>,
    /// Stripe ids that are to lead to the account, as far as the events say so. If one leads elsewhere, the work is given
    /// back.
    pub links: Vec<String>,
    pub inbox: Option<InboxRow>,
    pub reply: oneshot::Sender<Result<Answer, AppError>>,
    pub enqueued_at: Instant,
}

/// The durable outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub result: Result<Outcome, Rejection>,
    pub partition_id: i16,
    /// Last position of the command's events; for one without events, of the partition.
    pub position: i64,
    /// The key was answered before: this is the first outcome again.
    pub replayed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_kinds_never_meet() {
        assert_ne!(Key::of_stripe_event("evt_1").key, Key::of_request("evt_1", &[]).key);
        assert_ne!(Key::of_request("k", &[b"ab", b"c"]).request, Key::of_request("k", &[b"a", b"bc"]).request);
    }
}
