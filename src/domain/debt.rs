//! What an account owes: spent beyond its lots, or taken back by a refund after it was spent. Whatever comes to be spendable
//! makes it good, as of that moment, whether or not anybody looked then.

use chrono::{DateTime, Utc};

use super::credit::{Credits, Lot};
use super::draft::Draft;
use super::event::{DebtRepaid, Event};
use super::hold::expire_holds;

impl Credits {
    /// Owes more. `since` counts if nothing was owed before.
    pub fn owe(&mut self, amount: i64, since: Option<DateTime<Utc>>) {
        if self.debt <= 0 {
            self.debt_since = since.filter(|_| amount > 0);
        }
        self.debt += amount;
    }

    /// Owes less.
    pub fn owe_less(&mut self, amount: i64) {
        self.debt -= amount;
        if self.debt <= 0 {
            self.debt_since = None;
        }
    }

    /// Whether something was owed before `ended`: a lot that ended then would have made it good.
    fn owed_before(&self, ended: DateTime<Utc>) -> bool {
        self.debt > 0 && self.debt_since.is_none_or(|since| since < ended)
    }

    /// Of lots that began and expired while nobody looked, those that what is owed takes: the earliest, as many as it needs.
    /// The others would have expired unused, and are as good as never granted.
    pub fn taken_by_debt<'a>(&self, mut passed: Vec<&'a Lot>) -> Vec<&'a Lot> {
        passed.retain(|lot| lot.spendable() > 0 && lot.expires_at.is_some_and(|ended| self.owed_before(ended)));
        passed.sort_by_key(|lot| (lot.effective_at, lot.id));
        let mut left = self.debt;
        passed.retain(|lot| {
            let is_needed = left > 0;
            left -= lot.spendable();
            is_needed
        });
        passed
    }
}

/// Has credits make good what is owed, as they came to be spendable one after the other: what expired since was there first.
/// So it makes no difference when anybody looked.
pub fn repay_debt_until(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let credits = &draft.account.credits;
    if credits.debt <= 0 {
        return;
    }
    let begun = credits.lots.iter().map(|lot| lot.effective_at);
    let mut moments: Vec<_> = begun.chain(credits.holds.iter().map(|hold| hold.expires_at)).collect();
    moments.retain(|moment| *moment <= now);
    moments.sort_unstable();
    moments.dedup();
    for moment in moments {
        expire_holds(draft, moment);
        repay_debt(draft, moment);
    }
}

/// Has what may be spent at `now` make good what is owed: nobody owes and has credits, both at once.
pub fn repay_debt(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let credits = &draft.account.credits;
    if credits.debt <= 0 {
        return;
    }
    let lots = credits.draw(credits.debt, now);
    if !lots.is_empty() {
        let kept = credits.kept_of(&lots, None, now);
        draft.emit(Event::DebtRepaid(DebtRepaid { lots, kept }));
    }
}
