//! The command line.

mod accounts;
mod bench;
mod catalog;
mod catalog_sync;
mod demo;
mod events;
mod exit;
mod keys;
mod ledger;
mod output;
mod parked;
mod progress;
mod revenue;
mod settings;
mod simulate;
mod stripe_sync;
mod webhook_endpoints;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use exit::Exit;
use output::print;
use serde_json::json;
use subledger::config::{Config, SETTINGS};
use subledger::startup::{self, Ground, Running, StartError};
use subledger::store::migrate;
use subledger::telemetry;

/// An event-sourced subscription and credit ledger for services that sell through Stripe.
#[derive(Debug, Parser)]
#[command(name = "subledger", version, after_help = help())]
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

fn help() -> String {
    let lines = SETTINGS.iter().map(|(name, meaning)| format!("  {name:32}{meaning}\n"));
    let lines: String = lines.collect();
    format!(
        "Settings, from the environment, else as NAME_FILE, else in --config, else by `subledger settings`:\n{lines}\n{}",
        Exit::help()
    )
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
    Catalog(catalog::CatalogCommand),
    /// The plans in force
    #[command(subcommand)]
    Plan(catalog::PlanCommand),
    /// Make, list or revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// StripeEvents that could not be applied
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// Where callers want to be told of events, and what became of it
    #[command(subcommand)]
    WebhookEndpoints(webhook_endpoints::WebhookEndpointsCommand),
    /// Settings in the database, for all replicas; secrets among them encrypted
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Check the log, its hash chain and every read model; exit code 1 if anything differs
    Verify(ledger::VerifyArguments),
    /// Make the read models anew from the log, without stopping reads
    Rebuild,
    /// Compare customers, subscriptions, invoices and payments with Stripe, and repair; exit code 1 if something differs still
    Reconcile(stripe_sync::ReconcileArguments),
    /// Take in what Stripe lists of events (30 days), as if delivered again
    Backfill(stripe_sync::BackfillArguments),
    /// Bring in all customers, subscriptions, invoices and payments of a Stripe account; goes on where an earlier run was cut
    Import(stripe_sync::ImportArguments),
    /// Print events of the log, or follow it
    Events(events::EventsArguments),
    /// Show accounts, or link one to its Stripe customer
    Account(accounts::AccountArguments),
    /// Recurring revenue, churn, money earned and deferred, credits
    Revenue(revenue::RevenueArguments),
    /// Explain a debit, a hold, a refusal or a check, out of the log
    Explain(ledger::ExplainArguments),
    /// Ask a running service whether it is ready; exit code 0 if so
    Healthcheck,
    /// Be a Stripe to try flows on: stateful, with webhooks and a clock that can be advanced
    Simulate(simulate::SimulateArguments),
    /// Measure, side by side with yardsticks, and write BENCHMARKS.md
    Bench(bench::Arguments),
    /// Print a script that completes commands in a shell, such as for `source <(subledger completions bash)`
    Completions { shell: Shell },
}

impl Command {
    fn is_service(&self) -> bool {
        matches!(self, Self::Serve | Self::Demo)
    }

    /// Does what needs neither settings nor a database.
    fn execute_alone(&self, json: bool) -> Option<Exit> {
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Arguments::command(), "subledger", &mut script);
                let script = String::from_utf8_lossy(&script);
                print(json, &json!({"script": script}), &script);
            }
            Self::Settings(settings::SettingsCommand::GenerateMasterKey) => settings::generate_master_key(json),
            _ => return None,
        }
        Some(Exit::Success)
    }
}

/// Runs the command; errors go to standard error, in words.
pub async fn run(arguments: Arguments) -> ExitCode {
    if let Some(exit) = arguments.command.execute_alone(arguments.json) {
        return exit.into();
    }
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("subledger: {error}");
            return Exit::Config.into();
        }
    };
    telemetry::init(config.log_format, arguments.command.is_service());
    match execute(arguments.command, config, arguments.json).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("subledger: {error}{}", exit::cure(&error));
            Exit::of(&error).into()
        }
    }
}

async fn execute(command: Command, config: Config, json: bool) -> Result<ExitCode, StartError> {
    match command {
        Command::Serve => startup::serve(config, startup::stop_signal(), |_| {}).await?,
        Command::Demo => demo::run(&config).await?,
        Command::Migrate => {
            let ground = Ground::open_beside(&config).await?;
            let partitions = migrate::migrate(&ground.database, config.partitions).await?;
            print(json, &json!({"partitions": partitions}), &format!("up to date, {partitions} partitions"));
            ground.close().await?;
        }
        Command::Catalog(command) => return catalog::run(command, &config, json).await,
        Command::Plan(command) => return catalog::plans(command, &config, json).await,
        Command::Keys(command) => return keys::run(command, &config, json).await,
        Command::WebhookEndpoints(command) => return webhook_endpoints::run(command, &config, json).await,
        Command::Parked(command) => return parked::run(command, &config, json).await,
        Command::Settings(command) => return settings::run(command, &config, json).await,
        Command::Verify(arguments) => return ledger::verify(arguments, &config, json).await,
        Command::Rebuild => return ledger::rebuild(&config, json).await,
        Command::Reconcile(arguments) => return stripe_sync::reconcile(arguments, &config, json).await,
        Command::Backfill(arguments) => return stripe_sync::backfill(arguments, &config, json).await,
        Command::Import(arguments) => return stripe_sync::import(arguments, &config, json).await,
        Command::Events(arguments) => return events::run(arguments, &config, json).await,
        Command::Revenue(arguments) => return revenue::revenue(arguments, &config, json).await,
        Command::Explain(arguments) => return ledger::explain(arguments, &config, json).await,
        Command::Account(arguments) => return accounts::run(arguments, &config, json).await,
        Command::Healthcheck => return Ok(healthcheck(&config).await),
        Command::Simulate(arguments) => return simulate::run(arguments, json).await,
        Command::Bench(arguments) => return bench::run(arguments).await,
        // Done already, without settings.
        Command::Completions { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
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

async fn healthcheck(config: &Config) -> ExitCode {
    let port = config.listen.port();
    let url = format!("http://127.0.0.1:{port}/readyz");
    match reqwest::get(&url).await {
        Ok(response) if response.status().is_success() => Exit::Success.into(),
        Ok(response) => {
            eprintln!("subledger: {url} answers {}", response.status());
            Exit::Negative.into()
        }
        Err(error) => {
            eprintln!("subledger: {url} does not answer: {error}");
            Exit::Negative.into()
        }
    }
}
