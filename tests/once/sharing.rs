//! Two replicas that write to the same partitions all the time, so that each keeps the other out in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use serde_json::json;
use subledger::app::error::AppError;
use subledger::clock::SystemClock;
use subledger::domain::command::Command;
use subledger::domain::ids::AccountId;
use subledger::store::partition::partition_of;

use super::client::Caller;
use super::ground::Ground;

const SPENDERS: usize = 8;
const CREDITS: i64 = 100_000;

/// Accounts that one lane of the service writes to.
fn lane_mates(count: usize) -> Vec<String> {
    let names = (0..).map(|n| format!("user_{n}"));
    let is_even = |name: &String| partition_of(name, subledger::store::migrate::DEFAULT_PARTITIONS) % 2 == 0;
    names.filter(is_even).take(count).collect()
}

async fn open(caller: &Caller, account: &str) {
    assert_eq!(caller.put_account(account, &json!({})).await.expect("an answer").status, 201);
    assert_eq!(caller.grant(account, &format!("grant {account}"), CREDITS).await.expect("an answer").status, 201);
}

/// What replicas do to each other's partitions must not keep a lane from finding the one command that cannot be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_written_fails_alone_while_replicas_share_partitions() {
    let ground = Ground::new().await;
    let replicas = [ground.replica(Arc::new(SystemClock)).await, ground.replica(Arc::new(SystemClock)).await];
    let accounts = lane_mates(SPENDERS);
    let caller = Caller::new(replicas[0].address);
    join_all(accounts.iter().map(|account| open(&caller, account))).await;
    let (is_over, spent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let spenders = replicas.iter().flat_map(|replica| accounts.iter().map(move |account| (replica, account)));
    let spend = join_all(spenders.enumerate().map(|(n, (replica, account))| {
        let (is_over, spent, caller) = (&is_over, &spent, Caller::new(replica.address));
        async move {
            for debit in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let reply = caller.debit(account, &format!("{n}/{debit}"), 1).await.expect("an answer");
                assert_eq!(reply.status, 201, "{reply:?}");
                spent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let poison = async {
        for n in 0..5 {
            // By then they have met.
            while spent.load(Ordering::Relaxed) < 200 * (n + 1) {
                tokio::task::yield_now().await;
            }
            // No text of Postgres holds a zero.
            let open = Command::Open { stripe_customer_id: Some(format!("cus_{n}\0")) };
            let account = AccountId::new(&accounts[n]).expect("a plain name");
            let outcome = replicas[n % 2].service.execute(account, open, None).await;
            assert!(matches!(outcome, Err(AppError::Poisoned(_))), "{outcome:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    join(spend, poison).await;
    ground.assert_whole("poison while sharing").await;
}

/// A replica that knows an account from before a hold was placed through another one must not go on knowing it so.
#[tokio::test]
async fn a_hold_is_captured_through_a_replica_that_knew_the_account_before() {
    let ground = Ground::new().await;
    let (ours, other) = (ground.replica(Arc::new(SystemClock)).await, ground.replica(Arc::new(SystemClock)).await);
    let account = &lane_mates(1)[0];
    open(&Caller::new(ours.address), account).await;
    assert_eq!(Caller::new(ours.address).debit(account, "a debit", 1).await.expect("an answer").status, 201);
    let path = format!("/v1/accounts/{account}/credits/holds");
    let held = Caller::new(other.address).command(&path, "a hold", &json!({"amount": 10})).await.expect("an answer");
    assert_eq!(held.status, 201, "{held:?}");
    let hold = held.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/holds/{hold}/capture");
    let captured = Caller::new(ours.address).command(&path, "a capture", &json!({})).await.expect("an answer");
    assert_eq!(captured.status, 200, "{captured:?}");
    assert_eq!(captured.json()["status"], "captured");
    ground.assert_whole("captured elsewhere").await;
}
