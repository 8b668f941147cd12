//! The harness: the real application, a Postgres of its own, Stripe's events, and the contract every answer must keep.
#![allow(dead_code, unused_imports)]

pub mod answer;
pub mod app;
pub mod clock;
pub mod contract;
pub mod house;
pub mod invariants;
pub mod logs;
pub mod receiver;
#[path = "../../support/shuffle.rs"]
pub mod shuffle;
pub mod simulated;
pub mod stripe;
pub mod stripe_account;
pub mod stripe_api;

pub use answer::Answer;
pub use app::{ADMIN_KEY, SELLER, STRIPE_KEY, Setup, TestApp, WEBHOOK_SECRET, on_both, on_both_with};
pub use clock::{START, day, rfc3339};
pub use receiver::{Received, Receiver, eventually};
