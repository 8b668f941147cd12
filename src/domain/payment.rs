//! One payment: a PaymentIntent with its charges, refunds and disputes, in whatever order they were heard of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::stripe_object::{Charge, Dispute, PaymentIntent, Refund};
use super::tracked::{self, Change, Tracked};

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Never tried.
    Open,
    Processing,
    Succeeded,
    /// The last attempt failed.
    Failed,
    Canceled,
}

/// Everything known of one payment. Its id is that of the PaymentIntent; for a charge without one, the charge's.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    pub intent: Option<Tracked<PaymentIntent>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub charges: BTreeMap<String, Tracked<Charge>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refunds: BTreeMap<String, Tracked<Refund>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disputes: BTreeMap<String, Tracked<Dispute>>,
    /// The first second in which any notification told that a refund had failed or a dispute was won, by their ids. The newest
    /// notification may be a later one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub returned_at: BTreeMap<String, i64>,
    /// The order it pays, as any snapshot of the PaymentIntent told: older API versions do not tell.
    pub order_reference: Option<String>,
    /// Charges that any object named together with this PaymentIntent; some objects name only their charge.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub charge_ids: BTreeSet<String>,
    pub stripe_invoice_id: Option<String>,
    pub stripe_checkout_session_id: Option<String>,
}

/// Money that a refund or dispute had taken and that came back; times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned<'a> {
    /// Of the refund or dispute.
    pub id: &'a str,
    /// In minor units.
    pub amount: i64,
    pub taken_at: i64,
    pub returned_at: i64,
}

impl Payment {
    pub fn status(&self) -> PaymentStatus {
        if let Some(intent) = &self.intent {
            match intent.current.status.as_str() {
                "succeeded" => return PaymentStatus::Succeeded,
                "canceled" => return PaymentStatus::Canceled,
                "processing" => return PaymentStatus::Processing,
                _ if intent.current.last_payment_error.is_some() => return PaymentStatus::Failed,
                _ => {}
            }
        }
        match self.last_charge().map(|charge| charge.status.as_str()) {
            Some("succeeded") => PaymentStatus::Succeeded,
            Some("failed") => PaymentStatus::Failed,
            Some(_) => PaymentStatus::Processing,
            None => PaymentStatus::Open,
        }
    }

    /// The last attempt, if there was one that this ledger heard of.
    pub fn last_charge(&self) -> Option<&Charge> {
        let named = self.intent.as_ref().and_then(|intent| intent.current.latest_charge.as_ref());
        named.and_then(|id| self.charges.get(id)).map(|charge| &*charge.current).or_else(|| {
            let charges = self.charges.values().map(|charge| &*charge.current);
            charges.max_by_key(|charge| (charge.created, charge.status == "succeeded", charge.id.clone()))
        })
    }

    /// Id of the last attempt, also when only the PaymentIntent names it.
    pub fn last_charge_id(&self) -> Option<&str> {
        let named = self.intent.as_ref().and_then(|intent| intent.current.latest_charge.as_deref());
        named.or_else(|| self.last_charge().map(|charge| charge.id.as_str()))
    }

    pub fn currency(&self) -> Option<&str> {
        let intent = self.intent.as_ref().map(|intent| intent.current.currency.as_str());
        intent
            .or_else(|| self.last_charge().map(|charge| charge.currency.as_str()))
            .or_else(|| self.refunds.values().next().map(|refund| refund.current.currency.as_str()))
            .or_else(|| self.disputes.values().next().map(|dispute| dispute.current.currency.as_str()))
    }

    pub fn amount(&self) -> i64 {
        let intent = self.intent.as_ref().map(|intent| intent.current.amount);
        intent.or_else(|| self.last_charge().map(|charge| charge.amount)).unwrap_or(0)
    }

    /// What arrived, before refunds and disputes.
    pub fn amount_received(&self) -> i64 {
        let captured = |charge: &Charge| {
            if charge.status == "succeeded" { charge.amount_captured } else { 0 }
        };
        let intent = self.intent.as_ref().map_or(0, |intent| intent.current.amount_received);
        intent.max(self.charges.values().map(|charge| captured(&charge.current)).sum())
    }

    /// What went back by refunds that have not failed.
    ///
    /// Older API versions tell of a refund only by the charge's running total, newer ones by the refund itself too, and
    /// either may be the later news: the larger counts. A failed refund lowers a total that was told before it failed.
    pub fn amount_refunded(&self) -> i64 {
        let good = self.refunds.values().filter(|refund| !refund.current.has_failed());
        let by_refunds: i64 = good.map(|refund| refund.current.amount).sum();
        let by_charges: i64 = self.charges.values().map(|charge| self.refunded_by_charge(charge)).sum();
        by_refunds.max(by_charges)
    }

