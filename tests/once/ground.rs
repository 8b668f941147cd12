//! What a test stands on: a database of its own in a server that all tests of this binary share, and services on it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use chrono::{DateTime, Utc};
use subledger::app::outbound::OutboundSettings;
use subledger::app::service::{Lanes, Service, ServiceSettings, StripeSettings};
use subledger::app::upkeep::verify::{VerifyOptions, verify};
use subledger::clock::{Clock, ManualClock, SystemClock};
use subledger::domain::catalog::Catalog;
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::http::auth::Auth;
use subledger::http::server::{self, State};
use subledger::store::connect::{COMMAND_POOL_WAIT, Database};
use subledger::store::migrate::{DEFAULT_PARTITIONS, migrate};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// What signs the webhooks of all tests.
pub const SECRET: &str = "whsec_once";
pub const CATALOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/seller.toml");

/// The shared server's address. It stops with this process.
fn shared_server() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        // A runtime that outlives every test's.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let postgres = EmbeddedPostgres::start(&folder("shared"), Durability::Volatile).await;
                let postgres = postgres.expect("a server");
                sender.send(postgres.url()).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("a server")
    })
}

/// A folder of this process; those of processes that are gone are removed.
pub fn folder(name: &str) -> PathBuf {
    const PREFIX: &str = "subledger-once-";
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            if let Ok(location) = std::fs::read_to_string(entry.path().join("location")) {
                let _ = std::fs::remove_dir_all(location.trim());
            }
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    std::env::temp_dir().join(format!("{PREFIX}{}-{name}", std::process::id()))
}

/// A migrated database with the seller's catalog in force.
pub struct Ground {
    pub url: String,
    pub database: Database,
    /// As the superuser, past all grants.
    pub admin: Client,
}

impl Ground {
    pub async fn new() -> Self {
        let server = tokio::task::spawn_blocking(shared_server).await.expect("a server");
        Self::on(server).await
    }

    /// A database in a server of the test's own.
    pub async fn on(server: &str) -> Self {
        let name = format!("once_{}", Uuid::new_v4().simple());
        connect(server).await.batch_execute(&format!("create database {name}")).await.expect("a database");
        let url = format!("{}/{name}", server.rsplit_once('/').expect("a database in the address").0);
        let database = Database::parse(&url).expect("an address");
        migrate(&database, DEFAULT_PARTITIONS).await.expect("migrated");
        let ground = Self { admin: connect(&url).await, url, database };
        let replica = ground.replica(Arc::new(SystemClock)).await;
        replica.stop().await;
        ground
    }

    pub async fn replica(&self, clock: Arc<dyn Clock>) -> Replica {
        Replica::start(&self.url, clock).await
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.admin.query_one(sql, &[]).await.expect(sql).get(0)
    }

    /// The log is whole, every read model is what the log says, and nothing of Stripe's is in the log twice.
    pub async fn assert_whole(&self, hint: &str) {
        let report = verify(&self.database, &VerifyOptions::default()).await.expect("verified");
        let listed: Vec<String> = report.listed.iter().take(10).map(ToString::to_string).collect();
        assert!(report.is_clean(), "{hint}: {} differences:\n{}", report.differences, listed.join("\n"));
        let gaps = "select count(*) from heads h left join lateral (
             select count(*) n, max(position) last from events e where e.partition_id = h.partition_id) e on true
             where h.position <> e.n or h.position <> coalesce(e.last, 0)";
        assert_eq!(self.count(gaps).await, 0, "{hint}: positions have gaps");
        let gaps = "select count(*) from (select max(version) last, count(*) n from events group by account_id) a
             where last <> n";
        assert_eq!(self.count(gaps).await, 0, "{hint}: versions have gaps");
        let twice = "select count(*) from (select 1 from events where type like '%_observed'
             group by payload ->> 'stripe_event_id', payload #>> '{object}' having count(*) > 1) twice";
        assert_eq!(self.count(twice).await, 0, "{hint}: a StripeEvent is in the log twice");
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A clock that stands at a Unix second.
pub fn clock_at(second: i64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(DateTime::<Utc>::from_timestamp(second, 0).expect("a time")))
}

/// What a replica keeps in memory for reading, and how old it may be.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub bytes: usize,
    pub staleness: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: 256 << 20, staleness: Duration::from_millis(250) }
    }
}

/// A service with its HTTP server.
pub struct Replica {
    pub service: Arc<Service>,
    pub address: SocketAddr,
    lanes: Option<Lanes>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Replica {
    pub async fn start(url: &str, clock: Arc<dyn Clock>) -> Self {
        Self::new(url, clock, 4_096, Memory::default()).await
    }

    /// With room for few commands.
    pub async fn with_queue(url: &str, queue_length: usize) -> Self {
        Self::new(url, Arc::new(SystemClock), queue_length, Memory::default()).await
    }

    /// With other memory for reading.
    pub async fn with_memory(url: &str, memory: Memory) -> Self {
        Self::new(url, Arc::new(SystemClock), 4_096, memory).await
    }

    async fn new(url: &str, clock: Arc<dyn Clock>, queue_length: usize, memory: Memory) -> Self {
        let database = Database::parse(url).expect("an address");
        let settings = ServiceSettings {
            database,
            partitions: DEFAULT_PARTITIONS,
            clock,
            lanes: 2,
            pool_size: 8,
            pool_wait: COMMAND_POOL_WAIT,
            queue_length,
            cached_accounts: 100_000,
            cache_bytes: memory.bytes,
            staleness: memory.staleness,
            stripe: StripeSettings {
                webhook_secrets: vec![SECRET.to_owned()],
                livemode: false,
                account_metadata_keys: vec!["user_id".to_owned()],
                ..StripeSettings::default()
            },
            outbound: OutboundSettings::default(),
        };
        let (service, lanes) = Service::start(settings).await.expect("a service");
        let catalog = std::fs::read_to_string(CATALOG).expect("a catalog");
        service.apply_catalog(Catalog::from_toml(&catalog).expect("valid")).await.expect("applied");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let state = State::new(Arc::clone(&service), Auth::new(None, true));
        let serving = tokio::spawn(server::run(listener, state, 2, async {
            let _ = stopped.await;
        }));
        Self { service, address, lanes: Some(lanes), stop: Some(stop), serving: Some(serving) }
    }

    /// Stops as the program does: the server, then the lanes.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            serving.await.expect("served").expect("served");
        }
        self.service.stop();
        if let Some(lanes) = self.lanes.take() {
            lanes.finish().await;
        }
    }
}
