//! What comes from Stripe: to the account it belongs to, once.

pub mod ingest;
mod invoice_lines;
pub mod link;
pub mod links;
