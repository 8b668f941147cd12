//! An event-sourced subscription and credit ledger.
#![forbid(unsafe_code)]
pub mod embedded_postgres;
