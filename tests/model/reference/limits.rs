//! Limits within windows: what was used counts, and what open holds have set aside, whichever window runs.

use super::super::prices::{Window, cost};
use super::{HoldState, Ledger, Refusal, Used};

/// A number that is the same for two moments if one window holds both.
fn window(length: Window, at: i64) -> i64 {
    match length {
        Window::Hour => at.div_euclid(3_600),
        Window::Day => at.div_euclid(86_400),
        Window::Month => {
            let at = chrono::DateTime::from_timestamp(at, 0).expect("a time");
            at.format("%Y%m").to_string().parse().expect("a number")
        }
    }
}

/// Units that no script captures.
const FEW: i64 = 1_000;

impl Ledger {
    fn held_of(&self, feature: &str) -> i64 {
        let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open && hold.feature == Some(feature));
        open.map(|hold| hold.quantity).sum()
    }

    /// Once the clock has been settled.
    pub(super) fn admit(&self, now: i64, feature: &str, quantity: i64) -> Result<(), Refusal> {
        for (_, length, limit) in self.plan().limits.iter().filter(|(limited, _, _)| *limited == feature) {
            let counts = |at: i64| window(*length, at) == window(*length, now);
            let of_window = self.uses.iter().filter(|(at, used, _)| *used == feature && counts(*at));
            let used: i64 = of_window.map(|(_, _, units)| units).sum();
            if used + self.held_of(feature) + quantity > *limit {
                return Refusal::of("limit_exceeded");
            }
        }
        Ok(())
    }

    /// Units that a capture counts. One that was used in part counts as one; credits that buy any number of units count as
    /// many as were held.
    pub(super) fn units(used: Used, amount: i64, held: (i64, i64), feature: &str) -> i64 {
        match used {
            Used::Quantity(quantity) => quantity,
            _ if amount == held.0 => held.1,
            _ => (0..FEW).find(|units| cost(feature, *units).expect("known") >= amount).unwrap_or(held.1),
        }
    }
}
