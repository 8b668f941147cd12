//! The HTTP interface from outside: the real application, a database of its own for each test, and the contract as the
//! judge of every answer. The files mirror the routes.

mod accounts;
mod admin;
mod auth;
mod billing;
mod catalog_sync;
mod checkout;
mod contract;
mod credits;
mod debits;
mod entitlements;
mod events;
mod health;
mod history;
mod holds;
mod overrides;
mod plan_changes;
mod plans;
mod problems;
mod receipts;
mod reconcile;
mod refunds;
mod scripts;
mod stripe_import;
mod subscription_changes;
mod support;
mod sweeping;
mod tour;
mod usage;
mod webhooks;
