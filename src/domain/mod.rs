//! The rules: pure functions of state, command, catalog and a given time.

pub mod account;
pub mod allowance;
pub mod billing;
pub mod catalog;
pub mod catalog_sync;
pub mod charge;
pub mod claims;
pub mod command;
pub mod credit;
pub mod draft;
pub mod event;
pub mod hold;
pub mod ids;
pub mod limits;
pub mod money;
pub mod overrides;
pub mod payment;
pub mod plan_change;
pub mod rejection;
pub mod replay;
pub mod settle;
pub mod standing;
pub mod stripe_object;
pub mod stripe_payment;
pub mod tracked;
pub mod usage;