    fn refunded_by_charge(&self, charge: &Tracked<Charge>) -> i64 {
        let failed_since = self.refunds.values().filter(|refund| {
            refund.current.has_failed()
                && refund.current.charge.as_deref() == Some(charge.current.id.as_str())
                && refund.observed_at >= charge.observed_at
        });
        let failed: i64 = failed_since.map(|refund| refund.current.amount).sum();
        (charge.current.amount_refunded - failed).max(0)
    }

    /// The dispute opened last.
    pub fn last_dispute(&self) -> Option<&Dispute> {
        let disputes = self.disputes.values().map(|dispute| &*dispute.current);
        disputes.max_by_key(|dispute| (dispute.created, dispute.id.clone()))
    }

    pub fn amount_lost_in_dispute(&self) -> i64 {
        self.disputes.values().filter(|dispute| dispute.current.is_lost()).map(|dispute| dispute.current.amount).sum()
    }

    /// Takes an observation of a refund in; `false` when nothing new was learnt.
    pub fn observe_refund(&mut self, refund: &Refund, observed_at: i64, change: Change) -> bool {
        let is_return = refund.has_failed() && self.learn_return(&refund.id, observed_at);
        tracked::observe_child(&mut self.refunds, refund, observed_at, change) | is_return
    }

    /// Takes an observation of a dispute in; `false` when nothing new was learnt.
    pub fn observe_dispute(&mut self, dispute: &Dispute, observed_at: i64, change: Change) -> bool {
        let is_return = dispute.is_won() && self.learn_return(&dispute.id, observed_at);
        tracked::observe_child(&mut self.disputes, dispute, observed_at, change) | is_return
    }

    /// Notes that a notification told that money is back; `false` if one of as early a second did before.
    fn learn_return(&mut self, id: &str, observed_at: i64) -> bool {
        let first = self.returned_at.get(id).map_or(observed_at, |known| observed_at.min(*known));
        self.returned_at.insert(id.to_owned(), first) != Some(first)
    }

    /// What came back of refunds that failed and disputes that were won, in the order in which it was taken.
    pub fn returned(&self) -> Vec<Returned<'_>> {
        let refunds = self.refunds.values().map(|refund| &*refund.current).filter(|refund| refund.has_failed());
        let refunds = refunds.map(|refund| (refund.id.as_str(), refund.amount, refund.created));
        let disputes = self.disputes.values().map(|dispute| &*dispute.current).filter(|dispute| dispute.is_won());
        let disputes = disputes.map(|dispute| (dispute.id.as_str(), dispute.amount, dispute.created));
        let returned = refunds.chain(disputes).filter_map(|(id, amount, created)| {
            Some(Returned { id, amount, taken_at: created?, returned_at: *self.returned_at.get(id)? })
        });
        let mut returned: Vec<_> = returned.collect();
        returned.sort_unstable_by_key(|returned| (returned.taken_at, returned.id));
        returned
    }

    /// What open disputes withhold.
    pub fn amount_in_dispute(&self) -> i64 {
        self.disputes.values().filter(|dispute| dispute.current.is_open()).map(|dispute| dispute.current.amount).sum()
    }

    /// The PaymentIntent refers to this invoice.
    pub fn is_for_invoice(&self, invoice: &str) -> bool {
        self.order_reference.as_ref().is_some_and(|reference| invoice.starts_with(reference.as_str()))
    }

    /// Unix second of the earliest object, for listings.
    pub fn created(&self) -> i64 {
        let intent = self.intent.as_ref().and_then(|intent| intent.current.created);
        let charges = self.charges.values().filter_map(|charge| charge.current.created);
        let refunds = self.refunds.values().filter_map(|refund| refund.current.created);
        let disputes = self.disputes.values().filter_map(|dispute| dispute.current.created);
        intent.into_iter().chain(charges).chain(refunds).chain(disputes).min().unwrap_or(0)
    }

    /// Takes in what another copy of the same payment has heard.
    pub fn merge(&mut self, other: Self) {
        tracked::merge(&mut self.intent, other.intent);
        merge_all(&mut self.charges, other.charges);
        merge_all(&mut self.refunds, other.refunds);
        merge_all(&mut self.disputes, other.disputes);
        for (id, returned_at) in other.returned_at {
            self.learn_return(&id, returned_at);
        }
        self.charge_ids.extend(other.charge_ids);
        merge_least(&mut self.order_reference, other.order_reference);
        merge_least(&mut self.stripe_invoice_id, other.stripe_invoice_id);
        merge_least(&mut self.stripe_checkout_session_id, other.stripe_checkout_session_id);
    }
}

/// Keeps one of two candidates, the same one whichever copy is merged into which.
pub fn merge_least(known: &mut Option<String>, other: Option<String>) {
    *known = match (known.take(), other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

/// Merges what two copies of a family of objects have seen.
pub fn merge_all<T: tracked::Snapshot>(known: &mut BTreeMap<String, Tracked<T>>, others: BTreeMap<String, Tracked<T>>) {
    for (id, other) in others {
        match known.get_mut(&id) {
            Some(tracked) => {
                tracked.merge(other);
            }
            None => {
                known.insert(id, other);
            }
        }
    }
}
