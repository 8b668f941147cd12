//! Sixty-four clients drain one account through two replicas of the program itself, whichever answers: exactly what it had
//! is spent, and nobody is refused who need not be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::client::{Caller, Reply};
use super::ground::Ground;
use super::program::{Program, free_address};
use super::support::shuffle::Random;

const CLIENTS: usize = 64;
const CREDITS: i64 = 10_000;
/// What the seller's free plan gives every account.
const FREE: i64 = 10;
const ACCOUNT: &str = "user_rich";

/// What the clients do, and what happens to them.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Every request goes out twice at once under its key, to whichever replica.
    twice: bool,
    /// One order in three is a hold, captured in part or released.
    holds: bool,
    /// One replica is killed in the middle.
    kill: bool,
}

/// How much is spent so far, and who waits for that.
#[derive(Debug, Default)]
struct Progress {
    spent: AtomicI64,
    is_half_done: Notify,
}

impl Progress {
    fn add(&self, amount: i64) {
        let before = self.spent.fetch_add(amount, Ordering::Relaxed);
        if before < CREDITS / 2 && before + amount >= CREDITS / 2 {
            self.is_half_done.notify_one();
        }
    }
}

/// A client, with a connection to each replica.
struct Client {
    name: String,
    callers: Vec<Caller>,
    random: Random,
    way: Way,
    orders: usize,
    progress: Arc<Progress>,
}

impl Client {
    fn new(n: usize, addresses: &[SocketAddr], way: Way, progress: &Arc<Progress>) -> Self {
        let callers = addresses.iter().map(|address| Caller::new(*address)).collect();
        let (random, progress) = (Random(n as u64), Arc::clone(progress));
        Self { name: format!("c{n}"), callers, random, way, orders: 0, progress }
    }

    /// Asks until somebody answers, each time whichever replica. Nobody is told of a negative balance.
    async fn ask(&mut self, path: &str, body: Value) -> Reply {
        self.orders += 1;
        let key = format!("{} {}", self.name, self.orders);
        let seeds = [self.random.next(), self.random.next()];
        let [first, second] = seeds.map(|seed| settle(&self.callers, Random(seed), path, &key, &body));
        let reply = if self.way.twice {
            let (first, second) = tokio::join!(first, second);
            assert_eq!((first.status, first.code()), (second.status, second.code()), "{first:?} {second:?}");
            assert!(first.replayed || second.replayed, "{first:?} {second:?}");
            if first.status < 300 {
                assert_eq!(first.text, second.text);
            }
            first
        } else {
            first.await
        };
        if reply.status < 300 {
            assert!(reply.json()["available"].as_i64().is_some_and(|available| available >= 0), "{reply:?}");
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (402, "insufficient_credits"), "{reply:?}");
        }
        reply
    }

    async fn debit(&mut self, amount: i64) -> Reply {
        let reply = self.ask(&format!("/v1/accounts/{ACCOUNT}/credits/debits"), json!({"amount": amount})).await;
        if reply.status == 201 {
            self.progress.add(amount);
        }
        reply
    }

    async fn hold(&mut self, amount: i64) {
        let reply = self.ask(&format!("/v1/accounts/{ACCOUNT}/credits/holds"), json!({"amount": amount})).await;
        if reply.status == 402 {
            return;
        }
        let hold = reply.json()["id"].as_str().expect("an id").to_owned();
        let used = self.random.below(amount as usize + 1) as i64;
        let ended = match used {
            0 => self.ask(&format!("/v1/holds/{hold}/release"), json!({})).await,
            used => self.ask(&format!("/v1/holds/{hold}/capture"), json!({"amount": used})).await,
        };
        assert_eq!(ended.status, 200, "{ended:?}");
        self.progress.add(used);
    }

    /// Spends one to five at a time, until there is not even one left.
    async fn drain(mut self) {
        loop {
            let amount = 1 + self.random.below(5) as i64;
            if self.way.holds && self.random.below(3) == 0 {
                self.hold(amount).await;
            } else if self.debit(amount).await.status == 402 && amount == 1 {
                return;
            }
        }
    }
}

