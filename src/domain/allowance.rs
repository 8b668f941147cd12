//! Allowances: what the lines of paid invoices give, what the catalog says that is worth, and the windows in which it is
//! granted.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};

use super::billing::{Billing, InvoiceRecord};
use super::billing_cycle::BillingCycle;
use super::catalog::{
    Catalog, CreditAllowance, Interval, Plan, PlanChange, PlanPrice, PriceKey, Rollover, TrialCredits,
};
use super::claims::refunded_of_invoice;
use super::command::MAX_AMOUNT;
use super::credit::{Allowance, AllowancePart, Credits};
use super::event::AllowanceArmed;
use super::stripe_object::{Invoice, InvoiceLine};

/// For how long Stripe tries to deliver a StripeEvent.
const STRIPE_TRIES: TimeDelta = TimeDelta::days(3);

/// Shares of credits are reckoned in millionths, so that rounding cannot be played for credits.
pub const MILLION: i128 = 1_000_000;

/// The allowances that paid invoices give, of those subscriptions that are asked for. Lines outside a subscription, such as
/// those of an invoice written by hand, give none.
///
/// A whole period's line is an allowance of its own. The prorations of one moment on one invoice are one change, and one
/// allowance together.
pub fn allowances_of(billing: &Billing, credits: &Credits, wanted: impl Fn(&str) -> bool) -> Vec<AllowanceArmed> {
    let paid = billing.invoices.values().filter_map(paid);
    let mut all: Vec<AllowanceArmed> =
        paid.flat_map(|invoice| invoice_allowances(invoice, billing, credits, &wanted)).collect();
    cut_refills(&mut all);
    place_changes(&mut all, billing);
    all
}

/// Subscriptions with lines on paid invoices that have not been armed yet.
pub fn unarmed_subscriptions(billing: &Billing) -> BTreeSet<&str> {
    let mut unarmed = BTreeSet::new();
    for record in billing.invoices.values() {
        for line in paid(record).into_iter().flat_map(|invoice| &invoice.lines).filter(|line| line.price.is_some()) {
            let Some(subscription) = line.subscription.as_deref() else { continue };
            let is_armed = match line.proration {
                true => record.armed.contains(&prorations_mark(subscription)),
                false => record.armed.contains(&line.id),
            };
            if !is_armed {
                unarmed.insert(subscription);
            }
        }
    }
    unarmed
}

/// Subscriptions with allowances of whose price another share has gone back than was known.
pub fn refunded_subscriptions<'a>(billing: &Billing, credits: &'a Credits) -> BTreeSet<&'a str> {
    let other = credits
        .allowances
        .iter()
        .filter(|allowance| refunded_of_invoice(&allowance.invoice, billing) != allowance.refunded.as_deref().copied());
    other.filter_map(|allowance| allowance.subscription.as_deref()).collect()
}

/// Starts and ends of periods, by subscription and item.
type Periods<'a> = BTreeMap<(&'a str, Option<&'a str>), Vec<(i64, i64)>>;

/// Subscriptions whose periods overlap or were prorated: what one of their invoices gives depends on the others.
pub fn changed_subscriptions(billing: &Billing) -> BTreeSet<&str> {
    let mut changed = BTreeSet::new();
    let mut periods: Periods<'_> = BTreeMap::new();
    for line in billing.invoices.values().filter_map(paid).flat_map(|invoice| &invoice.lines) {
        let Some(subscription) = line.subscription.as_deref() else { continue };
        if line.proration {
            changed.insert(subscription);
        }
        let item = line.subscription_item.as_deref();
        periods.entry((subscription, item)).or_default().push((line.period_start, line.period_end));
    }
    for ((subscription, _), mut periods) in periods {
        periods.sort_unstable();
        if periods.windows(2).any(|pair| pair[0].0 < pair[1].0 && pair[1].0 < pair[0].1) {
            changed.insert(subscription);
        }
    }
    changed
}

fn paid(record: &InvoiceRecord) -> Option<&Invoice> {
    record.current().filter(|invoice| invoice.status == "paid")
}

fn prorations_mark(subscription: &str) -> String {
    format!("prorations/{subscription}")
}

