//! Settling: the events that are due because of what is known by now.
//!
//! Every rule here is a function of the *set* of known facts, and marks what it has done in the account, so that
//! settling after each fact gives the same end as settling once after all of them, in any order.

use chrono::{DateTime, Months, TimeDelta, Utc};

use super::account::{Account, Changes};
use super::billing::{Billing, CheckoutRecord, InvoiceRecord};
use super::catalog::{Catalog, CreditAllowance, DEFAULT_PACK_PRIORITY, Interval, PriceKey, Rollover, TrialCredits};
use super::claims::settle_claims;
use super::command::MAX_AMOUNT;
use super::credit::{Allowance, AllowancePart, Credits, Draw, Lot, LotSource};
use super::draft::{Context, Draft};
use super::event::{
    AllowanceArmed, AllowanceProgress, CreditsExpired, CreditsGranted, Event, SubscriptionCreditsEnded,
};
use super::hold::expire_holds;
use super::ids::AccountId;
use super::standing::Standing;
use super::stripe_object::{Invoice, InvoiceLine};

/// How late a StripeEvent may come. Stripe tries for three days.
const LATEST_NEWS: TimeDelta = TimeDelta::days(30);

/// Settles all that Stripe's facts and the clock make due. Needs the account's billing.
pub fn settle_all(draft: &mut Draft<'_>, context: Context<'_>) {
    expire_holds(draft, context.now);
    arm_allowances(draft);
    end_subscriptions(draft);
    grant_packs(draft, context);
    // The free plan's month waits for somebody to spend from it: until all of Stripe's news is in, nobody can tell
    // whether the account is on the free plan at all.
    grant_allowances(draft, context);
    expire_lots(draft, context.now);
    settle_claims(draft, context);
    expire_lots(draft, context.now);
}

/// Settles what the passing of time alone makes due: refills, the free plan's month, expiry.
pub fn settle_clock(draft: &mut Draft<'_>, context: Context<'_>) {
    if !is_clock_due(&draft.account.credits, context) {
        return;
    }
    expire_holds(draft, context.now);
    grant_allowances(draft, context);
    grant_free_plan(draft, context);
    expire_lots(draft, context.now);
}

/// The credits as they stand at `context.now`, with all that the clock has made due but no command has recorded yet.
pub fn credits_at(id: &AccountId, credits: &Credits, context: Context<'_>) -> Credits {
    if !is_clock_due(credits, context) {
        return credits.clone();
    }
    let mut account = Account { credits: credits.clone(), billing: None, ..Account::new(id.clone()) };
    let mut changes = Changes::default();
    settle_clock(&mut Draft::new(&mut account, &mut changes), context);
    account.credits
}

fn is_clock_due(credits: &Credits, context: Context<'_>) -> bool {
    !credits.allowances.is_empty()
        || credits.free_until.is_none_or(|until| until <= context.now)
        || credits.lots.iter().any(|lot| lot.is_expired_at(context.now))
        || credits.holds.iter().any(|hold| hold.is_expired_at(context.now))
        // One that was paid for in advance may begin by now.
        || !beyond_caps(credits, context.now).is_empty()
}

fn arm_allowances(draft: &mut Draft<'_>) {
    let Some(billing) = &draft.account.billing else {
        return;
    };
    let due: Vec<AllowanceArmed> =
        billing.invoices.values().flat_map(|record| due_allowances(record, billing, &draft.account.credits)).collect();
    for armed in due {
        draft.emit(Event::AllowanceArmed(armed));
    }
}

