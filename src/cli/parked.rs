//! `subledger parked`: StripeEvents that could not be applied.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use subledger::config::Config;
use subledger::startup::StartError;
use subledger::store::inbox::{self, Parked};

use super::exit::Exit;
use super::output::{or_dash, print, table, time};
use super::{close, open};

/// Shown at once.
const MOST: i64 = 10_000;

#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// List them, oldest first
    List,
    /// Try one again, or all; exit code 1 if one stays parked
    Retry(RetryArguments),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RetryArguments {
    /// Id of a StripeEvent
    stripe_event: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Runs one of them.
pub async fn run(command: ParkedCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let service = &running.service;
    let mut exit = Exit::Success;
    match command {
        ParkedCommand::List => {
            let client = service.connection().await?;
            let parked = inbox::list_parked(&**client, None, MOST).await?;
            let row = |row: &Parked| {
                let reason = or_dash(row.reason.as_deref());
                vec![row.stripe_event_id.clone(), row.event_type.clone(), time(row.received_at), reason]
            };
            let header = ["STRIPE EVENT", "TYPE", "RECEIVED", "REASON"];
            print(json, &json!({"data": parked}), &table(&header, parked.iter().map(row), "nothing is parked"));
        }
        ParkedCommand::Retry(RetryArguments { stripe_event, all }) => {
            let outcomes = match stripe_event {
                Some(id) if !all => {
                    service.retry_parked(&id).await?.map(|received| (id, received)).into_iter().collect()
                }
                _ => service.retry_all_parked().await?,
            };
            let data: Vec<Value> =
                outcomes.iter().map(|(id, status)| json!({"stripe_event_id": id, "status": status})).collect();
            let rows = outcomes.iter().map(|(id, received)| vec![id.clone(), received.as_str().to_owned()]);
            let text = table(&["STRIPE EVENT", "STATUS"], rows, "nothing of the kind is parked");
            print(json, &json!({"data": data}), &text);
            let still_parked = outcomes.iter().any(|(_, received)| received.as_str() == "parked");
            if outcomes.is_empty() && !all || still_parked {
                exit = Exit::Negative;
            }
        }
    }
    close(ground, running).await?;
    Ok(exit.into())
}
