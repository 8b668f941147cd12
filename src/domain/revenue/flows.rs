//! Credits as they flow, event by event; and what became of lots.

use serde::{Deserialize, Serialize};

use crate::domain::credit::LotSource;
use crate::domain::event::Event;

/// Credits that moved in a while, as the log records it: at the time of the events, not of their causes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditFlows {
    /// Of packs that were paid for.
    pub sold: i64,
    /// Of plans, and by hand.
    pub granted: i64,
    /// Taken out of lots by debits, captures, and to make good what was owed.
    pub spent: i64,
    /// Expired unspent.
    pub breakage: i64,
    /// Taken back by refunds, disputes and plan changes.
    pub clawed_back: i64,
    /// Given back after a refund failed or a dispute was won.
    pub reinstated: i64,
    /// Spent beyond the lots, to be billed.
    pub overage: i64,
}

impl CreditFlows {
    /// What an event moved; `None` if it moves nothing.
    pub fn of(event: &Event) -> Option<Self> {
        let none = Self::default();
        let drawn = |draws: &[crate::domain::credit::Draw]| draws.iter().map(|draw| draw.amount).sum::<i64>();
        let flows = match event {
            Event::CreditsGranted(granted) => {
                let lot = &granted.lot;
                let flows = Self { clawed_back: lot.clawed_back, ..none };
                match lot.source {
                    LotSource::Pack => Self { sold: lot.granted, ..flows },
                    LotSource::Plan | LotSource::FreePlan | LotSource::Promotion | LotSource::Manual => {
                        Self { granted: lot.granted, ..flows }
                    }
                }
            }
            Event::CreditsDebited(debited) => Self { spent: drawn(&debited.lots), overage: debited.overage, ..none },
            Event::HoldCaptured(captured) => {
                Self { spent: drawn(&captured.cover.lots), overage: captured.cover.overage, ..none }
            }
            Event::DebtRepaid(repaid) => Self { spent: drawn(&repaid.lots), ..none },
            Event::CreditsExpired(expired) => Self { breakage: drawn(&expired.lots), ..none },
            Event::CreditsClawedBack(clawed) => {
                Self { clawed_back: clawed.clawed_back + clawed.from_expired, breakage: -clawed.from_expired, ..none }
            }
            Event::CreditsReinstated(reinstated) => Self { reinstated: reinstated.reinstated, ..none },
            Event::AccountOpened(_)
            | Event::CustomerLinked(_)
            | Event::AccountAbsorbed(_)
            | Event::AccountMerged(_)
            | Event::StripeObserved(_)
            | Event::Reconciled(_)
            | Event::AllowanceArmed(_)
            | Event::AllowanceAdvanced(_)
            | Event::SubscriptionCreditsEnded(_)
            | Event::HoldPlaced(_)
            | Event::HoldExtended(_)
            | Event::HoldReleased(_)
            | Event::HoldExpired(_)
            | Event::ChargeRejected(_)
            | Event::UsageRecorded(_)
            | Event::OverrideSet(_)
            | Event::OverrideRemoved(_)
            | Event::AccountSuspended(_)
            | Event::AccountReinstated(_)
            | Event::LowBalanceSet(_)
            | Event::CatalogApplied(_) => return None,
        };
        Some(flows).filter(|flows| *flows != none)
    }

    pub fn add(&mut self, other: &Self) {
        let sum = |known: &mut i64, more: i64| *known = known.saturating_add(more);
        sum(&mut self.sold, other.sold);
        sum(&mut self.granted, other.granted);
        sum(&mut self.spent, other.spent);
        sum(&mut self.breakage, other.breakage);
        sum(&mut self.clawed_back, other.clawed_back);
        sum(&mut self.reinstated, other.reinstated);
        sum(&mut self.overage, other.overage);
    }
}

/// Stored names of the events that [`CreditFlows::of`] may say something of.
pub const FLOWING: [&str; 7] = [
    "credits_granted",
    "credits_debited",
    "hold_captured",
    "debt_repaid",
    "credits_expired",
    "credits_clawed_back",
    "credits_reinstated",
];
