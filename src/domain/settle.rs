//! Settling: the events that are due because of what is known by now.
//!
//! Every rule here is a function of the *set* of known facts, and marks what it has done in the account, so that
//! settling after each fact gives the same end as settling once after all of them, in any order.

use std::collections::BTreeMap;

use chrono::{DateTime, Months, SecondsFormat, TimeDelta, Utc};

use super::account::{Account, Changes};
use super::allowance::{
    allowances_of, changed_subscriptions, ended_at, is_armed, refunded_subscriptions, unarmed_subscriptions,
};
use super::billing::{Billing, CheckoutRecord};
use super::billing_cycle::{month_around, months_begun};
use super::catalog::{Catalog, CreditAllowance, DEFAULT_PACK_PRIORITY, PriceKey};
use super::claims::settle_claims;
use super::credit::{Allowance, Credits, Draw, Lot, LotSource};
use super::debt::{repay_debt, repay_debt_until};
use super::draft::{Context, Draft};
use super::event::{
    AllowanceArmed, AllowanceProgress, CreditsExpired, CreditsGranted, Event, LotAmended, SubscriptionCreditsEnded,
};
use super::hold::expire_holds;
use super::ids::{AccountId, LotId};
use super::invoice_record::InvoiceRecord;
use super::late_change::settle_late_changes;
use super::plan_change::{Dues, window_cause};
use super::reinstatement::settle_reinstatements;
use super::rollover_cap::{cap_rollover, return_capped};
use super::standing::Standing;
use super::terms::Terms;

/// How late a StripeEvent may come. Stripe tries for three days.
const LATEST_NEWS: TimeDelta = TimeDelta::days(30);

/// Settles all that Stripe's facts and the clock make due. Needs the account's billing.
pub fn settle_all(draft: &mut Draft<'_>, context: Context<'_>) {
    repay_debt_until(draft, context.now);
    expire_holds(draft, context.now);
    let Facts { allowances, late_changes } = arm_allowances(draft);
    let dues = Dues::of(&allowances, context);
    end_subscriptions(draft);
    grant_packs(draft, context);
    // The free plan's month waits for somebody to spend from it: until all of Stripe's news is in, nobody can tell
    // whether the account is on the free plan at all.
    grant_allowances(draft, context, Some(&dues));
    settle_late_changes(draft, &allowances, &late_changes, &dues, context);
    // What rolls over would outlive a subscription that had ended before its invoice was heard of.
    end_subscriptions(draft);
    repay_debt_until(draft, context.now);
    expire_lots(draft, context.now);
    settle_claims(draft, context, &dues);
    return_capped(draft, context.now);
    expire_lots(draft, context.now);
    settle_reinstatements(draft, context, &dues);
    expire_lots(draft, context.now);
    repay_debt(draft, context.now);
}

/// Settles what the passing of time alone makes due: refills, the free plan's month, expiry.
pub fn settle_clock(draft: &mut Draft<'_>, context: Context<'_>) {
    if !is_clock_due(&draft.account.credits, context) {
        return;
    }
    expire_holds_unless_owed(draft, context.now);
    grant_missed_free_months(draft, context);
    grant_allowances(draft, context, None);
    grant_free_plan(draft, context);
    settle_begun(draft, context.now);
}

/// Records what the passing of time has made due of an account that nobody asks about: refills and expiry, of holds too. The
/// free plan's month waits for a spender; and of who owes something, so does all that the month makes good before.
pub fn settle_idle(draft: &mut Draft<'_>, context: Context<'_>) {
    let credits = &draft.account.credits;
    if credits.debt <= 0 || free_month_due(credits, context).is_none() {
        settle_due(draft, context);
    }
}

/// What settles by time but for the free plan's running month: one that passed while something was owed is among it.
fn settle_due(draft: &mut Draft<'_>, context: Context<'_>) {
    expire_holds_unless_owed(draft, context.now);
    grant_missed_free_months(draft, context);
    grant_allowances(draft, context, None);
    settle_begun(draft, context.now);
}

