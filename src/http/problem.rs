//! Every error a caller can see: RFC 9457 problem+json with a stable code.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use super::middleware::request_id;
use crate::app::error::AppError;
use crate::app::read_path::receipt::Receipt;
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::rejection::Rejection;
use crate::domain::stripe_refusal::StripeRefusal;
use crate::store::error::StoreError;
use crate::stripe::client::StripeCallError;
use crate::stripe::signature::SignatureError;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("Stripe webhooks are not configured: set STRIPE_WEBHOOK_SECRETS to the endpoint's whsec_… secret")]
    StripeNotConfigured,
    #[error("the body has more than {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body did not arrive within {seconds} s")]
    BodyTooSlow { seconds: u64 },
    #[error("the body did not arrive whole")]
    BodyBroken,
    #[error("the body cannot be read: {0}")]
    InvalidBody(String),
    #[error("{field}: {problem}")]
    InvalidParameter { field: String, problem: String },
    #[error(
        "this needs an idempotency key, as the Idempotency-Key header or the `idempotency_key` of a row: any string of your own, the same when you retry"
    )]
    IdempotencyKeyMissing,
    #[error("an Idempotency-Key has 1 to 255 printable ASCII characters, and no blanks at its ends")]
    IdempotencyKeyInvalid,
    #[error("there are several Idempotency-Key headers; send one")]
    SeveralIdempotencyKeys,
    #[error("send Authorization: Bearer <key>; `subledger keys create` makes one")]
    Unauthorized,
    #[error("the key's scope is {have}; this route needs {need}")]
    Forbidden { have: &'static str, need: &'static str },
    #[error("{what} {id} does not exist")]
    NotFound { what: &'static str, id: String },
    #[error("there is no such route; /docs lists them")]
    NoSuchRoute,
    #[error("the route exists, but not for this method; /docs lists them")]
    MethodNotAllowed,
    #[error("something went wrong on our side; the request id leads to it")]
    Internal,
}

/// Status, stable code and title of an error. The one place where they are said.
fn kind(error: &ApiError) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match error {
        ApiError::App(error) => app_kind(error),
        ApiError::Signature(error) => match error {
            SignatureError::Missing => (S::BAD_REQUEST, "signature_missing", "The signature is missing"),
            SignatureError::Malformed => (S::BAD_REQUEST, "signature_malformed", "The signature is malformed"),
            SignatureError::NoMatch => (S::BAD_REQUEST, "signature_mismatch", "The signature does not match"),
            SignatureError::TooOld => (S::BAD_REQUEST, "signature_too_old", "The signature is too old"),
            SignatureError::TooNew => (S::BAD_REQUEST, "signature_too_new", "The signature is from the future"),
        },
        ApiError::StripeNotConfigured => (S::SERVICE_UNAVAILABLE, "stripe_not_configured", "Stripe is not configured"),
        ApiError::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
        ApiError::BodyTooSlow { .. } => (S::REQUEST_TIMEOUT, "body_too_slow", "The body came too slowly"),
        ApiError::BodyBroken => (S::BAD_REQUEST, "body_incomplete", "The body is incomplete"),
        ApiError::InvalidBody(_) => (S::BAD_REQUEST, "invalid_body", "The body cannot be read"),
        ApiError::InvalidParameter { .. } => (S::BAD_REQUEST, "invalid_parameter", "A parameter is invalid"),
        ApiError::IdempotencyKeyMissing => {
            (S::BAD_REQUEST, "idempotency_key_missing", "The Idempotency-Key is missing")
        }
        ApiError::IdempotencyKeyInvalid | ApiError::SeveralIdempotencyKeys => {
            (S::BAD_REQUEST, "idempotency_key_invalid", "The Idempotency-Key is invalid")
        }
        ApiError::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "A valid API key is needed"),
        ApiError::Forbidden { .. } => (S::FORBIDDEN, "forbidden", "The API key may not do this"),
        ApiError::NotFound { .. } => (S::NOT_FOUND, "not_found", "It does not exist"),
        ApiError::NoSuchRoute => (S::NOT_FOUND, "no_such_route", "No such route"),
        ApiError::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
        ApiError::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
    }
}

