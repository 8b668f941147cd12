//! What Stripe tells: subscriptions, purchases, refunds and disputes.

use super::super::prices::{Pack, Plan};
use super::{Allowance, DAY, Dispute, Kind, Ledger, Lot, Purchase};

impl Ledger {
    /// Takes a fact in, and does what follows from it. The free month waits for a spender.
    pub fn fact(&mut self, now: i64, change: impl FnOnce(&mut Self)) {
        // What was due before makes a debt good before what is new.
        self.begin_what_was_due(now);
        change(self);
        self.refill(now);
        self.pay_in_time(now);
        self.expire(now);
        self.claim(now);
        // What is capped is told anew.
        for lot in self.lots.iter_mut().filter(|lot| lot.subscription.is_some() && !lot.has_ended(now)) {
            lot.remaining += std::mem::take(&mut lot.expired);
        }
        self.expire(now);
        self.reinstate();
        self.expire(now);
        self.pay(now);
    }

    pub fn subscribed(&mut self, plan: &'static Plan) {
        self.plan = Some(plan);
    }

    /// Answers the number of the purchase.
    pub fn bought(&mut self, paid: i64, claws_back_debt: bool) -> usize {
        let (refunds, returns) = (Vec::new(), Vec::new());
        let dispute = Dispute::None;
        self.purchases.push(Purchase { paid, refunds, dispute, disputed_at: 0, returns, claws_back_debt });
        self.purchases.len() - 1
    }

    pub fn invoiced(&mut self, allowance: Allowance) {
        self.allowances.push(allowance);
    }

    pub fn bought_pack(&mut self, now: i64, cause: String, pack: &Pack, purchase: usize) {
        let ends = pack.days.map(|days| now + days * DAY);
        let lot = Lot::new(Kind::Other, cause, pack.credits, now);
        self.add(Lot { ends, priority: pack.priority, purchase: Some(purchase), ..lot });
    }

    /// A paid subscription ends, and all it gave with it; the free plan starts afresh.
    pub fn canceled(&mut self, now: i64, subscription: &str) {
        self.plan = None;
        for lot in &mut self.lots {
            if lot.subscription.as_deref() == Some(subscription) || lot.kind == Kind::Free {
                lot.ends = Some(lot.ends.unwrap_or(now).min(now));
            }
        }
        for allowance in self.allowances.iter_mut().filter(|allowance| allowance.subscription == subscription) {
            allowance.end = allowance.end.min(now);
        }
        self.free_since = Some(now);
        self.free_until = None;
    }

    /// Takes back, and returns, as refunds and disputes say.
    fn claim(&mut self, now: i64) {
        for at in self.full_first() {
            let Some(purchase) = self.lots[at].purchase.map(|purchase| self.purchases[purchase].clone()) else {
                continue;
            };
            let disputed = if matches!(purchase.dispute, Dispute::Open | Dispute::Lost) { purchase.paid } else { 0 };
            let back = (purchase.refunded() + disputed).min(purchase.paid);
            let claim = self.lots[at].granted * back / purchase.paid;
            let known = self.lots[at].claimed;
            if claim > known {
                let owed = self.take_back(at, claim - known, purchase.claws_back_debt);
                self.owe(owed, now);
            } else if claim < known {
                self.give_back(at, claim);
            }
        }
    }

    /// What came back to a lot after its end is a lot of its own, for as long as that had left when it was taken.
    fn reinstate(&mut self) {
        for at in 0..self.lots.len() {
            let lot = self.lots[at].clone();
            let (Some(purchase), Some(ends)) = (lot.purchase.map(|nth| self.purchases[nth].clone()), lot.ends) else {
                continue;
            };
            let mut ended = lot.expired;
            for (id, amount, taken, back) in &purchase.returns {
                let due =
                    if *taken < ends && ends <= *back { (lot.granted * amount / purchase.paid).min(ended) } else { 0 };
                ended -= due;
                let cause = format!("reinstatement:{id}/{}", lot.id);
                let known = self.lots.iter().position(|known| known.cause == cause);
                let Some(known) = known else {
                    if due > 0 {
                        let ends = Some(back + ends - taken.max(&lot.begins));
                        let priority = lot.priority;
                        self.add(Lot { priority, ends, ..Lot::new(Kind::Reinstated, cause, due, *back) });
                    }
                    continue;
                };
                let known = &mut self.lots[known];
                while known.granted < due {
                    (known.granted, known.remaining) = (known.granted + 1, known.remaining + 1);
                }
                while known.granted > due && known.free() > 0 {
                    (known.granted, known.remaining) = (known.granted - 1, known.remaining - 1);
                }
                while known.granted > due && known.expired > 0 {
                    (known.granted, known.expired) = (known.granted - 1, known.expired - 1);
                }
            }
        }
    }

    /// Answers what is owed for it.
    fn take_back(&mut self, at: usize, claimed: i64, claws_back_debt: bool) -> i64 {
        let lot = &mut self.lots[at];
        let of_expired = claimed.min(lot.expired);
        let taken = (claimed - of_expired).min(lot.free());
        let owed = if claws_back_debt { claimed - of_expired - taken } else { 0 };
        lot.claimed += claimed;
        lot.expired -= of_expired;
        lot.remaining -= taken;
        lot.taken_back += of_expired + taken;
        lot.owed += owed;
        owed
    }

    fn give_back(&mut self, at: usize, claim: i64) {
        let lot = &mut self.lots[at];
        let unclaimed = lot.claimed - claim;
        let returned = (lot.taken_back - claim).max(0).min(unclaimed);
        let forgiven = lot.owed.min(unclaimed - returned);
        lot.claimed = claim;
        lot.taken_back -= returned;
        lot.remaining += returned;
        lot.owed -= forgiven;
        let still_owed = forgiven.min(self.debt);
        self.debt -= still_owed;
        // What newer lots have paid of it is theirs again.
        let mut paid = forgiven - still_owed;
        for at in self.full_first() {
            let returned = paid.min(self.lots[at].repaid);
            self.lots[at].repaid -= returned;
            self.lots[at].remaining += returned;
            paid -= returned;
            let (subscription, begins) = (self.lots[at].subscription.clone(), self.lots[at].begins);
            let capping = |lot: &&mut Lot| lot.keeps_earlier.is_some() && lot.subscription == subscription;
            for cap in self.lots.iter_mut().filter(capping).filter(|lot| begins < lot.begins) {
                cap.kept_spent = (cap.kept_spent - returned).max(0);
            }
        }
    }
}
