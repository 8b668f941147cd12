//! The feed of the log: gapless, in order within each partition. In pages, or as a stream of server-sent events.

use std::time::{Duration, Instant};

use actix_web::http::header::ACCEPT;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::event_stream;
use super::problem::ApiError;
use super::reading;
use super::request::{account_id, number, plain_id};
use super::server::State;
use crate::domain::ids::AccountId;
use crate::store::log::{self, StoredEvent};
use crate::store::read;

#[derive(Debug, Deserialize)]
pub struct FeedQuery {
    after: Option<String>,
    account: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    limit: Option<String>,
    min_position: Option<String>,
    consistency: Option<String>,
    wait_seconds: Option<String>,
}

const MAX_EVENTS: i64 = 1_000;
const MAX_WAIT_SECONDS: i64 = 60;
/// How long a filter that fits little is looked for before the caller hears how far that came.
const SEARCH_FOR: Duration = Duration::from_secs(2);
/// While the log cannot be followed, nothing wakes a waiting caller.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Events after a cursor; of one account, if one is named. Ask again with `next_cursor`: it never skips an event.
pub async fn list(
    request: HttpRequest,
    query: web::Query<FeedQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let limit = number(query.limit.as_deref(), "limit", 100, 1, MAX_EVENTS)?;
    // The log itself is read, so whoever asks gets what is there.
    reading::consistency(query.consistency.as_deref())?;
    let min_position = reading::min_position(query.min_position.as_deref())?;
    let wait = number(query.wait_seconds.as_deref(), "wait_seconds", 0, 0, MAX_WAIT_SECONDS)?;
    let last_id = request.headers().get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let mut feed = Feed::of(&query, last_id, state.service.partitions)?;
    if query.account.is_none() {
        state.service.wait_for_some_position(min_position).await?;
    }
    let accepted = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/event-stream")) {
        return event_stream::open(feed, state, limit, min_position).await;
    }
    let _place = if wait > 0 { Some(state.wait()?) } else { None };
    let deadline = Instant::now() + Duration::from_secs(wait.unsigned_abs());
    let page = feed.next_page(&state, limit, min_position, deadline).await?;
    let data: Vec<Value> = page.events.iter().map(view).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(json!({
        "data": data, "has_more": page.has_more, "next_cursor": feed.cursor.encode(),
    })))
}

/// An event as this feed shows it.
pub fn view(event: &StoredEvent) -> Result<Value, ApiError> {
    let payload: Box<RawValue> = RawValue::from_string(event.payload.clone()).map_err(|_| ApiError::Internal)?;
    Ok(json!({
        "partition": event.partition_id,
        "position": event.position,
        "account": event.account_id,
        "version": event.version,
        "type": event.event_type,
        "type_version": event.type_version,
        "at": event.at,
        "payload": payload,
    }))
}

/// How far a consumer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Each partition's position, in order.
    Log(Vec<i64>),
    /// The account's version.
    Account(i64),
}

impl Cursor {
    /// The whole feed's cursor names the positions joined by dots, an account's is its version.
    pub fn encode(&self) -> String {
        match self {
            Self::Log(positions) => positions.iter().map(i64::to_string).collect::<Vec<_>>().join("."),
            Self::Account(version) => version.to_string(),
        }
    }

    /// The beginning, or what [`encode`](Self::encode) gave.
    pub fn of_log(text: Option<&str>, partitions: i16) -> Option<Self> {
        let count = usize::from(partitions.unsigned_abs());
        let Some(text) = text else { return Some(Self::Log(vec![0; count])) };
        let positions: Option<Vec<i64>> = text.split('.').map(position).collect();
        positions.filter(|positions| positions.len() == count).map(Self::Log)
    }

    fn of_account(text: Option<&str>) -> Option<Self> {
        text.map_or(Some(0), position).map(Self::Account)
    }

    /// Moves past an event that was handed over.
    pub fn pass(&mut self, event: &StoredEvent) {
        match self {
            Self::Account(version) => *version = event.version,
            Self::Log(positions) => {
                if let Some(position) = positions.get_mut(usize::from(event.partition_id.unsigned_abs())) {
                    *position = event.position;
                }
            }
        }
    }
}

fn position(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|position| *position >= 0)
}

/// What one consumer is given, and how far it has come.
#[derive(Debug)]
pub struct Feed {
    account: Option<AccountId>,
    types: Vec<String>,
    pub cursor: Cursor,
}

/// What was found, and whether more may follow at once.
#[derive(Debug)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    pub has_more: bool,
}

impl Feed {
    /// A browser that connects again says in `Last-Event-ID` how far it came, whatever its URL says.
    fn of(query: &FeedQuery, last_id: Option<&str>, partitions: i16) -> Result<Self, ApiError> {
        let types = query.event_type.iter().flat_map(|types| types.split(','));
        let types = types.map(|name| plain_id(name, "type").map(str::to_owned)).collect::<Result<_, _>>()?;
        let account = query.account.as_deref().map(account_id).transpose()?;
        let after = last_id.or(query.after.as_deref());
        let cursor = match account {
            Some(_) => Cursor::of_account(after),
            None => Cursor::of_log(after, partitions),
        };
        let field = if last_id.is_some() { "Last-Event-ID" } else { "after" };
        let cursor = cursor.ok_or_else(|| ApiError::InvalidParameter {
            field: field.to_owned(),
            problem: "must be a next_cursor that this feed gave, with the same account".to_owned(),
        })?;
        Ok(Self { account, types, cursor })
    }

    /// What follows; waits for it until the deadline.
    pub async fn next_page(
        &mut self,
        state: &State,
        limit: i64,
        min_position: i64,
        deadline: Instant,
    ) -> Result<Page, ApiError> {
        let mut news = state.service.news();
        let give_up = deadline.max(Instant::now() + SEARCH_FOR);
        loop {
            // Before the question: what is appended after it is news.
            news.borrow_and_update();
            let page = self.page(state, limit, min_position).await?;
            let now = Instant::now();
            let until = if page.has_more { give_up } else { deadline };
            if !page.events.is_empty() || now >= until || state.is_stopping() {
                return Ok(page);
            }
            if !page.has_more {
                let _ = tokio::time::timeout(LOOK_AGAIN.min(deadline - now), news.changed()).await;
            }
        }
    }

    async fn page(&mut self, state: &State, limit: i64, min_position: i64) -> Result<Page, ApiError> {
        match (&self.account, &mut self.cursor) {
            (Some(account), Cursor::Account(version)) => {
                let account = state.service.account_now(account, min_position).await?;
                let client = state.service.connection().await?;
                let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
                let events = log::of_account(&**client, account.id.as_str(), *version, &types, limit).await?;
                let has_more = i64::try_from(events.len()) == Ok(limit);
                let end = if has_more { *version } else { account.version };
                *version = events.last().map_or(*version, |event| event.version).max(end);
                Ok(Page { events, has_more })
            }
            (_, Cursor::Log(positions)) => {
                let cursor: Vec<(i16, i64)> = (0..state.service.partitions).zip(positions.iter().copied()).collect();
                let client = state.service.connection().await?;
                let page = read::feed(&**client, &cursor, &self.types, limit).await?;
                *positions = page.positions.iter().map(|(_, position)| *position).collect();
                Ok(Page { events: page.events, has_more: page.has_more })
            }
            (None, Cursor::Account(_)) => Err(ApiError::Internal),
        }
    }
}
