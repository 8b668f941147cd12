//! Events: what happened, with the object as it was then.

use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use super::list::{self, Page};
use super::read::changed;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::shape::{self, ApiVersion};

/// How long Stripe lists an event (<https://docs.stripe.com/api/events>).
const KEPT_S: i64 = 30 * 86_400;

#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub kind: &'static str,
    /// In seconds of simulated time.
    pub created: i64,
    object: Arc<Value>,
    previous: Option<Value>,
    request: Value,
}

impl Event {
    /// As a receiver with this API version sees it.
    pub fn render(&self, version: &ApiVersion) -> Value {
        let mut data = json!({ "object": shape::render(&self.object, version) });
        if let Some(previous) = &self.previous {
            data["previous_attributes"] = shape::render_previous(previous, &self.object, version);
        }
        json!({
            "id": self.id,
            "object": "event",
            "api_version": version.as_str(),
            "created": self.created,
            "data": data,
            "livemode": false,
            "pending_webhooks": 1,
            "request": self.request,
            "type": self.kind,
        })
    }
}

impl World {
    /// Puts an event about an object as it is now on record.
    pub fn emit(&mut self, kind: &'static str, id: &str) {
        if let Some(object) = self.objects.get(id).cloned() {
            self.emit_object(kind, object, None);
        }
    }

    pub fn emit_object(&mut self, kind: &'static str, object: Arc<Value>, previous: Option<Value>) {
        if self.is_scratch {
            return;
        }
        let event =
            Event { id: self.ids.id("evt"), kind, created: self.now, object, previous, request: self.cause.clone() };
        self.events.push(Arc::new(event));
    }

    /// Changes an object, and tells of it if anything did change.
    pub fn change(&mut self, kind: &'static str, id: &str, edit: impl FnOnce(&mut Value)) {
        if let Some(previous) = self.alter(id, edit) {
            self.emit_previous(kind, id, Some(previous));
        }
    }

    pub fn emit_previous(&mut self, kind: &'static str, id: &str, previous: Option<Value>) {
        if let Some(object) = self.objects.get(id).cloned() {
            self.emit_object(kind, object, previous);
        }
    }

    /// Changes an object without telling; answers what it was before, if anything did change.
    pub fn alter(&mut self, id: &str, edit: impl FnOnce(&mut Value)) -> Option<Value> {
        let before = self.objects.get(id).cloned()?;
        edit(self.objects.edit(id)?);
        let after = self.objects.get(id)?;
        changed(&before, after)
    }

    /// Those from a place in the record on, with the place of each.
    pub fn events_from(&self, place: usize) -> &[Arc<Event>] {
        self.events.get(place..).unwrap_or_default()
    }

    pub(crate) fn list_events(&self, params: &Params<'_>) -> Result<Value> {
        params.only(&["type", "types", "created", "limit", "starting_after", "ending_before", "delivery_success"])?;
        let types = params.texts("types")?;
        let kind = params.text("type")?;
        if kind.is_some() && !types.is_empty() {
            return Err(StripeError::malformed("types", "You may only specify one of type and types."));
        }
        let created = list::Range::read(params, "created")?;
        let wanted = |event: &&Arc<Event>| {
            let named = types.is_empty() || types.iter().any(|pattern| matches(pattern, event.kind));
            named
                && kind.is_none_or(|pattern| matches(pattern, event.kind))
                && created.contains(event.created)
                && event.created > self.now - KEPT_S
        };
        let newest_first = self.events.iter().rev().filter(wanted);
        let page = Page::read(params)?;
        page.of(newest_first, |event| &event.id, |event| event.render(&self.version), "/v1/events")
    }

    pub(crate) fn retrieve_event(&self, id: &str) -> Result<Value> {
        let event = self.events.iter().rev().find(|event| event.id == id && event.created > self.now - KEPT_S);
        event.map(|event| event.render(&self.version)).ok_or_else(|| StripeError::not_found("event", id))
    }
}

/// `invoice.*` is every event about invoices.
pub fn matches(pattern: &str, kind: &str) -> bool {
    pattern == kind || pattern == "*" || pattern.strip_suffix('*').is_some_and(|beginning| kind.starts_with(beginning))
}
