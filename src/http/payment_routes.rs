//! What the routes that call Stripe have in common: the caller's key, a limit, and the outcome that is kept.

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::debits;
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, account_id, idempotency_key, parse_json, parse_json_or_default, read_body};
use super::server::State;
use super::stripe_views::view;
use crate::app::error::AppError;
use crate::app::selling::errand::Errand;
use crate::app::selling::payment_routes::CallBudget;
use crate::app::service::Service;
use crate::app::write_path::work::{Answer, Key};
use crate::domain::billing_rejection::BillingRejection;
use crate::domain::command::Outcome;
use crate::domain::ids::AccountId;
use crate::domain::rejection::Rejection;
use crate::domain::stripe_outcome::StripeOutcome;

/// A request to do something for the account in its path, under the caller's key.
#[derive(Debug)]
pub struct Call {
    account: AccountId,
    key: Key,
    body: Bytes,
    state: web::Data<State>,
}

impl FromRequest for Call {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), web::Payload::from_request(request, payload));
        Box::pin(async move {
            let state = request.app_data::<web::Data<State>>().ok_or(ApiError::Internal)?.clone();
            let path = web::Path::<String>::extract(&request).await.map_err(|_| ApiError::Internal)?;
            let account = account_id(&path)?;
            let body = read_body(payload.await.map_err(|_| ApiError::BodyBroken)?, MAX_JSON_BYTES).await?;
            let key = idempotency_key(&request, &body)?;
            Ok(Self { account, key, body, state })
        })
    }
}

impl Call {
    /// The account as the path names it.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse_json(&self.body)
    }

    /// The same, of a body that may be left out.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        parse_json_or_default(&self.body)
    }

    /// Runs what is asked for; see [`run`].
    pub async fn run(
        self,
        status: StatusCode,
        flow: impl AsyncFnOnce(&Service, &Errand) -> Result<StripeOutcome, AppError>,
    ) -> Result<HttpResponse, ApiError> {
        let service = &self.state.service;
        run(&self.state, status, &self.account, self.key, async |errand| flow(service, errand).await).await
    }
}

/// Runs an errand once for its key: a repeat is told what came of it, whatever else has happened since.
pub async fn run(
    state: &State,
    status: StatusCode,
    account: &AccountId,
    key: Key,
    flow: impl AsyncFnOnce(&Errand) -> Result<StripeOutcome, AppError>,
) -> Result<HttpResponse, ApiError> {
    let service = &state.service;
    let account = service.resolve(account).await?;
    if let Some(answer) = service.recorded(key).await? {
        return respond(state, status, &account, answer);
    }
    let budget = service.count_payment_call(&account).await?;
    if let Some(budget) = budget.filter(|budget| budget.is_exceeded) {
        let mut response = ApiError::from(AppError::TooManyPaymentCalls(budget)).error_response();
        tell(response.headers_mut(), budget);
        return Ok(response);
    }
    let errand = Errand { account: account.clone(), key };
    let outcome = flow(&errand).await;
    let concluded = service.conclude(errand, outcome).await.map_err(ApiError::from);
    let answered = concluded.and_then(|answer| respond(state, status, &account, answer));
    let mut response = answered.unwrap_or_else(|error| error.error_response());
    if let Some(budget) = budget {
        tell(response.headers_mut(), budget);
    }
    Ok(response)
}

fn respond(state: &State, status: StatusCode, account: &AccountId, answer: Answer) -> Result<HttpResponse, ApiError> {
    let position = answer.position;
    if let Err(rejection) = &answer.result
        && let Some(see) = see(account, rejection)
    {
        let rejection = ApiError::from(rejection.clone());
        let mut problem = rejection.kept_problem(None);
        problem.see = see;
        return Ok(debits::marked(rejection.response(&problem), answer.replayed));
    }
    debits::answered(status, answer, |outcome| match outcome {
        Outcome::Stripe(outcome) => {
            Ok(with_position(view(outcome, &state.service.catalog.current().catalog), position))
        }
        _ => Err(ApiError::Internal),
    })
}

fn with_position(mut view: Value, position: i64) -> Value {
    view["position"] = Value::from(position);
    view
}

/// Routes that lead on from a refusal.
fn see(account: &AccountId, rejection: &Rejection) -> Option<Vec<String>> {
    use BillingRejection as B;
    let Rejection::Billing { because } = rejection else { return None };
    let routes: &[&str] = match because {
        B::SubscriptionExists { .. } => &["subscription/change", "portal-sessions"],
        B::NoStripeCustomer { .. } | B::NoSubscription { .. } | B::SubscriptionEnded { .. } => &["checkout-sessions"],
        _ => return None,
    };
    Some(routes.iter().map(|route| format!("/v1/accounts/{account}/{route}")).collect())
}

/// How often the account may still call, by the names of draft-ietf-httpapi-ratelimit-headers-06 and before, which clients
/// know; `RateLimit-Reset` is in seconds from now.
fn tell(headers: &mut HeaderMap, budget: CallBudget) {
    let numbers = [
        ("ratelimit-limit", budget.limit),
        ("ratelimit-remaining", budget.remaining),
        ("ratelimit-reset", budget.reset_seconds),
    ];
    for (name, number) in numbers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
}
