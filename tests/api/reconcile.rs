//! `/v1/admin/reconcile`, and the commands `reconcile` and `backfill`: what webhooks did not bring is found and repaired.

use chrono::Duration;
use reqwest::Method;
use serde_json::{Value, json};
use subledger_simulator::Clock;

use crate::support::stripe::*;
use crate::support::stripe_account::Stripe;
use crate::support::*;

const RECONCILE: &str = "/v1/admin/reconcile";

async fn start() -> (Stripe, TestApp) {
    let stripe = Stripe::start(Clock::Standing(START));
    let app = TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await;
    (stripe, app)
}

/// The kinds of objects that are compared.
const COUNTS: [&str; 8] = [
    "customers",
    "subscriptions",
    "invoices",
    "checkout_sessions",
    "payment_intents",
    "charges",
    "refunds",
    "disputes",
];

/// Runs it, and waits for what came of it.
pub async fn reconcile(app: &TestApp, options: Value) -> Value {
    app.call(Method::POST, RECONCILE).json(options).send().await.expect(202);
    loop {
        let job = app.get(RECONCILE).await.expect(200);
        match job["status"].as_str() {
            Some("running") => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Some("done") => {
                let result = &job["result"];
                let compared = COUNTS.map(|kind| result[kind].as_u64().expect("a count"));
                assert_eq!(job["objects"].as_u64(), Some(compared.iter().sum()));
                return result.clone();
            }
            _ => panic!("{job}"),
        }
    }
}

pub fn counts(report: &Value) -> (u64, u64) {
    (report["differing"].as_u64().expect("a count"), report["repaired"].as_u64().expect("a count"))
}

pub fn finding<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {report}"))
}

async fn reconciled_events(app: &TestApp) -> i64 {
    let count = "select count(*) from events where type = 'reconciled'";
    app.database().await.query_one(count, &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn nothing_is_compared_without_a_key() {
    let app = TestApp::start().await;
    app.get(RECONCILE).await.problem(404, "not_found");
    app.call(Method::POST, RECONCILE).json(json!({})).send().await.problem(503, "stripe_not_configured");
}

#[tokio::test]
async fn deliveries_that_were_dropped_are_found_and_repaired() {
    let (stripe, app) = start().await;
    let (customer, subscription) = stripe.subscribe(Some("user_1"), "one@example.com");
    stripe.subscribe(None, "two@example.com");
    app.call(Method::POST, RECONCILE).json(json!({"accounts": 1})).send().await.problem(400, "invalid_body");

    // A dry run changes nothing.
    let looked = reconcile(&app, json!({"dry_run": true})).await;
    assert_eq!(counts(&looked), (10, 0), "{looked:#}");
    app.get("/v1/accounts/user_1").await.problem(404, "account_not_found");
    assert_eq!(reconciled_events(&app).await, 0);
    let found = finding(&looked, "subscription");
    assert_eq!(found["finding"], "not_in_ledger");
    assert_eq!(found["cause"], "late", "it is of this very moment");

    // Stripe stumbles meanwhile.
    for kind in ["server_error", "rate_limited", "cut_after"] {
        stripe.control("faults", json!({"kind": kind, "method": "GET", "count": 2})).await;
    }
    app.clock.advance(Duration::hours(2));
    let repaired = reconcile(&app, json!({})).await;
    assert_eq!(counts(&repaired), (10, 10), "{repaired:#}");
    let cause = finding(&repaired, "subscription");
    assert_eq!(cause["cause"], "missing");
    assert!(
        cause["stripe_event_type"].as_str().is_some_and(|name| name.starts_with("customer.subscription.")),
        "{cause}"
    );
    let shown = app.get("/v1/accounts/user_1/subscription").await.expect(200);
    assert_eq!((&shown["stripe_subscription_id"], &shown["plan"]), (&json!(subscription), &json!("starter")));
    assert_eq!(app.available("user_1").await, STARTER_CREDITS, "its invoice is paid");
    assert_eq!(app.available(&customer).await, STARTER_CREDITS);
    assert!(reconciled_events(&app).await >= 10);

    let events =
        app.database().await.query_one("select count(*) from events", &[]).await.expect("a count").get::<_, i64>(0);
    assert_eq!(counts(&reconcile(&app, json!({})).await), (0, 0));
    let after =
        app.database().await.query_one("select count(*) from events", &[]).await.expect("a count").get::<_, i64>(0);
    assert_eq!(events, after, "nothing is left to say");
}

#[tokio::test]
async fn each_difference_is_told_with_its_cause() {
    let (stripe, app) = start().await;
    let (_, subscription) = stripe.subscribe(Some("user_1"), "one@example.com");
    stripe.subscribe(Some("user_2"), "two@example.com");
    reconcile(&app, json!({})).await;
    let change = format!("subscriptions/{subscription}");

    // The event came and was kept without being applied, for it claimed to be of the other mode.
    stripe.post(&change, &[("cancel_at_period_end", "true")]);
    let mut event = stripe.all("events").into_iter().next().expect("an event");
    assert_eq!(event["type"], "customer.subscription.updated");
    event["livemode"] = json!(true);
    assert_eq!(app.deliver(&event).await, "ignored");
    let report = reconcile(&app, json!({"account": "user_1"})).await;
    assert_eq!(counts(&report), (1, 1), "{report:#}");
    let found = finding(&report, "subscription");
    assert_eq!((&found["cause"], &found["stripe_event_id"]), (&json!("misapplied"), &event["id"]));
    assert_eq!(found["account"], "user_1");
    let fields: Vec<&str> =
        found["differences"].as_array().expect("a list").iter().filter_map(|d| d["field"].as_str()).collect();
    assert!(fields.contains(&"cancel_at_period_end"), "{found}");
    assert_eq!(app.get("/v1/accounts/user_1/subscription").await.expect(200)["cancel_at_period_end"], true);

    // An account beside it is none of the question.
    stripe.post(&change, &[("cancel_at_period_end", "false")]);
    assert_eq!(counts(&reconcile(&app, json!({"account": "user_2"})).await), (0, 0));
    app.call(Method::POST, RECONCILE).json(json!({"account": "nobody"})).send().await.expect(202);
    while app.get(RECONCILE).await.expect(200)["status"] == "running" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let failed = app.get(RECONCILE).await.expect(200);
    assert_eq!(failed["status"], "failed");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("nobody")), "{failed}");

    // What Stripe tells since then is enough to find it, and what it tells later goes before it.
    let report = reconcile(&app, json!({"since": rfc3339(START)})).await;
    assert_eq!(counts(&report), (1, 1), "{report:#}");
    let late = stripe.all("events").into_iter().next().expect("an event");
    assert_eq!(app.deliver(&late).await, "duplicate", "the event itself was taken in");

    // Stripe does not list for ever what happened.
    stripe.call("DELETE", &change, &[]);
    stripe.control("clock", json!({"by": {"days": 31}})).await;
    app.clock.set(day(31));
    let report = reconcile(&app, json!({"account": "user_1"})).await;
    assert_eq!(finding(&report, "subscription")["cause"], "untold", "{report:#}");
    assert_eq!(counts(&report).0, counts(&report).1);
    assert_eq!(app.get("/v1/accounts/user_1/subscriptions").await.expect(200)["data"][0]["status"], "canceled");
    assert_eq!(counts(&reconcile(&app, json!({"account": "user_1"})).await), (0, 0));
}

