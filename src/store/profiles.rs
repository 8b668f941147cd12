//! The erasable table: what names a person.

use chrono::{DateTime, Utc};
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
                 metadata = coalesce(excluded.metadata, account_profiles.metadata), erased_at = null,
                 updated_at = now()",
            &[&account.as_str(), &profile.email, &profile.metadata],
        )
        .await?;
    Ok(())
}

/// Keeps an address that Stripe told of, unless one is known already, or was erased.
pub async fn keep_email(client: &impl GenericClient, account: &AccountId, email: &str) -> Result<(), StoreError> {
    client
        .execute(
            "/* keep_email */ insert into account_profiles (account_id, email) values ($1, $2)
             on conflict (account_id) do update set email = excluded.email, updated_at = now()
             where account_profiles.email is null and account_profiles.erased_at is null",
            &[&account.as_str(), &email],
        )
        .await?;
    Ok(())
}

/// Forgets what is known, and remembers when. Answers whether anything was known.
pub async fn erase_profile(
    client: &impl GenericClient,
    account: &AccountId,
    erased_at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let known = get_profile(client, account).await? != Profile::default();
    client
        .execute(
            "/* erase_profile */ insert into account_profiles (account_id, erased_at) values ($1, $2)
             on conflict (account_id) do update
             set email = null, metadata = null, erased_at = excluded.erased_at, updated_at = now()",
            &[&account.as_str(), &erased_at],
        )
        .await?;
    Ok(known)
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

/// Hands a stream's profile to the account that takes it over, which keeps what it has of its own, and stays without one
/// if it was erased.
pub async fn move_profile(client: &impl GenericClient, from: &AccountId, into: &AccountId) -> Result<(), StoreError> {
    client
        .execute(
            "/* move_profile */ with moved as (
                 delete from account_profiles where account_id = $1 returning email, metadata, erased_at)
             insert into account_profiles (account_id, email, metadata, erased_at)
             select $2, email, metadata, erased_at from moved
             on conflict (account_id) do update
             set email = coalesce(account_profiles.email, excluded.email),
                 metadata = coalesce(account_profiles.metadata, excluded.metadata), updated_at = now()
             where account_profiles.erased_at is null",
            &[&from.as_str(), &into.as_str()],
        )
        .await?;
    Ok(())
}
