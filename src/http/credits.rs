//! `/v1/accounts/{account}/credits…`: the balance, the statement, grants.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::debits::answered;
use super::page::{Cursor, Page, PageQuery};
use super::problem::ApiError;
use super::reading::{AsOf, ReadQuery};
use super::request::{MAX_JSON_BYTES, account_id, idempotency_key, number, parse_json, read_body};
use super::server::State;
use super::views::LotView;
use crate::app::error::AppError;
use crate::domain::catalog::DEFAULT_PACK_PRIORITY;
use crate::domain::command::{Command, Grant, Outcome};
use crate::domain::credit::{Draw, LotSource};
use crate::domain::event::Event;
use crate::domain::standing::Standing;
use crate::store::error::StoreError;
use crate::store::log;

/// What may be spent, and out of which lots.
pub async fn get(
    path: web::Path<String>,
    query: web::Query<ReadQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let (min_position, consistency) = (query.min_position()?, query.consistency()?);
    let account = state.service.account_as_of(&account_id(&path)?, min_position, consistency).await?;
    let now = state.service.clock.now();
    let catalog = state.service.catalog.current();
    let unlimited = Standing::of(&account.credits, &catalog.catalog, now).is_unlimited();
    let lots: Vec<LotView> =
        account.credits.lots.iter().filter(|lot| !lot.is_expired_at(now)).map(LotView::of).collect();
    Ok(HttpResponse::Ok().json(json!({
        "available": account.credits.available_at(now),
        "held": 0,
        "debt": account.credits.debt,
        "unlimited": unlimited,
        "lots": lots,
        "position": account.position,
        "as_of": AsOf::of(&account, now),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostGrant {
    amount: i64,
    #[serde(default = "manual")]
    source: LotSource,
    #[serde(default = "default_priority")]
    priority: i32,
    effective_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
}

fn manual() -> LotSource {
    LotSource::Manual
}

fn default_priority() -> i32 {
    DEFAULT_PACK_PRIORITY
}

/// Longest reason of a grant. It goes into the log, so it must not name a person.
const MAX_REASON: usize = 500;

/// Gives credits by hand.
pub async fn grant(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let key = idempotency_key(&request, &body)?;
    let body: PostGrant = parse_json(&body)?;
    if !matches!(body.source, LotSource::Manual | LotSource::Promotion) {
        let problem = "must be manual or promotion; plans and packs grant by themselves".to_owned();
        return Err(ApiError::InvalidParameter { field: "source".to_owned(), problem });
    }
    if body.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON || reason.contains('\0')) {
        let problem = format!("must have at most {MAX_REASON} bytes, and no U+0000");
        return Err(ApiError::InvalidParameter { field: "reason".to_owned(), problem });
    }
    let grant = Grant {
        grant: Uuid::now_v7(),
        amount: body.amount,
        source: body.source,
        priority: body.priority,
        effective_at: body.effective_at,
        expires_at: body.expires_at,
        reason: body.reason,
    };
    let account = state.service.resolve(&account).await?;
    let answer = state.service.execute(account, Command::Grant(grant), Some(key)).await?;
    let position = answer.position;
    answered(answer, |outcome| match outcome {
        Outcome::Granted(lot) => {
            let mut view = serde_json::to_value(LotView::of(lot)).map_err(StoreError::from)?;
            view["position"] = json!(position);
            Ok(view)
        }
        _ => Err(ApiError::Internal),
    })
}

/// A line of the statement.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Credits added (positive) or taken (negative).
    amount: i64,
    at: DateTime<Utc>,
    id: String,
    lots: Vec<Value>,
    cause: Option<String>,
    feature: Option<String>,
    quantity: Option<i64>,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    position: i64,
}

const ENTRY_TYPES: &[&str] =
    &["credits_granted", "credits_debited", "credits_expired", "credits_clawed_back", "credits_reinstated"];

/// The statement, oldest first.
pub async fn entries(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let min_position = number(query.min_position.as_deref(), "min_position", 0, 0, i64::MAX)?;
    let account = state.service.account_now(&account_id(&path)?, min_position).await?;
    let limit = query.limit()?;
    let after = query.cursor()?.map_or(0, |cursor| cursor.at_us);
    let client = state.service.connection().await?;
    let stored = log::of_account(&**client, account.id.as_str(), after, ENTRY_TYPES, limit + 1).await?;
    let mut rows = Vec::with_capacity(stored.len());
    for stored in stored {
        let event = Event::read(&stored.event_type, stored.type_version, &stored.payload);
        let event = event.map_err(|error| AppError::Store(StoreError::Corrupt(error.to_string())))?;
        let cursor = Cursor { at_us: stored.version, id: String::new() };
        if let Some(entry) = entry(&event, stored.at, stored.position) {
            rows.push((cursor, entry));
        }
    }
    Ok(HttpResponse::Ok().json(Page::of(rows, limit)))
}

fn entry(event: &Event, at: DateTime<Utc>, position: i64) -> Option<Entry> {
    let draws = |draws: &[Draw]| draws.iter().map(|draw| json!({"id": draw.lot, "amount": draw.amount})).collect();
    let blank = |kind, amount, id| Entry {
        kind,
        amount,
        at,
        id,
        lots: Vec::new(),
        cause: None,
        feature: None,
        quantity: None,
        expires_at: None,
        reason: None,
        position,
    };
    Some(match event {
        Event::CreditsGranted(granted) => Entry {
            cause: Some(granted.lot.cause.clone()),
            expires_at: granted.lot.expires_at,
            reason: granted.reason.clone(),
            ..blank("grant", granted.lot.granted, granted.lot.id.to_string())
        },
        Event::CreditsDebited(debited) => Entry {
            lots: draws(&debited.lots),
            feature: debited.feature.clone(),
            quantity: debited.quantity,
            ..blank("debit", if debited.unlimited { 0 } else { -debited.amount }, debited.debit.to_string())
        },
        Event::CreditsExpired(expired) => {
            let amount: i64 = expired.lots.iter().map(|draw| draw.amount).sum();
            Entry { lots: draws(&expired.lots), ..blank("expiry", -amount, format!("expiry_{position}")) }
        }
        Event::CreditsClawedBack(clawed) => Entry {
            cause: Some(clawed.cause.clone()),
            lots: vec![json!({"id": clawed.lot, "amount": clawed.clawed_back})],
            ..blank("clawback", -(clawed.clawed_back + clawed.debt), format!("clawback_{position}"))
        },
        Event::CreditsReinstated(reinstated) => Entry {
            cause: Some(reinstated.cause.clone()),
            lots: vec![json!({"id": reinstated.lot, "amount": reinstated.reinstated})],
            ..blank("reinstatement", reinstated.reinstated + reinstated.debt, format!("reinstatement_{position}"))
        },
        _ => return None,
    })
}
