//! One of Stripe's objects beside what the ledger knows of it.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::stripe_sync::object_kind::ObjectKind;
use crate::app::stripe_sync::stripe_reader::Object;
use crate::domain::billing::CheckoutRecord;
use crate::domain::ids::AccountId;
use crate::domain::invoice_record::InvoiceRecord;
use crate::domain::payment::Payment;
use crate::domain::reconciliation::{Cause, Difference, Reconciled, differences, latest_moment};
use crate::domain::stripe_object::{Customer, InvoicePaymentStatus, StripeObject, Subscription};
use crate::domain::tracked::{Snapshot, Tracked};
use crate::store::error::StoreError;
use crate::store::stripe_sync::{self, KnownObject};
use crate::stripe::client::StripeCallError;
use crate::stripe::translate::{self, Facts, Settings, StripeEvent};

/// An object as Stripe shows it now.
#[derive(Debug)]
pub struct Seen {
    pub kind: ObjectKind,
    pub id: String,
    pub facts: Facts,
    /// Unix second since which it is in this state, at the earliest.
    moment: i64,
    /// Nothing has come of it, so the ledger need not know it.
    is_idle: bool,
}

/// What the ledger knows of an object.
#[derive(Debug)]
pub struct Known {
    pub account: String,
    object: StripeObject,
    /// Of an invoice: those that are attached.
    payment_intents: Vec<String>,
    observed_at: i64,
    digest: u32,
}

/// How the two compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    Agree,
    /// The ledger knows of no such object.
    Unknown,
    Differ(Vec<Difference>),
}

impl Comparison {
    pub fn fields(&self) -> Vec<String> {
        match self {
            Self::Agree | Self::Unknown => Vec::new(),
            Self::Differ(differences) => differences.iter().map(|difference| difference.field.clone()).collect(),
        }
    }
}

impl Known {
    /// Nothing more can become of it.
    pub fn is_gone(&self) -> bool {
        match &self.object {
            StripeObject::Customer(customer) => customer.deleted,
            StripeObject::Invoice(invoice) => invoice.status == "deleted",
            _ => false,
        }
    }

    /// Reads an object out of its row.
    fn read(kind: ObjectKind, id: &str, row: &KnownObject) -> Result<Option<Self>, StoreError> {
        fn read<T: DeserializeOwned>(row: &KnownObject) -> Result<T, StoreError> {
            Ok(serde_json::from_str(&row.state)?)
        }
        type Read = (StripeObject, i64, u32);
        fn of<T: Snapshot>(tracked: Tracked<T>, object: impl FnOnce(T) -> StripeObject) -> Read {
            let (observed_at, digest) = (tracked.observed_at, tracked.digest());
            (object(*tracked.current), observed_at, digest)
        }
        let mut payment_intents = Vec::new();
        let read = match kind {
            ObjectKind::Customer => Some(of(read::<Tracked<Customer>>(row)?, StripeObject::Customer)),
            ObjectKind::Subscription => Some(of(read::<Tracked<Subscription>>(row)?, StripeObject::Subscription)),
            ObjectKind::Invoice => {
                let record: InvoiceRecord = read(row)?;
                payment_intents = record.payment_intents().map(str::to_owned).collect();
                record.invoice.map(|invoice| of(invoice, StripeObject::Invoice))
            }
            ObjectKind::CheckoutSession => {
                Some(of(read::<CheckoutRecord>(row)?.session, StripeObject::CheckoutSession))
            }
            ObjectKind::PaymentIntent => {
                read::<Payment>(row)?.intent.map(|intent| of(intent, StripeObject::PaymentIntent))
            }
            ObjectKind::Charge => {
                read::<Payment>(row)?.charges.remove(id).map(|charge| of(charge, StripeObject::Charge))
            }
            ObjectKind::Refund => {
                read::<Payment>(row)?.refunds.remove(id).map(|refund| of(refund, StripeObject::Refund))
            }
            ObjectKind::Dispute => {
                read::<Payment>(row)?.disputes.remove(id).map(|dispute| of(dispute, StripeObject::Dispute))
            }
        };
        let account = row.account_id.clone();
        Ok(read.map(|(object, observed_at, digest)| Self { account, object, payment_intents, observed_at, digest }))
    }

    /// The ids of a kind's objects that a row holds.
    fn ids_in(kind: ObjectKind, row: &KnownObject) -> Result<Vec<String>, StoreError> {
        let payment = || serde_json::from_str::<Payment>(&row.state);
        Ok(match kind {
            ObjectKind::Customer | ObjectKind::Subscription | ObjectKind::Invoice | ObjectKind::CheckoutSession => {
                vec![row.object_id.clone()]
            }
            ObjectKind::PaymentIntent => payment()?.intent.into_iter().map(|intent| intent.current.id).collect(),
            ObjectKind::Charge => payment()?.charges.into_keys().collect(),
            ObjectKind::Refund => payment()?.refunds.into_keys().collect(),
            ObjectKind::Dispute => payment()?.disputes.into_keys().collect(),
        })
    }
}

impl Seen {
    /// Id of the row that the ledger keeps it in.
    fn row(&self) -> Option<&str> {
        Some(match &self.facts.observations.first()?.object {
            StripeObject::Charge(charge) => charge.payment_intent.as_deref().unwrap_or(&charge.id),
            StripeObject::Refund(refund) => refund.payment_intent.as_deref().or(refund.charge.as_deref())?,
            StripeObject::Dispute(dispute) => dispute.payment_intent.as_deref().or(dispute.charge.as_deref())?,
            _ => &self.id,
        })
    }

