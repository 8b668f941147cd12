//! Work on the whole ledger: sweeping, rebuilding, verifying, erasing, trying a catalog.

pub mod erasure;
pub mod jobs;
pub mod rebuild;
pub mod simulate;
pub mod sweep;
pub mod verify;
