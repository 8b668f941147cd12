//! Taking over another stream: two that turn out to be one account, and may have been given the same credits.

use super::{Account, Changes};
use crate::domain::billing::{Billing, Kind};
use crate::domain::credit::{Credits, Lot, LotSource};
use crate::domain::event::AccountAbsorbed;
use crate::domain::hold::{Hold, HoldStatus};
use crate::domain::ids::{AccountId, LotId};

impl Account {
    pub(super) fn absorb(&mut self, absorbed: &AccountAbsorbed, changes: &mut Changes) {
        let mut theirs = absorbed.credits.clone();
        let opened_at = self.credits.opened_at.into_iter().chain(theirs.opened_at).min();
        let free_since = self.credits.free_since.max(theirs.free_since);
        for credits in [&mut self.credits, &mut theirs] {
            credits.recount_free_months(|credits| (credits.opened_at, credits.free_since) = (opened_at, free_since));
        }
        let ours = &mut self.credits;
        ours.debt += theirs.debt;
        ours.debt_since = ours.debt_since.into_iter().chain(theirs.debt_since).min();
        ours.overage += theirs.overage;
        for hold in theirs.holds {
            changes.hold(&hold, HoldStatus::Open);
            ours.holds.push(hold);
        }
        for theirs in theirs.allowances {
            match ours.allowances.iter_mut().find(|known| known.cause == theirs.cause) {
                Some(known) => known.windows = known.windows.max(theirs.windows),
                None => ours.allowances.push(theirs),
            }
        }
        ours.allowances.sort_by(|a, b| a.cause.cmp(&b.cause));
        let learnt = theirs.lookup_keys.into_iter().chain(ours.lookup_keys.clone());
        learnt.for_each(|(price, key)| ours.learn_lookup_key(&price, &key));
        theirs.caps.into_iter().for_each(|cap| ours.take_in_cap(cap));
        for (feature, theirs) in theirs.overrides {
            ours.overrides.entry(feature).or_insert(theirs);
        }
        ours.suspension = ours.suspension.take().or(theirs.suspension);
        ours.low_balance = ours.low_balance.or(theirs.low_balance);
        let mut billing = absorbed.billing.clone();
        let closed = std::mem::take(&mut billing.closed_lots);
        let usage_days = std::mem::take(&mut billing.usage_days);
        let mut free_until = None;
        for lot in theirs.lots.into_iter().chain(closed.into_values()) {
            if lot.source == LotSource::FreePlan {
                if self.absorb_free_month(&lot, changes) {
                    continue;
                }
                free_until = free_until.max(lot.expires_at);
            }
            self.absorb_lot(lot, changes);
        }
        // A month of theirs that is spent out of one of ours ends with that one, and the next one follows on it.
        if free_until == theirs.free_until {
            self.credits.free_until = self.credits.free_until.max(free_until);
        }
        if let Some(ours) = &mut self.billing {
            ours.absorb(billing, &mut changes.touched);
            self.refresh_access_of_all();
        }
        self.absorb_usage(&theirs.usage, usage_days, changes);
    }

    /// Takes a lot over, open or closed. The same cause may have granted it here too: it is still one lot.
    fn absorb_lot(&mut self, mut lot: Lot, changes: &mut Changes) {
        if let Some(at) = self.credits.lots.iter().position(|known| known.id == lot.id) {
            lot.merge(&self.credits.lots.remove(at));
        }
        if let Some(billing) = &mut self.billing
            && let Some(known) = billing.closed_lots.remove(&lot.id.to_string())
        {
            lot.merge(&known);
            changes.closed_lots.remove(&lot.id);
            changes.touched.insert((Kind::ClosedLot, lot.id.to_string()));
        }
        self.credits.learn_cap(&lot);
        let excess = lot.held - lot.remaining;
        let id = lot.id;
        self.credits.insert_lot(lot);
        self.owe_held(id, excess, changes);
        self.close_empty_lots(changes);
    }

    /// The free plan's month is one account's, whatever the streams that were given it: what both spent of it counts, and so
    /// does what both hold, and what theirs has repaid of a debt, as far as there is enough: the rest is owed again.
    fn absorb_free_month(&mut self, theirs: &Lot, changes: &mut Changes) -> bool {
        let overlaps = |ours: &&Lot| {
            let begins_before = |a: &Lot, b: &Lot| b.expires_at.is_none_or(|end| a.effective_at < end);
            ours.source == LotSource::FreePlan && begins_before(ours, theirs) && begins_before(theirs, ours)
        };
        let Some(ours) = self.all_lots().find(overlaps).map(|lot| lot.id) else {
            return false;
        };
        let (mut excess, mut owed_again) = (0, 0);
        self.change_lot(ours, changes, |ours| {
            let their_spent = theirs.spent() - theirs.repaid;
            let spent = their_spent.clamp(0, ours.remaining);
            let unspent = (ours.expired + spent - their_spent).clamp(0, ours.expired);
            let repaid = theirs.repaid.min(ours.remaining - spent);
            let repaid_of_expired = (theirs.repaid - repaid).min(unspent);
            owed_again = theirs.repaid - repaid - repaid_of_expired;
            ours.remaining -= spent + repaid;
            ours.expired -= repaid_of_expired;
            ours.repaid += repaid + repaid_of_expired;
            ours.held += theirs.held;
            ours.merge_spent_later(theirs);
            // What was held did not expire, as far as it was there.
            let kept = (ours.held - ours.remaining).clamp(0, unspent - repaid_of_expired);
            ours.expired -= kept;
            ours.remaining += kept;
            excess = ours.held - ours.remaining;
        });
        if owed_again > 0 {
            self.credits.owe(owed_again, Some(theirs.effective_at));
        }
        self.reopen_lot(ours, changes);
        for hold in &mut self.credits.holds {
            if hold.cover.replace_lot(theirs.id, ours) {
                changes.hold(hold, HoldStatus::Open);
            }
        }
        self.owe_held(ours, excess, changes);
        self.close_empty_lots(changes);
        true
    }

    /// Lets holds have less of a lot than they were given, and the account owe the rest once it is spent: two streams had
    /// the same lot, and held more of it than there is. The hold that was placed last is the first to do without.
    fn owe_held(&mut self, lot: LotId, mut excess: i64, changes: &mut Changes) {
        let mut moved = 0;
        let mut holds: Vec<&mut Hold> = self.credits.holds.iter_mut().collect();
        holds.sort_by_key(|hold| std::cmp::Reverse((hold.created_at, hold.id)));
        for hold in holds {
            let owed = hold.cover.owe(lot, excess);
            if owed > 0 {
                excess -= owed;
                moved += owed;
                changes.hold(hold, HoldStatus::Open);
            }
        }
        if moved > 0 {
            self.change_lot(lot, changes, |lot| lot.held -= moved);
        }
    }

    pub(super) fn clear_into(&mut self, into: &AccountId, changes: &mut Changes) {
        if let Some(billing) = self.billing.take() {
            Billing::default().absorb(*billing, &mut changes.touched);
        }
        self.billing = Some(Box::default());
        changes.holds.extend(self.credits.holds.iter().map(|hold| (hold.id, None)));
        self.credits = Credits { merged_into: Some(into.clone()), ..Credits::default() };
    }
}
