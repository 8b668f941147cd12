//! Reading what a decision needs: heads, accounts, keys, links.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, ToStatement};

use super::append::{Batch, CUT_OFF, Digest};
use super::chain::Hash;
use super::error::StoreError;
use crate::domain::account::Account;
use crate::domain::billing::{Billing, Kind};
use crate::domain::credit::Credits;
use crate::domain::ids::AccountId;

/// A partition's last position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub position: i64,
    pub hash: Hash,
}

/// Reads the heads of some partitions.
///
/// Like [`billings`], and [`accounts`] with a prepared statement, it sends all it has to say when it is first polled: it does
/// not prepare a statement first. So whoever polls several of them in turn has them read in that order, and in one round
/// trip.
pub async fn heads(client: &impl GenericClient, partitions: &[i16]) -> Result<HashMap<i16, Head>, StoreError> {
    let rows = client
        .query_typed(
            "/* heads */ select partition_id, position, hash from heads where partition_id = any($1)",
            &[(&partitions, Type::INT2_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get(0), head(row, 1)?))).collect()
}

/// Locks the heads of some partitions until the transaction ends, in the order every writer locks them. The statement is
/// [`LOCK_HEADS`], or what was prepared from it.
pub async fn lock_heads<S: ToStatement + Sync + Send + ?Sized>(
    client: &impl GenericClient,
    statement: &S,
    partitions: &[i16],
) -> Result<HashMap<i16, Head>, StoreError> {
    let rows = client.query(statement, &[&partitions]).await?;
    rows.iter().map(|row| Ok((row.get(0), head(row, 1)?))).collect()
}

pub const LOCK_HEADS: &str = "/* lock_heads */ select partition_id, position, hash from heads
     where partition_id = any($1) order by partition_id for update";

fn head(row: &Row, at: usize) -> Result<Head, StoreError> {
    let hash: &[u8] = row.get(at + 1);
    let hash = hash.try_into().map_err(|_| StoreError::Corrupt("a head's hash is not 32 bytes".to_owned()))?;
    Ok(Head { position: row.get(at), hash })
}

/// Reads the hot part of accounts. Accounts that have no row are not in the answer. The statement is [`ACCOUNTS`], or what was
/// prepared from it.
pub async fn accounts<S: ToStatement + Sync + Send + ?Sized>(
    client: &impl GenericClient,
    statement: &S,
    ids: &[&str],
) -> Result<Vec<Account>, StoreError> {
    let rows = client.query(statement, &[&ids]).await?;
    rows.iter().map(account).collect()
}

pub const ACCOUNTS: &str =
    "/* accounts */ select account_id, version, position, state::text from balances where account_id = any($1)";

pub(super) fn account(row: &Row) -> Result<Account, StoreError> {
    let credits: Credits = serde_json::from_str(row.get(3))?;
    Ok(Account { id: account_id(row.get(0))?, version: row.get(1), position: row.get(2), credits, billing: None })
}

pub(super) fn account_id(id: &str) -> Result<AccountId, StoreError> {
    AccountId::new(id).map_err(|error| StoreError::Corrupt(format!("account {id}: {error}")))
}

/// Reads the Stripe objects of accounts.
pub async fn billings(client: &impl GenericClient, ids: &[&str]) -> Result<HashMap<AccountId, Billing>, StoreError> {
    let rows = client
        .query_typed(
            "/* billings */ select account_id, kind, object_id, state::text from billing_objects
             where account_id = any($1) and kind <> 'hold'",
            &[(&ids, Type::TEXT_ARRAY)],
        )
        .await?;
    let mut billings: HashMap<AccountId, Billing> = HashMap::new();
    for row in &rows {
        let kind: &str = row.get(1);
        let kind = Kind::parse(kind).ok_or_else(|| StoreError::Corrupt(format!("no kind is called {kind}")))?;
        let billing = billings.entry(account_id(row.get(0))?).or_default();
        insert_object(billing, kind, row.get(2), row.get(3))?;
    }
    Ok(billings)
}

/// Puts a stored object in its place.
pub fn insert_object(billing: &mut Billing, kind: Kind, id: String, state: &str) -> Result<(), StoreError> {
    macro_rules! into {
        ($family:ident) => {{
            billing.$family.insert(id, serde_json::from_str(state)?);
        }};
    }
    match kind {
        Kind::Customer => into!(customers),
        Kind::Subscription => into!(subscriptions),
        Kind::Invoice => into!(invoices),
        Kind::Payment => into!(payments),
        Kind::CheckoutSession => into!(checkout_sessions),
        Kind::CreditNote => into!(credit_notes),
        Kind::PaymentMethod => into!(payment_methods),
        Kind::SubscriptionSchedule => into!(subscription_schedules),
        Kind::UpcomingInvoice => into!(upcoming_invoices),
        Kind::ActiveEntitlements => into!(active_entitlements),
        Kind::CatalogObject => into!(catalog_objects),
        Kind::ClosedLot => into!(closed_lots),
        // Not a part of `Billing`, and not read with it.
        Kind::Hold => {}
        Kind::UsageDay => into!(usage_days),
    }
    Ok(())
}