/// The allowances that a paid invoice's lines give and that have not been armed yet. Lines outside a subscription, such
/// as those of an invoice written by hand, give none.
fn due_allowances(record: &InvoiceRecord, billing: &Billing, credits: &Credits) -> Vec<AllowanceArmed> {
    let Some(invoice) = record.current().filter(|invoice| invoice.status == "paid") else {
        return Vec::new();
    };
    let mut due: Vec<AllowanceArmed> = Vec::new();
    for line in &invoice.lines {
        let Some(subscription) = line.subscription.as_ref().filter(|_| line.price.is_some()) else {
            continue;
        };
        let mark = if line.proration { format!("prorations/{subscription}") } else { line.id.clone() };
        if record.armed.contains(&mark) {
            continue;
        }
        let Some(part) = allowance_part(line, credits) else {
            continue;
        };
        if let Some(armed) = due.iter_mut().find(|armed| armed.line == mark) {
            armed.allowance.parts.push(part);
            continue;
        }
        let (Some(period_start), Some(mut period_end)) =
            (DateTime::from_timestamp(line.period_start, 0), DateTime::from_timestamp(line.period_end, 0))
        else {
            continue;
        };
        if let Some(ended_at) = ended_at(billing, subscription) {
            period_end = period_end.min(ended_at);
        }
        let allowance = Allowance {
            cause: format!("invoice:{}/{mark}", invoice.id),
            invoice: invoice.id.clone(),
            subscription: Some(subscription.clone()),
            period_start,
            period_end,
            parts: vec![part],
            trial: is_trial(invoice, line),
            windows: 0,
        };
        due.push(AllowanceArmed { line: mark, allowance });
    }
    due
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

/// A line of a first invoice that costs nothing before any discount pays for a trial (or for a price of zero, which
/// the catalog tells apart).
fn is_trial(invoice: &Invoice, line: &InvoiceLine) -> bool {
    let first = invoice.billing_reason.as_deref() == Some("subscription_create");
    first && line.amount == 0 && invoice.subtotal == 0
}

/// When a subscription ended, if it did.
fn ended_at(billing: &Billing, subscription: &str) -> Option<DateTime<Utc>> {
    let tracked = billing.subscriptions.get(subscription)?;
    let ended = tracked.current.has_ended().then(|| tracked.current.ended_at.unwrap_or(tracked.observed_at))?;
    DateTime::from_timestamp(ended, 0)
}

fn end_subscriptions(draft: &mut Draft<'_>) {
    let Some(billing) = &draft.account.billing else {
        return;
    };
    let credits = &draft.account.credits;
    let mut due = Vec::new();
    for subscription in billing.subscriptions.keys() {
        let Some(at) = ended_at(billing, subscription) else {
            continue;
        };
        let paid_for = billing.invoices.values().filter_map(InvoiceRecord::current).any(|invoice| {
            invoice.subscription.as_ref() == Some(subscription) && invoice.status == "paid" && invoice.amount_paid > 0
        });
        let restarts_free_plan = paid_for && credits.free_since.is_none_or(|since| since < at);
        let belongs = |name: &Option<String>| name.as_ref() == Some(subscription);
        let mut lots = credits.lots.iter().chain(billing.closed_lots.values());
        let outlives = lots.any(|lot| belongs(&lot.subscription) && lot.expires_at.is_none_or(|expires| expires > at))
            || credits.allowances.iter().any(|allowance| belongs(&allowance.subscription) && allowance.period_end > at);
        if restarts_free_plan || outlives {
            due.push(SubscriptionCreditsEnded { subscription: subscription.clone(), at, restarts_free_plan });
        }
    }
    for ended in due {
        draft.emit(Event::SubscriptionCreditsEnded(ended));
    }
}

fn grant_packs(draft: &mut Draft<'_>, context: Context<'_>) {
    let Some(billing) = &draft.account.billing else {
        return;
    };
    let due: Vec<Lot> =
        billing.checkout_sessions.values().filter_map(|record| pack_lot(record, context.catalog)).collect();
    for lot in due {
        grant(draft, context, lot, None);
    }
}

/// The lot that a paid Checkout session of a credit pack grants, unless it already did.
fn pack_lot(record: &CheckoutRecord, catalog: &Catalog) -> Option<Lot> {
    let session = &record.session.current;
    let order = session.order.as_ref().filter(|_| record.credits.is_none() && session.is_paid())?;
    let named = order.pack.as_deref().and_then(|pack| catalog.pack(pack));
    let priced = order.price.as_deref().and_then(|price| {
        catalog.pack_of_price(PriceKey { stripe_price_id: price, lookup_key: None }).map(|(pack, _)| pack)
    });
    let pack = named.or(priced);
    let credits = order.credits.or(pack.map(|pack| pack.credits)).filter(|credits| *credits > 0)?;
    // Not when the payment was heard of: several notifications may show a session paid, and which of them comes first is
    // chance. When the session was created they all agree on.
    let effective_at = DateTime::from_timestamp(session.created.unwrap_or(record.session.observed_at), 0)?;
    let days = pack.and_then(|pack| pack.expires_after_days);
    Some(Lot {
        expires_at: days.and_then(|days| effective_at.checked_add_signed(chrono::Duration::days(i64::from(days)))),
        priority: pack.map_or(DEFAULT_PACK_PRIORITY, |pack| pack.priority),
        bought_by: Some(session.id.clone()),
        ..Lot::new(LotSource::Pack, format!("checkout_session:{}", session.id), credits, effective_at)
    })
}

fn grant(draft: &mut Draft<'_>, context: Context<'_>, lot: Lot, allowance: Option<AllowanceProgress>) {
    let catalog = context.catalog_digest.to_owned();
    draft.emit(Event::CreditsGranted(CreditsGranted { lot, catalog, allowance, reason: None }));
}

fn grant_allowances(draft: &mut Draft<'_>, context: Context<'_>) {
    for allowance in draft.account.credits.allowances.clone() {
        for (lot, progress) in due_windows(&allowance, context) {
            match lot {
                Some(lot) => grant(draft, context, lot, Some(progress)),
                None => draft.emit(Event::AllowanceAdvanced(progress)),
            }
        }
    }
}

/// What an allowance has to grant by now: the first window whenever it becomes known, later ones as they begin. Windows
/// that passed while nobody looked grant nothing, unless unused credits would have rolled over.
fn due_windows(allowance: &Allowance, context: Context<'_>) -> Vec<(Option<Lot>, AllowanceProgress)> {
    let progress = |windows, done| AllowanceProgress { cause: allowance.cause.clone(), windows, done };
    let Some(terms) = Terms::of(allowance, context.catalog) else {
        // No plan names the price yet. Well after the period it no longer matters; until then the news that tells the
        // price's lookup key may only be late.
        let over = context.now - allowance.period_end >= LATEST_NEWS;
        return if over { vec![(None, progress(allowance.windows, true))] } else { Vec::new() };
    };
    let mut due = Vec::new();
    for window in allowance.windows.. {
        let Some((start, end)) = terms.window(allowance, window) else {
            due.push((None, progress(window, true)));
            break;
        };
        if window > 0 && start > context.now {
            break;
        }
        let is_last = terms.window(allowance, window + 1).is_none();
        let passed = window > 0 && end <= context.now && terms.rollover == Rollover::None;
        let credits = if passed { 0 } else { terms.credits };
        let lot = (credits > 0).then(|| Lot {
            expires_at: terms.expiry(end),
            subscription: allowance.subscription.clone(),
            bought_by: Some(allowance.invoice.clone()),
            keeps_earlier: terms.keeps_earlier(allowance),
            ..Lot::new(LotSource::Plan, window_cause(allowance, window), credits, start)
        });
        due.push((lot, progress(window + 1, is_last)));
        if is_last {
            break;
        }
    }
    due
}

fn window_cause(allowance: &Allowance, window: u32) -> String {
    if window == 0 { allowance.cause.clone() } else { format!("{}#{window}", allowance.cause) }
}

/// With a capped rollover, what is left of a subscription's earlier lots beyond the cap expires as the next one begins,
/// whichever of them was heard of first.
fn cap_rollover(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let lots = beyond_caps(&draft.account.credits, now);
    if !lots.is_empty() {
        draft.emit(Event::CreditsExpired(CreditsExpired { lots }));
    }
}

fn beyond_caps(credits: &Credits, now: DateTime<Utc>) -> Vec<Draw> {
    let mut lots = Vec::new();
    for (subscription, caps) in &credits.caps {
        let Some((begins, cap)) = caps.range(..=now).next_back() else { continue };
        let mut kept = *cap;
        let earlier = credits.lots.iter().filter(|lot| {
            lot.subscription.as_ref() == Some(subscription)
                && lot.source == LotSource::Plan
                && lot.effective_at < *begins
                && !lot.is_expired_at(now)
        });
        for lot in earlier {
            let carried = lot.spendable().min(kept);
            kept -= carried;
            if lot.spendable() > carried {
                lots.push(Draw { lot: lot.id, amount: lot.spendable() - carried });
            }
        }
    }
    lots
}

/// What the catalog says an allowance is worth.
struct Terms {
    credits: i64,
    /// Months between windows; `None`: one window, as long as the period.
    step_months: Option<u32>,
    rollover: Rollover,
}

impl Terms {
    /// `None` while a part's price is named by no plan.
    fn of(allowance: &Allowance, catalog: &Catalog) -> Option<Self> {
        let mut credits = 0i64;
        let mut step_months = None;
        let mut rollover = Rollover::None;
        for part in &allowance.parts {
            let key = PriceKey { stripe_price_id: &part.price, lookup_key: part.lookup_key.as_deref() };
            let (plan, price) = catalog.plan_of_price(key)?;
            let whole_months = match price.interval {
                Interval::Year => true,
                Interval::Month => price.interval_count > 1,
                Interval::Week | Interval::Day => false,
            };
            if whole_months {
                step_months = Some(1);
            }
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
            let full = i128::from(per_period) * i128::from(seats);
            let share = match part.prorated_amount {
                None => full,
                Some(amount) if whole_months => full * i128::from(amount.signum()),
                Some(amount) => {
                    let full_amount = i128::from(price.unit_amount) * i128::from(part.quantity.max(1));
                    if full_amount == 0 { 0 } else { full * i128::from(amount) / full_amount }
                }
            };
            let most = i128::from(MAX_AMOUNT);
            credits += i64::try_from(share.clamp(-most, most)).unwrap_or(0);
            rollover = plan.rollover;
        }
        Some(Self { credits, step_months, rollover })
    }

    /// Start and end of the n-th window; `None` past the period's end.
    fn window(&self, allowance: &Allowance, n: u32) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let Some(step) = self.step_months else {
            return (n == 0).then_some((allowance.period_start, allowance.period_end));
        };
        let start = allowance.period_start.checked_add_months(Months::new(n * step))?;
        let end = allowance.period_start.checked_add_months(Months::new((n + 1) * step))?;
        // Windows are counted from the anchor, so a year from 31 January has one for each month, short or long.
        (n == 0 || start < allowance.period_end).then(|| (start, end.min(allowance.period_end)))
    }

    /// A proration comes on top of what the period gave, and takes nothing from it.
    fn keeps_earlier(&self, allowance: &Allowance) -> Option<i64> {
        let whole = allowance.parts.iter().all(|part| part.prorated_amount.is_none());
        match self.rollover {
            Rollover::Capped(cap) if whole => Some(cap),
            Rollover::Capped(_) | Rollover::None | Rollover::All => None,
        }
    }

    fn expiry(&self, window_end: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.rollover {
            Rollover::None => Some(window_end),
            // What rolls over may be used for one more month.
            Rollover::Capped(_) => window_end.checked_add_months(Months::new(1)),
            Rollover::All => None,
        }
    }
}

