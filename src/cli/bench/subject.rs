//! What is measured: the write path in process, and the service over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::TryStreamExt;
use subledger::app::outbound::OutboundSettings;
use subledger::app::service::{Lanes, Service, ServiceSettings, StripeSettings};
use subledger::app::write_path::work::Key;
use subledger::clock::SystemClock;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant};
use subledger::domain::credit::LotSource;
use subledger::domain::ids::AccountId;
use subledger::startup::read_catalog;
use subledger::store::connect::{Database, POOL_WAIT};
use subledger::stripe::signature;
use tokio::process::{Child, Command as Process};
use uuid::Uuid;

use super::BenchError;
use super::load::{self, MakeRequest, Outcome};

/// Of the ledgers that are served.
const CATALOG: &str = "deploy/catalog.toml";
/// Signs the webhooks of the benchmark.
pub const SECRET: &str = "whsec_benchmark";
/// A webhook with the fields of a real one: most of them we have no use for, but they are what reading and keeping it
/// costs. Ids and names are put in for what stands in braces, times for those of November 2023.
const INVOICE_PAID: &str = include_str!("invoice_paid.json");
/// Credits of each account: more than any run can spend.
const CREDITS: i64 = 1_000_000_000;

pub fn account_name(n: u64) -> String {
    format!("bench_{n:07}")
}

pub fn account(n: u64) -> AccountId {
    match AccountId::new(&account_name(n)) {
        Ok(id) => id,
        Err(_) => unreachable!("a plain name"),
    }
}

/// A scrambled walk over the accounts: neighbours in time are strangers.
pub fn scramble(n: u64, accounts: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % accounts
}

/// Starts lanes in this process.
pub async fn start_lanes(
    database: &Database,
    partitions: i16,
    lanes: usize,
) -> Result<(Arc<Service>, Lanes), BenchError> {
    let settings = ServiceSettings {
        database: database.clone(),
        partitions,
        clock: Arc::new(SystemClock),
        lanes,
        pool_size: 4,
        pool_wait: POOL_WAIT,
        queue_length: 8_192,
        cached_accounts: 200_000,
        cache_bytes: 256 << 20,
        staleness: Duration::from_millis(250),
        stripe: StripeSettings::default(),
        outbound: OutboundSettings::default(),
    };
    Ok(Service::start(settings).await?)
}

/// Opens accounts of a ledger that is going to be served: under the catalog, so that what it grants them is no part of what
/// is measured.
pub async fn open_accounts_under_catalog(service: &Arc<Service>, accounts: u64) -> Result<(), BenchError> {
    service.apply_catalog(read_catalog(Path::new(CATALOG))?).await?;
    open_accounts(service, accounts).await
}

/// Opens accounts, each with credits to spend.
pub async fn open_accounts(service: &Arc<Service>, accounts: u64) -> Result<(), BenchError> {
    for_each_account(service, accounts, async |service, account| {
        service.execute(account.clone(), Command::Open { stripe_customer_id: None }, None).await?;
        let grant = Grant {
            grant: Uuid::new_v4(),
            amount: CREDITS,
            source: LotSource::Manual,
            priority: 50,
            effective_at: None,
            expires_at: None,
            reason: None,
        };
        service.execute(account, Command::Grant(grant), None).await?;
        Ok(())
    })
    .await
}

/// Debits every account once.
pub async fn debit_each(service: &Arc<Service>, accounts: u64, keys: Keys) -> Result<(), BenchError> {
    for_each_account(service, accounts, async |service, account| debit(service, account, keys).await.map(drop)).await
}

/// Many accounts at a time, each once.
async fn for_each_account(
    service: &Arc<Service>,
    accounts: u64,
    act: impl AsyncFn(&Service, AccountId) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    futures_util::stream::iter((0..accounts).map(Ok)).try_for_each_concurrent(512, |n| act(service, account(n))).await
}

/// One credit of an account, under a key of its own. Whether it was debited.
async fn debit(service: &Service, account: AccountId, keys: Keys) -> Result<bool, BenchError> {
    let key = Key::of_request(&keys.make().to_string(), &[b"bench"]);
    let command = Command::Debit { debit: Uuid::now_v7(), charge: Charge::Amount(1) };
    Ok(service.execute(account, command, Some(key)).await?.result.is_ok())
}

