//! Metered usage on its way to Stripe: counted once there, whatever happens on the way.

use chrono::Duration;
use serde_json::{Value, json};
use subledger_simulator::Clock;

use crate::support::stripe_account::Stripe;
use crate::support::*;

const METER: &str = "generations";

fn catalog() -> String {
    SELLER.replacen("credit_cost = 1\n", &format!("credit_cost = 1\nstripe_meter = \"{METER}\"\n"), 1)
}

/// A Stripe with a meter, and an account `user_1` with a customer there.
struct Ground {
    stripe: Stripe,
    app: TestApp,
    meter: String,
    customer: String,
}

fn setup(stripe: &Stripe) -> Setup {
    Setup { stripe_api: Some(stripe.base()), catalog: catalog(), ..Setup::default() }
}

async fn start() -> Ground {
    let stripe = Stripe::start(Clock::Standing(START));
    let fields = [("display_name", "Generations"), ("event_name", METER), ("default_aggregation[formula]", "sum")];
    let meter = stripe.post("billing/meters", &fields)["id"].as_str().expect("an id").to_owned();
    let (customer, _) = stripe.subscribe(Some("user_1"), "one@example.com");
    let app = TestApp::with(setup(&stripe)).await;
    for event in stripe.all("events").iter().rev() {
        app.deliver(event).await;
    }
    Ground { stripe, app, meter, customer }
}

impl Ground {
    async fn debit(&self, key: &str, quantity: i64) {
        self.app.debit("user_1", key, json!({"feature": "generation", "quantity": quantity})).await.expect(201);
    }

    async fn record(&self, body: Value) {
        let record = with_feature(body);
        self.app.post("/v1/accounts/user_1/usage", record).await.expect(201);
    }

    /// Lets time pass, here and there.
    async fn pass(&self, by: Duration) {
        self.stripe.control("clock", json!({"by": {"seconds": by.num_seconds()}})).await;
        self.app.clock.advance(by);
    }

    /// What Stripe has counted since the start.
    fn counted(&self) -> f64 {
        let until = self.app.now() + 1;
        self.stripe.simulator.with_world(|world| world.usage(&self.meter, &self.customer, (START, until)))
    }

