//! Changes of an account's subscription, and what they would cost.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::checkout::quantity;
use super::fields::{or_default, time_if_given};
use super::payment_routes::Call;
use super::problem::ApiError;
use super::reading::{consistency, min_position};
use super::request::{MAX_JSON_BYTES, account_id, parse_json, read_body, stripe_id};
use super::server::State;
use super::stripe_views::InvoicePreviewView;
use crate::app::selling::changes::{ChangeRequest, PauseBehavior, Proration, When};
use crate::app::selling::invoice_previews::InvoicePreview;
use crate::domain::catalog::Interval;
use crate::domain::subscription_change::ChangeTo;

/// The subscription that is meant; left out: the one that goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfSubscription {
    subscription: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostCancel {
    subscription: Option<String>,
    at_period_end: Option<bool>,
}

/// Ends a subscription, at the end of its period or at once.
pub async fn cancel(call: Call) -> Result<HttpResponse, ApiError> {
    let body: PostCancel = call.json_or_default()?;
    let named = named(&body.subscription)?;
    call.run(StatusCode::OK, async |service, errand| {
        service.cancel_subscription(errand, named, body.at_period_end.unwrap_or(true)).await
    })
    .await
}

/// Lets a subscription go on that was to end.
pub async fn resume(call: Call) -> Result<HttpResponse, ApiError> {
    let body: OfSubscription = call.json_or_default()?;
    let named = named(&body.subscription)?;
    call.run(StatusCode::OK, async |service, errand| service.resume_subscription(errand, named).await).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostChange {
    subscription: Option<String>,
    plan: Option<String>,
    price: Option<String>,
    interval: Option<Interval>,
    quantity: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    when: When,
    #[serde(default, deserialize_with = "or_default")]
    proration: Proration,
    #[serde(default, deserialize_with = "time_if_given")]
    proration_date: Option<DateTime<Utc>>,
}

impl PostChange {
    fn read(&self) -> Result<ChangeRequest, ApiError> {
        let by_price = self.price.is_some() && (self.plan.is_some() || self.interval.is_some());
        let nothing = self.plan.is_none() && self.price.is_none() && self.interval.is_none() && self.quantity.is_none();
        if by_price || nothing {
            let problem = "give plan, interval or both, or price in place of them; quantity beside or alone";
            return Err(ApiError::InvalidBody(problem.to_owned()));
        }
        let price = self.price.as_deref().map(|price| stripe_id("price", price)).transpose()?;
        let quantity = quantity(self.quantity)?.map(|quantity| i64::try_from(quantity).unwrap_or(i64::MAX));
        Ok(ChangeRequest {
            to: ChangeTo {
                plan: self.plan.clone(),
                price: price.map(str::to_owned),
                interval: self.interval,
                quantity,
            },
            when: self.when,
            proration: self.proration,
            proration_date: self.proration_date.map(|date| date.timestamp()),
        })
    }
}

/// Changes plan, price or quantity, now or when the period ends.
pub async fn change(call: Call) -> Result<HttpResponse, ApiError> {
    let body: PostChange = call.json()?;
    let (named, change) = (named(&body.subscription)?, body.read()?);
    call.run(StatusCode::OK, async |service, errand| service.change_subscription(errand, named, &change).await).await
}

/// Takes back a change that waits for the end of the period.
pub async fn cancel_change(call: Call) -> Result<HttpResponse, ApiError> {
    let body: OfSubscription = call.json_or_default()?;
    let named = named(&body.subscription)?;
    call.run(StatusCode::OK, async |service, errand| service.cancel_change(errand, named).await).await
}

/// What a change would cost. Changes nothing, so it needs no key.
pub async fn preview_change(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let body: PostChange = parse_json(&read_body(payload, MAX_JSON_BYTES).await?)?;
    let (named, change) = (named(&body.subscription)?, body.read()?);
    let account = state.service.resolve(&account).await?;
    let preview = state.service.preview_change(&account, named, &change).await?;
    answer_preview(&state, preview, account.as_str())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpcomingQuery {
    subscription: Option<String>,
    min_position: Option<String>,
    consistency: Option<String>,
}

/// The next invoice of the subscription.
pub async fn upcoming_invoice(
    path: web::Path<String>,
    query: web::Query<UpcomingQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let name = account_id(&path)?;
    consistency(query.consistency.as_deref())?;
    let min_position = min_position(query.min_position.as_deref())?;
    let account = match min_position {
        0 => state.service.resolve(&name).await?,
        _ => state.service.account_now(&name, min_position).await?.id,
    };
    let preview = state.service.upcoming_invoice(&account, named(&query.subscription)?).await?;
    answer_preview(&state, preview, account.as_str())
}

fn answer_preview(state: &State, preview: Option<InvoicePreview>, account: &str) -> Result<HttpResponse, ApiError> {
    let not_found = || ApiError::NotFound { what: "upcoming invoice of account", id: account.to_owned() };
    let preview = preview.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(InvoicePreviewView::of(&preview, &state.service.catalog.current().catalog)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostPause {
    subscription: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    behavior: PauseBehavior,
    #[serde(default, deserialize_with = "time_if_given")]
    resumes_at: Option<DateTime<Utc>>,
}

/// Stops collecting payments.
pub async fn pause_collection(call: Call) -> Result<HttpResponse, ApiError> {
    let body: PostPause = call.json_or_default()?;
    let named = named(&body.subscription)?;
    let resumes_at = body.resumes_at.map(|at| at.timestamp());
    call.run(StatusCode::OK, async |service, errand| {
        service.pause_collection(errand, named, body.behavior, resumes_at).await
    })
    .await
}

/// Collects payments again.
pub async fn resume_collection(call: Call) -> Result<HttpResponse, ApiError> {
    let body: OfSubscription = call.json_or_default()?;
    let named = named(&body.subscription)?;
    call.run(StatusCode::OK, async |service, errand| service.resume_collection(errand, named).await).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostPromotionCode {
    subscription: Option<String>,
    promotion_code: String,
}

/// Applies a promotion code.
pub async fn apply_promotion_code(call: Call) -> Result<HttpResponse, ApiError> {
    let body: PostPromotionCode = call.json()?;
    let (named, code) = (named(&body.subscription)?, stripe_id("promotion_code", &body.promotion_code)?);
    call.run(StatusCode::OK, async |service, errand| service.apply_promotion_code(errand, named, code).await).await
}

fn named(subscription: &Option<String>) -> Result<Option<&str>, ApiError> {
    subscription.as_deref().map(|id| stripe_id("subscription", id)).transpose()
}
