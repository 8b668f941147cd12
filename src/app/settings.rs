//! Settings in the database: put there in plain or sealed, read when a service starts.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;

use crate::sealing::{MasterKeys, Sealed, SealingError};
use crate::store::error::StoreError;
use crate::store::settings::{self, StoredSetting, StoredValue};

/// Why settings cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{name}: {cause}")]
    Sealing { name: String, cause: SealingError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SettingsError {
    fn sealing(name: &str) -> impl FnOnce(SealingError) -> Self {
        let name = name.to_owned();
        move |cause| Self::Sealing { name, cause }
    }
}

/// Where a sealed value belongs: it does not open beside another name or another version.
fn context(name: &str, version: i64) -> String {
    format!("settings/{name}/{version}")
}

/// Reads the settings that are `wanted`, and opens the sealed ones among them; the others stay closed.
pub async fn read(
    client: &impl GenericClient,
    master_keys: &MasterKeys,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut values = BTreeMap::new();
    for setting in settings::list(client).await?.into_iter().filter(|setting| wanted(&setting.name)) {
        let value = open(master_keys, &setting)?;
        values.insert(setting.name, value);
    }
    Ok(values)
}

fn open(master_keys: &MasterKeys, setting: &StoredSetting) -> Result<String, SettingsError> {
    let StoredSetting { name, version, value, .. } = setting;
    match value {
        StoredValue::Plain(value) => Ok(value.clone()),
        StoredValue::Sealed(sealed) => {
            let opened = sealed.parse().and_then(|sealed| master_keys.open(&context(name, *version), &sealed));
            opened.map_err(SettingsError::sealing(name))
        }
    }
}

/// Keeps a value as it is.
pub async fn put_plain(client: &impl GenericClient, name: &str, value: &str) -> Result<(), SettingsError> {
    let version = settings::next_version(client).await?;
    Ok(settings::put(client, name, version, &StoredValue::Plain(value.to_owned())).await?)
}

/// Keeps a value sealed. Answers the id of the master key.
pub async fn put_sealed(
    client: &impl GenericClient,
    master_keys: &MasterKeys,
    name: &str,
    value: &str,
) -> Result<String, SettingsError> {
    let version = settings::next_version(client).await?;
    let sealed = master_keys.seal(&context(name, version), value).map_err(SettingsError::sealing(name))?;
    settings::put(client, name, version, &StoredValue::Sealed(sealed.to_string())).await?;
    Ok(sealed.master_key)
}

/// Seals every secret anew that is not under the first master key. Answers their names.
pub async fn rotate(client: &impl GenericClient, master_keys: &MasterKeys) -> Result<Vec<String>, SettingsError> {
    let mut rotated = Vec::new();
    for setting in settings::list(client).await? {
        let Some(master_key) = master_key(&setting)? else { continue };
        if master_keys.current() == Some(&master_key) {
            continue;
        }
        let (name, version) = (&setting.name, setting.version);
        let value = open(master_keys, &setting)?;
        let sealed = master_keys.seal(&context(name, version), &value).map_err(SettingsError::sealing(name))?;
        // Whoever put another value there meanwhile sealed it under the first key already.
        if settings::reseal(client, name, version, &sealed.to_string()).await? {
            rotated.push(setting.name);
        }
    }
    Ok(rotated)
}

/// The id of the master key that a setting is sealed under; `None`: it is plain.
pub fn master_key(setting: &StoredSetting) -> Result<Option<String>, SettingsError> {
    let StoredValue::Sealed(sealed) = &setting.value else { return Ok(None) };
    let sealed: Sealed = sealed.parse().map_err(SettingsError::sealing(&setting.name))?;
    Ok(Some(sealed.master_key))
}
