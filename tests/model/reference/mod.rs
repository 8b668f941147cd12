//! The reference: credits kept naively, by the contract alone. Lots are plain integers in one list that nothing ever
//! leaves, every rule is a loop over it, and nothing is shared with the code under test.

mod clock;
mod facts;
mod limits;

use chrono::{DateTime, Months};

use super::prices::{BEYOND_HOLD, FREE, Overage, Plan, Rollover, cost};

const DAY: i64 = 86_400;
const MOST: i64 = 1_000_000_000_000;

/// A refusal: its code, and for too little credit, what was needed and what there was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub required: Option<i64>,
    pub available: Option<i64>,
}

impl Refusal {
    fn of<T>(code: &'static str) -> Result<T, Self> {
        Err(Self { code, required: None, available: None })
    }
}

/// What a debit or a hold asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    Amount(i64),
    Feature(&'static str, i64),
}

/// How much of a hold was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    All,
    Amount(i64),
    Quantity(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plan,
    Free,
    /// What came back to a lot that had ended.
    Reinstated,
    Other,
}

#[derive(Debug, Clone)]
pub struct Lot {
    id: String,
    pub cause: String,
    kind: Kind,
    granted: i64,
    pub remaining: i64,
    pub held: i64,
    priority: i32,
    begins: i64,
    ends: Option<i64>,
    subscription: Option<String>,
    purchase: Option<usize>,
    keeps_earlier: Option<i64>,
    /// What was spent of the earlier lots since it began.
    kept_spent: i64,
    claimed: i64,
    taken_back: i64,
    owed: i64,
    expired: i64,
    repaid: i64,
}

impl Lot {
    fn new(kind: Kind, cause: String, credits: i64, begins: i64) -> Self {
        Self {
            id: String::new(),
            cause,
            kind,
            granted: credits,
            remaining: credits,
            held: 0,
            priority: 10,
            begins,
            ends: None,
            subscription: None,
            purchase: None,
            keeps_earlier: None,
            kept_spent: 0,
            claimed: 0,
            taken_back: 0,
            owed: 0,
            expired: 0,
            repaid: 0,
        }
    }

    fn free(&self) -> i64 {
        self.remaining - self.held
    }

    fn has_ended(&self, now: i64) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// What pays for a charge: lots by their index, debt, overage.
#[derive(Debug, Clone, Default)]
struct Cover {
    lots: Vec<(usize, i64)>,
    debt: i64,
    overage: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldState {
    Open,
    Captured,
    Released,
    Expired,
}

#[derive(Debug, Clone)]
struct Hold {
    amount: i64,
    feature: Option<&'static str>,
    /// Units of the feature; 0 of none.
    quantity: i64,
    cover: Cover,
    placed: i64,
    ends: i64,
    state: HoldState,
}

/// A paid invoice line: it grants its credits once, or once a month for as long as it lasts.
#[derive(Debug, Clone)]
pub struct Allowance {
    pub cause: String,
    pub subscription: String,
    pub purchase: usize,
    /// The day that the subscription is billed on, and how many months after it the period began.
    pub anchor: i64,
    pub first_month: u32,
    pub start: i64,
    pub end: i64,
    pub credits: i64,
    pub is_monthly: bool,
    pub is_proration: bool,
    pub rollover: Rollover,
    pub windows: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispute {
    None,
    Open,
    Won,
    Lost,
}

/// Something that was paid for.
#[derive(Debug, Clone)]
pub struct Purchase {
    pub paid: i64,
    /// Amounts that were refunded, and when, unless the money did not go back after all.
    pub refunds: Vec<(i64, Option<i64>)>,
    /// Of the whole.
    pub dispute: Dispute,
    pub disputed_at: i64,
    /// Refunds that failed and a dispute that was won: id, amount, when it was taken and when it came back.
    pub returns: Vec<(String, i64, i64, i64)>,
    pub claws_back_debt: bool,
}

impl Purchase {
    /// Money that had been taken came back.
    pub fn returned(&mut self, id: String, amount: i64, taken: i64, now: i64) {
        self.returns.push((id, amount, taken, now));
        self.returns.sort_by_key(|(id, _, taken, _)| (*taken, id.clone()));
    }

