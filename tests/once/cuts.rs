//! The connection to Postgres breaks at the worst moment: the caller is told the durable truth, or that it is not known;
//! and asking again under the same key ends in one effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use subledger::clock::SystemClock;

use super::client::{Caller, Reply};
use super::ground::{Ground, Replica};
use super::proxy::{Fault, Proxy};

struct Line {
    ground: Ground,
    proxy: Proxy,
    replica: Replica,
    caller: Caller,
}

impl Line {
    /// A service that reaches its database through a proxy, and an account with a thousand credits.
    async fn new() -> Self {
        let ground = Ground::new().await;
        let proxy = Proxy::before(&ground.url).await;
        let replica = Replica::start(&proxy.url, Arc::new(SystemClock)).await;
        let caller = Caller::new(replica.address);
        caller.put_account("user_1", &serde_json::json!({})).await.expect("opened");
        assert_eq!(caller.grant("user_1", "a grant", 1_000).await.expect("an answer").status, 201);
        Self { ground, proxy, replica, caller }
    }

    /// Asks until the answer is more than "not now".
    async fn until_known(&self, key: &str) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let reply = self.caller.debit("user_1", key, 7).await.expect("an answer");
            if reply.status != 503 {
                return reply;
            }
            assert!(["outcome_unknown", "database_unavailable"].contains(&reply.code().as_str()), "{reply:?}");
            assert!(Instant::now() < deadline, "still {reply:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn debits(&self) -> i64 {
        self.ground.count("select count(*) from events where type = 'credits_debited'").await
    }

    async fn end(self, hint: &str) {
        self.ground.assert_whole(hint).await;
        self.replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_whose_connection_is_cut_anywhere_around_the_commit_happens_once() {
    let line = Line::new().await;
    let faults = [Fault::CutBefore, Fault::CutInside, Fault::CutWhileRunning, Fault::CutAfter];
    for (n, fault) in faults.iter().cycle().take(20).enumerate() {
        let key = format!("debit {n}");
        line.proxy.arm("/* append */", fault.clone());
        let first = line.caller.debit("user_1", &key, 7).await.expect("an answer");
        // The service can find out, and so it must: the connection was all that was lost.
        assert_eq!(first.status, 201, "{fault:?}: {first:?}");
        assert!(!first.replayed, "{fault:?}: {first:?}");
        let again = line.until_known(&key).await;
        assert!(again.replayed, "{fault:?}: {again:?}");
        assert_eq!(again.text, first.text, "{fault:?}");
        assert_eq!(line.debits().await, n as i64 + 1, "{fault:?}");
    }
    line.end("cut").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_outcome_cannot_be_known_the_caller_is_told_so_and_may_ask_again() {
    let line = Line::new().await;
    for (n, fault) in [Fault::CutBefore, Fault::CutAfter].into_iter().enumerate() {
        let key = format!("debit {n}");
        line.proxy.arm("/* append */", fault.clone());
        line.proxy.refuse(true);
        let first = line.caller.debit("user_1", &key, 7).await.expect("an answer");
        assert_eq!((first.status, first.code().as_str()), (503, "outcome_unknown"), "{fault:?}");
        line.proxy.refuse(false);
        let was_done = matches!(fault, Fault::CutAfter);
        assert_eq!(line.debits().await, n as i64 + i64::from(was_done), "{fault:?}");
        let again = line.until_known(&key).await;
        assert_eq!((again.status, again.replayed), (201, was_done), "{fault:?}");
        assert_eq!(line.debits().await, n as i64 + 1, "{fault:?}");
    }
    line.end("unknown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_batch_whose_connection_is_cut_happens_once() {
    let line = Line::new().await;
    let callers = Caller::many(32, &[line.replica.address]).await;
    let faults = [Fault::CutBefore, Fault::CutWhileRunning, Fault::CutAfter, Fault::CutInside];
    for (round, fault) in faults.iter().enumerate() {
        line.proxy.arm("/* append */", fault.clone());
        let debits = callers.iter().enumerate().map(|(n, caller)| {
            let key = format!("{round} {n}");
            async move { caller.debit("user_1", &key, 1).await.expect("an answer") }
        });
        let replies = futures_util::future::join_all(debits).await;
        assert!(replies.iter().all(|reply| reply.status == 201), "{fault:?}: {replies:?}");
        assert_eq!(line.debits().await, 32 * (round as i64 + 1), "{fault:?}");
    }
    line.end("batch cut").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_whose_answer_is_lost_stands_as_it_was_first_told() {
    let line = Line::new().await;
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        let key = format!("{fault:?}");
        line.proxy.arm("/* append */", fault);
        let first = line.caller.debit("user_1", &key, 50_000).await.expect("an answer");
        assert_eq!((first.status, first.replayed), (402, false), "{first:?}");
        assert_eq!(
            line.caller.grant("user_1", &format!("a gift, {key}"), 100_000).await.expect("an answer").status,
            201
        );
        let again = line.caller.debit("user_1", &key, 50_000).await.expect("an answer");
        assert_eq!((again.status, again.replayed), (402, true), "{again:?}");
        let back = line.caller.debit("user_1", &format!("spent, {key}"), 100_000).await.expect("an answer");
        assert_eq!(back.status, 201, "{back:?}");
    }
    line.end("refusals").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_whose_connection_is_cut_is_made_once() {
    let line = Line::new().await;
    let faults = [Fault::CutBefore, Fault::CutWhileRunning, Fault::CutAfter];
    let queries = ["/* append */", "COMMIT"];
    for n in 0..6 {
        let (fault, query) = (faults[n % 3].clone(), queries[n / 3]);
        let (account, customer) = (format!("user_linked_{n}"), format!("cus_{n}"));
        let seen = super::story::customer_event(n, &customer).to_string();
        assert_eq!(line.caller.deliver(&seen, super::story::now()).await.expect("an answer").status, 200);
        // The first append, and the only commit, are those of the transaction that moves the customer's stream.
        line.proxy.arm(query, fault.clone());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let reply = line.caller.link(&account, &customer).await.expect("an answer");
            if reply.status < 300 {
                break;
            }
            assert_eq!(reply.status, 503, "{query} {fault:?}: {reply:?}");
            assert!(Instant::now() < deadline, "{fault:?}: {reply:?}");
        }
        let absorbed =
            format!("select count(*) from events where type = 'account_absorbed' and account_id = '{account}'");
        assert_eq!(line.ground.count(&absorbed).await, 1, "{query} {fault:?}");
        let owner = line.caller.get(&format!("/v1/accounts/{customer}")).await.json();
        assert_eq!(owner["id"], account, "{fault:?}");
    }
    line.end("links cut").await;
}
