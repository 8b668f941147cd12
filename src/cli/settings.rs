//! `subledger settings`: what is kept in the database for all replicas.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use console::Term;
use serde_json::{Value, json};
use subledger::app::outbound::secrets;
use subledger::app::settings;
use subledger::config::{Config, ConfigError, Origin, SECRETS};
use subledger::sealing::MasterKeys;
use subledger::startup::{Ground, StartError};
use subledger::store::migrate;
use subledger::store::settings::{self as stored, StoredSetting, StoredValue};
use tokio_postgres::Client;

use super::exit::Exit;
use super::output::{facts, print, table, time};

/// Longer values are no settings.
const MAX_VALUE_BYTES: u64 = 64 * 1_024;

#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Keep a setting in the database; services take it over when they start again
    ///
    /// The environment, NAME_FILE and the configuration file go before it, in this order; defaults come after it.
    Set(SetArguments),
    /// Show a setting; of an encrypted one, only that it is there
    Get { name: String },
    /// Show all settings of the table; of encrypted ones, only that they are there
    List,
    /// Take a setting out of the table
    Unset { name: String },
    /// Encrypt all secrets anew that are not under the first of SUBLEDGER_MASTER_KEYS
    Rotate,
    /// Print a new master key for SUBLEDGER_MASTER_KEYS
    GenerateMasterKey,
}

#[derive(Args)]
pub struct SetArguments {
    name: String,
    /// Left out: asked for on a terminal, else read from standard input, which leaves no trace in the shell's history
    value: Option<String>,
    /// Encrypt it under the first of SUBLEDGER_MASTER_KEYS; secrets must be
    #[arg(long)]
    encrypted: bool,
}

impl std::fmt::Debug for SetArguments {
    /// Without the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetArguments").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes one, whatever the settings are: they may be refused for want of a good one.
pub fn generate_master_key(json: bool) {
    let key = MasterKeys::generate();
    print(json, &json!({"master_key": key}), &key);
}

/// Runs any other of them.
pub async fn run(command: SettingsCommand, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    // Asked for before the database is, so that nobody types in vain.
    let set = match &command {
        SettingsCommand::Set(arguments) => Some(value_to_set(arguments, config)?),
        _ => None,
    };
    let ground = Ground::open_beside(config).await?;
    migrate::migrate(&ground.database, config.partitions).await?;
    let client = ground.database.connect_as_owner().await?;
    let done = match command {
        SettingsCommand::Set(arguments) => put(&client, arguments, set.unwrap_or_default(), config, json).await,
        SettingsCommand::Get { name } => get(&client, &name, config, json).await,
        SettingsCommand::List => list(&client, config, json).await,
        SettingsCommand::Unset { name } => unset(&client, &name, json).await,
        SettingsCommand::Rotate => rotate(&client, config, json).await,
        SettingsCommand::GenerateMasterKey => Ok(Exit::Success),
    };
    drop(client);
    ground.close().await?;
    Ok(done?.into())
}

fn wrong(name: &str, problem: &str) -> StartError {
    ConfigError { setting: name.to_owned(), problem: problem.to_owned() }.into()
}

/// The value, once it is sure that it can be kept.
fn value_to_set(arguments: &SetArguments, config: &Config) -> Result<String, StartError> {
    let SetArguments { name, value, encrypted } = arguments;
    if SECRETS.contains(&name.as_str()) && !encrypted {
        return Err(wrong(name, "is a secret: add --encrypted"));
    }
    if *encrypted && config.master_keys.current().is_none() {
        return Err(wrong(
            "SUBLEDGER_MASTER_KEYS",
            "is needed to encrypt: `subledger settings generate-master-key` makes one",
        ));
    }
    let value = match value {
        Some(value) => value.clone(),
        None => read_value(name, *encrypted).map_err(|error| wrong(name, &format!("no value: {error}")))?,
    };
    let value = value.trim().to_owned();
    Config::check_stored(name, &value)?;
    Ok(value)
}

fn read_value(name: &str, hidden: bool) -> std::io::Result<String> {
    if std::io::stdin().is_terminal() {
        let terminal = Term::stderr();
        terminal.write_str(&format!("{name}: "))?;
        return if hidden { terminal.read_secure_line() } else { terminal.read_line() };
    }
    let mut value = String::new();
    std::io::stdin().take(MAX_VALUE_BYTES + 1).read_to_string(&mut value)?;
    if value.len() as u64 > MAX_VALUE_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_VALUE_BYTES} bytes")));
    }
    Ok(value)
}

