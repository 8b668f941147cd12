//! Erasing what names a person. The log has nothing of the kind, and is not touched.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::ids::AccountId;
use crate::store::error::StoreError;
use crate::store::{inbox, load, profiles};
use crate::stripe::redact::redact;

/// What was erased of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Erasure {
    pub account: AccountId,
    /// Whether an e-mail address or metadata were known.
    pub profile_erased: bool,
    /// Bodies of StripeEvents that were dropped.
    pub inbox_erased: u64,
    /// Bodies of parked StripeEvents, which are kept to be applied, without what names a person.
    pub parked_redacted: u64,
    pub erased_at: DateTime<Utc>,
}

impl Service {
    /// Erases the profile of an account, and the bodies of the StripeEvents about it. From then on nothing personal is
    /// taken from Stripe's events for it, until a caller gives something anew.
    pub async fn erase_personal_data(&self, name: &AccountId) -> Result<Erasure, AppError> {
        let account = self.account_now(name, 0).await?.id;
        let erased_at = self.clock.now();
        let mut client = self.connection().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let stripe_ids = load::links_to(&*tx, &account).await?;
        let profile_erased = profiles::erase_profile(&*tx, &account, erased_at).await?;
        let inbox_erased = inbox::erase(&*tx, &account, &stripe_ids).await?;
        let parked = inbox::parked_about(&*tx, &account, &stripe_ids).await?;
        for (id, body) in &parked {
            // What is no JSON was never found out to be about anybody.
            if let Some(redacted) = redact(body) {
                inbox::replace_parked_body(&*tx, id, &redacted).await?;
            }
        }
        tx.commit().await.map_err(StoreError::from)?;
        let parked_redacted = parked.len() as u64;
        tracing::info!(%account, profile_erased, inbox_erased, parked_redacted, "personal data erased");
        Ok(Erasure { account, profile_erased, inbox_erased, parked_redacted, erased_at })
    }
}
