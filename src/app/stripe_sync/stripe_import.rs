//! Bringing in what Stripe has and the ledger does not: a whole account, and the StripeEvents of the last days.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::object_kind::ObjectKind;
use super::reconcile::{Comparison, Known, Seen};
use super::stripe_reader::{EVENTS_KEPT_S, Scope, StripeReader};
use crate::app::error::AppError;
use crate::app::inbound::ingest::Received;
use crate::app::service::Service;
use crate::app::upkeep::verify::Progress;
use crate::domain::command::Outcome;
use crate::domain::reconciliation::Cause;
use crate::store::stripe_sync::{self, ImportCursor};

/// Objects that are taken in at once: enough for the lanes to make batches of them.
const AT_ONCE: usize = 32;
/// Problems that are listed; all are counted.
const MAX_LISTED: usize = 100;

/// How to import.
#[derive(Debug, Clone, Copy)]
pub struct ImportOptions {
    /// Begin anew, even if an earlier import was cut.
    pub restart: bool,
    /// At most so many requests to Stripe.
    pub requests_per_second: u32,
}

/// What an import did, with what the runs before it did that were cut.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImportReport {
    pub kinds: Vec<ImportedKind>,
    /// An earlier run was cut, and this one went on from there.
    pub resumed: bool,
    /// Objects that could not be brought in.
    pub failed: u64,
    /// The first of them, each with why.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ImportedKind {
    pub kind: &'static str,
    pub objects: i64,
    /// Of those, the ones that the ledger did not know, or not like that.
    pub changed: i64,
}

/// What became of the StripeEvents that Stripe lists.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BackfillReport {
    pub events: u64,
    /// News, to the ledger.
    pub applied: u64,
    pub superseded: u64,
    /// Taken in before.
    pub duplicate: u64,
    pub ignored: u64,
    pub parked: u64,
}

impl Service {
    /// Brings in all objects of each [`ObjectKind`]. An import that was cut goes on where it was; one that is
    /// repeated changes what has changed at Stripe, else nothing. `progress` hears how many objects there were.
    ///
    /// # Errors
    /// When Stripe or the store cannot be read.
    pub async fn import_stripe(&self, options: ImportOptions, progress: Progress) -> Result<ImportReport, AppError> {
        let reader = StripeReader::new(self.stripe_client.clone(), options.requests_per_second);
        let mut report = ImportReport::default();
        if options.restart || self.is_import_finished().await? {
            let client = self.connection().await?;
            stripe_sync::forget_imports(&**client).await?;
        }
        let mut done = 0;
        for kind in ObjectKind::ALL {
            let mut cursor = {
                let client = self.connection().await?;
                let known = stripe_sync::import_cursor(&**client, kind.as_str()).await?;
                report.resumed |= known.is_some();
                known.unwrap_or_default()
            };
            done += cursor.objects.unsigned_abs();
            while !cursor.is_finished {
                let read = self.import_page(&reader, kind, cursor, &mut report).await?;
                done += read.objects;
                cursor = read.cursor;
                progress(done, 0);
            }
            report.kinds.push(ImportedKind { kind: kind.as_str(), objects: cursor.objects, changed: cursor.changed });
        }
        Ok(report)
    }

    async fn is_import_finished(&self) -> Result<bool, AppError> {
        let client = self.connection().await?;
        let last = stripe_sync::import_cursor(&**client, ObjectKind::LAST.as_str()).await?;
        Ok(last.is_some_and(|cursor| cursor.is_finished))
    }

