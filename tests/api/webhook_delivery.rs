//! Outbound webhooks on their way: signed, in order, tried again, held back for nobody else, given up, sent again.

use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use subledger::app::outbound::OutboundSettings;
use subledger::clock::Clock;
use subledger::domain::message::RETRY_AFTER_S;
use wiremock::ResponseTemplate;

use crate::support::receiver::endpoint;
use crate::support::*;

/// Ids of what an endpoint was sent about an account, in the order it came.
fn ids_of(received: &[Received], account: &str) -> Vec<String> {
    let of_account = received.iter().filter(|message| message.body["account"] == account);
    of_account.map(|message| message.id().to_owned()).collect()
}

async fn deliveries(app: &TestApp, endpoint: &str, query: &str) -> Vec<Value> {
    let page = app.get(&format!("/v1/webhook-endpoints/{endpoint}/deliveries?limit=500{query}")).await.expect(200);
    page["data"].as_array().expect("rows").clone()
}

async fn delivery(app: &TestApp, endpoint: &str, message: &str) -> Value {
    app.get(&format!("/v1/webhook-endpoints/{endpoint}/deliveries/{message}")).await.expect(200)
}

/// Opens accounts, each with the free plan's month, so that what they are granted from then on is one event each.
async fn open_accounts(app: &TestApp, names: &[&str]) {
    for name in names {
        app.put_account(name, json!({})).await.expect(201);
        app.grant(name, 1).await.expect(201);
    }
}

