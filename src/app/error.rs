//! What a use of the service can fail with.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::app::selling::payment_routes::CallBudget;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::catalog::CatalogErrors;
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::store::error::StoreError;
use crate::stripe::client::StripeCallError;

/// Why nothing was done, or nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("no account is called {0}")]
    AccountNotFound(String),
    #[error(
        "{account} was opened at {} only; nothing is known of it before that",
        opened_at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    )]
    AccountNotYetOpen { account: AccountId, opened_at: DateTime<Utc> },
    #[error(
        "what happened at {} may still be on its way into the log; ask again from {} on, or by the position of what you wrote, or for now, without as_of",
        at.to_rfc3339_opts(SecondsFormat::AutoSi, true), settled_at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    )]
    AsOfTooRecent { at: DateTime<Utc>, settled_at: DateTime<Utc> },
    #[error("this Idempotency-Key was used for another request; use a new key for a new request")]
    KeyReused,
    #[error("too many requests are waiting; retry in a second")]
    Overloaded,
    #[error("the Stripe customer {customer} is linked to another account already")]
    CustomerLinkedElsewhere { customer: String },
    #[error("the service is stopping; retry at once, another replica will answer")]
    Stopping,
    #[error("the command could not be written: {0}")]
    Poisoned(String),
    #[error("position {wanted} has not been reached within the time allowed; its partition is at {reached}")]
    PositionNotReached { wanted: i64, reached: i64 },
    #[error("nothing on record has the receipt {0}")]
    ReceiptNotFound(String),
    #[error("there are {max} webhook endpoints already; delete one first")]
    TooManyWebhookEndpoints { max: i64 },
    #[error("the webhook endpoint {0} is disabled; enable it first")]
    WebhookEndpointDisabled(String),
    #[error("{}", in_a_plan(.id, .errors))]
    InvalidPlan { id: String, errors: CatalogErrors },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stripe(#[from] StripeCallError),
    #[error("payment routes take {} calls a minute of an account; the next one in {} s", .0.limit, .0.reset_seconds)]
    TooManyPaymentCalls(CallBudget),
    /// The stream moved: ask there. Only within the service.
    #[error("the account was taken over by {0}")]
    Moved(AccountId),
    /// The hold has ended since its row was read: read again. Only within the service.
    #[error("the hold has just ended")]
    HoldEnded,
    /// A Stripe id leads elsewhere than thought. Only within the service.
    #[error("a Stripe id of this event leads to another account")]
    LinkedElsewhere,
}

impl From<BillingRejection> for AppError {
    fn from(because: BillingRejection) -> Self {
        Rejection::Billing { because }.into()
    }
}

/// The problems of a catalog as whoever put one plan into it sees them: its own fields by their names within it.
fn in_a_plan(id: &str, errors: &CatalogErrors) -> String {
    let plan = format!("plans.{id}");
    let told = errors.0.iter().map(|error| {
        let within = error.field.strip_prefix(&plan).and_then(|rest| rest.strip_prefix('.'));
        let field = match within {
            Some(field) => field,
            None if error.field == plan => "id",
            None => &error.field,
        };
        format!("{field}: {}", error.message)
    });
    told.collect::<Vec<_>>().join("; ")
}
