//! Receipts: what a decision can be found again by.
//!
//! A debit, a hold, a capture and a refusal are events, so their receipt is their place in the log. A check writes
//! nothing, so its receipt is the question itself: whose, what, and of which version of the account, at which time.
//! Either way the decision can be made again from the log alone.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_with::SerializeDisplay;

use crate::domain::ids::AccountId;

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay)]
pub enum Receipt {
    /// A decision on record.
    Event { partition_id: i16, position: i64 },
    /// A check.
    Check(Check<'static>),
}

/// A question that was answered without leaving a trace.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay)]
pub struct Check<'a> {
    pub account: Cow<'a, AccountId>,
    /// Of the account, as it was when it was asked about.
    pub version: i64,
    /// Unix microseconds.
    pub at_us: i64,
    pub feature: Cow<'a, str>,
    pub quantity: i64,
    /// The beginning of the digest of the catalog in force.
    pub catalog: Cow<'a, str>,
    pub allowed: bool,
}

impl Check<'_> {
    /// The moment of asking.
    pub fn at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.at_us)
    }
}

/// It is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no receipt; use the `receipt` that a debit, a hold, a refusal or a check answered with")]
pub struct NoReceipt;

const CHECK: &str = "check.";
/// What would mean something else in the path of a URL.
const UNSAFE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':').remove(b'@');

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { partition_id, position } => write!(f, "{partition_id}-{position}"),
            Self::Check(check) => check.fmt(f),
        }
    }
}

impl Check<'_> {
    /// Adds the receipt's text. Every check has one, and a formatter would take as long as the decision itself.
    pub fn write_to(&self, text: &mut Vec<u8>) {
        let Check { account, version, at_us, feature, quantity, catalog, allowed } = self;
        text.extend_from_slice(CHECK.as_bytes());
        for number in [*version, *at_us, *quantity, i64::from(*allowed)] {
            text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            text.push(b'.');
        }
        for name in [catalog, feature] {
            text.extend_from_slice(name.as_bytes());
            text.push(b'.');
        }
        let account = utf8_percent_encode(account.as_str(), UNSAFE);
        account.for_each(|piece| text.extend_from_slice(piece.as_bytes()));
    }
}

impl fmt::Display for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write_to(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Receipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        if let Some(encoded) = text.strip_prefix(CHECK) {
            let mut parts = encoded.splitn(7, '.');
            let mut next = || parts.next().ok_or(NoReceipt);
            let number = |text: &str| text.parse::<i64>().map_err(|_| NoReceipt);
            let (version, at_us, quantity) = (number(next()?)?, number(next()?)?, number(next()?)?);
            let allowed = match next()? {
                "1" => true,
                "0" => false,
                _ => return Err(NoReceipt),
            };
            let (catalog, feature) = (next()?.to_owned().into(), next()?.to_owned().into());
            let account = percent_decode_str(next()?).decode_utf8().map_err(|_| NoReceipt)?;
            let account = Cow::Owned(AccountId::new(&account).map_err(|_| NoReceipt)?);
            return Ok(Self::Check(Check { account, version, at_us, feature, quantity, catalog, allowed }));
        }
        let (partition_id, position) = text.split_once('-').ok_or(NoReceipt)?;
        let position: i64 = position.parse().map_err(|_| NoReceipt)?;
        let partition_id = partition_id.parse().map_err(|_| NoReceipt)?;
        if position < 1 {
            return Err(NoReceipt);
        }
        Ok(Self::Event { partition_id, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_back_as_it_was_written_and_garbage_is_none() {
        let check = Check {
            account: Cow::Owned(AccountId::new("user.1?#é@example").expect("an id")),
            version: 7,
            at_us: 1_768_478_400_000_001,
            feature: "render".into(),
            quantity: 3,
            catalog: "0123456789ab".into(),
            allowed: true,
        };
        for receipt in [Receipt::Event { partition_id: 3, position: 1_041 }, Receipt::Check(check)] {
            assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }
        for garbage in [
            "",
            "3",
            "3-",
            "-3",
            "3-0",
            "3--1",
            "x-1",
            "99999-1",
            "check.",
            "check.1.2.3",
            "check.1.2.3.4.5.6.7",
            "check.1.2.3.1.5.6.a/b",
            "check.x.2.3.1.5.6.7",
        ] {
            assert_eq!(garbage.parse::<Receipt>(), Err(NoReceipt), "{garbage}");
        }
    }
}
