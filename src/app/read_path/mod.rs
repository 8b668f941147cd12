//! The read path: accounts as they are, as they were, and why something was decided.

pub mod balance_cache;
pub mod balance_reader;
pub mod explain;
pub mod follower;
pub mod history;
pub mod holds;
pub mod reads;
pub mod receipt;