#[tokio::test]
async fn what_stripe_does_not_have_is_said_and_left() {
    let (stripe, app) = start().await;
    let (customer, _) = stripe.subscribe(Some("user_1"), "one@example.com");
    reconcile(&app, json!({})).await;
    let foreign = subscription(&customer, "sub_of_nobody", STARTER, START);
    app.deliver_all(&[event("customer.subscription.updated", START, foreign)]).await;
    let report = reconcile(&app, json!({})).await;
    assert_eq!(counts(&report), (1, 0), "{report:#}");
    let found = finding(&report, "subscription");
    assert_eq!((&found["finding"], &found["stripe_id"]), (&json!("not_in_stripe"), &json!("sub_of_nobody")));
    assert!(found["problem"].is_string());

    let (code, output, _) = stripe.run(Some(&app.database_url), &["reconcile", "--account", "user_1"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("sub_of_nobody: not in Stripe"), "{output}");
}

#[tokio::test]
async fn a_backfill_takes_in_what_was_never_delivered_and_nothing_twice() {
    let (stripe, app) = start().await;
    // The program goes by the machine's clock.
    stripe.control("clock", json!({"to": chrono::Utc::now().timestamp()})).await;
    stripe.subscribe(Some("user_1"), "one@example.com");
    let (code, output, errors) = stripe.run(Some(&app.database_url), &["--json", "backfill"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(report["events"].as_u64(), Some(stripe.all("events").len() as u64));
    assert!(report["applied"].as_u64().is_some_and(|applied| applied >= 5), "{report}");
    let (_, output, _) = stripe.run(Some(&app.database_url), &["--json", "backfill"]).await;
    let again: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(again["duplicate"], again["events"], "{again}");
    let (code, output, _) = stripe.run(Some(&app.database_url), &["reconcile", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("the ledger and Stripe agree"), "{output}");
}

#[tokio::test]
async fn the_commands_need_a_key() {
    let (stripe, app) = start().await;
    for command in [&["reconcile"][..], &["backfill"], &["import"], &["catalog", "import"], &["catalog", "push"]] {
        let mut program = stripe.program(Some(&app.database_url), command);
        let output = program.env_remove("STRIPE_SECRET_KEY").output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("STRIPE_SECRET_KEY"), "{command:?}");
    }
}
