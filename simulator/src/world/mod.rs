//! The whole state of the simulated account: pure and synchronous. The time is given to it, and it does no I/O.

mod agenda;
mod cards;
mod changes;
mod checkout;
mod checkout_session;
mod collection;
mod coupons;
mod customers;
mod endings;
mod events;
mod expand;
mod idempotency;
mod invoice_calls;
mod invoices;
mod item_calls;
mod lines;
mod list;
mod meters;
mod objects;
mod payment_methods;
mod payments;
mod pending_updates;
mod portal;
pub(crate) mod prices;
mod products;
mod prorations;
pub(crate) mod read;
mod refunds;
mod renewal;
mod routes;
mod schedules;
mod subscription_calls;
mod subscriptions;
mod webhook_endpoints;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

pub use cards::Card;
pub use checkout::{Entered, Outcome};
pub use events::{Event, matches};
pub use idempotency::{Answer, Request};
pub use prices::SeedPrice;
pub use webhook_endpoints::{Endpoint, Receiver};

use crate::ids::Ids;
use crate::settings::Settings;
use crate::shape::ApiVersion;
use agenda::Entry;
use idempotency::Keys;
use objects::Objects;

#[derive(Debug, Clone)]
pub struct World {
    pub settings: Settings,
    /// Simulated time, in Unix seconds.
    now: i64,
    pub(crate) version: ApiVersion,
    ids: Ids,
    objects: Objects,
    agenda: BTreeSet<Entry>,
    agenda_entries: u64,
    events: Vec<Arc<Event>>,
    keys: Keys,
    usage: Arc<meters::Usage>,
    /// The request that what happens now is due to, as events tell it.
    cause: Value,
    /// A copy in which something is tried: it tells no events.
    is_scratch: bool,
}

impl World {
    pub fn new(settings: Settings, now: i64) -> Self {
        Self {
            version: settings.api_version.clone(),
            ids: Ids::new(settings.seed),
            settings,
            now,
            objects: Objects::default(),
            agenda: BTreeSet::new(),
            agenda_entries: 0,
            events: Vec::new(),
            keys: Keys::default(),
            usage: Arc::default(),
            cause: no_cause(),
            is_scratch: false,
        }
    }

    pub fn now(&self) -> i64 {
        self.now
    }

    /// An object in its newest shape, with what is kept beside it.
    pub fn object(&self, id: &str) -> Option<&Value> {
        self.objects.get(id).map(|object| &**object)
    }

    /// An object as it is now; null if there is none.
    fn answer(&self, id: &str) -> Value {
        self.object(id).cloned().unwrap_or_default()
    }

    /// The objects of a kind, the oldest first.
    pub fn objects(&self, kind: &str) -> impl DoubleEndedIterator<Item = &Value> {
        self.objects.all(kind).map(|object| &**object)
    }

    /// A copy of what is around a customer, to try something in: what comes of it is looked at, and thrown away.
    fn scratch(&self, customer: &str) -> Self {
        Self {
            settings: self.settings.clone(),
            now: self.now,
            version: self.version.clone(),
            ids: self.ids.clone(),
            objects: self.objects.around(customer),
            agenda: BTreeSet::new(),
            agenda_entries: 0,
            events: Vec::new(),
            keys: Keys::default(),
            usage: self.usage.clone(),
            cause: no_cause(),
            is_scratch: true,
        }
    }
}

fn no_cause() -> Value {
    json!({ "id": null, "idempotency_key": null })
}