/// What gives the setting in place of the table, as far as this process can tell.
fn overridden_by(config: &Config, name: &str) -> Option<Origin> {
    config.origin(name).ok().flatten().filter(|origin| *origin != Origin::SettingsTable)
}

async fn put(
    client: &Client,
    arguments: SetArguments,
    value: String,
    config: &Config,
    json: bool,
) -> Result<Exit, StartError> {
    let name = arguments.name;
    let master_key = match arguments.encrypted {
        true => Some(settings::put_sealed(client, &config.master_keys, &name, &value).await?),
        false => {
            settings::put_plain(client, &name, &value).await?;
            None
        }
    };
    let overridden_by = overridden_by(config, &name).map(Origin::as_str);
    let how = master_key.as_ref().map_or_else(String::new, |key| format!(", encrypted under {key}"));
    let effect = match overridden_by {
        Some(origin) => format!("but here the {} goes before it", origin.replace('_', " ")),
        None => "services take it over when they start again".to_owned(),
    };
    let told = json!({
        "name": name, "encrypted": master_key.is_some(), "master_key": master_key, "overridden_by": overridden_by,
    });
    print(json, &told, &format!("{name} is kept{how}; {effect}"));
    Ok(Exit::Success)
}

/// A setting as it is shown.
fn view(setting: &StoredSetting, config: &Config) -> Result<Value, StartError> {
    let master_key = settings::master_key(setting)?;
    let value = match &setting.value {
        StoredValue::Plain(value) => Some(value),
        StoredValue::Sealed(_) => None,
    };
    Ok(json!({
        "name": setting.name, "value": value, "encrypted": master_key.is_some(), "master_key": master_key,
        "set_at": setting.set_at, "overridden_by": overridden_by(config, &setting.name).map(Origin::as_str),
    }))
}

fn shown_value(setting: &StoredSetting) -> Result<String, StartError> {
    Ok(match (&setting.value, settings::master_key(setting)?) {
        (StoredValue::Plain(value), _) => value.clone(),
        (StoredValue::Sealed(_), key) => format!("(encrypted under {})", key.unwrap_or_default()),
    })
}

async fn get(client: &Client, name: &str, config: &Config, json: bool) -> Result<Exit, StartError> {
    let Some(setting) = stored::get(client, name).await? else {
        eprintln!("subledger: {name} is not in the settings table; `subledger settings list` shows what is");
        return Ok(Exit::Negative);
    };
    let mut told = vec![("value", shown_value(&setting)?), ("set at", time(setting.set_at))];
    told.extend(overridden_by(config, name).map(|origin| ("goes before it here", origin.as_str().replace('_', " "))));
    print(json, &view(&setting, config)?, &facts(told));
    Ok(Exit::Success)
}

async fn list(client: &Client, config: &Config, json: bool) -> Result<Exit, StartError> {
    let settings = stored::list(client).await?;
    let mut rows = Vec::new();
    for setting in &settings {
        let origin = overridden_by(config, &setting.name).map_or("-", Origin::as_str).replace('_', " ");
        rows.push(vec![setting.name.clone(), shown_value(setting)?, time(setting.set_at), origin]);
    }
    let data: Vec<Value> = settings.iter().map(|setting| view(setting, config)).collect::<Result<_, _>>()?;
    let header = ["NAME", "VALUE", "SET AT", "GOES BEFORE IT HERE"];
    print(json, &json!({"data": data}), &table(&header, rows, "the settings table is empty"));
    Ok(Exit::Success)
}

async fn unset(client: &Client, name: &str, json: bool) -> Result<Exit, StartError> {
    let removed = stored::remove(client, name).await?;
    let text = match removed {
        true => format!("{name} is gone; services do without it when they start again"),
        false => format!("{name} was not in the settings table"),
    };
    print(json, &json!({"name": name, "removed": removed}), &text);
    Ok(if removed { Exit::Success } else { Exit::Negative })
}

async fn rotate(client: &Client, config: &Config, json: bool) -> Result<Exit, StartError> {
    let Some(current) = config.master_keys.current() else {
        return Err(wrong("SUBLEDGER_MASTER_KEYS", "is needed: the new key first, the old ones behind it"));
    };
    let mut rotated = settings::rotate(client, &config.master_keys).await?;
    let endpoints = secrets::rotate(client, &config.master_keys).await?;
    rotated.extend(endpoints.into_iter().map(|endpoint| format!("secrets of {endpoint}")));
    let text = match rotated.is_empty() {
        true => format!("all secrets are under {current} already"),
        false => format!("{} now under {current}: keys that no replica needs can go", rotated.join(", ")),
    };
    print(json, &json!({"master_key": current, "rotated": rotated}), &text);
    Ok(Exit::Success)
}
