//! Terms: what the catalog says an allowance is worth, in which windows it is granted, and how it is kept.

use chrono::{DateTime, Months, TimeDelta, Utc};

use super::billing_cycle::BillingCycle;
use super::catalog::{
    Catalog, CreditAllowance, Interval, Plan, PlanChange, PlanPrice, PriceKey, Rollover, TrialCredits,
};
use super::command::MAX_AMOUNT;
use super::credit::{Allowance, AllowancePart};

/// For how long Stripe tries to deliver a StripeEvent.
const STRIPE_TRIES: TimeDelta = TimeDelta::days(3);

/// Shares of credits are reckoned in millionths, so that rounding cannot be played for credits.
pub const MILLION: i128 = 1_000_000;

/// What the catalog says an allowance is worth.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Credits of a whole window; for a change, by how many they rise (or fall, if negative).
    pub credits: i64,
    /// For a change: what its first window's rest is worth of `credits`, in millionths of a credit.
    pub prorated: i128,
    /// For a change: the policy of the plan upgraded to, or of the one that is left.
    pub policy: PlanChange,
    keeping: Keeping,
    is_change: bool,
    /// `None` where periods are days or weeks.
    cycle: Option<BillingCycle>,
    /// Where a period has several months: the number of the month that the first window is, or lies in. `None`: one window,
    /// as long as the period.
    first_month: Option<u32>,
    /// See [`Allowance::has_unknown_months`].
    pub has_unknown_months: bool,
    /// A part counts for nothing, but news of its price's lookup key may show that a plan names it.
    has_unknown_price: bool,
}

/// How a plan keeps what is left of its credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    pub rollover: Rollover,
    /// How long credits that do not roll over go on while the next are being paid.
    renewal: TimeDelta,
}

impl Keeping {
    pub fn of(plan: &Plan) -> Self {
        Self { rollover: plan.rollover, renewal: TimeDelta::hours(plan.renewal_hours.into()) }
    }
}

/// The plans that an allowance's parts are of: those that were given up, and the highest of those that were added.
pub fn plans_of<'c>(allowance: &Allowance, catalog: &'c Catalog) -> (Vec<&'c Plan>, Option<&'c Plan>) {
    let plan = |part: &AllowancePart| {
        let key = PriceKey { stripe_price_id: &part.price, lookup_key: part.lookup_key.as_deref() };
        catalog.plan_of_price(key).map(|(plan, _)| plan)
    };
    let (given_up, added): (Vec<&AllowancePart>, Vec<&AllowancePart>) =
        allowance.parts.iter().partition(|part| part.prorated_amount.is_some_and(|amount| amount < 0));
    let added = added.into_iter().filter_map(plan).max_by_key(|plan| (plan.rank, &plan.id));
    (given_up.into_iter().filter_map(plan).collect(), added)
}

/// A part's plan and price, and its credits for a whole window.
struct Worth<'a> {
    part: &'a AllowancePart,
    plan: &'a Plan,
    price: &'a PlanPrice,
    credits: i128,
}

impl Worth<'_> {
    /// 1 for what was added, -1 for what was given up, 0 for what cost nothing.
    fn sign(&self) -> i64 {
        self.part.prorated_amount.map_or(1, i64::signum)
    }

    fn signed(&self) -> i128 {
        self.credits * i128::from(self.sign())
    }

    /// The line's share of the full price is the share of the credits.
    fn prorated(&self) -> i128 {
        let full_amount = i128::from(self.price.unit_amount) * i128::from(self.part.quantity.max(1));
        match self.part.prorated_amount {
            Some(amount) if full_amount != 0 => self.credits * MILLION * i128::from(amount) / full_amount,
            Some(_) => 0,
            None => self.credits * MILLION,
        }
    }
}