fn time_of(value: &Value) -> chrono::DateTime<chrono::Utc> {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

/// Waits until a delivery has had so many attempts.
async fn after_attempts(app: &TestApp, endpoint: &str, message: &str, attempts: u64) -> Value {
    eventually(async || delivery(app, endpoint, message).await, |row| row["attempts"].as_u64() >= Some(attempts)).await
}

#[tokio::test]
async fn what_is_sent_is_verified_by_others() {
    on_both(async |app: TestApp| {
        // Their verifier reads this machine's clock.
        app.clock.set(chrono::Utc::now().timestamp());
        open_accounts(&app, &["user_1"]).await;
        let receiver = Receiver::start().await;
        let (id, secret) = endpoint(&app, &receiver.url(), &["credits_*"]).await;
        let granted = app.grant("user_1", 5).await.expect(201);
        app.put_account("user_1", json!({"low_balance": 1})).await.expect(200);
        app.debit("user_1", "key-1", json!({"amount": 2})).await.expect(201);
        let received = receiver.wait_for(2).await;
        let verifier = standardwebhooks::Webhook::new(&secret).expect("a secret");
        for message in &received {
            verifier.verify(&message.text, &message.headers).expect("signed by us");
            assert_eq!(message.header("content-type"), "application/json");
            assert_eq!(message.id(), message.body["id"]);
        }
        let (first, second) = (&received[0].body, &received[1].body);
        assert_eq!((&first["type"], &first["account"]), (&json!("credits_granted"), &json!("user_1")));
        assert_eq!((&first["position"], &first["data"]["lot"]["granted"]), (&granted["position"], &json!(5)));
        assert_eq!((&second["type"], &second["data"]["amount"]), (&json!("credits_debited"), &json!(2)));
        let rows = eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 2).await;
        assert!(rows.iter().all(|row| row["attempts"] == 1), "{rows:?}");
        assert_eq!(receiver.received().await.len(), 2, "nothing from before, nothing else, nothing twice");
        assert_eq!(app.metric("subledger_webhook_attempts_total{outcome=\"delivered\"}").await, 2.0);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_fails_holds_back_its_accounts_later_ones_and_nobody_elses() {
    let app = TestApp::start().await;
    open_accounts(&app, &["user_1", "user_2"]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|body| ResponseTemplate::new(if body["account"] == "user_1" { 500 } else { 200 }));
    let (id, _) = endpoint(&app, &receiver.url(), &["credits_granted"]).await;
    for amount in 1..=4 {
        app.grant("user_1", amount).await.expect(201);
        app.grant("user_2", amount).await.expect(201);
    }
    let others = async || ids_of(&receiver.received().await, "user_2");
    eventually(others, |ids| ids.len() == 4).await;
    let waiting = eventually(
        async || deliveries(&app, &id, "&status=pending").await,
        |rows| rows.len() == 4 && rows.iter().any(|row| row["attempts"] == 1),
    );
    let waiting = waiting.await;
    assert!(waiting.iter().all(|row| row["account"] == "user_1"), "{waiting:?}");
    assert_eq!(ids_of(&receiver.received().await, "user_1").len(), 1, "the later ones were not tried");
    let of_account = deliveries(&app, &id, "&account=user_2").await;
    assert!(of_account.len() == 4 && of_account.iter().all(|row| row["status"] == "delivered"), "{of_account:?}");
    receiver.answer_status(200);
    app.clock.advance(chrono::Duration::seconds(7));
    eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 8).await;
    let received = receiver.received().await;
    let positions = |account: &str| -> Vec<i64> {
        let of_account = received.iter().filter(|message| message.body["account"] == account);
        of_account.map(|message| message.body["position"].as_i64().expect("a position")).collect()
    };
    assert!(positions("user_1").is_sorted() && positions("user_1").len() == 5, "{:?}", positions("user_1"));
    assert!(positions("user_2").is_sorted() && positions("user_2").len() == 4, "{:?}", positions("user_2"));
}

#[tokio::test]
async fn endpoints_that_are_dead_or_hang_delay_neither_others_nor_the_writers() {
    let app = TestApp::start().await;
    let (live, hanging) = (Receiver::start().await, Receiver::start().await);
    hanging.answer(|_| ResponseTemplate::new(200).set_delay(Duration::from_secs(600)));
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let (dead_id, _) = endpoint(&app, &format!("http://{dead}/"), &[]).await;
    endpoint(&app, &hanging.url(), &[]).await;
    endpoint(&app, &live.url(), &["account_opened"]).await;
    // More accounts than an endpoint has places.
    for n in 0..20 {
        app.put_account(&format!("user_{n}"), json!({})).await.expect(201);
    }
    let received = live.wait_for(20).await;
    assert!(hanging.received().await.len() <= 8, "no more than its places");
    let ids: BTreeSet<&str> = received.iter().map(Received::id).collect();
    assert_eq!((ids.len(), received.len()), (20, 20));
    let failed = eventually(
        async || deliveries(&app, &dead_id, "").await,
        |rows| rows.iter().filter(|row| row["attempts"] == 1).count() >= 20,
    );
    let message = failed.await[0]["message_id"].as_str().expect("an id").to_owned();
    let attempt = delivery(&app, &dead_id, &message).await["attempt_log"][0].clone();
    assert_eq!((&attempt["outcome"], &attempt["status_code"]), (&json!("unreachable"), &Value::Null), "{attempt}");
}

/// Nobody hears of it when a process dies with a message in its hands.
#[tokio::test]
async fn what_a_process_claimed_and_never_delivered_another_delivers_after_a_minute() {
    let idle = OutboundSettings { allow_private_webhooks: true, ..OutboundSettings::default() };
    let app = TestApp::with(Setup { outbound: idle, ..Setup::default() }).await;
    let at_work = || Setup { database_url: Some(app.database_url.clone()), ..Setup::default() };
    open_accounts(&app, &["user_1", "user_2"]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| ResponseTemplate::new(204).set_delay(Duration::from_secs(600)));
    let dying = TestApp::with(at_work()).await;
    let (id, _) = endpoint(&app, &receiver.url(), &["credits_granted"]).await;
    app.grant("user_1", 1).await.expect(201);
    let message = receiver.wait_for(1).await[0].id().to_owned();
    drop(dying);
    receiver.answer_status(204);
    let other = TestApp::with(at_work()).await;
    other.clock.advance(chrono::Duration::seconds(59));
    // What comes for another account shows that it was looked.
    app.grant("user_2", 1).await.expect(201);
    let received = receiver.wait_for(2).await;
    assert_eq!(ids_of(&received, "user_1").len(), 1, "its claim holds");
    other.clock.advance(chrono::Duration::seconds(2));
    let row = eventually(async || delivery(&app, &id, &message).await, |row| row["status"] == "delivered").await;
    assert_eq!(row["attempts"], 1, "of the first attempt nobody knows");
    assert_eq!(ids_of(&receiver.received().await, "user_1"), [message.clone(), message]);
}

#[tokio::test]
async fn what_fails_is_tried_ten_times_over_days_then_dead_and_can_be_tried_again() {
    let app = TestApp::start().await;
    open_accounts(&app, &["user_1"]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| ResponseTemplate::new(503).set_body_string("we are\n\u{0}sorry"));
    let (id, _) = endpoint(&app, &receiver.url(), &["credits_granted"]).await;
    app.grant("user_1", 1).await.expect(201);
    let message = receiver.wait_for(1).await[0].id().to_owned();
    for (attempt, wait) in (1_u64..).zip(RETRY_AFTER_S) {
        let row = after_attempts(&app, &id, &message, attempt).await;
        assert_eq!((&row["status"], &row["attempts"]), (&json!("pending"), &json!(attempt)));
        let in_ms = (time_of(&row["next_attempt_at"]) - app.clock.now()).num_milliseconds();
        assert!((wait * 1_000..=wait * 1_200).contains(&in_ms), "attempt {attempt}: {in_ms} ms");
        app.clock.advance(chrono::Duration::seconds(wait * 6 / 5 + 1));
    }
    let dead = after_attempts(&app, &id, &message, 10).await;
    assert_eq!((&dead["status"], &dead["next_attempt_at"]), (&json!("dead"), &Value::Null));
    let log = dead["attempt_log"].as_array().expect("attempts");
    assert_eq!(log.len(), 10);
    let (code, response) = (&log[0]["status_code"], &log[0]["response"]);
    assert_eq!((code, response), (&json!(503), &json!("we aresorry")), "what cannot be shown is left out");
    let headers = receiver.received().await;
    assert!(headers.iter().all(|received| received.id() == message), "the id stays the same");
    eventually(async || app.metric("subledger_webhook_dead_letters_total").await, |count| *count == 1.0).await;
    assert_eq!(app.metric("subledger_webhook_deliveries{status=\"dead\"}").await, 1.0);
    // It holds nothing back any more.
    receiver.answer_status(200);
    app.grant("user_1", 2).await.expect(201);
    eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 1).await;
    let retry = format!("/v1/webhook-endpoints/{id}/deliveries/{message}/retry");
    app.call(Method::POST, &retry).send().await.expect(202);
    let row = eventually(async || delivery(&app, &id, &message).await, |row| row["status"] == "delivered").await;
    assert_eq!(row["attempt_log"].as_array().expect("attempts").len(), 11);
}

#[tokio::test]
async fn an_endpoint_that_fails_for_days_is_disabled_and_the_others_are_told() {
    let app = TestApp::start().await;
    let (failing, other) = (Receiver::start().await, Receiver::start().await);
    failing.answer_status(500);
    let (id, _) = endpoint(&app, &failing.url(), &["account_opened"]).await;
    endpoint(&app, &other.url(), &["notification.*"]).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let first = failing.wait_for(1).await[0].id().to_owned();
    after_attempts(&app, &id, &first, 1).await;
    app.clock.advance(chrono::Duration::days(6));
    let look = async || app.get(&format!("/v1/webhook-endpoints/{id}")).await.expect(200);
    let disabled = eventually(look, |row| row["status"] == "disabled").await;
    assert_eq!(disabled["disabled_reason"], "failing");
    let told = other.wait_for(1).await[0].body.clone();
    assert_eq!(told["type"], "notification.webhook_endpoint_disabled");
    assert_eq!((&told["data"]["webhook_endpoint_id"], &told["data"]["reason"]), (&json!(id), &json!("failing")));
    eventually(async || app.metric("subledger_webhook_endpoints_disabled_total").await, |count| *count == 1.0).await;
    assert_eq!(app.metric("subledger_webhook_endpoints{status=\"disabled\"}").await, 1.0);
    let at = format!("/v1/webhook-endpoints/{id}");
    for act in [format!("{at}/deliveries/{first}/retry"), format!("{at}/replay")] {
        app.post(&act, json!({"since": rfc3339(START)})).await.problem(409, "webhook_endpoint_disabled");
    }
    // What happens meanwhile is for those who ask for it.
    app.put_account("user_2", json!({})).await.expect(201);
    other.answer_status(200);
    failing.answer_status(200);
    let enabled = app.call(Method::PATCH, &at).json(json!({"enabled": true})).send().await.expect(200);
    assert_eq!((&enabled["failing_since"], &enabled["disabled_reason"]), (&Value::Null, &Value::Null));
    eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 1).await;
    app.post(&format!("{at}/replay"), json!({"since": disabled["disabled_at"]})).await.expect(202);
    let rows = eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 2).await;
    assert_eq!(rows.iter().filter(|row| row["account"] == "user_2").count(), 1, "{rows:?}");
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_gone_is_disabled_at_once_and_keeps_what_waits() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    receiver.answer_status(410);
    let (id, _) = endpoint(&app, &receiver.url(), &["account_opened"]).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let look = async || app.get(&format!("/v1/webhook-endpoints/{id}")).await.expect(200);
    eventually(look, |row| row["disabled_reason"] == "gone").await;
    receiver.answer_status(204);
    let enable = json!({"enabled": true});
    app.call(Method::PATCH, &format!("/v1/webhook-endpoints/{id}")).json(enable).send().await.expect(200);
    eventually(async || deliveries(&app, &id, "").await, |rows| rows[0]["status"] == "delivered").await;
}

