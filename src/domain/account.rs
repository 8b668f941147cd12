//! One account: its state, and how events change it.

mod absorb;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::billing::{Billing, Kind, Touched};
use super::credit::{Access, AccessItem, Credits, Draw, Lot, LotSource};
use super::event::{
    AllowanceProgress, CreditsClawedBack, CreditsGranted, CreditsReinstated, Event, HoldPlaced, LotAmended,
    SubscriptionCreditsEnded, UsageRecorded,
};
use super::hold::{Hold, HoldRecord, HoldStatus};
use super::ids::{AccountId, LotId};
use super::stripe_object::{Invoice, StripeObject, Subscription};
use super::subscription_record::SubscriptionRecord;
use super::usage::{UsageAction, UsageDay, Use};

/// The state of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub id: AccountId,
    /// Events in the stream so far.
    pub version: i64,
    /// Where the last of them stands in its partition; 0 before the first.
    pub position: i64,
    pub credits: Credits,
    /// `None` when it was not loaded: a debit needs only the credits.
    pub billing: Option<Box<Billing>>,
}

/// What a run of events wrote; the projector turns it into rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    pub touched: Touched,
    /// Lots that left the hot part, or changed after they had.
    pub closed_lots: BTreeMap<LotId, Lot>,
    /// Holds that were placed, changed or ended; `None`: another account has it now.
    pub holds: BTreeMap<Uuid, Option<HoldRecord>>,
    /// Days of usage that left the hot part.
    pub usage_days: BTreeMap<String, UsageDay>,
}

impl Changes {
    fn hold(&mut self, hold: &Hold, status: HoldStatus) {
        self.holds.insert(hold.id, Some(HoldRecord::of(hold.clone(), status)));
    }
}

impl Account {
    /// An account that nothing is known of, all of it in memory.
    pub fn new(id: AccountId) -> Self {
        Self { id, version: 0, position: 0, credits: Credits::default(), billing: Some(Box::default()) }
    }

    /// All lots there ever were: those with something left in them, and, if billing was loaded, the others.
    pub fn all_lots(&self) -> impl Iterator<Item = &Lot> + Clone {
        self.credits.lots.iter().chain(self.billing.iter().flat_map(|billing| billing.closed_lots.values()))
    }

    /// No event has happened to it.
    pub fn is_unknown(&self) -> bool {
        self.version == 0
    }

