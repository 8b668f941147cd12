//! The command line.

mod bench;
mod catalog_sync;
mod demo;
mod ledger;
mod simulate;
mod stripe_sync;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use subledger::config::{Config, SETTINGS};
use subledger::domain::ids::AccountId;
use subledger::startup::{self, Ground, Running, StartError};
use subledger::store::keys::{self, Scope};
use subledger::store::{inbox, migrate};
use subledger::telemetry;

/// The exit code for a wrong setting (sysexits.h, EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// An event-sourced subscription and credit ledger for services that sell through Stripe.
#[derive(Debug, Parser)]
#[command(name = "subledger", version, after_help = settings_help())]
pub struct Arguments {
    /// Configuration file (TOML) for settings that the environment does not give
    #[arg(long, global = true, env = "SUBLEDGER_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn settings_help() -> String {
    let lines = SETTINGS.iter().map(|(name, meaning)| format!("  {name:32}{meaning}\n"));
    format!("Settings (environment; each also as NAME_FILE, or in --config):\n{}", lines.collect::<String>())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop
    Serve,
    /// Serve the sample catalog, and play a sample customer through the webhook endpoint
    Demo,
    /// Bring the database up to date
    Migrate,
    /// Check, apply or show the catalog, and make Stripe sell it
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Make, list or revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// StripeEvents that could not be applied
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Check the log, its hash chain and every read model; exit code 1 if anything differs
    Verify(ledger::VerifyArguments),
    /// Make the read models anew from the log, without stopping reads
    Rebuild,
    /// Compare customers, subscriptions and invoices with Stripe, and repair; exit code 1 if something differs still
    Reconcile(stripe_sync::ReconcileArguments),
    /// Take in what Stripe lists of events (30 days), as if delivered again
    Backfill(stripe_sync::BackfillArguments),
    /// Bring in all customers, subscriptions and invoices of a Stripe account; goes on where an earlier run was cut
    Import(stripe_sync::ImportArguments),
    /// Print events of the log
    Events(ledger::EventsArguments),
    /// Show an account: plan, credits, lots
    Account(AccountArguments),
    /// Explain a debit, a hold, a refusal or a check, out of the log
    Explain(ledger::ExplainArguments),
    /// Ask a running service whether it is ready; exit code 0 if so
    Healthcheck,
    /// Be a Stripe to try flows on: stateful, with webhooks and a clock that can be advanced
    Simulate(simulate::SimulateArguments),
    /// Measure, side by side with yardsticks, and write BENCHMARKS.md
    Bench(bench::Arguments),
}

#[derive(Debug, Subcommand)]
enum CatalogCommand {
    /// Check a file, and say what is wrong with it
    Check { file: PathBuf },
    /// Put a file's catalog in force
    Apply { file: PathBuf },
    /// Show the catalog in force
    Show,
    /// Create and update products and prices in Stripe, and keep their ids
    Push(catalog_sync::PushArguments),
    /// Say where Stripe and the catalog differ; exit code 1 if they do
    Diff(catalog_sync::DiffArguments),
    /// Write a catalog of what Stripe sells
    Import(catalog_sync::ImportArguments),
    /// Live through the log again under a draft, and say who would have been granted, refused or charged differently
    Simulate(ledger::SimulateArguments),
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key; it is shown once
    Create {
        /// read, spend, bill or admin
        #[arg(long, value_parser = parse_scope)]
        scope: Scope,
        /// What the key is for
        #[arg(long)]
        name: Option<String>,
    },
    /// List keys, without the keys themselves
    List,
    /// Revoke a key by its id
    Revoke { key_id: String },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "must be read, spend, bill or admin".to_owned())
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    /// List them, oldest first
    List,
    /// Try one again, or all
    Retry(RetryArguments),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RetryArguments {
    /// Id of a StripeEvent
    stripe_event: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct AccountArguments {
    /// The account's id, or a Stripe customer id linked to it
    account: String,
}

/// Runs the command; errors go to standard error, in words.
pub async fn run(arguments: Arguments) -> ExitCode {
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("subledger: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    telemetry::init(config.log_format);
    match execute(arguments.command, config, arguments.json).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("subledger: {error}");
            let is_config = matches!(
                error,
                StartError::Config(_)
                    | StartError::OpenToAll(_)
                    | StartError::Catalog { .. }
                    | StartError::CatalogFile { .. }
            );
            ExitCode::from(if is_config { EXIT_CONFIG } else { 1 })
        }
    }
}