#[tokio::test]
async fn a_receiver_may_ask_for_patience_and_redirects_are_not_followed() {
    let app = TestApp::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.answer(|_| ResponseTemplate::new(429).insert_header("retry-after", "600"));
    let (id, _) = endpoint(&app, &receiver.url(), &["account_opened"]).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let message = receiver.wait_for(1).await[0].id().to_owned();
    let row = after_attempts(&app, &id, &message, 1).await;
    assert_eq!(row["next_attempt_at"], rfc3339(app.now() + 600));
    let away = elsewhere.url();
    receiver.answer(move |_| ResponseTemplate::new(307).insert_header("location", away.as_str()));
    app.clock.advance(chrono::Duration::seconds(600));
    let row = after_attempts(&app, &id, &message, 2).await;
    let attempt = &row["attempt_log"][1];
    assert_eq!((&attempt["outcome"], &attempt["status_code"]), (&json!("refused"), &json!(307)));
    assert!(attempt["problem"].as_str().is_some_and(|problem| problem.contains("redirects")), "{attempt}");
    assert!(elsewhere.received().await.is_empty());
}

#[tokio::test]
async fn while_a_secret_is_rotated_both_sign() {
    let app = TestApp::start().await;
    open_accounts(&app, &["user_1"]).await;
    let receiver = Receiver::start().await;
    let (id, old) = endpoint(&app, &receiver.url(), &["credits_granted"]).await;
    let rotate = format!("/v1/webhook-endpoints/{id}/rotate-secret");
    let rotated = app.call(Method::POST, &rotate).json(json!({"overlap_seconds": 60})).send().await.expect(200);
    assert_eq!(rotated["previous_expires_at"], rfc3339(app.now() + 60));
    let new = rotated["secret"].as_str().expect("a secret").to_owned();
    let is_signed_by = |message: &Received, secret: &str| {
        let theirs = standardwebhooks::Webhook::new(secret).expect("a secret");
        let at = message.header("webhook-timestamp").parse().expect("seconds");
        let expected = theirs.sign(message.id(), at, &message.text).expect("signed");
        message.header("webhook-signature").split(' ').any(|signature| signature == expected)
    };
    app.grant("user_1", 1).await.expect(201);
    let during = receiver.wait_for(1).await[0].clone();
    assert!(is_signed_by(&during, &old) && is_signed_by(&during, &new));
    // Else its claim could run out before its delivery is on record.
    eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 1).await;
    app.clock.advance(chrono::Duration::seconds(61));
    app.grant("user_1", 2).await.expect(201);
    let after = receiver.wait_for(2).await[1].clone();
    assert!(!is_signed_by(&after, &old) && is_signed_by(&after, &new));
    // At once, for a secret that became known.
    let rotated = app.call(Method::POST, &rotate).json(json!({"overlap_seconds": 0})).send().await.expect(200);
    app.grant("user_1", 3).await.expect(201);
    let last = receiver.wait_for(3).await[2].clone();
    assert!(!is_signed_by(&last, &new) && is_signed_by(&last, rotated["secret"].as_str().expect("a secret")));
}

