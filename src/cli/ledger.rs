//! Commands on the whole ledger: verify, rebuild, explain, simulate.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::Args;
use serde_json::Value;
use subledger::app::catalog::ActiveCatalog;
use subledger::app::read_path::explain::Explanation;
use subledger::app::upkeep::rebuild;
use subledger::app::upkeep::simulate::{self, Difference, Entitled, EntitlementDifference, Question, Simulation};
use subledger::app::upkeep::verify::{self, Anchor, VerifyOptions};
use subledger::config::{Config, ConfigError};
use subledger::domain::draft::version_of;
use subledger::startup::{self, Ground, StartError};
use subledger::store::migrate;

use super::exit::Exit;
use super::output::print;
use super::progress::Bar;
use super::{close, open};

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// JSON report of an earlier verify: the log must still go through its anchors
    #[arg(long)]
    anchors: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The `receipt` of an answer, or the id of a debit or a hold
    id: String,
}

#[derive(Debug, Args)]
pub struct SimulateArguments {
    /// The draft (TOML)
    draft: PathBuf,
    /// From when on the draft would have been in force, such as 2026-01-01 or 2026-01-01T12:00:00Z; 30 days ago, if left out
    #[arg(long, value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
    /// Accounts to list, those most affected first
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let day = || text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|time| time.and_utc());
    let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    time.or_else(day)
        .ok_or_else(|| "must be a day such as 2026-01-01, or a time such as 2026-01-01T12:00:00Z".to_owned())
}

/// Checks the log and every read model. Exit code 1 if anything differs.
pub async fn verify(arguments: VerifyArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let anchors = arguments.anchors.map(|path| read_anchors(&path)).transpose()?.unwrap_or_default();
    let ground = Ground::open_beside(config).await?;
    migrate::migrate(&ground.database, config.partitions).await?;
    let bar = Bar::new("verifying");
    let options = VerifyOptions { anchors, progress: bar.progress(), ..VerifyOptions::default() };
    let verified = verify::verify(&ground.database, &options).await;
    drop(bar);
    ground.close().await?;
    let report = verified?;
    let lines: Vec<String> = report.listed.iter().map(ToString::to_string).collect();
    let (events, accounts) = (report.events, report.accounts);
    let text = if report.is_clean() {
        format!("sound: {events} events, {accounts} accounts, {} Stripe objects agree", report.billing_objects)
    } else {
        format!("{}\n{} differences in {events} events and {accounts} accounts", lines.join("\n"), report.differences)
    };
    print(json, &serde_json::to_value(&report).unwrap_or(Value::Null), &text);
    Ok(if report.is_clean() { Exit::Success } else { Exit::Negative }.into())
}