impl Terms {
    /// `None` while no plan names the price of any part. One that none names beside others that are named, as an add-on's,
    /// counts for nothing.
    pub fn of(allowance: &Allowance, catalog: &Catalog) -> Option<Self> {
        let worths: Vec<Worth<'_>> =
            allowance.parts.iter().filter_map(|part| worth_of(allowance, part, catalog)).collect();
        if worths.is_empty() {
            return None;
        }
        let most = i128::from(MAX_AMOUNT);
        let credits = worths.iter().map(Worth::signed).sum::<i128>().clamp(-most, most);
        // The plan that is upgraded to, or the one that is left, in whatever order the invoice names them.
        let deciding = worths
            .iter()
            .max_by_key(|worth| (i128::from(worth.sign()) * credits.signum(), worth.plan.rank, &worth.plan.id))
            .map(|worth| worth.plan);
        let period_months = worths.iter().filter_map(|worth| whole_months(worth.price)).max();
        let cycle = period_months.and_then(|months| allowance.cycle(months));
        let has_refills = period_months.is_some_and(|months| months > 1);
        let first_month = cycle.filter(|_| has_refills).and_then(|cycle| cycle.month_of(allowance.period_start));
        let keeping = deciding.map_or(Keeping { rollover: Rollover::None, renewal: TimeDelta::zero() }, Keeping::of);
        let needs_months = has_refills || cycle.is_some() && matches!(keeping.rollover, Rollover::Capped(_));
        let mut terms = Self {
            credits: i64::try_from(credits).unwrap_or(0),
            prorated: worths.iter().map(Worth::prorated).sum(),
            policy: deciding.map_or(PlanChange::Prorated, |plan| plan.plan_change),
            keeping,
            is_change: allowance.is_change(),
            cycle,
            first_month,
            has_unknown_months: needs_months && period_months.is_some_and(|n| allowance.has_unknown_months(n)),
            has_unknown_price: worths.len() < allowance.parts.len() && may_be_named(allowance, catalog),
        };
        if terms.has_refills() && terms.is_change {
            // The price pays for many windows, so its share says nothing of this one: the time that is left does.
            let share = terms.share_of_month(allowance.period_start).unwrap_or((0, 1));
            terms.prorated = credits * MILLION * share.0 / share.1.max(1);
        }
        // Discounts may be on one side only: a change is never worth more than its whole, nor the contrary.
        terms.prorated = terms.prorated.clamp((credits * MILLION).min(0), (credits * MILLION).max(0));
        Some(terms)
    }

    /// What is left at `at` of the first window's month, and its length, in seconds.
    fn share_of_month(&self, at: DateTime<Utc>) -> Option<(i128, i128)> {
        let (start, end) = (self.window_month(0)?, self.window_month(1)?);
        Some((i128::from((end - at).num_seconds()), i128::from((end - start).num_seconds())))
    }

    /// When the n-th window's month begins.
    fn window_month(&self, n: u32) -> Option<DateTime<Utc>> {
        self.cycle?.month(self.first_month?.checked_add(n)?)
    }