#[tokio::test]
async fn what_lies_behind_is_sent_again_from_a_place_or_a_time() {
    on_both(async |app: TestApp| {
        open_accounts(&app, &["user_0", "user_1", "user_2"]).await;
        app.clock.advance(chrono::Duration::seconds(60));
        let middle = app.get("/v1/events?limit=1000").await.expect(200)["next_cursor"].clone();
        let halfway = app.now();
        for n in 0..3 {
            app.grant(&format!("user_{n}"), 1).await.expect(201);
            app.grant(&format!("user_{n}"), 2).await.expect(201);
        }
        let receiver = Receiver::start().await;
        let (id, _) = endpoint(&app, &receiver.url(), &["account_opened", "credits_granted"]).await;
        let replay = format!("/v1/webhook-endpoints/{id}/replay");
        app.post(&replay, json!({"after": middle})).await.expect(202);
        let late = receiver.wait_for(6).await;
        assert!(
            late.iter().all(|message| message.body["type"] == "credits_granted"),
            "only what lies behind the cursor"
        );
        app.post(&replay, json!({"since": rfc3339(START)})).await.expect(202);
        let all = receiver.wait_for(21).await;
        for n in 0..3 {
            let ids = ids_of(&all[6..], &format!("user_{n}"));
            let again = ids_of(&late, &format!("user_{n}"));
            assert_eq!((ids.len(), &ids[3..]), (5, &again[..]), "in order, under the same ids");
        }
        app.post(&replay, json!({"since": rfc3339(halfway)})).await.expect(202);
        let last = receiver.wait_for(27).await;
        assert!(last[21..].iter().all(|message| message.body["type"] == "credits_granted"));
        let rows = eventually(async || deliveries(&app, &id, "&status=delivered").await, |rows| rows.len() == 15).await;
        assert_eq!(rows.len(), 15, "one row for each message");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_leads_into_this_network_is_not_called() {
    let outbound = OutboundSettings { is_at_work: true, ..OutboundSettings::default() };
    let app = TestApp::with(Setup { outbound, ..Setup::default() }).await;
    let receiver = Receiver::start().await;
    let port = receiver.url().rsplit_once(':').expect("a port").1.to_owned();
    let (id, _) = endpoint(&app, &format!("https://localhost:{port}"), &["account_opened"]).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let rows = eventually(async || deliveries(&app, &id, "").await, |rows| rows.iter().any(|row| row["attempts"] == 1));
    let message = rows.await[0]["message_id"].as_str().expect("an id").to_owned();
    let attempt = delivery(&app, &id, &message).await["attempt_log"][0].clone();
    assert_eq!(attempt["outcome"], "blocked", "{attempt}");
    assert!(receiver.received().await.is_empty());
    assert_eq!(app.metric("subledger_webhook_attempts_total{outcome=\"blocked\"}").await, 1.0);
    // A row that came to be otherwise, or before the setting changed, is looked at as well.
    let sneak = "update webhook_endpoints set url = $1";
    app.database().await.execute(sneak, &[&format!("https://127.0.0.1:{port}")]).await.expect("changed");
    app.clock.advance(chrono::Duration::seconds(7));
    let row = after_attempts(&app, &id, &message, 2).await;
    assert_eq!(row["attempt_log"][1]["outcome"], "blocked", "{row}");
    assert!(receiver.received().await.is_empty());
}
