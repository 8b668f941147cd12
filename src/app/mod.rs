//! What the service does: commands through lanes, Stripe's events to their accounts, answers to questions.

pub mod accounts;
pub mod catalog;
pub mod error;
pub mod fold;
pub mod inbound;
pub mod log_follower;
pub mod mail;
pub mod metrics;
pub mod outbound;
pub mod read_path;
pub mod revenue;
pub mod selling;
pub mod service;
pub mod settings;
pub mod stripe_sync;
pub mod upkeep;
pub mod write_path;
