//! One of Stripe's objects beside what the ledger knows of it.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::stripe_sync::stripe_reader::{Object, ObjectKind};
use crate::domain::billing::InvoiceRecord;
use crate::domain::ids::AccountId;
use crate::domain::reconciliation::{Cause, Difference, Reconciled, differences, latest_moment};
use crate::domain::stripe_object::{Customer, StripeObject, Subscription};
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
}

/// What the ledger knows of an object.
#[derive(Debug)]
pub struct Known {
    pub account: String,
    object: StripeObject,
    payment_intent: Option<String>,
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

    fn read(kind: ObjectKind, row: &KnownObject) -> Result<Option<Self>, StoreError> {
        type Read = (StripeObject, i64, u32, Option<String>);
        fn tracked<T: Snapshot + DeserializeOwned>(
            state: &str,
            object: impl FnOnce(T) -> StripeObject,
        ) -> Result<Option<Read>, StoreError> {
            let tracked: Tracked<T> = serde_json::from_str(state)?;
            let (observed_at, digest) = (tracked.observed_at, tracked.digest());
            Ok(Some((object(*tracked.current), observed_at, digest, None)))
        }
        let read = match kind {
            ObjectKind::Customer => tracked::<Customer>(&row.state, StripeObject::Customer)?,
            ObjectKind::Subscription => tracked::<Subscription>(&row.state, StripeObject::Subscription)?,
            ObjectKind::Invoice => {
                let record: InvoiceRecord = serde_json::from_str(&row.state)?;
                let payment_intent = record.payment_intent;
                record.invoice.map(|tracked| {
                    let (observed_at, digest) = (tracked.observed_at, tracked.digest());
                    (StripeObject::Invoice(*tracked.current), observed_at, digest, payment_intent)
                })
            }
        };
        let account = row.account_id.clone();
        Ok(read.map(|(object, observed_at, digest, payment_intent)| Self {
            account,
            object,
            payment_intent,
            observed_at,
            digest,
        }))
    }
}

impl Seen {
    /// Compares, the payment of an invoice too.
    pub fn compare(&self, known: Option<&Known>) -> Comparison {
        let Some(known) = known else { return Comparison::Unknown };
        let mut observed = self.facts.observations.iter().map(|observation| &observation.object);
        let Some(object) = observed.next() else { return Comparison::Agree };
        let mut differing = differences(&known.object, object);
        for other in observed {
            if let StripeObject::InvoicePayment(link) = other
                && known.payment_intent.is_none()
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
        let event = StripeEvent {
            id: format!("reconciled:{}", object.id),
            event_type: kind.event_type().to_owned(),
            created: 0,
            livemode: self.stripe.livemode,
            api_version: None,
        };
        let settings = Settings { account_metadata_keys: &self.stripe.account_metadata_keys };
        let facts = translate::translate_answer(&event, object.body.get().as_bytes(), None, settings);
        let facts = facts.map_err(|error| unreadable(error.to_string()))?;
        let facts = facts.ok_or_else(|| unreadable("no use is made of it".to_owned()))?;
        let body: Value = serde_json::from_str(object.body.get()).map_err(|error| unreadable(error.to_string()))?;
        let moment = latest_moment(&body, self.clock.now().timestamp());
        Ok(Seen { kind, id: object.id.clone(), facts, moment })
    }

    /// What the ledger knows of objects, by their ids.
    pub async fn known_to_ledger(&self, kind: ObjectKind, seen: &[Seen]) -> Result<HashMap<String, Known>, AppError> {
        let references: Vec<String> = seen.iter().flat_map(|seen| seen.facts.references.first().cloned()).collect();
        let owners = self.links.owners(&references).await?;
        let place = |seen: &Seen| {
            let reference = seen.facts.references.first()?;
            let owner = owners.get(reference).cloned().or_else(|| AccountId::new(reference).ok())?;
            Some((owner, seen.id.clone()))
        };
        let places: Vec<(AccountId, String)> = seen.iter().filter_map(place).collect();
        let accounts: Vec<&str> = places.iter().map(|(account, _)| account.as_str()).collect();
        let ids: Vec<&str> = places.iter().map(|(_, id)| id.as_str()).collect();
        let client = self.connection().await?;
        let rows = stripe_sync::known_objects(&**client, kind.as_str(), &accounts, &ids).await?;
        let mut known = HashMap::new();
        for row in rows {
            if let Some(object) = Known::read(kind, &row)? {
                known.insert(row.object_id, object);
            }
        }
        Ok(known)
    }

    /// What the ledger knows, read from a row.
    pub fn known_of(kind: ObjectKind, row: &KnownObject) -> Result<Option<Known>, AppError> {
        Ok(Known::read(kind, row)?)
    }
}