    /// Applies one event. The only way the state of an account ever changes, live and in a rebuild.
    pub fn evolve(&mut self, event: &Event, changes: &mut Changes) {
        self.version += 1;
        match event {
            Event::AccountOpened(opened) => self.opened_at_latest(opened.at),
            Event::CustomerLinked(_) | Event::Reconciled(_) | Event::CatalogApplied(_) => {}
            Event::AccountAbsorbed(absorbed) => self.absorb(absorbed, changes),
            Event::AccountMerged(merged) => self.clear_into(&merged.into, changes),
            Event::StripeObserved(observation) => {
                if let Some(created) = DateTime::from_timestamp(observation.created, 0) {
                    self.opened_at_latest(created);
                }
                if let Some(billing) = &mut self.billing {
                    billing.record(observation, &mut changes.touched);
                    self.refresh_access(&observation.object);
                }
            }
            Event::AllowanceArmed(armed) => {
                if let Some(billing) = &mut self.billing
                    && let Some(record) = billing.invoices.get_mut(&armed.allowance.invoice)
                {
                    record.armed.insert(armed.line.clone());
                    changes.touched.insert((Kind::Invoice, armed.allowance.invoice.clone()));
                }
                self.credits.arm(&armed.allowance);
            }
            Event::AllowanceAdvanced(progress) => self.advance(progress),
            Event::SubscriptionCreditsEnded(ended) => self.end_subscription_credits(ended, changes),
            Event::CreditsGranted(granted) => self.grant(granted, changes),
            Event::CreditsExpired(expired) => {
                for draw in &expired.lots {
                    if let Some(lot) = self.credits.lot_mut(draw.lot) {
                        lot.remaining -= draw.amount;
                        lot.expired += draw.amount;
                    }
                }
                self.close_empty_lots(changes);
            }
            Event::DebtRepaid(repaid) => {
                self.credits.count_kept(&repaid.kept);
                self.credits.note_spent_later(&repaid.lots);
                for draw in &repaid.lots {
                    if let Some(lot) = self.credits.lot_mut(draw.lot) {
                        lot.remaining -= draw.amount;
                        lot.repaid += draw.amount;
                    }
                    self.credits.owe_less(draw.amount);
                }
                self.close_empty_lots(changes);
            }
            Event::CreditsClawedBack(clawed_back) => self.claw_back(clawed_back, changes),
            Event::CreditsReinstated(reinstated) => self.reinstate(reinstated, changes),
            Event::LotAmended(amended) => self.amend_lot(amended, changes),
            Event::CreditsDebited(debited) => {
                self.credits.count_kept(&debited.kept);
                self.spend(&debited.lots, changes);
                self.credits.owe(debited.debt, debited.debt_since);
                self.credits.overage += debited.overage;
                if let (Some(feature), Some(quantity), Some(counted)) =
                    (&debited.feature, debited.quantity, debited.counted)
                {
                    let credits = if debited.unlimited { 0 } else { debited.amount };
                    self.count_use(Use { feature, quantity, credits, counted, is_total: false }, changes);
                }
            }
            Event::HoldPlaced(HoldPlaced { hold, .. }) => {
                self.change_held(hold, 1);
                self.credits.holds.push(hold.clone());
                changes.hold(hold, HoldStatus::Open);
            }
            Event::HoldExtended(extended) => {
                if let Some(hold) = self.credits.holds.iter_mut().find(|hold| hold.id == extended.hold) {
                    hold.expires_at = extended.expires_at;
                    changes.hold(hold, HoldStatus::Open);
                }
            }
            Event::HoldCaptured(captured) => {
                self.credits.count_kept(&captured.kept);
                self.end_hold(captured.hold, HoldStatus::Captured, changes);
                if let Some(Some(record)) = changes.holds.get_mut(&captured.hold) {
                    (record.captured, record.capture) = (captured.amount, Some(captured.cover.clone()));
                }
                self.spend(&captured.cover.lots, changes);
                self.credits.owe(captured.cover.debt, captured.debt_since);
                self.credits.overage += captured.cover.overage;
                if let (Some(feature), Some(quantity), Some(counted)) =
                    (&captured.feature, captured.quantity, captured.counted)
                {
                    let credits = if captured.cover.unlimited { 0 } else { captured.amount };
                    self.count_use(Use { feature, quantity, credits, counted, is_total: false }, changes);
                }
            }
            Event::HoldReleased(released) => self.end_hold(released.hold, HoldStatus::Released, changes),
            Event::HoldExpired(expired) => self.end_hold(expired.hold, HoldStatus::Expired, changes),
            Event::ChargeRejected(_) => {}
            Event::UsageRecorded(recorded) => {
                let UsageRecorded { feature, added, counted, action, .. } = recorded;
                let is_total = *action == UsageAction::Set;
                self.count_use(Use { feature, quantity: *added, credits: 0, counted: *counted, is_total }, changes);
            }
            Event::OverrideSet(set) => {
                self.credits.overrides.insert(set.feature.clone(), set.set.clone());
            }
            Event::OverrideRemoved(removed) => {
                self.credits.overrides.remove(&removed.feature);
            }
            Event::AccountSuspended(suspended) => {
                self.credits.suspension = Some(Box::new(suspended.suspension.clone()))
            }
            Event::AccountReinstated(_) => self.credits.suspension = None,
            Event::LowBalanceSet(set) => self.credits.low_balance = set.threshold,
        }
    }

