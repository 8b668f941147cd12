//! What the clock does: holds end, allowances and the free plan's month are granted, lots expire.

use super::super::prices::Rollover;
use super::{Allowance, HoldState, Kind, Ledger, Lot, months_after};

impl Ledger {
    /// What is recorded of an account that nobody asks about: the free month waits for a spender, and so does what would come
    /// after it where something is owed.
    pub fn settle_idle(&mut self, now: i64) {
        let waits = self.plan.is_none() && self.free_until.is_none_or(|until| until <= now);
        if self.debt > 0 && waits {
            return;
        }
        self.begin_what_was_due(now);
        self.expire(now);
    }

    /// Whatever came to be spendable since makes good what is owed, one after the other.
    pub(super) fn begin_what_was_due(&mut self, now: i64) {
        self.grant_missed_free_months(now);
        self.refill(now);
        self.pay_in_time(now);
        self.end_holds(now);
    }

    /// All that is due when somebody wants to spend.
    pub fn settle(&mut self, now: i64) {
        self.grant_missed_free_months(now);
        self.refill(now);
        self.grant_free_month(now);
        self.pay_in_time(now);
        self.end_holds(now);
        self.expire(now);
    }

    /// Whatever may be spent makes good what is owed.
    pub(super) fn pay(&mut self, now: i64) {
        let draws = self.draw(self.debt, now);
        self.spend_kept(&draws, now, now);
        for (lot, amount) in draws {
            self.lots[lot].remaining -= amount;
            self.lots[lot].repaid += amount;
            self.debt -= amount;
        }
    }

