//! `/v1/accounts/{account}`.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::page::PageQuery;
use super::problem::ApiError;
use super::request::{MAX_JSON_BYTES, account_id, parse_json, read_body};
use super::server::State;
use crate::app::accounts::AccountDetails;
use crate::domain::command::MAX_AMOUNT;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::standing::Standing;
use crate::store::load;
use crate::store::profiles::{self, Profile};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutAccount {
    stripe_customer_id: Option<String>,
    email: Option<String>,
    metadata: Option<serde_json::Map<String, Value>>,
    /// `Some(None)`: null was given.
    #[serde(default, deserialize_with = "given")]
    low_balance: Option<Option<i64>>,
}

/// Tells null apart from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::<i64>::deserialize(deserializer).map(Some)
}

/// Creates an account, or adds to it: a Stripe customer, an e-mail address, metadata.
pub async fn put(
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = account_id(&path)?;
    check_own_id(&id)?;
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PutAccount = if body.is_empty() { parse_json(b"{}")? } else { parse_json(&body)? };
    check_customer(body.stripe_customer_id.as_deref())?;
    check_email(body.email.as_deref())?;
    check_low_balance(body.low_balance.flatten())?;
    let details = AccountDetails {
        stripe_customer_id: body.stripe_customer_id,
        profile: Profile { email: body.email, metadata: body.metadata.map(Value::Object) },
        low_balance: body.low_balance,
    };
    let (created, position) = state.service.put_account(id.clone(), details).await?;
    let mut response = if created { HttpResponse::Created() } else { HttpResponse::Ok() };
    let mut view = account_view(&state, &id, position).await?;
    view["position"] = json!(position);
    Ok(response.json(view))
}

/// An account by the name of one of Stripe's payments or invoices would be taken for that object's stream.
pub fn check_own_id(id: &AccountId) -> Result<(), ApiError> {
    if id.standing() > Ownership::Object {
        return Ok(());
    }
    let problem = "must not look like the id of a Stripe object, such as in_… or pi_…".to_owned();
    Err(ApiError::InvalidParameter { field: "account".to_owned(), problem })
}

pub fn check_customer(id: Option<&str>) -> Result<(), ApiError> {
    let Some(id) = id else { return Ok(()) };
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if id.starts_with("cus_") && plain && id.len() <= 100 {
        return Ok(());
    }
    let problem = "must be a Stripe customer id, such as cus_…".to_owned();
    Err(ApiError::InvalidParameter { field: "stripe_customer_id".to_owned(), problem })
}

pub fn check_email(email: Option<&str>) -> Result<(), ApiError> {
    let Some(email) = email else { return Ok(()) };
    let halves = email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if halves && email.len() <= 320 && !email.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    Err(ApiError::InvalidParameter { field: "email".to_owned(), problem: "must be an e-mail address".to_owned() })
}

fn check_low_balance(threshold: Option<i64>) -> Result<(), ApiError> {
    if threshold.is_none_or(|threshold| (0..=MAX_AMOUNT).contains(&threshold)) {
        return Ok(());
    }
    let problem = format!("must be a whole number from 0 (never) to {MAX_AMOUNT}, or null for what the plan says");
    Err(ApiError::InvalidParameter { field: "low_balance".to_owned(), problem })
}

/// What is known of an account.
pub async fn get(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let id = account_id(&path)?;
    let min_position = query.min_position()?;
    Ok(HttpResponse::Ok().json(account_view(&state, &id, min_position).await?))
}

async fn account_view(state: &State, name: &AccountId, min_position: i64) -> Result<Value, ApiError> {
    let service = &state.service;
    let account = service.account_now(name, min_position).await?;
    let client = service.connection().await?;
    let profile = profiles::get_profile(&**client, &account.id).await?;
    let links = load::links_to(&**client, &account.id).await?;
    let customers: Vec<&String> = links.iter().filter(|link| link.starts_with("cus_")).collect();
    let catalog = service.catalog.current();
    let standing = Standing::of(account.credits(), &catalog.catalog, service.clock.now());
    Ok(json!({
        "id": account.id,
        "stripe_customer_ids": customers,
        "email": profile.email,
        "metadata": profile.metadata.unwrap_or_else(|| json!({})),
        "plan": standing.plan.map(|plan| &plan.id),
        "state": standing.state(account.credits()),
        "dunning": standing.overdue,
        "suspension": account.credits().suspension,
        "low_balance": account.credits().low_balance,
        "opened_at": account.credits().opened_at,
        "position": account.position,
    }))
}
