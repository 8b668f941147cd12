//! `/v1/admin/reconcile`: the ledger beside Stripe.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::{or_default, time_if_given};
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, parse_json, read_body};
use super::server::State;
use crate::app::error::AppError;
use crate::app::stripe_sync::reconcile::{ReconcileOptions, ReconcileReport};
use crate::app::upkeep::jobs::Job;
use crate::domain::ids::AccountId;
use crate::stripe::client::StripeCallError;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostReconcile {
    account: Option<String>,
    #[serde(default, deserialize_with = "time_if_given")]
    since: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "or_default")]
    dry_run: bool,
}

/// Starts comparing customers, subscriptions, invoices and payments with Stripe, in the background.
pub async fn start(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostReconcile = if body.is_empty() { PostReconcile::default() } else { parse_json(&body)? };
    if !state.service.stripe_client.is_configured() {
        return Err(AppError::Stripe(StripeCallError::NotConfigured).into());
    }
    let account = body
        .account
        .map(|name| AccountId::new(&name))
        .transpose()
        .map_err(|error| ApiError::InvalidParameter { field: "account".to_owned(), problem: error.to_string() })?;
    let options = ReconcileOptions { account, since: body.since, dry_run: body.dry_run };
    Ok(HttpResponse::Accepted().json(view(state.service.start_reconcile(options))))
}

/// How far this replica's last comparison is, and what it found.
pub async fn get(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let job = state.service.last_reconcile();
    let job = job.ok_or_else(|| ApiError::NotFound { what: "comparison", id: "started on this replica".to_owned() })?;
    Ok(HttpResponse::Ok().json(view(job)))
}

fn view(job: Job<ReconcileReport>) -> Value {
    let mut view = json!({"status": job.status, "started_at": job.started_at, "objects": job.events});
    if let Some(at) = job.finished_at {
        view["finished_at"] = json!(at);
    }
    if let Some(report) = job.result {
        view["result"] = json!(report);
    }
    if let Some(error) = job.error {
        view["error"] = json!(error);
    }
    view
}