    fn spend(&mut self, draws: &[Draw], changes: &mut Changes) {
        self.credits.note_spent_later(draws);
        for draw in draws {
            if let Some(lot) = self.credits.lot_mut(draw.lot) {
                lot.remaining -= draw.amount;
            }
        }
        self.close_empty_lots(changes);
    }

    /// Gives what a hold has set aside back to its lots, and closes it.
    fn end_hold(&mut self, id: Uuid, status: HoldStatus, changes: &mut Changes) {
        let Some(at) = self.credits.holds.iter().position(|hold| hold.id == id) else { return };
        let hold = self.credits.holds.remove(at);
        self.change_held(&hold, -1);
        changes.hold(&hold, status);
    }

    fn change_held(&mut self, hold: &Hold, sign: i64) {
        for draw in &hold.cover.lots {
            if let Some(lot) = self.credits.lot_mut(draw.lot) {
                lot.held += sign * draw.amount;
            }
        }
    }

    fn opened_at_latest(&mut self, at: DateTime<Utc>) {
        if self.credits.opened_at.is_none_or(|known| at < known) {
            self.credits.recount_free_months(|credits| credits.opened_at = Some(at));
        }
    }

    fn advance(&mut self, progress: &AllowanceProgress) {
        let allowances = &mut self.credits.allowances;
        if progress.done {
            allowances.retain(|allowance| allowance.cause != progress.cause);
        } else if let Some(allowance) = allowances.iter_mut().find(|allowance| allowance.cause == progress.cause) {
            allowance.windows = progress.windows;
        }
    }

    fn end_subscription_credits(&mut self, ended: &SubscriptionCreditsEnded, changes: &mut Changes) {
        let ends = |lot: &Lot| {
            let of_subscription = lot.subscription.as_deref() == Some(ended.subscription.as_str());
            let of_free_plan = lot.source == LotSource::FreePlan && ended.restarts_free_plan;
            (of_subscription || of_free_plan) && lot.expires_at.is_none_or(|known| known > ended.at)
        };
        if let Some(billing) = &mut self.billing {
            for lot in billing.closed_lots.values_mut().filter(|lot| ends(lot)) {
                lot.expires_at = Some(ended.at);
                self.credits.learn_cap(lot);
                changes.touched.insert((Kind::ClosedLot, lot.id.to_string()));
                changes.closed_lots.insert(lot.id, lot.clone());
            }
            billing.closed_lots.retain(|_, lot| !lot.never_began());
            changes.closed_lots.retain(|_, lot| !lot.never_began());
        }
        let credits = &mut self.credits;
        let mut lots = std::mem::take(&mut credits.lots);
        for lot in lots.iter_mut().filter(|lot| ends(lot)) {
            lot.expires_at = Some(ended.at);
        }
        for lot in lots {
            credits.learn_cap(&lot);
            credits.insert_lot(lot);
        }
        for allowance in &mut credits.allowances {
            if allowance.subscription.as_deref() == Some(ended.subscription.as_str()) {
                allowance.period_end = allowance.period_end.min(ended.at);
            }
        }
        if ended.restarts_free_plan {
            credits.free_since = credits.free_since.max(Some(ended.at));
            credits.free_until = None;
        }
    }

    fn grant(&mut self, granted: &CreditsGranted, changes: &mut Changes) {
        let lot = granted.lot.clone();
        match lot.source {
            LotSource::FreePlan => self.credits.free_until = self.credits.free_until.max(lot.expires_at),
            LotSource::Pack => {
                if let (Some(billing), Some(session)) = (&mut self.billing, lot.bought_by.as_deref())
                    && let Some(record) = billing.checkout_sessions.get_mut(session)
                {
                    record.credits = Some(lot.granted);
                    changes.touched.insert((Kind::CheckoutSession, session.to_owned()));
                }
            }
            LotSource::Plan | LotSource::Promotion | LotSource::Manual | LotSource::Reinstatement => {}
        }
        if let Some(progress) = &granted.allowance {
            self.advance(progress);
        }
        self.credits.learn_cap(&lot);
        self.credits.insert_lot(lot);
        self.close_empty_lots(changes);
    }

