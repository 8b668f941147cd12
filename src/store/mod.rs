//! Postgres: the only SQL in Rust. Each statement opens with the name of the function that runs it.

pub mod append;
pub mod chain;
pub mod connect;
pub mod error;
pub mod load;
pub mod migrate;
pub mod partition;
