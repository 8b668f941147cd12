//! Credits: lots, what refills them, and the order in which they burn. The part of an account that every debit touches,
//! kept small for it.

use chrono::{DateTime, Utc};
use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use thin_vec::ThinVec;

use super::catalog::PLAN_CREDITS_PRIORITY;
use super::claims::RefundedShare;
use super::hold::Hold;
use super::ids::{AccountId, LotId, lot_id_of};
use super::overrides::{Override, Suspension};
use super::plan_credits::SpentLater;
use super::rollover_cap::Cap;
use super::usage::Usage;

/// Where a lot came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LotSource {
    /// A subscription's paid period.
    Plan,
    /// The default plan's own monthly credits.
    FreePlan,
    Pack,
    Promotion,
    Manual,
    /// A refund that failed or a dispute that was won, after the lot that it had taken from expired.
    Reinstatement,
}

/// What remains of a grant.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lot {
    pub id: LotId,
    pub source: LotSource,
    /// What granted it, such as `invoice:in_…/il_…` or `checkout_session:cs_…`; one cause never grants twice.
    pub cause: Box<str>,
    pub granted: i64,
    /// Credits that are neither spent, taken back nor expired; those that are held are among them.
    pub remaining: i64,
    /// Credits that open holds have set aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: i64,
    /// Lower burns first.
    pub priority: i32,
    pub effective_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub subscription: Option<Box<str>>,
    /// The invoice or Checkout session whose payment bought it.
    pub bought_by: Option<Box<str>>,
    /// Credits a refund or dispute asks back, whether or not they were still there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub claimed_back: i64,
    /// Credits actually taken back out of `remaining`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clawed_back: i64,
    /// Credits claimed back after they were spent, which the account owes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub owed: i64,
    /// Credits that expired unused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expired: i64,
    /// Credits that went to make good a debt when the lot was granted; they come back if the debt was none after all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repaid: i64,
    /// Once this lot begins, at most so many credits of its subscription's earlier lots are kept.
    pub keeps_earlier: Option<i64>,
    /// Of a plan's lot that was not used up within its period. Few have it: boxed, it takes less room in all others.
    pub spent_later: Option<Box<SpentLater>>,
}