    fn claw_back(&mut self, event: &CreditsClawedBack, changes: &mut Changes) {
        self.credits.owe(event.debt, event.debt_since);
        self.change_lot(event.lot, changes, |lot| {
            lot.claimed_back += event.claimed;
            lot.clawed_back += event.clawed_back + event.from_expired;
            lot.expired -= event.from_expired;
            lot.owed += event.debt;
            lot.remaining -= event.clawed_back;
        });
        self.close_empty_lots(changes);
    }

    fn reinstate(&mut self, event: &CreditsReinstated, changes: &mut Changes) {
        self.change_lot(event.lot, changes, |lot| {
            lot.claimed_back -= event.claimed;
            lot.clawed_back -= event.reinstated;
            lot.owed -= event.debt;
            lot.remaining += event.reinstated;
        });
        self.reopen_lot(event.lot, changes);
        let forgiven = event.debt.min(self.credits.debt);
        self.credits.owe_less(forgiven);
        self.return_repaid(event.debt - forgiven, changes);
        self.close_empty_lots(changes);
    }

    /// Changes what a lot has and when, wherever it is kept. One that should never have been is forgotten.
    fn amend_lot(&mut self, amended: &LotAmended, changes: &mut Changes) {
        let LotAmended { lot: id, added, from_expired, effective_at, expires_at, keeps_earlier, .. } = amended;
        let open = self.credits.lots.iter().position(|lot| lot.id == *id).map(|at| self.credits.lots.remove(at));
        let closed = || self.billing.as_mut().and_then(|billing| billing.closed_lots.remove(&id.to_string()));
        let Some(mut lot) = open.or_else(closed) else { return };
        changes.touched.insert((Kind::ClosedLot, id.to_string()));
        changes.closed_lots.remove(id);
        lot.granted += added - from_expired;
        lot.remaining += added;
        lot.expired -= from_expired;
        (lot.effective_at, lot.expires_at, lot.keeps_earlier) = (*effective_at, *expires_at, *keeps_earlier);
        self.credits.caps.retain(|cap| cap.lot != *id || lot.keeps_earlier.is_some());
        if !amended.forgotten {
            self.credits.learn_cap(&lot);
            self.credits.insert_lot(lot);
            self.close_empty_lots(changes);
        }
    }

    /// Gives credits back to the lots that had made good a debt.
    fn return_repaid(&mut self, mut amount: i64, changes: &mut Changes) {
        let lots = self.all_lots().filter(|lot| lot.repaid > 0);
        let repaid: Vec<(LotId, i64)> = lots.map(|lot| (lot.id, lot.repaid)).collect();
        for (id, repaid) in repaid {
            let returned = repaid.min(amount);
            amount -= returned;
            self.change_lot(id, changes, |lot| {
                lot.repaid -= returned;
                lot.remaining += returned;
            });
            self.reopen_lot(id, changes);
            self.credits.keep_again(id, returned);
        }
    }

    /// Changes a lot wherever it is kept.
    fn change_lot(&mut self, id: LotId, changes: &mut Changes, change: impl FnOnce(&mut Lot)) {
        if let Some(lot) = self.credits.lot_mut(id) {
            change(lot);
            let lot = lot.clone();
            self.credits.learn_cap(&lot);
        } else if let Some(billing) = &mut self.billing
            && let Some(lot) = billing.closed_lots.get_mut(&id.to_string())
        {
            change(lot);
            self.credits.learn_cap(lot);
            changes.touched.insert((Kind::ClosedLot, id.to_string()));
            changes.closed_lots.insert(id, lot.clone());
        }
    }

