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

use super::object_kind::ObjectKind;
use super::stripe_reader::{DEFAULT_REQUESTS_PER_SECOND, Object, Scope, StripeReader};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::app::upkeep::verify::Progress;
use crate::domain::ids::AccountId;
use crate::domain::reconciliation::{Cause, Difference, Told};
use crate::domain::stripe_object::{Charge, StripeObject};
use crate::store::stripe_sync::KnownObject;
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
    pub checkout_sessions: u64,
    pub payment_intents: u64,
    pub charges: u64,
    pub refunds: u64,
    pub disputes: u64,
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
        self.counts().iter().map(|(_, count)| count).sum()
    }

    /// How many of each kind were compared.
    pub fn counts(&self) -> [(ObjectKind, u64); 8] {
        ObjectKind::ALL.map(|kind| (kind, self.count_of(kind)))
    }

    fn count_of(&self, kind: ObjectKind) -> u64 {
        match kind {
            ObjectKind::Customer => self.customers,
            ObjectKind::Subscription => self.subscriptions,
            ObjectKind::Invoice => self.invoices,
            ObjectKind::CheckoutSession => self.checkout_sessions,
            ObjectKind::PaymentIntent => self.payment_intents,
            ObjectKind::Charge => self.charges,
            ObjectKind::Refund => self.refunds,
            ObjectKind::Dispute => self.disputes,
        }
    }

    fn count(&mut self, kind: ObjectKind) {
        *match kind {
            ObjectKind::Customer => &mut self.customers,
            ObjectKind::Subscription => &mut self.subscriptions,
            ObjectKind::Invoice => &mut self.invoices,
            ObjectKind::CheckoutSession => &mut self.checkout_sessions,
            ObjectKind::PaymentIntent => &mut self.payment_intents,
            ObjectKind::Charge => &mut self.charges,
            ObjectKind::Refund => &mut self.refunds,
            ObjectKind::Dispute => &mut self.disputes,
        } += 1;
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
    /// What Stripe shows of it cannot be read, so it cannot be compared.
    Unreadable,
}

/// One run.
struct Run<'a> {
    service: &'a Service,
    reader: StripeReader,
    events: Events,
    options: &'a ReconcileOptions,
    report: ReconcileReport,
    /// Those of one account, whose refunds and disputes are found by them.
    charges: Vec<Charge>,
    progress: Progress,
}

