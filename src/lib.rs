//! An event-sourced subscription and credit ledger.
#![forbid(unsafe_code)]

pub mod app;
pub mod clock;
pub mod domain;
pub mod embedded_postgres;
pub mod projection;
pub mod store;
pub mod stripe;
