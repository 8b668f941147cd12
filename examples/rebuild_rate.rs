//! How fast the log is verified and rebuilt from, beside how fast Postgres hands it out at all.
//!
//! `cargo run --release --example rebuild_rate [debits] [accounts]`, against `DATABASE_URL` (an empty database) or a
//! server of its own. The yardstick is `COPY events TO STDOUT (FORMAT binary)` into nowhere. Measured alternately.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, pin_mut, stream};
use subledger::app::outbound::OutboundSettings;
use subledger::app::service::{Service, ServiceSettings, StripeSettings};
use subledger::app::upkeep::rebuild::rebuild;
use subledger::app::upkeep::verify::{VerifyOptions, verify};
use subledger::clock::SystemClock;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant};
use subledger::domain::credit::LotSource;
use subledger::domain::ids::AccountId;
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::store::connect::Database;
use subledger::store::migrate::migrate;
use uuid::Uuid;

const ROUNDS: usize = 3;
const PARTITIONS: i16 = 64;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let debits = arguments.next().transpose()?.unwrap_or(300_000);
    let accounts = arguments.next().transpose()?.unwrap_or(10_000);
    let folder = std::env::temp_dir().join(format!("subledger-rate-{}", std::process::id()));
    let (postgres, url) = match std::env::var("DATABASE_URL") {
        Ok(url) => (None, url),
        Err(_) => {
            let postgres = EmbeddedPostgres::start(&folder, Durability::Durable).await?;
            let url = postgres.url();
            (Some(postgres), url)
        }
    };
    let database = Database::parse(&url)?;
    fill(&database, debits, accounts).await?;

    let (mut copies, mut rebuilds, mut verifications) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let (events, bytes, seconds) = copy(&database).await?;
        let copied = events as f64 / seconds;
        let rebuilt = rebuild(&database, Arc::new(|_, _| {})).await?;
        let rebuild_rate = rebuilt.events as f64 / rebuilt.seconds;
        let report = verify(&database, &VerifyOptions::default()).await?;
        let verify_rate = report.events as f64 / report.seconds;
        println!(
            "round {round}: {events} events, {} MB; COPY {copied:.0}/s, rebuild {rebuild_rate:.0}/s ({:.2} s, of it \
             folding {:.2} s; writers waited {} ms, readers {} ms), verify {verify_rate:.0}/s ({})",
            bytes / 1_000_000,
            rebuilt.seconds,
            rebuilt.fold_seconds,
            rebuilt.writers_waited_ms,
            rebuilt.readers_waited_ms,
            if report.is_clean() { "clean" } else { "NOT CLEAN" },
        );
        copies.push(copied);
        rebuilds.push(rebuild_rate);
        verifications.push(verify_rate);
    }
    let (copy, rebuild, verify) = (median(copies), median(rebuilds), median(verifications));
    println!(
        "median: COPY {copy:.0}/s, rebuild {rebuild:.0}/s ({:.0} % of it), verify {verify:.0}/s ({:.0} %)",
        100.0 * rebuild / copy,
        100.0 * verify / copy
    );
    if let Some(postgres) = postgres {
        postgres.stop().await?;
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(())
}

/// Opens accounts and debits them, through the lanes: the log is as a service leaves it.
async fn fill(database: &Database, debits: usize, accounts: usize) -> Result<(), Box<dyn Error>> {
    let partitions = migrate(database, PARTITIONS).await?;
    let settings = ServiceSettings {
        database: database.clone(),
        partitions,
        clock: Arc::new(SystemClock),
        lanes: 2,
        pool_size: 4,
        queue_length: 10_000,
        cached_accounts: 4 * accounts,
        cache_bytes: 256 << 20,
        staleness: std::time::Duration::from_millis(250),
        stripe: StripeSettings::default(),
        outbound: OutboundSettings::default(),
    };
    let (service, lanes) = Service::start(settings).await?;
    let started = Instant::now();
    let opened = stream::iter(0..accounts).map(|n| open(&service, n)).buffer_unordered(1_000);
    pin_mut!(opened);
    while let Some(done) = opened.next().await {
        done?;
    }
    let debited = stream::iter(0..debits).map(|n| debit(&service, n % accounts)).buffer_unordered(1_000);
    pin_mut!(debited);
    while let Some(done) = debited.next().await {
        done?;
    }
    println!("{debits} debits of {accounts} accounts appended in {:.1} s", started.elapsed().as_secs_f64());
    service.stop();
    lanes.finish().await;
    Ok(())
}

fn name(n: usize) -> Result<AccountId, Box<dyn Error>> {
    Ok(AccountId::new(&format!("user_{n:08}"))?)
}

async fn open(service: &Service, n: usize) -> Result<(), Box<dyn Error>> {
    service.execute(name(n)?, Command::Open { stripe_customer_id: None }, None).await?;
    let grant = Grant {
        grant: Uuid::new_v4(),
        amount: 1_000_000,
        source: LotSource::Manual,
        priority: 5,
        effective_at: None,
        expires_at: None,
        reason: None,
    };
    service.execute(name(n)?, Command::Grant(grant), None).await?;
    Ok(())
}

async fn debit(service: &Service, n: usize) -> Result<(), Box<dyn Error>> {
    let debit = Command::Debit { debit: Uuid::new_v4(), charge: Charge::Amount(1 + n as i64 % 5) };
    service.execute(name(n)?, debit, None).await?.result?;
    Ok(())
}

/// Reads the whole log as Postgres hands it out. Answers events, bytes and seconds.
async fn copy(database: &Database) -> Result<(u64, usize, f64), Box<dyn Error>> {
    let client = database.connect_as_owner().await?;
    let events: i64 = client.query_one("select count(*) from events", &[]).await?.get(0);
    let started = Instant::now();
    let rows = client.copy_out("copy events to stdout (format binary)").await?;
    pin_mut!(rows);
    let mut bytes = 0;
    while let Some(row) = rows.next().await {
        bytes += row?.len();
    }
    Ok((events.unsigned_abs(), bytes, started.elapsed().as_secs_f64()))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
