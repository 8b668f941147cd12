//! Moments inside a lane that are hard to meet by chance, brought about on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use subledger::app::error::AppError;
use subledger::app::service::Service;
use subledger::app::write_path::work::{Answer, Key};
use subledger::clock::{Clock, SystemClock};
use subledger::domain::charge::Charge;
use subledger::domain::command::Command;
use subledger::domain::ids::AccountId;
use subledger::domain::rejection::Rejection;
use subledger::store::error::StoreError;
use subledger::store::migrate::DEFAULT_PARTITIONS;
use subledger::store::partition::partition_of;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::client::Caller;
use super::ground::{Ground, Replica, connect};
use super::proxy::{Fault, Pause, Proxy};

fn id(name: &str) -> AccountId {
    AccountId::new(name).expect("a valid id")
}

fn key(name: &str, request: &str) -> Option<Key> {
    Some(Key::of_request(name, &[request.as_bytes()]))
}

/// Accounts of one lane, each in a partition of its own.
fn lane_mates(count: usize) -> Vec<AccountId> {
    let mut partitions = Vec::new();
    let mut mates = Vec::new();
    for name in (0..).map(|n| id(&format!("user_{n}"))) {
        let partition = partition_of(name.as_str(), DEFAULT_PARTITIONS);
        // The system's own stream has a partition, too.
        let is_systems = partition == partition_of("$system", DEFAULT_PARTITIONS);
        if partition % 2 == 0 && !is_systems && !partitions.contains(&partition) {
            partitions.push(partition);
            mates.push(name);
        }
        if mates.len() == count {
            break;
        }
    }
    mates
}

async fn open(service: &Service, account: &AccountId) {
    let open = Command::Open { stripe_customer_id: None };
    service.execute(account.clone(), open, None).await.expect("opened");
}

async fn debit(service: &Service, account: &AccountId, amount: i64, key: Option<Key>) -> Result<Answer, AppError> {
    let debit = Command::Debit { debit: Uuid::new_v4(), charge: Charge::Amount(amount) };
    service.execute(account.clone(), debit, key).await
}

fn is_refused(answer: &Answer) -> bool {
    matches!(answer.result, Err(Rejection::InsufficientCredits { .. }))
}

/// Holds the head of an account's partition: a lane that appends there waits.
async fn hold<'a>(client: &'a mut Client, account: &AccountId) -> Transaction<'a> {
    let tx = client.transaction().await.expect("a transaction");
    let partition = partition_of(account.as_str(), DEFAULT_PARTITIONS);
    tx.execute("select from heads where partition_id = $1 for update", &[&partition]).await.expect("held");
    tx
}

