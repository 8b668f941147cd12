//! `subledger events`: the log, read once or followed.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use subledger::config::Config;
use subledger::domain::ids::AccountId;
use subledger::startup::{self, Ground, StartError};
use subledger::store::error::StoreError;
use subledger::store::log::{self, StoredEvent};
use subledger::store::{load, read};
use tokio_postgres::Client;

use super::exit::Exit;
use super::output::try_print;

/// How often the log is looked at while it is followed.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Read at once while it is followed.
const PAGE: i64 = 1_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EventsArguments {
    #[command(flatten)]
    list: ListArguments,
    #[command(subcommand)]
    command: Option<EventsCommand>,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Print events, oldest first; the same as without a command
    List(ListArguments),
    /// Print the last events and then each new one, until told to stop
    Tail(TailArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    of: Filter,
    /// Events of this partition only
    #[arg(long, conflicts_with = "account")]
    partition: Option<i16>,
    /// After this position of a partition; with --account, after this version of it
    #[arg(long, default_value_t = 0)]
    after: i64,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(0..))]
    limit: i64,
}

#[derive(Debug, Args)]
struct TailArguments {
    #[command(flatten)]
    of: Filter,
    /// Events to begin with
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..=10_000))]
    lines: i64,
}

#[derive(Debug, Args)]
struct Filter {
    /// Events of this account only: its id, or a Stripe customer id linked to it
    #[arg(long)]
    account: Option<String>,
    /// Events of this type only; may be given more than once
    #[arg(long = "type")]
    event_type: Vec<String>,
}

/// Runs one of them.
pub async fn run(arguments: EventsArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let ground = Ground::open_beside(config).await?;
    let client = ground.database.connect().await?;
    let done = match arguments.command {
        Some(EventsCommand::Tail(arguments)) => tokio::select! {
            done = tail(&client, arguments, json) => done,
            () = startup::stop_signal() => Ok(()),
        },
        Some(EventsCommand::List(arguments)) => list(&client, arguments, json).await,
        None => list(&client, arguments.list, json).await,
    };
    drop(client);
    ground.close().await?;
    done?;
    Ok(Exit::Success.into())
}

async fn list(client: &Client, arguments: ListArguments, json: bool) -> Result<(), StoreError> {
    let ListArguments { of, partition, after, limit } = arguments;
    let types: Vec<&str> = of.event_type.iter().map(String::as_str).collect();
    let events = match (of.account, partition) {
        (Some(account), _) => {
            let account = resolve(client, account).await?;
            log::of_account(client, &account, after, &types, limit).await?
        }
        (None, Some(partition)) => log::of_partition(client, partition, after, &types, limit).await?,
        (None, None) => {
            let partitions = 0..log::partitions(client).await?;
            let after: Vec<(i16, i64)> = partitions.map(|partition| (partition, after)).collect();
            first_of_all(client, after, &of.event_type, limit).await?
        }
    };
    show(&events, json);
    Ok(())
}

/// The account that a Stripe id is linked to.
async fn resolve(client: &Client, name: String) -> Result<String, StoreError> {
    let owner = load::links(client, std::slice::from_ref(&name)).await?.remove(&name);
    Ok(owner.map_or(name, |owner: AccountId| owner.to_string()))
}

/// Follows the log until nobody reads what is printed any more.
async fn tail(client: &Client, arguments: TailArguments, json: bool) -> Result<(), StoreError> {
    let TailArguments { of, lines } = arguments;
    let account = match of.account {
        Some(name) => Some(resolve(client, name).await?),
        None => None,
    };
    let is_asked_for = |event: &StoredEvent| account.as_ref().is_none_or(|account| *account == event.account_id);
    let mut cursor = log::positions(client).await?;
    let mut last = match &account {
        Some(account) => last_of_account(client, account, &of.event_type, lines).await?,
        None => last_of_all(client, &cursor, &of.event_type, lines).await?,
    };
    // What has come since is of the first round.
    last.retain(|event| cursor.iter().any(|(id, end)| *id == event.partition_id && event.position <= *end));
    let excess = last.len().saturating_sub(usize::try_from(lines).unwrap_or(0));
    last.drain(..excess);
    loop {
        last.retain(is_asked_for);
        if !show(&last, json) {
            return Ok(());
        }
        let page = read::feed(client, &cursor, &of.event_type, PAGE).await?;
        (last, cursor) = (page.events, page.positions);
        if !page.has_more {
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

async fn last_of_account(
    client: &Client,
    account: &str,
    types: &[String],
    lines: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let Some(balance) = read::balance(client, account).await? else { return Ok(Vec::new()) };
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    log::of_account(client, account, (balance.account.version - lines).max(0), &types, lines).await
}

async fn last_of_all(
    client: &Client,
    ends: &[(i16, i64)],
    types: &[String],
    lines: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let begins: Vec<(i16, i64)> = ends.iter().map(|(partition, end)| (*partition, (end - lines).max(0))).collect();
    first_of_all(client, begins, types, lines * ends.len() as i64).await
}

/// Events after these positions, at most `limit`. A page may end before, where most events are of other types.
async fn first_of_all(
    client: &Client,
    mut after: Vec<(i16, i64)>,
    types: &[String],
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut events = Vec::new();
    loop {
        let left = limit - events.len() as i64;
        let page = read::feed(client, &after, types, left).await?;
        events.extend(page.events);
        after = page.positions;
        if !page.has_more || events.len() as i64 >= limit {
            return Ok(events);
        }
    }
}

/// Prints events, one a line; `false` if nobody reads them.
fn show(events: &[StoredEvent], json: bool) -> bool {
    events.iter().all(|event| {
        let payload: Value = serde_json::from_str(&event.payload).unwrap_or(Value::Null);
        let value = json!({
            "partition": event.partition_id, "position": event.position, "account": event.account_id,
            "version": event.version, "type": event.event_type, "type_version": event.type_version,
            "at": event.at, "payload": payload,
        });
        let place = format!("{}/{}", event.partition_id, event.position);
        let (at, account) = (event.at.to_rfc3339(), &event.account_id);
        let text = format!("{place:10} {at}  {account}  {}  {}", event.event_type, event.payload);
        try_print(json, &value, &text).is_ok()
    })
}
