//! `subledger webhook-endpoints`: where callers want to be told of events.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::json;
use subledger::app::outbound::{NewEndpoint, ReplayFrom};
use subledger::app::service::Service;
use subledger::config::Config;
use subledger::domain::message::is_known_filter;
use subledger::startup::StartError;
use subledger::store::webhook_deliveries::{self, Delivery, DeliveryFilter};
use subledger::store::webhook_endpoints::{self, EndpointChange, WebhookEndpoint};

use super::exit::Exit;
use super::output::{or_dash, print, table, time};
use super::{close, open};

/// Shown at once.
const MOST: i64 = 1_000;

#[derive(Debug, Subcommand)]
pub enum WebhookEndpointsCommand {
    /// List them, oldest first
    List,
    /// Make one; its secret is shown once
    Create {
        /// Where messages are sent, such as https://example.com/hooks
        url: String,
        /// Types that are wanted, or the beginning of some and a `*`; all, if left out
        #[arg(long, value_delimiter = ',', value_parser = parse_filter)]
        types: Vec<String>,
        /// For people
        #[arg(long)]
        description: Option<String>,
    },
    /// Try what waits for an endpoint again, and queue events for it from now on
    Enable { endpoint: String },
    /// Send nothing, and queue nothing, until it is enabled
    Disable { endpoint: String },
    /// Remove an endpoint with its deliveries
    Delete { endpoint: String },
    /// What became of each message, newest first
    Deliveries {
        endpoint: String,
        /// pending, delivered or dead
        #[arg(long, value_parser = ["pending", "delivered", "dead"])]
        status: Option<String>,
    },
    /// Try a delivery again at once, also one that is dead
    Retry { endpoint: String, message: String },
    /// Send everything since a time again
    Replay {
        endpoint: String,
        /// RFC 3339, such as 2026-01-15T12:00:00Z
        #[arg(long)]
        since: DateTime<Utc>,
    },
}

fn parse_filter(text: &str) -> Result<String, String> {
    if is_known_filter(text) {
        Ok(text.to_owned())
    } else {
        Err("is no type, nor the beginning of one and a `*`".to_owned())
    }
}

/// Runs one of them.
pub async fn run(command: WebhookEndpointsCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let exit = execute(&running.service, command, json).await;
    close(ground, running).await?;
    exit.map(Into::into)
}

async fn execute(service: &Service, command: WebhookEndpointsCommand, json: bool) -> Result<Exit, StartError> {
    use WebhookEndpointsCommand as C;
    match command {
        C::List => {
            let endpoints = webhook_endpoints::list(&**service.connection().await?).await?;
            let header = ["ENDPOINT", "STATUS", "FAILING SINCE", "TYPES", "URL"];
            let text = table(&header, endpoints.iter().map(endpoint_row), "no webhook endpoints");
            print(json, &json!({"data": endpoints}), &text);
            Ok(Exit::Success)
        }
        C::Create { url, types, description } => {
            if let Err(problem) = service.check_webhook_url(&url) {
                eprintln!("subledger: {url} {problem}");
                return Ok(Exit::Usage);
            }
            let new = NewEndpoint { url, description, event_types: types };
            let (endpoint, secret) = service.create_webhook_endpoint(new).await?;
            let text =
                format!("{secret}\n\nIt signs what is sent to {}. Keep it: it cannot be shown again.", endpoint.id);
            print(json, &json!({"id": endpoint.id, "url": endpoint.url, "secret": secret}), &text);
            Ok(Exit::Success)
        }
        C::Enable { endpoint } => set_enabled(service, &endpoint, true, json).await,
        C::Disable { endpoint } => set_enabled(service, &endpoint, false, json).await,
        C::Delete { endpoint } => {
            let deleted = webhook_endpoints::delete(&**service.connection().await?, &endpoint).await?;
            Ok(said(deleted, json, json!({"id": endpoint, "deleted": deleted}), &format!("{endpoint} is removed")))
        }
        C::Deliveries { endpoint, status } => {
            let filter = DeliveryFilter { status, account: None };
            let client = service.connection().await?;
            let deliveries = webhook_deliveries::list(&**client, &endpoint, &filter, None, MOST).await?;
            let header = ["MESSAGE", "TYPE", "ACCOUNT", "STATUS", "ATTEMPTS", "NEXT", "CREATED"];
            let text = table(&header, deliveries.iter().map(delivery_row), "no deliveries");
            print(json, &json!({"data": deliveries}), &text);
            Ok(Exit::Success)
        }
        C::Retry { endpoint, message } => {
            let retried = service.retry_delivery(&endpoint, &message).await?;
            Ok(said(
                retried,
                json,
                json!({"message_id": message, "retried": retried}),
                &format!("{message} is tried again"),
            ))
        }
        C::Replay { endpoint, since } => {
            let replay = service.replay_webhooks(&endpoint, ReplayFrom::Time(since)).await?;
            let text = format!("what {endpoint} wants since {} is queued again by the service", time(since));
            Ok(said(replay.is_some(), json, json!({"replay": replay}), &text))
        }
    }
}

async fn set_enabled(service: &Service, id: &str, is_enabled: bool, json: bool) -> Result<Exit, StartError> {
    let change = EndpointChange { is_enabled: Some(is_enabled), ..EndpointChange::default() };
    let endpoint = service.update_webhook_endpoint(id, &change).await?;
    let text = format!("{id} is {}", if is_enabled { "enabled" } else { "disabled" });
    Ok(said(endpoint.is_some(), json, json!({"endpoint": endpoint}), &text))
}

/// Says what was done, or that there is nothing of the kind.
fn said(is_done: bool, json: bool, value: serde_json::Value, text: &str) -> Exit {
    print(json, &value, if is_done { text } else { "there is none of this id" });
    if is_done { Exit::Success } else { Exit::Negative }
}

fn endpoint_row(endpoint: &WebhookEndpoint) -> Vec<String> {
    let status = match &endpoint.disabled_reason {
        Some(reason) => format!("{} ({reason})", endpoint.status),
        None => endpoint.status.clone(),
    };
    let types = if endpoint.event_types.is_empty() { "all".to_owned() } else { endpoint.event_types.join(",") };
    let failing_since = or_dash(endpoint.failing_since.map(time).as_deref());
    vec![endpoint.id.clone(), status, failing_since, types, endpoint.url.clone()]
}

fn delivery_row(delivery: &Delivery) -> Vec<String> {
    vec![
        delivery.message_id.clone(),
        delivery.message_type.clone(),
        delivery.account.clone(),
        delivery.status.clone(),
        delivery.attempts.to_string(),
        or_dash(delivery.next_attempt_at.map(time).as_deref()),
        time(delivery.created_at),
    ]
}
