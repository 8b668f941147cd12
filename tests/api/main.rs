//! The HTTP interface from outside: the real application, a database of its own for each test, and the contract as the
//! judge of every answer. The files mirror the routes.

mod accounts;
mod admin;
mod auth;
mod billing;
mod checkout;
mod contract;
mod credits;
mod debits;
mod dunning;
mod entitlements;
mod erasure;
mod event_stream;
mod events;
mod health;
mod history;
mod holds;
mod notifications;
mod overrides;
mod plan_changes;
mod plans;
mod problems;
mod receipts;
mod refunds;
mod revenue;
mod scripts;
mod subscription_changes;
mod support;
mod sweeping;
mod tour;
mod usage;
mod webhook_delivery;
mod webhook_endpoints;
mod webhooks;
