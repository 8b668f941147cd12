//! A stateful Stripe in one process: the calls that subledger makes, the events they cause, signed deliveries, and a clock
//! that can be moved.
//!
//! The whole state is a [`World`], pure and synchronous; [`Simulator`] serves it over HTTP.

#![forbid(unsafe_code)]
// Objects have more fields than the macro that writes them out expects.
#![recursion_limit = "512"]

mod error;
mod form;
mod http;
mod ids;
mod money;
mod params;
mod settings;
mod shape;
mod signature;
pub mod time;
pub mod world;

pub use error::StripeError;
pub use http::{Clock, Options, Simulator};
pub use settings::{AfterTheLast, Dunning, Settings};
pub use shape::ApiVersion;
pub use signature::sign;
pub use world::{Answer, Card, Endpoint, Entered, Event, Outcome, Request, SeedPrice, World};
