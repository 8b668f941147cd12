//! Capped rollover: once a subscription's next month begins, at most so many credits of its earlier ones are kept.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::credit::{Credits, Draw, Lot, LotSource, is_zero};
use super::draft::Draft;
use super::event::{CreditsExpired, Event, LotAmended};
use super::ids::LotId;

/// Months of a yearly plan, and the next two.
const CAPS: usize = 14;

/// That a lot caps what is kept of its subscription's earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    pub subscription: String,
    pub begins: DateTime<Utc>,
    pub lot: LotId,
    /// `None` while the lot has come to nothing, and caps nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<i64>,
    /// Credits that were kept and have been spent since: what comes back to the earlier lots later, from a hold or a won
    /// dispute, is kept only as far as the cap still has room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spent: i64,
}

impl Cap {
    /// The lot is one whose credits it caps.
    fn caps(&self, lot: &Lot) -> bool {
        lot.subscription.as_deref() == Some(self.subscription.as_str())
            && lot.source == LotSource::Plan
            && lot.effective_at < self.begins
    }
}

impl Credits {
    /// Learns what a lot caps, or that it does not any more. Of each subscription so many are kept as may begin, or come to
    /// nothing, within a year.
    pub fn learn_cap(&mut self, lot: &Lot) {
        let (Some(subscription), Some(_)) = (&lot.subscription, lot.keeps_earlier) else { return };
        if lot.never_began() {
            return self.caps.retain(|known| known.lot != lot.id);
        }
        self.take_in_cap(Cap {
            subscription: subscription.to_string(),
            begins: lot.effective_at,
            lot: lot.id,
            kept: lot.cap_on_earlier(),
            spent: 0,
        });
    }

    pub fn take_in_cap(&mut self, mut cap: Cap) {
        let key = |cap: &Cap| (cap.begins, cap.lot);
        match self.caps.binary_search_by_key(&key(&cap), key) {
            Ok(at) => {
                cap.spent = cap.spent.max(self.caps[at].spent);
                self.caps[at] = cap;
            }
            Err(at) => {
                let of_subscription = |known: &Cap| known.subscription == cap.subscription;
                let is_full = self.caps.iter().filter(|known| of_subscription(known)).count() >= CAPS;
                let oldest = self.caps.iter().position(of_subscription);
                self.caps.insert(at, cap);
                if let Some(oldest) = oldest.filter(|_| is_full) {
                    self.caps.remove(oldest.min(at));
                }
            }
        }
    }

    /// Of each subscription the newest cap that has begun, with what it keeps.
    fn caps_in_force(&self, now: DateTime<Utc>) -> BTreeMap<&str, (&Cap, i64)> {
        let begun = self.caps.iter().filter(|cap| cap.begins <= now);
        begun.filter_map(|cap| Some((cap.subscription.as_str(), (cap, cap.kept?)))).collect()
    }

    /// Credits beyond the caps in force: of each subscription's lots before the newest that caps them, what is not kept.
    fn beyond_caps(&self, now: DateTime<Utc>) -> Vec<Draw> {
        let mut beyond = Vec::new();
        for (cap, kept) in self.caps_in_force(now).into_values() {
            let mut left = kept.saturating_sub(cap.spent).max(0);
            for lot in self.lots.iter().filter(|lot| cap.caps(lot) && !lot.is_expired_at(now)) {
                let carried = lot.spendable().min(left);
                left -= carried;
                if lot.spendable() > carried {
                    beyond.push(Draw { lot: lot.id, amount: lot.spendable() - carried });
                }
            }
        }
        beyond
    }

    /// Whether [`cap_rollover`] would record anything.
    pub fn is_cap_due(&self, now: DateTime<Utc>) -> bool {
        !self.caps.is_empty() && !self.beyond_caps(now).is_empty()
    }

    /// What of draws at `now` had been kept under caps, by the lot that caps.
    pub fn kept_of(&self, draws: &[Draw], now: DateTime<Utc>) -> Vec<Draw> {
        if self.caps.is_empty() {
            return Vec::new();
        }
        let drawn = |cap: &Cap| {
            let capped = draws.iter().filter(|draw| self.lot(draw.lot).is_some_and(|lot| cap.caps(lot)));
            capped.map(|draw| draw.amount).sum()
        };
        let by_cap = self.caps_in_force(now).into_values().map(|(cap, _)| Draw { lot: cap.lot, amount: drawn(cap) });
        by_cap.filter(|draw| draw.amount > 0).collect()
    }

    /// Counts what was spent of credits that had been kept, by the lot that caps.
    pub fn count_kept(&mut self, kept: &[Draw]) {
        for draw in kept {
            if let Some(cap) = self.caps.iter_mut().find(|cap| cap.lot == draw.lot) {
                cap.spent = cap.spent.saturating_add(draw.amount);
            }
        }
    }
}

/// What is left of a subscription's earlier lots beyond the cap expires as the next one begins, whichever of them was heard
/// of first.
pub fn cap_rollover(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let credits = &draft.account.credits;
    if credits.caps.is_empty() {
        return;
    }
    let mut by_subscription: BTreeMap<String, Vec<Draw>> = BTreeMap::new();
    for draw in credits.beyond_caps(now) {
        let subscription = credits.lot(draw.lot).and_then(|lot| lot.subscription.as_deref()).unwrap_or_default();
        by_subscription.entry(subscription.to_owned()).or_default().push(draw);
    }
    for (subscription, lots) in by_subscription {
        let cause = Some(format!("rollover_cap:{subscription}"));
        draft.emit(Event::CreditsExpired(CreditsExpired { lots, cause }));
    }
}

/// What caps had taken of lots comes back, where one of `known` caps no more, or less: late news told of a change of the plan.
/// It is taken again by those that are left.
pub fn return_capped(draft: &mut Draft<'_>, known: &[Cap], now: DateTime<Utc>) {
    let caps = &draft.account.credits.caps;
    let is_eased = |cap: &&Cap| {
        let kept = caps.iter().find(|other| other.lot == cap.lot).and_then(|other| other.kept);
        cap.begins <= now && cap.kept.is_some_and(|before| kept.is_none_or(|kept| kept > before))
    };
    let eased: Vec<&str> = known.iter().filter(is_eased).map(|cap| cap.subscription.as_str()).collect();
    if eased.is_empty() {
        return;
    }
    let closed = draft.account.billing.iter().flat_map(|billing| billing.closed_lots.values());
    let capped = draft.account.credits.lots.iter().chain(closed).filter(|lot| {
        let of_subscription =
            lot.subscription.as_deref().is_some_and(|of| eased.contains(&of)) && lot.source == LotSource::Plan;
        of_subscription && lot.expired > 0 && !lot.is_expired_at(now)
    });
    let returned = capped.map(|lot| LotAmended {
        lot: lot.id,
        added: lot.expired,
        from_expired: lot.expired,
        effective_at: lot.effective_at,
        expires_at: lot.expires_at,
        keeps_earlier: lot.keeps_earlier,
        forgotten: false,
        cause: lot.cause.to_string(),
    });
    for event in returned.collect::<Vec<_>>() {
        draft.emit(Event::LotAmended(event));
    }
}