fn app_kind(error: &AppError) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match error {
        AppError::Rejected(rejection) => rejection_kind(rejection),
        AppError::AccountNotFound(_) | AppError::AccountNotYetOpen { .. } => {
            (S::NOT_FOUND, "account_not_found", "No such account")
        }
        AppError::ReceiptNotFound(_) => (S::NOT_FOUND, "receipt_not_found", "No such receipt"),
        AppError::AsOfTooRecent { .. } => (S::CONFLICT, "as_of_too_recent", "The time is too recent"),
        AppError::KeyReused => {
            (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The Idempotency-Key belongs to another request")
        }
        AppError::Overloaded | AppError::Moved(_) | AppError::LinkedElsewhere | AppError::HoldEnded => {
            (S::SERVICE_UNAVAILABLE, "overloaded", "Too busy")
        }
        AppError::CustomerLinkedElsewhere { .. } => {
            (S::CONFLICT, "customer_linked_elsewhere", "The customer belongs to another account")
        }
        AppError::Stopping => (S::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
        AppError::Poisoned(_) => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        AppError::PositionNotReached { .. } => {
            (S::CONFLICT, "position_not_reached", "The position has not been reached")
        }
        AppError::Stripe(error) => stripe_kind(error),
        AppError::TooManyPaymentCalls(_) => {
            (S::TOO_MANY_REQUESTS, "too_many_payment_calls", "Too many calls of payment routes")
        }
        AppError::InvalidPlan { .. } => (S::BAD_REQUEST, "invalid_parameter", "A parameter is invalid"),
        AppError::TooManyWebhookEndpoints { .. } => {
            (S::UNPROCESSABLE_ENTITY, "too_many_webhook_endpoints", "There are too many webhook endpoints")
        }
        AppError::WebhookEndpointDisabled(_) => {
            (S::CONFLICT, "webhook_endpoint_disabled", "The webhook endpoint is disabled")
        }
        AppError::Store(StoreError::OutcomeUnknown) => {
            (S::SERVICE_UNAVAILABLE, "outcome_unknown", "The outcome is unknown")
        }
        AppError::Store(StoreError::Unavailable(_) | StoreError::Conflict(_)) => {
            (S::SERVICE_UNAVAILABLE, "database_unavailable", "The database is not available")
        }
        AppError::Store(StoreError::Refused(_) | StoreError::Corrupt(_)) => {
            (S::INTERNAL_SERVER_ERROR, "internal", "Internal error")
        }
    }
}

fn stripe_kind(error: &StripeCallError) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match error {
        StripeCallError::NotConfigured => (S::SERVICE_UNAVAILABLE, "stripe_not_configured", "Stripe is not configured"),
        StripeCallError::Refused(refusal) if refusal.is_our_key() => {
            (S::SERVICE_UNAVAILABLE, "stripe_key_refused", "Stripe refuses our API key")
        }
        StripeCallError::Refused(refusal) => refusal_kind(refusal),
        StripeCallError::Unavailable { .. } => {
            (S::SERVICE_UNAVAILABLE, "stripe_unavailable", "Stripe is not available")
        }
        StripeCallError::Unreadable(_) => (S::BAD_GATEWAY, "stripe_unreadable", "Stripe's answer cannot be read"),
    }
}

fn refusal_kind(refusal: &StripeRefusal) -> (StatusCode, &'static str, &'static str) {
    if refusal.kind == "card_error" {
        return (StatusCode::PAYMENT_REQUIRED, "payment_declined", "The payment was declined");
    }
    (StatusCode::UNPROCESSABLE_ENTITY, "stripe_refused", "Stripe refused")
}