    /// Whose it is: the account that one of its references leads to, else the one that it names, else the stream that
    /// bears its first reference, else the system's own.
    fn owner(&self, owners: &HashMap<String, AccountId>) -> Option<AccountId> {
        let Facts { references, claim, .. } = &self.facts;
        let linked = references.iter().filter_map(|reference| owners.get(reference)).max_by_key(|id| id.standing());
        let first = references.first().map_or(translate::SYSTEM_ACCOUNT, String::as_str);
        let own = || AccountId::new(first).ok();
        linked.or(claim.as_ref()).cloned().or_else(own)
    }

    /// Where the ledger would have it.
    fn place(&self, owners: &HashMap<String, AccountId>) -> Option<(AccountId, String)> {
        Some((self.owner(owners)?, self.row()?.to_owned()))
    }

    /// Compares, the payments of an invoice too.
    pub fn compare(&self, known: Option<&Known>) -> Comparison {
        let Some(known) = known else {
            return if self.is_idle { Comparison::Agree } else { Comparison::Unknown };
        };
        let mut observed = self.facts.observations.iter().map(|observation| &observation.object);
        let Some(object) = observed.next() else { return Comparison::Agree };
        let mut differing = differences(&known.object, object);
        for other in observed {
            if let StripeObject::InvoicePayment(link) = other
                && self.kind == ObjectKind::Invoice
                && link.status != InvoicePaymentStatus::Canceled
                && !known.payment_intents.contains(&link.payment_intent)
            {
                differing.push(Difference {
                    field: "payment_intent".to_owned(),
                    ledger: Value::Null,
                    stripe: json!(link.payment_intent),
                });
            }
        }
        if differing.is_empty() { Comparison::Agree } else { Comparison::Differ(differing) }
    }

    /// What Stripe shows as an observation that follows what is known. It is put no later than need be: whatever Stripe
    /// tells of any later second goes before it.
    pub fn as_news(&self, known: Option<&Known>, comparison: &Comparison, cause: &Cause) -> Facts {
        let mut facts = self.facts.clone();
        for observation in &mut facts.observations {
            observation.created = known.map_or(self.moment, |known| self.moment.max(known.observed_at));
            observation.change.before = known.map(|known| known.digest);
        }
        facts.reconciled = Some(Box::new(self.reconciled(comparison, cause)));
        facts
    }

    pub fn reconciled(&self, comparison: &Comparison, cause: &Cause) -> Reconciled {
        Reconciled {
            kind: self.kind.as_str().to_owned(),
            stripe_id: self.id.clone(),
            fields: comparison.fields(),
            cause: cause.clone(),
        }
    }
}

impl Service {
    /// Reads what Stripe shows.
    pub fn seen(&self, kind: ObjectKind, object: &Object) -> Result<Seen, AppError> {
        let unreadable =
            |error: String| AppError::Stripe(StripeCallError::Unreadable(format!("{}: {error}", object.id)));
        let body: Value = serde_json::from_str(object.body.get()).map_err(|error| unreadable(error.to_string()))?;
        let event = StripeEvent {
            id: format!("reconciled:{}", object.id),
            event_type: kind.event_type(&body).to_owned(),
            created: 0,
            livemode: self.stripe.livemode,
            api_version: None,
        };
        let settings = Settings { account_metadata_keys: &self.stripe.account_metadata_keys };
        let facts = translate::translate_answer(&event, object.body.get().as_bytes(), None, settings);
        let facts = facts.map_err(|error| unreadable(error.to_string()))?;
        let facts = facts.ok_or_else(|| unreadable("no use is made of it".to_owned()))?;
        let moment = latest_moment(&body, self.clock.now().timestamp());
        Ok(Seen { kind, id: object.id.clone(), facts, moment, is_idle: kind.is_idle(&body) })
    }

    /// What the ledger knows of objects, by their ids.
    pub async fn known_to_ledger(&self, kind: ObjectKind, seen: &[Seen]) -> Result<HashMap<String, Known>, AppError> {
        let references: Vec<String> = seen.iter().flat_map(|seen| seen.facts.references.clone()).collect();
        let owners = self.links.owners(&references).await?;
        let places: Vec<(AccountId, String)> = seen.iter().filter_map(|seen| seen.place(&owners)).collect();
        let accounts: Vec<&str> = places.iter().map(|(account, _)| account.as_str()).collect();
        let ids: Vec<&str> = places.iter().map(|(_, id)| id.as_str()).collect();
        let client = self.connection().await?;
        let rows = stripe_sync::known_objects(&**client, kind.row_kind().as_str(), &accounts, &ids).await?;
        let rows: HashMap<&str, &KnownObject> = rows.iter().map(|row| (row.object_id.as_str(), row)).collect();
        let mut known = HashMap::new();
        for seen in seen {
            let Some(row) = seen.row().and_then(|row| rows.get(row)) else { continue };
            if let Some(object) = Known::read(kind, &seen.id, row)? {
                known.insert(seen.id.clone(), object);
            }
        }
        Ok(known)
    }

    /// Whose an object is, as far as that is known.
    pub async fn owner_of(&self, seen: &Seen) -> Result<Option<AccountId>, AppError> {
        Ok(seen.owner(&self.links.owners(&seen.facts.references).await?))
    }

    /// What the ledger knows of the objects of a kind, read from a row, with the id of each.
    pub fn known_of(kind: ObjectKind, row: &KnownObject) -> Result<Vec<(String, Known)>, AppError> {
        let mut known = Vec::new();
        for id in Known::ids_in(kind, row)? {
            if let Some(object) = Known::read(kind, &id, row)? {
                known.push((id, object));
            }
        }
        Ok(known)
    }
}