    pub fn refunded(&self) -> i64 {
        self.refunds.iter().filter(|(_, at)| at.is_some()).map(|(amount, _)| amount).sum()
    }
}

/// What somebody who asks is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub available: i64,
    pub held: i64,
    pub debt: i64,
    pub overage: i64,
    /// Lots with something in them: cause, remaining, held.
    pub lots: Vec<(String, i64, i64)>,
}

#[derive(Debug, Clone)]
pub struct Ledger {
    opened: i64,
    free_since: Option<i64>,
    free_until: Option<i64>,
    lots: Vec<Lot>,
    holds: Vec<Hold>,
    /// When, of what, how many units.
    uses: Vec<(i64, &'static str, i64)>,
    debt: i64,
    /// While something is owed.
    owes_since: i64,
    overage: i64,
    allowances: Vec<Allowance>,
    plan: Option<&'static Plan>,
    pub purchases: Vec<Purchase>,
    /// The id of a lot, by its cause: the contract leaves open which of two equal lots burns first.
    id_of: fn(&str) -> String,
}

pub fn months_after(second: i64, months: u32) -> i64 {
    let at = DateTime::from_timestamp(second, 0).expect("a time");
    at.checked_add_months(Months::new(months)).expect("a time").timestamp()
}

impl Ledger {
    pub fn open(now: i64, id_of: fn(&str) -> String) -> Self {
        Self {
            opened: now,
            free_since: None,
            free_until: None,
            lots: Vec::new(),
            holds: Vec::new(),
            uses: Vec::new(),
            debt: 0,
            owes_since: now,
            overage: 0,
            allowances: Vec::new(),
            plan: None,
            purchases: Vec::new(),
            id_of,
        }
    }

    /// What is shown at a time, now or later.
    pub fn view(&self, now: i64) -> View {
        let mut later = self.clone();
        later.settle(now);
        let mut lots: Vec<_> = later.lots.iter().filter(|lot| lot.remaining > 0).cloned().collect();
        lots.sort_by(|a, b| a.cause.cmp(&b.cause));
        View {
            available: later.available(now),
            held: later.lots.iter().map(|lot| lot.held).sum::<i64>() + later.debt_of_holds(),
            debt: later.debt,
            overage: later.overage,
            lots: lots.into_iter().map(|lot| (lot.cause, lot.remaining, lot.held)).collect(),
        }
    }

    /// What the statement comes to: as far as anything was recorded.
    pub fn balance(&self) -> i64 {
        self.lots.iter().map(Lot::free).sum::<i64>() - self.debt - self.debt_of_holds()
    }

    /// The next moment at which the clock changes something.
    pub fn next_change(&self, now: i64) -> Option<i64> {
        let lots = self.lots.iter().filter(|lot| lot.remaining > 0);
        let of_lots = lots.flat_map(|lot| [Some(lot.begins), lot.ends]).flatten();
        let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open);
        let month = |allowance: &Allowance| months_after(allowance.anchor, allowance.first_month + allowance.windows);
        let windows = self.allowances.iter().map(month);
        let all = of_lots.chain(open.map(|hold| hold.ends)).chain(windows).chain(self.free_until);
        all.filter(|at| *at > now).min()
    }

    fn plan(&self) -> &'static Plan {
        self.plan.unwrap_or(&FREE)
    }

    fn debt_of_holds(&self) -> i64 {
        self.holds.iter().filter(|hold| hold.state == HoldState::Open).map(|hold| hold.cover.debt).sum()
    }

    fn usable(&self, now: i64) -> impl Iterator<Item = &Lot> {
        self.lots.iter().filter(move |lot| lot.free() > 0 && lot.begins <= now && !lot.has_ended(now))
    }

    fn available(&self, now: i64) -> i64 {
        self.usable(now).map(Lot::free).sum::<i64>() - self.debt - self.debt_of_holds()
    }