fn billing_kind(because: &BillingRejection) -> (StatusCode, &'static str, &'static str) {
    use BillingRejection as B;
    use StatusCode as S;
    match because {
        B::UnknownPlan { .. } => (S::NOT_FOUND, "unknown_plan", "No such plan"),
        B::UnknownCreditPack { .. } => (S::NOT_FOUND, "unknown_credit_pack", "No such credit pack"),
        B::PlanNotForSale { .. } => (S::UNPROCESSABLE_ENTITY, "plan_not_for_sale", "The plan cannot be bought"),
        B::IntervalNotOffered { .. } => {
            (S::UNPROCESSABLE_ENTITY, "interval_not_offered", "Not offered for that interval")
        }
        B::CurrencyNotOffered { .. } => {
            (S::UNPROCESSABLE_ENTITY, "currency_not_offered", "Not offered in that currency")
        }
        B::CurrencyAmbiguous { .. } => (S::UNPROCESSABLE_ENTITY, "currency_ambiguous", "A currency must be said"),
        B::PriceNotInStripe { .. } => {
            (S::UNPROCESSABLE_ENTITY, "price_not_in_stripe", "The price does not exist in Stripe yet")
        }
        B::PriceIsProduct { .. } => (S::UNPROCESSABLE_ENTITY, "price_is_product", "That is a product, not a price"),
        B::UnknownPrice { .. } => (S::NOT_FOUND, "unknown_price", "No such price"),
        B::PriceOfOtherMode { .. } => {
            (S::UNPROCESSABLE_ENTITY, "price_of_other_mode", "The price is of Stripe's other mode")
        }
        B::RedirectNotAllowed { .. } => {
            (S::UNPROCESSABLE_ENTITY, "redirect_not_allowed", "Customers may not be sent there")
        }
        B::SubscriptionExists { .. } => (S::CONFLICT, "subscription_exists", "There is a subscription already"),
        B::NoSubscription { .. } => (S::NOT_FOUND, "no_subscription", "There is no subscription"),
        B::NoStripeCustomer { .. } => (S::CONFLICT, "no_stripe_customer", "There is no customer at Stripe yet"),
        B::SubscriptionEnded { .. } => (S::CONFLICT, "subscription_ended", "The subscription has ended"),
        B::SubscriptionNotEnding { .. } => (S::CONFLICT, "subscription_not_ending", "The subscription is not ending"),
        B::SubscriptionUnchanged { .. } => {
            (S::CONFLICT, "subscription_unchanged", "The subscription is like that already")
        }
        B::SeveralItems { .. } => (S::CONFLICT, "several_items", "The subscription has several items"),
        B::CurrencyFixed { .. } => (S::CONFLICT, "currency_fixed", "The subscription's currency cannot change"),
        B::NoPendingChange { .. } => (S::CONFLICT, "no_pending_change", "No change is waiting"),
        B::CollectionNotPaused { .. } => (S::CONFLICT, "collection_not_paused", "Collection is not paused"),
        B::UnknownPromotionCode { .. } => (S::NOT_FOUND, "unknown_promotion_code", "No such promotion code"),
        B::PaymentNotFound { .. } => (S::NOT_FOUND, "payment_not_found", "No such payment"),
        B::PaymentNotRefundable { .. } => (S::CONFLICT, "payment_not_refundable", "The payment cannot be given back"),
        B::RefundExceedsPayment { .. } => {
            (S::UNPROCESSABLE_ENTITY, "refund_exceeds_payment", "More than is left of the payment")
        }
        B::StripeRefused { refusal } => refusal_kind(refusal),
    }
}

