//! Allowances: what the lines of paid invoices give, over which periods.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};

use super::billing::Billing;
use super::billing_cycle::BillingCycle;
use super::claims::refunded_of_invoice;
use super::credit::{Allowance, AllowancePart, Credits};
use super::event::AllowanceArmed;
use super::invoice_record::InvoiceRecord;
use super::stripe_object::{Invoice, InvoiceLine};

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
    pub(super) fn cycle(&self, period_months: u32) -> Option<BillingCycle> {
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
    pub(super) fn has_unknown_months(&self, period_months: u32) -> bool {
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

/// A line that costs nothing before any discount pays for a trial (or for a price of zero, which the catalog tells apart). A
/// trial may also be set or made longer later: then Stripe makes an invoice for it at once
/// (<https://docs.stripe.com/billing/subscriptions/billing-cycle>).
fn is_trial(invoice: &Invoice, line: &InvoiceLine) -> bool {
    let reason = invoice.billing_reason.as_deref();
    matches!(reason, Some("subscription_create" | "subscription_update")) && line.amount == 0
}

/// When a subscription ended, if it did.
pub fn ended_at(billing: &Billing, subscription: &str) -> Option<DateTime<Utc>> {
    let tracked = billing.subscriptions.get(subscription)?;
    let ended = tracked.current.has_ended().then(|| tracked.current.ended_at.unwrap_or(tracked.observed_at))?;
    DateTime::from_timestamp(ended, 0)
}