    /// All lots in burn order: priority, soonest expiry, oldest.
    fn burn_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lots.len()).collect();
        let key = |at: usize| {
            let lot = &self.lots[at];
            (lot.priority, lot.ends.unwrap_or(i64::MAX), lot.begins, &lot.id)
        };
        order.sort_by(|a, b| key(*a).cmp(&key(*b)));
        order
    }

    /// Those with something in them in burn order, then the others by id.
    fn full_first(&self) -> Vec<usize> {
        let mut order = self.burn_order();
        order.sort_by_key(|&at| (self.lots[at].remaining == 0).then(|| self.lots[at].id.clone()));
        order
    }

    fn draw(&self, amount: i64, now: i64) -> Vec<(usize, i64)> {
        let (mut left, mut draws) = (amount, Vec::new());
        for at in self.burn_order() {
            let lot = &self.lots[at];
            if left > 0 && lot.free() > 0 && lot.begins <= now && !lot.has_ended(now) {
                let taken = left.min(lot.free());
                draws.push((at, taken));
                left -= taken;
            }
        }
        draws
    }

    pub fn grant(
        &mut self,
        now: i64,
        cause: String,
        amount: i64,
        priority: i32,
        begins: i64,
        ends: Option<i64>,
    ) -> Result<(), Refusal> {
        if !(1..=MOST).contains(&amount) {
            return Refusal::of("out_of_range");
        }
        if ends.is_some_and(|ends| ends <= begins || ends <= now) {
            return Refusal::of("already_expired");
        }
        self.settle(now);
        self.add(Lot { priority, ends, ..Lot::new(Kind::Other, cause, amount, begins) });
        self.pay(now);
        Ok(())
    }

    /// Credits, feature and units.
    fn price(&self, charge: Charge) -> Result<(i64, Option<&'static str>, i64), Refusal> {
        match charge {
            Charge::Amount(amount) if (1..=MOST).contains(&amount) => Ok((amount, None, 0)),
            Charge::Feature(feature, quantity) if (1..=MOST).contains(&quantity) => {
                if cost(feature, 1).is_none() {
                    return Refusal::of("unknown_feature");
                }
                if feature == "render" && !self.plan().has_render {
                    return Refusal::of("feature_not_in_plan");
                }
                Ok((cost(feature, quantity).expect("known"), Some(feature), quantity))
            }
            Charge::Amount(_) | Charge::Feature(..) => Refusal::of("out_of_range"),
        }
    }

    fn cover(&self, amount: i64, feature: Option<&str>, now: i64) -> Result<Cover, Refusal> {
        let plan = self.plan();
        // What costs nothing passes, whatever is owed.
        if plan.credits.is_none() || amount == 0 {
            return Ok(Cover::default());
        }
        let available = self.available(now);
        if amount <= available {
            return Ok(Cover { lots: self.draw(amount, now), ..Cover::default() });
        }
        match if feature == Some("work") { plan.overage_of_work } else { plan.overage } {
            Overage::Limit(limit) if available - amount >= -limit => {
                let lots = self.draw(amount, now);
                let drawn: i64 = lots.iter().map(|(_, taken)| taken).sum();
                Ok(Cover { lots, debt: amount - drawn, overage: 0 })
            }
            Overage::Unlimited => {
                let drawn = available.max(0);
                Ok(Cover { lots: self.draw(drawn, now), debt: 0, overage: amount - drawn })
            }
            Overage::Deny | Overage::Limit(_) => {
                Err(Refusal { code: "insufficient_credits", required: Some(amount), available: Some(available) })
            }
        }
    }

    fn owe(&mut self, amount: i64, now: i64) {
        if self.debt == 0 {
            self.owes_since = now;
        }
        self.debt += amount;
    }

    /// Of a capped plan's earlier lots, what is spent was kept, unless it was set aside before they were capped.
    pub(super) fn spend_kept(&mut self, lots: &[(usize, i64)], set_aside: i64, now: i64) {
        for (at, amount) in lots {
            let (subscription, begins) = (self.lots[*at].subscription.clone(), self.lots[*at].begins);
            let caps = |lot: &&mut Lot| lot.keeps_earlier.is_some() && lot.subscription == subscription;
            let later = self.lots.iter_mut().filter(|lot| begins < lot.begins && lot.begins <= now.min(set_aside));
            later.filter(caps).for_each(|lot| lot.kept_spent += amount);
        }
    }

    fn spend(&mut self, cover: &Cover, now: i64) {
        for (lot, amount) in &cover.lots {
            self.lots[*lot].remaining -= amount;
        }
        self.owe(cover.debt, now);
        self.overage += cover.overage;
    }

    /// What may be spent afterwards.
    pub fn debit(&mut self, now: i64, charge: Charge) -> Result<i64, Refusal> {
        let (amount, feature, quantity) = self.price(charge)?;
        self.settle(now);
        if let Some(feature) = feature {
            self.admit(now, feature, quantity)?;
        }
        let cover = self.cover(amount, feature, now)?;
        self.spend_kept(&cover.lots, now, now);
        self.spend(&cover, now);
        self.uses.extend(feature.map(|feature| (now, feature, quantity)));
        Ok(self.available(now))
    }

    pub fn hold(&mut self, now: i64, charge: Charge, ends: i64) -> Result<i64, Refusal> {
        let priced = self.price(charge);
        let placed = priced.and_then(|(amount, feature, quantity)| {
            self.settle(now);
            require_end(now, ends)?;
            if let Some(feature) = feature {
                self.admit(now, feature, quantity)?;
            }
            let cover = self.cover(amount, feature, now)?;
            for (lot, held) in &cover.lots {
                self.lots[*lot].held += held;
            }
            Ok(Hold { amount, feature, quantity, cover, placed: now, ends, state: HoldState::Open })
        });
        self.holds.push(placed?);
        Ok(self.available(now))
    }

    /// An open hold. They are numbered as they were placed.
    fn find(&mut self, now: i64, hold: usize) -> Result<Hold, Refusal> {
        self.settle(now);
        match self.holds[hold].state {
            HoldState::Open => Ok(self.holds[hold].clone()),
            HoldState::Captured => Refusal::of("hold_captured"),
            HoldState::Released => Refusal::of("hold_released"),
            HoldState::Expired => Refusal::of("hold_expired"),
        }
    }

    pub fn capture(&mut self, now: i64, at: usize, used: Used) -> Result<i64, Refusal> {
        let hold = self.find(now, at)?;
        let amount = match (used, hold.feature) {
            (Used::All, _) => hold.amount,
            (Used::Amount(0) | Used::Quantity(0), _) => return Refusal::of("out_of_range"),
            (Used::Amount(amount), _) => amount,
            (Used::Quantity(quantity), Some(feature)) => cost(feature, quantity).expect("known"),
            (Used::Quantity(_), None) => return Refusal::of("hold_without_feature"),
        };
        let units = hold.feature.map(|feature| Self::units(used, amount, (hold.amount, hold.quantity), feature));
        let mut left = amount.min(hold.amount);
        let mut cover = Cover::default();
        for (lot, held) in &hold.cover.lots {
            let taken = left.min(*held);
            cover.lots.push((*lot, taken));
            left -= taken;
        }
        let set_aside = cover.lots.clone();
        cover.debt = left.min(hold.cover.debt);
        cover.overage = (left - cover.debt).min(hold.cover.overage);
        // Of what was set aside: credits, and units as the caller counted them, though they cost nothing.
        let counted = if let Used::Quantity(quantity) = used { quantity } else { 0 };
        if amount > hold.amount || counted > hold.quantity {
            let Some(feature) = hold.feature.filter(|feature| BEYOND_HOLD.contains(feature)) else {
                return Refusal::of("capture_exceeds_hold");
            };
            // The hold itself counts still.
            let beyond = units.expect("of a feature") - hold.quantity;
            if beyond > 0 {
                self.admit(now, feature, beyond)?;
            }
            let more = self.cover((amount - hold.amount).max(0), hold.feature, now)?;
            self.spend_kept(&more.lots, now, now);
            cover.lots.extend(more.lots);
            cover.debt += more.debt;
            cover.overage += more.overage;
        }
        self.spend_kept(&set_aside, hold.placed, now);
        self.end_hold(at, HoldState::Captured);
        self.spend(&cover, now);
        self.uses.extend(hold.feature.zip(units).map(|(feature, units)| (now, feature, units)));
        self.take_in_returned(at, now);
        Ok(self.available(now))
    }

    pub fn release(&mut self, now: i64, at: usize) -> Result<i64, Refusal> {
        self.find(now, at)?;
        self.end_hold(at, HoldState::Released);
        self.take_in_returned(at, now);
        Ok(self.available(now))
    }

    pub fn extend(&mut self, now: i64, at: usize, ends: i64) -> Result<i64, Refusal> {
        self.find(now, at)?;
        require_end(now, ends)?;
        self.holds[at].ends = ends;
        Ok(self.available(now))
    }
}

fn require_end(now: i64, ends: i64) -> Result<(), Refusal> {
    if ends > now && ends <= now + 31 * DAY { Ok(()) } else { Refusal::of("hold_expiry_out_of_range") }
}