fn rejection_kind(rejection: &Rejection) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match rejection {
        Rejection::InsufficientCredits { .. } => (S::PAYMENT_REQUIRED, "insufficient_credits", "Too little credit"),
        Rejection::AccountNotFound { .. } => (S::NOT_FOUND, "account_not_found", "No such account"),
        Rejection::UnknownFeature { .. } => (S::NOT_FOUND, "unknown_feature", "No such feature"),
        Rejection::FeatureNotMetered { .. } => {
            (S::UNPROCESSABLE_ENTITY, "feature_not_metered", "The feature is not metered")
        }
        Rejection::FeatureNotInPlan { .. } => {
            (S::FORBIDDEN, "feature_not_in_plan", "The plan does not include the feature")
        }
        Rejection::OverrideDenied { .. } => (S::FORBIDDEN, "override_denied", "An override denies the feature"),
        Rejection::LimitExceeded { .. } => (S::FORBIDDEN, "limit_exceeded", "The limit is used up"),
        Rejection::AccountSuspended { .. } => (S::FORBIDDEN, "account_suspended", "The account is suspended"),
        Rejection::SuspendedUnpaid { .. } => {
            (S::FORBIDDEN, "suspended_unpaid", "The account is suspended until a payment is made good")
        }
        Rejection::PaymentOverdue { .. } => (S::FORBIDDEN, "payment_overdue", "A payment is overdue"),
        Rejection::SubscriptionPaused { .. } => (S::FORBIDDEN, "subscription_paused", "The subscription is paused"),
        Rejection::TooManyOverrides { .. } => {
            (S::UNPROCESSABLE_ENTITY, "too_many_overrides", "The account has too many overrides")
        }
        Rejection::TooManyHolds { .. } => {
            (S::UNPROCESSABLE_ENTITY, "too_many_holds", "The account has too many open holds")
        }
        Rejection::QuantityOutOfRange { .. } => (S::BAD_REQUEST, "out_of_range", "A number is out of range"),
        Rejection::TimeOutOfRange { .. } => (S::BAD_REQUEST, "time_out_of_range", "A time is out of range"),
        Rejection::OutOfRange { .. } => (S::BAD_REQUEST, "out_of_range", "A number is out of range"),
        Rejection::AlreadyExpired => (S::BAD_REQUEST, "already_expired", "The credits would have expired"),
        Rejection::HoldNotFound { .. } => (S::NOT_FOUND, "hold_not_found", "No such hold"),
        Rejection::HoldCaptured { .. } => (S::CONFLICT, "hold_captured", "The hold was captured"),
        Rejection::HoldReleased { .. } => (S::CONFLICT, "hold_released", "The hold was released"),
        Rejection::HoldExpired { .. } => (S::CONFLICT, "hold_expired", "The hold has expired"),
        Rejection::CaptureExceedsHold { .. } => {
            (S::UNPROCESSABLE_ENTITY, "capture_exceeds_hold", "More was used than was held")
        }
        Rejection::HoldWithoutFeature { .. } => {
            (S::UNPROCESSABLE_ENTITY, "hold_without_feature", "The hold is for an amount")
        }
        Rejection::HoldExpiryOutOfRange { .. } => {
            (S::BAD_REQUEST, "hold_expiry_out_of_range", "The hold would end too soon or too late")
        }
        Rejection::Billing { because } => billing_kind(because),
    }
}

/// Every code there is; `openapi.yaml` must know them all.
pub const CODES: &[&str] = &[
    "account_not_found",
    "account_suspended",
    "already_expired",
    "as_of_too_recent",
    "body_incomplete",
    "body_too_large",
    "body_too_slow",
    "capture_exceeds_hold",
    "collection_not_paused",
    "currency_ambiguous",
    "currency_fixed",
    "currency_not_offered",
    "customer_linked_elsewhere",
    "database_unavailable",
    "feature_not_in_plan",
    "feature_not_metered",
    "forbidden",
    "hold_captured",
    "hold_expired",
    "hold_expiry_out_of_range",
    "hold_not_found",
    "hold_released",
    "hold_without_feature",
    "idempotency_key_invalid",
    "idempotency_key_missing",
    "idempotency_key_reused",
    "insufficient_credits",
    "internal",
    "interval_not_offered",
    "invalid_body",
    "invalid_parameter",
    "limit_exceeded",
    "method_not_allowed",
    "no_pending_change",
    "no_stripe_customer",
    "no_subscription",
    "no_such_route",
    "not_found",
    "out_of_range",
    "outcome_unknown",
    "overloaded",
    "override_denied",
    "payment_declined",
    "payment_not_found",
    "payment_not_refundable",
    "payment_overdue",
    "plan_not_for_sale",
    "position_not_reached",
    "price_is_product",
    "price_not_in_stripe",
    "price_of_other_mode",
    "receipt_not_found",
    "redirect_not_allowed",
    "refund_exceeds_payment",
    "several_items",
    "signature_malformed",
    "signature_mismatch",
    "signature_missing",
    "signature_too_new",
    "signature_too_old",
    "stopping",
    "stripe_key_refused",
    "stripe_not_configured",
    "stripe_refused",
    "stripe_unavailable",
    "stripe_unreadable",
    "subscription_ended",
    "subscription_exists",
    "subscription_not_ending",
    "subscription_paused",
    "subscription_unchanged",
    "suspended_unpaid",
    "time_out_of_range",
    "too_many_holds",
    "too_many_overrides",
    "too_many_payment_calls",
    "too_many_webhook_endpoints",
    "unauthorized",
    "unknown_credit_pack",
    "unknown_feature",
    "unknown_plan",
    "unknown_price",
    "unknown_promotion_code",
    "webhook_endpoint_disabled",
];