/// What the clock had made due makes a debt good before what is new does.
pub fn settle_debtor(draft: &mut Draft<'_>, context: Context<'_>) {
    if draft.account.credits.debt > 0 {
        settle_due(draft, context);
    }
}

/// A debt takes what a hold gives back in its turn, among all that came to be spendable: so that has to be there first.
fn expire_holds_unless_owed(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    if draft.account.credits.debt <= 0 {
        expire_holds(draft, now);
    }
}

fn settle_begun(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    repay_debt_until(draft, now);
    expire_holds(draft, now);
    expire_lots(draft, now);
}

/// Whether [`settle_idle`] would record anything.
pub fn is_idle_work_due(id: &AccountId, credits: &Credits, context: Context<'_>) -> bool {
    let is_empty = credits.lots.is_empty() && credits.allowances.is_empty() && credits.holds.is_empty();
    if is_empty && credits.debt <= 0 {
        return false;
    }
    let mut account = Account { credits: credits.clone(), billing: None, ..Account::new(id.clone()) };
    let mut changes = Changes::default();
    let mut draft = Draft::new(&mut account, &mut changes);
    settle_idle(&mut draft, context);
    !draft.events.is_empty()
}

/// What a spender's command at `context.now` would record first: all that the clock has made due and nothing has recorded.
pub fn due_events(id: &AccountId, credits: &Credits, context: Context<'_>) -> Vec<Event> {
    settled(id, credits, context).0
}

/// The credits as they stand at `context.now`, with all that the clock has made due but no command has recorded yet.
pub fn credits_at(id: &AccountId, credits: &Credits, context: Context<'_>) -> Credits {
    if !is_clock_due(credits, context) {
        return credits.clone();
    }
    settled(id, credits, context).1
}

fn settled(id: &AccountId, credits: &Credits, context: Context<'_>) -> (Vec<Event>, Credits) {
    let mut account = Account { credits: credits.clone(), billing: None, ..Account::new(id.clone()) };
    let mut changes = Changes::default();
    let mut draft = Draft::new(&mut account, &mut changes);
    settle_clock(&mut draft, context);
    (draft.events, account.credits)
}

/// Whether anything has come due that [`credits_at`] would show.
pub fn is_clock_due(credits: &Credits, context: Context<'_>) -> bool {
    credits.allowances.iter().any(|allowance| is_window_due(allowance, context))
        || free_month_due(credits, context).is_some()
        || credits.lots.iter().any(|lot| lot.is_expired_at(context.now))
        || credits.holds.iter().any(|hold| hold.is_expired_at(context.now))
        || credits.debt > 0 && credits.spendable_at(context.now) > 0
        // One that was paid for in advance may begin by now.
        || credits.is_cap_due(context.now)
}

/// What is known of subscriptions that were changed within a period.
#[derive(Default)]
struct Facts {
    /// All of them: what one is due depends on the others.
    allowances: Vec<Allowance>,
    /// Changes of which nothing was known before, though later months of their periods may have been granted.
    late_changes: Vec<Allowance>,
}

