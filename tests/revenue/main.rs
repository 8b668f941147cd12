//! What the books say of revenue, through the pure path: hand-computed, and conserved whatever happens.

#[path = "../support/mod.rs"]
mod support;

mod examples;
mod histories;
mod ledger;
mod stories;
