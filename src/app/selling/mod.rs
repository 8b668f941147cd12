//! What Stripe is asked to do for an account: sessions, changes, refunds.

pub mod answers;
pub mod changes;
pub mod checkout;
pub mod customers;
pub mod earlier_sessions;
pub mod errand;
pub mod invoice_previews;
pub mod payment_routes;
pub mod prices;
pub mod refunds;
pub mod scheduled_changes;
pub mod subscriptions;
