//! What account holders are told: once for each cause, as webhooks and by mail.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use subledger::app::mail::MailSettings;
use subledger::app::outbound::OutboundSettings;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::receiver::endpoint;
use crate::support::stripe::*;
use crate::support::*;

/// An invoice whose payment failed, at some attempt.
fn failed(kind: &str, attempt: i64) -> Value {
    let due = json!({
        "status": "open", "amount_paid": 0, "amount_remaining": 2_900, "attempt_count": attempt,
        "next_payment_attempt": START + 3 * 86_400, "status_transitions": {"paid_at": null},
        "billing_reason": "subscription_cycle",
    });
    event(kind, START, with(invoice("cus_1", "in_2", "sub_1", PRO, START), due))
}

fn trial(days: i64) -> Value {
    let trial = json!({"status": "trialing", "trial_end": day(days)});
    event("customer.subscription.updated", START, with(subscription("cus_1", "sub_2", PRO, START), trial))
}

fn ended() -> Value {
    let ended = json!({"status": "canceled", "ended_at": START + 60, "canceled_at": START});
    event("customer.subscription.deleted", START + 60, with(subscription("cus_1", "sub_1", PRO, START), ended))
}

fn told(received: &[Received], kind: &str) -> Vec<Value> {
    let kind = format!("notification.{kind}");
    received.iter().filter(|message| message.body["type"] == *kind).map(|message| message.body.clone()).collect()
}

/// Waits until everything so far has gone out: what is appended last comes last.
async fn settled(app: &TestApp, receiver: &Receiver) -> Vec<Received> {
    let before = receiver.received().await.len();
    let name = format!("last_{before}");
    app.put_account(&name, json!({})).await.expect(201);
    let is_last = |received: &Vec<Received>| received.iter().any(|message| message.body["account"] == *name);
    let received = eventually(async || receiver.received().await, is_last).await;
    let waiting = "select count(*) from webhook_deliveries where status = 'pending'";
    let database = app.database().await;
    let waiting = async || database.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0);
    eventually(waiting, |waiting| *waiting == 0).await;
    let _ = received;
    receiver.received().await
}

#[tokio::test]
async fn each_cause_is_told_once_however_often_stripe_tells_it() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1", "email": "ada@example.com"})).await.expect(201);
        let receiver = Receiver::start().await;
        endpoint(&app, &receiver.url(), &["notification.*", "account_opened"]).await;
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.clock.advance(chrono::Duration::seconds(120));
        let events = [
            failed("invoice.payment_failed", 1),
            failed("invoice.payment_failed", 2),
            failed("invoice.payment_action_required", 2),
            trial(3),
            event("refund.created", START, with(refund("pi_1", "re_1", 900, START), json!({"status": "pending"}))),
            event("refund.updated", START + 1, refund("pi_1", "re_1", 900, START)),
            ended(),
        ];
        for event in events.iter().chain(&events) {
            app.deliver(event).await;
        }
        // The same attempt and the same refund, told by other StripeEvents.
        let again = with(failed("invoice.payment_failed", 2), json!({"created": START + 5}));
        app.deliver(&again).await;
        app.deliver(&event(
            "charge.refund.updated",
            START + 2,
            with(refund("pi_1", "re_1", 900, START), json!({"metadata": {"a": "b"}})),
        ))
        .await;
        let received = settled(&app, &receiver).await;
        let failures = told(&received, "payment_failed");
        assert_eq!(failures.len(), 2, "{failures:#?}");
        let data = &failures[0]["data"];
        assert_eq!(
            (&data["stripe_invoice_id"], &data["amount"], &data["attempt"]),
            (&json!("in_2"), &json!(2_900), &json!(1))
        );
        assert_eq!(data["next_attempt_at"], rfc3339(START + 3 * 86_400));
        assert_eq!(told(&received, "action_required").len(), 1);
        let trial = told(&received, "trial_ending");
        assert_eq!((trial.len(), &trial[0]["data"]["trial_end"]), (1, &json!(rfc3339(START + 3 * 86_400))));
        let refunded = told(&received, "refunded");
        assert_eq!((refunded.len(), &refunded[0]["data"]["amount"]), (1, &json!(900)));
        let ended = told(&received, "subscription_ended");
        assert_eq!((ended.len(), &ended[0]["data"]["ended_at"]), (1, &json!(rfc3339(START + 60))));
        assert!(received.iter().all(|message| !String::from_utf8_lossy(&message.text).contains("ada@example.com")));
        assert_eq!(app.metric("subledger_notifications_total{type=\"notification.payment_failed\"}").await, 2.0);
    })
    .await;
}