    /// From the moment on at which it may be spent, whether or not anybody looked then.
    pub(super) fn pay_in_time(&mut self, now: i64) {
        if self.debt == 0 {
            return;
        }
        let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open);
        let moments: Vec<i64> = self.lots.iter().map(|lot| lot.begins).chain(open.map(|hold| hold.ends)).collect();
        for moment in std::collections::BTreeSet::from_iter(moments).range(..=now) {
            self.end_holds(*moment);
            self.pay(*moment);
        }
    }

    pub(super) fn end_holds(&mut self, now: i64) {
        for at in 0..self.holds.len() {
            if self.holds[at].state == HoldState::Open && self.holds[at].ends <= now {
                self.end_hold(at, HoldState::Expired);
                self.take_in_returned(at, now);
            }
        }
    }

    pub(super) fn end_hold(&mut self, at: usize, state: HoldState) {
        self.holds[at].state = state;
        for (lot, amount) in self.holds[at].cover.lots.clone() {
            self.lots[lot].held -= amount;
        }
    }

    /// A refund that found credits held takes them when they return; expiry does, too.
    pub(super) fn take_in_returned(&mut self, hold: usize, now: i64) {
        for (lot, _) in self.holds[hold].cover.lots.clone() {
            let lot = &mut self.lots[lot];
            let taken = (lot.claimed - lot.taken_back - lot.owed).min(lot.free()).max(0);
            lot.taken_back += taken;
            lot.remaining -= taken;
        }
        self.expire(now);
        self.pay(now);
    }

    pub(super) fn refill(&mut self, now: i64) {
        for at in 0..self.allowances.len() {
            loop {
                let Allowance { anchor, first_month, start, end, windows, is_monthly, .. } = self.allowances[at];
                let month = |n: u32| months_after(anchor, first_month + n);
                let (begins, ends) = match is_monthly {
                    true => (month(windows), month(windows + 1).min(end)),
                    false => (start, end),
                };
                let is_over = windows > 0 && (!is_monthly || begins >= end);
                if is_over || (windows > 0 && begins > now) {
                    break;
                }
                self.allowances[at].windows += 1;
                let allowance = self.allowances[at].clone();
                // A month that passed while nobody looked gives nothing, unless it would have been kept, or a debt that there
                // was at some time of it would have taken it.
                let is_lost = windows > 0 && ends <= now && allowance.rollover == Rollover::None;
                if (is_lost && !self.owed_before(ends)) || allowance.credits <= 0 {
                    continue;
                }
                let suffix = if windows == 0 { String::new() } else { format!("#{windows}") };
                self.add(Lot {
                    ends: match allowance.rollover {
                        Rollover::None => Some(ends),
                        // What is kept is good for the month that follows, too.
                        Rollover::Cap(_) => Some(month(windows + 2)),
                        Rollover::All => None,
                    },
                    subscription: Some(allowance.subscription),
                    purchase: Some(allowance.purchase),
                    keeps_earlier: match allowance.rollover {
                        Rollover::Cap(cap) if !allowance.is_proration => Some(cap),
                        _ => None,
                    },
                    ..Lot::new(Kind::Plan, allowance.cause + &suffix, allowance.credits, begins)
                });
            }
        }
    }

    fn owed_before(&self, moment: i64) -> bool {
        self.debt > 0 && self.owes_since < moment
    }

    /// Months of the free plan that went by since something is owed. Whoever had looked would have been given them, and they
    /// would have made it good.
    fn grant_missed_free_months(&mut self, now: i64) {
        let anchor = self.free_since.unwrap_or(self.opened);
        for month in 0.. {
            let (start, end) = (months_after(anchor, month), months_after(anchor, month + 1));
            if self.plan.is_some() || end > now {
                break;
            }
            if self.owed_before(end) && self.free_until.is_none_or(|until| until <= start) {
                self.add_free_month(start, end);
            }
        }
    }

    /// The free plan's month, counted from the day the account was opened, or the last paid subscription ended.
    fn grant_free_month(&mut self, now: i64) {
        if self.plan.is_some() || self.free_until.is_some_and(|until| now < until) {
            return;
        }
        let anchor = self.free_since.unwrap_or(self.opened);
        let mut month = 0;
        while months_after(anchor, month + 1) <= now {
            month += 1;
        }
        let (start, end) = (months_after(anchor, month), months_after(anchor, month + 1));
        self.add_free_month(start, end);
    }

    fn add_free_month(&mut self, start: i64, end: i64) {
        self.free_until = Some(end);
        let cause = format!("free_plan:user_1/{start}");
        self.add(Lot { ends: Some(end), ..Lot::new(Kind::Free, cause, 20, start) });
    }

    pub(super) fn add(&mut self, mut lot: Lot) {
        lot.id = (self.id_of)(&lot.cause);
        self.lots.push(lot);
    }

    pub(super) fn expire(&mut self, now: i64) {
        for at in 0..self.lots.len() {
            if self.lots[at].has_ended(now) {
                self.expire_some(at, self.lots[at].free());
            }
        }
        // Each of a capped plan's lots, as it begins, keeps so much of those before it.
        // A later month of which all went back has begun nothing.
        let is_void = |lot: &Lot| lot.cause.contains('#') && lot.granted <= lot.claimed;
        let caps = |lot: &Lot| lot.keeps_earlier.is_some() && lot.begins <= now && !is_void(lot);
        let capping = |at: &usize| caps(&self.lots[*at]);
        let mut caps: Vec<usize> = (0..self.lots.len()).filter(capping).collect();
        caps.sort_by_key(|at| self.lots[*at].begins);
        for cap in caps.into_iter().map(|at| self.lots[at].clone()).collect::<Vec<_>>() {
            let earlier = |lot: &Lot| lot.subscription == cap.subscription && lot.begins < cap.begins;
            let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open && cap.begins <= hold.placed);
            let of_cap = |(at, _): &&(usize, i64)| earlier(&self.lots[*at]);
            let held: i64 = open.flat_map(|hold| &hold.cover.lots).filter(of_cap).map(|(_, amount)| amount).sum();
            let mut kept = (cap.keeps_earlier.expect("a cap") - cap.kept_spent - held).max(0);
            // Those that would burn last are kept.
            for at in self.burn_order().into_iter().rev() {
                if earlier(&self.lots[at]) {
                    let carried = self.lots[at].free().min(kept);
                    kept -= carried;
                    self.expire_some(at, self.lots[at].free() - carried);
                }
            }
        }
    }

    fn expire_some(&mut self, at: usize, amount: i64) {
        self.lots[at].remaining -= amount;
        self.lots[at].expired += amount;
    }
}