    async fn import_page(
        &self,
        reader: &StripeReader,
        kind: ObjectKind,
        mut cursor: ImportCursor,
        report: &mut ImportReport,
    ) -> Result<PageRead, AppError> {
        let page = reader.page(kind, Scope::All, cursor.starting_after.as_deref()).await;
        let (objects, has_more) = match page {
            // The object that the cursor stands at is gone; what was brought in already agrees.
            Err(error) if error.is_missing() && cursor.starting_after.is_some() => {
                cursor.starting_after = None;
                return Ok(PageRead { objects: 0, cursor });
            }
            page => page?,
        };
        let mut unreadable = Vec::new();
        let mut seen = Vec::with_capacity(objects.len());
        for object in &objects {
            match self.seen(kind, object) {
                Ok(read) => seen.push(read),
                Err(error) => unreadable.push((object.id.clone(), Err(error))),
            }
        }
        let known = self.known_to_ledger(kind, &seen).await?;
        let known = &known;
        let taking = stream::iter(seen).map(|seen| async move {
            let changed = self.bring_in(&seen, known.get(&seen.id)).await;
            (seen.id, changed)
        });
        let taken: Vec<(String, Result<bool, AppError>)> = taking.buffer_unordered(AT_ONCE).collect().await;
        for (id, taken) in taken.into_iter().chain(unreadable) {
            match taken {
                Ok(changed) => cursor.changed += i64::from(changed),
                // The service or its store fails, not the object.
                Err(error @ (AppError::Store(_) | AppError::Stopping | AppError::Overloaded)) => return Err(error),
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(kind = kind.as_str(), stripe_id = id, %error, "an object could not be brought in");
                    if report.problems.len() < MAX_LISTED {
                        report.problems.push(format!("{id}: {error}"));
                    }
                }
            }
        }
        cursor.objects += objects.len() as i64;
        cursor.starting_after = objects.last().map(|object| object.id.clone()).or(cursor.starting_after);
        cursor.is_finished = !has_more;
        let client = self.connection().await?;
        stripe_sync::put_import_cursor(&**client, kind.as_str(), &cursor, self.clock.now()).await?;
        Ok(PageRead { objects: objects.len() as u64, cursor })
    }

    /// Answers whether it changed anything.
    async fn bring_in(&self, seen: &Seen, known: Option<&Known>) -> Result<bool, AppError> {
        let comparison = seen.compare(known);
        if comparison == Comparison::Agree {
            return Ok(false);
        }
        let facts = seen.as_news(known, &comparison, &Cause::Imported);
        let answer = self.observe(&facts, None, None).await?;
        Ok(answer.result != Ok(Outcome::Observed { applied: false }))
    }

    /// Takes in what Stripe lists of events, as if each had been delivered (again). `progress` hears how many there were.
    ///
    /// # Errors
    /// When Stripe or the store cannot be read; what was taken in until then stays so.
    pub async fn backfill(&self, since: Option<DateTime<Utc>>, progress: Progress) -> Result<BackfillReport, AppError> {
        let reader = StripeReader::new(self.stripe_client.clone(), super::stripe_reader::DEFAULT_REQUESTS_PER_SECOND);
        let oldest = self.clock.now().timestamp() - EVENTS_KEPT_S;
        let since = since.map_or(oldest, |since| since.timestamp());
        let mut report = BackfillReport::default();
        let mut after: Option<String> = None;
        loop {
            let (events, has_more) = reader.events(None, since, after.as_deref()).await?;
            after = events.last().map(|event| event.told.stripe_event_id.clone());
            let bodies: Vec<Bytes> =
                events.iter().map(|event| Bytes::copy_from_slice(event.body.get().as_bytes())).collect();
            let taking = stream::iter(bodies).map(|body| self.receive(body));
            let taken: Vec<Received> = taking.buffer_unordered(AT_ONCE).try_collect().await?;
            for received in taken {
                report.events += 1;
                let counter = match received {
                    Received::Applied => &mut report.applied,
                    Received::Superseded => &mut report.superseded,
                    Received::Duplicate => &mut report.duplicate,
                    Received::Ignored => &mut report.ignored,
                    Received::Parked => &mut report.parked,
                };
                *counter += 1;
            }
            progress(report.events, 0);
            if !has_more {
                return Ok(report);
            }
        }
    }
}

struct PageRead {
    objects: u64,
    cursor: ImportCursor,
}
