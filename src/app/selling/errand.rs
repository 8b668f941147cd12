//! Requests to Stripe on behalf of a caller: each has its effect once, whatever is repeated and whoever crashes.
//!
//! A caller's key leads to three things. Its outcome, once there is one, is in the ledger's idempotency table, and is all
//! that a repeat is told. Before that, each write to Stripe is kept as it is about to be sent, so that a repeat sends the
//! very same again, however catalog, settings or subscription have changed meanwhile. And Stripe's own key derives from
//! the caller's, so Stripe does it once. No transaction and no lane waits for Stripe.

use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::write_path::outcome;
use crate::app::write_path::work::{Answer, Key};
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::command::Command;
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::domain::stripe_outcome::StripeOutcome;
use crate::domain::stripe_refusal::StripeRefusal;
use crate::store::load;
use crate::store::stripe_writes::{self, StripeWrite};
use crate::stripe::client::{IdempotencyKey, StripeAnswer, StripeCallError};

/// One request of a caller that needs Stripe.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Whose it is: the account's own id, not one of its others.
    pub account: AccountId,
    pub key: Key,
}

impl Service {
    /// What came of a key already, if anything.
    pub async fn recorded(&self, key: Key) -> Result<Option<Answer>, AppError> {
        let client = self.connection().await?;
        let stored = load::keys(&**client, &[key.key]).await?;
        let Some(stored) = stored.get(&key.key) else { return Ok(None) };
        outcome::replayed(stored.request, &outcome::stored_answer(stored)?, key).map(Some)
    }

    /// Keeps what came of an errand, if it is final, and answers it; another who was faster is answered instead.
    pub async fn conclude(&self, errand: Errand, outcome: Result<StripeOutcome, AppError>) -> Result<Answer, AppError> {
        let outcome = match outcome {
            Ok(outcome) => Ok(outcome),
            Err(AppError::Rejected(Rejection::Billing { because })) => Err(because),
            Err(AppError::Stripe(StripeCallError::Refused(refusal))) if is_final(&refusal) => {
                Err(BillingRejection::StripeRefused { refusal })
            }
            Err(AppError::Stripe(StripeCallError::Refused(refusal))) if refusal.is_key_reuse() => {
                return Err(AppError::KeyReused);
            }
            Err(error) => return Err(error),
        };
        self.execute(errand.account, Command::Conclude(Box::new(outcome)), Some(errand.key)).await
    }

    /// Changes something at Stripe, once for this errand and operation. `decide` says what, and is asked only if nothing
    /// was about to be sent before.
    pub async fn write_once(
        &self,
        errand: &Errand,
        operation: &'static str,
        decide: impl AsyncFnOnce() -> Result<RequestBuilder, AppError>,
    ) -> Result<StripeAnswer, AppError> {
        if !self.stripe_client.is_configured() {
            return Err(StripeCallError::NotConfigured.into());
        }
        let digest = errand.key.key;
        let client = self.connection().await?;
        let kept = stripe_writes::get(&**client, digest, operation).await?;
        drop(client);
        let write = match kept {
            Some(write) => write,
            None => {
                let write = kept_as(errand.key, decide().await?);
                let client = self.connection().await?;
                stripe_writes::put(&**client, digest, operation, write).await?
            }
        };
        if write.request != errand.key.request {
            return Err(AppError::KeyReused);
        }
        let key = IdempotencyKey::derived(operation, &[digest.as_bytes()]);
        Ok(self.stripe_client.call(operation, &request_of(&write), Some(&key)).await?)
    }

    /// Whether a write was about to be sent for an errand before.
    pub async fn has_begun(&self, errand: &Errand, operation: &'static str) -> Result<bool, AppError> {
        let client = self.connection().await?;
        Ok(stripe_writes::get(&**client, errand.key.key, operation).await?.is_some())
    }
}

/// What a builder builds, for [`Service::write_once`].
pub fn built(request: &impl StripeRequest) -> Result<RequestBuilder, AppError> {
    Ok(request.build())
}

/// The same request would be refused again, and the caller can mend it.
fn is_final(refusal: &StripeRefusal) -> bool {
    !refusal.is_our_key() && !refusal.is_key_reuse()
}

fn kept_as(key: Key, request: RequestBuilder) -> StripeWrite {
    let method = match request.method {
        StripeMethod::Get => "GET",
        StripeMethod::Post => "POST",
        StripeMethod::Delete => "DELETE",
    };
    StripeWrite { request: key.request, method: method.to_owned(), path: request.path, body: request.body }
}

fn request_of(write: &StripeWrite) -> RequestBuilder {
    let method = if write.method == "DELETE" { StripeMethod::Delete } else { StripeMethod::Post };
    let mut request = RequestBuilder::new(method, write.path.clone());
    request.body.clone_from(&write.body);
    request
}
