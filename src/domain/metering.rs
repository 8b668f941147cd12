//! Usage that Stripe bills: which events tell of it, and how it is reported.
//!
//! Uses are added up by account, meter and window, and each sum is reported as one meter event
//! (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>). A window is so short that what was
//! used up to a period's end is reported within the hour for which Stripe leaves the invoice a draft.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::event::{CreditsDebited, Event, HoldCaptured};

/// Length of a window, in seconds.
pub const WINDOW_S: i64 = 900;
/// So long after a window's end its uses are in the log, however slowly the last of them was written.
const MARGIN_S: i64 = 30;
/// Stripe takes no meter event that is older.
pub const OLDEST_S: i64 = 35 * 86_400;

/// A use of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredUse<'a> {
    pub feature: &'a str,
    /// Negative, when somebody set usage to less than it was: so Stripe has usage put right that was reported already. In
    /// an invoice, a period's usage is nothing at least
    /// (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>).
    pub quantity: i64,
    /// Unix second that it counts at.
    pub at: i64,
    /// Unix second in which the billing period began that it counts in.
    pub period_start: i64,
}

/// What an event says was used: debits, captures, and recorded usage; of usage that was set, the difference.
pub fn use_of(event: &Event) -> Option<MeteredUse<'_>> {
    let (feature, quantity, counted) = match event {
        Event::CreditsDebited(CreditsDebited { feature, quantity, counted, .. })
        | Event::HoldCaptured(HoldCaptured { feature, quantity, counted, .. }) => {
            (feature.as_deref()?, (*quantity)?, (*counted)?)
        }
        Event::UsageRecorded(recorded) => (recorded.feature.as_str(), recorded.added, recorded.counted),
        _ => return None,
    };
    (quantity != 0).then_some(MeteredUse { feature, quantity, at: counted.at, period_start: counted.period_start })
}

/// Unix second in which the window of a moment begins.
pub fn window_of(at: i64) -> i64 {
    at - at.rem_euclid(WINDOW_S)
}

/// When a window is reported, in Unix seconds, unless its period ends before.
pub fn due_at(window_start: i64) -> i64 {
    window_start + WINDOW_S + MARGIN_S
}

/// Which report of which window it is: all that its identifier is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportId<'a> {
    pub ledger: Uuid,
    pub account: &'a str,
    pub meter: &'a str,
    pub window_start: i64,
    pub period_start: i64,
    /// Of this window, 1 the first.
    pub number: i32,
}

impl ReportId<'_> {
    /// The same report has the same identifier for ever; 100 characters at most are Stripe's limit.
    pub fn identifier(&self) -> String {
        let mut sha = Sha256::new();
        sha.update(self.ledger.as_bytes());
        for text in [self.account, self.meter] {
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text);
        }
        for number in [self.window_start, self.period_start, self.number.into()] {
            sha.update(number.to_be_bytes());
        }
        format!("subledger-{}", &hex::encode(sha.finalize())[..40])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, payload: serde_json::Value) -> Event {
        Event::read(name, super::super::event::EVENT_VERSION, &payload.to_string()).expect("an event")
    }

    #[test]
    fn usage_that_was_set_counts_by_the_difference() {
        let set = json!({
            "feature": "calls", "action": "set", "quantity": 7, "added": -3, "day": "2026-01-15", "day_total": 7,
            "counted": {"at": 1_000, "period_start": 500},
        });
        let event = read("usage_recorded", set);
        assert_eq!(use_of(&event), Some(MeteredUse { feature: "calls", quantity: -3, at: 1_000, period_start: 500 }));
    }

    #[test]
    fn a_debit_by_amount_is_no_use_of_a_feature() {
        let debit = |feature: Option<&str>| {
            read(
                "credits_debited",
                json!({
                    "debit": Uuid::nil(), "amount": 2, "feature": feature, "quantity": feature.map(|_| 2), "lots": [],
                    "available": 0, "counted": feature.map(|_| json!({"at": 1_000, "period_start": 500})),
                }),
            )
        };
        assert_eq!(use_of(&debit(None)), None);
        assert_eq!(use_of(&debit(Some("calls"))).map(|used| used.quantity), Some(2));
    }

    #[test]
    fn identifiers_tell_everything_apart_and_nothing_else() {
        let id =
            ReportId { ledger: Uuid::nil(), account: "a", meter: "bc", window_start: 900, period_start: 0, number: 1 };
        assert_eq!(id.identifier(), id.clone().identifier());
        assert!(id.identifier().len() <= 100);
        let others = [
            ReportId { account: "ab", meter: "c", ..id.clone() },
            ReportId { window_start: 1_800, ..id.clone() },
            ReportId { period_start: 900, ..id.clone() },
            ReportId { number: 2, ..id.clone() },
            ReportId { ledger: Uuid::max(), ..id.clone() },
        ];
        assert!(others.iter().all(|other| other.identifier() != id.identifier()));
    }

    #[test]
    fn a_window_that_a_period_ends_in_is_reported_before_its_invoice_closes() {
        for end in 0..WINDOW_S {
            assert!(due_at(window_of(end - 1)) < end + 3_600 - 1_800, "a period that ends at {end}");
        }
    }
}
