//! News of a plan change that comes after later months of its period were granted: they are kept as the plan that was in
//! force, as if it had come in time.

use chrono::{DateTime, Utc};

use super::allowance::ended_at;
use super::credit::{Allowance, Lot};
use super::draft::{Context, Draft};
use super::event::{Event, LotAmended};
use super::plan_change::{Dues, window_cause};
use super::settle::{grant_window, window_lot};
use super::terms::Terms;

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
        if let Some(placed) = placed(draft, allowance, context) {
            draft.emit(Event::LotAmended(placed));
        }
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

/// A change of a month that was granted before anybody knew the day that its period is billed on: what rolls over of it lasts
/// to that day.
fn placed(draft: &Draft<'_>, allowance: &Allowance, context: Context<'_>) -> Option<LotAmended> {
    let unplaced = Terms::of(&Allowance { billed_from: None, ..allowance.clone() }, context.catalog)?;
    if !unplaced.has_unknown_months || unplaced.has_refills() {
        return None;
    }
    let terms = Terms::of(allowance, context.catalog)?;
    let (before, wanted) = (window(draft, allowance, &unplaced, 0)?, window(draft, allowance, &terms, 0)?);
    let lot = lot_of(draft, &wanted)?;
    if lot.expires_at == before.expires_at { amended(lot, &wanted, false, context.now) } else { None }
}

/// The whole lot of a window. Though the subscription lived longer, it would end with it.
fn window(draft: &Draft<'_>, allowance: &Allowance, terms: &Terms, n: u32) -> Option<Lot> {
    let billing = draft.account.billing.as_ref()?;
    let ended = allowance.subscription.as_deref().and_then(|subscription| ended_at(billing, subscription));
    let mut lot = window_lot(allowance, terms, n, terms.window(allowance, n)?)?;
    lot.expires_at = lot.expires_at.into_iter().chain(ended).min();
    Some(lot)
}

fn lot_of<'a>(draft: &'a Draft<'_>, wanted: &Lot) -> Option<&'a Lot> {
    draft.account.all_lots().find(|lot| lot.id == wanted.id)
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
    let Some(own) = Terms::of(allowance, context.catalog) else { return Vec::new() };
    let armed = draft.account.credits.allowances.iter().find(|known| known.cause == allowance.cause);
    let windows = armed.map_or(u32::MAX, |known| known.windows);
    let starts = (1..windows).map_while(|n| own.window(allowance, n).map(|(start, _)| (n, start)));
    let begun = starts.take_while(|(_, start)| *start <= context.now).filter(|(_, start)| since < *start);
    let month = |(n, _)| {
        let terms = own.clone().kept(dues.keeping(&window_cause(allowance, n)));
        let wanted = window(draft, allowance, &terms, n)?;
        let has_passed = terms.has_passed(allowance, n, context.now);
        match lot_of(draft, &wanted) {
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
        added,
        from_expired,
        expires_at: wanted.expires_at,
        keeps_earlier: wanted.keeps_earlier,
        forgotten,
        ..LotAmended::of(lot)
    })
}
