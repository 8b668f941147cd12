//! A Stripe id leads to one account, whoever is quickest, and the log says which.

use std::time::Duration;

use serde_json::{Value, json};
use subledger::app::error::AppError;
use subledger::app::inbound::ingest::Received;
use subledger::app::upkeep::rebuild::rebuild;
use subledger::domain::command::Command;

use super::ledger::{Ledger, account, connect, stripe_event};

fn customer(id: &str, event: &str, user: &str, created: i64) -> Value {
    let object = json!({"id": id, "object": "customer", "created": created, "metadata": {"user_id": user}});
    stripe_event(event, "customer.updated", created, object)
}

async fn owner(ledger: &Ledger, stripe_id: &str) -> String {
    ledger.one(&format!("select account_id from stripe_links where stripe_id = '{stripe_id}'")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_accounts_that_claim_a_customer_in_one_batch_do_not_split_it() {
    let mut ledger = Ledger::new(1).await;
    ledger.open("user_busy").await;
    for round in 0..5 {
        let cus = format!("cus_batch{round}");
        let events = [
            customer(&cus, &format!("evt_a{round}"), "user_a", 1_769_000_000),
            customer(&cus, &format!("evt_b{round}"), "user_b", 1_769_000_001),
            customer(&cus, &format!("evt_c{round}"), "user_a", 1_769_000_002),
        ];
        // While the head is held, the lane is busy with one command and the others gather.
        let blocker = connect(&ledger.url).await;
        blocker.batch_execute("begin; select from heads for update").await.expect("held");
        let busy = ledger.grant("user_busy", 1);
        let together = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let received = futures_util::future::join_all(events.iter().map(|event| ledger.receive(event)));
            let release = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                blocker.batch_execute("commit").await.expect("released");
            };
            tokio::join!(received, release).0
        };
        let (_, received) = tokio::join!(busy, together);
        assert!(
            received.iter().all(|received| matches!(received, Received::Applied | Received::Superseded)),
            "{received:?}"
        );
        let streams: i64 = ledger
            .one(&format!("select count(distinct account_id) from billing_objects where object_id = '{cus}'"))
            .await;
        assert_eq!(streams, 1, "the customer is known to one account only");
    }
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_made_elsewhere_at_the_same_moment_stands() {
    let mut ledger = Ledger::new(8).await;
    ledger.open("user_first").await;
    // Another writer has linked the customer, and is about to commit.
    let rival = connect(&ledger.url).await;
    rival.batch_execute("begin; insert into stripe_links select 'cus_race', account_id, partition_id from balances where account_id = 'user_first'").await.expect("written");
    let event = customer("cus_race", "evt_race", "user_second", 1_769_000_000);
    let commit = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rival.batch_execute("commit").await.expect("committed");
    };
    let (received, ()) = tokio::join!(ledger.receive(&event), commit);
    assert_eq!(received, Received::Applied);
    assert_eq!(owner(&ledger, "cus_race").await, "user_first");
    let applied: String = ledger.one("select account_id from billing_objects where object_id = 'cus_race'").await;
    assert_eq!(applied, "user_first");
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_ids_belong_to_two_accounts_is_parked_and_says_so() {
    let mut ledger = Ledger::new(4).await;
    ledger.receive(&customer("cus_1", "evt_1", "user_1", 1_769_000_000)).await;
    let intent = |event: &str, customer: Value, user: &str| {
        let object = json!({"id": "pi_2", "object": "payment_intent", "customer": customer, "status": "succeeded",
            "currency": "usd", "amount": 5, "created": 1, "metadata": {"user_id": user}});
        stripe_event(event, "payment_intent.succeeded", 1_769_000_000, object)
    };
    ledger.receive(&intent("evt_2", Value::Null, "user_2")).await;
    assert_eq!(owner(&ledger, "pi_2").await, "user_2");
    assert_eq!(ledger.receive(&intent("evt_3", json!("cus_1"), "user_1")).await, Received::Parked);
    let reason: String = ledger.one("select reason from inbox where stripe_event_id = 'evt_3'").await;
    assert!(
        reason.contains("cus_1 belongs to account user_1") || reason.contains("pi_2 belongs to account user_2"),
        "{reason}"
    );
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_asks_for_anothers_customer_is_refused_and_nobody_else_is() {
    let mut ledger = Ledger::new(1).await;
    ledger.receive(&customer("cus_1", "evt_1", "user_1", 1_769_000_000)).await;
    ledger.open("user_3").await;
    ledger.grant("user_3", 100).await;
    let open = || async {
        let open = Command::Open { stripe_customer_id: Some("cus_1".to_owned()) };
        ledger.service.execute(account("user_2"), open, None).await
    };
    let (opened, answer, again) = tokio::join!(open(), ledger.debit("user_3", 5), open());
    assert!(matches!(opened, Err(AppError::CustomerLinkedElsewhere { .. })), "{opened:?}");
    assert!(matches!(again, Err(AppError::CustomerLinkedElsewhere { .. })), "{again:?}");
    answer.result.expect("accepted");
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_found_by_what_the_log_does_not_name_are_found_after_a_rebuild_too() {
    let mut ledger = Ledger::new(16).await;
    // All that is heard of this customer at first is that a card left him.
    let method = json!({"id": "pm_1", "object": "payment_method", "type": "card", "customer": null, "created": 1});
    let mut detached = stripe_event("evt_1", "payment_method.detached", 1_769_000_000, method);
    detached["data"]["previous_attributes"] = json!({"customer": "cus_late"});
    assert_eq!(ledger.receive(&detached).await, Received::Applied);
    ledger.assert_clean().await;
    rebuild(&ledger.database, std::sync::Arc::new(|_, _| {})).await.expect("rebuilt");
    // Then who he is: the card's stream moves to the account.
    ledger.receive(&customer("cus_late", "evt_2", "user_late", 1_769_000_001)).await;
    assert_eq!(owner(&ledger, "pm_1").await, "user_late");
    assert_eq!(owner(&ledger, "cus_late").await, "user_late");
    ledger.assert_clean().await;
    ledger.stop().await;
}
