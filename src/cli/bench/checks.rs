//! Checks: their rate beside a handler that does nothing, their latency while others write, and how old what they show is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use super::load::{self, MakeRequest, Outcome};
use super::report::median;
use super::subject::{self, Keys, Server, account_name, checked, scramble};
use super::{Bench, BenchError, IN_FLIGHT, settle, stop};

const FEATURE: &str = "image_generation";
/// Callers whose latency is measured: few, so that they do not wait for each other.
const PROBES: usize = 4;
/// Accounts in one request that warms them.
const WARMED_AT_ONCE: u64 = 1_000;
/// The bound that the service is set to, unless told otherwise.
const BOUND: Duration = Duration::from_millis(250);
/// Accounts that are watched while they change.
const WATCHED: u64 = 64;

impl Bench<'_> {
    pub async fn checks(&mut self) -> Result<(), BenchError> {
        let accounts = self.arguments.accounts;
        let (url, database, partitions) = self.fresh("checks", self.arguments.partitions).await?;
        let (service, lanes) = subject::start_lanes(&database, partitions, 2).await?;
        subject::open_accounts_under_catalog(&service, accounts).await?;
        subject::debit_each(&service, accounts, Keys::Timed).await?;
        stop(service, lanes).await;
        settle(&database).await?;
        let server = Server::start(&url, self.arguments.lanes).await?;
        let other = Server::start(&url, self.arguments.lanes).await?;
        let bare = Server::start_bare().await?;
        warm(server.address, accounts).await?;
        self.rates(&server, &bare, accounts).await?;
        self.latency(&server, accounts).await?;
        self.staleness(&server, &other, accounts).await?;
        server.stop().await?;
        other.stop().await?;
        drop(bare);
        self.memory(&database, partitions).await?;
        self.fold(&database).await
    }

    async fn rates(&mut self, server: &Server, bare: &Server, accounts: u64) -> Result<(), BenchError> {
        let (mut checks, mut plain, mut reads) = (vec![], vec![], vec![]);
        for round in 0..self.arguments.rounds {
            let outcome = run_checks(server.address, accounts, IN_FLIGHT, self.time).await?;
            checks.push(outcome.rate);
            // The same requests: what it costs to make and to read them is the same for both.
            plain.push(run_checks(bare.address, accounts, IN_FLIGHT, self.time).await?.rate);
            reads.push(self.pgbench.select_only(self.best_clients, self.time).await?);
            let (check, plain, read) = (checks[round], plain[round], reads[round]);
            eprintln!("  round {round}: checks {check:.0}/s, bare {plain:.0}/s, pgbench -S {read:.0}/s");
        }
        let checks = median(&checks);
        let subject = format!("checks over HTTP, {IN_FLIGHT} in flight");
        self.report.row(&subject, checks, "a bare actix JSON handler", median(&plain), Some(0.85));
        self.report.row(&subject, checks, "`pgbench -S -M prepared`", median(&reads), Some(1.0));
        Ok(())
    }

    /// Whether checks are quick while as many debits as possible are written.
    async fn latency(&mut self, server: &Server, accounts: u64) -> Result<(), BenchError> {
        let (mut idle, mut loaded) = (vec![], vec![]);
        for round in 0..self.arguments.rounds {
            let quiet = probe(server.address, accounts, self.time).await?;
            let debits = subject::debits_over_http(server.address, accounts, IN_FLIGHT, self.time);
            let (debits, busy) = tokio::join!(debits, probe(server.address, accounts, self.time));
            let (debits, busy) = (debits?, busy?);
            eprintln!(
                "  round {round}: check p99 {:.2} ms idle, {:.2} ms beside {:.0} debits/s",
                quiet.p99_ms, busy.p99_ms, debits.rate
            );
            idle.push(quiet.p99_ms);
            loaded.push(busy.p99_ms);
        }
        let subject = format!("p99 of checks beside debits at full load, {PROBES} callers");
        self.report.latency(&subject, median(&loaded), "p99 without any", median(&idle), 5.0);
        Ok(())
    }

    /// Somebody writes through one replica and somebody else, who knows only when those writes were answered, asks another.
    async fn staleness(&mut self, writes: &Server, reads: &Server, accounts: u64) -> Result<(), BenchError> {
        warm(reads.address, accounts.min(WATCHED)).await?;
        let known = Arc::new(Mutex::new(HashMap::<u64, Vec<(Instant, i64)>>::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for first in 0..4 {
            let (address, known, is_over) = (writes.address, Arc::clone(&known), Arc::clone(&is_over));
            writers.push(tokio::spawn(async move {
                let client = Client::new();
                for n in (0u64..).map(|n| (n * 4 + first) % WATCHED.min(accounts)) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let available = debit(&client, address, n).await?;
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    known.entry(n).or_default().push((Instant::now(), available));
                }
                Ok::<_, BenchError>(())
            }));
        }
        let observed = observe(reads.address, accounts.min(WATCHED), &known, self.time * 2).await;
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.map_err(std::io::Error::other)??;
        }
        let Observed { answers, older, oldest, violations, claims } = observed?;
        self.report.note(format!(
            "Staleness, seen by an observer of one replica while {} debits went through another: of {answers} answers \
             {older} lacked a debit that had been answered, the oldest of them for {:.0} ms; {violations} lacked one \
             answered more than {} ms before, and {claims} were older than they said.",
            known.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum::<usize>(),
            oldest.as_secs_f64() * 1e3,
            BOUND.as_millis()
        ));
        if violations + claims > 0 {
            return Err(BenchError::Subject(format!("{} answers were staler than promised", violations + claims)));
        }
        Ok(())
    }
}

