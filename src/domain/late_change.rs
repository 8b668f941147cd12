//! News of a plan change that comes after later months of its period were granted: they are kept as the plan that was in
//! force, as if it had come in time.

use chrono::{DateTime, Utc};

use super::allowance::{Terms, ended_at};
use super::credit::{Allowance, Lot};
use super::draft::{Context, Draft};
use super::event::{Event, LotAmended};
use super::plan_change::{Dues, window_cause};
use super::settle::{grant_window, window_lot};

/// Amends the months that `changes`, of which nothing was known before, have kept in another way. `facts` are all
/// allowances of their subscriptions.
pub fn settle_late_changes(
    draft: &mut Draft<'_>,
    facts: &[Allowance],
    changes: &[Allowance],
    dues: &Dues,
    context: Context<'_>,
) {
    for allowance in facts {
        let of_period = |change: &&Allowance| {
            change.subscription == allowance.subscription && change.billed_until() == allowance.billed_until()
        };
        let Some(since) = changes.iter().filter(of_period).map(|change| change.period_start).min() else { continue };
        for month in months_since(draft, allowance, since, dues, context) {
            match month {
                Month::Amended(lot) => draft.emit(Event::LotAmended(lot)),
                Month::Missed(lot) => grant_window(draft, context, *lot, dues),
            }
        }
    }
}

/// A month that is not as it would be, had the news come in time.
enum Month {
    Amended(LotAmended),
    /// Passed over, since nothing of it was left.
    Missed(Box<Lot>),
}

fn months_since(
    draft: &Draft<'_>,
    allowance: &Allowance,
    since: DateTime<Utc>,
    dues: &Dues,
    context: Context<'_>,
) -> Vec<Month> {
    let (Some(billing), Some(own)) = (&draft.account.billing, Terms::of(allowance, context.catalog)) else {
        return Vec::new();
    };
    let credits = &draft.account.credits;
    let armed = credits.allowances.iter().find(|known| known.cause == allowance.cause);
    let windows = armed.map_or(u32::MAX, |known| known.windows);
    let ended = allowance.subscription.as_deref().and_then(|subscription| ended_at(billing, subscription));
    let begun = (1..windows).map_while(|n| own.window(allowance, n).map(|window| (n, window)));
    let begun = begun.take_while(|(_, (start, _))| *start <= context.now).filter(|(_, (start, _))| since < *start);
    let month = |(n, window): (u32, (DateTime<Utc>, DateTime<Utc>))| {
        let cause = window_cause(allowance, n);
        let terms = own.clone().kept(dues.keeping(&cause));
        let mut wanted = window_lot(allowance, &terms, n, window)?;
        wanted.expires_at = wanted.expires_at.into_iter().chain(ended).min();
        let has_passed = terms.has_passed(allowance, n, context.now);
        let mut lots = credits.lots.iter().chain(billing.closed_lots.values());
        match lots.find(|lot| lot.id == wanted.id) {
            Some(lot) => amended(lot, &wanted, has_passed, context.now).map(Month::Amended),
            None => (!has_passed).then(|| Month::Missed(Box::new(wanted))),
        }
    };
    begun.filter_map(month).collect()
}

fn amended(lot: &Lot, wanted: &Lot, has_passed: bool, now: DateTime<Utc>) -> Option<LotAmended> {
    let forgotten = has_passed && lot.spent() == 0 && lot.repaid == 0 && lot.held == 0;
    let (added, from_expired) = match (forgotten, wanted.is_expired_at(now)) {
        (true, _) => (-lot.remaining, lot.expired),
        (false, true) => (0, 0),
        (false, false) => (lot.expired, lot.expired),
    };
    let is_same = (lot.expires_at, lot.keeps_earlier) == (wanted.expires_at, wanted.keeps_earlier);
    (forgotten || !is_same).then(|| LotAmended {
        lot: lot.id,
        added,
        from_expired,
        effective_at: lot.effective_at,
        expires_at: wanted.expires_at,
        keeps_earlier: wanted.keeps_earlier,
        forgotten,
        cause: lot.cause.to_string(),
    })
}