fn invoice_allowances(
    invoice: &Invoice,
    billing: &Billing,
    credits: &Credits,
    wanted: &impl Fn(&str) -> bool,
) -> Vec<AllowanceArmed> {
    let mut armed = Vec::new();
    let mut changes: BTreeMap<(&str, i64, i64), Vec<AllowancePart>> = BTreeMap::new();
    for line in &invoice.lines {
        let Some(subscription) = line.subscription.as_deref().filter(|subscription| wanted(subscription)) else {
            continue;
        };
        let Some(part) = allowance_part(line, credits) else { continue };
        let period = (line.period_start, line.period_end);
        if line.proration {
            changes.entry((subscription, period.0, period.1)).or_default().push(part);
        } else {
            let begins_early = invoice.lines.iter().any(|other| gives_back(invoice, other, line));
            armed.extend(allowance(invoice, subscription, line.id.clone(), period, vec![part], billing).map(|armed| {
                let trial = is_trial(invoice, line);
                let item = line.subscription_item.clone();
                AllowanceArmed { allowance: Allowance { trial, item, begins_early, ..armed.allowance }, ..armed }
            }));
        }
    }
    let mut marked = BTreeSet::new();
    for ((subscription, start, end), parts) in changes {
        let mark = prorations_mark(subscription);
        let mark = if marked.insert(subscription) { mark } else { format!("{mark}/{start}/{end}") };
        armed.extend(allowance(invoice, subscription, mark, (start, end), parts, billing));
    }
    armed
}

fn allowance(
    invoice: &Invoice,
    subscription: &str,
    mark: String,
    (start, end): (i64, i64),
    parts: Vec<AllowancePart>,
    billing: &Billing,
) -> Option<AllowanceArmed> {
    let billed_until = DateTime::from_timestamp(end, 0)?;
    let billed_at = invoice.created.and_then(|created| DateTime::from_timestamp(created, 0));
    let ended_at = ended_at(billing, subscription);
    let allowance = Allowance {
        cause: format!("invoice:{}/{mark}", invoice.id),
        invoice: invoice.id.clone(),
        subscription: Some(subscription.to_owned()),
        item: None,
        period_start: DateTime::from_timestamp(start, 0)?,
        period_end: ended_at.map_or(billed_until, |ended_at| billed_until.min(ended_at)),
        billed_until: Some(billed_until),
        billed_from: None,
        billed_late: None,
        refills_until: None,
        refunded: refunded_of_invoice(&invoice.id, billing).map(Box::new),
        parts,
        trial: false,
        begins_early: false,
        windows: 0,
    };
    let billed_late = billed_at.filter(|at| allowance.is_change() && billed_until <= *at);
    Some(AllowanceArmed { line: mark, allowance: Allowance { billed_late, ..allowance } })
}

/// Subscription and item.
type Item = (Option<String>, Option<String>);

/// Where an item's next period begins before the one before it is over, that one is not refilled any more.
fn cut_refills(all: &mut [AllowanceArmed]) {
    let mut starts: BTreeMap<Item, Vec<DateTime<Utc>>> = BTreeMap::new();
    let whole = |armed: &&mut AllowanceArmed| !armed.allowance.is_change();
    for AllowanceArmed { allowance, .. } in all.iter_mut().filter(whole) {
        let item = (allowance.subscription.clone(), allowance.item.clone());
        starts.entry(item).or_default().push(allowance.period_start);
    }
    for AllowanceArmed { allowance, .. } in all.iter_mut().filter(whole) {
        let starts = starts.get(&(allowance.subscription.clone(), allowance.item.clone())).into_iter().flatten();
        let within = starts.filter(|start| allowance.period_start < **start && **start < allowance.billed_until());
        allowance.refills_until = within.min().copied();
    }
}

/// Tells changes the start of the period that they fall in: their own start says nothing of the day that it is billed on.
/// The period's invoice tells it, paid or not, and so does the subscription while the period is its current one.
fn place_changes(all: &mut [AllowanceArmed], billing: &Billing) {
    let mut periods: BTreeMap<(&str, i64), Vec<i64>> = BTreeMap::new();
    for line in billing.invoices.values().filter_map(InvoiceRecord::current).flat_map(|invoice| &invoice.lines) {
        if let Some(subscription) = line.subscription.as_deref().filter(|_| !line.proration) {
            periods.entry((subscription, line.period_end)).or_default().push(line.period_start);
        }
    }
    for (id, tracked) in &billing.subscriptions {
        let subscription = &tracked.current;
        if let (Some(start), Some(end)) = (subscription.current_period_start, subscription.current_period_end) {
            periods.entry((id, end)).or_default().push(start);
        }
    }
    for AllowanceArmed { allowance, .. } in all.iter_mut().filter(|armed| armed.allowance.is_change()) {
        let key = (allowance.subscription.as_deref().unwrap_or_default(), allowance.billed_until().timestamp());
        let starts = periods.get(&key).into_iter().flatten();
        let start = starts.filter(|start| **start <= allowance.period_start.timestamp()).max();
        allowance.billed_from = start.and_then(|start| DateTime::from_timestamp(*start, 0));
    }
}