fn check_path(n: u64) -> String {
    format!("/v1/accounts/{}/entitlements/{FEATURE}", account_name(n))
}

/// Checks of accounts all over, over HTTP.
async fn run_checks(
    address: SocketAddr,
    accounts: u64,
    in_flight: usize,
    time: Duration,
) -> Result<Outcome, BenchError> {
    let made: Vec<Vec<u8>> = (0..accounts).map(|n| load::request("GET", &check_path(n), "", b"")).collect();
    let run: u64 = rand::random();
    let make: MakeRequest = Arc::new(move |n| made.get(scramble(n ^ run, accounts) as usize).cloned());
    checked(load::run(address, in_flight, time, 200, make).await?)
}

/// The latency of checks as a few callers see it, who have a thread of their own: else they would wait for the load
/// generator.
async fn probe(address: SocketAddr, accounts: u64, time: Duration) -> Result<Outcome, BenchError> {
    let probing = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run_checks(address, accounts, PROBES, time))
    });
    probing.await.map_err(std::io::Error::other)?
}

/// Has accounts taken into memory.
/// Has the service take all accounts into memory.
async fn warm(address: SocketAddr, accounts: u64) -> Result<(), BenchError> {
    let client = Client::new();
    // Twice: what is read while the service starts is not kept.
    for first in (0..2).flat_map(|_| (0..accounts).step_by(WARMED_AT_ONCE as usize)) {
        let names = (first..accounts.min(first + WARMED_AT_ONCE)).map(account_name);
        let checks: Vec<Value> =
            names.map(|account| serde_json::json!({"account": account, "feature": FEATURE})).collect();
        let body = serde_json::json!({"checks": checks});
        let answer = client.post(format!("http://{address}/v1/entitlements/check")).json(&body).send().await;
        if !answer.is_ok_and(|answer| answer.status().is_success()) {
            return Err(BenchError::Subject("accounts could not be warmed".to_owned()));
        }
    }
    let held = metric(address, "subledger_cached_accounts").await?;
    if held < accounts as f64 {
        return Err(BenchError::Subject(format!("only {held} of {accounts} accounts are in memory")));
    }
    Ok(())
}

async fn json(request: reqwest::RequestBuilder) -> Result<Value, BenchError> {
    let failed = |error: reqwest::Error| BenchError::Subject(error.to_string());
    request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?.json().await.map_err(failed)
}

async fn metric(address: SocketAddr, name: &str) -> Result<f64, BenchError> {
    let failed = |error: reqwest::Error| BenchError::Subject(error.to_string());
    let text = reqwest::get(format!("http://{address}/metrics")).await.map_err(failed)?.text().await.map_err(failed)?;
    let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(known, _)| *known == name);
    Ok(value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0))
}

/// Debits an account. Answers what is left.
async fn debit(client: &Client, address: SocketAddr, n: u64) -> Result<i64, BenchError> {
    let url = format!("http://{address}/v1/accounts/{}/credits/debits", account_name(n));
    let key = uuid::Uuid::now_v7().to_string();
    let request = client.post(url).header("idempotency-key", key).json(&serde_json::json!({"amount": 1}));
    let answer = json(request).await?;
    answer["available"].as_i64().ok_or_else(|| BenchError::Subject("a debit that does not say what is left".to_owned()))
}

#[derive(Debug, Default)]
struct Observed {
    answers: u64,
    /// Answers that lacked a debit which had been answered before they were asked for, and for how long at most.
    older: u64,
    oldest: Duration,
    /// Of them, those that lacked one from before the bound.
    violations: u64,
    /// Answers that said they were younger than they were.
    claims: u64,
}

/// Asks one account after the other, and compares with what was known to be written before it asked.
async fn observe(
    address: SocketAddr,
    accounts: u64,
    known: &Mutex<HashMap<u64, Vec<(Instant, i64)>>>,
    time: Duration,
) -> Result<Observed, BenchError> {
    let client = Client::new();
    let mut observed = Observed::default();
    let started = Instant::now();
    for n in (0u64..).map(|n| n % accounts) {
        if started.elapsed() >= time {
            break;
        }
        let written = known.lock().unwrap_or_else(PoisonError::into_inner).get(&n).cloned().unwrap_or_default();
        let asked = Instant::now();
        let answer = json(client.get(format!("http://{address}{}", check_path(n)))).await?;
        // A unit of the feature costs one credit.
        let (Some(remaining), Some(age_ms)) = (answer["remaining"].as_i64(), answer["as_of"]["age_ms"].as_u64()) else {
            return Err(BenchError::Subject(format!("an answer that does not say what it shows: {answer}")));
        };
        observed.answers += 1;
        // The first debit that is not in the answer.
        let Some((answered, _)) = written.iter().find(|(_, available)| *available < remaining) else { continue };
        let missing_for = asked.saturating_duration_since(*answered);
        observed.older += 1;
        observed.oldest = observed.oldest.max(missing_for);
        observed.violations += u64::from(missing_for > BOUND);
        observed.claims += u64::from(missing_for > Duration::from_millis(age_ms));
    }
    Ok(observed)
}
