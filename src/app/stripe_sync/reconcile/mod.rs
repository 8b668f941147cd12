//! Reconciling: the ledger beside Stripe, object by object; why they differ; and making the ledger agree.
//!
//! What is missing is taken in as webhooks are. StripeEvents that never came are fetched and received; only if the object
//! still differs then is Stripe's present answer taken in as an observation. Either is recorded together with its cause.

mod causes;
mod compare;

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_with::skip_serializing_none;

use super::stripe_reader::{DEFAULT_REQUESTS_PER_SECOND, Object, ObjectKind, StripeReader};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::upkeep::verify::Progress;
use crate::domain::ids::AccountId;
use crate::domain::reconciliation::{Cause, Difference, Told};
use crate::store::{load, stripe_sync};
pub use causes::{Events, Fate};
pub use compare::{Comparison, Known, Seen};

/// Differences that are listed; all are counted.
const MAX_LISTED: usize = 1_000;
/// Rows of the ledger that are looked through at once.
const ROWS: i64 = 1_000;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct ReconcileOptions {
    /// One account only.
    pub account: Option<AccountId>,
    /// Only what StripeEvents since then are about; Stripe lists 30 days of them.
    pub since: Option<DateTime<Utc>>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What was compared, and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReconcileReport {
    pub dry_run: bool,
    pub customers: u64,
    pub subscriptions: u64,
    pub invoices: u64,
    /// Objects that differed.
    pub differing: u64,
    pub repaired: u64,
    /// The first of those that differed.
    pub findings: Vec<Finding>,
}

impl ReconcileReport {
    /// Objects that differ still.
    pub fn unrepaired(&self) -> u64 {
        self.differing - self.repaired
    }

    pub fn compared(&self) -> u64 {
        self.customers + self.subscriptions + self.invoices
    }
}

/// One object that differed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    pub stripe_id: String,
    /// Whose it is, if the ledger knows.
    pub account: Option<String>,
    pub finding: FindingKind,
    pub differences: Vec<Difference>,
    #[serde(flatten)]
    pub cause: Cause,
    pub repaired: bool,
    /// Why it could not be repaired.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The ledger does not know the object.
    NotInLedger,
    /// Stripe has no such object.
    NotInStripe,
    Differs,
}

/// One run.
struct Run<'a> {
    service: &'a Service,
    reader: StripeReader,
    events: Events,
    options: &'a ReconcileOptions,
    report: ReconcileReport,
    progress: Progress,
}

impl Service {
    /// Compares customers, subscriptions and invoices with Stripe, and repairs what differs. `progress` hears how many
    /// objects have been compared.
    ///
    /// # Errors
    /// When Stripe or the store cannot be read; what was repaired until then stays so.
    pub async fn reconcile(&self, options: &ReconcileOptions, progress: Progress) -> Result<ReconcileReport, AppError> {
        let reader = StripeReader::new(self.stripe_client.clone(), DEFAULT_REQUESTS_PER_SECOND);
        let report = ReconcileReport { dry_run: options.dry_run, ..ReconcileReport::default() };
        let mut run = Run { service: self, reader, events: Events::default(), options, report, progress };
        let account = match &options.account {
            None => None,
            Some(name) => Some(self.resolve(name).await?),
        };
        let customers = match &account {
            None => None,
            Some(account) => {
                let client = self.connection().await?;
                let mut links = load::links_to(&**client, account).await?;
                links.retain(|link| link.starts_with("cus_"));
                if links.is_empty() {
                    return Err(AppError::AccountNotFound(account.to_string()));
                }
                Some(links)
            }
        };
        for kind in ObjectKind::ALL {
            match (options.since, &customers) {
                (Some(since), _) => run.told_since(kind, since.timestamp(), customers.as_deref()).await?,
                (None, Some(customers)) => run.of_customers(kind, customers, account.as_ref()).await?,
                (None, None) => run.all(kind).await?,
            }
        }
        Ok(run.report)
    }

    /// Takes in one of Stripe's own events that never came.
    async fn receive_missing(
        &self,
        body: &str,
        seen: Option<&Seen>,
        comparison: &Comparison,
        cause: Cause,
    ) -> Result<(), AppError> {
        let reconciled = seen.map(|seen| Box::new(seen.reconciled(comparison, &cause)));
        self.receive_because(Bytes::copy_from_slice(body.as_bytes()), reconciled).await?;
        Ok(())
    }
}

