//! `subledger bench`: subjects and yardsticks in one run, alternating, medians, settings printed.

mod checks;
mod growth;
mod hot;
mod load;
mod memory;
mod report;
mod subject;
mod yardstick;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use subledger::app::service::{Lanes, Service};
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::startup::StartError;
use subledger::store::connect::Database;
use subledger::store::migrate;

use growth::MILLION;
use report::{Report, median};
use subject::Keys;
use yardstick::Pgbench;

/// Requests in flight, for the subjects that name a number.
const IN_FLIGHT: usize = 256;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Accounts that debits spread over
    #[arg(long, default_value_t = 100_000)]
    accounts: u64,
    /// Lanes of the service
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Partitions of the ledger
    #[arg(long, default_value_t = subledger::config::DEFAULT_PARTITIONS)]
    partitions: i16,
    /// Only these parts: lanes, http, hot, checks, growth, rebuild; and growth-10m, which runs only when it is named
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where to write the report; absent: only print it
    #[arg(long)]
    output: Option<PathBuf>,
    /// Folder of the benchmark's own Postgres
    #[arg(long, default_value = ".subledger-bench")]
    data_dir: PathBuf,
    /// Serve the bare handler (used by the benchmark itself)
    #[arg(long, hide = true)]
    bare_handler: Option<SocketAddr>,
}