pub(super) fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Lot {
    /// A whole lot that never expires, named after its cause.
    pub fn new(source: LotSource, cause: &str, credits: i64, effective_at: DateTime<Utc>) -> Self {
        Self {
            id: lot_id_of(cause),
            source,
            cause: cause.into(),
            granted: credits,
            remaining: credits,
            held: 0,
            priority: PLAN_CREDITS_PRIORITY,
            effective_at,
            expires_at: None,
            subscription: None,
            bought_by: None,
            claimed_back: 0,
            clawed_back: 0,
            owed: 0,
            expired: 0,
            repaid: 0,
            keeps_earlier: None,
            spent_later: None,
        }
    }

    /// Credits that no hold has set aside.
    pub fn spendable(&self) -> i64 {
        self.remaining - self.held
    }

    pub fn is_usable_at(&self, now: DateTime<Utc>) -> bool {
        self.spendable() > 0 && self.effective_at <= now && self.expires_at.is_none_or(|at| now < at)
    }

    pub fn is_expired_at(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    pub fn spent(&self) -> i64 {
        self.granted - self.remaining - self.clawed_back - self.expired
    }

    /// A refill that its subscription did not live to see, although that was heard of later. Nobody could use it, and who
    /// heard of the end in time never granted it.
    pub fn never_began(&self) -> bool {
        self.is_refill() && self.spent() == 0 && self.expires_at.is_some_and(|at| at <= self.effective_at)
    }

    /// A later month of a longer period.
    pub(super) fn is_refill(&self) -> bool {
        self.source == LotSource::Plan && self.cause.contains('#')
    }

    /// Once it begins, at most so many credits of its subscription's earlier lots are kept. A refill of which nothing is
    /// left to give, because another period has taken its place, begins nothing.
    pub fn cap_on_earlier(&self) -> Option<i64> {
        self.keeps_earlier.filter(|_| !self.is_refill() || self.claimed_back < self.granted)
    }

    /// Takes in what another stream did to the same lot: both granted it, and each may have spent of it.
    pub fn merge(&mut self, other: &Self) {
        let left = (self.granted - self.spent() - other.spent()).max(0);
        self.held += other.held;
        // What is held was neither taken back nor expired.
        let free = (left - self.held).max(0);
        self.claimed_back = self.claimed_back.max(other.claimed_back);
        self.owed = self.owed.max(other.owed);
        self.repaid += other.repaid;
        self.clawed_back = self.clawed_back.max(other.clawed_back).min(free);
        self.expired = self.expired.max(other.expired).min(free - self.clawed_back);
        self.remaining = left - self.clawed_back - self.expired;
        self.effective_at = self.effective_at.min(other.effective_at);
        self.expires_at = self.expires_at.into_iter().chain(other.expires_at).min();
        self.merge_spent_later(other);
    }
}

/// A paid invoice line that grants credits over its period: at once, and month by month when the period is longer.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allowance {
    /// `invoice:{invoice}/{line}`.
    pub cause: String,
    pub invoice: String,
    pub subscription: Option<String>,
    /// The subscription's item, for a whole period.
    pub item: Option<String>,
    pub period_start: DateTime<Utc>,
    pub period_end: DateTime<Utc>,
    /// The end of the period that was billed; `period_end` is earlier if the subscription ended before.
    pub billed_until: Option<DateTime<Utc>>,
    /// For a change: the start of the period that it falls in, once that is known.
    pub billed_from: Option<DateTime<Utc>>,
    /// For a change that was billed only when the period that it falls in was over: when. Its credits count from then, for as
    /// long as was left of that period.
    pub billed_late: Option<DateTime<Utc>>,
    /// From then on the item's next period, which began early, is refilled instead.
    pub refills_until: Option<DateTime<Utc>>,
    /// What of its price went back: the same share of each window's credits goes with it.
    pub refunded: Option<Box<RefundedShare>>,
    /// What was paid for: one part for a whole period; for a proration, what was added and what was given up.
    pub parts: Vec<AllowancePart>,
    /// The period began before the one before it was over, and the same invoice gives the rest of that back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub begins_early: bool,
    /// The period is a free trial: the plan's trial policy says how much.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trial: bool,
    /// Windows granted or passed over so far.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub windows: u32,
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// A price and quantity within an allowance.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllowancePart {
    pub price: String,
    pub lookup_key: Option<String>,
    pub quantity: i64,
    /// The line's amount when it is a proration (negative for what was given up): its share of the full price is the
    /// share of the credits. `None`: the whole.
    pub prorated_amount: Option<i64>,
}

/// What the entitlement decision needs to know of a subscription that has not ended.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Access {
    pub subscription: String,
    pub status: String,
    /// Price id, lookup key and quantity of each item.
    pub items: Vec<AccessItem>,
    pub period_start: Option<i64>,
    pub period_end: Option<i64>,
    /// Unix second of the failed payment that has not been made good.
    pub past_due_since: Option<i64>,
    pub trial_end: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    #[serde(default)]
    pub created: i64,
}

