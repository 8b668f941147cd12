//! What happens around the lanes: routing, profiles, and a database that will not take what it is given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subledger::clock::SystemClock;

use super::client::Caller;
use super::ground::{Ground, Replica, connect};
use super::proxy::{Fault, Proxy};
use super::story::now;

fn event(id: &str, event_type: &str, object: Value) -> String {
    json!({"id": id, "object": "event", "created": now(), "livemode": false, "type": event_type,
        "data": {"object": object}})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_finds_what_came_before_it_under_its_invoices_name_alone() {
    let ground = Ground::new().await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    let note = event(
        "evt_note",
        "credit_note.created",
        json!({"id": "cn_1", "object": "credit_note", "invoice": "in_1", "status": "issued", "currency": "usd",
            "amount": 100, "type": "post_payment"}),
    );
    let charge = event(
        "evt_charge",
        "charge.succeeded",
        json!({"id": "ch_1", "object": "charge", "customer": "cus_1", "invoice": "in_1", "payment_intent": "pi_1",
            "status": "succeeded", "currency": "usd", "amount": 900, "amount_captured": 900, "amount_refunded": 0}),
    );
    for body in [&note, &charge] {
        let reply = caller.deliver(body, now()).await.expect("an answer");
        assert_eq!((reply.status, reply.received().as_str()), (200, "applied"), "{reply:?}");
    }
    for reference in ["in_1", "pi_1", "cus_1"] {
        let owner = caller.get(&format!("/v1/accounts/{reference}")).await.json();
        assert_eq!(owner["id"], "cus_1", "{reference}");
    }
    ground.assert_whole("invoice").await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_could_not_be_kept_is_kept_when_stripe_sends_its_event_again() {
    let ground = Ground::new().await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    let body = event(
        "evt_1",
        "customer.created",
        json!({"id": "cus_1", "object": "customer", "email": "jo@example.com", "created": now()}),
    );
    // The event is applied, and then the connection that would keep the address breaks.
    let mut locker = connect(&ground.url).await;
    let lock = locker.transaction().await.expect("a transaction");
    lock.batch_execute("lock table account_profiles in access exclusive mode").await.expect("locked");
    let breaks = async {
        let waiting = "select pid from pg_stat_activity where datname = current_database()
             and wait_event_type = 'Lock' and query like '%account_profiles%'";
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(row) = ground.admin.query_opt(waiting, &[]).await.expect("backends") {
                let pid: i32 = row.get(0);
                ground.admin.execute("select pg_terminate_backend($1)", &[&pid]).await.expect("told");
                break;
            }
            assert!(Instant::now() < deadline, "nobody keeps the address");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (first, ()) = futures_util::future::join(caller.deliver(&body, now()), breaks).await;
    assert_eq!(first.expect("an answer").status, 503);
    lock.rollback().await.expect("released");
    // The pool may hand out the connection that was just cut: then it is 503 once more, and Stripe comes again.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut again = caller.deliver(&body, now()).await.expect("an answer");
    while again.status == 503 && Instant::now() < deadline {
        again = caller.deliver(&body, now()).await.expect("an answer");
    }
    assert_eq!((again.status, again.received().as_str()), (200, "duplicate"));
    assert_eq!(caller.get("/v1/accounts/cus_1").await.json()["email"], "jo@example.com");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_for_a_while_is_unavailable_and_nothing_is_poisoned() {
    let ground = Ground::new().await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    caller.put_account("user_1", &json!({})).await.expect("opened");
    let sale = json!({"id": "cs_1", "object": "checkout.session", "mode": "payment", "status": "complete",
        "payment_status": "paid", "client_reference_id": "user_1", "payment_intent": "pi_1", "amount_total": 1_000,
        "currency": "usd", "metadata": {"kind": "credit_pack", "credits": "500"}});
    let sale = event("evt_1", "checkout.session.completed", sale);
    let set = async |value: &str| {
        let name = ground.url.rsplit_once('/').expect("a database").1;
        let set = format!("alter database {name} set default_transaction_read_only = {value}");
        let mut admin = connect(&ground.url).await;
        let tx = admin.build_transaction().read_only(false).start().await.expect("a transaction");
        tx.batch_execute(&set).await.expect("set");
        tx.commit().await.expect("set");
        let others = "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'subledger'";
        admin.query(others, &[]).await.expect("told");
    };
    // As after a failover to a server that is not yet promoted.
    set("on").await;
    for _ in 0..3 {
        let debit = caller.debit("user_1", "k", 3).await.expect("an answer");
        assert_eq!((debit.status, debit.code().as_str()), (503, "database_unavailable"), "{debit:?}");
        assert_eq!(caller.deliver(&sale, now()).await.expect("an answer").status, 503);
    }
    set("off").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while caller.deliver(&sale, now()).await.expect("an answer").status == 503 {
        assert!(Instant::now() < deadline, "it does not heal");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let debit = caller.debit("user_1", "k", 300).await.expect("an answer");
    assert_eq!((debit.status, debit.replayed), (201, false), "nothing was done under that key: {debit:?}");
    ground.assert_whole("read only").await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_leaves_nobody_waiting_for_ever() {
    let ground = Ground::new().await;
    let proxy = Proxy::before(&ground.url).await;
    let replica = Replica::start(&proxy.url, Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    caller.put_account("user_1", &json!({})).await.expect("opened");
    proxy.arm("/* append */", Fault::Silence);
    let asked = Instant::now();
    let debit = caller.debit("user_1", "k", 3).await.expect("an answer");
    assert_eq!((debit.status, debit.code().as_str()), (503, "outcome_unknown"), "{debit:?}");
    assert!(asked.elapsed() < Duration::from_secs(25), "answered after {:?}", asked.elapsed());
    // It had been done, as another replica knows.
    let other = ground.replica(Arc::new(SystemClock)).await;
    let again = Caller::new(other.address).debit("user_1", "k", 3).await.expect("an answer");
    assert_eq!((again.status, again.replayed), (201, true), "{again:?}");
    ground.assert_whole("silence").await;
}
