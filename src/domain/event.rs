//! Events: what happened, for ever. Each has a stored name and version; an upcaster lifts older versions when read.

mod credits;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

pub use self::credits::{
    AllowanceArmed, AllowanceProgress, ChargeRejected, CreditsClawedBack, CreditsDebited, CreditsExpired,
    CreditsGranted, CreditsReinstated, DebtRepaid, HoldCaptured, HoldExpired, HoldExtended, HoldPlaced, HoldReleased,
    LotAmended, SubscriptionCreditsEnded,
};
use super::billing::{Billing, Observation};
use super::credit::{Credits, is_zero};
use super::ids::AccountId;
use super::overrides::{Override, Suspension};
use super::reconciliation::Reconciled;
use super::stripe_object::StripeObject;
use super::usage::{Counted, UsageAction};

/// An account was created by a caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountOpened {
    pub at: DateTime<Utc>,
}

/// A Stripe customer belongs to this account from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomerLinked {
    pub stripe_customer_id: String,
}

/// Another stream turned out to belong to this account; all it held moved here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountAbsorbed {
    pub from: AccountId,
    pub credits: Credits,
    pub billing: Billing,
    /// Stripe ids that led to the other stream.
    #[serde(default)]
    pub links: Vec<String>,
    /// Credits by which this account's balance changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub balance_change: i64,
}

/// This stream turned out to belong to another account, and moved there with all it held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountMerged {
    pub into: AccountId,
}

/// A caller stated that a feature was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRecorded {
    pub feature: String,
    pub action: UsageAction,
    pub quantity: i64,
    /// By how much the day's total changed.
    pub added: i64,
    /// In UTC, such as `2026-01-15`.
    pub day: String,
    /// What was used of the feature on that day, with this.
    pub day_total: i64,
    pub counted: Counted,
}

/// An account may use a feature in another way than its plan says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideSet {
    pub feature: String,
    #[serde(flatten)]
    pub set: Override,
}

/// What the plan says of a feature holds again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideRemoved {
    pub feature: String,
    /// It was over already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// An account may do nothing until it is reinstated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountSuspended {
    #[serde(flatten)]
    pub suspension: Suspension,
}

/// A suspension ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountReinstated {
    pub at: DateTime<Utc>,
}

/// An account's holder is to be told when fewer credits than this are left, and no longer when the plan says.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LowBalanceSet {
    /// `None`: what the plan says holds again. 0: never.
    pub threshold: Option<i64>,
}

/// A catalog came into force. Recorded in the system's own stream.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogApplied {
    pub digest: String,
    pub catalog: Value,
    /// Digest of the catalog that last came whole, as a file, if this one is an amendment of it.
    pub base_digest: Option<String>,
}

/// An immutable past-tense fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    AccountOpened(AccountOpened),
    CustomerLinked(CustomerLinked),
    AccountAbsorbed(Box<AccountAbsorbed>),
    AccountMerged(AccountMerged),
    StripeObserved(Box<Observation>),
    Reconciled(Box<Reconciled>),
    AllowanceArmed(AllowanceArmed),
    AllowanceAdvanced(AllowanceProgress),
    SubscriptionCreditsEnded(SubscriptionCreditsEnded),
    CreditsGranted(CreditsGranted),
    CreditsExpired(CreditsExpired),
    DebtRepaid(DebtRepaid),
    CreditsClawedBack(CreditsClawedBack),
    CreditsReinstated(CreditsReinstated),
    LotAmended(LotAmended),
    CreditsDebited(CreditsDebited),
    HoldPlaced(HoldPlaced),
    HoldExtended(HoldExtended),
    HoldCaptured(HoldCaptured),
    HoldReleased(HoldReleased),
    HoldExpired(HoldExpired),
    ChargeRejected(ChargeRejected),
    UsageRecorded(UsageRecorded),
    OverrideSet(OverrideSet),
    OverrideRemoved(OverrideRemoved),
    AccountSuspended(AccountSuspended),
    AccountReinstated(AccountReinstated),
    LowBalanceSet(LowBalanceSet),
    CatalogApplied(Box<CatalogApplied>),
}

/// A stored event that this version of the service cannot read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("no event is called {name}; a newer version of the service may have written it")]
    UnknownName { name: String },
    #[error("{name} version {version} is newer than this version of the service can read")]
    UnknownVersion { name: String, version: i16 },
    #[error("the payload of {name} version {version} does not fit: {source}")]
    Payload { name: String, version: i16, source: serde_json::Error },
}

/// Version that new events are written in.
pub const EVENT_VERSION: i16 = 2;

