//! The settings table. The service's role has no part in it: use connections of the login's own.

use chrono::{DateTime, Utc};
use tokio_postgres::{GenericClient, Row};

use super::error::StoreError;

/// What is stored of a setting: its value, or its sealed value.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredValue {
    Plain(String),
    Sealed(String),
}

impl std::fmt::Debug for StoredValue {
    /// Which of them, without the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Sealed(_) => "Sealed",
        })
    }
}

/// A setting of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSetting {
    pub name: String,
    /// No two values ever had the same.
    pub version: i64,
    pub value: StoredValue,
    pub set_at: DateTime<Utc>,
}

const COLUMNS: &str = "name, version, value, sealed, set_at";

fn stored(row: &Row) -> Result<StoredSetting, StoreError> {
    let name: String = row.get(0);
    let value = match (row.get::<_, Option<String>>(2), row.get::<_, Option<String>>(3)) {
        (Some(value), None) => StoredValue::Plain(value),
        (None, Some(sealed)) => StoredValue::Sealed(sealed),
        _ => return Err(StoreError::Corrupt(format!("the setting {name} is neither plain nor sealed"))),
    };
    Ok(StoredSetting { name, version: row.get(1), value, set_at: row.get(4) })
}

/// All of them, by name.
pub async fn list(client: &impl GenericClient) -> Result<Vec<StoredSetting>, StoreError> {
    let statement = format!("/* list_settings */ select {COLUMNS} from settings order by name");
    client.query(&statement, &[]).await?.iter().map(stored).collect()
}

pub async fn get(client: &impl GenericClient, name: &str) -> Result<Option<StoredSetting>, StoreError> {
    let statement = format!("/* get_setting */ select {COLUMNS} from settings where name = $1");
    client.query_opt(&statement, &[&name]).await?.as_ref().map(stored).transpose()
}

/// A version for a value that is about to be put.
pub async fn next_version(client: &impl GenericClient) -> Result<i64, StoreError> {
    let row = client.query_one("/* next_setting_version */ select nextval('setting_versions')", &[]).await?;
    Ok(row.get(0))
}

/// Puts a value in place of whatever there was.
pub async fn put(client: &impl GenericClient, name: &str, version: i64, value: &StoredValue) -> Result<(), StoreError> {
    let (plain, sealed) = match value {
        StoredValue::Plain(value) => (Some(value), None),
        StoredValue::Sealed(sealed) => (None, Some(sealed)),
    };
    client
        .execute(
            "/* put_setting */ insert into settings (name, version, value, sealed) values ($1, $2, $3, $4)
             on conflict (name) do update set version = excluded.version, value = excluded.value,
                 sealed = excluded.sealed, set_at = excluded.set_at",
            &[&name, &version, &plain, &sealed],
        )
        .await?;
    Ok(())
}

/// Puts the same value, sealed anew, in its place; `false` if another value was put there meanwhile.
pub async fn reseal(client: &impl GenericClient, name: &str, version: i64, sealed: &str) -> Result<bool, StoreError> {
    let resealed = client
        .execute(
            "/* reseal_setting */ update settings set sealed = $3
             where name = $1 and version = $2 and sealed is not null",
            &[&name, &version, &sealed],
        )
        .await?;
    Ok(resealed == 1)
}

/// Takes a setting away; `false` if it was not there.
pub async fn remove(client: &impl GenericClient, name: &str) -> Result<bool, StoreError> {
    let removed = client.execute("/* remove_setting */ delete from settings where name = $1", &[&name]).await?;
    Ok(removed == 1)
}
