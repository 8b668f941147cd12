//! The statement: every movement of an account's credits, and what they came to.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use uuid::Uuid;

use super::page::{Cursor, Page, PageQuery};
use super::problem::ApiError;
use super::request::account_id;
use super::server::State;
use super::views::DrawView;
use crate::domain::credit::Draw;
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
    /// What it came of, in a form that leads on: `debit:…`, `hold:…`, `invoice:…`.
    cause: String,
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
    /// `None`: nothing has recorded it yet.
    position: Option<i64>,
}

/// A page of entries, and after the last of them what is due but not on record.
#[derive(Debug, Serialize)]
struct Statement {
    #[serde(flatten)]
    page: Page<Entry>,
    pending: Vec<Entry>,
}

const ENTRY_TYPES: &[&str] = &[
    "credits_granted",
    "credits_debited",
    "credits_expired",
    "debt_repaid",
    "credits_clawed_back",
    "credits_reinstated",
    "lot_amended",
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
    let min_position = query.min_position()?;
    let account = state.service.account_now(&account_id(&path)?, min_position).await?;
    let limit = query.limit()?;
    let client = state.service.connection().await?;
    let id = account.id.as_str();
    let Place { version, mut balance } = match query.cursor()? {
        None => Place::default(),
        Some(cursor) => Place::of(&client, id, &cursor).await?,
    };
    let mut stored = log::of_account(&**client, id, version, ENTRY_TYPES, limit + 1).await?;
    // What was written since the account was read, its pending entries do not follow.
    stored.retain(|stored| stored.version <= account.version);
    let has_more = stored.len() as i64 > limit;
    stored.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut next = |entry: Entry| {
        balance = balance.saturating_add(entry.amount);
        Entry { balance, ..entry }
    };
    let mut data = Vec::with_capacity(stored.len());
    for stored in &stored {
        let entries = entries(&stored.event()?, stored.at, &stored.position.to_string());
        data.extend(entries.into_iter().map(|entry| next(Entry { position: Some(stored.position), ..entry })));
    }
    let due = if has_more { Vec::new() } else { account.due_events() };
    let due = due.iter().enumerate().flat_map(|(n, event)| entries(event, account.at, &format!("pending_{}", n + 1)));
    let pending = due.map(next).collect();
    let next_cursor = match stored.last().filter(|_| has_more) {
        None => None,
        Some(last) => Some(Place { version: last.version, balance }.cursor(&client, id).await?.encode()),
    };
    Ok(HttpResponse::Ok().json(Statement { page: Page { data, has_more, next_cursor }, pending }))
}

/// Where a page ended, and the balance there.
#[derive(Debug, Default)]
struct Place {
    version: i64,
    balance: i64,
}

impl Place {
    /// A cursor that holds for this account alone, and for no other balance: it is sealed with the hash of the event it
    /// follows, which covers the account and all before it.
    async fn cursor(&self, client: &Client, account: &str) -> Result<Cursor, ApiError> {
        let hash = log::hash_of(client, account, self.version).await?.ok_or_else(Cursor::invalid)?;
        let Self { version, balance } = *self;
        let seal = Sha256::new().chain_update(hash).chain_update(balance.to_be_bytes()).finalize();
        Ok(Cursor { at_us: version, id: format!("{balance}/{}", hex::encode(&seal[..8])) })
    }

    /// The place a cursor of this account tells.
    async fn of(client: &Client, account: &str, cursor: &Cursor) -> Result<Self, ApiError> {
        let balance = cursor.id.split_once('/').and_then(|(balance, _)| balance.parse().ok());
        let place = Self { version: cursor.at_us, balance: balance.ok_or_else(Cursor::invalid)? };
        let is_ours = place.version > 0 && place.cursor(client, account).await? == *cursor;
        if is_ours { Ok(place) } else { Err(Cursor::invalid()) }
    }
}

/// The entries of an event, without their balance; `place` tells them from others of their kind.
fn entries(event: &Event, at: DateTime<Utc>, place: &str) -> Vec<Entry> {
    match event {
        // Each lot that made good what was owed is a cause of its own.
        Event::DebtRepaid(repaid) => {
            let by_lot = repaid.lots.iter().enumerate();
            by_lot.map(|(n, draw)| repayment(draw, at, &part_of(place, n))).collect()
        }
        event => entry(event, at, place).into_iter().collect(),
    }
}

/// The place of the n-th entry of one event.
fn part_of(place: &str, n: usize) -> String {
    if n == 0 { place.to_owned() } else { format!("{place}_{}", n + 1) }
}

fn blank(kind: &'static str, cause: String, amount: i64, at: DateTime<Utc>, id: String) -> Entry {
    Entry {
        kind,
        amount,
        balance: 0,
        at,
        id,
        lots: Vec::new(),
        cause,
        feature: None,
        quantity: None,
        effective_at: None,
        expires_at: None,
        reason: None,
        hold: None,
        captured: None,
        overage: None,
        position: None,
    }
}

