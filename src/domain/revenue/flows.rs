//! Credits as they flow, event by event; and what became of lots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::month::Month;
use crate::domain::credit::{Draw, Lot, LotSource};
use crate::domain::event::Event;
use crate::domain::ids::LotId;

/// Credits that moved in a while, as the log records it: at the time of the events, not of their causes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditFlows {
    /// Of packs that were paid for.
    pub sold: i64,
    /// Of plans, by hand, and what came back to lots that had expired.
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
        let drawn = |draws: &[Draw]| draws.iter().map(|draw| draw.amount).sum::<i64>();
        let flows = match event {
            Event::CreditsGranted(granted) => {
                let lot = &granted.lot;
                let flows = Self { clawed_back: lot.clawed_back, ..none };
                match lot.source {
                    LotSource::Pack => Self { sold: lot.granted, ..flows },
                    LotSource::Plan
                    | LotSource::FreePlan
                    | LotSource::Promotion
                    | LotSource::Manual
                    | LotSource::Reinstatement => Self { granted: lot.granted, ..flows },
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
            Event::LotAmended(amended) => {
                Self { granted: amended.added - amended.from_expired, breakage: -amended.from_expired, ..none }
            }
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

/// By pack and month: credits that left it for good, whatever for; negative if more came back.
pub type PackUses = BTreeMap<LotId, BTreeMap<Month, i64>>;

/// The lots of packs that an event brings into being, or into a stream.
pub fn packs_of(event: &Event) -> Vec<LotId> {
    let pack = |lot: &Lot| (lot.source == LotSource::Pack).then_some(lot.id);
    match event {
        Event::CreditsGranted(granted) => pack(&granted.lot).into_iter().collect(),
        Event::AccountAbsorbed(absorbed) => {
            let lots = absorbed.credits.lots.iter().chain(absorbed.billing.closed_lots.values());
            lots.filter_map(pack).collect()
        }
        _ => Vec::new(),
    }
}

/// What an event takes out of lots for good; what it puts back is negative.
pub fn uses_of(event: &Event) -> Vec<Draw> {
    match event {
        Event::CreditsDebited(debited) => debited.lots.clone(),
        Event::HoldCaptured(captured) => captured.cover.lots.clone(),
        Event::DebtRepaid(repaid) => repaid.lots.clone(),
        Event::CreditsExpired(expired) => expired.lots.clone(),
        Event::CreditsClawedBack(clawed) => vec![Draw { lot: clawed.lot, amount: clawed.clawed_back }],
        Event::CreditsReinstated(back) => vec![Draw { lot: back.lot, amount: -back.reinstated }],
        _ => Vec::new(),
    }
}

/// Stored names of the events that [`CreditFlows::of`], [`packs_of`] or [`uses_of`] may say something of.
pub const FLOWING: [&str; 9] = [
    "account_absorbed",
    "credits_granted",
    "credits_debited",
    "hold_captured",
    "debt_repaid",
    "credits_expired",
    "credits_clawed_back",
    "credits_reinstated",
    "lot_amended",
];