/// Whether an allowance has been armed. What was armed of an invoice's prorations before they were told apart by their
/// moments stands for all of them.
pub fn is_armed(record: &InvoiceRecord, armed: &AllowanceArmed) -> bool {
    let all_prorations = armed.allowance.subscription.as_deref().map(prorations_mark);
    let stands_for_all = |mark: String| armed.allowance.is_change() && record.armed.contains(&mark);
    record.armed.contains(&armed.line) || all_prorations.is_some_and(stands_for_all)
}

impl Allowance {
    /// It changes what a period gives, and is none by itself.
    pub fn is_change(&self) -> bool {
        self.parts.iter().any(|part| part.prorated_amount.is_some())
    }

    /// The end of the period that was paid for, or that a change falls in, though the subscription ended before.
    pub fn billed_until(&self) -> DateTime<Utc> {
        self.billed_until.unwrap_or(self.period_end)
    }

    /// The months of the period that it is, or falls in. While nobody knows where that period began, it is taken to have
    /// begun as many months before its end as the price has.
    fn cycle(&self, period_months: u32) -> Option<BillingCycle> {
        let end = self.billed_until();
        let start = match (self.is_change(), self.billed_from) {
            (false, _) => self.period_start,
            (true, Some(start)) => start,
            (true, None) => end.checked_sub_months(Months::new(period_months))?,
        };
        BillingCycle::of_period(start, end)
    }

    /// Its months cannot be told before the period is known that it falls in: the day that this is billed on may be a later
    /// one than the month has that it ends with.
    fn has_unknown_months(&self, period_months: u32) -> bool {
        let end = self.billed_until();
        let is_last_of_month = |at: DateTime<Utc>| (at + TimeDelta::days(1)).day() == 1;
        let start = end.checked_sub_months(Months::new(period_months));
        let is_ambiguous = is_last_of_month(end) && start.is_some_and(|start| !is_last_of_month(start));
        self.is_change() && self.billed_from.is_none() && is_ambiguous
    }

    /// The start of its period, where another reading of the same invoice knows it for the first time. If that moves its
    /// months, those that were granted stay as they are, and so do those that follow them.
    pub fn learns_period(&self, other: &Self) -> Option<DateTime<Utc>> {
        let moves_nothing = |start: &DateTime<Utc>| start.day() <= self.billed_until().day();
        other.billed_from.filter(|start| self.billed_from.is_none() && (self.windows == 0 || moves_nothing(start)))
    }
}

fn allowance_part(line: &InvoiceLine, credits: &Credits) -> Option<AllowancePart> {
    let price = line.price.clone()?;
    Some(AllowancePart {
        lookup_key: credits.lookup_keys.get(&price).cloned(),
        price,
        quantity: line.quantity.unwrap_or(1).max(0),
        prorated_amount: line.proration.then_some(line.amount),
    })
}

/// The line gives back the rest of a period in which the other line's period begins. A switch may replace the item; the
/// regular invoice of one item says nothing of the others.
fn gives_back(invoice: &Invoice, line: &InvoiceLine, next: &InvoiceLine) -> bool {
    let is_update = invoice.billing_reason.as_deref() == Some("subscription_update");
    let concerned = is_update || line.subscription_item == next.subscription_item;
    let same = concerned && line.subscription == next.subscription;
    same && line.proration && line.amount < 0 && line.period_end > next.period_start
}

/// A line of a first invoice that costs nothing before any discount pays for a trial (or for a price of zero, which
/// the catalog tells apart).
fn is_trial(invoice: &Invoice, line: &InvoiceLine) -> bool {
    let first = invoice.billing_reason.as_deref() == Some("subscription_create");
    first && line.amount == 0 && invoice.subtotal == 0
}

/// When a subscription ended, if it did.
pub fn ended_at(billing: &Billing, subscription: &str) -> Option<DateTime<Utc>> {
    let tracked = billing.subscriptions.get(subscription)?;
    let ended = tracked.current.has_ended().then(|| tracked.current.ended_at.unwrap_or(tracked.observed_at))?;
    DateTime::from_timestamp(ended, 0)
}

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
    has_unknown_months: bool,
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
    /// `None` while a part's price is named by no plan.
    pub fn of(allowance: &Allowance, catalog: &Catalog) -> Option<Self> {
        let worths: Vec<Worth<'_>> =
            allowance.parts.iter().map(|part| worth_of(allowance, part, catalog)).collect::<Option<_>>()?;
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

    /// A change waits for news of its period, which Stripe sent before, while its months depend on it. News that are later
    /// than Stripe tries are no longer waited for.
    pub fn waits_for_period(&self, allowance: &Allowance, now: DateTime<Utc>) -> bool {
        self.has_unknown_months && now - allowance.period_start < STRIPE_TRIES
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