impl Event {
    /// Stored name.
    pub fn name(&self) -> &'static str {
        match self {
            Event::AccountOpened(_) => "account_opened",
            Event::CustomerLinked(_) => "customer_linked",
            Event::AccountAbsorbed(_) => "account_absorbed",
            Event::AccountMerged(_) => "account_merged",
            Event::StripeObserved(observation) => observed_name(&observation.object),
            Event::Reconciled(_) => "reconciled",
            Event::AllowanceArmed(_) => "allowance_armed",
            Event::AllowanceAdvanced(_) => "allowance_advanced",
            Event::SubscriptionCreditsEnded(_) => "subscription_credits_ended",
            Event::CreditsGranted(_) => "credits_granted",
            Event::CreditsExpired(_) => "credits_expired",
            Event::DebtRepaid(_) => "debt_repaid",
            Event::CreditsClawedBack(_) => "credits_clawed_back",
            Event::CreditsReinstated(_) => "credits_reinstated",
            Event::LotAmended(_) => "lot_amended",
            Event::CreditsDebited(_) => "credits_debited",
            Event::HoldPlaced(_) => "hold_placed",
            Event::HoldExtended(_) => "hold_extended",
            Event::HoldCaptured(_) => "hold_captured",
            Event::HoldReleased(_) => "hold_released",
            Event::HoldExpired(_) => "hold_expired",
            Event::ChargeRejected(_) => "charge_rejected",
            Event::UsageRecorded(_) => "usage_recorded",
            Event::OverrideSet(_) => "override_set",
            Event::OverrideRemoved(_) => "override_removed",
            Event::AccountSuspended(_) => "account_suspended",
            Event::AccountReinstated(_) => "account_reinstated",
            Event::LowBalanceSet(_) => "low_balance_set",
            Event::CatalogApplied(_) => "catalog_applied",
        }
    }

    /// Stored payload. The bytes are what the hash chain covers.
    pub fn payload(&self) -> Result<String, serde_json::Error> {
        match self {
            Event::AccountOpened(payload) => serde_json::to_string(payload),
            Event::CustomerLinked(payload) => serde_json::to_string(payload),
            Event::AccountAbsorbed(payload) => serde_json::to_string(payload),
            Event::AccountMerged(payload) => serde_json::to_string(payload),
            Event::StripeObserved(payload) => serde_json::to_string(payload),
            Event::Reconciled(payload) => serde_json::to_string(payload),
            Event::AllowanceArmed(payload) => serde_json::to_string(payload),
            Event::AllowanceAdvanced(payload) => serde_json::to_string(payload),
            Event::SubscriptionCreditsEnded(payload) => serde_json::to_string(payload),
            Event::CreditsGranted(payload) => serde_json::to_string(payload),
            Event::CreditsExpired(payload) => serde_json::to_string(payload),
            Event::DebtRepaid(payload) => serde_json::to_string(payload),
            Event::CreditsClawedBack(payload) => serde_json::to_string(payload),
            Event::CreditsReinstated(payload) => serde_json::to_string(payload),
            Event::LotAmended(payload) => serde_json::to_string(payload),
            Event::CreditsDebited(payload) => serde_json::to_string(payload),
            Event::HoldPlaced(payload) => serde_json::to_string(payload),
            Event::HoldExtended(payload) => serde_json::to_string(payload),
            Event::HoldCaptured(payload) => serde_json::to_string(payload),
            Event::HoldReleased(payload) => serde_json::to_string(payload),
            Event::HoldExpired(payload) => serde_json::to_string(payload),
            Event::ChargeRejected(payload) => serde_json::to_string(payload),
            Event::UsageRecorded(payload) => serde_json::to_string(payload),
            Event::OverrideSet(payload) => serde_json::to_string(payload),
            Event::OverrideRemoved(payload) => serde_json::to_string(payload),
            Event::AccountSuspended(payload) => serde_json::to_string(payload),
            Event::AccountReinstated(payload) => serde_json::to_string(payload),
            Event::LowBalanceSet(payload) => serde_json::to_string(payload),
            Event::CatalogApplied(payload) => serde_json::to_string(payload),
        }
    }

    /// Reads a stored event of any version.
    pub fn read(name: &str, version: i16, payload: &str) -> Result<Self, EventError> {
        match version {
            EVENT_VERSION => Self::read_current(name, payload),
            1 => {
                let wrong = |source| EventError::Payload { name: name.to_owned(), version, source };
                let lifted = upcast_1_to_2(name, serde_json::from_str(payload).map_err(wrong)?);
                Self::read_current(name, &lifted.to_string())
            }
            _ => Err(EventError::UnknownVersion { name: name.to_owned(), version }),
        }
    }

    fn read_current(name: &str, payload: &str) -> Result<Self, EventError> {
        let wrong = |source| EventError::Payload { name: name.to_owned(), version: EVENT_VERSION, source };
        macro_rules! read {
            ($variant:path) => {
                serde_json::from_str(payload).map($variant).map_err(wrong)
            };
        }
        match name {
            "credits_debited" => read!(Event::CreditsDebited),
            "hold_placed" => read!(Event::HoldPlaced),
            "hold_captured" => read!(Event::HoldCaptured),
            "hold_released" => read!(Event::HoldReleased),
            "hold_expired" => read!(Event::HoldExpired),
            "hold_extended" => read!(Event::HoldExtended),
            "charge_rejected" => read!(Event::ChargeRejected),
            "credits_granted" => read!(Event::CreditsGranted),
            "usage_recorded" => read!(Event::UsageRecorded),
            "account_opened" => read!(Event::AccountOpened),
            "customer_linked" => read!(Event::CustomerLinked),
            "account_absorbed" => read!(Event::AccountAbsorbed),
            "account_merged" => read!(Event::AccountMerged),
            "reconciled" => read!(Event::Reconciled),
            "allowance_armed" => read!(Event::AllowanceArmed),
            "allowance_advanced" => read!(Event::AllowanceAdvanced),
            "subscription_credits_ended" => read!(Event::SubscriptionCreditsEnded),
            "credits_expired" => read!(Event::CreditsExpired),
            "debt_repaid" => read!(Event::DebtRepaid),
            "credits_clawed_back" => read!(Event::CreditsClawedBack),
            "credits_reinstated" => read!(Event::CreditsReinstated),
            "lot_amended" => read!(Event::LotAmended),
            "override_set" => read!(Event::OverrideSet),
            "override_removed" => read!(Event::OverrideRemoved),
            "account_suspended" => read!(Event::AccountSuspended),
            "account_reinstated" => read!(Event::AccountReinstated),
            "low_balance_set" => read!(Event::LowBalanceSet),
            "catalog_applied" => read!(Event::CatalogApplied),
            name if name.ends_with("_observed") => read!(Event::StripeObserved),
            name => Err(EventError::UnknownName { name: name.to_owned() }),
        }
    }
}

