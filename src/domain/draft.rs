//! A decision in the making: the account as it will be, and the events that make it so.

use chrono::{DateTime, Utc};

use super::account::{Account, Changes};
use super::catalog::Catalog;
use super::event::Event;

/// What a decision may look at beside the account.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub catalog: &'a Catalog,
    /// The catalog's version: its digest.
    pub catalog_digest: &'a str,
    pub now: DateTime<Utc>,
}

impl Context<'_> {
    /// The beginning of the catalog's digest: enough to find it by among those on record.
    pub fn catalog_version(&self) -> String {
        version_of(self.catalog_digest).to_owned()
    }
}

/// The beginning of a catalog's digest.
pub fn version_of(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Applies each event as it is decided, so that what follows is decided on the outcome.
#[derive(Debug)]
pub struct Draft<'a> {
    pub account: &'a mut Account,
    pub changes: &'a mut Changes,
    pub events: Vec<Event>,
}

impl<'a> Draft<'a> {
    pub fn new(account: &'a mut Account, changes: &'a mut Changes) -> Self {
        Self { account, changes, events: Vec::new() }
    }

    pub fn emit(&mut self, event: Event) {
        self.account.evolve(&event, self.changes);
        self.events.push(event);
    }
}