/// What callers make their idempotency keys of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// UUIDs of version 7: they begin with the time.
    Timed,
    /// UUIDs of version 4.
    Random,
}

impl Keys {
    pub fn make(self) -> Uuid {
        match self {
            Self::Timed => Uuid::now_v7(),
            Self::Random => Uuid::new_v4(),
        }
    }
}

/// Debits straight through the lanes, `in_flight` at a time, for a time or up to a number. Answers debits each second.
pub async fn debits_in_process(
    service: &Arc<Service>,
    accounts: u64,
    keys: Keys,
    in_flight: usize,
    time: Duration,
    most: u64,
) -> Result<f64, BenchError> {
    let done = Arc::new(AtomicU64::new(0));
    let next = Arc::new(AtomicU64::new(0));
    let run: u64 = rand::random();
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..in_flight {
        let (service, done, next) = (Arc::clone(service), Arc::clone(&done), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            while started.elapsed() < time {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= most {
                    break;
                }
                if debit(&service, account(scramble(n ^ run, accounts)), keys).await? {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok::<_, BenchError>(())
        }));
    }
    for task in tasks {
        task.await.map_err(std::io::Error::other)??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// The service as a process of its own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts `subledger serve` on a database, with the settings' defaults but for quiet logs.
    pub async fn start(database_url: &str, lanes: usize) -> Result<Self, BenchError> {
        let address = free_address()?;
        let program = std::env::current_exe()?;
        let child = Process::new(program)
            .arg("serve")
            .env("DATABASE_URL", database_url)
            .env("SUBLEDGER_LISTEN", address.to_string())
            .env("SUBLEDGER_CATALOG", CATALOG)
            .env("SUBLEDGER_LANES", lanes.to_string())
            .env("STRIPE_WEBHOOK_SECRETS", SECRET)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let server = Self { child, address };
        server.wait().await?;
        Ok(server)
    }

    /// Starts the bare handler that is the yardstick of checks.
    pub async fn start_bare() -> Result<Self, BenchError> {
        let address = free_address()?;
        let program = std::env::current_exe()?;
        let child = Process::new(program)
            .args(["bench", "--bare-handler", &address.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let server = Self { child, address };
        server.wait().await?;
        Ok(server)
    }

    async fn wait(&self) -> Result<(), BenchError> {
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                let ready = load::request("GET", "/readyz", "", b"");
                let make: MakeRequest = Arc::new(move |n| (n == 0).then(|| ready.clone()));
                let asked = load::run(self.address, 1, Duration::from_secs(1), 200, make).await;
                if asked.is_ok() {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(BenchError::Subject("the service did not start".to_owned()))
    }

    pub async fn stop(mut self) -> Result<(), BenchError> {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
        }
        self.child.wait().await?;
        Ok(())
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Durable debits over HTTP, one in each request.
pub async fn debits_over_http(
    address: SocketAddr,
    accounts: u64,
    in_flight: usize,
    time: Duration,
) -> Result<Outcome, BenchError> {
    checked(load::run(address, in_flight, time, 201, make_debits(accounts)).await?)
}

/// The same at a steady rate, whether or not those before were answered.
pub async fn debits_at_rate(
    address: SocketAddr,
    accounts: u64,
    rate: f64,
    time: Duration,
) -> Result<Outcome, BenchError> {
    checked(load::run_at_rate(address, rate, time, 201, make_debits(accounts)).await?)
}

fn make_debits(accounts: u64) -> MakeRequest {
    let run: u64 = rand::random();
    Arc::new(move |n| {
        let path = format!("/v1/accounts/{}/credits/debits", account_name(scramble(n ^ run, accounts)));
        Some(load::request("POST", &path, &format!("Idempotency-Key: {}\r\n", Keys::Timed.make()), br#"{"amount":1}"#))
    })
}

/// Requests to the bare handler.
pub async fn bare_requests(address: SocketAddr, in_flight: usize, time: Duration) -> Result<Outcome, BenchError> {
    let request = load::request("GET", "/", "", b"");
    checked(load::run(address, in_flight, time, 200, Arc::new(move |_| Some(request.clone()))).await?)
}

/// Signed webhooks: each an invoice paid, of an account linked to its customer.
pub fn webhooks(run: u64, accounts: u64, count: u64) -> Result<Arc<Vec<Vec<u8>>>, BenchError> {
    let now = Utc::now().timestamp();
    let template: serde_json::Value = serde_json::from_str(INVOICE_PAID).map_err(std::io::Error::from)?;
    let template = template.to_string();
    let made = (0..count).map(|n| {
        let customer = scramble(n ^ run, accounts);
        let body = paid_invoice(&template, run, n, customer, now);
        let header = format!("Stripe-Signature: {}\r\n", signature::sign(&body, SECRET, now));
        load::request("POST", "/webhooks/stripe", &header, &body)
    });
    Ok(Arc::new(made.collect()))
}

/// Delivers webhooks that were made before.
pub async fn deliver(
    address: SocketAddr,
    webhooks: &Arc<Vec<Vec<u8>>>,
    in_flight: usize,
) -> Result<Outcome, BenchError> {
    let webhooks = Arc::clone(webhooks);
    let make: MakeRequest = Arc::new(move |n| webhooks.get(usize::try_from(n).ok()?).cloned());
    checked(load::run(address, in_flight, Duration::from_secs(120), 200, make).await?)
}

/// A webhook that was only kept is answered 200 too, and costs less.
pub async fn check_applied(database: &Database) -> Result<(), BenchError> {
    let client = database.connect_as_owner().await?;
    let row = client.query_one("select count(*), count(*) filter (where status = 'applied') from inbox", &[]).await?;
    let (kept, applied): (i64, i64) = (row.get(0), row.get(1));
    if applied == 0 || applied < kept {
        return Err(BenchError::Subject(format!("only {applied} of {kept} webhooks were applied")));
    }
    Ok(())
}

pub fn checked(outcome: Outcome) -> Result<Outcome, BenchError> {
    if outcome.unexpected > 0 {
        return Err(BenchError::Subject(format!("{} requests were not answered as expected", outcome.unexpected)));
    }
    Ok(outcome)
}

/// An id such as Stripe makes: a one, the second it was made in, whose it is, and what is random; to base 62.
fn stripe_id(prefix: &str, second: u64, run: u64, n: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let digits = |mut number: u64, count: usize| {
        let mut digits = vec!['0'; count];
        for digit in digits.iter_mut().rev() {
            *digit = char::from(DIGITS[(number % 62) as usize]);
            number /= 62;
        }
        digits.into_iter().collect::<String>()
    };
    let random = scramble(n.wrapping_add(run.rotate_left(17)), u64::MAX);
    format!("{prefix}_1{}E0b6fckueS{}", digits(second, 5), digits(random, 8))
}

fn paid_invoice(template: &str, run: u64, n: u64, customer: u64, now: i64) -> Vec<u8> {
    // As many are made in a second as are delivered in one, or nearly.
    let second = now.unsigned_abs() + n / 5_000;
    let filled = [
        ("{event}", stripe_id("evt", second, run, n)),
        ("{invoice}", stripe_id("in", second, run, n)),
        ("{line}", stripe_id("il", second, run, n)),
        ("{secret}", stripe_id("live", second, run, n + 1)),
        ("{number}", format!("B7A1-{n:06}")),
        ("{customer}", stripe_id("cus", 7, 7, customer)),
        ("{subscription}", stripe_id("sub", 7, 7, customer)),
        ("{item}", stripe_id("si", 7, 7, customer)),
        ("{account}", account_name(customer)),
        ("1700000000", now.to_string()),
        ("1697408000", (now - 2_592_000).to_string()),
        ("1702592000", (now + 2_592_000).to_string()),
    ];
    let fill = |body: String, (name, value): &(&str, String)| body.replace(name, value);
    filled.iter().fold(template.to_owned(), fill).into_bytes()
}
