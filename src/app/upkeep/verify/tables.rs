//! Read-model rows against the accounts they derive from.

use std::collections::HashMap;

use chrono::DateTime;
use tokio_postgres::Client;

use super::report::{Difference, Findings};
use crate::app::fold::{Fold, Folded};
use crate::projection::{self, ObjectRow};
use crate::store::error::StoreError;
use crate::store::rows::{self, StoredBalance, StoredLink, StoredObject};

/// Accounts whose rows are read at once.
const CHUNK: usize = 1_000;

/// How many rows the log gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub accounts: u64,
    pub billing_objects: u64,
    pub stripe_links: u64,
}

/// Compares all rows of some accounts.
pub async fn compare(
    client: &Client,
    fold: Fold,
    counts: &mut Counts,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut accounts: Vec<Folded> = fold.into_accounts().collect();
    accounts.sort_unstable_by(|a, b| a.account.id.cmp(&b.account.id));
    for chunk in accounts.chunks(CHUNK) {
        let ids: Vec<&str> = chunk.iter().map(|folded| folded.account.id.as_str()).collect();
        let (balances, objects, links) =
            tokio::try_join!(rows::balances(client, &ids), rows::objects(client, &ids), rows::links_to(client, &ids))?;
        let mut balances: HashMap<String, StoredBalance> =
            balances.into_iter().map(|row| (row.account_id.clone(), row)).collect();
        let mut objects = by_account(objects, |row| row.account_id.clone());
        let mut links = by_account(links, |row| row.account_id.clone());
        for folded in chunk {
            let id = folded.account.id.as_str();
            counts.accounts += 1;
            compare_balance(folded, balances.remove(id), findings)?;
            counts.billing_objects += compare_objects(folded, objects.remove(id).unwrap_or_default(), findings)?;
            let links = links.remove(id).unwrap_or_default();
            counts.stripe_links += compare_links(client, folded, links, findings).await?;
        }
    }
    Ok(())
}

/// Rows of accounts that the log does not know.
pub async fn find_strays(client: &Client, findings: &mut Findings) -> Result<(), StoreError> {
    let limit = i64::try_from(findings.limit()).unwrap_or(i64::MAX);
    for table in ["balances", "billing_objects", "stripe_links"] {
        let (count, listed) = rows::strays(client, table, limit).await?;
        let more = count.saturating_sub(i64::try_from(listed.len()).unwrap_or(i64::MAX));
        for (account_id, key) in listed {
            findings.push(Difference::new(table, "row", "absent", "present").of_account(&account_id).keyed(&key));
        }
        findings.count_more(more.try_into().unwrap_or(0));
    }
    Ok(())
}

fn by_account<T>(rows: Vec<T>, account_of: impl Fn(&T) -> String) -> HashMap<String, Vec<T>> {
    let mut by_account: HashMap<String, Vec<T>> = HashMap::new();
    for row in rows {
        by_account.entry(account_of(&row)).or_default().push(row);
    }
    by_account
}

fn compare_balance(folded: &Folded, stored: Option<StoredBalance>, findings: &mut Findings) -> Result<(), StoreError> {
    let expected = projection::balance_row(&folded.account, folded.last_at)?;
    let found = |what, expected: &dyn ToString, found: &dyn ToString| {
        Difference::new("balances", what, expected.to_string(), found.to_string())
            .of_account(folded.account.id.as_str())
    };
    let Some(stored) = stored else {
        findings.push(found("row", &expected.state, &"absent"));
        return Ok(());
    };
    if stored.partition_id != folded.partition_id {
        findings.push(found("partition_id", &folded.partition_id, &stored.partition_id));
    }
    if stored.version != expected.version {
        findings.push(found("version", &expected.version, &stored.version));
    }
    if stored.position != expected.position {
        findings.push(found("position", &expected.position, &stored.position));
    }
    if stored.available != expected.available {
        findings.push(found("available", &expected.available, &stored.available));
    }
    if stored.state != expected.state {
        findings.push(found("state", &expected.state, &stored.state));
    }
    Ok(())
}

fn compare_objects(folded: &Folded, stored: Vec<StoredObject>, findings: &mut Findings) -> Result<u64, StoreError> {
    let expected = projection::all_object_rows(&folded.account, &folded.changes)?;
    let count = expected.len() as u64;
    let mut stored: HashMap<String, StoredObject> =
        stored.into_iter().map(|row| (format!("{} {}", row.kind, row.object_id), row)).collect();
    for row in expected {
        let key = format!("{} {}", row.kind, row.object_id);
        let found = |what, expected: &dyn ToString, found: &dyn ToString| {
            let difference = Difference::new("billing_objects", what, expected.to_string(), found.to_string());
            difference.of_account(&row.account_id).keyed(&key)
        };
        let state = row.state.as_deref().unwrap_or_default();
        let Some(stored) = stored.remove(&key) else {
            findings.push(found("row", &state, &"absent"));
            continue;
        };
        if stored.partition_id != folded.partition_id {
            findings.push(found("partition_id", &folded.partition_id, &stored.partition_id));
        }
        if stored.sort_at != sort_at(&row) {
            findings.push(found("sort_at", &sort_at(&row), &stored.sort_at));
        }
        if stored.state != state {
            findings.push(found("state", &state, &stored.state));
        }
    }
    for (key, row) in stored {
        let difference = Difference::new("billing_objects", "row", "absent", row.state);
        findings.push(difference.of_account(&row.account_id).keyed(&key));
    }
    Ok(count)
}

/// As the column keeps it.
fn sort_at(row: &ObjectRow) -> i64 {
    DateTime::from_timestamp(row.sort_at, 0).unwrap_or_default().timestamp()
}

async fn compare_links(
    client: &Client,
    folded: &Folded,
    stored: Vec<StoredLink>,
    findings: &mut Findings,
) -> Result<u64, StoreError> {
    let id = folded.account.id.as_str();
    let mut stored: HashMap<String, StoredLink> = stored.into_iter().map(|row| (row.stripe_id.clone(), row)).collect();
    let mut count = 0;
    for (link, _) in folded.standing_links() {
        count += 1;
        let found = |what, expected: &dyn ToString, found: &dyn ToString| {
            Difference::new("stripe_links", what, expected.to_string(), found.to_string()).of_account(id).keyed(link)
        };
        match stored.remove(link) {
            None => {
                let elsewhere = rows::link(client, link).await?;
                findings.push(found("account_id", &id, &elsewhere.as_deref().unwrap_or("absent")));
            }
            Some(row) if row.partition_id != folded.partition_id => {
                findings.push(found("partition_id", &folded.partition_id, &row.partition_id));
            }
            Some(_) => {}
        }
    }
    for link in stored.into_keys() {
        findings.push(Difference::new("stripe_links", "row", "absent", id).of_account(id).keyed(&link));
    }
    Ok(count)
}