    /// Start and end of the n-th window; `None` past the period's end.
    pub fn window(&self, allowance: &Allowance, n: u32) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        if !self.has_refills() {
            let length = (allowance.period_end - allowance.period_start).max(TimeDelta::zero());
            let start = allowance.billed_late.unwrap_or(allowance.period_start);
            return (n == 0).then_some((start, start.checked_add_signed(length)?));
        }
        let start = if n == 0 { allowance.period_start } else { self.window_month(n)? };
        let end = self.window_month(n + 1)?;
        (n == 0 || start < allowance.period_end).then(|| (start, end.min(allowance.period_end)))
    }

    /// When the n-th window ends if the subscription lives that long.
    pub fn billed_end(&self, allowance: &Allowance, n: u32) -> DateTime<Utc> {
        self.window_month(n + 1).unwrap_or_else(|| allowance.billed_until())
    }

    /// Whether windows follow the first.
    pub fn has_refills(&self) -> bool {
        self.first_month.is_some()
    }

    /// A change of a period that has refills raises or lowers those of others, or has them kept as another plan does.
    pub fn counts_for_others(&self, allowance: &Allowance) -> bool {
        allowance.is_change() && self.has_refills()
    }

    /// The same, kept as the plan in force keeps its credits.
    pub fn kept(self, keeping: Option<Keeping>) -> Self {
        Self { keeping: keeping.unwrap_or(self.keeping), ..self }
    }

    /// The n-th window began, was over, and left nothing that could be used by `now`.
    pub fn has_passed(&self, allowance: &Allowance, n: u32, now: DateTime<Utc>) -> bool {
        // Not when it ends with the subscription: that may not be known yet.
        let billed_expiry = self.expiry(self.billed_end(allowance, n));
        n > 0 && self.keeping.rollover == Rollover::None && billed_expiry.is_some_and(|at| at <= now)
    }

    /// A change waits for news of its period and of its prices, which Stripe sent before, while its months or its worth depend
    /// on them. News that are later than Stripe tries are no longer waited for.
    pub fn waits_for_news(&self, allowance: &Allowance, now: DateTime<Utc>) -> bool {
        (self.has_unknown_months || self.has_unknown_price) && now - allowance.period_start < STRIPE_TRIES
    }

    /// What the n-th window is worth in millionths, were there no other change.
    pub fn worth(&self, n: u32) -> i128 {
        let full = i128::from(self.credits) * MILLION;
        match self.policy {
            PlanChange::Prorated if self.is_change && n == 0 => self.prorated,
            PlanChange::None if self.is_change && n == 0 => 0,
            PlanChange::Prorated | PlanChange::Full | PlanChange::None => full,
        }
    }

    /// Credits that the n-th window's lot is granted with.
    pub fn granted(&self, n: u32) -> i64 {
        i64::try_from(self.worth(n).max(0) / MILLION).unwrap_or(0)
    }

    /// A change comes on top of what the period gave, and so does a period that begins before the one before it is over:
    /// neither takes anything from earlier lots.
    pub fn keeps_earlier(&self, allowance: &Allowance, n: u32) -> Option<i64> {
        let comes_on_top = self.is_change || (allowance.begins_early && n == 0);
        match self.keeping.rollover {
            Rollover::Capped(cap) if !comes_on_top => Some(cap),
            Rollover::None if !comes_on_top && self.keeping.renewal > TimeDelta::zero() => Some(0),
            Rollover::Capped(_) | Rollover::None | Rollover::All => None,
        }
    }

    pub fn expiry(&self, window_end: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.keeping.rollover {
            Rollover::None => window_end.checked_add_signed(self.keeping.renewal),
            // What rolls over may be used for one more month.
            Rollover::Capped(_) => match self.cycle {
                Some(cycle) => cycle.month_after(window_end),
                None => window_end.checked_add_months(Months::new(1)),
            },
            Rollover::All => None,
        }
    }
}

/// Whether a price of an allowance that no plan names may be one that the catalog knows by its lookup key, which only a
/// subscription tells.
fn may_be_named(allowance: &Allowance, catalog: &Catalog) -> bool {
    let is_unnamed = |part: &AllowancePart| part.lookup_key.is_none() && worth_of(allowance, part, catalog).is_none();
    catalog.names_prices_by_lookup_key() && allowance.parts.iter().any(is_unnamed)
}

fn worth_of<'a>(allowance: &Allowance, part: &'a AllowancePart, catalog: &'a Catalog) -> Option<Worth<'a>> {
    let key = PriceKey { stripe_price_id: &part.price, lookup_key: part.lookup_key.as_deref() };
    let (plan, price) = catalog.plan_of_price(key)?;
    let per_period = match (plan.credits, allowance.trial && price.unit_amount > 0) {
        (CreditAllowance::PerPeriod(credits), false) => credits,
        (CreditAllowance::PerPeriod(credits), true) => match plan.trial.credits {
            TrialCredits::Full => credits,
            TrialCredits::None => 0,
            TrialCredits::Amount(amount) => amount,
        },
        (CreditAllowance::None | CreditAllowance::Unlimited, _) => 0,
    };
    let seats = if plan.per_seat { part.quantity } else { part.quantity.min(1) };
    let most = i128::from(MAX_AMOUNT);
    let credits = (i128::from(per_period) * i128::from(seats)).clamp(-most, most);
    Some(Worth { part, plan, price, credits })
}

/// Months of a period; `None` where periods are days or weeks.
pub fn whole_months(price: &PlanPrice) -> Option<u32> {
    match price.interval {
        Interval::Year => Some(price.interval_count.saturating_mul(12)),
        Interval::Month => Some(price.interval_count),
        Interval::Week | Interval::Day => None,
    }
}
