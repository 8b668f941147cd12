//! The hot path in its other shapes: many debits in a request, one account that everybody spends from, a caller who is
//! alone, two replicas; and what a debit costs in fsyncs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use subledger::store::connect::Database;

use super::load::{self, MakeRequest};
use super::report::median;
use super::subject::{self, Keys, Server, account_name, checked, scramble};
use super::{Bench, BenchError, IN_FLIGHT, settle, stop};

/// Debits in one request.
const TOGETHER: u64 = 50;
/// Such requests at a time: as many debits in flight as the queue of a lane takes.
const BATCHES: usize = 32;

#[derive(Default)]
struct Rates {
    yard: Vec<f64>,
    spread: Vec<f64>,
    together: Vec<f64>,
    one_account: Vec<f64>,
    lone_ms: Vec<f64>,
    lone_yard_ms: Vec<f64>,
    half_load_ms: Vec<f64>,
    half_load_yard_ms: Vec<f64>,
    two: Vec<f64>,
    syncs: Vec<f64>,
    syncs_yard: Vec<f64>,
}

impl Bench<'_> {
    pub async fn hot(&mut self) -> Result<(), BenchError> {
        let accounts = self.arguments.accounts;
        let (url, database, partitions) = self.fresh("hot", self.arguments.partitions).await?;
        let (service, lanes) = subject::start_lanes(&database, partitions, 2).await?;
        subject::open_accounts_under_catalog(&service, accounts).await?;
        stop(service, lanes).await;
        settle(&database).await?;
        let server = Server::start(&url, self.arguments.lanes).await?;
        let mut rates = Rates::default();
        for round in 0..self.arguments.rounds {
            self.one_replica(&server, &database, &mut rates).await?;
            eprintln!("  round {round}: {}", last(&rates));
        }
        let other = Server::start(&url, self.arguments.lanes).await?;
        let mut single = Vec::new();
        for round in 0..self.arguments.rounds {
            single.push(subject::debits_over_http(server.address, accounts, IN_FLIGHT, self.time).await?.rate);
            let halves = [&server, &other]
                .map(|server| subject::debits_over_http(server.address, accounts, IN_FLIGHT / 2, self.time));
            let [a, b] = halves;
            let (a, b) = tokio::try_join!(a, b)?;
            rates.two.push(a.rate + b.rate);
            eprintln!("  round {round}: one replica {:.0}/s, two {:.0}/s", single[round], rates.two[round]);
        }
        server.stop().await?;
        other.stop().await?;
        self.tell(&rates, &single);
        self.fold(&database).await
    }

    async fn one_replica(&self, server: &Server, database: &Database, rates: &mut Rates) -> Result<(), BenchError> {
        let (address, accounts) = (server.address, self.arguments.accounts);
        let (yard, syncs) = counted(database, self.yardstick()).await?;
        rates.yard.push(yard);
        rates.syncs_yard.push(syncs / (yard * self.time.as_secs_f64()));
        let debits = subject::debits_over_http(address, accounts, IN_FLIGHT, self.time);
        let (outcome, syncs) = counted(database, debits).await?;
        rates.spread.push(outcome.rate);
        rates.syncs.push(syncs / (outcome.rate * self.time.as_secs_f64()));
        rates.one_account.push(subject::debits_over_http(address, 1, IN_FLIGHT, self.time).await?.rate);
        rates.together.push(self.debits_together(server, database).await?);
        rates.lone_ms.push(subject::debits_over_http(address, accounts, 1, self.time).await?.p50_ms);
        let half = subject::debits_at_rate(address, accounts, outcome.rate / 2.0, self.time).await?;
        rates.half_load_ms.push(half.p99_ms);
        let half_yard = self.pgbench.p99_at_rate(self.best_clients, yard / 2.0, self.time).await?;
        rates.half_load_yard_ms.push(half_yard);
        eprintln!(
            "  at half load: p50 {:.2} ms, p99 {:.2} ms; of pgbench -N {half_yard:.2} ms",
            half.p50_ms, half.p99_ms
        );
        rates.lone_yard_ms.push(1_000.0 / self.pgbench.simple_update(1, self.time).await?);
        Ok(())
    }

    /// Debits each second, many in a request. Counted in the log: a batch is answered 200 whatever becomes of its rows.
    async fn debits_together(&self, server: &Server, database: &Database) -> Result<f64, BenchError> {
        let (run, accounts): (u64, _) = (rand::random(), self.arguments.accounts);
        let make: MakeRequest = Arc::new(move |n| {
            let row = |at: u64| {
                let account = account_name(scramble((n * TOGETHER + at) ^ run, accounts));
                json!({"account": account, "idempotency_key": Keys::Timed.make().to_string(), "amount": 1})
            };
            let body = json!({"debits": (0..TOGETHER).map(row).collect::<Vec<_>>()}).to_string();
            Some(load::request("POST", "/v1/debits/batch", "", body.as_bytes()))
        });
        let before = positions(database).await?;
        let started = Instant::now();
        checked(load::run(server.address, BATCHES, self.time, 200, make).await?)?;
        let elapsed = started.elapsed().as_secs_f64();
        Ok((positions(database).await? - before) as f64 / elapsed)
    }

    fn tell(&mut self, rates: &Rates, single: &[f64]) {
        let report = &mut self.report;
        let yard = median(&rates.yard);
        let together = format!("durable debits, {TOGETHER} in a request, {BATCHES} requests in flight");
        report.row(&together, median(&rates.together), "`pgbench -N`", yard, Some(6.0));
        let spread = median(&rates.spread);
        let name = format!("all debits on one account, {IN_FLIGHT} in flight");
        report.row(&name, median(&rates.one_account), "over many accounts", spread, Some(0.9));
        report.row(
            "two replicas on one database, accounts at random",
            median(&rates.two),
            "one replica",
            median(single),
            Some(0.85),
        );
        let lone_yard = median(&rates.lone_yard_ms);
        let lone = median(&rates.lone_ms);
        report.latency("p50 of a debit, one caller", lone, "`pgbench -N -c 1`", lone_yard, 1.3);
        let name = "p99 of debits at half of the full rate, open loop";
        report.latency(name, median(&rates.half_load_ms), "p50 of one caller", lone, 5.0);
        report.note(format!(
            "At half of its own full rate, in an open loop, too, `pgbench -N` has a p99 of {:.1} ms.",
            median(&rates.half_load_yard_ms)
        ));
        let (syncs, syncs_yard) = (median(&rates.syncs), median(&rates.syncs_yard));
        report.note(format!(
            "fsyncs of the log per debit, {IN_FLIGHT} in flight: {syncs:.4}; per transaction of `pgbench -N`: \
             {syncs_yard:.4} (ratio 1/{:.0}, target at most 1/50).",
            syncs_yard / syncs.max(f64::MIN_POSITIVE)
        ));
    }
}