impl Access {
    /// Collection is paused, or the trial ended without a way to pay.
    pub fn is_paused(&self) -> bool {
        self.paused || self.status == "paused"
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessItem {
    pub price: String,
    pub lookup_key: Option<String>,
    pub quantity: i64,
}

/// The hot part of an account. There may be a million in memory: hence lists and maps that take little room while they
/// are short.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credits {
    /// When the account, or its first Stripe object, came to be: the anchor of the free plan's months.
    pub opened_at: Option<DateTime<Utc>>,
    /// When the last paid subscription ended: the free plan starts afresh there.
    pub free_since: Option<DateTime<Utc>>,
    /// End of the free plan's last granted month.
    pub free_until: Option<DateTime<Utc>>,
    /// Lots with something left in them.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub lots: ThinVec<Lot>,
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub allowances: ThinVec<Allowance>,
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub access: ThinVec<Access>,
    /// Lookup keys by price id, as any subscription told them: invoice lines name only the price, and a catalog may know
    /// it by its lookup key alone.
    #[serde(skip_serializing_if = "LiteMap::is_empty")]
    pub lookup_keys: LiteMap<String, String>,
    /// What caps the lots before them, newest last: such a lot may be used up, and gone from here, before they are.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub caps: ThinVec<Cap>,
    /// Open holds, oldest first.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub holds: ThinVec<Hold>,
    /// Credits owed: spent beyond the lots, or taken back by a refund although they were gone. New lots make it good.
    #[serde(skip_serializing_if = "is_zero")]
    pub debt: i64,
    /// Since when, without a break. `None` if it owes nothing, or owed already before this was kept.
    pub debt_since: Option<DateTime<Utc>>,
    /// Credits spent beyond the lots that are to be billed, over all time.
    #[serde(skip_serializing_if = "is_zero")]
    pub overage: i64,
    /// What was used of features, as far as their limits' windows may still ask for it.
    #[serde(skip_serializing_if = "Usage::is_unused")]
    pub usage: Usage,
    /// By feature.
    #[serde(skip_serializing_if = "LiteMap::is_empty")]
    pub overrides: LiteMap<String, Override>,
    /// Few have any: boxed, it takes less room in all others.
    pub suspension: Option<Box<Suspension>>,
    /// With fewer credits than this left, the account's holder is told, whatever the plan says; 0: never.
    pub low_balance: Option<i64>,
    /// The account that took this stream over.
    pub merged_into: Option<AccountId>,
}

/// What one debit takes out of one lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    pub lot: LotId,
    pub amount: i64,
}

impl Credits {
    /// Credits that may be spent at `now`: usable lots without what is held, less debt and what holds may add to it.
    pub fn available_at(&self, now: DateTime<Utc>) -> i64 {
        let reserved = self.holds.iter().fold(self.debt, |sum, hold| sum.saturating_add(hold.cover.debt));
        self.spendable_at(now).saturating_sub(reserved)
    }

    /// Credits in usable lots that no hold has set aside.
    pub fn spendable_at(&self, now: DateTime<Utc>) -> i64 {
        let usable = self.lots.iter().filter(|lot| lot.is_usable_at(now));
        usable.fold(0i64, |sum, lot| sum.saturating_add(lot.spendable()))
    }

    /// What all entries of the statement come to: all lots, begun or not, less what is held and owed.
    pub fn balance(&self) -> i64 {
        let lots = self.lots.iter().fold(0i64, |sum, lot| sum.saturating_add(lot.spendable()));
        lots.saturating_sub(self.holds.iter().fold(self.debt, |sum, hold| sum.saturating_add(hold.cover.debt)))
    }

    /// Credits that open holds have set aside, of lots and of what may be owed beyond them.
    pub fn held(&self) -> i64 {
        self.holds.iter().fold(0i64, |sum, hold| sum.saturating_add(hold.cover.taken()))
    }

    /// Which lots `amount` comes out of, in burn order: priority, then soonest expiry, then oldest. As much of it as there
    /// is.
    pub fn draw(&self, amount: i64, now: DateTime<Utc>) -> Vec<Draw> {
        let mut usable: Vec<&Lot> = self.lots.iter().filter(|lot| lot.is_usable_at(now)).collect();
        usable.sort_by_key(|lot| burn_key(lot));
        let mut left = amount;
        let mut draws = Vec::with_capacity(1);
        for lot in usable {
            if left == 0 {
                break;
            }
            let taken = left.min(lot.spendable());
            draws.push(Draw { lot: lot.id, amount: taken });
            left -= taken;
        }
        draws
    }

    /// Takes an allowance in, or learns of a known one until when it is refilled, what was refunded of it, and where its
    /// period began.
    pub fn arm(&mut self, allowance: &Allowance) {
        if let Some(known) = self.allowances.iter_mut().find(|known| known.cause == allowance.cause) {
            known.refills_until = allowance.refills_until;
            known.refunded.clone_from(&allowance.refunded);
            known.billed_from = known.learns_period(allowance).or(known.billed_from);
            return;
        }
        let place = self.allowances.partition_point(|known| known.cause < allowance.cause);
        self.allowances.insert(place, allowance.clone());
    }