async fn execute(command: Command, config: Config, json: bool) -> Result<ExitCode, StartError> {
    match command {
        Command::Serve => startup::serve(config, startup::stop_signal(), |_| {}).await?,
        Command::Demo => demo::run(config).await?,
        Command::Migrate => {
            let ground = Ground::open_beside(&config).await?;
            let partitions = migrate::migrate(&ground.database, config.partitions).await?;
            print(json, &json!({"partitions": partitions}), &format!("up to date, {partitions} partitions"));
            ground.close().await?;
        }
        Command::Catalog(command) => return catalog(command, &config, json).await,
        Command::Keys(command) => return api_keys(command, &config, json).await,
        Command::Parked(command) => return parked(command, &config, json).await,
        Command::Verify(arguments) => return ledger::verify(arguments, &config, json).await,
        Command::Rebuild => return ledger::rebuild(&config, json).await,
        Command::Reconcile(arguments) => return stripe_sync::reconcile(arguments, &config, json).await,
        Command::Backfill(arguments) => return stripe_sync::backfill(arguments, &config, json).await,
        Command::Import(arguments) => return stripe_sync::import(arguments, &config, json).await,
        Command::Events(arguments) => return ledger::events(arguments, &config, json).await,
        Command::Explain(arguments) => return ledger::explain(arguments, &config, json).await,
        Command::Account(arguments) => return account(arguments, &config, json).await,
        Command::Healthcheck => return Ok(healthcheck(&config).await),
        Command::Simulate(arguments) => return simulate::run(arguments, json).await,
        Command::Bench(arguments) => return bench::run(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, value: &Value, text: &str) {
    if json {
        println!("{value}");
    } else {
        println!("{text}");
    }
}

/// A service at work for the length of one command.
async fn open(config: &Config) -> Result<(Ground, Running), StartError> {
    let ground = Ground::open_beside(config).await?;
    let running = Running::start(config, &ground.database).await?;
    Ok((ground, running))
}

async fn close(ground: Ground, running: Running) -> Result<(), StartError> {
    running.stop().await;
    ground.close().await
}

async fn catalog(command: CatalogCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    match command {
        CatalogCommand::Check { file } => {
            let catalog = startup::read_catalog(&file)?;
            let (plans, packs) = (catalog.plans.len(), catalog.credit_packs.len());
            let version = catalog.digest();
            let text = format!("valid: {plans} plans, {packs} credit packs, version {version}");
            print(json, &json!({"valid": true, "plans": plans, "credit_packs": packs, "version": version}), &text);
        }
        CatalogCommand::Apply { file } => {
            let catalog = startup::read_catalog(&file)?;
            let (ground, running) = open(config).await?;
            let version = catalog.digest();
            let is_new = running.service.apply_catalog(catalog).await?;
            close(ground, running).await?;
            let text =
                if is_new { "applied; running services take it over when they start" } else { "in force already" };
            print(json, &json!({"version": version, "is_new": is_new}), &format!("version {version}: {text}"));
        }
        CatalogCommand::Push(arguments) => return catalog_sync::push(arguments, config, json).await,
        CatalogCommand::Diff(arguments) => return catalog_sync::diff(arguments, config, json).await,
        CatalogCommand::Import(arguments) => return catalog_sync::import(arguments, config, json).await,
        CatalogCommand::Simulate(arguments) => return ledger::simulate(arguments, config, json).await,
        CatalogCommand::Show => {
            let (ground, running) = open(config).await?;
            let active = running.service.catalog.current();
            println!("{}", serde_json::to_string_pretty(&active.catalog).unwrap_or_default());
            close(ground, running).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn api_keys(command: KeysCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let client = running.service.connection().await?;
    let mut code = ExitCode::SUCCESS;
    match command {
        KeysCommand::Create { scope, name } => {
            let (key_id, key) = keys::create(&**client, scope, name.as_deref()).await?;
            let text =
                format!("{key}\n\nThis is {key_id}, scope {}. Keep it: it cannot be shown again.", scope.as_str());
            print(json, &json!({"key_id": key_id, "key": key, "scope": scope}), &text);
        }
        KeysCommand::List => {
            let keys = keys::list(&**client).await?;
            let line = |key: &keys::ApiKey| {
                let state = key.revoked_at.map_or_else(|| "live".to_owned(), |at| format!("revoked {at}"));
                format!("{}  {:5}  {}  {}", key.key_id, key.scope, state, key.name.as_deref().unwrap_or("-"))
            };
            let text = if keys.is_empty() { "no keys".to_owned() } else { join(keys.iter().map(line)) };
            print(json, &json!({"data": keys}), &text);
        }
        KeysCommand::Revoke { key_id } => {
            let revoked = keys::revoke(&**client, &key_id).await?;
            let text =
                if revoked { "revoked; no replica takes it after five seconds" } else { "no live key has this id" };
            print(json, &json!({"revoked": revoked}), text);
            code = ExitCode::from(u8::from(!revoked));
        }
    }
    drop(client);
    close(ground, running).await?;
    Ok(code)
}

fn join(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

async fn parked(command: ParkedCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    const MOST: i64 = 10_000;
    let (ground, running) = open(config).await?;
    let service = &running.service;
    let mut code = ExitCode::SUCCESS;
    match command {
        ParkedCommand::List => {
            let client = service.connection().await?;
            let parked = inbox::list_parked(&**client, None, MOST).await?;
            let line = |row: &inbox::Parked| {
                let reason = row.reason.as_deref().unwrap_or("-");
                format!("{}  {}  {}  {reason}", row.received_at.to_rfc3339(), row.stripe_event_id, row.event_type)
            };
            let text = if parked.is_empty() { "nothing is parked".to_owned() } else { join(parked.iter().map(line)) };
            print(json, &json!({"data": parked}), &text);
        }
        ParkedCommand::Retry(RetryArguments { stripe_event, all }) => {
            let outcomes = match stripe_event {
                Some(id) if !all => {
                    service.retry_parked(&id).await?.map(|received| (id, received)).into_iter().collect()
                }
                _ => service.retry_all_parked().await?,
            };
            let rows: Vec<Value> =
                outcomes.iter().map(|(id, status)| json!({"stripe_event_id": id, "status": status})).collect();
            let lines = outcomes.iter().map(|(id, received)| format!("{id}  {}", received.as_str()));
            let text = if outcomes.is_empty() { "nothing of the kind is parked".to_owned() } else { join(lines) };
            print(json, &json!({"data": rows}), &text);
            let still_parked = outcomes.iter().any(|(_, received)| received.as_str() == "parked");
            code = ExitCode::from(u8::from(outcomes.is_empty() && !all || still_parked));
        }
    }
    close(ground, running).await?;
    Ok(code)
}

async fn account(arguments: AccountArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let service = &running.service;
    let id = AccountId::new(&arguments.account).map_err(|error| subledger::config::ConfigError {
        setting: "account".to_owned(),
        problem: error.to_string(),
    })?;
    let shown = service.account_now(&id, 0).await;
    let code = match shown {
        Ok(account) => {
            let now = service.clock.now();
            let catalog = service.catalog.current();
            let standing = subledger::domain::standing::Standing::of(&account.credits, &catalog.catalog, now);
            let plan = standing.plan.map(|plan| plan.id.as_str());
            let available = account.credits.available_at(now);
            let lot = |lot: &subledger::domain::credit::Lot| {
                let expires = lot.expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("until {at}"));
                format!("  {} of {}  {}  {}", lot.remaining, lot.granted, expires, lot.cause)
            };
            let text = format!(
                "{}: plan {}, {available} credits\n{}",
                account.id,
                plan.unwrap_or("-"),
                join(account.credits.lots.iter().map(lot))
            );
            let value = json!({"id": account.id, "plan": plan, "available": available, "lots": account.credits.lots});
            print(json, &value, text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("subledger: {error}");
            ExitCode::FAILURE
        }
    };
    close(ground, running).await?;
    Ok(code)
}

async fn healthcheck(config: &Config) -> ExitCode {
    let port = config.listen.port();
    let url = format!("http://127.0.0.1:{port}/readyz");
    match reqwest::get(&url).await {
        Ok(response) if response.status().is_success() => ExitCode::SUCCESS,
        Ok(response) => {
            eprintln!("subledger: {url} answers {}", response.status());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("subledger: {url} does not answer: {error}");
            ExitCode::FAILURE
        }
    }
}