impl Run<'_> {
    fn now(&self) -> i64 {
        self.service.clock.now().timestamp()
    }

    async fn all(&mut self, kind: ObjectKind) -> Result<(), AppError> {
        let mut met = HashSet::new();
        self.pages(kind, None, &mut met).await?;
        self.unmet(kind, None, &met).await
    }

    async fn of_customers(
        &mut self,
        kind: ObjectKind,
        customers: &[String],
        account: Option<&AccountId>,
    ) -> Result<(), AppError> {
        let mut met = HashSet::new();
        for customer in customers {
            if kind == ObjectKind::Customer {
                if let Some(object) = self.reader.object(kind, customer).await? {
                    met.insert(object.id.clone());
                    self.compare(kind, &[object]).await?;
                }
            } else {
                self.pages(kind, Some(customer), &mut met).await?;
            }
        }
        self.unmet(kind, account, &met).await
    }

    async fn told_since(&mut self, kind: ObjectKind, since: i64, customers: Option<&[String]>) -> Result<(), AppError> {
        let now = self.now();
        let told = self.events.of(&self.reader, kind, now).await?;
        let is_recent = |(_, told): &(&String, &Vec<Told>)| told.last().is_some_and(|told| told.created >= since);
        let mut ids: Vec<String> = told.iter().filter(is_recent).map(|(id, _)| id.clone()).collect();
        ids.sort();
        for id in ids {
            match self.reader.object(kind, &id).await? {
                None => self.not_in_stripe_by_id(kind, &id, customers).await?,
                Some(object) => {
                    let seen = self.service.seen(kind, &object)?;
                    let customer = seen.facts.references.first();
                    let is_meant = customers.is_none_or(|wanted| customer.is_some_and(|id| wanted.contains(id)));
                    if is_meant {
                        self.compare(kind, &[object]).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn pages(
        &mut self,
        kind: ObjectKind,
        customer: Option<&str>,
        met: &mut HashSet<String>,
    ) -> Result<(), AppError> {
        let mut after: Option<String> = None;
        loop {
            let (objects, has_more) = self.reader.page(kind, customer, after.as_deref()).await?;
            after = objects.last().map(|object| object.id.clone());
            met.extend(objects.iter().map(|object| object.id.clone()));
            self.compare(kind, &objects).await?;
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Objects that the ledger knows and Stripe did not list.
    async fn unmet(
        &mut self,
        kind: ObjectKind,
        account: Option<&AccountId>,
        met: &HashSet<String>,
    ) -> Result<(), AppError> {
        let account = account.map(AccountId::as_str);
        let mut after = (String::new(), String::new());
        loop {
            let rows = {
                let client = self.service.connection().await?;
                stripe_sync::objects_after(&**client, kind.as_str(), account, (&after.0, &after.1), ROWS).await?
            };
            let Some(last) = rows.last() else { return Ok(()) };
            after = (last.account_id.clone(), last.object_id.clone());
            for row in rows.iter().filter(|row| !met.contains(&row.object_id)) {
                let Some(known) = Service::known_of(kind, row)? else { continue };
                if known.is_gone() {
                    continue;
                }
                match self.reader.object(kind, &row.object_id).await? {
                    Some(object) => self.compare(kind, &[object]).await?,
                    None => self.not_in_stripe(kind, &row.object_id, &row.account_id).await?,
                }
            }
        }
    }

    async fn compare(&mut self, kind: ObjectKind, objects: &[Object]) -> Result<(), AppError> {
        let seen = objects.iter().map(|object| self.service.seen(kind, object)).collect::<Result<Vec<_>, _>>()?;
        let known = self.service.known_to_ledger(kind, &seen).await?;
        for seen in &seen {
            self.count(kind);
            let known = known.get(&seen.id);
            let comparison = seen.compare(known);
            if comparison != Comparison::Agree {
                self.differs(seen, known, comparison).await?;
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: ObjectKind) {
        let counter = match kind {
            ObjectKind::Customer => &mut self.report.customers,
            ObjectKind::Subscription => &mut self.report.subscriptions,
            ObjectKind::Invoice => &mut self.report.invoices,
        };
        *counter += 1;
        (self.progress)(self.report.compared(), 0);
    }

    async fn differs(&mut self, seen: &Seen, known: Option<&Known>, comparison: Comparison) -> Result<(), AppError> {
        let now = self.now();
        let told = self.events.of(&self.reader, seen.kind, now).await?.get(&seen.id).cloned().unwrap_or_default();
        let fate = self.service.fate_of(&told).await?;
        let cause = fate.cause(now);
        let repaired = match self.options.dry_run {
            true => Ok(false),
            false => self.repair(seen, &comparison, &fate, &cause).await,
        };
        let finding = Finding {
            kind: seen.kind.as_str(),
            stripe_id: seen.id.clone(),
            account: known.map(|known| known.account.clone()),
            finding: if known.is_some() { FindingKind::Differs } else { FindingKind::NotInLedger },
            differences: match comparison {
                Comparison::Differ(differences) => differences,
                Comparison::Agree | Comparison::Unknown => Vec::new(),
            },
            cause,
            repaired: *repaired.as_ref().unwrap_or(&false),
            problem: repaired.err().map(|error| error.to_string()),
        };
        self.found(finding);
        Ok(())
    }

    fn found(&mut self, finding: Finding) {
        self.report.differing += 1;
        self.report.repaired += u64::from(finding.repaired);
        tracing::warn!(
            kind = finding.kind,
            stripe_id = finding.stripe_id,
            repaired = finding.repaired,
            cause = ?finding.cause,
            "the ledger and Stripe differed"
        );
        if self.report.findings.len() < MAX_LISTED {
            self.report.findings.push(finding);
        }
    }

    async fn repair(&self, seen: &Seen, comparison: &Comparison, fate: &Fate, cause: &Cause) -> Result<bool, AppError> {
        for told in &fate.missing {
            let body = self.reader.event(&told.stripe_event_id).await?;
            let cause = Fate::of_missing(told, self.now());
            self.service.receive_missing(body.get(), Some(seen), comparison, cause).await?;
        }
        for (told, _) in &fate.parked {
            self.service.retry_parked(&told.stripe_event_id).await?;
        }
        let seen = std::slice::from_ref(seen);
        let known = self.service.known_to_ledger(seen[0].kind, seen).await?;
        let known = known.get(&seen[0].id);
        let left = seen[0].compare(known);
        if left == Comparison::Agree {
            return Ok(true);
        }
        let facts = seen[0].as_news(known, &left, cause);
        self.service.observe(&facts, None, None).await?;
        let known = self.service.known_to_ledger(seen[0].kind, seen).await?;
        Ok(seen[0].compare(known.get(&seen[0].id)) == Comparison::Agree)
    }

    async fn not_in_stripe_by_id(
        &mut self,
        kind: ObjectKind,
        id: &str,
        customers: Option<&[String]>,
    ) -> Result<(), AppError> {
        let accounts: Vec<AccountId> = {
            let references: Vec<String> = std::iter::once(id.to_owned()).collect();
            self.service.links.owners(&references).await?.into_values().collect()
        };
        // Nothing leads to it: the ledger does not know it either.
        let Some(account) = accounts.into_iter().next() else { return Ok(()) };
        if customers.is_some_and(|wanted| !wanted.iter().any(|customer| customer == id)) {
            return Ok(());
        }
        self.not_in_stripe(kind, id, account.as_str()).await
    }

    /// A draft that was deleted is told of by an event; nothing else goes without a trace.
    async fn not_in_stripe(&mut self, kind: ObjectKind, id: &str, account: &str) -> Result<(), AppError> {
        let Some(known) = self.known_by_id(kind, id, account).await? else { return Ok(()) };
        if known.is_gone() {
            return Ok(());
        }
        let now = self.now();
        let told = self.events.of(&self.reader, kind, now).await?.get(id).cloned().unwrap_or_default();
        let fate = self.service.fate_of(&told).await?;
        if !self.options.dry_run {
            for told in &fate.missing {
                let body = self.reader.event(&told.stripe_event_id).await?;
                self.service.receive_missing(body.get(), None, &Comparison::Unknown, Cause::Untold).await?;
            }
        }
        let repaired = self.known_by_id(kind, id, account).await?.is_none_or(|known| known.is_gone());
        self.found(Finding {
            kind: kind.as_str(),
            stripe_id: id.to_owned(),
            account: Some(account.to_owned()),
            finding: FindingKind::NotInStripe,
            differences: Vec::new(),
            cause: fate.cause(now),
            repaired,
            problem: (!repaired && !self.options.dry_run).then(|| "Stripe has no object of this id".to_owned()),
        });
        Ok(())
    }

    async fn known_by_id(&self, kind: ObjectKind, id: &str, account: &str) -> Result<Option<Known>, AppError> {
        let client = self.service.connection().await?;
        let rows = stripe_sync::known_objects(&**client, kind.as_str(), &[account], &[id]).await?;
        rows.first().map_or(Ok(None), |row| Service::known_of(kind, row))
    }
}