#[tokio::test]
async fn a_trials_end_is_told_of_three_days_before_unless_nothing_follows_it() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url(), &["notification.trial_ending", "account_opened"]).await;
    let canceled = with(trial(14)["data"]["object"].clone(), json!({"id": "sub_3", "cancel_at_period_end": true}));
    app.deliver(&event("customer.subscription.created", START, canceled)).await;
    app.deliver(&trial(14)).await;
    app.clock.set(day(11) - 1);
    assert!(told(&settled(&app, &receiver).await, "trial_ending").is_empty());
    app.clock.set(day(11));
    let told_now = async || told(&receiver.received().await, "trial_ending");
    let first = eventually(told_now, |told| !told.is_empty()).await;
    assert_eq!(first[0]["data"], json!({"stripe_subscription_id": "sub_2", "trial_end": rfc3339(day(14))}));
    assert_eq!(told(&settled(&app, &receiver).await, "trial_ending").len(), 1);
}

#[tokio::test]
async fn what_was_long_ago_is_not_told() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url(), &["notification.*", "account_opened"]).await;
    app.clock.advance(chrono::Duration::days(20));
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.deliver(&ended()).await;
    let received = settled(&app, &receiver).await;
    assert!(told(&received, "subscription_ended").is_empty(), "{received:#?}");
}

#[tokio::test]
async fn a_balance_that_runs_low_is_told_once_until_it_was_topped_up() {
    let catalog = SELLER.replace("credits = 10\n", "credits = 10\nlow_balance = 5\n");
    assert!(catalog.contains("low_balance"));
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url(), &["notification.low_balance", "account_opened"]).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let low = async || told(&settled(&app, &receiver).await, "low_balance");
    app.debit("user_1", "key-1", json!({"amount": 5})).await.expect(201);
    assert!(low().await.is_empty(), "5 are left, which is enough");
    app.debit("user_1", "key-2", json!({"amount": 1})).await.expect(201);
    app.debit("user_1", "key-3", json!({"amount": 1})).await.expect(201);
    let first = low().await;
    assert_eq!(first.len(), 1, "{first:#?}");
    let data = &first[0]["data"];
    assert_eq!((&data["threshold"], &data["plan"]), (&json!(5), &json!("free")));
    assert!(data["available"].as_i64().is_some_and(|available| available < 5), "{data}");
    app.grant("user_1", 10).await.expect(201);
    assert_eq!(low().await.len(), 1);
    // A hold takes as a debit does.
    let held = app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 10})).await.expect(201);
    assert_eq!(low().await.len(), 2);
    app.post(&format!("/v1/holds/{}/release", held["id"].as_str().expect("an id")), json!({})).await.expect(200);
    assert_eq!(low().await.len(), 2);
}

#[tokio::test]
async fn an_account_may_have_a_threshold_of_its_own() {
    let catalog = SELLER.replace("credits = 10\n", "credits = 10\nlow_balance = 5\n");
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url(), &["notification.low_balance", "account_opened"]).await;
    let opened = app.put_account("user_1", json!({})).await.expect(201);
    assert_eq!(opened["low_balance"], Value::Null);
    let set = async |threshold: Value| app.put_account("user_1", json!({"low_balance": threshold})).await;
    let low = async || told(&settled(&app, &receiver).await, "low_balance");
    // Never, whatever the plan says.
    let never = set(json!(0)).await.expect(200);
    assert_eq!(never["low_balance"], 0);
    app.debit("user_1", "key-1", json!({"amount": 7})).await.expect(201);
    assert!(low().await.is_empty(), "3 are left of the plan's 5, and nobody wants to know");
    // Fewer are left already.
    set(json!(4)).await.expect(200);
    let first = low().await;
    assert_eq!((first.len(), &first[0]["data"]), (1, &json!({"available": 3, "threshold": 4, "plan": "free"})));
    app.debit("user_1", "key-2", json!({"amount": 1})).await.expect(201);
    assert_eq!(low().await.len(), 1, "told once");
    // What is set again as it is changes nothing; what is not mentioned stays.
    let shown = app.get("/v1/accounts/user_1").await.expect(200);
    set(json!(4)).await.expect(200);
    assert_eq!(app.get("/v1/accounts/user_1").await.expect(200), shown);
    assert_eq!(app.put_account("user_1", json!({"metadata": {}})).await.expect(200)["low_balance"], 4);
    // Topped up beyond the account's threshold, and spent again, down to less than the plan's.
    app.grant("user_1", 3).await.expect(201);
    app.debit("user_1", "key-3", json!({"amount": 1})).await.expect(201);
    assert_eq!(low().await.len(), 1);
    let plans = set(Value::Null).await.expect(200);
    assert_eq!(plans["low_balance"], Value::Null);
    let again = low().await;
    assert_eq!((again.len(), &again[1]["data"]["threshold"]), (2, &json!(5)));
    for wrong in [json!(-1), json!(1_000_000_000_001_i64)] {
        let body = app.call(reqwest::Method::PUT, "/v1/accounts/user_1").json(json!({"low_balance": wrong}));
        let problem = body.send().await.problem(400, "invalid_parameter");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with("low_balance: ")), "{problem}");
    }
}

