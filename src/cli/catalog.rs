//! `subledger catalog` and `subledger plan`: what is on sale.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use subledger::config::Config;
use subledger::domain::catalog::{CreditAllowance, Interval, Plan, PlanPrice};
use subledger::domain::money::Money;
use subledger::startup::{self, StartError};

use super::exit::Exit;
use super::output::{facts, or_dash, print, table};
use super::{catalog_sync, close, ledger, open};

#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Check a file, and say what is wrong with it
    Check { file: PathBuf },
    /// Put a file's catalog in force
    Apply { file: PathBuf },
    /// Show the catalog in force, as JSON
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
pub enum PlanCommand {
    /// List the plans in force, by rank
    List,
    /// Show one of them
    Get { plan: String },
}

/// Runs one of the catalog's commands.
pub async fn run(command: CatalogCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
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
            let text = if is_new { "applied, on running services too" } else { "in force already" };
            print(json, &json!({"version": version, "is_new": is_new}), &format!("version {version}: {text}"));
        }
        CatalogCommand::Push(arguments) => return catalog_sync::push(arguments, config, json).await,
        CatalogCommand::Diff(arguments) => return catalog_sync::diff(arguments, config, json).await,
        CatalogCommand::Import(arguments) => return catalog_sync::import(arguments, config, json).await,
        CatalogCommand::Simulate(arguments) => return ledger::simulate(arguments, config, json).await,
        CatalogCommand::Show => {
            let (ground, running) = open(config).await?;
            let active = running.service.catalog.current();
            let text = serde_json::to_string_pretty(&active.catalog).unwrap_or_default();
            print(json, &json!(active.catalog), &text);
            close(ground, running).await?;
        }
    }
    Ok(Exit::Success.into())
}

/// Runs one of the plans' commands.
pub async fn plans(command: PlanCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let active = running.service.catalog.current();
    close(ground, running).await?;
    match command {
        PlanCommand::List => {
            let plans = &active.catalog.plans;
            let row = |plan: &Plan| {
                let prices: Vec<String> = plan.prices.iter().map(price).collect();
                vec![plan.id.clone(), plan.name.clone(), plan.rank.to_string(), credits(plan), prices.join(", ")]
            };
            let header = ["PLAN", "NAME", "RANK", "CREDITS", "PRICES"];
            let text = table(&header, plans.iter().map(row), "the catalog in force has no plans");
            print(json, &json!({"data": plans, "catalog": active.digest}), &text);
        }
        PlanCommand::Get { plan: id } => {
            let Some(plan) = active.catalog.plan(&id) else {
                eprintln!("subledger: no plan is called {id}; `subledger plan list` shows them");
                return Ok(Exit::Negative.into());
            };
            print(json, &json!(plan), &in_words(plan));
        }
    }
    Ok(Exit::Success.into())
}

fn in_words(plan: &Plan) -> String {
    let about = facts([
        ("plan", plan.id.clone()),
        ("name", plan.name.clone()),
        ("description", or_dash(plan.description.as_deref())),
        ("rank", plan.rank.to_string()),
        ("default", if plan.default { "yes" } else { "no" }.to_owned()),
        ("credits", credits(plan)),
        ("grace days", plan.grace_days.to_string()),
    ]);
    let price_row = |price: &PlanPrice| {
        let stripe = price.stripe_price_id.as_deref().or(price.lookup_key.as_deref());
        vec![price.id.clone(), self::price(price), or_dash(stripe)]
    };
    let prices = table(&["PRICE", "AMOUNT", "IN STRIPE"], plan.prices.iter().map(price_row), "no prices");
    let features = plan.features.iter().map(|(id, grant)| {
        let windows = grant.windows.iter().map(|window| format!("{} per {}", window.limit, window.per.as_str()));
        let limits: Vec<String> = grant.limit.iter().map(i64::to_string).chain(windows).collect();
        let limits = Some(limits.join(", ")).filter(|limits| !limits.is_empty());
        let values = Some(grant.values.join(", ")).filter(|values| !values.is_empty());
        vec![id.clone(), or_dash(limits.as_deref()), or_dash(values.as_deref())]
    });
    let features = table(&["FEATURE", "LIMITS", "VALUES"], features, "no features");
    format!("{about}\n\n{prices}\n\n{features}")
}

fn credits(plan: &Plan) -> String {
    match plan.credits {
        CreditAllowance::None => "-".to_owned(),
        CreditAllowance::PerPeriod(amount) => format!("{amount} a month"),
        CreditAllowance::Unlimited => "unlimited".to_owned(),
    }
}

/// Such as `9.99 usd a month`.
fn price(price: &PlanPrice) -> String {
    let interval = match price.interval {
        Interval::Day => "day",
        Interval::Week => "week",
        Interval::Month => "month",
        Interval::Year => "year",
    };
    let every = match (price.interval_count, interval) {
        (1, interval) => format!("a {interval}"),
        (count, interval) => format!("every {count} {interval}s"),
    };
    format!("{} {every}", Money::new(price.unit_amount, price.currency))
}
