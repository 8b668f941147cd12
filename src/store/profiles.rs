//! The erasable table: what names a person.

use serde_json::Value;
use tokio_postgres::GenericClient;

use super::error::StoreError;
use crate::domain::ids::AccountId;

/// What is known of the person or company behind an account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    pub email: Option<String>,
    pub metadata: Option<Value>,
}

/// Writes what is given, keeps what is not.
pub async fn put_profile(
    client: &impl GenericClient,
    account: &AccountId,
    profile: &Profile,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* put_profile */ insert into account_profiles (account_id, email, metadata) values ($1, $2, $3)
             on conflict (account_id) do update
             set email = coalesce(excluded.email, account_profiles.email),
                 metadata = coalesce(excluded.metadata, account_profiles.metadata), updated_at = now()",
            &[&account.as_str(), &profile.email, &profile.metadata],
        )
        .await?;
    Ok(())
}

pub async fn get_profile(client: &impl GenericClient, account: &AccountId) -> Result<Profile, StoreError> {
    let row = client
        .query_opt(
            "/* get_profile */ select email, metadata from account_profiles where account_id = $1",
            &[&account.as_str()],
        )
        .await?;
    Ok(row.map(|row| Profile { email: row.get(0), metadata: row.get(1) }).unwrap_or_default())
}

/// Hands a stream's profile to the account that takes it over, which keeps what it has of its own.
pub async fn move_profile(client: &impl GenericClient, from: &AccountId, into: &AccountId) -> Result<(), StoreError> {
    client
        .execute(
            "/* move_profile */ with moved as (
                 delete from account_profiles where account_id = $1 returning email, metadata)
             insert into account_profiles (account_id, email, metadata) select $2, email, metadata from moved
             on conflict (account_id) do update
             set email = coalesce(account_profiles.email, excluded.email),
                 metadata = coalesce(account_profiles.metadata, excluded.metadata), updated_at = now()",
            &[&from.as_str(), &into.as_str()],
        )
        .await?;
    Ok(())
}
