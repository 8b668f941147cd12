//! REST: thin handlers over one route table, and one match from errors to answers.

pub mod accounts;
pub mod admin;
pub mod auth;
pub mod billing;
pub mod credits;
pub mod debits;
pub mod docs;
pub mod entitlements;
pub mod events;
pub mod health;
pub mod holds;
pub mod lookup;
pub mod middleware;
pub mod overrides;
pub mod page;
pub mod plans;
pub mod problem;
pub mod reading;
pub mod receipts;
pub mod request;
pub mod routes;
pub mod server;
pub mod statement;
pub mod usage;
pub mod views;
pub mod webhooks;
