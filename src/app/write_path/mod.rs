//! The write path: a lane takes commands, decides them in batches, and makes them durable.

pub mod account_cache;
pub mod lane;
pub mod outcome;
pub mod plan;
pub mod work;
pub mod writer;
