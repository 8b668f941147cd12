//! What accounts take in memory: a million of them, each with the credits of one that is in the database.

use std::sync::Arc;

use subledger::app::read_path::balance_cache::{Balance, BalanceCache};
use subledger::store::connect::Database;
use subledger::store::load;
use subledger::store::partition::partition_of;

use super::growth::MILLION;
use super::subject::{account, account_name};
use super::{Bench, BenchError};

/// What a million accounts may take, and the bound that the cache is given.
const TARGET_BYTES: u64 = 1 << 30;
/// Accounts that are read at a time.
const READ_AT_ONCE: u64 = 1_000;

impl Bench<'_> {
    pub async fn memory(&mut self, database: &Database, partitions: i16) -> Result<(), BenchError> {
        let accounts = self.arguments.accounts.min(MILLION);
        let client = database.connect_as_owner().await?;
        let cache = BalanceCache::new(TARGET_BYTES as usize, partitions);
        let before = resident_bytes()?;
        for first in (0..accounts).step_by(READ_AT_ONCE as usize) {
            let names: Vec<String> = (first..accounts.min(first + READ_AT_ONCE)).map(account_name).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for (at, read) in (first..).zip(load::accounts(&client, load::ACCOUNTS, &names).await?) {
                for copy in (at..MILLION).step_by(accounts as usize) {
                    let ids = [account(copy)];
                    let partition_id = partition_of(ids[0].as_str(), partitions);
                    let balance = Balance::new(&ids[0], read.version, &read.credits, partition_id, read.position);
                    cache.begin_load(&ids).keep(&ids[0], &Arc::new(balance));
                }
            }
        }
        let (held, counted) = (cache.accounts(), cache.bytes());
        let taken = resident_bytes()?.saturating_sub(before);
        drop(cache);
        let verdict = match held as u64 == MILLION && taken < TARGET_BYTES {
            true => "met",
            false => "**missed**",
        };
        let (each, megabytes) = (taken as f64 / held.max(1) as f64, |bytes: u64| bytes as f64 / 1e6);
        eprintln!("  {held} accounts in memory take {each:.0} bytes each");
        self.report.note(format!(
            "A million accounts for checks, put into a cache of 1,074 MB: {held} are held, and the process grew by {:.0} MB \
             (target: a million below 1,074 MB: {verdict}), {each:.0} bytes an account; the cache counts {:.0} MB.",
            megabytes(taken),
            megabytes(counted)
        ));
        Ok(())
    }
}

/// Memory that this process holds, as the system counts it.
fn resident_bytes() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.map(|kib| kib * 1_024).ok_or_else(|| BenchError::Subject("the system does not say".to_owned()))
}
