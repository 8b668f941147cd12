//! Sessions of Stripe Checkout and of Stripe's customer portal.

use serde::Deserialize;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionLineItems, CreateCheckoutSessionPaymentIntentData,
    CreateCheckoutSessionSubscriptionData,
};
use stripe_client_core::RequestBuilder;
use stripe_shared::CheckoutSessionMode;

use super::errand::{Errand, built};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::redirect::Redirects;
use crate::domain::sale::{Sold, Wanted, offer};
use crate::domain::stripe_outcome::StripeOutcome;

/// What a caller wants sold.
#[derive(Debug, Clone)]
pub struct CheckoutRequest {
    pub wanted: Wanted,
    pub quantity: u64,
    /// `None`: as the plan offers it, to an account that never had a subscription. 0: none.
    pub trial_days: Option<u32>,
    /// `None`: from the settings.
    pub success_url: Option<String>,
    pub cancel_url: Option<String>,
    /// The customer may enter one.
    pub allow_promotion_codes: bool,
}

#[derive(Debug, Deserialize)]
struct Session {
    id: String,
    url: Option<String>,
    expires_at: Option<i64>,
    customer: Option<String>,
    mode: String,
}

#[derive(Debug, Deserialize)]
struct PortalSession {
    url: String,
    customer: Option<String>,
}

impl Service {
    /// Opens a Checkout session; one that begins a subscription takes the place of earlier ones.
    ///
    /// <https://docs.stripe.com/api/checkout/sessions/create>
    pub async fn open_checkout(&self, errand: &Errand, request: CheckoutRequest) -> Result<StripeOutcome, AppError> {
        let answer = self.write_once(errand, "checkout_session.create", async || self.checkout(errand, request).await);
        let session: Session = answer.await.map_err(|error| self.about_price(error))?.parse()?;
        if session.mode == "subscription"
            && let Some(customer) = &session.customer
        {
            self.supersede_earlier_sessions(errand, customer, &session.id).await?;
        }
        Ok(StripeOutcome::CheckoutSession {
            session_id: session.id,
            stripe_customer_id: session.customer.unwrap_or_default(),
            url: session.url,
            expires_at: session.expires_at,
        })
    }

    async fn checkout(&self, errand: &Errand, request: CheckoutRequest) -> Result<RequestBuilder, AppError> {
        let redirects = &self.stripe.redirects;
        let success_url = redirect(redirects, "success_url", request.success_url, &redirects.checkout_success_url)?;
        let cancel_url = redirect(redirects, "cancel_url", request.cancel_url, &redirects.checkout_cancel_url)?;
        let active = self.catalog.current();
        let offer = offer(&active.catalog, &request.wanted)?;
        let (price, recurrence) = self.stripe_price(&offer).await?;
        let recurs = recurrence.is_some();
        let history = self.subscriptions_of(&errand.account).await?;
        if recurs && let Some(live) = history.live() {
            return Err(BillingRejection::SubscriptionExists { subscription: live.id.clone() }.into());
        }
        let trial_days = match (&offer.sold, request.trial_days) {
            (_, Some(days)) => days,
            (Sold::Plan(plan, _), None) if history.is_empty() => plan.trial.days,
            _ => 0,
        };
        let customer = self.ensure_customer(&errand.account).await?;
        let metadata = self.metadata_of(&errand.account);
        let mut line = CreateCheckoutSessionLineItems::new();
        line.price = Some(price.clone());
        line.quantity = Some(request.quantity);
        let mut session = CreateCheckoutSession::new()
            .customer(customer)
            .client_reference_id(errand.account.as_str())
            .line_items(vec![line])
            .success_url(success_url)
            .cancel_url(cancel_url);
        if request.allow_promotion_codes {
            session = session.allow_promotion_codes(true);
        }
        let mut of_session = metadata.clone();
        if recurs {
            let mut subscription = CreateCheckoutSessionSubscriptionData::new();
            subscription.metadata = Some(metadata);
            subscription.trial_period_days = (trial_days > 0).then_some(trial_days);
            session = session.mode(CheckoutSessionMode::Subscription).subscription_data(subscription);
        } else {
            if let Sold::CreditPack(pack) = offer.sold {
                let credits = pack.credits.saturating_mul(i64::try_from(request.quantity).unwrap_or(i64::MAX));
                // What `stripe::project` reads when the session completes.
                of_session.insert("kind".to_owned(), "credit_pack".to_owned());
                of_session.insert("credit_pack".to_owned(), pack.id.clone());
                of_session.insert("credits".to_owned(), credits.to_string());
                of_session.insert("price".to_owned(), price);
            }
            let mut payment = CreateCheckoutSessionPaymentIntentData::new();
            payment.metadata = Some(metadata);
            session = session.mode(CheckoutSessionMode::Payment).payment_intent_data(payment);
        }
        built(&session.metadata(of_session))
    }

    /// Opens a session of the customer portal.
    ///
    /// <https://docs.stripe.com/api/customer_portal/sessions/create>
    pub async fn open_portal(&self, errand: &Errand, return_url: Option<String>) -> Result<StripeOutcome, AppError> {
        let decide = async || {
            let redirects = &self.stripe.redirects;
            let return_url = redirect(redirects, "return_url", return_url, &redirects.portal_return_url)?;
            let customer = self.customer_of(&errand.account).await?;
            let account = errand.account.to_string();
            let customer = customer.ok_or(BillingRejection::NoStripeCustomer { account })?;
            built(&CreateBillingPortalSession::new().customer(customer).return_url(return_url))
        };
        let session: PortalSession = self.write_once(errand, "portal_session.create", decide).await?.parse()?;
        Ok(StripeOutcome::PortalSession { stripe_customer_id: session.customer.unwrap_or_default(), url: session.url })
    }
}

/// The URL that the caller gave, if it may be, else that of the settings.
fn redirect(
    redirects: &Redirects,
    field: &str,
    given: Option<String>,
    default: &Option<String>,
) -> Result<String, BillingRejection> {
    let refused = |problem: String| BillingRejection::RedirectNotAllowed { field: field.to_owned(), problem };
    let Some(given) = given else {
        return default.clone().ok_or_else(|| refused("is needed, since no setting says it".to_owned()));
    };
    redirects.check(&given).map_err(|error| refused(error.to_string()))?;
    Ok(given)
}
