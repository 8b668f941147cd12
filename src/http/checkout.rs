//! Sessions of Stripe Checkout and of Stripe's customer portal.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Deserialize;

use super::fields::or_default;
use super::payment_routes::Call;
use super::problem::ApiError;
use super::request::stripe_id;
use crate::app::selling::checkout::CheckoutRequest;
use crate::domain::catalog::Interval;
use crate::domain::money::Currency;
use crate::domain::sale::Wanted;

/// Most of one thing that a session sells.
const MAX_QUANTITY: i64 = 999_999;
/// Longest trial that Stripe takes.
const MAX_TRIAL_DAYS: u32 = 730;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostCheckout {
    plan: Option<String>,
    price: Option<String>,
    credit_pack: Option<String>,
    interval: Option<Interval>,
    currency: Option<String>,
    quantity: Option<i64>,
    trial_days: Option<u32>,
    success_url: Option<String>,
    cancel_url: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    allow_promotion_codes: bool,
}

/// Opens a session in which the account's customer buys a plan, a price of Stripe's, or a credit pack.
pub async fn create_checkout_session(call: Call) -> Result<HttpResponse, ApiError> {
    super::accounts::check_own_id(call.account())?;
    let request = call.json::<PostCheckout>()?.read()?;
    call.run(StatusCode::CREATED, async |service, errand| service.open_checkout(errand, request).await).await
}

impl PostCheckout {
    fn read(self) -> Result<CheckoutRequest, ApiError> {
        if self.trial_days.is_some_and(|days| days > MAX_TRIAL_DAYS) {
            let problem = format!("must be from 0 to {MAX_TRIAL_DAYS}");
            return Err(ApiError::InvalidParameter { field: "trial_days".to_owned(), problem });
        }
        let currency = currency(self.currency.as_deref())?;
        let wanted = match (self.plan, self.price, self.credit_pack) {
            (Some(plan), None, None) => Wanted::Plan { plan, interval: self.interval, currency },
            (None, Some(price), None) if self.interval.is_none() && currency.is_none() => {
                Wanted::Price(stripe_id("price", &price)?.to_owned())
            }
            (None, None, Some(pack)) if self.interval.is_none() && self.trial_days.is_none() => {
                Wanted::CreditPack { pack, currency }
            }
            _ => {
                let problem = "give one of plan (with interval and currency), price, or credit_pack (with currency)";
                return Err(ApiError::InvalidBody(problem.to_owned()));
            }
        };
        Ok(CheckoutRequest {
            wanted,
            quantity: quantity(self.quantity)?.unwrap_or(1),
            trial_days: self.trial_days,
            success_url: self.success_url,
            cancel_url: self.cancel_url,
            allow_promotion_codes: self.allow_promotion_codes,
        })
    }
}

/// A currency by its code.
pub fn currency(code: Option<&str>) -> Result<Option<Currency>, ApiError> {
    let invalid = |problem: String| ApiError::InvalidParameter { field: "currency".to_owned(), problem };
    code.map(|code| Currency::parse(code).map_err(|error| invalid(error.to_string()))).transpose()
}

/// How many of something.
pub fn quantity(quantity: Option<i64>) -> Result<Option<u64>, ApiError> {
    let Some(quantity) = quantity else { return Ok(None) };
    let within = (1..=MAX_QUANTITY).contains(&quantity).then(|| quantity.unsigned_abs());
    let problem = format!("must be a whole number from 1 to {MAX_QUANTITY}");
    within.map(Some).ok_or(ApiError::InvalidParameter { field: "quantity".to_owned(), problem })
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostPortal {
    return_url: Option<String>,
}

/// Opens a session in which the account's customer looks after payment methods, invoices and subscriptions.
pub async fn create_portal_session(call: Call) -> Result<HttpResponse, ApiError> {
    let body: PostPortal = call.json_or_default()?;
    call.run(StatusCode::CREATED, async |service, errand| service.open_portal(errand, body.return_url).await).await
}
