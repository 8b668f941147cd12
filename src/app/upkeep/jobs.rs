//! Long work on the whole ledger, started by one request and looked at by others.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::Serialize;

use super::rebuild::{self, Rebuilt};
use super::verify::{self, Progress, Report, VerifyOptions};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::stripe_sync::reconcile::{ReconcileOptions, ReconcileReport};
use crate::clock::Clock;
use crate::store::error::StoreError;

/// What this process did last of each kind.
#[derive(Debug, Default)]
pub struct Jobs {
    verify: Arc<Slot<Report>>,
    rebuild: Arc<Slot<Rebuilt>>,
    reconcile: Arc<Slot<ReconcileReport>>,
}

/// A job as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Job<T> {
    pub status: JobStatus,
    pub started_at: DateTime<Utc>,
    /// Events read so far.
    pub events: u64,
    /// Events there were at the start; 0 until they are counted.
    pub total_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// What came of it, once done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<T>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Running,
    Done,
    Failed,
}

/// The last job of a kind. There is one at a time.
#[derive(Debug)]
struct Slot<T>(Mutex<Option<Job<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// What a job came to tells how many events it took in, or objects it compared.
trait Took {
    fn events(&self) -> u64;
}

impl Took for Report {
    fn events(&self) -> u64 {
        self.events
    }
}

impl Took for Rebuilt {
    fn events(&self) -> u64 {
        self.events
    }
}

impl Took for ReconcileReport {
    fn events(&self) -> u64 {
        self.compared()
    }
}

impl<T: Took + Clone + Send + 'static> Slot<T> {
    fn job(&self) -> MutexGuard<'_, Option<Job<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts some work, unless a job is running. Answers the job under way.
    fn start<W, E>(self: &Arc<Self>, clock: &Arc<dyn Clock>, work: impl FnOnce(Progress) -> W) -> Job<T>
    where
        W: Future<Output = Result<T, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let mut job = self.job();
        if let Some(running) = job.as_ref().filter(|job| job.status == JobStatus::Running) {
            return running.clone();
        }
        let started = Job {
            status: JobStatus::Running,
            started_at: clock.now(),
            events: 0,
            total_events: 0,
            finished_at: None,
            result: None,
            error: None,
        };
        *job = Some(started.clone());
        let slot = Arc::clone(self);
        let work = work(Arc::new(move |events, total_events| {
            slot.update(|job| (job.events, job.total_events) = (events, total_events));
        }));
        let (slot, clock) = (Arc::clone(self), Arc::clone(clock));
        tokio::spawn(async move {
            // A job that panics has failed, and does not run for ever.
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("the job panicked; the log tells where".to_owned()),
            };
            slot.update(|job| {
                job.finished_at = Some(clock.now());
                match outcome {
                    Ok(result) => {
                        // Progress is told now and then, so the last of it, or all of it, was not.
                        job.events = result.events();
                        job.total_events = job.total_events.max(job.events);
                        (job.status, job.result) = (JobStatus::Done, Some(result));
                    }
                    Err(error) => {
                        tracing::error!(error, "a job failed");
                        (job.status, job.error) = (JobStatus::Failed, Some(error));
                    }
                }
            });
        });
        started
    }

    fn update(&self, change: impl FnOnce(&mut Job<T>)) {
        if let Some(job) = self.job().as_mut() {
            change(job);
        }
    }
}

impl Service {
    /// Starts verifying the ledger, unless this process is doing so already. Answers the job under way.
    pub fn start_verify(&self) -> Job<Report> {
        let database = self.database.clone();
        self.jobs.verify.start(&self.clock, |progress| async move {
            let options = VerifyOptions { progress, ..VerifyOptions::default() };
            let report = verify::verify(&database, &options).await?;
            match report.differences {
                0 => tracing::info!(events = report.events, "the ledger is sound"),
                differences => tracing::error!(differences, "the ledger is not sound"),
            }
            Ok::<_, StoreError>(report)
        })
    }

    pub fn last_verify(&self) -> Option<Job<Report>> {
        self.jobs.verify.job().clone()
    }

    /// Starts rebuilding the read models, unless this process is doing so already. Answers the job under way.
    pub fn start_rebuild(&self) -> Job<Rebuilt> {
        let database = self.database.clone();
        self.jobs.rebuild.start(&self.clock, |progress| async move {
            let rebuilt = rebuild::rebuild(&database, progress).await?;
            tracing::info!(events = rebuilt.events, "the read models are rebuilt");
            Ok::<_, StoreError>(rebuilt)
        })
    }

    pub fn last_rebuild(&self) -> Option<Job<Rebuilt>> {
        self.jobs.rebuild.job().clone()
    }

    /// Starts comparing with Stripe, unless this process is doing so already. Answers the job under way, whose `events` are
    /// objects that have been compared.
    pub fn start_reconcile(self: &Arc<Self>, options: ReconcileOptions) -> Job<ReconcileReport> {
        let service = Arc::clone(self);
        self.jobs.reconcile.start(&self.clock, |progress| async move {
            let report = service.reconcile(&options, progress).await?;
            tracing::info!(differing = report.differing, repaired = report.repaired, "compared with Stripe");
            Ok::<_, AppError>(report)
        })
    }

    pub fn last_reconcile(&self) -> Option<Job<ReconcileReport>> {
        self.jobs.reconcile.job().clone()
    }
}