#[tokio::test]
async fn a_trial_that_is_over_is_not_told_of_when_its_beginning_comes_late() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url(), &["notification.trial_ending", "account_opened"]).await;
    let trial = trial(14)["data"]["object"].clone();
    let converted = with(trial.clone(), json!({"status": "active"}));
    app.deliver(&event("customer.subscription.updated", START + 60, converted)).await;
    assert_eq!(app.deliver(&event("customer.subscription.created", START, trial)).await, "applied");
    app.clock.set(day(12));
    assert!(told(&settled(&app, &receiver).await, "trial_ending").is_empty());
}

/// A mail as it came in.
#[derive(Debug, Clone, Default)]
struct Mail {
    to: String,
    text: String,
}

/// What an SMTP server does with a message once it has it.
type Verdict = Arc<dyn Fn(usize) -> Option<&'static str> + Send + Sync>;

/// The smallest SMTP server there is. What it answers to each message, a test decides; without an answer it hangs up.
struct Post {
    address: std::net::SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl Post {
    async fn start(verdict: Verdict) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let kept = Arc::clone(&mails);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept), Arc::clone(&verdict)));
            }
        });
        Self { address, mails }
    }

    fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settings(&self) -> OutboundSettings {
        let mail = MailSettings {
            smtp_url: format!("smtp://{}", self.address),
            from: "Example <billing@example.com>".to_owned(),
        };
        OutboundSettings {
            is_at_work: true,
            allow_private_webhooks: true,
            mail: Some(mail),
            ..OutboundSettings::default()
        }
    }
}

async fn serve(stream: TcpStream, mails: Arc<Mutex<Vec<Mail>>>, verdict: Verdict) -> Option<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut mail = Mail::default();
    writer.write_all(b"220 post\r\n").await.ok()?;
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match line.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "RCPT" => {
                mail.to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok"
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await.ok()?;
                while let Ok(Some(line)) = lines.next_line().await
                    && line != "."
                {
                    mail.text.push_str(&line);
                    mail.text.push('\n');
                }
                let number = {
                    let mut mails = mails.lock().unwrap_or_else(PoisonError::into_inner);
                    mails.push(std::mem::take(&mut mail));
                    mails.len()
                };
                verdict(number)?
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").await.ok()?;
                return None;
            }
            _ => "250 ok",
        };
        writer.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
    None
}

