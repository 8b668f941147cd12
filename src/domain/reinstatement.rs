//! Credits that a refund or dispute took for a while, and that came back too late for the lot they were taken from: it had
//! expired meanwhile. They become a lot of their own, which is good for as long as the old one had left when they were
//! taken. A function of what is known, as all settling is: what late news changes of such a lot is amended.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::claims::{RefundedShare, purchase_of};
use super::credit::{Lot, LotSource};
use super::draft::{Context, Draft};
use super::event::{CreditsGranted, Event, LotAmended};
use super::ids::LotId;
use super::payment::Returned;
use super::plan_change::Dues;

/// Grants what came back to lots that have expired, and amends what was granted of that before.
pub fn settle_reinstatements(draft: &mut Draft<'_>, context: Context<'_>, dues: &Dues) {
    let Some(billing) = &draft.account.billing else {
        return;
    };
    let lots = draft.account.all_lots();
    let mut wanted: BTreeMap<LotId, Lot> = BTreeMap::new();
    for lot in lots.clone() {
        let Some(purchase) = purchase_of(lot, billing) else { continue };
        let mut left = lot.expired;
        for returned in purchase.returned() {
            let share = RefundedShare::new(returned.amount, purchase.paid());
            let share = share.map_or(0, |share| share.of_credits(lot.granted - dues.excess(&lot.cause, lot.granted)));
            let Some(reinstated) = reinstated(lot, &returned, share.min(left)) else { continue };
            left -= reinstated.granted;
            wanted.insert(reinstated.id, reinstated);
        }
    }
    let known: Vec<&Lot> = lots.filter(|lot| lot.source == LotSource::Reinstatement).collect();
    let amended = known.iter().filter_map(|lot| amend(lot, wanted.remove(&lot.id)));
    let mut due: Vec<Event> = amended.map(Event::LotAmended).collect();
    due.extend(wanted.into_values().map(|lot| {
        let catalog = context.catalog_digest.to_owned();
        Event::CreditsGranted(CreditsGranted { lot, catalog, allowance: None, reason: None })
    }));
    for event in due {
        draft.emit(event);
    }
}

/// The lot that so many credits of an expired one become. `None`: nothing, or they were taken and came back while it lasted,
/// or it had expired before they were taken.
fn reinstated(lot: &Lot, returned: &Returned<'_>, credits: i64) -> Option<Lot> {
    let time = |second| DateTime::<Utc>::from_timestamp(second, 0);
    let (taken_at, returned_at) = (time(returned.taken_at)?, time(returned.returned_at)?);
    let expired_at = lot.expires_at.filter(|at| credits > 0 && taken_at < *at && *at <= returned_at)?;
    // Taken before it began, all its time was left.
    let left = expired_at - taken_at.max(lot.effective_at);
    Some(Lot {
        priority: lot.priority,
        expires_at: Some(returned_at.checked_add_signed(left)?),
        ..Lot::new(LotSource::Reinstatement, &format!("reinstatement:{}/{}", returned.id, lot.id), credits, returned_at)
    })
}

/// What late news changes of a reinstated lot: `wanted` is how it should be, if at all. What was spent of it stays spent.
fn amend(lot: &Lot, wanted: Option<Lot>) -> Option<LotAmended> {
    let gone = lot.granted - lot.spendable() - lot.expired;
    let (effective_at, expires_at) =
        wanted.as_ref().map_or((lot.effective_at, lot.expires_at), |wanted| (wanted.effective_at, wanted.expires_at));
    let change = wanted.map_or(0, |wanted| wanted.granted).max(gone) - lot.granted;
    let added = change.max(-lot.spendable());
    if change == 0 && (effective_at, expires_at) == (lot.effective_at, lot.expires_at) {
        return None;
    }
    let forgotten = lot.granted + change == 0;
    Some(LotAmended { added, from_expired: added - change, effective_at, expires_at, forgotten, ..LotAmended::of(lot) })
}