/// Arms what paid invoices give and has not been armed yet.
fn arm_allowances(draft: &mut Draft<'_>) -> Facts {
    let Some(billing) = &draft.account.billing else {
        return Facts::default();
    };
    let credits = &draft.account.credits;
    let changed = changed_subscriptions(billing);
    let unarmed = unarmed_subscriptions(billing);
    let refunded = refunded_subscriptions(billing, credits);
    let is_armed = |armed: &AllowanceArmed| {
        billing.invoices.get(&armed.allowance.invoice).is_some_and(|record| is_armed(record, armed))
    };
    let wanted = |subscription: &str| [&changed, &unarmed, &refunded].iter().any(|known| known.contains(subscription));
    let all = allowances_of(billing, credits, wanted);
    // Since it was armed, a later period may have cut it short, some of its price may have gone back, or its period may have
    // become known.
    let has_changed = |AllowanceArmed { allowance, .. }: &AllowanceArmed| {
        let known = credits.allowances.iter().find(|known| known.cause == allowance.cause);
        known.is_some_and(|known| {
            known.refills_until != allowance.refills_until
                || known.refunded != allowance.refunded
                || known.learns_period(allowance).is_some()
        })
    };
    let due: Vec<AllowanceArmed> = all.iter().filter(|armed| !is_armed(armed) || has_changed(armed)).cloned().collect();
    let is_changed = |armed: &AllowanceArmed| {
        armed.allowance.subscription.as_deref().is_some_and(|subscription| changed.contains(subscription))
    };
    let is_late = |armed: &&AllowanceArmed| armed.allowance.is_change() && !is_armed(armed);
    let late_changes = all.iter().filter(is_late).map(|armed| armed.allowance.clone()).collect();
    let allowances = all.into_iter().filter(is_changed).map(|armed| armed.allowance).collect();
    for armed in due {
        draft.emit(Event::AllowanceArmed(armed));
    }
    Facts { allowances, late_changes }
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
        let belongs = |name: Option<&str>| name == Some(subscription.as_str());
        let outlives = draft
            .account
            .all_lots()
            .any(|lot| belongs(lot.subscription.as_deref()) && lot.expires_at.is_none_or(|expires| expires > at))
            || credits
                .allowances
                .iter()
                .any(|allowance| belongs(allowance.subscription.as_deref()) && allowance.period_end > at);
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
    let amended: Vec<LotAmended> = draft.account.all_lots().filter_map(|lot| earlier_pack(lot, billing)).collect();
    for lot in due {
        grant(draft, context, lot, None);
    }
    for amended in amended {
        draft.emit(Event::LotAmended(amended));
    }
}

/// What late news changes of a pack's lot: it was paid for earlier than had been heard, and lasts from then on.
fn earlier_pack(lot: &Lot, billing: &Billing) -> Option<LotAmended> {
    let record = billing.checkout_sessions.get(lot.bought_by.as_deref().filter(|_| lot.source == LotSource::Pack)?)?;
    let paid_at = DateTime::from_timestamp(record.paid_at?, 0).filter(|at| *at < lot.effective_at)?;
    let expires_at = lot.expires_at.map(|at| at - (lot.effective_at - paid_at));
    Some(LotAmended { effective_at: paid_at, expires_at, ..LotAmended::of(lot) })
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
    let paid_at = record.paid_at.unwrap_or(record.session.observed_at);
    let effective_at = DateTime::from_timestamp(paid_at, 0)?;
    let days = pack.and_then(|pack| pack.expires_after_days);
    Some(Lot {
        expires_at: days.and_then(|days| effective_at.checked_add_signed(chrono::Duration::days(i64::from(days)))),
        priority: pack.map_or(DEFAULT_PACK_PRIORITY, |pack| pack.priority),
        bought_by: Some(session.id.as_str().into()),
        ..Lot::new(LotSource::Pack, &format!("checkout_session:{}", session.id), credits, effective_at)
    })
}

fn grant(draft: &mut Draft<'_>, context: Context<'_>, lot: Lot, allowance: Option<AllowanceProgress>) {
    let catalog = context.catalog_digest.to_owned();
    draft.emit(Event::CreditsGranted(CreditsGranted { lot, catalog, allowance, reason: None }));
}

/// Grants the lot of a window with what is due of it.
pub fn grant_window(draft: &mut Draft<'_>, context: Context<'_>, mut lot: Lot, dues: &Dues) {
    let excess = dues.excess(&lot.cause, lot.granted);
    lot.remaining -= excess;
    (lot.claimed_back, lot.clawed_back) = (excess, excess);
    grant(draft, context, lot, None);
}

/// A window that has begun, or the end of an allowance.
struct DueWindow {
    lot: Option<Lot>,
    /// It was over before anybody looked: nothing of it is left, but what it would have made good of a debt.
    passed: bool,
    progress: AllowanceProgress,
}