/// Grants the default plan's month if the account is on it and the month has not been granted.
fn grant_free_plan(draft: &mut Draft<'_>, context: Context<'_>) {
    let credits = &draft.account.credits;
    if credits.merged_into.is_some() || credits.free_until.is_some_and(|until| context.now < until) {
        return;
    }
    let standing = Standing::of(credits, context.catalog, context.now);
    let plan = context.catalog.default_plan();
    let CreditAllowance::PerPeriod(amount) = plan.credits else {
        return;
    };
    let Some(opened_at) = credits.opened_at.filter(|_| standing.subscription.is_none() && amount > 0) else {
        return;
    };
    let anchor = credits.free_since.map_or(opened_at, |since| since.max(opened_at));
    let Some((start, end)) = month_around(anchor, context.now) else {
        return;
    };
    let cause = format!("free_plan:{}/{}", draft.account.id, start.timestamp());
    let lot = Lot { expires_at: Some(end), ..Lot::new(LotSource::FreePlan, cause, amount, start) };
    grant(draft, context, lot, None);
}

/// The month, counted from `anchor`, that holds `now`.
fn month_around(anchor: DateTime<Utc>, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    if now < anchor {
        return None;
    }
    // A month has at most 31 days, so this many have passed at least; at most a few more follow.
    let mut month = u32::try_from((now - anchor).num_days() / 31).ok()?;
    loop {
        let start = anchor.checked_add_months(Months::new(month))?;
        let end = anchor.checked_add_months(Months::new(month + 1))?;
        if now < end {
            return Some((start, end));
        }
        month += 1;
    }
}

/// Records what has expired in lots. What is held of them stays until the hold ends.
pub fn expire_lots(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let expired = draft.account.credits.lots.iter().filter(|lot| lot.is_expired_at(now) && lot.spendable() > 0);
    let lots: Vec<Draw> = expired.map(|lot| Draw { lot: lot.id, amount: lot.spendable() }).collect();
    if !lots.is_empty() {
        draft.emit(Event::CreditsExpired(CreditsExpired { lots }));
    }
    cap_rollover(draft, now);
}
