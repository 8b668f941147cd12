//! From accounts and their changes to the rows that readers see. Pure, and the same for live writes and a rebuild.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Serialize;

use crate::domain::account::{Account, Changes};
use crate::domain::billing::{Billing, Kind};
use crate::domain::event::Event;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::stripe_object::StripeObject;

/// An account's row in `balances`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceRow {
    pub account_id: String,
    pub version: i64,
    /// Of the account's last event.
    pub position: i64,
    /// Credits spendable at the account's last event.
    pub available: i64,
    /// JSON.
    pub state: String,
}

/// A row in `billing_objects`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    pub account_id: String,
    pub kind: &'static str,
    pub object_id: String,
    /// Unix seconds.
    pub sort_at: i64,
    /// JSON; `None`: the row goes.
    pub state: Option<String>,
}

/// The balance row of an account whose last event happened at `at`: a function of the log, whenever it is written.
pub fn balance_row(account: &Account, at: DateTime<Utc>) -> Result<BalanceRow, serde_json::Error> {
    Ok(BalanceRow {
        account_id: account.id.as_str().to_owned(),
        version: account.version,
        position: account.position,
        available: account.credits.available_at(at),
        state: serde_json::to_string(&account.credits)?,
    })
}

/// The rows of what changed beside the balance.
pub fn object_rows(account: &Account, changes: &Changes) -> Result<Vec<ObjectRow>, serde_json::Error> {
    let row = |(kind, id): &(Kind, String)| {
        let (sort_at, state) = match (kind, &account.billing) {
            // A debit closes lots without the rest of the account in memory.
            (Kind::ClosedLot, None) => {
                let lot = changes.closed_lots.values().find(|lot| lot.id.to_string() == *id);
                let state = lot.map(serde_json::to_string).transpose()?;
                (lot.map_or(0, |lot| lot.effective_at.timestamp()), state)
            }
            (Kind::UsageDay, None) => {
                let day = changes.usage_days.get(id);
                (start_of(id), day.map(serde_json::to_string).transpose()?)
            }
            (_, Some(billing)) => object_state(billing, *kind, id)?,
            (_, None) => (0, None),
        };
        Ok(ObjectRow {
            account_id: account.id.as_str().to_owned(),
            kind: kind.as_str(),
            object_id: id.clone(),
            sort_at,
            state,
        })
    };
    changes.touched.iter().map(row).chain(hold_rows(account, changes)).collect()
}

/// The rows of holds that were placed, changed or ended. No account keeps those that have ended, so only what changed
/// tells of them.
fn hold_rows(account: &Account, changes: &Changes) -> impl Iterator<Item = Result<ObjectRow, serde_json::Error>> {
    changes.holds.iter().map(|(id, record)| {
        Ok(ObjectRow {
            account_id: account.id.as_str().to_owned(),
            kind: Kind::Hold.as_str(),
            object_id: id.to_string(),
            sort_at: record.as_ref().map_or(0, |record| record.hold.created_at.timestamp()),
            state: record.as_ref().map(serde_json::to_string).transpose()?,
        })
    })
}

/// All rows beside its balance of an account that `changes` tell the whole history of.
pub fn all_object_rows(account: &Account, changes: &Changes) -> Result<Vec<ObjectRow>, serde_json::Error> {
    let Some(billing) = &account.billing else { return Ok(Vec::new()) };
    let holds = hold_rows(account, changes).filter(|row| row.as_ref().map_or(true, |row| row.state.is_some()));
    let row = |(kind, object_id): (Kind, String)| {
        let (sort_at, state) = object_state(billing, kind, &object_id)?;
        Ok(ObjectRow { account_id: account.id.as_str().to_owned(), kind: kind.as_str(), object_id, sort_at, state })
    };
    billing.ids().into_iter().map(row).chain(holds).collect()
}

