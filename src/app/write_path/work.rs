//! What a lane is given to do, and what it answers.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::error::AppError;
use crate::app::read_path::receipt::Receipt;
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
        let key = digest(&[b"stripe_event", id.as_bytes()]);
        Self { key: in_order(key, time_of_stripe_id(id)), request: Digest::nil() }
    }

    /// The key a caller gave, and the request it stands for: route, account and body.
    pub fn of_request(key: &str, request: &[&[u8]]) -> Self {
        let digest_of_key = digest(&[b"request", key.as_bytes()]);
        Self { key: in_order(digest_of_key, time_of_uuid(key)), request: digest(request) }
    }
}

/// Leading bytes that grow with time.
type TimePrefix = [u8; 6];

/// Puts the time that a key tells before its digest. Keys of one time then share pages of the index that all keys are in
/// for ever, however large it is; those that tell no time are anywhere in it. Eighty bits of the digest remain.
fn in_order(digest: Digest, time: Option<TimePrefix>) -> Digest {
    let Some(time) = time else { return digest };
    let mut bytes = digest.into_bytes();
    bytes[..time.len()].copy_from_slice(&time);
    Digest::from_bytes(bytes)
}

/// The milliseconds that a UUID of version 7 begins with (RFC 9562, section 5.7).
fn time_of_uuid(key: &str) -> Option<TimePrefix> {
    let uuid = Uuid::try_parse(key).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    uuid.as_bytes().first_chunk().copied()
}

/// What follows `evt_` in Stripe's ids: a one and the second, to base 62. Nobody promises that, and nothing but the place
/// in an index comes from it.
fn time_of_stripe_id(id: &str) -> Option<TimePrefix> {
    id.strip_prefix("evt_")?.as_bytes().first_chunk().copied()
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

impl Answer {
    /// By which the decision can be explained. What a decision brought about stands right after it; explaining finds it.
    pub fn receipt(&self) -> Receipt {
        Receipt::Event { partition_id: self.partition_id, position: self.position }
    }

    /// That of a refusal. Only one that lies in the account is on record.
    pub fn receipt_of_refusal(&self) -> Option<Receipt> {
        self.result.as_ref().is_err_and(Rejection::lies_in_account).then(|| self.receipt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_kinds_never_meet() {
        assert_ne!(Key::of_stripe_event("evt_1").key, Key::of_request("evt_1", &[]).key);
        assert_ne!(Key::of_request("k", &[b"ab", b"c"]).request, Key::of_request("k", &[b"a", b"bc"]).request);
    }

    #[test]
    fn keys_that_tell_their_time_are_in_its_order_and_the_others_are_not_changed() {
        let of_second = |second: u64| {
            let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, second, 0);
            Key::of_request(&Uuid::new_v7(timestamp).to_string(), &[]).key
        };
        let keys: Vec<Digest> = (1_700_000_000..1_700_000_200).map(of_second).collect();
        assert!(keys.is_sorted());
        let of_stripe = |id: &str| Key::of_stripe_event(id).key;
        assert_eq!(of_stripe("evt_1MhUT6E0b6fckueSqWR0Bec4").as_bytes()[..6], *b"1MhUT6");
        assert!(of_stripe("evt_1MhUT6E0b6fckueSqWR0Bec4") < of_stripe("evt_1MhUT7E0b6fckueS9G2IKvN4"));

        let random = "5f0c6a52-7f3c-4b8e-9a52-2f6f4a0d9f11";
        assert_eq!(Key::of_request(random, &[]).key, digest(&[b"request", random.as_bytes()]));
        assert_eq!(Key::of_stripe_event("evt_").key, digest(&[b"stripe_event", b"evt_"]));
    }

    #[test]
    fn keys_of_one_time_differ_when_anything_of_them_does() {
        let [a, b] = ["0190a3c4-5b6f-7d2a-8f1e-000000000001", "0190a3c4-5b6f-7d2a-8f1e-000000000002"];
        let written_otherwise = a.to_uppercase();
        let keys = [a, b, &written_otherwise].map(|key| Key::of_request(key, &[]).key);
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2], "{keys:?}");
        assert_eq!(keys[0].as_bytes()[..6], keys[1].as_bytes()[..6]);
    }
}
