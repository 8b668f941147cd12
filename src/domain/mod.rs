//! The pure core: no I/O, clock, randomness, logging or async in here.

pub mod catalog;
pub mod money;
