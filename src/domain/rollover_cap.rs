//! Capped rollover: once a subscription's next month begins, at most so many credits of its earlier ones are kept.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::credit::{Credits, Draw, Lot, LotSource, burn_key, is_zero};
use super::draft::Draft;
use super::event::{CreditsExpired, Event, LotAmended};
use super::hold::Hold;
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

    /// The caps that have begun, with what each keeps.
    fn begun_caps(&self, now: DateTime<Utc>) -> impl Iterator<Item = (&Cap, i64)> {
        self.caps.iter().filter(move |cap| cap.begins <= now).filter_map(|cap| Some((cap, cap.kept?)))
    }

    /// How much a cap lets the earlier lots have still: what was spent of them since counts, and what holds have set aside
    /// since. Holds that are older had taken theirs before there was anything to cap.
    fn room(&self, cap: &Cap, kept: i64) -> i64 {
        let since = self.holds.iter().filter(|hold| cap.begins <= hold.created_at);
        let of_cap = |draw: &&Draw| self.lot(draw.lot).is_some_and(|lot| cap.caps(lot));
        let held: i64 = since.flat_map(|hold| &hold.cover.lots).filter(of_cap).map(|draw| draw.amount).sum();
        kept.saturating_sub(cap.spent).saturating_sub(held).max(0)
    }

    /// A cap on the lot may have been forgotten, since there were too many of them.
    fn is_cap_forgotten(&self, lot: &Lot) -> bool {
        let mut caps = self.caps.iter().filter(|cap| lot.subscription.as_deref() == Some(cap.subscription.as_str()));
        let oldest = caps.next();
        oldest.is_some_and(|oldest| lot.effective_at < oldest.begins) && caps.count() + 1 >= CAPS
    }

    /// How much of the `whole` of each lot the caps have room for. The lots come as they burn, and those are kept that last
    /// longest: so it makes no difference whether any has expired since.
    fn carried<'a>(&self, lots: Vec<(&'a Lot, i64)>, now: DateTime<Utc>) -> Vec<(&'a Lot, i64)> {
        let mut rooms: Vec<(&Cap, i64)> = self.begun_caps(now).map(|(cap, kept)| (cap, self.room(cap, kept))).collect();
        let mut carried = Vec::with_capacity(lots.len());
        for (lot, whole) in lots.into_iter().rev() {
            let most = rooms.iter().filter(|(cap, _)| cap.caps(lot)).fold(whole, |most, (_, room)| most.min(*room));
            rooms.iter_mut().filter(|(cap, _)| cap.caps(lot)).for_each(|(_, room)| *room -= most);
            carried.push((lot, most));
        }
        carried
    }

    /// Credits beyond the caps: of each subscription's lots before those that cap them, what is not kept.
    fn beyond_caps(&self, now: DateTime<Utc>) -> Vec<Draw> {
        let plans = self.lots.iter().filter(|lot| lot.source == LotSource::Plan && !lot.is_expired_at(now));
        let carried = self.carried(plans.map(|lot| (lot, lot.spendable())).collect(), now);
        let beyond = carried.iter().map(|(lot, kept)| Draw { lot: lot.id, amount: lot.spendable() - kept });
        beyond.filter(|draw| draw.amount > 0).collect()
    }

    /// Whether [`cap_rollover`] would record anything.
    pub fn is_cap_due(&self, now: DateTime<Utc>) -> bool {
        !self.caps.is_empty() && !self.beyond_caps(now).is_empty()
    }

    /// What of draws at `now` had been kept under caps, by the lot that caps; not what the hold that they capture had set aside
    /// before.
    pub fn kept_of(&self, draws: &[Draw], captured: Option<&Hold>, now: DateTime<Utc>) -> Vec<Draw> {
        if self.caps.is_empty() {
            return Vec::new();
        }
        let drawn = |cap: &Cap| {
            let older = captured.filter(|hold| hold.created_at < cap.begins).map_or(&[][..], |hold| &hold.cover.lots);
            let held = |lot| older.iter().filter(|draw| draw.lot == lot).map(|draw| draw.amount).sum::<i64>();
            let capped = draws.iter().filter(|draw| self.lot(draw.lot).is_some_and(|lot| cap.caps(lot)));
            capped.map(|draw| (draw.amount - held(draw.lot)).max(0)).sum()
        };
        let by_cap = self.begun_caps(now).map(|(cap, _)| Draw { lot: cap.lot, amount: drawn(cap) });
        by_cap.filter(|draw| draw.amount > 0).collect()
    }

    /// Credits of a lot that had been kept, and had gone to a debt that was none after all, are kept again.
    pub fn keep_again(&mut self, lot: LotId, returned: i64) {
        let Some(lot) = self.lots.iter().find(|known| known.id == lot) else { return };
        for cap in self.caps.iter_mut().filter(|cap| cap.caps(lot)) {
            cap.spent = (cap.spent - returned).max(0);
        }
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

/// Credits that caps had taken come back as far as those in force have room for them: late news took others of the earlier
/// lots, or the month that had capped them.
pub fn return_capped(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let credits = &draft.account.credits;
    let lots = draft.account.all_lots();
    let mut plans: Vec<&Lot> = lots.filter(|lot| lot.source == LotSource::Plan && !lot.is_expired_at(now)).collect();
    if plans.iter().all(|lot| lot.expired == 0) {
        return;
    }
    plans.sort_by_key(|lot| burn_key(lot));
    let expired = |lot: &Lot| if credits.is_cap_forgotten(lot) { 0 } else { lot.expired };
    let whole = plans.into_iter().map(|lot| (lot, lot.spendable() + expired(lot))).collect();
    let returned = credits.carried(whole, now).into_iter().filter(|(lot, kept)| lot.spendable() < *kept);
    let returned: Vec<_> = returned.map(|(lot, kept)| LotAmended::returned(lot, kept - lot.spendable())).collect();
    for event in returned {
        draft.emit(Event::LotAmended(event));
    }
}
