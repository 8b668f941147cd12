//! The same thing sent many times at once, to one replica or to two, happens once.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use subledger::clock::SystemClock;

use super::client::{Caller, Reply};
use super::ground::{Ground, Replica};
use super::story::{now, sale};

const CALLERS: usize = 32;
/// What the seller's free plan gives every account.
const FREE: i64 = 10;

/// A ground with some replicas, and callers spread over them.
struct Crowd {
    ground: Ground,
    replicas: Vec<Replica>,
    callers: Vec<Caller>,
}

impl Crowd {
    async fn new(replicas: usize, callers: usize) -> Self {
        let ground = Ground::new().await;
        let replicas = join_all((0..replicas).map(|_| ground.replica(Arc::new(SystemClock)))).await;
        let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
        Self { ground, replicas, callers: Caller::many(callers, &addresses).await }
    }

    /// Everybody does the same at once.
    async fn all<F: Future<Output = Reply>>(&self, act: impl Fn(usize, Caller) -> F) -> Vec<Reply> {
        join_all(self.callers.iter().cloned().enumerate().map(|(n, caller)| act(n, caller))).await
    }

    async fn open(&self, account: &str, credits: i64) {
        let caller = &self.callers[0];
        assert_eq!(caller.put_account(account, &json!({})).await.expect("an answer").status, 201);
        if credits > 0 {
            let granted = caller.grant(account, &format!("grant {account}"), credits).await.expect("an answer");
            assert_eq!(granted.status, 201, "{granted:?}");
        }
    }

    async fn available(&self, account: &str) -> i64 {
        let credits = self.callers[0].get(&format!("/v1/accounts/{account}/credits?consistency=strong")).await.json();
        credits["available"].as_i64().expect("a number")
    }

    async fn end(self, hint: &str) {
        self.ground.assert_whole(hint).await;
        join_all(self.replicas.into_iter().map(Replica::stop)).await;
    }
}

