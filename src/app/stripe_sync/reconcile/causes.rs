//! The StripeEvents behind differences: which were told, and what became of them here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::stripe_sync::object_kind::ObjectKind;
use crate::app::stripe_sync::stripe_reader::{EVENTS_KEPT_S, StripeReader};
use crate::app::write_path::work::Key;
use crate::domain::reconciliation::{Cause, Told};
use crate::store::{load, stripe_sync};

/// An event so young may still be on its way: Stripe tries again within minutes, then within the hour.
const LATE_S: i64 = 3_600;

/// What Stripe's list of events says, by the object that each is about. Read once for each kind, when first asked for.
#[derive(Debug, Default)]
pub struct Events(HashMap<ObjectKind, HashMap<String, Vec<Told>>>);

/// What became of the StripeEvents about one object.
#[derive(Debug, Default)]
pub struct Fate {
    /// Those that never came, the oldest first.
    pub missing: Vec<Told>,
    /// Those that came and could not be applied, with the reason.
    pub parked: Vec<(Told, Option<String>)>,
    /// The newest that was applied.
    pub applied: Option<Told>,
}

impl Events {
    /// All events about objects of a kind, of as long as Stripe keeps them; each object's the oldest first.
    pub async fn of(
        &mut self,
        reader: &StripeReader,
        kind: ObjectKind,
        now: i64,
    ) -> Result<&HashMap<String, Vec<Told>>, AppError> {
        let unread = match self.0.entry(kind) {
            Entry::Occupied(read) => return Ok(read.into_mut()),
            Entry::Vacant(unread) => unread,
        };
        let mut by_object: HashMap<String, Vec<Told>> = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            let (events, has_more) = reader.events(Some(kind), now - EVENTS_KEPT_S, after.as_deref()).await?;
            after = events.last().map(|event| event.told.stripe_event_id.clone());
            for event in events {
                by_object.entry(event.about).or_default().push(event.told);
            }
            if !has_more {
                break;
            }
        }
        by_object.values_mut().for_each(|told| told.reverse());
        Ok(unread.insert(by_object))
    }
}

impl Service {
    /// What became of events.
    pub async fn fate_of(&self, told: &[Told]) -> Result<Fate, AppError> {
        let client = self.connection().await?;
        let key = |told: &Told| Key::of_stripe_event(&told.stripe_event_id).key;
        let keys: Vec<_> = told.iter().map(key).collect();
        let answered = load::keys(&**client, &keys).await?;
        let ids: Vec<&str> = told.iter().map(|told| told.stripe_event_id.as_str()).collect();
        let parked: BTreeMap<String, Option<String>> =
            stripe_sync::parked_reasons(&**client, &ids).await?.into_iter().collect();
        let mut fate = Fate::default();
        for told in told {
            if answered.contains_key(&key(told)) {
                fate.applied = Some(told.clone());
            } else if let Some(reason) = parked.get(&told.stripe_event_id) {
                fate.parked.push((told.clone(), reason.clone()));
            } else {
                fate.missing.push(told.clone());
            }
        }
        Ok(fate)
    }
}

impl Fate {
    /// The event behind a difference: the newest that is missing, else that waits, else the one that should have told.
    pub fn cause(&self, now: i64) -> Cause {
        if let Some(told) = self.missing.last() {
            return Self::of_missing(told, now);
        }
        if let Some((told, reason)) = self.parked.last() {
            return Cause::Misapplied { told: told.clone(), reason: reason.clone() };
        }
        match &self.applied {
            Some(told) => Cause::Misapplied { told: told.clone(), reason: None },
            None => Cause::Untold,
        }
    }

    pub fn of_missing(told: &Told, now: i64) -> Cause {
        if told.created > now - LATE_S { Cause::Late(told.clone()) } else { Cause::Missing(told.clone()) }
    }
}