fn read_anchors(path: &std::path::Path) -> Result<Vec<Anchor>, StartError> {
    let wrong = |problem: String| ConfigError { setting: format!("--anchors {}", path.display()), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let anchors = serde_json::from_value(report["anchors"].clone());
    Ok(anchors.map_err(|error| wrong(format!("no report of `subledger verify --json`: {error}")))?)
}

/// Makes the read models anew beside the live ones, and swaps them in.
pub async fn rebuild(config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let ground = Ground::open_beside(config).await?;
    migrate::migrate(&ground.database, config.partitions).await?;
    let bar = Bar::new("rebuilding");
    let rebuilt = rebuild::rebuild(&ground.database, bar.progress()).await;
    drop(bar);
    ground.close().await?;
    let rebuilt = rebuilt?;
    let text = format!(
        "rebuilt {} accounts from {} events in {:.1} s; writers waited {} ms",
        rebuilt.accounts, rebuilt.events, rebuilt.seconds, rebuilt.writers_waited_ms
    );
    print(json, &serde_json::to_value(&rebuilt).unwrap_or(Value::Null), &text);
    Ok(Exit::Success.into())
}

/// Explains a decision. Exit code 1 if nothing has that id, or if deciding again gives something else.
pub async fn explain(arguments: ExplainArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let explained = running.service.explain_id(&arguments.id).await;
    close(ground, running).await?;
    let explained = explained?;
    print(json, &serde_json::to_value(&explained).unwrap_or(Value::Null), &in_words(&explained));
    Ok(if explained.agrees == Some(false) { Exit::Negative } else { Exit::Success }.into())
}

fn in_words(explained: &Explanation) -> String {
    let Explanation { kind, account, at, partition, position, catalog, .. } = explained;
    let verdict = match (explained.allowed, &explained.reason) {
        (true, None) => "allowed".to_owned(),
        (true, Some(reason)) => format!("allowed: {reason}"),
        (false, reason) => format!("refused: {}", reason.as_deref().unwrap_or("-")),
    };
    let mut lines = vec![
        format!("{kind} of {account}, {verdict}"),
        format!("  at {}, position {position} of partition {partition}", at.to_rfc3339()),
        format!("  under catalog {}", version_of(catalog)),
    ];
    lines.extend(explained.because.iter().map(|reason| format!("  - {reason}")));
    let draws = explained.lots.iter().map(|draw| {
        let cause = explained.lots_before.iter().find(|lot| lot.id == draw.lot).map_or("-", |lot| lot.cause.as_str());
        format!("    {} out of {}  {cause}", draw.amount, draw.lot)
    });
    lines.extend(draws);
    lines.push(format!("  available before {}, after {}", explained.available_before, explained.available_after));
    lines.extend(explained.agrees.map(|agrees| match agrees {
        true => "  decided again from the log: the same".to_owned(),
        false => "  decided again from the log: SOMETHING ELSE".to_owned(),
    }));
    lines.join("\n")
}

/// Lives through the log again under a draft of a catalog.
pub async fn simulate(arguments: SimulateArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let draft = ActiveCatalog::new(startup::read_catalog(&arguments.draft)?);
    let (ground, running) = open(config).await?;
    let now = running.service.clock.now();
    let question = Question {
        draft,
        current: (*running.service.catalog.current()).clone(),
        since: arguments.since.unwrap_or(now - TimeDelta::days(30)),
        now,
        listed: arguments.limit,
    };
    let bar = Bar::new("simulating");
    let simulated = simulate::simulate(&ground.database, &question, bar.progress()).await;
    drop(bar);
    close(ground, running).await?;
    let simulation = simulated?;
    let Simulation { total, other_entitlements, .. } = &simulation;
    let mut lines = vec![
        format!(
            "{} of {} accounts would have been affected, over {} events since {}",
            simulation.affected, simulation.accounts, simulation.events, simulation.since
        ),
        format!("  granted by plans and packs  {:>12}  would be {:>12}", total.granted, total.granted_by_draft),
        format!("  charged                     {:>12}  would be {:>12}", total.charged, total.charged_by_draft),
        format!(
            "  {} newly refused, {} newly allowed, {} charged differently",
            total.newly_refused, total.newly_allowed, total.charged_differently
        ),
        format!("  {other_entitlements} accounts would have other features, those without events since among them"),
    ];
    lines.extend(simulation.listed.iter().map(difference_in_words));
    print(json, &serde_json::to_value(&simulation).unwrap_or(Value::Null), &lines.join("\n"));
    Ok(Exit::Success.into())
}

fn difference_in_words(difference: &Difference) -> String {
    let Difference { account, plan, plan_by_draft, available, available_by_draft, tally, entitlements } = difference;
    let name = |plan: &Option<String>| plan.as_deref().unwrap_or("-").to_owned();
    let plan = match plan == plan_by_draft {
        true => name(plan),
        false => format!("{} -> {}", name(plan), name(plan_by_draft)),
    };
    let features: String = entitlements.iter().map(|changed| format!("\n    {}", feature_in_words(changed))).collect();
    format!(
        "{account}  {plan}  granted {} -> {}  charged {} -> {}  available {available} -> {available_by_draft}  refused +{}  allowed +{}{features}",
        tally.granted,
        tally.granted_by_draft,
        tally.charged,
        tally.charged_by_draft,
        tally.newly_refused,
        tally.newly_allowed
    )
}

/// Such as `seats: 10 -> 5` or `export: yes -> no`.
fn feature_in_words(EntitlementDifference { feature, now, by_draft }: &EntitlementDifference) -> String {
    let told = |entitled: &Entitled| {
        if !entitled.allowed {
            return "no".to_owned();
        }
        let limits = entitled.limits.iter().map(|limit| match limit.per {
            Some(per) => format!("{} per {}", limit.limit, per.as_str()),
            None => limit.limit.to_string(),
        });
        let told: Vec<String> = limits.chain(entitled.values.iter().cloned()).collect();
        if told.is_empty() { "yes".to_owned() } else { told.join(", ") }
    };
    format!("{feature}: {} -> {}", told(now), told(by_draft))
}