async fn settle(callers: &[Caller], mut random: Random, path: &str, key: &str, body: &Value) -> Reply {
    for _ in 0..3_000 {
        match callers[random.below(callers.len())].command(path, key, body).await {
            Ok(reply) if reply.status < 500 => return reply,
            // Busy, or dead.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("nobody answers: {path} {key}");
}

async fn drain(way: Way) {
    let ground = Ground::new().await;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let address = free_address();
        let mut program = Program::start(&ground.url, address);
        program.ready(address).await;
        replicas.push((address, program));
    }
    let addresses: Vec<SocketAddr> = replicas.iter().map(|(address, _)| *address).collect();
    let caller = Caller::new(addresses[0]);
    assert_eq!(caller.put_account(ACCOUNT, &json!({})).await.expect("an answer").status, 201);
    assert_eq!(caller.grant(ACCOUNT, "all", CREDITS - FREE).await.expect("an answer").status, 201);

    let progress = Arc::<Progress>::default();
    let clients = (0..CLIENTS).map(|n| tokio::spawn(Client::new(n, &addresses, way, &progress).drain()));
    let clients = join_all(clients.collect::<Vec<_>>());
    let accident = async {
        if way.kill {
            progress.is_half_done.notified().await;
            replicas[0].1.kill();
        }
    };
    let (ended, ()) = tokio::join!(clients, accident);
    ended.into_iter().for_each(|client| client.expect("a client"));
    // What others had set aside when the last ones gave up has come back since.
    Client::new(CLIENTS, &addresses, way, &progress).drain().await;

    let hint = format!("{way:?}");
    assert_eq!(progress.spent.load(Ordering::Relaxed), CREDITS, "{hint}");
    let credits = Caller::new(addresses[1]).get(&format!("/v1/accounts/{ACCOUNT}/credits")).await.json();
    assert_eq!((&credits["available"], &credits["held"]), (&json!(0), &json!(0)), "{hint}: {credits}");
    replay_log(&ground, &hint).await;
    ground.assert_whole(&hint).await;
}

/// The log says the same, event by event: never below zero, nobody refused for whom there was enough, all spent.
async fn replay_log(ground: &Ground, hint: &str) {
    let sql = format!("select type, payload::text from events where account_id = '{ACCOUNT}' order by version");
    let (mut available, mut spent, mut refused) = (0, 0, 0);
    for row in ground.admin.query(&sql, &[]).await.expect("the log") {
        let payload: Value = serde_json::from_str(row.get(1)).expect("JSON");
        let number = |pointer: &str| payload.pointer(pointer).and_then(Value::as_i64).expect(pointer);
        match row.get(0) {
            "credits_granted" => available += number("/lot/granted"),
            "credits_debited" => {
                available -= number("/amount");
                spent += number("/amount");
                assert_eq!(number("/available"), available, "{hint}: {payload}");
            }
            "hold_placed" => available -= number("/amount"),
            "hold_captured" => {
                available += number("/released");
                spent += number("/amount");
            }
            "hold_released" => available += number("/amount"),
            "charge_rejected" => {
                refused += 1;
                assert_eq!(number("/rejection/available"), available, "{hint}: {payload}");
                assert!(number("/rejection/required") > available, "{hint}: {payload}");
            }
            "account_opened" => {}
            other => panic!("{hint}: {other} {payload}"),
        }
        assert!(available >= 0, "{hint}: {payload}");
    }
    assert_eq!((available, spent), (0, CREDITS), "{hint}");
    assert!(refused >= CLIENTS, "{hint}: every client was refused in the end, not {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_spend_ten_thousand_credits_through_two_programs_and_not_one_more() {
    drain(Way::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: part of make test-long"]
async fn so_they_do_when_every_request_is_sent_twice_and_some_hold_before_they_spend() {
    drain(Way { twice: true, holds: true, ..Way::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_do_when_every_request_is_sent_twice_and_a_replica_is_killed_in_the_middle() {
    drain(Way { twice: true, kill: true, ..Way::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: part of make test-long"]
async fn so_they_do_when_a_replica_is_killed_while_everything_is_sent_twice_and_some_hold() {
    drain(Way { twice: true, holds: true, kill: true }).await;
}
