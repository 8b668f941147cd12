//! Stripe as it speaks to us: signatures, and the translation of its events into ours.

pub mod fields;
pub mod project;
pub mod redact;
pub mod signature;
pub mod translate;
