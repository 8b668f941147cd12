//! The simulator held against Stripe's rules, and against parties that nobody here wrote.

mod changes;
mod checkout;
mod deliveries;
mod dunning;
mod events;
mod faults;
mod idempotency;
mod meters;
mod money;
mod pages;
mod parties;
mod shapes;
mod support;
mod time_passes;
