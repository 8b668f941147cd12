//! The ledger beside Stripe: reconcile, backfill, import.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};
use subledger::app::stripe_sync::reconcile::{Finding, FindingKind, ReconcileOptions, ReconcileReport};
use subledger::app::stripe_sync::stripe_import::{BackfillReport, ImportOptions, ImportReport};
use subledger::app::stripe_sync::stripe_reader::DEFAULT_REQUESTS_PER_SECOND;
use subledger::config::{Config, ConfigError};
use subledger::domain::ids::AccountId;
use subledger::domain::reconciliation::Cause;
use subledger::startup::{Ground, Running, StartError};

use super::exit::Exit;
use super::ledger::parse_time;
use super::output::print;
use super::progress::Counter;
use super::{close, open};

#[derive(Debug, Args)]
pub struct ReconcileArguments {
    /// Only say what differs
    #[arg(long)]
    dry_run: bool,
    /// One account only: its id, or that of a Stripe customer linked to it. What it bought without a Stripe customer, and
    /// nobody has heard of, is found only without this
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

/// A service at work that can call Stripe; without a key, it is a setting that is missing.
async fn open_with_key(config: &Config) -> Result<(Ground, Running), StartError> {
    let (ground, running) = open(config).await?;
    if running.service.stripe_client.is_configured() {
        return Ok((ground, running));
    }
    close(ground, running).await?;
    let problem = "is not set; Stripe cannot be asked without it".to_owned();
    Err(ConfigError { setting: "STRIPE_SECRET_KEY".to_owned(), problem }.into())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// Compares with Stripe and repairs. Exit code 1 if something differs still.
pub async fn reconcile(arguments: ReconcileArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let account = arguments.account.map(|name| AccountId::new(&name)).transpose();
    let account =
        account.map_err(|error| StartError::Argument { argument: "--account", problem: error.to_string() })?;
    let (ground, running) = open_with_key(config).await?;
    let options = ReconcileOptions { account, since: arguments.since, dry_run: arguments.dry_run };
    let counter = Counter::new("objects compared");
    let report = running.service.reconcile(&options, counter.progress()).await;
    drop(counter);
    close(ground, running).await?;
    let report = report?;
    print(json, &serde_json::to_value(&report).unwrap_or(Value::Null), &of_report(&report));
    Ok(Exit::unless(report.unrepaired() > 0))
}

fn of_report(report: &ReconcileReport) -> String {
    let ReconcileReport { differing, repaired, .. } = report;
    let counts = report.counts().map(|(kind, count)| format!("{count} {}", objects(kind.as_str(), count)));
    let compared = counts.join(", ");
    let end = match (*differing, report.dry_run) {
        (0, _) => format!("{compared}: the ledger and Stripe agree"),
        (_, true) => format!("{compared}: {differing} differ, and nothing was done about it"),
        (_, false) => format!("{compared}: {differing} differed, {repaired} of them are repaired"),
    };
    lines(report.findings.iter().map(of_finding).chain([end]))
}

/// The name of so many objects of a kind.
fn objects(kind: &str, count: u64) -> String {
    let name = kind.replace('_', " ");
    if count == 1 { name } else { format!("{name}s") }
}

fn of_finding(finding: &Finding) -> String {
    let Finding { kind, stripe_id, .. } = finding;
    let what = match finding.finding {
        FindingKind::NotInLedger => "not in the ledger".to_owned(),
        FindingKind::NotInStripe => "not in Stripe".to_owned(),
        FindingKind::Unreadable => "cannot be read".to_owned(),
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
    format!("{} {stripe_id}: {what}; {why}; {end}", objects(kind, 1))
}

/// Takes in the StripeEvents that Stripe lists. Exit code 1 if some are parked.
pub async fn backfill(arguments: BackfillArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open_with_key(config).await?;
    let counter = Counter::new("events taken in");
    let report = running.service.backfill(arguments.since, counter.progress()).await;
    drop(counter);
    close(ground, running).await?;
    let report = report?;
    let BackfillReport { events, applied, superseded, duplicate, ignored, parked } = &report;
    let text = format!(
        "{events} events: {applied} applied, {superseded} superseded, {duplicate} known already, {ignored} of no use, \
         {parked} parked"
    );
    print(json, &serde_json::to_value(&report).unwrap_or(Value::Null), &text);
    Ok(Exit::unless(report.parked > 0))
}

/// Brings in a whole Stripe account. Exit code 1 if some object could not be.
pub async fn import(arguments: ImportArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open_with_key(config).await?;
    let ImportArguments { restart, requests_per_second } = arguments;
    let counter = Counter::new("objects read");
    let report =
        running.service.import_stripe(ImportOptions { restart, requests_per_second }, counter.progress()).await;
    drop(counter);
    close(ground, running).await?;
    let report: ImportReport = report.inspect_err(|_| {
        if !json {
            eprintln!("subledger: what was read is kept; run the import again, and it goes on from there");
        }
    })?;
    let kinds = report.kinds.iter().map(|kind| {
        let name = objects(kind.kind, kind.objects.unsigned_abs());
        format!("{} {name}, {} of them news", kind.objects, kind.changed)
    });
    let problems = report.problems.iter().cloned();
    let failed = (report.failed > 0).then(|| format!("{} could not be brought in", report.failed));
    let text = lines(kinds.chain(problems).chain(failed));
    print(json, &json!(report), &text);
    Ok(Exit::unless(report.failed > 0))
}