async fn until_somebody_waits_for(ground: &Ground, query: &str) {
    let waiting = format!(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
             and query like '{query}%'"
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    while ground.count(&waiting).await == 0 {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Hands commands to a lane while it waits, so that they make its next batch, in this order.
async fn in_one_batch<T>(
    ground: &Ground,
    service: &Service,
    holder: &AccountId,
    meanwhile: impl Future<Output = ()>,
    commands: impl Future<Output = T>,
) -> T {
    let mut client = connect(&ground.url).await;
    let held = hold(&mut client, holder).await;
    let batch = async {
        until_somebody_waits_for(ground, "/* append */").await;
        meanwhile.await;
        let release = async { held.rollback().await.expect("released") };
        // Polled in this order: the commands are queued before the lane goes on.
        join(commands, release).await.0
    };
    let (first, outcome) = join(debit(service, holder, 1, None), batch).await;
    first.expect("answered");
    outcome
}

// On one thread, so that replies which arrive together are seen together.
#[tokio::test]
async fn a_refusal_is_not_decided_on_an_account_older_than_its_head() {
    let ground = Ground::new().await;
    let proxy = Proxy::before(&ground.url).await;
    let slow = Replica::start(&proxy.url, Arc::new(SystemClock)).await;
    let other = ground.replica(Arc::new(SystemClock)).await;
    let account = lane_mates(1).remove(0);
    open(&other.service, &account).await;
    // Brings the free month into the log: from here on a refusal writes no event, and no event's place gives it away.
    assert!(is_refused(&debit(&other.service, &account, 500, None).await.expect("answered")));
    // While the one reads the account for the first time, the other gives it credits.
    let pause = Arc::<Pause>::default();
    proxy.gather_replies();
    proxy.arm("/* accounts */", Fault::Pause(Arc::clone(&pause)));
    let gift = async {
        pause.reached.notified().await;
        let granted = Caller::new(other.address).grant(account.as_str(), "a gift", 1_000).await.expect("an answer");
        assert_eq!(granted.status, 201);
        pause.go_on.notify_one();
    };
    let (first, ()) = join(debit(&slow.service, &account, 500, None), gift).await;
    first.expect("answered");
    // By now the gift is acknowledged: it can be spent everywhere.
    let second = debit(&slow.service, &account, 500, None).await.expect("answered");
    assert!(!is_refused(&second), "{second:?}");
    ground.assert_whole("read in order").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_repeated_in_another_partition_waits_for_the_first_to_go_through() {
    let ground = Ground::new().await;
    let (ours, other) = (ground.replica(Arc::new(SystemClock)).await, ground.replica(Arc::new(SystemClock)).await);
    let mates = lane_mates(3);
    for account in &mates {
        open(&ours.service, account).await;
    }
    let [holder, first, second] = &mates[..] else { unreachable!("three") };
    let service = &ours.service;
    let racers = join(debit(service, first, 1, key("k", "one")), debit(service, second, 2, key("k", "two")));
    // The other replica writes where the first one wants to, so that it must decide again.
    let stale = async { drop(debit(&other.service, first, 1, None).await.expect("answered")) };
    let (first, second) = in_one_batch(&ground, service, holder, stale, racers).await;
    let outcomes = [first, second];
    let done = outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|answer| !answer.replayed)).count();
    let told = outcomes.iter().filter(|outcome| matches!(outcome, Err(AppError::KeyReused))).count();
    assert_eq!((done, told), (1, 1), "{outcomes:?}");
    ground.assert_whole("repeated key").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_taken_for_stored_because_a_neighbours_key_is() {
    let ground = Ground::new().await;
    let proxy = Proxy::before(&ground.url).await;
    let ours = Replica::start(&proxy.url, Arc::new(SystemClock)).await;
    let other = ground.replica(Arc::new(SystemClock)).await;
    let mates = lane_mates(2);
    let (holder, poor) = (&mates[0], &mates[1]);
    for account in &mates {
        open(&ours.service, account).await;
        // Brings the free month into the log: from here on a refusal writes no event.
        assert!(is_refused(&debit(&ours.service, account, 5_000, None).await.expect("answered")));
    }
    let service = &ours.service;
    // The first key is used elsewhere; then both refusals go out together, and the answer is lost.
    let elsewhere = async {
        assert!(is_refused(&debit(&other.service, poor, 5_000, key("k1", "")).await.expect("answered")));
        proxy.arm("/* append */", Fault::CutAfter);
    };
    let both = join(debit(service, poor, 5_000, key("k1", "")), debit(service, poor, 6_000, key("k2", "")));
    let (first, second) = in_one_batch(&ground, service, holder, elsewhere, both).await;
    let (first, second) = (first.expect("answered"), second.expect("answered"));
    assert!(is_refused(&first) && first.replayed, "{first:?}");
    assert!(is_refused(&second) && !second.replayed, "{second:?}");
    let digest = Key::of_request("k2", &[]).key;
    let stored = format!("select count(*) from idempotency where key = '{digest}'");
    assert_eq!(ground.count(&stored).await, 1, "what was told is stored");
    ground.assert_whole("refusals").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_postgres_refuses_fails_alone() {
    let ground = Ground::new().await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let mates = lane_mates(30);
    for account in &mates {
        open(&replica.service, account).await;
    }
    let (holder, rest) = mates.split_first().expect("mates");
    let service = &replica.service;
    let commands = rest.iter().enumerate().map(|(n, account)| async move {
        if n == 17 {
            // No text of Postgres holds a zero.
            let open = Command::Open { stripe_customer_id: Some("cus_\0".to_owned()) };
            return service.execute(account.clone(), open, None).await;
        }
        debit(service, account, 1, None).await
    });
    let outcomes = in_one_batch(&ground, service, holder, async {}, join_all(commands)).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let is_poison = matches!(outcome, Err(AppError::Poisoned(_)));
        assert_eq!(is_poison, n == 17, "command {n}: {outcome:?}");
        assert!(is_poison || outcome.is_ok(), "command {n}: {outcome:?}");
    }
    ground.assert_whole("poison").await;
}

/// A clock that fails once when it is told to: a defect in the middle of a decision.
#[derive(Debug, Default)]
struct BrokenClock(AtomicBool);

impl Clock for BrokenClock {
    fn now(&self) -> DateTime<Utc> {
        assert!(!self.0.swap(false, Ordering::Relaxed), "the clock is broken");
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_outlives_a_panic() {
    let ground = Ground::new().await;
    let clock = Arc::<BrokenClock>::default();
    let replica = ground.replica(clock.clone()).await;
    let account = lane_mates(1).remove(0);
    open(&replica.service, &account).await;
    clock.0.store(true, Ordering::Relaxed);
    let lost = debit(&replica.service, &account, 3, key("k", "")).await;
    assert!(matches!(lost, Err(AppError::Store(StoreError::OutcomeUnknown))), "{lost:?}");
    let again = debit(&replica.service, &account, 3, key("k", "")).await.expect("the lane is still there");
    assert!(again.result.is_ok() && !again.replayed, "{again:?}");
    ground.assert_whole("panic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_place_in_the_queue_is_turned_away_and_not_done() {
    let ground = Ground::new().await;
    let replica = Replica::with_queue(&ground.url, 16).await;
    let mates = lane_mates(2);
    for account in &mates {
        open(&replica.service, account).await;
    }
    let service = &replica.service;
    let crowd = join_all((0..40).map(|n| debit(service, &mates[1], 1, key(&format!("k{n}"), ""))));
    let outcomes = in_one_batch(&ground, service, &mates[0], async {}, crowd).await;
    let turned_away = outcomes.iter().filter(|outcome| matches!(outcome, Err(AppError::Overloaded))).count();
    assert_eq!(turned_away, 40 - 16);
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(accepted, 16);
    let keys = "select count(*) from idempotency i join events e using (partition_id, position)";
    assert!(ground.count(keys).await >= 1);
    let left =
        format!("select count(*) from events where type = 'credits_debited' and account_id = '{}'", mates[1].as_str());
    assert_eq!(ground.count(&left).await, 10, "as many as the free month pays for");
    ground.assert_whole("queue").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_when_the_service_stops_is_done_and_what_comes_later_is_told() {
    let ground = Ground::new().await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let mates = lane_mates(2);
    for account in &mates {
        open(&replica.service, account).await;
    }
    let service = &replica.service;
    let queued = join_all((0..8).map(|n| debit(service, &mates[1], 1, key(&format!("k{n}"), ""))));
    let late = async {
        service.stop();
        debit(service, &mates[1], 1, key("late", "")).await
    };
    let (outcomes, late) = in_one_batch(&ground, service, &mates[0], async {}, join(queued, late)).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|answer| answer.result.is_ok())), "{outcomes:?}");
    assert!(matches!(late, Err(AppError::Stopping)), "{late:?}");
    ground.assert_whole("stopped").await;
}
