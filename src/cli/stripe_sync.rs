//! The ledger beside Stripe: reconcile, backfill, import.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use subledger::app::error::AppError;
use subledger::app::reconcile::{Finding, FindingKind, ReconcileOptions, ReconcileReport};
use subledger::app::stripe_import::{BackfillReport, ImportOptions, ImportReport};
use subledger::app::stripe_reader::DEFAULT_REQUESTS_PER_SECOND;
use subledger::app::verify::Progress;
use subledger::config::{Config, ConfigError};
use subledger::domain::ids::AccountId;
use subledger::domain::reconciliation::Cause;
use subledger::startup::StartError;

use super::ledger::parse_time;
use super::{close, join, open, print};

#[derive(Debug, Args)]
pub struct ReconcileArguments {
    /// Only say what differs
    #[arg(long)]
    dry_run: bool,
    /// One account only: its id, or that of a Stripe customer linked to it
    #[arg(long)]
    account: Option<String>,
    /// Only what Stripe's events since then are about (30 days at most), such as 2026-01-01 or 2026-01-01T12:00:00Z
    #[arg(long, value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
pub struct BackfillArguments {
    /// From when on, such as 2026-01-01 or 2026-01-01T12:00:00Z; as far back as Stripe lists them (30 days), if left out
    #[arg(long, value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Begin anew, even if an earlier import was cut
    #[arg(long)]
    restart: bool,
    /// At most so many requests to Stripe
    #[arg(long, default_value_t = DEFAULT_REQUESTS_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..=100))]
    requests_per_second: u32,
}

/// On a terminal, counts what was done.
struct Counter(Option<ProgressBar>);

impl Counter {
    fn new(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {pos} {msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }

    fn progress(&self) -> Progress {
        let bar = self.0.clone();
        Arc::new(move |done, _| bar.iter().for_each(|bar| bar.set_position(done)))
    }

    fn end(self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Without a key, it is a setting that is missing.
fn need_key(config: &Config) -> Result<(), StartError> {
    let problem = "is not set; Stripe cannot be asked without it".to_owned();
    match config.outbound.secret_key {
        Some(_) => Ok(()),
        None => Err(ConfigError { setting: "STRIPE_SECRET_KEY".to_owned(), problem }.into()),
    }
}

/// Compares with Stripe and repairs. Exit code 1 if something differs still.
pub async fn reconcile(arguments: ReconcileArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    need_key(config)?;
    let account = arguments.account.map(|name| AccountId::new(&name)).transpose();
    let account = account.map_err(|error| ConfigError { setting: "--account".to_owned(), problem: error.to_string() })?;
    let (ground, running) = open(config).await?;
    let options = ReconcileOptions { account, since: arguments.since, dry_run: arguments.dry_run };
    let counter = Counter::new("objects compared");
    let report = running.service.reconcile(&options, counter.progress()).await;
    counter.end();
    close(ground, running).await?;
    let report = report?;
    print(json, &serde_json::to_value(&report).unwrap_or(Value::Null), &of_report(&report));
    Ok(ExitCode::from(u8::from(report.unrepaired() > 0)))
}

fn of_report(report: &ReconcileReport) -> String {
    let ReconcileReport { customers, subscriptions, invoices, differing, repaired, .. } = report;
    let compared = format!("{customers} customers, {subscriptions} subscriptions, {invoices} invoices");
    let end = match (*differing, report.dry_run) {
        (0, _) => format!("{compared}: the ledger and Stripe agree"),
        (_, true) => format!("{compared}: {differing} differ, and nothing was done about it"),
        (_, false) => format!("{compared}: {differing} differed, {repaired} of them are repaired"),
    };
    join(report.findings.iter().map(of_finding).chain([end]))
}

fn of_finding(finding: &Finding) -> String {
    let Finding { kind, stripe_id, .. } = finding;
    let what = match finding.finding {
        FindingKind::NotInLedger => "not in the ledger".to_owned(),
        FindingKind::NotInStripe => "not in Stripe".to_owned(),
        FindingKind::Differs => {
            let field = |difference: &subledger::domain::reconciliation::Difference| {
                format!("{} {} instead of {}", difference.field, difference.ledger, difference.stripe)
            };
            finding.differences.iter().map(field).collect::<Vec<_>>().join(", ")
        }
    };
    let why = match &finding.cause {
        Cause::Missing(told) => format!("{} ({}) never came", told.stripe_event_id, told.stripe_event_type),
        Cause::Late(told) => format!("{} ({}) is late", told.stripe_event_id, told.stripe_event_type),
        Cause::Misapplied { told, reason: Some(reason) } => format!("{} is parked: {reason}", told.stripe_event_id),
        Cause::Misapplied { told, reason: None } => {
            format!("{} ({}) came, and does not show", told.stripe_event_id, told.stripe_event_type)
        }
        Cause::Untold | Cause::Imported => "no event that Stripe still lists tells of it".to_owned(),
    };
    let end = match (&finding.problem, finding.repaired) {
        (Some(problem), _) => format!("not repaired: {problem}"),
        (None, true) => "repaired".to_owned(),
        (None, false) => "not repaired".to_owned(),
    };
    format!("{kind} {stripe_id}: {what}; {why}; {end}")
}

/// Takes in the StripeEvents that Stripe lists. Exit code 1 if some are parked.
pub async fn backfill(arguments: BackfillArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    need_key(config)?;
    let (ground, running) = open(config).await?;
    let counter = Counter::new("events taken in");
    let report = running.service.backfill(arguments.since, counter.progress()).await;
    counter.end();
    close(ground, running).await?;
    let report = report?;
    let BackfillReport { events, applied, superseded, duplicate, ignored, parked } = &report;
    let text = format!(
        "{events} events: {applied} applied, {superseded} superseded, {duplicate} known already, {ignored} of no use, \
         {parked} parked"
    );
    print(json, &serde_json::to_value(&report).unwrap_or(Value::Null), &text);
    Ok(ExitCode::from(u8::from(report.parked > 0)))
}

/// Brings in a whole Stripe account. Exit code 1 if some object could not be.
pub async fn import(arguments: ImportArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    need_key(config)?;
    let (ground, running) = open(config).await?;
    let ImportArguments { restart, requests_per_second } = arguments;
    let counter = Counter::new("objects read");
    let report = running.service.import_stripe(ImportOptions { restart, requests_per_second }, counter.progress()).await;
    counter.end();
    close(ground, running).await?;
    let report: ImportReport = report.map_err(|error: AppError| {
        if !json {
            eprintln!("subledger: what was read is kept; run the import again, and it goes on from there");
        }
        error
    })?;
    let kinds = report.kinds.iter().map(|kind| format!("{} {}s, {} of them news", kind.objects, kind.kind, kind.changed));
    let problems = report.problems.iter().cloned();
    let failed = (report.failed > 0).then(|| format!("{} could not be brought in", report.failed));
    let text = join(kinds.chain(problems).chain(failed));
    print(json, &json!(report), &text);
    Ok(ExitCode::from(u8::from(report.failed > 0)))
}
