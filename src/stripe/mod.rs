//! Stripe as it speaks to us: signatures, and the translation of its events into ours; and how we speak to it.

pub mod client;
pub mod fields;
pub mod listing;
pub mod project;
pub mod redact;
pub mod signature;
pub mod translate;
