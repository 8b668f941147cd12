//! Limits within windows of time: which window it is, how far it is used up, and whether a debit fits into what is left.

use chrono::{DateTime, Datelike, Months, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use super::billing_cycle::{BillingCycle, month_around};
use super::catalog::{Interval, Per, PlanPrice, WindowLimit};
use super::credit::Credits;
use super::draft::Context;
use super::overrides::ruling;
use super::rejection::Rejection;
use super::standing::Standing;
use super::terms::whole_months;
use super::usage::Counted;

/// A billing period, in Unix seconds: `end` is the first that is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub start: i64,
    pub end: i64,
}

/// A limit, and how far it is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitNow {
    pub limit: i64,
    pub per: Per,
    pub used: i64,
    /// Units that open holds have set aside. They count in every window that runs while their hold is open, since its
    /// capture would.
    pub held: i64,
    /// Never below zero, however much was recorded.
    pub remaining: i64,
    pub resets_at: DateTime<Utc>,
}

fn start_of_month(at: i64) -> DateTime<Utc> {
    let day = DateTime::from_timestamp(at, 0).unwrap_or_default().date_naive();
    day.with_day(1).unwrap_or(day).and_time(NaiveTime::MIN).and_utc()
}

/// First second of the window that holds `at`, and the first one after it.
fn window_around(per: Per, at: i64, period: Period) -> Period {
    let of_length = |length: i64| {
        let start = at - at.rem_euclid(length);
        Period { start, end: start + length }
    };
    match per {
        Per::Minute => of_length(60),
        Per::Hour => of_length(3_600),
        Per::Day => of_length(86_400),
        Per::Month => {
            let start = start_of_month(at);
            let end = start.checked_add_months(Months::new(1)).unwrap_or(start);
            Period { start: start.timestamp(), end: end.timestamp() }
        }
        Per::Period => period,
    }
}

/// Whether one window of this length holds both.
pub(super) fn same_window(per: Per, a: i64, b: i64) -> bool {
    let no_period = Period { start: 0, end: 0 };
    window_around(per, a, no_period).start == window_around(per, b, no_period).start
}

/// The period that holds `now`, after one that is over: Stripe has not told of it yet. It begins where that one ended, and is
/// as long as the subscription's price says; where no plan names the price, as long as the one before it.
fn period_after(over: Period, price: Option<&PlanPrice>, now: DateTime<Utc>) -> Option<Period> {
    let (start, end) = (DateTime::from_timestamp(over.start, 0)?, DateTime::from_timestamp(over.end, 0)?);
    let cycle = BillingCycle::of_period(start, end)?;
    let (first, last) = (cycle.month_of(start)?, cycle.month_of(end)?);
    let is_on_cycle = cycle.month(last)? == end;
    let (months, length) = match price.map(|price| (price.interval, i64::from(price.interval_count))) {
        Some((Interval::Day, days)) => (None, 86_400 * days),
        Some((Interval::Week, weeks)) => (None, 7 * 86_400 * weeks),
        Some(_) => (price.and_then(whole_months), 0),
        None => (Some(last - first).filter(|_| is_on_cycle), over.end - over.start),
    };
    let Some(months) = months.filter(|months| *months > 0) else {
        let passed = (now.timestamp() - over.end).checked_div(length)?;
        let start = over.end + passed * length;
        return Some(Period { start, end: start + length });
    };
    // Where a trial ended, a cycle of its own begins.
    let cycle = if is_on_cycle { cycle } else { BillingCycle::of_period(end, end)? };
    let last = cycle.month_of(end)?;
    let begun = last + (cycle.month_of(now)? - last) / months * months;
    Some(Period { start: cycle.month(begun)?.timestamp(), end: cycle.month(begun + months)?.timestamp() })
}

/// The billing period of the deciding subscription; on the default plan, the account's own month.
pub fn period_of(credits: &Credits, standing: &Standing<'_>, now: DateTime<Utc>) -> Period {
    if let Some(access) = standing.subscription
        && let (Some(start), Some(end)) = (access.period_start, access.period_end)
    {
        let known = Period { start, end };
        let is_over = end <= now.timestamp();
        return if is_over { period_after(known, standing.price, now).unwrap_or(known) } else { known };
    }
    free_month(credits, now.timestamp())
}

