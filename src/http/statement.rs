//! The statement: every movement of an account's credits, and what they came to.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::page::{Cursor, Page, PageQuery};
use super::problem::ApiError;
use super::reading;
use super::request::account_id;
use super::server::State;
use super::views::DrawView;
use crate::domain::event::Event;
use crate::store::log;

/// A line of the statement.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Credits added (positive) or taken (negative).
    amount: i64,
    /// What all entries up to this one come to.
    balance: i64,
    at: DateTime<Utc>,
    id: String,
    lots: Vec<DrawView>,
    cause: Option<String>,
    feature: Option<String>,
    quantity: Option<i64>,
    effective_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    hold: Option<Uuid>,
    /// Of a capture: credits spent.
    captured: Option<i64>,
    /// Credits beyond the lots that are to be billed.
    overage: Option<i64>,
    position: i64,
}

const ENTRY_TYPES: &[&str] = &[
    "credits_granted",
    "credits_debited",
    "credits_expired",
    "debt_repaid",
    "credits_clawed_back",
    "credits_reinstated",
    "hold_placed",
    "hold_captured",
    "hold_released",
    "hold_expired",
    "account_absorbed",
];

/// The statement, oldest first.
pub async fn list(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let min_position = reading::min_position(query.min_position.as_deref())?;
    let account = state.service.account_now(&account_id(&path)?, min_position).await?;
    let limit = query.limit()?;
    // A cursor carries the balance that its page ended with.
    let cursor = query.cursor()?.unwrap_or(Cursor { at_us: 0, id: "0".to_owned() });
    let mut balance: i64 = cursor.id.parse().map_err(|_| Cursor::invalid())?;
    let client = state.service.connection().await?;
    let stored = log::of_account(&**client, account.id.as_str(), cursor.at_us, ENTRY_TYPES, limit + 1).await?;
    let has_more = stored.len() as i64 > limit;
    let mut page = Page { data: Vec::with_capacity(stored.len()), has_more, next_cursor: None };
    for stored in stored.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
        if let Some(entry) = entry(&stored.event()?, stored.at, stored.position) {
            balance = balance.saturating_add(entry.amount);
            page.data.push(Entry { balance, ..entry });
        }
        let cursor = Cursor { at_us: stored.version, id: balance.to_string() };
        page.next_cursor = has_more.then(|| cursor.encode());
    }
    Ok(HttpResponse::Ok().json(page))
}

fn entry(event: &Event, at: DateTime<Utc>, position: i64) -> Option<Entry> {
    let blank = |kind, amount, id| Entry {
        kind,
        amount,
        balance: 0,
        at,
        id,
        lots: Vec::new(),
        cause: None,
        feature: None,
        quantity: None,
        effective_at: None,
        expires_at: None,
        reason: None,
        hold: None,
        captured: None,
        overage: None,
        position,
    };
    let billed = |overage: i64| (overage > 0).then_some(overage);
    Some(match event {
        // Of what a plan change would give, some may have been given already.
        Event::CreditsGranted(granted) => Entry {
            cause: Some(granted.lot.cause.to_string()),
            effective_at: Some(granted.lot.effective_at),
            expires_at: granted.lot.expires_at,
            reason: granted.reason.clone(),
            ..blank("grant", granted.lot.granted - granted.lot.clawed_back, granted.lot.id.to_string())
        },
        Event::CreditsDebited(debited) => {
            let amount = if debited.unlimited { 0 } else { debited.amount - debited.overage };
            Entry {
                lots: DrawView::of(&debited.lots),
                feature: debited.feature.clone(),
                quantity: debited.quantity,
                overage: billed(debited.overage),
                ..blank("debit", -amount, debited.debit.to_string())
            }
        }
        Event::CreditsExpired(expired) => {
            let amount: i64 = expired.lots.iter().map(|draw| draw.amount).sum();
            Entry { lots: DrawView::of(&expired.lots), ..blank("expiry", -amount, format!("expiry_{position}")) }
        }
        // It moves nothing between what may be spent and what is owed: the balance is the difference of both.
        Event::DebtRepaid(repaid) => {
            Entry { lots: DrawView::of(&repaid.lots), ..blank("repayment", 0, format!("repayment_{position}")) }
        }
        Event::CreditsClawedBack(clawed) => Entry {
            cause: Some(clawed.cause.clone()),
            lots: vec![DrawView { id: clawed.lot, amount: clawed.clawed_back }],
            ..blank("clawback", -(clawed.clawed_back + clawed.debt), format!("clawback_{position}"))
        },
        Event::CreditsReinstated(reinstated) => Entry {
            cause: Some(reinstated.cause.clone()),
            lots: vec![DrawView { id: reinstated.lot, amount: reinstated.reinstated }],
            ..blank("reinstatement", reinstated.reinstated + reinstated.debt, format!("reinstatement_{position}"))
        },
        Event::HoldPlaced(placed) => Entry {
            lots: DrawView::of(&placed.hold.cover.lots),
            feature: placed.hold.feature.clone(),
            quantity: placed.hold.quantity,
            expires_at: Some(placed.hold.expires_at),
            hold: Some(placed.hold.id),
            ..blank("hold", -placed.hold.cover.taken(), placed.hold.id.to_string())
        },
        Event::HoldCaptured(captured) => Entry {
            lots: DrawView::of(&captured.cover.lots),
            feature: captured.feature.clone(),
            quantity: captured.quantity,
            hold: Some(captured.hold),
            captured: Some(captured.amount),
            overage: billed(captured.cover.overage),
            ..blank("capture", captured.released, format!("capture_{position}"))
        },
        Event::HoldReleased(released) => {
            Entry { hold: Some(released.hold), ..blank("release", released.amount, format!("release_{position}")) }
        }
        Event::HoldExpired(expired) => Entry {
            hold: Some(expired.hold),
            ..blank("hold_expiry", expired.amount, format!("hold_expiry_{position}"))
        },
        Event::AccountAbsorbed(absorbed) if absorbed.balance_change == 0 => return None,
        Event::AccountAbsorbed(absorbed) => {
            let amount = absorbed.balance_change;
            let cause = Some(format!("account:{}", absorbed.from));
            Entry { cause, ..blank("transfer", amount, format!("transfer_{position}")) }
        }
        _ => return None,
    })
}
