//! API keys: 256 random bits, stored as digests, shown once.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_postgres::GenericClient;

use super::error::StoreError;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask.
    Read,
    /// Ask and debit.
    Spend,
    /// Ask, open accounts, grant, sell.
    Bill,
    /// Everything.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 4] = [Scope::Read, Scope::Spend, Scope::Bill, Scope::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Spend => "spend",
            Self::Bill => "bill",
            Self::Admin => "admin",
        }
    }

    pub fn parse(scope: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == scope)
    }

    /// Whether a key of this scope may do what needs `need`.
    pub fn covers(self, need: Scope) -> bool {
        self == Self::Admin || self == need || need == Self::Read
    }
}

/// A key as listed; the key itself is known to its holder alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApiKey {
    pub key_id: String,
    pub scope: String,
    pub name: Option<String>,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What is stored of a key.
pub fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.trim().as_bytes()).into()
}

/// Makes a key and stores its digest. Answers its id and the key, which cannot be shown again.
pub async fn create(
    client: &impl GenericClient,
    scope: Scope,
    name: Option<&str>,
) -> Result<(String, String), StoreError> {
    let secret: [u8; 32] = rand::random();
    let id: [u8; 6] = rand::random();
    let key_id = format!("key_{}", hex::encode(id));
    let key = format!("subledger_{}_{}", scope.as_str(), hex::encode(secret));
    client
        .execute(
            "/* create_key */ insert into api_keys (key_id, digest, scope, name) values ($1, $2, $3, $4)",
            &[&key_id, &digest(&key).as_slice(), &scope.as_str(), &name],
        )
        .await?;
    Ok((key_id, key))
}

pub async fn list(client: &impl GenericClient) -> Result<Vec<ApiKey>, StoreError> {
    let rows = client
        .query(
            "/* list_keys */ select key_id, scope, name, created_at, revoked_at from api_keys order by created_at, key_id",
            &[],
        )
        .await?;
    let keys = rows.iter().map(|row| ApiKey {
        key_id: row.get(0),
        scope: row.get(1),
        name: row.get(2),
        created_at: row.get(3),
        revoked_at: row.get(4),
    });
    Ok(keys.collect())
}

/// Revokes a key; `false` if there is none, or it was revoked before.
pub async fn revoke(client: &impl GenericClient, key_id: &str) -> Result<bool, StoreError> {
    let revoked = client
        .execute(
            "/* revoke_key */ update api_keys set revoked_at = now() where key_id = $1 and revoked_at is null",
            &[&key_id],
        )
        .await?;
    Ok(revoked == 1)
}

/// The scope of a live key.
pub async fn scope_of(client: &impl GenericClient, digest: &[u8; 32]) -> Result<Option<Scope>, StoreError> {
    let row = client
        .query_opt(
            "/* scope_of_key */ select scope from api_keys where digest = $1 and revoked_at is null",
            &[&digest.as_slice()],
        )
        .await?;
    Ok(row.and_then(|row| Scope::parse(row.get(0))))
}

/// Whether any live key exists.
pub async fn any(client: &impl GenericClient) -> Result<bool, StoreError> {
    let row =
        client.query_one("/* any_key */ select exists (select from api_keys where revoked_at is null)", &[]).await?;
    Ok(row.get(0))
}
