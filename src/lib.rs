//! An event-sourced subscription and credit ledger.
#![forbid(unsafe_code)]

pub mod app;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod embedded_postgres;
pub mod http;
pub mod projection;
pub mod sealing;
pub mod startup;
pub mod store;
pub mod stripe;
pub mod telemetry;