async fn mail_status(app: &TestApp) -> Vec<(String, String)> {
    let rows = app.database().await.query("select type, mail_status from notifications order by type", &[]).await;
    rows.expect("rows").iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// An account with an address, a failed payment, and an end; and one without an address that ends, too.
async fn play(app: &TestApp) {
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1", "email": "ada@example.com"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.clock.advance(chrono::Duration::seconds(120));
    app.deliver(&failed("invoice.payment_failed", 1)).await;
}

#[tokio::test]
async fn mail_goes_to_the_profiles_address_in_text_and_html_once() {
    let post = Post::start(Arc::new(|_| Some("250 taken"))).await;
    let app = TestApp::with(Setup { outbound: post.settings(), ..Setup::default() }).await;
    // The cursor begins with what comes next.
    eventually(async || cursors(&app).await, |count| *count == 1).await;
    play(&app).await;
    app.deliver(&failed("invoice.payment_failed", 1)).await;
    eventually(async || mail_status(&app).await, |rows| rows.iter().any(|(_, status)| status == "sent")).await;
    let ended = json!({"status": "canceled", "ended_at": START, "canceled_at": START});
    let nobody = with(subscription("cus_nobody", "sub_9", PRO, START), ended);
    app.deliver(&event("customer.subscription.deleted", START, nobody)).await;
    let rows = eventually(
        async || mail_status(&app).await,
        |rows| rows.len() == 2 && rows.iter().all(|(_, status)| ["sent", "no_address"].contains(&status.as_str())),
    );
    let rows = rows.await;
    assert_eq!(rows[1], ("notification.subscription_ended".to_owned(), "no_address".to_owned()));
    let mails = post.mails();
    assert_eq!((mails.len(), mails[0].to.as_str()), (1, "ada@example.com"));
    let text = &mails[0].text;
    for part in ["From: Example <billing@example.com>", "Subject: Your payment failed", "29.00 USD", "text/html", "<p>"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(app.metric("subledger_mails_total{outcome=\"sent\"}").await, 1.0);
}

async fn cursors(app: &TestApp) -> i64 {
    app.database().await.query_one("select count(*) from cursors", &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn a_server_that_asks_for_patience_is_asked_again_and_one_that_hangs_up_is_not() {
    let verdict = |number: usize| match number {
        1 => Some("451 later"),
        2 => Some("250 taken"),
        // The message is with the server, and nobody knows what became of it.
        _ => None,
    };
    let post = Post::start(Arc::new(verdict)).await;
    let app = TestApp::with(Setup { outbound: post.settings(), ..Setup::default() }).await;
    eventually(async || cursors(&app).await, |count| *count == 1).await;
    play(&app).await;
    eventually(async || post.mails().len(), |count| *count == 1).await;
    eventually(async || mail_status(&app).await, |rows| rows[0].1 == "pending").await;
    app.clock.advance(chrono::Duration::minutes(6));
    eventually(async || mail_status(&app).await, |rows| rows[0].1 == "sent").await;
    app.deliver(&failed("invoice.payment_action_required", 1)).await;
    let rows = eventually(async || mail_status(&app).await, |rows| rows[0].1 == "failed").await;
    app.clock.advance(chrono::Duration::days(1));
    app.deliver(&failed("invoice.payment_failed", 3)).await;
    eventually(async || mail_status(&app).await, |rows| rows.len() == 3 && rows[2].1 == "failed").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(post.mails().len(), 4, "nothing that may have arrived is sent again");
}

#[tokio::test]
async fn mail_that_was_claimed_when_the_process_died_is_not_sent_again() {
    let post = Post::start(Arc::new(|_| Some("250 taken"))).await;
    let app = TestApp::with(Setup { outbound: post.settings(), ..Setup::default() }).await;
    eventually(async || cursors(&app).await, |count| *count == 1).await;
    let claimed = "insert into notifications values ('payment_failed:in_1/1', 'ntf_1', 'notification.payment_failed',
         'user_1', 0, 1, 1, $1, '{}', 'claimed', 1, $1)";
    let now = chrono::DateTime::from_timestamp(START, 0).expect("a time");
    app.database().await.execute(claimed, &[&now]).await.expect("claimed");
    play(&app).await;
    eventually(async || mail_status(&app).await, |rows| rows.iter().any(|(_, status)| status == "sent")).await;
    let statuses: Vec<String> = mail_status(&app).await.into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses.iter().filter(|status| *status == "claimed").count(), 1, "{statuses:?}");
    // Once nobody can be at it any more, somebody hears of it.
    assert_eq!(app.metric("subledger_mails_total{outcome=\"failed\"}").await, 0.0);
    app.clock.advance(chrono::Duration::minutes(10));
    eventually(async || mail_status(&app).await, |rows| rows.iter().any(|(_, status)| status == "failed")).await;
    eventually(async || app.metric("subledger_mails_total{outcome=\"failed\"}").await, |count| *count == 1.0).await;
    assert_eq!(post.mails().len(), 1);
}
