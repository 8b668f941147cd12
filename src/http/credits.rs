//! `/v1/accounts/{account}/credits…`: the balance, and grants.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::debits::created;
use super::fields::{amount, or_default, time_if_given};
use super::problem::ApiError;
use super::reading::{AsOf, ReadQuery};
use super::request::{account_id, keyed_json, reason};
use super::server::State;
use super::views::LotView;
use crate::domain::catalog::DEFAULT_PACK_PRIORITY;
use crate::domain::command::{Command, Grant, Outcome};
use crate::domain::credit::LotSource;
use crate::store::error::StoreError;

/// What may be spent, and out of which lots.
pub async fn get(
    path: web::Path<String>,
    query: web::Query<ReadQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = state.service.account(&account_id(&path)?, query.read(state.service.clock.now())?).await?;
    let now = account.at;
    let lots: Vec<LotView> =
        account.credits().lots.iter().filter(|lot| lot.held > 0 || !lot.is_expired_at(now)).map(LotView::of).collect();
    Ok(HttpResponse::Ok().json(json!({
        "available": account.credits().available_at(now),
        "held": account.credits().held(),
        "debt": account.credits().debt,
        "unlimited": account.standing().is_unlimited(None),
        "credit_display_scale": account.catalog.catalog.credit_display_scale,
        "lots": lots,
        "position": account.position,
        "as_of": AsOf::of(&account),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostGrant {
    #[serde(deserialize_with = "amount")]
    amount: i64,
    #[serde(default, deserialize_with = "or_default")]
    source: GrantSource,
    priority: Option<i32>,
    #[serde(default, deserialize_with = "time_if_given")]
    effective_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "time_if_given")]
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
}

/// Plans and packs grant by themselves.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GrantSource {
    #[default]
    Manual,
    Promotion,
}

/// Gives credits by hand.
pub async fn grant(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let (key, body) = keyed_json::<PostGrant>(&request, payload).await?;
    let grant = Grant {
        grant: state.service.new_id(),
        amount: body.amount,
        source: match body.source {
            GrantSource::Manual => LotSource::Manual,
            GrantSource::Promotion => LotSource::Promotion,
        },
        priority: body.priority.unwrap_or(DEFAULT_PACK_PRIORITY),
        effective_at: body.effective_at,
        expires_at: body.expires_at,
        reason: reason(body.reason)?,
    };
    let account = state.service.resolve(&account).await?;
    let answer = state.service.execute(account, Command::Grant(grant), Some(key)).await?;
    let position = answer.position;
    created(answer, |outcome| match outcome {
        Outcome::Granted(lot) => {
            let mut view = serde_json::to_value(LotView::of(lot)).map_err(StoreError::from)?;
            view["position"] = json!(position);
            Ok(view)
        }
        _ => Err(ApiError::Internal),
    })
}
