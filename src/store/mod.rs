//! Postgres: the only SQL in Rust. Each statement opens with the name of the function that runs it.

pub mod append;
pub mod chain;
pub mod connect;
pub mod error;
pub mod fill;
pub mod follow;
pub mod inbox;
pub mod keys;
pub mod load;
pub mod log;
pub mod migrate;
pub mod partition;
pub mod payment_routes;
pub mod profiles;
pub mod read;
pub mod rows;
pub mod scan;
pub mod shadow;
pub mod snapshot;
pub mod stripe_sync;
pub mod stripe_writes;
pub mod tls;