/// The part of it that a plan's credits are for: where they come by the month, the month that holds `now`.
pub fn credits_period_of(credits: &Credits, standing: &Standing<'_>, now: DateTime<Utc>) -> Period {
    let period = period_of(credits, standing, now);
    let months = standing.subscription.and(standing.price).and_then(whole_months);
    if months.is_none_or(|months| months < 2) {
        return period;
    }
    month_within(period, now).unwrap_or(period)
}

fn month_within(period: Period, now: DateTime<Utc>) -> Option<Period> {
    let (start, end) = (DateTime::from_timestamp(period.start, 0)?, DateTime::from_timestamp(period.end, 0)?);
    let cycle = BillingCycle::of_period(start, end)?;
    let month = cycle.month_of(now.max(start))?;
    let (first, next) = (cycle.month(month)?.timestamp(), cycle.month(month + 1)?.timestamp());
    Some(Period { start: first.max(period.start), end: next.min(period.end) })
}

/// The account's own month that holds `at`.
pub(super) fn free_month(credits: &Credits, at: i64) -> Period {
    let month = |anchor| month_around(anchor, DateTime::from_timestamp(at, 0)?);
    match credits.free_plan_anchor().and_then(month) {
        Some((start, end)) => Period { start: start.timestamp(), end: end.timestamp() },
        None => window_around(Per::Month, at, Period { start: 0, end: 0 }),
    }
}

/// Whether a period that began at `start` is not over at `at`, whether or not it decides. One that began after all that Stripe
/// has told of a subscription is taken for its next.
pub(super) fn goes_on(credits: &Credits, start: i64, at: i64) -> bool {
    let of_subscription = credits.access.iter().any(|access| match (access.period_start, access.period_end) {
        (Some(known), Some(end)) => (at < end && start == known) || (end <= at && end <= start),
        _ => false,
    });
    of_subscription || start == free_month(credits, at).start
}

/// How far each of a feature's limits is used up at `now`.
pub fn limits_at(
    credits: &Credits,
    windows: &[WindowLimit],
    feature: &str,
    period: Period,
    now: DateTime<Utc>,
) -> Vec<LimitNow> {
    // Nearly every feature has no limit, and every debit asks.
    if windows.is_empty() {
        return Vec::new();
    }
    let at = now.timestamp().max(credits.usage.at);
    let held = credits.units_held(feature, now);
    let limit_now = |window: &WindowLimit| {
        let used = credits.usage.used(feature, window.per, at, period.start);
        let end = window_around(window.per, at, period).end;
        LimitNow {
            limit: window.limit,
            per: window.per,
            used,
            held,
            remaining: window.limit.saturating_sub(used).saturating_sub(held).max(0),
            resets_at: DateTime::from_timestamp(end, 0).unwrap_or(now),
        }
    };
    windows.iter().map(limit_now).collect()
}

/// The limit that allows least; of several, the one that does so longest.
pub fn tightest(limits: &[LimitNow]) -> Option<&LimitNow> {
    limits.iter().min_by_key(|limit| (limit.remaining, std::cmp::Reverse(limit.resets_at)))
}

/// Whether the limits of a feature let a debit through. Gives the moment that the use counts at.
pub fn admit(credits: &Credits, feature: &str, quantity: i64, context: Context<'_>) -> Result<Counted, Rejection> {
    let standing = Standing::of(credits, context.catalog, context.now);
    let period = period_of(credits, &standing, context.now);
    let grant = ruling(credits, &standing, feature, context.now).grant;
    let windows = grant.as_ref().map_or(&[][..], |grant| &grant.windows);
    let limits = limits_at(credits, windows, feature, period, context.now);
    let exceeded = limits.iter().filter(|limit| quantity > limit.remaining).max_by_key(|limit| limit.resets_at);
    match exceeded {
        Some(&LimitNow { limit, per, used, held, resets_at, .. }) => {
            let feature = feature.to_owned();
            Err(Rejection::LimitExceeded { feature, limit, per, used, held, quantity, resets_at })
        }
        None => Ok(counted_in(credits, period, context.now)),
    }
}

/// The moment that a use counts at which no limit can stop any more.
pub fn counted_now(credits: &Credits, context: Context<'_>) -> Counted {
    let standing = Standing::of(credits, context.catalog, context.now);
    counted_in(credits, period_of(credits, &standing, context.now), context.now)
}

/// Replicas' clocks differ; a use counts no earlier than those before it.
fn counted_in(credits: &Credits, period: Period, now: DateTime<Utc>) -> Counted {
    Counted { at: now.timestamp().max(credits.usage.at), period_start: period.start }
}