/// Grants the windows that are due. `dues` are those of all that is known; without them, those of the allowances that
/// wait for their next window.
fn grant_allowances(draft: &mut Draft<'_>, context: Context<'_>, dues: Option<&Dues>) {
    if !draft.account.credits.allowances.iter().any(|allowance| is_window_due(allowance, context)) {
        return;
    }
    let allowances = draft.account.credits.allowances.clone();
    let own = if dues.is_none() { Dues::of(&allowances, context) } else { Dues::default() };
    let known = dues.unwrap_or(&own);
    let with_allowance =
        |allowance| due_windows(allowance, known, context).into_iter().map(move |window| (allowance, window));
    let mut due: Vec<(&Allowance, DueWindow)> = allowances.iter().flat_map(with_allowance).collect();
    for (allowance, window) in &mut due {
        let Some(lot) = &mut window.lot else { continue };
        let excess = known.excess(&lot.cause, lot.granted);
        // Where all is known, [`settle_claims`] takes back what was refunded, as the last of all news.
        let refunded = allowance.refunded.as_deref().filter(|_| dues.is_none());
        let claimed = excess + refunded.map_or(0, |share| share.of_credits(lot.granted - excess));
        lot.remaining -= claimed;
        lot.claimed_back = claimed;
        lot.clawed_back = claimed;
    }
    let passed = due.iter().filter(|(_, window)| window.passed).filter_map(|(_, window)| window.lot.as_ref()).collect();
    let taken = draft.account.credits.taken_by_debt(passed);
    let taken: Vec<LotId> = taken.into_iter().map(|lot| lot.id).collect();
    for (_, DueWindow { lot, passed, progress }) in due {
        match lot.filter(|lot| !passed || taken.contains(&lot.id)) {
            Some(lot) => grant(draft, context, lot, Some(progress)),
            None => draft.emit(Event::AllowanceAdvanced(progress)),
        }
    }
}

fn is_window_due(allowance: &Allowance, context: Context<'_>) -> bool {
    !due_windows(allowance, &Dues::default(), context).is_empty()
}

/// What an allowance has to grant by now: the first window whenever it becomes known, later ones as they begin.
fn due_windows(allowance: &Allowance, dues: &Dues, context: Context<'_>) -> Vec<DueWindow> {
    let progress = |windows, done| AllowanceProgress { cause: allowance.cause.clone(), windows, done };
    let end = |windows| DueWindow { lot: None, passed: false, progress: progress(windows, true) };
    let Some(terms) = Terms::of(allowance, context.catalog) else {
        // No plan names the price yet. Well after the period it no longer matters; until then the news that tells the
        // price's lookup key may only be late.
        let over = context.now - allowance.period_end >= LATEST_NEWS;
        return if over { vec![end(allowance.windows)] } else { Vec::new() };
    };
    // What others are due in the months to come depends on it.
    let is_remembered = terms.counts_for_others(allowance) && context.now < allowance.period_end;
    if (terms.credits <= 0 && is_remembered) || terms.waits_for_news(allowance, context.now) {
        return Vec::new();
    }
    let mut due = Vec::new();
    for window in allowance.windows.. {
        let Some((start, ends)) = terms.window(allowance, window) else {
            due.extend((!is_remembered).then(|| end(window)));
            break;
        };
        if window > 0 && start > context.now {
            break;
        }
        let is_last = terms.credits <= 0 || terms.window(allowance, window + 1).is_none();
        let terms = terms.clone().kept(dues.keeping(&window_cause(allowance, window)));
        let passed = terms.has_passed(allowance, window, context.now);
        let lot = window_lot(allowance, &terms, window, (start, ends));
        due.push(DueWindow { lot, passed, progress: progress(window + 1, is_last && !is_remembered) });
        if is_last {
            break;
        }
    }
    due
}

/// The whole lot of a window; `None` if it grants nothing.
pub fn window_lot(
    allowance: &Allowance,
    terms: &Terms,
    n: u32,
    (start, ends): (DateTime<Utc>, DateTime<Utc>),
) -> Option<Lot> {
    let credits = terms.granted(n);
    (credits > 0).then(|| Lot {
        expires_at: terms.expiry(ends),
        subscription: allowance.subscription.as_deref().map(Box::from),
        bought_by: Some(allowance.invoice.as_str().into()),
        keeps_earlier: terms.keeps_earlier(allowance, n),
        ..Lot::new(LotSource::Plan, &window_cause(allowance, n), credits, start)
    })
}