/// Why a benchmark came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Embedded(#[from] subledger::embedded_postgres::EmbeddedPostgresError),
    #[error(transparent)]
    App(#[from] subledger::app::error::AppError),
    #[error(transparent)]
    Store(#[from] subledger::store::error::StoreError),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("a yardstick failed: {0}")]
    Yardstick(String),
    #[error("a subject failed: {0}")]
    Subject(String),
}

/// Runs the benchmarks.
pub async fn run(arguments: Arguments) -> Result<ExitCode, StartError> {
    if let Some(address) = arguments.bare_handler {
        let served = yardstick::serve_bare(address).await;
        return Ok(ExitCode::from(u8::from(served.is_err())));
    }
    match measure(&arguments).await {
        Ok(report) => {
            println!("\n{report}");
            if let Some(path) = &arguments.output
                && let Err(error) = std::fs::write(path, report.to_string())
            {
                eprintln!("subledger: {}: {error}", path.display());
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("subledger: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A Postgres for the benchmark, with a fresh database for each part.
struct Bench<'a> {
    arguments: &'a Arguments,
    postgres: EmbeddedPostgres,
    pgbench: Pgbench,
    time: Duration,
    report: Report,
    /// Clients with which `pgbench -N` is at its best here.
    best_clients: usize,
}

async fn measure(arguments: &Arguments) -> Result<Report, BenchError> {
    let postgres = EmbeddedPostgres::start(&arguments.data_dir, Durability::Durable).await?;
    let yard_url = fresh_database(&postgres, "yardstick").await?;
    let pgbench = Pgbench::prepare(yard_url).await?;
    let time = Duration::from_secs(arguments.seconds);
    let report = Report::new(&postgres.url(), arguments.seconds, arguments.rounds).await?;
    let mut bench = Bench { arguments, postgres, pgbench, time, report, best_clients: 32 };
    let wants = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    bench.find_best_clients().await?;
    let partitions = arguments.partitions;
    bench.report.note(format!(
        "Ledgers of {partitions} partitions (64 lanes: of 64); idempotency keys are UUIDs of version 7, unless a row says otherwise."
    ));
    if wants("lanes") {
        bench.lanes().await?;
    }
    if wants("http") {
        bench.http().await?;
    }
    if wants("hot") {
        bench.hot().await?;
    }
    if wants("checks") {
        bench.checks().await?;
    }
    if wants("growth") {
        bench.growth(MILLION, Keys::Timed).await?;
        bench.growth(MILLION, Keys::Random).await?;
    }
    if arguments.only.iter().any(|only| only == "growth-10m") {
        bench.growth(10 * MILLION, Keys::Timed).await?;
    }
    if wants("rebuild") {
        bench.rebuild().await?;
    }
    bench.postgres.stop().await?;
    Ok(bench.report)
}

/// Creates an empty database, in place of any of that name, and answers its address.
async fn fresh_database(postgres: &EmbeddedPostgres, name: &str) -> Result<String, BenchError> {
    let url = postgres.url();
    let client = Database::parse(&url)?.connect_as_owner().await?;
    client.batch_execute(&format!("drop database if exists bench_{name} with (force)")).await?;
    client.batch_execute(&format!("create database bench_{name}")).await?;
    let (server, _) = url.rsplit_once('/').unwrap_or((&url, ""));
    Ok(format!("{server}/bench_{name}"))
}

impl Bench<'_> {
    async fn fresh(&self, name: &str, partitions: i16) -> Result<(String, Database, i16), BenchError> {
        let url = fresh_database(&self.postgres, name).await?;
        let database = Database::parse(&url)?;
        let partitions = migrate::migrate(&database, partitions).await?;
        Ok((url, database, partitions))
    }

    async fn find_best_clients(&mut self) -> Result<(), BenchError> {
        let mut best = 0.0;
        let mut found = Vec::new();
        for clients in [8, 16, 32, 64] {
            let rate = self.pgbench.simple_update(clients, self.time).await?;
            found.push(format!("{clients} clients: {rate:.0}/s"));
            if rate > best {
                (best, self.best_clients) = (rate, clients);
            }
        }
        self.report.note(format!("`pgbench -N` by number of clients: {}.", found.join(", ")));
        Ok(())
    }

    async fn yardstick(&self) -> Result<f64, BenchError> {
        let rate = self.pgbench.simple_update(self.best_clients, self.time).await?;
        eprintln!("  pgbench -N: {rate:.0}/s");
        Ok(rate)
    }

    /// The write path alone, by number of lanes.
    async fn lanes(&mut self) -> Result<(), BenchError> {
        const LANES: [usize; 5] = [1, 2, 4, 8, 64];
        // A lane needs a partition to write to.
        let many = self.arguments.partitions.max(64);
        let (_, usual, partitions) = self.fresh("lanes", self.arguments.partitions).await?;
        let (_, divided, _) = self.fresh("lanes_many", many).await?;
        for (database, partitions) in [(&usual, partitions), (&divided, many)] {
            let (service, lanes) = subject::start_lanes(database, partitions, 2).await?;
            subject::open_accounts(&service, self.arguments.accounts).await?;
            stop(service, lanes).await;
            settle(database).await?;
        }
        let mut yard = Vec::new();
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); LANES.len()];
        for round in 0..self.arguments.rounds {
            for (at, count) in LANES.into_iter().enumerate() {
                yard.push(self.yardstick().await?);
                let is_usual = count <= usize::from(partitions.unsigned_abs());
                let (database, partitions) = if is_usual { (&usual, partitions) } else { (&divided, many) };
                let (service, lanes) = subject::start_lanes(database, partitions, count).await?;
                let accounts = self.arguments.accounts;
                let rate =
                    subject::debits_in_process(&service, accounts, Keys::Timed, IN_FLIGHT, self.time, u64::MAX).await?;
                stop(service, lanes).await;
                eprintln!("  round {round}: {count} lanes: {rate:.0}/s");
                rates[at].push(rate);
            }
        }
        for (at, count) in LANES.into_iter().enumerate() {
            let word = if count == 1 { "lane" } else { "lanes" };
            let subject = format!("`append_batch` alone, {count} {word}, {IN_FLIGHT} in flight");
            self.report.row(&subject, median(&rates[at]), "`pgbench -N`", median(&yard), None);
        }
        self.fold(&usual).await?;
        self.fold(&divided).await
    }

    /// Debits and webhooks over HTTP.
    async fn http(&mut self) -> Result<(), BenchError> {
        let (url, database, partitions) = self.fresh("http", self.arguments.partitions).await?;
        let (service, lanes) = subject::start_lanes(&database, partitions, 2).await?;
        subject::open_accounts_under_catalog(&service, self.arguments.accounts).await?;
        stop(service, lanes).await;
        settle(&database).await?;
        let server = subject::Server::start(&url, self.arguments.lanes).await?;
        let bare = subject::Server::start_bare().await?;
        let accounts = self.arguments.accounts;
        let (mut yard, mut debits, mut fresh, mut again, mut plain) = (vec![], vec![], vec![], vec![], vec![]);
        let (mut reads, mut p50, mut p99) = (vec![], vec![], vec![]);
        for round in 0..self.arguments.rounds {
            yard.push(self.yardstick().await?);
            let outcome = subject::debits_over_http(server.address, accounts, IN_FLIGHT, self.time).await?;
            eprintln!("  round {round}: debits {:.0}/s, p99 {:.1} ms", outcome.rate, outcome.p99_ms);
            debits.push(outcome.rate);
            p50.push(outcome.p50_ms);
            p99.push(outcome.p99_ms);
            yard.push(self.yardstick().await?);
            let count = 8_000 * self.arguments.seconds;
            let webhooks = subject::webhooks(rand::random(), accounts, count)?;
            let outcome = subject::deliver(server.address, &webhooks, IN_FLIGHT).await?;
            eprintln!("  round {round}: webhooks {:.0}/s, p99 {:.1} ms", outcome.rate, outcome.p99_ms);
            fresh.push(outcome.rate);
            let outcome = subject::deliver(server.address, &webhooks, IN_FLIGHT).await?;
            eprintln!("  round {round}: the same again {:.0}/s", outcome.rate);
            again.push(outcome.rate);
            plain.push(subject::bare_requests(bare.address, IN_FLIGHT, self.time).await?.rate);
            reads.push(self.pgbench.select_only(self.best_clients, self.time).await?);
        }
        server.stop().await?;
        drop(bare);
        let report = &mut self.report;
        let yard = median(&yard);
        subject::check_applied(&database).await?;
        let name = format!("durable debits over HTTP, {IN_FLIGHT} in flight");
        report.row(&name, median(&debits), "`pgbench -N`", yard, Some(2.5));
        report.row("signed 3 KB webhooks applied over HTTP", median(&fresh), "`pgbench -N`", yard, Some(1.0));
        report.row("the same webhooks again", median(&again), "the webhooks when fresh", median(&fresh), Some(2.0));
        let (p50, p99) = (median(&p50), median(&p99));
        report.note(format!("Debits at full load: p50 {p50:.1} ms, p99 {p99:.1} ms (medians over rounds)."));
        let (plain, reads) = (median(&plain), median(&reads));
        report.note(format!("For comparison: a bare actix JSON handler {plain:.0}/s, `pgbench -S` {reads:.0}/s."));
        self.fold(&database).await
    }

    /// The log, folded, must give the balances.
    async fn fold(&mut self, database: &Database) -> Result<(), BenchError> {
        let client = database.connect_as_owner().await?;
        let row = client
            .query_one(
                "with spent as (
                     select account_id, sum((payload ->> 'amount')::bigint) as spent
                     from events where type = 'credits_debited' group by 1),
                 granted as (
                     select account_id, sum((payload #>> '{lot,granted}')::bigint) as granted
                     from events where type = 'credits_granted' group by 1)
                 select count(*) filter (where b.available <> granted - coalesce(spent, 0)), count(*)
                 from balances b join granted using (account_id) left join spent using (account_id)",
                &[],
            )
            .await?;
        let (wrong, all): (i64, i64) = (row.get(0), row.get(1));
        if wrong != 0 {
            return Err(BenchError::Subject(format!("{wrong} of {all} balances differ from the fold of the log")));
        }
        self.report.note(format!("After the run the log was folded: all {all} balances agree."));
        Ok(())
    }
}

async fn stop(service: Arc<Service>, lanes: Lanes) {
    service.stop();
    lanes.finish().await;
}

/// Has what filling a ledger left behind done now, not while something is measured.
async fn settle(database: &Database) -> Result<(), BenchError> {
    let client = database.connect_as_owner().await?;
    client.batch_execute("vacuum analyze").await?;
    client.batch_execute("checkpoint").await?;
    Ok(())
}