/// Asks again while the service says it is busy, as callers are told to.
async fn until_done<F>(mut ask: impl FnMut() -> F) -> Reply
where
    F: Future<Output = Result<Reply, reqwest::Error>>,
{
    for _ in 0..100 {
        let reply = ask().await.expect("an answer");
        if reply.status != 503 {
            return reply;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("busy for ever");
}

async fn one_stripe_event_from_32_connections_applies_once(replicas: usize) {
    let crowd = Crowd::new(replicas, CALLERS).await;
    for n in 0..20 {
        let (id, account) = (format!("{replicas}x{n}"), format!("user_{n}"));
        let body = sale(&id, &account, 500).to_string();
        let replies = crowd
            .all(|_, caller| {
                let body = body.clone();
                async move { until_done(|| caller.deliver(&body, now())).await }
            })
            .await;
        let mut received: Vec<String> = replies.iter().map(Reply::received).collect();
        received.sort();
        assert_eq!(received[0], "applied", "round {n}: {received:?}");
        assert!(received[1..].iter().all(|status| status == "duplicate"), "round {n}: {received:?}");
        let observed = format!(
            "select count(*) from events where payload ->> 'stripe_event_id' = 'evt_{id}' and account_id = '{account}'"
        );
        assert_eq!(crowd.ground.count(&observed).await, 1, "round {n}");
        assert_eq!(crowd.available(&account).await, 500 + FREE, "round {n}");
    }
    crowd.end("twins of StripeEvents").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stripe_event_from_32_connections_applies_once_on_one_replica() {
    one_stripe_event_from_32_connections_applies_once(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stripe_event_from_32_connections_applies_once_on_two_replicas() {
    one_stripe_event_from_32_connections_applies_once(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_debit_from_32_connections_is_one_debit_with_one_answer() {
    for replicas in [1, 2] {
        let crowd = Crowd::new(replicas, CALLERS).await;
        for n in 0..10 {
            let (account, key) = (format!("user_{n}"), format!("debit {n}"));
            crowd.open(&account, 100).await;
            let replies = crowd
                .all(|_, caller| {
                    let (account, key) = (account.clone(), key.clone());
                    async move { until_done(|| caller.debit(&account, &key, 30)).await }
                })
                .await;
            let first = replies.iter().filter(|reply| !reply.replayed).count();
            assert_eq!(first, 1, "round {n}: {replies:?}");
            assert!(replies.iter().all(|reply| (reply.status, &reply.text) == (201, &replies[0].text)), "{replies:?}");
            assert_eq!(crowd.available(&account).await, 100 + FREE - 30, "round {n}");
        }
        crowd.end("twins of debits").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_from_32_connections_is_one_refusal_for_ever() {
    let crowd = Crowd::new(2, CALLERS).await;
    crowd.open("user_poor", 0).await;
    let ask = |caller: Caller| async move { until_done(|| caller.debit("user_poor", "too much", 5_000)).await };
    let replies = crowd.all(|_, caller| ask(caller)).await;
    assert!(replies.iter().all(|reply| (reply.status, reply.code().as_str()) == (402, "insufficient_credits")));
    // Rich by now, and still refused under that key.
    let granted = crowd.callers[0].grant("user_poor", "a gift", 10_000).await.expect("an answer");
    assert_eq!(granted.status, 201);
    let again = crowd.all(|_, caller| ask(caller)).await;
    assert!(again.iter().all(|reply| reply.status == 402), "{again:?}");
    assert_eq!(crowd.available("user_poor").await, 10_000 + FREE);
    crowd.end("twins of refusals").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_different_requests_racing_under_one_key_one_is_done_and_the_others_are_told() {
    for replicas in [1, 2] {
        let crowd = Crowd::new(replicas, CALLERS).await;
        for n in 0..10 {
            // Half of them ask another account: another partition, and often another lane.
            let accounts = [format!("user_a{n}"), format!("user_b{n}")];
            crowd.open(&accounts[0], 1_000).await;
            crowd.open(&accounts[1], 1_000).await;
            let replies = crowd
                .all(|caller_no, caller| {
                    let (account, key) = (accounts[caller_no % 4 / 2].clone(), format!("shared {n}"));
                    async move { until_done(|| caller.debit(&account, &key, 1 + caller_no as i64)).await }
                })
                .await;
            let done: Vec<usize> = (0..CALLERS).filter(|n| replies[*n].status == 201).collect();
            assert_eq!(done.len(), 1, "round {n}: {replies:?}");
            let told = replies.iter().filter(|reply| reply.status == 422 && reply.code() == "idempotency_key_reused");
            assert_eq!(told.count(), CALLERS - 1, "round {n}: {replies:?}");
            let left = crowd.available(&accounts[0]).await + crowd.available(&accounts[1]).await;
            assert_eq!(left, 2_000 + 2 * FREE - (1 + done[0] as i64), "round {n}");
        }
        crowd.end("one key for many requests").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_spend_a_thousand_credits_and_not_one_more() {
    let crowd = Crowd::new(2, 64).await;
    crowd.open("user_rich", 1_000 - FREE).await;
    let spent = crowd
        .all(|n, caller| async move {
            let mut spent = 0;
            for round in 0.. {
                let amount = 1 + (n as i64 + round) % 7;
                let key = format!("spend {n} {round}");
                let reply = until_done(|| caller.debit("user_rich", &key, amount)).await;
                match reply.status {
                    201 => spent += amount,
                    402 if amount == 1 => break,
                    402 => {}
                    _ => panic!("{reply:?}"),
                }
            }
            Reply { status: 200, replayed: false, text: spent.to_string() }
        })
        .await;
    let spent: i64 = spent.iter().map(|reply| reply.text.parse::<i64>().expect("a number")).sum();
    assert_eq!(spent, 1_000);
    assert_eq!(crowd.available("user_rich").await, 0);
    let lowest = "select min((payload ->> 'available')::bigint) from events where type = 'credits_debited'";
    assert_eq!(crowd.ground.count(lowest).await, 0);
    let logged = "select sum((payload ->> 'amount')::bigint)::bigint from events where type = 'credits_debited'";
    assert_eq!(crowd.ground.count(logged).await, 1_000);
    crowd.end("drained").await;
}

/// Nothing of its own is in the way of what the other replica wrote: only the head tells that it decided on old news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_writes_no_event_rests_on_what_the_other_replica_did_before() {
    let crowd = Crowd::new(2, 2).await;
    let [one, other] = &crowd.callers[..] else { panic!("two callers") };
    for n in 0..10 {
        let (account, key) = (format!("user_{n}"), format!("too early {n}"));
        let early = other.debit(&account, &key, 1).await.expect("an answer");
        assert_eq!((early.status, early.code().as_str()), (404, "account_not_found"), "round {n}");
        assert_eq!(one.put_account(&account, &json!({})).await.expect("an answer").status, 201);
        let debit = other.debit(&account, &format!("in time {n}"), 1).await.expect("an answer");
        assert_eq!(debit.status, 201, "round {n}: {debit:?}");
        assert_eq!(other.debit(&account, &key, 1).await.expect("an answer").status, 404, "round {n}: for ever");
    }
    crowd.end("old news").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_from_one_replica_races_with_the_customers_events_on_the_other() {
    let crowd = Crowd::new(2, 16).await;
    for n in 0..20 {
        let (account, customer) = (format!("user_{n}"), format!("cus_{n}"));
        let replies = crowd
            .all(|caller_no, caller| {
                let (account, customer) = (account.clone(), customer.clone());
                let mut body = sale(&format!("{n}x{caller_no}"), &account, 10);
                body["data"]["object"]["customer"] = json!(customer);
                body["data"]["object"]["client_reference_id"] = Value::Null;
                let body = body.to_string();
                async move {
                    if caller_no % 8 == 3 {
                        return caller.link(&account, &customer).await.expect("an answer");
                    }
                    until_done(|| caller.deliver(&body, now())).await
                }
            })
            .await;
        assert!(replies.iter().all(|reply| reply.status < 300), "round {n}: {replies:?}");
        // Fourteen purchases, whoever came first, and under both names.
        assert_eq!(crowd.available(&account).await, 140 + FREE, "round {n}");
        assert_eq!(crowd.available(&customer).await, 140 + FREE, "round {n}");
    }
    crowd.end("links and events").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_accounts_racing_for_a_customer_one_gets_it_and_the_other_is_told() {
    let crowd = Crowd::new(2, 16).await;
    for n in 0..20 {
        let customer = format!("cus_{n}");
        if n % 2 == 0 {
            let mut body = sale(&format!("{n}"), "", 10);
            body["data"]["object"]["customer"] = json!(customer);
            body["data"]["object"]["client_reference_id"] = Value::Null;
            assert_eq!(crowd.callers[0].deliver(&body.to_string(), now()).await.expect("an answer").status, 200);
        }
        let replies = crowd
            .all(|caller_no, caller| {
                let (account, customer) = (format!("user_{n}_{caller_no}"), customer.clone());
                async move { caller.link(&account, &customer).await.expect("an answer") }
            })
            .await;
        let linked: Vec<usize> = (0..16).filter(|caller| replies[*caller].status < 300).collect();
        assert_eq!(linked.len(), 1, "round {n}: {replies:?}");
        let told = replies.iter().filter(|reply| reply.status == 409 && reply.code() == "customer_linked_elsewhere");
        assert_eq!(told.count(), 15, "round {n}: {replies:?}");
        let owner = crowd.callers[0].get(&format!("/v1/accounts/{customer}")).await.json();
        assert_eq!(owner["id"], format!("user_{n}_{}", linked[0]), "round {n}");
    }
    crowd.end("rivals").await;
}