fn last(rates: &Rates) -> String {
    let of = |rates: &[f64]| rates.last().copied().unwrap_or(0.0);
    format!(
        "debits {:.0}/s, on one account {:.0}/s, {TOGETHER} together {:.0}/s, alone {:.2} ms (pgbench {:.2} ms)",
        of(&rates.spread),
        of(&rates.one_account),
        of(&rates.together),
        of(&rates.lone_ms),
        of(&rates.lone_yard_ms)
    )
}

/// Does something, and counts how often the server's log was synced meanwhile.
async fn counted<T>(
    database: &Database,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<(T, f64), BenchError> {
    let before = syncs(database).await?;
    let done = work.await?;
    // Backends report what they did when they have been idle for a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    Ok((done, (syncs(database).await? - before) as f64))
}

async fn syncs(database: &Database) -> Result<i64, BenchError> {
    let client = database.connect_as_owner().await?;
    // Since 18 it is `pg_stat_io` that counts them.
    let counts = client
        .query_one(
            "select count(*) from pg_attribute where attrelid = 'pg_stat_wal'::regclass and attname = 'wal_sync'",
            &[],
        )
        .await?;
    let query = match counts.get::<_, i64>(0) {
        0 => "select sum(fsyncs)::bigint from pg_stat_io where object = 'wal'",
        _ => "select wal_sync from pg_stat_wal",
    };
    Ok(client.query_one(query, &[]).await?.get(0))
}

async fn positions(database: &Database) -> Result<i64, BenchError> {
    let client = database.connect_as_owner().await?;
    Ok(client.query_one("select sum(position)::bigint from heads", &[]).await?.get(0))
}