    async fn until_counted(&self, quantity: f64) {
        for _ in 0..1_500 {
            if self.counted() == quantity {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{} are counted, not {quantity}", self.counted());
    }

    async fn until_metric(&self, series: &str, value: f64) {
        for _ in 0..1_500 {
            if self.app.metric(series).await == value {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{series} is {}", self.app.metric(series).await);
    }
}

fn with_feature(mut body: Value) -> Value {
    body["feature"] = json!("generation");
    body
}

#[tokio::test]
async fn usage_is_counted_once_by_stripe_however_it_is_told() {
    let ground = start().await;
    ground.debit("d1", 3).await;
    ground.debit("d2", 4).await;
    ground.record(json!({"quantity": 5})).await;
    // Set to less than the 12 of the day: the difference is what is told.
    ground.record(json!({"quantity": 10, "action": "set"})).await;
    let hold =
        ground.app.post("/v1/accounts/user_1/credits/holds", json!({"feature": "generation", "quantity": 6})).await;
    let hold = hold.expect(201)["id"].as_str().expect("an id").to_owned();
    ground.app.post(&format!("/v1/holds/{hold}/capture"), json!({"quantity": 2})).await.expect(200);
    assert_eq!(ground.counted(), 0.0, "its window is not over");

    // The answer is lost, and a try later Stripe says that it has the event.
    ground
        .stripe
        .control("faults", json!({"kind": "server_error_after", "path": "billing/meter_events", "count": 4}))
        .await;
    ground.pass(Duration::minutes(17)).await;
    ground.until_metric("subledger_usage_reports_total{outcome=\"unavailable\"}", 1.0).await;
    ground.pass(Duration::minutes(2)).await;
    ground.until_metric("subledger_usage_reports_total{outcome=\"duplicate\"}", 1.0).await;
    assert_eq!(ground.counted(), 12.0);
    ground.until_metric("subledger_usage_oldest_pending_seconds", 0.0).await;

    // What comes late for a window that was told already is told by itself.
    ground.record(json!({"quantity": 8, "timestamp": rfc3339(START)})).await;
    ground.until_counted(20.0).await;
}

#[tokio::test]
async fn what_was_gathered_survives_a_restart_and_is_told_by_one_replica() {
    let ground = start().await;
    ground.debit("d1", 7).await;
    let gathered = "select coalesce(sum(quantity), 0)::bigint from usage_windows";
    let database = ground.app.database().await;
    for _ in 0..1_500 {
        if database.query_one(gathered, &[]).await.expect("a sum").get::<_, i64>(0) == 7 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // For the first replica time stands still; two that come after it tell of what it gathered.
    let elsewhere = || Setup { database_url: Some(ground.app.database_url.clone()), ..setup(&ground.stripe) };
    let replicas = [TestApp::with(elsewhere()).await, TestApp::with(elsewhere()).await];
    ground.stripe.control("clock", json!({"by": {"hours": 1}})).await;
    replicas.iter().for_each(|replica| replica.clock.advance(Duration::hours(1)));
    ground.until_counted(7.0).await;
    let sent: Vec<f64> = {
        let mut sent = Vec::new();
        for replica in &replicas {
            sent.push(replica.metric("subledger_usage_reports_total{outcome=\"reported\"}").await);
        }
        sent
    };
    assert!(sent.iter().sum::<f64>() <= 1.0, "{sent:?}");
}

#[tokio::test]
async fn a_periods_usage_is_told_as_soon_as_it_ends() {
    let ground = start().await;
    let subscription = ground.app.get("/v1/accounts/user_1/subscription").await.expect(200);
    let end = chrono::DateTime::parse_from_rfc3339(subscription["current_period_end"].as_str().expect("a time"));
    let end = end.expect("a time").timestamp();
    // A minute before the end, in the middle of a window.
    ground.stripe.control("clock", json!({"to": end - 60})).await;
    ground.app.clock.set(end - 60);
    ground.debit("d1", 9).await;
    ground.stripe.control("clock", json!({"to": end + 5})).await;
    ground.app.clock.set(end + 5);
    let renewed =
        ground.stripe.all("events").into_iter().find(|event| event["type"] == "customer.subscription.updated");
    assert_eq!(ground.app.deliver(&renewed.expect("it renewed")).await, "applied");
    ground.until_counted(9.0).await;
    let of_period =
        ground.stripe.simulator.with_world(|world| world.usage(&ground.meter, &ground.customer, (START, end)));
    assert_eq!(of_period, 9.0, "it counts in the period that it was used in");
}

#[tokio::test]
async fn what_is_too_old_is_parked_and_holds_nothing_back() {
    let ground = start().await;
    // An account that Stripe does not know.
    ground.app.put_account("user_2", json!({})).await.expect(201);
    ground.app.debit("user_2", "d1", json!({"feature": "generation", "quantity": 1})).await.expect(201);
    ground.debit("d2", 2).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_counted(2.0).await;
    ground.until_metric("subledger_usage_reports_total{outcome=\"no_customer\"}", 1.0).await;
    ground.pass(Duration::days(36)).await;
    ground.until_metric("subledger_usage_too_old", 1.0).await;
    let parked = "select account_id || ' ' || quantity from usage_reports where status = 'too_old'";
    let parked: String = ground.app.database().await.query_one(parked, &[]).await.expect("a report").get(0);
    assert_eq!(parked, "user_2 1");
    ground.app.grant("user_1", 10).await.expect(201);
    ground.debit("d3", 4).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_counted(6.0).await;
}

#[tokio::test]
async fn a_meter_that_does_not_exist_holds_nothing_back_and_is_found_once_it_does() {
    let ground = start().await;
    ground.stripe.post(&format!("billing/meters/{}/deactivate", ground.meter), &[]);
    ground.debit("d1", 5).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_metric("subledger_usage_reports_total{outcome=\"refused\"}", 1.0).await;
    ground.stripe.post(&format!("billing/meters/{}/reactivate", ground.meter), &[]);
    ground.pass(Duration::minutes(2)).await;
    ground.until_counted(5.0).await;
}

#[tokio::test]
async fn usage_that_is_set_to_less_is_taken_back_at_stripe() {
    let ground = start().await;
    ground.record(json!({"quantity": 9})).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_counted(9.0).await;
    // Reported already: the difference is an event of its own, below zero.
    ground.record(json!({"quantity": 4, "action": "set"})).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_counted(4.0).await;
    ground.record(json!({"quantity": 0, "action": "set"})).await;
    ground.pass(Duration::hours(1)).await;
    ground.until_counted(0.0).await;
    assert_eq!(ground.app.metric("subledger_usage_reports_total{outcome=\"refused\"}").await, 0.0);
}

/// A command beside a service leaves following the log to the service: its environment may be another.
#[tokio::test]
async fn a_command_reports_no_usage() {
    let stripe = Stripe::start(Clock::Standing(START));
    let app = TestApp::with(Setup { catalog: catalog(), ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let (code, output, errors) = stripe.run(Some(&app.database_url), &["account", "get", "user_1"]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    let followers = "select count(*) from cursors where name = 'usage_export'";
    let followers = app.database().await.query_one(followers, &[]).await.expect("a count");
    assert_eq!(followers.get::<_, i64>(0), 0, "the command began to follow the log");
}
