//! Identifiers.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one account, and so one stream.
///
/// Either the caller's own account id, or, until the first link, the Stripe id by which the stream is known: the
/// customer's, or that of a payment or invoice which arrived before its customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(Box<str>);

/// Why a string is not an account id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountIdError {
    #[error("an account id must not be empty")]
    Empty,
    #[error("an account id has at most {max} bytes, this one has {len}", max = AccountId::MAX_LEN)]
    TooLong { len: usize },
    #[error("an account id must not contain control characters, white space or '/'")]
    ForbiddenCharacter,
}

/// What the prefix of a Stripe id says about the stream that bears it.
const STRIPE_PREFIXES: &[&str] = &["pi_", "py_", "ch_", "in_", "sub_", "cs_", "pm_", "si_", "re_", "du_", "dp_"];

impl AccountId {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 200;

    pub fn new(id: &str) -> Result<Self, AccountIdError> {
        if id.is_empty() {
            return Err(AccountIdError::Empty);
        }
        if id.len() > Self::MAX_LEN {
            return Err(AccountIdError::TooLong { len: id.len() });
        }
        // Nearly all are ASCII, where what is not forbidden is told without Unicode's tables.
        let is_forbidden = if id.is_ascii() {
            id.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'/')
        } else {
            id.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/')
        };
        if is_forbidden {
            return Err(AccountIdError::ForbiddenCharacter);
        }
        Ok(Self(id.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How well this id names its owner: the caller's own id best, then a Stripe customer, then any other object.
    pub fn standing(&self) -> Ownership {
        if self.0.starts_with("cus_") || self.0.starts_with("gcus_") {
            Ownership::Customer
        } else if STRIPE_PREFIXES.iter().any(|prefix| self.0.starts_with(prefix)) {
            Ownership::Object
        } else {
            Ownership::Account
        }
    }
}

/// Who a stream belongs to, from the weakest to the strongest claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    Object,
    Customer,
    Account,
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AccountId {
    type Error = AccountIdError;
    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(&id)
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.0.into()
    }
}

/// Names a lot; derived from its cause, so that the same cause can never make two lots.
pub type LotId = Uuid;

/// The root of all ids that are derived from a cause (a random UUID, fixed for ever).
const CAUSE_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_3c52_8a04_4b77_9e21_5d0c_b0a7_44e3);

/// The id of the lot that `cause` grants.
pub fn lot_id_of(cause: &str) -> LotId {
    Uuid::new_v5(&CAUSE_NAMESPACE, cause.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_break_a_path_or_a_log_line_are_refused() {
        assert_eq!(AccountId::new(""), Err(AccountIdError::Empty));
        assert_eq!(AccountId::new("a/b"), Err(AccountIdError::ForbiddenCharacter));
        assert_eq!(AccountId::new("a\u{0}b"), Err(AccountIdError::ForbiddenCharacter));
        assert_eq!(AccountId::new(&"x".repeat(201)), Err(AccountIdError::TooLong { len: 201 }));
    }

    #[test]
    fn the_callers_own_id_outranks_a_customer_and_a_customer_a_payment() {
        let own = AccountId::new("user_1").expect("valid").standing();
        let customer = AccountId::new("cus_1").expect("valid").standing();
        let payment = AccountId::new("pi_1").expect("valid").standing();
        assert!(own > customer && customer > payment);
    }
}
