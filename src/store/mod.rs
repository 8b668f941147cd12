//! Postgres: the only SQL in Rust. Each statement opens with the name of the function that runs it.

pub mod append;
pub mod chain;
pub mod connect;
pub mod cursors;
pub mod error;
pub mod fill;
pub mod follow;
pub mod inbox;
pub mod keys;
pub mod load;
pub mod log;
pub mod migrate;
pub mod notifications;
pub mod partition;
pub mod profiles;
pub mod read;
pub mod revenue;
pub mod rows;
pub mod scan;
pub mod settings;
pub mod shadow;
pub mod snapshot;
pub mod tls;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
pub mod webhook_replays;