/// The body of an error.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub type_uri: String,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    pub code: &'static str,
    pub request_id: String,
    /// Of a refusal that is on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// Routes that lead on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub see: Vec<String>,
    /// Stripe's own words, where it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe: Option<StripeRefusal>,
}

impl ApiError {
    /// The body of this error.
    pub fn problem(&self) -> Problem {
        let (status, code, title) = kind(self);
        let detail = match self {
            // The server's own words are for the log, not for callers.
            Self::App(AppError::Poisoned(_) | AppError::Store(StoreError::Refused(_) | StoreError::Corrupt(_))) => {
                Self::Internal.to_string()
            }
            Self::App(AppError::Store(StoreError::Unavailable(_) | StoreError::Conflict(_))) => {
                "the database is not available at the moment; retry with the same key".to_owned()
            }
            error => error.to_string(),
        };
        Problem {
            type_uri: format!("urn:subledger:problem:{code}"),
            title,
            status: status.as_u16(),
            detail,
            code,
            request_id: request_id(),
            receipt: None,
            see: Vec::new(),
            stripe: self.stripe_refusal().cloned(),
        }
    }

    fn stripe_refusal(&self) -> Option<&StripeRefusal> {
        match self {
            Self::App(AppError::Stripe(error)) => error.refusal(),
            Self::App(AppError::Rejected(Rejection::Billing {
                because: BillingRejection::StripeRefused { refusal },
            })) => Some(refusal),
            _ => None,
        }
    }

    fn retry_after_seconds(&self) -> u64 {
        match self {
            Self::App(AppError::Stripe(StripeCallError::Unavailable { retry_after, .. })) => {
                retry_after.as_secs_f64().ceil().max(1.0) as u64
            }
            Self::App(AppError::TooManyPaymentCalls(budget)) => budget.reset_seconds.unsigned_abs(),
            _ => 1,
        }
    }

    /// The body of a refusal that an Idempotency-Key keeps, with its receipt if it is on record.
    pub fn kept_problem(&self, receipt: Option<Receipt>) -> Problem {
        let problem = self.problem();
        let detail =
            format!("{}; the Idempotency-Key keeps this answer, so another attempt needs a new one", problem.detail);
        Problem { detail, receipt, ..problem }
    }

    /// The answer with a body of this error.
    pub fn response(&self, problem: &Problem) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // It passes, and metrics count it; an error in the log is a defect.
            tracing::warn!(error = ?self, code = problem.code, request_id = problem.request_id, "cannot answer now");
            response.insert_header((RETRY_AFTER, self.retry_after_seconds().to_string()));
        } else if status.is_server_error() {
            tracing::error!(error = ?self, code = problem.code, request_id = problem.request_id, "a request failed");
        }
        if let Self::App(AppError::Rejected(rejection @ Rejection::LimitExceeded { resets_at, .. })) = self
            && !rejection.is_beyond_whole_limit()
        {
            // As a date, so that a replay of the refusal says the same.
            response.insert_header((RETRY_AFTER, resets_at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.insert_header((RETRY_AFTER, self.retry_after_seconds().to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        let body = serde_json::to_vec(problem).unwrap_or_default();
        response.insert_header((CONTENT_TYPE, "application/problem+json")).body(body)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        kind(self).0
    }

    fn error_response(&self) -> HttpResponse {
        self.response(&self.problem())
    }
}

macro_rules! through_app_error {
    ($($source:ty),*) => {$(
        impl From<$source> for ApiError {
            fn from(error: $source) -> Self {
                Self::App(error.into())
            }
        }
    )*};
}

through_app_error!(StoreError, Rejection);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_says_stays_inside() {
        let error = ApiError::from(StoreError::Refused("relation secret does not exist".to_owned()));
        assert!(!error.problem().detail.contains("secret"));
    }

    #[test]
    fn codes_are_listed_in_order() {
        assert!(CODES.is_sorted());
    }
}