impl Service {
    /// Compares all objects of each [`ObjectKind`] with Stripe, and repairs what differs. `progress` hears how many objects
    /// have been compared. What an account bought without a Stripe customer, and nobody has heard of, is found only with
    /// all accounts.
    ///
    /// # Errors
    /// When Stripe or the store cannot be read; what was repaired until then stays so.
    pub async fn reconcile(&self, options: &ReconcileOptions, progress: Progress) -> Result<ReconcileReport, AppError> {
        let reader = StripeReader::new(self.stripe_client.clone(), DEFAULT_REQUESTS_PER_SECOND);
        let report = ReconcileReport { dry_run: options.dry_run, ..ReconcileReport::default() };
        let mut run =
            Run { service: self, reader, events: Events::default(), options, report, charges: Vec::new(), progress };
        let account = match &options.account {
            None => None,
            Some(name) => Some(self.resolve(name).await?),
        };
        let customers = match &account {
            None => None,
            Some(account) => {
                let client = self.connection().await?;
                let mut links = load::links_to(&**client, account).await?;
                if links.is_empty() {
                    return Err(AppError::AccountNotFound(account.to_string()));
                }
                links.retain(|link| link.starts_with("cus_"));
                Some(links)
            }
        };
        for kind in ObjectKind::ALL {
            match (options.since, &customers) {
                (Some(since), _) => run.told_since(kind, since.timestamp(), account.as_ref()).await?,
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
        self.pages(kind, Scope::All, &mut met).await?;
        self.unmet(kind, None, &met).await
    }

    async fn of_customers(
        &mut self,
        kind: ObjectKind,
        customers: &[String],
        account: Option<&AccountId>,
    ) -> Result<(), AppError> {
        let mut met = HashSet::new();
        match kind {
            ObjectKind::Customer => {
                for customer in customers {
                    if let Some(object) = self.reader.object(kind, customer).await? {
                        met.insert(object.id.clone());
                        self.compare(kind, &[object]).await?;
                    }
                }
            }
            ObjectKind::Refund | ObjectKind::Dispute => {
                let is_concerned = |charge: &&Charge| match kind {
                    ObjectKind::Dispute => charge.disputed,
                    _ => charge.status == "succeeded",
                };
                let charges = self.charges.iter().filter(is_concerned).map(|charge| charge.id.clone());
                for charge in charges.collect::<Vec<_>>() {
                    self.pages(kind, Scope::Charge(&charge), &mut met).await?;
                }
            }
            _ => {
                for customer in customers {
                    self.pages(kind, Scope::Customer(customer), &mut met).await?;
                }
            }
        }
        self.unmet(kind, account, &met).await
    }

    async fn told_since(&mut self, kind: ObjectKind, since: i64, account: Option<&AccountId>) -> Result<(), AppError> {
        let now = self.now();
        let told = self.events.of(&self.reader, kind, now).await?;
        let is_recent = |(_, told): &(&String, &Vec<Told>)| told.last().is_some_and(|told| told.created >= since);
        let mut ids: Vec<String> = told.iter().filter(is_recent).map(|(id, _)| id.clone()).collect();
        ids.sort();
        for id in ids {
            match self.reader.object(kind, &id).await? {
                None => self.not_in_stripe_by_id(kind, &id, account).await?,
                Some(object) => {
                    let is_meant = match (account, self.service.seen(kind, &object)) {
                        (None, _) => true,
                        (Some(account), Ok(seen)) => self.service.owner_of(&seen).await?.as_ref() == Some(account),
                        (Some(_), Err(_)) => false,
                    };
                    if is_meant {
                        self.compare(kind, &[object]).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn pages(&mut self, kind: ObjectKind, scope: Scope<'_>, met: &mut HashSet<String>) -> Result<(), AppError> {
        let mut after: Option<String> = None;
        loop {
            let (objects, has_more) = self.reader.page(kind, scope, after.as_deref()).await?;
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
                stripe_sync::objects_after(&**client, kind.row_kind().as_str(), account, (&after.0, &after.1), ROWS)
                    .await?
            };
            let Some(last) = rows.last() else { return Ok(()) };
            after = (last.account_id.clone(), last.object_id.clone());
            for row in &rows {
                for (id, known) in Service::known_of(kind, row)? {
                    if known.is_gone() || met.contains(&id) {
                        continue;
                    }
                    match self.reader.object(kind, &id).await? {
                        Some(object) => self.compare(kind, &[object]).await?,
                        None => self.not_in_stripe(kind, &id, row).await?,
                    }
                }
            }
        }
    }

    async fn compare(&mut self, kind: ObjectKind, objects: &[Object]) -> Result<(), AppError> {
        let mut readable = Vec::with_capacity(objects.len());
        for object in objects {
            match self.service.seen(kind, object) {
                Ok(seen) => readable.push(seen),
                Err(error) => self.unreadable(kind, object, error.to_string()).await?,
            }
        }
        let known = self.service.known_to_ledger(kind, &readable).await?;
        for seen in &readable {
            self.report.count(kind);
            (self.progress)(self.report.compared(), 0);
            if self.options.account.is_some()
                && let Some(StripeObject::Charge(charge)) = seen.facts.observations.first().map(|first| &first.object)
            {
                self.charges.push(charge.clone());
            }
            let known = known.get(&seen.id);
            let comparison = seen.compare(known);
            if comparison != Comparison::Agree {
                self.differs(seen, known, comparison).await?;
            }
        }
        Ok(())
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

    /// What cannot be read, such as a session whose metadata name no number of credits, is not to keep the rest from being
    /// compared. StripeEvents of it that never came are taken in, and so are parked until somebody mends it.
    async fn unreadable(&mut self, kind: ObjectKind, object: &Object, problem: String) -> Result<(), AppError> {
        self.report.count(kind);
        (self.progress)(self.report.compared(), 0);
        let now = self.now();
        let told = self.events.of(&self.reader, kind, now).await?.get(&object.id).cloned().unwrap_or_default();
        let fate = self.service.fate_of(&told).await?;
        if !self.options.dry_run {
            for told in &fate.missing {
                let body = self.reader.event(&told.stripe_event_id).await?;
                self.service.receive_missing(body.get(), None, &Comparison::Unknown, Cause::Untold).await?;
            }
        }
        self.found(Finding {
            kind: kind.as_str(),
            stripe_id: object.id.clone(),
            account: None,
            finding: FindingKind::Unreadable,
            differences: Vec::new(),
            cause: fate.cause(now),
            repaired: false,
            problem: Some(problem),
        });
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
        account: Option<&AccountId>,
    ) -> Result<(), AppError> {
        let owners = self.service.links.owners(&[id.to_owned()]).await?;
        // Where nothing leads to it, the ledger does not know it either.
        let Some(owner) = owners.get(id).filter(|owner| account.is_none_or(|account| *owner == account)) else {
            return Ok(());
        };
        let rows = {
            let client = self.service.connection().await?;
            stripe_sync::known_objects(&**client, kind.row_kind().as_str(), &[owner.as_str()], &[id]).await?
        };
        match rows.first() {
            Some(row) => self.not_in_stripe(kind, id, row).await,
            None => Ok(()),
        }
    }

    /// A draft that was deleted is told of by an event; nothing else goes without a trace.
    async fn not_in_stripe(&mut self, kind: ObjectKind, id: &str, row: &KnownObject) -> Result<(), AppError> {
        if !self.is_in_ledger(kind, id, row).await? {
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
        let repaired = !self.is_in_ledger(kind, id, row).await?;
        self.found(Finding {
            kind: kind.as_str(),
            stripe_id: id.to_owned(),
            account: Some(row.account_id.clone()),
            finding: FindingKind::NotInStripe,
            differences: Vec::new(),
            cause: fate.cause(now),
            repaired,
            problem: (!repaired && !self.options.dry_run).then(|| "Stripe has no object of this id".to_owned()),
        });
        Ok(())
    }

    /// Whether a row, read anew, has an object of which something may become still.
    async fn is_in_ledger(&self, kind: ObjectKind, id: &str, row: &KnownObject) -> Result<bool, AppError> {
        let client = self.service.connection().await?;
        let place = (&[row.account_id.as_str()], &[row.object_id.as_str()]);
        let rows = stripe_sync::known_objects(&**client, kind.row_kind().as_str(), place.0, place.1).await?;
        let known = rows.first().map(|row| Service::known_of(kind, row)).transpose()?.unwrap_or_default();
        Ok(known.iter().any(|(known_id, known)| known_id == id && !known.is_gone()))
    }
}
