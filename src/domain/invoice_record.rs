//! An invoice, with the payments that settle it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::stripe_object::{Invoice, InvoicePaymentStatus};
use super::tracked::{self, Tracked};

/// An invoice, and what is known about it beside its snapshots.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InvoiceRecord {
    pub invoice: Option<Tracked<Invoice>>,
    /// The one of its PaymentIntents that is shown where only one can be: of those that paid, else of those that may, the
    /// one with the least id.
    pub payment_intent: Option<String>,
    /// All PaymentIntents that were ever attached, with the furthest that was told of each: an invoice may be paid in parts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    payments: BTreeMap<String, InvoicePaymentStatus>,
    /// Unix second of the first `invoice.payment_failed`.
    pub first_failed_at: Option<i64>,
    /// Attempts that failed, or wait for the payer, as StripeEvents told: another of them may have shown the same invoice.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
    /// Lines whose allowance has been armed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub armed: BTreeSet<String>,
}

impl InvoiceRecord {
    /// The newest snapshot.
    pub fn current(&self) -> Option<&Invoice> {
        self.invoice.as_ref().map(|tracked| &*tracked.current)
    }

    /// A collection attempt failed, and the money has not come in since.
    pub fn is_unpaid_after_failure(&self) -> bool {
        let open = |invoice: &Invoice| matches!(invoice.status.as_str(), "open" | "uncollectible");
        self.first_failed_at.is_some() && self.current().is_none_or(open)
    }

    /// Takes in that a PaymentIntent is attached; `false` when that says nothing new.
    pub fn attach(&mut self, payment_intent: &str, status: InvoicePaymentStatus) -> bool {
        if self.payments.get(payment_intent).is_some_and(|known| *known >= status) {
            return false;
        }
        self.payments.insert(payment_intent.to_owned(), status);
        let shown = self.payments.iter().min_by_key(|(id, status)| {
            let rank = match status {
                InvoicePaymentStatus::Paid => 0,
                InvoicePaymentStatus::Open => 1,
                InvoicePaymentStatus::Canceled => 2,
            };
            (rank, *id)
        });
        self.payment_intent = shown.map(|(id, _)| id.clone());
        true
    }

    /// The PaymentIntents that paid it, or may; not those that were canceled or detached.
    pub fn payment_intents(&self) -> impl Iterator<Item = &str> {
        let attached = self.payments.iter().filter(|(_, status)| **status != InvoicePaymentStatus::Canceled);
        attached.map(|(id, _)| id.as_str())
    }

    /// Takes in what another copy of the same invoice has heard.
    pub fn merge(&mut self, other: Self) {
        for (id, status) in &other.payments {
            self.attach(id, *status);
        }
        tracked::merge(&mut self.invoice, other.invoice);
        self.first_failed_at = match (self.first_failed_at, other.first_failed_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.told.extend(other.told);
        self.armed.extend(other.armed);
    }
}