    /// Brings a closed lot with something in it back to the spendable ones.
    fn reopen_lot(&mut self, id: LotId, changes: &mut Changes) {
        let Some(billing) = &mut self.billing else {
            return;
        };
        if billing.closed_lots.get(&id.to_string()).is_some_and(|lot| lot.remaining > 0)
            && let Some(lot) = billing.closed_lots.remove(&id.to_string())
        {
            changes.closed_lots.remove(&id);
            changes.touched.insert((Kind::ClosedLot, id.to_string()));
            self.credits.insert_lot(lot);
        }
    }

    fn close_empty_lots(&mut self, changes: &mut Changes) {
        for lot in self.credits.take_empty_lots() {
            changes.touched.insert((Kind::ClosedLot, lot.id.to_string()));
            if lot.never_began() {
                continue;
            }
            if let Some(billing) = &mut self.billing {
                billing.closed_lots.insert(lot.id.to_string(), lot.clone());
            }
            changes.closed_lots.insert(lot.id, lot);
        }
    }

    fn refresh_access(&mut self, object: &StripeObject) {
        match object {
            StripeObject::Subscription(subscription) => {
                for (price, key) in subscription.lookup_keys() {
                    self.credits.learn_lookup_key(price, key);
                }
                self.refresh_access_of(&subscription.id);
            }
            StripeObject::Invoice(_) => self.refresh_access_of_all(),
            _ => {}
        }
    }

    /// Of all: an invoice may have been thought another subscription's, or nobody's.
    fn refresh_access_of_all(&mut self) {
        let known = self.billing.as_ref().map(|billing| billing.subscriptions.keys().cloned().collect::<Vec<_>>());
        for subscription in known.unwrap_or_default() {
            self.refresh_access_of(&subscription);
        }
    }

    /// Recomputes what the entitlement decision needs to know of a subscription.
    fn refresh_access_of(&mut self, id: &str) {
        self.credits.access.retain(|access| access.subscription != id);
        let Some(billing) = &self.billing else { return };
        let Some(tracked) = billing.subscriptions.get(id) else {
            return;
        };
        if tracked.current.has_ended() {
            return;
        }
        let access = access_of(&tracked.current, past_due_since(billing, id));
        let place = self.credits.access.partition_point(|known| known.subscription < access.subscription);
        self.credits.access.insert(place, access);
    }
}

/// Since when a payment is overdue: since it failed, or since Stripe said so of the subscription, whichever was heard of as
/// the earlier. What is heard later never moves it to a later moment. A failed payment that no period depends on says
/// nothing by itself: a change may wait for it while all goes on as before. Where Stripe makes the subscription overdue for
/// it, the subscription says so.
fn past_due_since(billing: &Billing, subscription: &str) -> Option<i64> {
    let of_subscription = billing.invoices.values().filter(|record| {
        let of_subscription = |invoice: &&Invoice| invoice.subscription.as_deref() == Some(subscription);
        let invoice = record.current().filter(of_subscription);
        invoice.is_some_and(Invoice::pays_for_period) && record.is_unpaid_after_failure()
    });
    let failed = of_subscription.filter_map(|record| record.first_failed_at).min();
    let told = billing.subscriptions.get(subscription).and_then(SubscriptionRecord::overdue_since);
    failed.into_iter().chain(told).min()
}

fn access_of(subscription: &Subscription, past_due_since: Option<i64>) -> Access {
    let items = subscription.items.iter().map(|item| AccessItem {
        price: item.price.id.clone(),
        lookup_key: item.price.lookup_key.clone(),
        quantity: item.quantity,
    });
    Access {
        subscription: subscription.id.clone(),
        status: subscription.status.clone(),
        items: items.collect(),
        period_start: subscription.current_period_start,
        period_end: subscription.current_period_end,
        past_due_since,
        trial_end: subscription.trial_end,
        paused: subscription.pause_collection.is_some(),
        created: subscription.created.unwrap_or(0),
    }
}