    /// Learns a price's lookup key. Of several that a price had, the same one is kept whatever came first.
    pub fn learn_lookup_key(&mut self, price: &str, key: &str) {
        if !self.knows_lookup_key(price, key) {
            self.lookup_keys.insert(price.to_owned(), key.to_owned());
        }
        let parts = self.allowances.iter_mut().flat_map(|allowance| &mut allowance.parts);
        for part in parts.filter(|part| part.price == price) {
            part.lookup_key = self.lookup_keys.get(price).cloned();
        }
    }

    /// Learning it would change nothing.
    pub fn knows_lookup_key(&self, price: &str, key: &str) -> bool {
        self.lookup_keys.get(price).is_some_and(|known| known.as_str() <= key)
    }

    /// What the free plan's months are counted from.
    pub fn free_plan_anchor(&self) -> Option<DateTime<Utc>> {
        self.opened_at.map(|opened| self.free_since.map_or(opened, |since| since.max(opened)))
    }

    pub fn lot(&self, id: LotId) -> Option<&Lot> {
        self.lots.iter().find(|lot| lot.id == id)
    }

    pub fn lot_mut(&mut self, id: LotId) -> Option<&mut Lot> {
        self.lots.iter_mut().find(|lot| lot.id == id)
    }

    /// Adds a lot, keeping the lots in an order of their own, so that equal histories make equal rows.
    pub fn insert_lot(&mut self, lot: Lot) {
        let place = self.lots.partition_point(|known| burn_key(known) < burn_key(&lot));
        self.lots.insert(place, lot);
    }

    /// Takes out the lots that are used up, and those a command found expired. What is held is not used up.
    pub fn take_empty_lots(&mut self) -> ThinVec<Lot> {
        if self.lots.iter().all(|lot| lot.remaining > 0) {
            return ThinVec::new();
        }
        let (empty, kept) = std::mem::take(&mut self.lots).into_iter().partition(|lot| lot.remaining == 0);
        self.lots = kept;
        empty
    }
}

/// The burn order, with the id as the last word so that it is total.
pub fn burn_key(lot: &Lot) -> (i32, DateTime<Utc>, DateTime<Utc>, LotId) {
    (lot.priority, lot.expires_at.unwrap_or(DateTime::<Utc>::MAX_UTC), lot.effective_at, lot.id)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn at(day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 1, day, 0, 0, 0).single().expect("valid")
    }

    fn lot(cause: &str, priority: i32, effective: u32, expires: Option<u32>, remaining: i64) -> Lot {
        Lot { priority, expires_at: expires.map(at), ..Lot::new(LotSource::Manual, cause, remaining, at(effective)) }
    }

    fn credits(lots: Vec<Lot>) -> Credits {
        Credits { lots: lots.into(), ..Credits::default() }
    }

    #[test]
    fn burns_by_priority_then_soonest_expiry_then_age() {
        let credits = credits(vec![
            lot("pack", 50, 1, None, 5),
            lot("late", 10, 1, Some(20), 5),
            lot("young", 10, 2, Some(10), 5),
            lot("old", 10, 1, Some(10), 5),
        ]);
        let drawn: Vec<LotId> = credits.draw(20, at(3)).into_iter().map(|draw| draw.lot).collect();
        assert_eq!(drawn, ["old", "young", "late", "pack"].map(lot_id_of));
    }

    #[test]
    fn neither_expired_nor_future_lots_count() {
        let credits =
            credits(vec![lot("past", 1, 1, Some(3), 5), lot("future", 1, 9, None, 5), lot("now", 1, 1, None, 5)]);
        assert_eq!(credits.available_at(at(3)), 5);
        assert_eq!(credits.draw(6, at(3)), [Draw { lot: lot_id_of("now"), amount: 5 }]);
    }

    #[test]
    fn debt_lowers_what_may_be_spent() {
        let credits = Credits { debt: 4, ..credits(vec![lot("now", 1, 1, None, 5)]) };
        assert_eq!(credits.available_at(at(2)), 1);
    }
}