/// A month of the default plan.
struct FreeMonth {
    credits: i64,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// What the months to come are counted from. A link may show that an account is older than was known: a month that was granted
/// before is not cut short by one that begins within it, and the next ones follow on it.
fn free_months_from(credits: &Credits) -> Option<DateTime<Utc>> {
    let anchor = credits.free_plan_anchor()?;
    let is_between = |until: &DateTime<Utc>| month_around(anchor, *until).is_some_and(|(start, _)| start < *until);
    Some(credits.free_until.filter(is_between).unwrap_or(anchor))
}

/// The default plan's month, if the account is on it and the month has not been granted.
fn free_month_due(credits: &Credits, context: Context<'_>) -> Option<FreeMonth> {
    if credits.merged_into.is_some() || credits.free_until.is_some_and(|until| context.now < until) {
        return None;
    }
    let CreditAllowance::PerPeriod(amount) = context.catalog.default_plan().credits else {
        return None;
    };
    let anchor = free_months_from(credits).filter(|_| amount > 0)?;
    if Standing::of(credits, context.catalog, context.now).subscription.is_some() {
        return None;
    }
    let (start, end) = month_around(anchor, context.now)?;
    Some(FreeMonth { credits: amount, start, end })
}

fn grant_free_plan(draft: &mut Draft<'_>, context: Context<'_>) {
    if let Some(month) = free_month_due(&draft.account.credits, context) {
        let lot = free_lot(&draft.account.id, &month);
        grant(draft, context, lot, None);
    }
}

fn free_lot(account: &AccountId, FreeMonth { credits, start, end }: &FreeMonth) -> Lot {
    let cause = format!("free_plan:{account}/{}", start.timestamp());
    Lot { expires_at: Some(*end), ..Lot::new(LotSource::FreePlan, &cause, *credits, *start) }
}

/// Months of the default plan that passed while nobody spent would have made good what was owed.
fn grant_missed_free_months(draft: &mut Draft<'_>, context: Context<'_>) {
    let missed = missed_free_months(&draft.account.credits, context);
    let lots: Vec<Lot> = missed.iter().map(|month| free_lot(&draft.account.id, month)).collect();
    for lot in draft.account.credits.taken_by_debt(lots.iter().collect()) {
        grant(draft, context, lot.clone(), None);
    }
}

/// Those since something is owed, and since the last one was granted.
fn missed_free_months(credits: &Credits, context: Context<'_>) -> Vec<FreeMonth> {
    let due = free_month_due(credits, context).filter(|_| credits.debt > 0);
    let since = credits.debt_since.max(credits.free_until);
    let (Some(due), Some(anchor), Some(since)) = (due, free_months_from(credits), since) else { return Vec::new() };
    let Some(first) = months_begun(anchor, since) else { return Vec::new() };
    let month = |n| {
        let [start, end] = [n, n + 1].map(|n| anchor.checked_add_months(Months::new(n)));
        Some(FreeMonth { credits: due.credits, start: start?, end: end? })
    };
    let is_granted = |month: &FreeMonth| credits.free_until.is_some_and(|until| month.start < until);
    let passed = (first..).map_while(month).take_while(|month| month.end <= context.now);
    passed.filter(|month| !is_granted(month)).collect()
}

/// Records what has expired in lots. What is held of them stays until the hold ends.
pub fn expire_lots(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let mut by_date: BTreeMap<DateTime<Utc>, Vec<Draw>> = BTreeMap::new();
    for lot in draft.account.credits.lots.iter().filter(|lot| lot.spendable() > 0) {
        if let Some(date) = lot.expires_at.filter(|date| *date <= now) {
            by_date.entry(date).or_default().push(Draw { lot: lot.id, amount: lot.spendable() });
        }
    }
    for (date, lots) in by_date {
        let cause = Some(format!("expired_at:{}", date.to_rfc3339_opts(SecondsFormat::AutoSi, true)));
        draft.emit(Event::CreditsExpired(CreditsExpired { lots, cause }));
    }
    cap_rollover(draft, now);
}