/// When an object came to be, for listings, and its JSON.
fn object_state(billing: &Billing, kind: Kind, id: &str) -> Result<(i64, Option<String>), serde_json::Error> {
    fn found<T: Serialize>(
        object: Option<&T>,
        created: impl FnOnce(&T) -> Option<i64>,
    ) -> Result<(i64, Option<String>), serde_json::Error> {
        let Some(object) = object else { return Ok((0, None)) };
        Ok((created(object).unwrap_or(0), Some(serde_json::to_string(object)?)))
    }
    match kind {
        Kind::Customer => found(billing.customers.get(id), |object| Some(object.observed_at)),
        Kind::Subscription => found(billing.subscriptions.get(id), |object| object.current.created),
        Kind::Invoice => found(billing.invoices.get(id), |record| record.current().and_then(|invoice| invoice.created)),
        Kind::Payment => found(billing.payments.get(id), |payment| Some(payment.created())),
        Kind::CheckoutSession => found(billing.checkout_sessions.get(id), |record| record.session.current.created),
        Kind::CreditNote => found(billing.credit_notes.get(id), |object| object.current.created),
        Kind::PaymentMethod => found(billing.payment_methods.get(id), |object| object.current.created),
        Kind::SubscriptionSchedule => found(billing.subscription_schedules.get(id), |object| object.current.created),
        Kind::UpcomingInvoice => found(billing.upcoming_invoices.get(id), |object| Some(object.observed_at)),
        Kind::ActiveEntitlements => found(billing.active_entitlements.get(id), |object| Some(object.observed_at)),
        Kind::CatalogObject => found(billing.catalog_objects.get(id), |object| Some(object.observed_at)),
        Kind::ClosedLot => found(billing.closed_lots.get(id), |lot| Some(lot.effective_at.timestamp())),
        Kind::Hold => Ok((0, None)),
        Kind::UsageDay => found(billing.usage_days.get(id), |_| Some(start_of(id))),
    }
}

/// Unix second in which a day begins.
fn start_of(day: &str) -> i64 {
    let day = day.parse::<NaiveDate>().unwrap_or_default();
    day.and_time(NaiveTime::MIN).and_utc().timestamp()
}

/// The Stripe ids that lead to the account in whose stream `event` stands as number `version`.
pub fn links(account: &AccountId, version: i64, event: &Event) -> Vec<String> {
    let mut links = links_of_event(event);
    // A stream that bears a Stripe id is found by it, whatever its first event names.
    if version == 1 && account.standing() != Ownership::Account && !links.iter().any(|link| link == account.as_str()) {
        links.push(account.as_str().to_owned());
    }
    links
}

fn links_of_event(event: &Event) -> Vec<String> {
    match event {
        Event::CustomerLinked(linked) => vec![linked.stripe_customer_id.clone()],
        Event::StripeObserved(observation) => links_of(&observation.object),
        Event::AccountAbsorbed(absorbed) => {
            let billing = &absorbed.billing;
            let mut links: Vec<String> = billing.customers.keys().cloned().collect();
            links.extend(billing.invoices.keys().cloned());
            links.extend(billing.payments.keys().cloned());
            links.extend(billing.payment_methods.keys().cloned());
            links.extend(billing.subscriptions.values().filter_map(|object| object.current.customer.clone()));
            links.extend(absorbed.links.iter().cloned());
            links.sort();
            links.dedup();
            links
        }
        _ => Vec::new(),
    }
}

/// Only ids by which an object that does not name its customer may be asked for.
fn links_of(object: &StripeObject) -> Vec<String> {
    let (customer, own) = match object {
        StripeObject::Customer(customer) => (Some(&customer.id), None),
        StripeObject::Subscription(subscription) => (subscription.customer.as_ref(), None),
        StripeObject::Invoice(invoice) => (invoice.customer.as_ref(), Some(&invoice.id)),
        StripeObject::InvoicePayment(link) => (Some(&link.payment_intent), Some(&link.invoice)),
        StripeObject::PaymentIntent(intent) => (intent.customer.as_ref(), Some(&intent.id)),
        StripeObject::Charge(charge) => (charge.customer.as_ref(), charge.payment_intent.as_ref().or(Some(&charge.id))),
        StripeObject::Refund(refund) => (None, refund.payment_intent.as_ref().or(refund.charge.as_ref())),
        StripeObject::Dispute(dispute) => (None, dispute.payment_intent.as_ref().or(dispute.charge.as_ref())),
        StripeObject::CreditNote(note) => (note.customer.as_ref(), note.invoice.as_ref()),
        StripeObject::CheckoutSession(session) => (session.customer.as_ref(), session.payment_intent.as_ref()),
        StripeObject::PaymentMethod(method) => (method.customer.as_ref(), Some(&method.id)),
        StripeObject::SubscriptionSchedule(schedule) => (schedule.customer.as_ref(), None),
        StripeObject::UpcomingInvoice(upcoming) => (upcoming.customer.as_ref(), None),
        StripeObject::ActiveEntitlements(active) => (Some(&active.customer), None),
        StripeObject::CatalogObject(_) => (None, None),
    };
    customer.into_iter().chain(own).cloned().collect()
}
