//! An event-sourced subscription and credit ledger.
#![forbid(unsafe_code)]

pub mod domain;
pub mod stripe;
