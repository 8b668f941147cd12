//! Long work on the whole ledger, started by one request and looked at by others.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::Serialize;

use super::rebuild::{self, Rebuilt};
use super::service::Service;
use super::verify::{self, Progress, Report, VerifyOptions};
use crate::store::error::StoreError;

/// What this process did last of each kind.
#[derive(Debug, Default)]
pub struct Jobs {
    verify: Slot<Report>,
    rebuild: Slot<Rebuilt>,
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

#[derive(Debug)]
struct Slot<T> {
    job: Mutex<Option<Job<T>>>,
    progress: Arc<(AtomicU64, AtomicU64)>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { job: Mutex::new(None), progress: Arc::default() }
    }
}

impl<T: Clone> Slot<T> {
    /// The last job, with its progress up to now.
    fn current(&self) -> Option<Job<T>> {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (job.events, job.total_events) =
            (self.progress.0.load(Ordering::Relaxed), self.progress.1.load(Ordering::Relaxed));
        Some(job)
    }

    /// Takes the slot, unless a job is running in it.
    fn begin(&self, now: DateTime<Utc>) -> Option<Progress> {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if job.as_ref().is_some_and(|job| job.status == JobStatus::Running) {
            return None;
        }
        let fresh = Job {
            status: JobStatus::Running,
            started_at: now,
            events: 0,
            total_events: 0,
            finished_at: None,
            result: None,
            error: None,
        };
        *job = Some(fresh);
        let seen = Arc::clone(&self.progress);
        let progress: Progress = Arc::new(move |done, total| {
            seen.0.store(done, Ordering::Relaxed);
            seen.1.store(total, Ordering::Relaxed);
        });
        progress(0, 0);
        Some(progress)
    }

    fn end(&self, now: DateTime<Utc>, outcome: Result<T, StoreError>) {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(job) = job.as_mut() else { return };
        job.finished_at = Some(now);
        match outcome {
            Ok(result) => (job.status, job.result) = (JobStatus::Done, Some(result)),
            Err(error) => (job.status, job.error) = (JobStatus::Failed, Some(error.to_string())),
        }
    }
}

impl Service {
    /// Starts verifying the ledger, unless this process is doing so already. Answers the job under way.
    pub fn start_verify(self: &Arc<Self>) -> Option<Job<Report>> {
        if let Some(progress) = self.jobs.verify.begin(self.clock.now()) {
            let service = Arc::clone(self);
            tokio::spawn(async move {
                let options = VerifyOptions { progress, ..VerifyOptions::default() };
                let outcome = finish(verify::verify(&service.database, &options)).await;
                match &outcome {
                    Ok(report) if report.is_clean() => tracing::info!(events = report.events, "the ledger is sound"),
                    Ok(report) => tracing::error!(differences = report.differences, "the ledger is not sound"),
                    Err(error) => tracing::error!(%error, "the ledger could not be verified"),
                }
                service.jobs.verify.end(service.clock.now(), outcome);
            });
        }
        self.last_verify()
    }

    pub fn last_verify(&self) -> Option<Job<Report>> {
        self.jobs.verify.current()
    }

    /// Starts rebuilding the read models, unless this process is doing so already. Answers the job under way.
    pub fn start_rebuild(self: &Arc<Self>) -> Option<Job<Rebuilt>> {
        if let Some(progress) = self.jobs.rebuild.begin(self.clock.now()) {
            let service = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = finish(rebuild::rebuild(&service.database, progress)).await;
                match &outcome {
                    Ok(rebuilt) => tracing::info!(events = rebuilt.events, "the read models are rebuilt"),
                    Err(error) => tracing::error!(%error, "the read models could not be rebuilt"),
                }
                service.jobs.rebuild.end(service.clock.now(), outcome);
            });
        }
        self.last_rebuild()
    }

    pub fn last_rebuild(&self) -> Option<Job<Rebuilt>> {
        self.jobs.rebuild.current()
    }
}

/// A job that panics has failed, and does not run for ever.
async fn finish<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let panicked = |_| Err(StoreError::Corrupt("the job panicked; the log tells where".to_owned()));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)
}
