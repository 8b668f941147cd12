//! `subledger keys`: API keys.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use subledger::config::Config;
use subledger::startup::StartError;
use subledger::store::keys::{self, ApiKey, Scope};

use super::exit::Exit;
use super::output::{or_dash, print, table, time};
use super::{close, open};

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
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

/// Runs one of them.
pub async fn run(command: KeysCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (ground, running) = open(config).await?;
    let client = running.service.connection().await?;
    let mut exit = Exit::Success;
    match command {
        KeysCommand::Create { scope, name } => {
            let (key_id, key) = keys::create(&**client, scope, name.as_deref()).await?;
            let text =
                format!("{key}\n\nThis is {key_id}, scope {}. Keep it: it cannot be shown again.", scope.as_str());
            print(json, &json!({"key_id": key_id, "key": key, "scope": scope}), &text);
        }
        KeysCommand::List => {
            let keys = keys::list(&**client).await?;
            let row = |key: &ApiKey| {
                let revoked_at = key.revoked_at.map(time);
                let name = or_dash(key.name.as_deref());
                vec![key.key_id.clone(), key.scope.clone(), name, time(key.created_at), or_dash(revoked_at.as_deref())]
            };
            let text = table(&["KEY", "SCOPE", "NAME", "CREATED", "REVOKED"], keys.iter().map(row), "no keys");
            print(json, &json!({"data": keys}), &text);
        }
        KeysCommand::Revoke { key_id } => {
            let revoked = keys::revoke(&**client, &key_id).await?;
            let text =
                if revoked { "revoked; no replica takes it after five seconds" } else { "no live key has this id" };
            print(json, &json!({"revoked": revoked}), text);
            exit = if revoked { Exit::Success } else { Exit::Negative };
        }
    }
    drop(client);
    close(ground, running).await?;
    Ok(exit.into())
}