/// A key that was used before.
#[derive(Debug, Clone)]
pub struct StoredKey {
    pub request: Digest,
    pub partition_id: i16,
    pub position: i64,
    /// JSON of the outcome, or of the event that says it.
    pub outcome: Option<String>,
    /// Payload of the event at `position`, when `outcome` is absent.
    pub event: Option<(String, i16, String)>,
}

/// Looks keys up.
pub async fn keys(client: &impl GenericClient, digests: &[Digest]) -> Result<HashMap<Digest, StoredKey>, StoreError> {
    let rows = client
        .query(
            "/* keys */ select i.key, i.request, i.partition_id, i.position, i.outcome::text,
                    e.type, e.type_version, e.payload::text
             from idempotency i
             left join events e
                 on i.outcome is null and e.partition_id = i.partition_id and e.position = i.position
             where i.key = any($1)",
            &[&digests],
        )
        .await?;
    let stored = rows.iter().map(|row| {
        let event_type: Option<String> = row.get(5);
        let event = event_type.map(|event_type| (event_type, row.get(6), row.get(7)));
        let stored = StoredKey {
            request: row.get(1),
            partition_id: row.get(2),
            position: row.get(3),
            outcome: row.get(4),
            event,
        };
        (row.get(0), stored)
    });
    Ok(stored.collect())
}

/// Where Stripe ids lead.
pub async fn links(
    client: &impl GenericClient,
    stripe_ids: &[String],
) -> Result<HashMap<String, AccountId>, StoreError> {
    let rows = client
        .query_typed(
            "/* links */ select stripe_id, account_id from stripe_links where stripe_id = any($1)",
            &[(&stripe_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get(0), account_id(row.get(1))?))).collect()
}

/// All Stripe ids that lead to an account.
pub async fn links_to(client: &impl GenericClient, account: &AccountId) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query(
            "/* links_to */ select stripe_id from stripe_links where account_id = $1 order by stripe_id",
            &[&account.as_str()],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Accounts known by an e-mail address.
pub async fn accounts_by_email(client: &impl GenericClient, email: &str) -> Result<Vec<AccountId>, StoreError> {
    let rows = client
        .query(
            "/* accounts_by_email */ select account_id from account_profiles
             where lower(email) = lower($1) order by account_id",
            &[&email],
        )
        .await?;
    rows.iter().map(|row| account_id(row.get(0))).collect()
}

/// Which partitions of a batch were not written, asked on a fresh connection after the batch's own broke.
///
/// Call it in a transaction: locking the heads waits for a commit that is still under way.
pub async fn not_committed(client: &impl GenericClient, batch: &Batch) -> Result<Vec<i16>, StoreError> {
    let ends = batch.ends();
    let partitions: Vec<i16> = ends.iter().map(|end| end.partition_id).collect();
    // The session that broke may hold the locks still; whoever asks tries again.
    client.batch_execute(&format!("/* not_committed */ set local lock_timeout = '2s'; {CUT_OFF}")).await?;
    lock_heads(client, LOCK_HEADS, &partitions).await?;
    let mut missing = Vec::new();
    for end in ends {
        let row = match (end.event, end.keys.as_slice()) {
            (Some((position, hash)), _) => {
                client
                    .query_one(
                        "/* not_committed */ select exists (
                             select from events where partition_id = $1 and position = $2 and hash = $3)",
                        &[&end.partition_id, &position, &hash],
                    )
                    .await?
            }
            (None, []) => continue,
            // A key may be there because somebody else used it. All of them are there, as they were to be, only if the
            // batch was committed, or if it makes no difference.
            (None, keys) => {
                let digests: Vec<Digest> = keys.iter().map(|key| key.digest).collect();
                let requests: Vec<Digest> = keys.iter().map(|key| key.request).collect();
                let positions: Vec<i64> = keys.iter().map(|key| key.position).collect();
                let outcomes: Vec<Option<&str>> = keys.iter().map(|key| key.outcome).collect();
                client
                    .query_one(
                        "/* not_committed */ select not exists (
                             select from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::text[])
                                 as k (key, request, position, outcome)
                             left join idempotency i on i.key = k.key and i.request = k.request
                                 and i.partition_id = $1 and i.position = k.position
                                 and i.outcome::text is not distinct from k.outcome
                             where i.key is null)",
                        &[&end.partition_id, &digests, &requests, &positions, &outcomes],
                    )
                    .await?
            }
        };
        if !row.get::<_, bool>(0) {
            missing.push(end.partition_id);
        }
    }
    Ok(missing)
}

/// Customers that completed a Checkout under an e-mail address which no account carried then: their streams still bear
/// their own ids.
pub async fn customers_waiting_for(client: &impl GenericClient, email: &str) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query(
            "/* customers_waiting_for */ select p.account_id from account_profiles p
             where lower(p.email) = lower($1) and p.account_id like 'cus\\_%' and exists (
                 select from billing_objects o where o.account_id = p.account_id and o.kind = 'checkout_session')
             order by p.account_id",
            &[&email],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
