//! The log proves itself and everything made from it; and everything made from it can be made again.
//!
//! Real Postgres, real lanes.

#[path = "../support/mod.rs"]
mod support;

mod ledger;
mod work;

mod clean;
mod links;
mod rebuilding;
mod simulating;
mod tampering;
mod upcasting;