/// Version 1 named the credits a debit took `drawn`, as pairs; version 2 names them `lots`, as objects.
fn upcast_1_to_2(name: &str, mut payload: Value) -> Value {
    if name == "credits_debited"
        && let Some(fields) = payload.as_object_mut()
        && let Some(Value::Array(pairs)) = fields.remove("drawn")
    {
        let draw = |pair: Value| serde_json::json!({"lot": pair[0], "amount": pair[1]});
        fields.insert("lots".to_owned(), pairs.into_iter().map(draw).collect());
    }
    payload
}

fn observed_name(object: &StripeObject) -> &'static str {
    match object {
        StripeObject::Customer(_) => "customer_observed",
        StripeObject::Subscription(_) => "subscription_observed",
        StripeObject::Invoice(_) => "invoice_observed",
        StripeObject::InvoicePayment(_) => "invoice_payment_observed",
        StripeObject::PaymentIntent(_) => "payment_intent_observed",
        StripeObject::Charge(_) => "charge_observed",
        StripeObject::Refund(_) => "refund_observed",
        StripeObject::Dispute(_) => "dispute_observed",
        StripeObject::CreditNote(_) => "credit_note_observed",
        StripeObject::CheckoutSession(_) => "checkout_session_observed",
        StripeObject::PaymentMethod(_) => "payment_method_observed",
        StripeObject::SubscriptionSchedule(_) => "subscription_schedule_observed",
        StripeObject::UpcomingInvoice(_) => "upcoming_invoice_observed",
        StripeObject::ActiveEntitlements(_) => "active_entitlements_observed",
        StripeObject::CatalogObject(_) => "catalog_object_observed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::credit::Draw;
    use crate::domain::ids::LotId;

    #[test]
    fn an_old_debit_is_lifted_when_read() {
        let stored = r#"{"debit":"00000000-0000-0000-0000-000000000001","amount":3,"available":7,
            "drawn":[["00000000-0000-0000-0000-000000000002",3]]}"#;
        let Event::CreditsDebited(debit) = Event::read("credits_debited", 1, stored).expect("readable") else {
            panic!("another event");
        };
        assert_eq!(debit.lots, vec![Draw { lot: LotId::from_u128(2), amount: 3 }]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        assert!(matches!(Event::read("moon_landed", EVENT_VERSION, "{}"), Err(EventError::UnknownName { .. })));
        assert!(matches!(Event::read("credits_debited", 99, "{}"), Err(EventError::UnknownVersion { .. })));
        assert!(matches!(Event::read("credits_debited", EVENT_VERSION, "{}"), Err(EventError::Payload { .. })));
    }
}