/// It moves nothing between what may be spent and what is owed: the balance is the difference of both.
fn repayment(draw: &Draw, at: DateTime<Utc>, place: &str) -> Entry {
    let lots = DrawView::of(std::slice::from_ref(draw));
    Entry { lots, ..blank("repayment", format!("lot:{}", draw.lot), 0, at, format!("repayment_{place}")) }
}

fn entry(event: &Event, at: DateTime<Utc>, place: &str) -> Option<Entry> {
    let blank = |kind, cause, amount, id| blank(kind, cause, amount, at, id);
    let of_hold = |hold: &Uuid| format!("hold:{hold}");
    let billed = |overage: i64| (overage > 0).then_some(overage);
    Some(match event {
        // Of what a plan change would give, some may have been given already.
        Event::CreditsGranted(granted) => Entry {
            effective_at: Some(granted.lot.effective_at),
            expires_at: granted.lot.expires_at,
            reason: granted.reason.clone(),
            ..blank(
                "grant",
                granted.lot.cause.to_string(),
                granted.lot.granted - granted.lot.clawed_back,
                granted.lot.id.to_string(),
            )
        },
        Event::CreditsDebited(debited) => {
            let amount = if debited.unlimited { 0 } else { debited.amount - debited.overage };
            Entry {
                lots: DrawView::of(&debited.lots),
                feature: debited.feature.clone(),
                quantity: debited.quantity,
                overage: billed(debited.overage),
                ..blank("debit", format!("debit:{}", debited.debit), -amount, debited.debit.to_string())
            }
        }
        Event::CreditsExpired(expired) => {
            let amount: i64 = expired.lots.iter().map(|draw| draw.amount).sum();
            // Before causes were kept, all that was known is by when.
            let by_now = || format!("expired_by:{}", at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            let cause = expired.cause.clone().unwrap_or_else(by_now);
            Entry { lots: DrawView::of(&expired.lots), ..blank("expiry", cause, -amount, format!("expiry_{place}")) }
        }
        Event::CreditsClawedBack(clawed) => Entry {
            lots: vec![DrawView { id: clawed.lot, amount: clawed.clawed_back }],
            ..blank("clawback", clawed.cause.clone(), -(clawed.clawed_back + clawed.debt), format!("clawback_{place}"))
        },
        Event::CreditsReinstated(reinstated) => Entry {
            lots: vec![DrawView { id: reinstated.lot, amount: reinstated.reinstated }],
            ..blank(
                "reinstatement",
                reinstated.cause.clone(),
                reinstated.reinstated + reinstated.debt,
                format!("reinstatement_{place}"),
            )
        },
        Event::LotAmended(amended) if amended.added == 0 => return None,
        Event::LotAmended(amended) => {
            let kind = if amended.added > 0 { "reinstatement" } else { "clawback" };
            Entry {
                lots: vec![DrawView { id: amended.lot, amount: amended.added.abs() }],
                ..blank(kind, amended.cause.clone(), amended.added, format!("{kind}_{place}"))
            }
        }
        Event::HoldPlaced(placed) => Entry {
            lots: DrawView::of(&placed.hold.cover.lots),
            feature: placed.hold.feature.clone(),
            quantity: placed.hold.quantity,
            expires_at: Some(placed.hold.expires_at),
            hold: Some(placed.hold.id),
            ..blank("hold", of_hold(&placed.hold.id), -placed.hold.cover.taken(), placed.hold.id.to_string())
        },
        Event::HoldCaptured(captured) => Entry {
            lots: DrawView::of(&captured.cover.lots),
            feature: captured.feature.clone(),
            quantity: captured.quantity,
            hold: Some(captured.hold),
            captured: Some(captured.amount),
            overage: billed(captured.cover.overage),
            ..blank("capture", of_hold(&captured.hold), captured.released, format!("capture_{place}"))
        },
        Event::HoldReleased(released) => Entry {
            hold: Some(released.hold),
            ..blank("release", of_hold(&released.hold), released.amount, format!("release_{place}"))
        },
        Event::HoldExpired(expired) => Entry {
            hold: Some(expired.hold),
            ..blank("hold_expiry", of_hold(&expired.hold), expired.amount, format!("hold_expiry_{place}"))
        },
        Event::AccountAbsorbed(absorbed) if absorbed.balance_change == 0 => return None,
        Event::AccountAbsorbed(absorbed) => {
            let cause = format!("account:{}", absorbed.from);
            blank("transfer", cause, absorbed.balance_change, format!("transfer_{place}"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EVENT_VERSION;

    #[test]
    fn an_expiry_from_before_causes_were_kept_says_by_when() {
        let stored = r#"{"lots":[{"lot":"00000000-0000-0000-0000-000000000002","amount":3}]}"#;
        let event = Event::read("credits_expired", EVENT_VERSION, stored).expect("readable");
        let at = DateTime::from_timestamp(1_768_478_400, 0).expect("a time");
        let causes: Vec<String> = entries(&event, at, "7").into_iter().map(|entry| entry.cause).collect();
        assert_eq!(causes, ["expired_by:2026-01-15T12:00:00Z"]);
    }
}
