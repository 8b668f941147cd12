//! What comes from Stripe: to the account it belongs to, once.

pub mod ingest;
pub mod link;
pub mod links;
