//! Giving payments back.

use serde::Deserialize;
use stripe_core::refund::{CreateRefund, CreateRefundReason};

use super::errand::{Errand, built};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing::Kind;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::ids::AccountId;
use crate::domain::payment::{Payment, PaymentStatus};
use crate::domain::stripe_object::StripeObject;
use crate::domain::stripe_outcome::StripeOutcome;
use crate::store::error::StoreError;
use crate::store::read;
use crate::stripe::client::StripeCallError;

/// Why a payment is given back, in Stripe's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundReason {
    Duplicate,
    Fraudulent,
    RequestedByCustomer,
}

impl Service {
    /// Whose payment it is.
    pub async fn owner_of_payment(&self, payment: &str) -> Result<AccountId, AppError> {
        let owners = self.links.owners(&[payment.to_owned()]).await?;
        owners.get(payment).cloned().ok_or_else(|| not_found(payment))
    }

    /// Gives a payment back, as a whole or in part, at most what is left of it.
    ///
    /// <https://docs.stripe.com/api/refunds/create>
    pub async fn refund(
        &self,
        errand: &Errand,
        payment: &str,
        amount: Option<i64>,
        reason: Option<RefundReason>,
    ) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "refund.create", async || {
            let left = self.left_to_refund(&errand.account, payment).await?;
            let amount = amount.unwrap_or(left.amount);
            if amount > left.amount || left.amount == 0 {
                let (left, currency) = (left.amount, left.currency);
                return Err(BillingRejection::RefundExceedsPayment { left, currency }.into());
            }
            let refund = CreateRefund::new().amount(amount).metadata(self.metadata_of(&errand.account));
            let refund =
                if payment.starts_with("pi_") { refund.payment_intent(payment) } else { refund.charge(payment) };
            built(&match reason {
                None => refund,
                Some(RefundReason::Duplicate) => refund.reason(CreateRefundReason::Duplicate),
                Some(RefundReason::Fraudulent) => refund.reason(CreateRefundReason::Fraudulent),
                Some(RefundReason::RequestedByCustomer) => refund.reason(CreateRefundReason::RequestedByCustomer),
            })
        });
        match self.observe_new("refund.created", &answer.await?).await? {
            StripeObject::Refund(refund) => Ok(StripeOutcome::Refund { refund, payment: payment.to_owned() }),
            _ => Err(StripeCallError::Unreadable("it is not a refund".to_owned()).into()),
        }
    }

    async fn left_to_refund(&self, account: &AccountId, payment: &str) -> Result<Left, AppError> {
        let client = self.connection().await?;
        let ids = [payment.to_owned()];
        let objects = read::objects_by_id(&**client, account.as_str(), Kind::Payment.as_str(), &ids).await?;
        let object = objects.into_iter().next().ok_or_else(|| not_found(payment))?;
        let known: Payment = serde_json::from_str(&object.state).map_err(StoreError::from)?;
        let status = known.status();
        if status != PaymentStatus::Succeeded {
            let status = serde_json::to_value(status).ok().and_then(|status| status.as_str().map(str::to_owned));
            let (payment, status) = (payment.to_owned(), status.unwrap_or_default());
            return Err(BillingRejection::PaymentNotRefundable { payment, status }.into());
        }
        let gone = known.amount_refunded() + known.amount_lost_in_dispute() + known.amount_in_dispute();
        let amount = (known.amount_received() - gone).max(0);
        Ok(Left { amount, currency: known.currency().unwrap_or_default().to_owned() })
    }
}

/// What could still be given back.
struct Left {
    /// Minor units of `currency`.
    amount: i64,
    currency: String,
}

fn not_found(payment: &str) -> AppError {
    BillingRejection::PaymentNotFound { payment: payment.to_owned() }.into()
}
