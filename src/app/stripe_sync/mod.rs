//! The ledger beside a whole Stripe account: its catalog, its objects, metered usage.

pub mod catalog_sync;
pub mod object_kind;
pub mod reconcile;
pub mod stripe_import;
pub mod stripe_reader;
pub mod usage_export;
