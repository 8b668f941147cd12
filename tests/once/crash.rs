//! The service is killed, told to stop, or loses its Postgres, all under load: what was acknowledged is in the log once,
//! and nothing else is but what nobody was told of, once at most.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use subledger::clock::SystemClock;
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use tokio::task::JoinHandle;

use super::client::Caller;
use super::ground::{Ground, Replica, folder};
use super::load::{ACCOUNTS, Books, audit, work};
use super::program::{Program, free_address};
use super::support::shuffle::Random;

const CLIENTS: usize = 8;

/// Clients at work.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Books>>,
}

impl Load {
    fn start(name: &str, seed: u64, address: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let client = |n: usize| {
            let seed = seed * 1_000 + n as u64;
            tokio::spawn(work(format!("{name}c{n}"), seed, address, Arc::clone(&stop)))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    async fn end(self) -> Books {
        self.stop.store(true, Ordering::Relaxed);
        let mut books = Books::default();
        for client in self.clients {
            books.absorb(client.await.expect("a client"));
        }
        books
    }
}

async fn open_accounts(address: SocketAddr) {
    let caller = Caller::new(address);
    for n in 0..ACCOUNTS {
        assert_eq!(caller.put_account(&format!("user_{n}"), &json!({})).await.expect("opened").status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_it_keeps_what_it_acknowledged_and_does_nothing_twice() {
    let (ground, address) = (Ground::new().await, free_address());
    let (mut books, mut forgotten) = (Books::default(), Vec::new());
    let mut random = Random(20);
    for round in 0..20u64 {
        let mut program = Program::start(&ground.url, address);
        program.ready(address).await;
        if round == 0 {
            open_accounts(address).await;
        }
        // Of what nobody answered, one in four is never asked again.
        let (lost, again) = std::mem::take(&mut books.open).into_iter().partition(|_| random.below(4) == 0);
        let lost: Vec<_> = lost;
        forgotten.extend(lost);
        books.open = again;
        books.retry_open(&Caller::new(address)).await;
        let load = Load::start(&format!("r{round}"), round, address);
        tokio::time::sleep(Duration::from_millis(150 + random.below(450) as u64)).await;
        program.kill();
        books.absorb(load.end().await);
    }
    let mut program = Program::start(&ground.url, address);
    program.ready(address).await;
    books.retry_open(&Caller::new(address)).await;
    books.open = forgotten;
    println!("killed: {} acknowledged, {} never asked again", books.acknowledged.len(), books.open.len());
    assert!(books.acknowledged.len() > 50, "only {} acknowledged", books.acknowledged.len());
    audit(&ground, &books, "killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_finishes_what_it_accepted_and_ends_well() {
    let (ground, address) = (Ground::new().await, free_address());
    let server = ground.admin.query_one("select pg_postmaster_start_time()::text", &[]).await.expect("a server");
    let mut books = Books::default();
    for round in 0..3u64 {
        let mut program = Program::start(&ground.url, address);
        program.ready(address).await;
        if round == 0 {
            open_accounts(address).await;
        }
        books.retry_open(&Caller::new(address)).await;
        let load = Load::start(&format!("t{round}"), 100 + round, address);
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(program.terminate().await, Some(0), "round {round}");
        books.absorb(load.end().await);
    }
    assert!(books.acknowledged.len() > 10, "only {} acknowledged", books.acknowledged.len());
    audit(&ground, &books, "told to stop").await;
    let still = ground.admin.query_one("select pg_postmaster_start_time()::text", &[]).await.expect("a server");
    assert_eq!(server.get::<_, String>(0), still.get::<_, String>(0), "Postgres went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_postgres_crashes_under_load_the_service_heals_and_nothing_acknowledged_is_lost() {
    // Durable, and the test's own: it is about to be killed.
    let postgres = EmbeddedPostgres::start(&folder("restarted"), Durability::Durable).await.expect("a server");
    let ground = Ground::on(&postgres.url()).await;
    let replica = Replica::start(&ground.url, Arc::new(SystemClock)).await;
    open_accounts(replica.address).await;
    let mut books = Books::default();
    for round in 0..3u64 {
        let load = Load::start(&format!("p{round}"), 200 + round, replica.address);
        tokio::time::sleep(Duration::from_millis(500)).await;
        // At once, without a checkpoint.
        let pid = postgres.process_id().expect("a process");
        kill(Pid::from_raw(pid.try_into().expect("a pid")), Signal::SIGQUIT).expect("told");
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let settled = load.end().await;
        books.absorb(settled);
        // Nobody restarts the service.
        books.retry_open(&Caller::new(replica.address)).await;
    }
    assert!(books.acknowledged.len() > 10, "only {} acknowledged", books.acknowledged.len());
    // The ground's own connection did not survive.
    let ground = Ground { admin: super::ground::connect(&ground.url).await, ..ground };
    audit(&ground, &books, "Postgres crashed").await;
    replica.stop().await;
    postgres.stop().await.expect("stopped");
}
