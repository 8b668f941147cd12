//! What the service does: commands through lanes, Stripe's events to their accounts, answers to questions.

pub mod account_cache;
pub mod accounts;
pub mod balance_cache;
pub mod balance_reader;
pub mod catalog;
pub mod error;
pub mod fold;
pub mod follower;
pub mod ingest;
pub mod jobs;
pub mod lane;
pub mod link;
pub mod links;
pub mod metrics;
pub mod outcome;
pub mod plan;
pub mod reads;
pub mod rebuild;
pub mod service;
pub mod verify;
pub mod work;
pub mod writer;
