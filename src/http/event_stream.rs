//! The feed as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): each event's `id` is
//! the cursor behind it, so whoever connects again with `Last-Event-ID` misses nothing.

use std::fmt::Write;
use std::time::{Duration, Instant};

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::events::{Cursor, Feed, Page, view};
use super::problem::ApiError;
use super::server::State;

/// A quiet stream says this often that it lives, or a proxy would end it.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after so long, so that no key outlives its revocation for ever; browsers connect again by themselves.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// Between two looks at a log that grows all the time: many small pages would cost more than few large ones.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// A stream under way.
struct Stream {
    feed: Feed,
    state: web::Data<State>,
    limit: i64,
    min_position: i64,
    ends_at: Instant,
    has_more: bool,
    _place: OwnedSemaphorePermit,
}

/// Opens a stream. What is wrong with the question is said before it begins.
pub async fn open(
    mut feed: Feed,
    state: web::Data<State>,
    limit: i64,
    min_position: i64,
) -> Result<HttpResponse, ApiError> {
    let place = state.wait()?;
    let begins = feed.cursor.clone();
    let first = feed.next_page(&state, limit, min_position, Instant::now()).await?;
    let greeting = frames(begins, &feed.cursor, &first)?;
    let greeting = Bytes::from(format!("retry: {RETRY_MS}\n\n{greeting}"));
    let ends_at = Instant::now() + MAX_AGE;
    let stream = Stream { feed, state, limit, min_position, ends_at, has_more: first.has_more, _place: place };
    let begun = stream::once(std::future::ready(Ok::<_, ApiError>(greeting)));
    let rest = stream::unfold(stream, |mut stream| async move { stream.next().await.map(|bytes| (Ok(bytes), stream)) });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(futures_util::StreamExt::chain(begun, rest)))
}

impl Stream {
    /// `None` ends the stream: the client connects again where it was.
    async fn next(&mut self) -> Option<Bytes> {
        if Instant::now() >= self.ends_at || self.state.is_stopping() {
            return None;
        }
        if !self.has_more {
            tokio::time::sleep(PAUSE).await;
        }
        let begins = self.feed.cursor.clone();
        let deadline = (Instant::now() + HEARTBEAT).min(self.ends_at);
        let page = self.feed.next_page(&self.state, self.limit, self.min_position, deadline).await;
        let text = page.and_then(|page| {
            self.has_more = page.has_more;
            frames(begins, &self.feed.cursor, &page)
        });
        match text {
            Ok(text) => Some(Bytes::from(text)),
            Err(error) => {
                tracing::info!(%error, "a stream of events ends; its client may connect again");
                None
            }
        }
    }
}

/// A page as frames, each with the cursor behind it; or a heartbeat that tells how far the log was searched in vain.
fn frames(mut cursor: Cursor, end: &Cursor, page: &Page) -> Result<String, ApiError> {
    let mut text = String::new();
    for event in &page.events {
        cursor.pass(event);
        let data = view(event)?.to_string().replace(['\r', '\n'], " ");
        let _ = write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", cursor.encode(), event.event_type);
    }
    if page.events.is_empty() {
        let _ = write!(text, ": heartbeat\nid: {}\n\n", end.encode());
    }
    Ok(text)
}
