//! One subscription for an account, in however many tabs its customer has Checkout open.

use reqwest::Method;
use serde_json::{Value, json};
use subledger_simulator::{Card, Entered, Outcome};

use crate::support::simulated::*;
use crate::support::stripe::*;
use crate::support::stripe_api::*;
use crate::support::*;

const SESSIONS: &str = "/v1/accounts/user_1/checkout-sessions";

fn buy(what: Value) -> Value {
    with(json!({"success_url": "https://app.example.com/", "cancel_url": "https://app.example.com/"}), what)
}

async fn open(app: &TestApp, key: &str, what: Value) -> Answer {
    app.call(Method::POST, SESSIONS).idempotency_key(key).json(buy(what)).send().await
}

/// The customer fills in a session's page, if it is open still.
fn pay(world: &Simulated, session: &str) -> bool {
    let entered = Entered { card: Card::Good, email: None, name: None, promotion_code: None };
    let paid = world.stripe.with_world(|world| world.pay_session(session, &entered));
    paid.is_ok_and(|outcome| outcome == Outcome::Completed)
}

/// What Stripe has of a kind, by status.
fn with_status(world: &Simulated, kind: &str, status: &str) -> usize {
    world.stripe.with_world(|world| world.objects(kind).filter(|object| object["status"] == status).count())
}

#[tokio::test]
async fn of_two_tabs_the_later_one_can_be_paid() {
    let world = Simulated::start().await;
    let pack = world.open(json!({"credit_pack": "credits_500"})).await;
    let first = world.open(json!({"plan": "starter"})).await;
    let second = world.open(json!({"plan": "pro", "currency": "usd", "trial_days": 0})).await;
    assert!(!pay(&world, &first), "it has expired");
    assert!(pay(&world, &second));
    assert!(pay(&world, &pack), "a pack is no subscription");
    world.settle().await;
    assert_eq!(with_status(&world, "subscription", "active"), 1);
    assert_eq!(world.subscription().await["plan"], "pro");
    assert_eq!(world.app.metric("subledger_second_subscriptions_total").await, 0.0);
}

#[tokio::test]
async fn sessions_that_are_opened_at_the_same_time_leave_one() {
    let world = Simulated::start().await;
    world.open(json!({"credit_pack": "credits_500"})).await;
    let keys: Vec<String> = (0..5).map(|number| format!("key-{number}")).collect();
    let opened =
        futures_util::future::join_all(keys.iter().map(|key| open(&world.app, key, json!({"plan": "starter"}))));
    let sessions: Vec<String> = opened
        .await
        .into_iter()
        .map(|opened| opened.expect(201)["session_id"].as_str().expect("an id").to_owned())
        .collect();
    let paid = sessions.iter().filter(|session| pay(&world, session)).count();
    assert_eq!((paid, with_status(&world, "subscription", "active")), (1, 1));
}

#[tokio::test]
async fn what_was_bought_while_nobody_told_the_ledger_is_not_sold_again() {
    let world = Simulated::start().await;
    let first = world.open(json!({"plan": "starter"})).await;
    assert!(pay(&world, &first));
    // No StripeEvent has come yet.
    let refused = open(&world.app, "key-1", json!({"plan": "team"})).await.problem(409, "subscription_exists");
    assert_eq!(
        refused["see"],
        json!(["/v1/accounts/user_1/subscription/change", "/v1/accounts/user_1/portal-sessions"])
    );
    assert_eq!(with_status(&world, "checkout.session", "open"), 0, "nobody can complete the one that was refused");
    assert!(open(&world.app, "key-1", json!({"plan": "team"})).await.is_replay());
    world.settle().await;
    open(&world.app, "key-2", json!({"plan": "team"})).await.problem(409, "subscription_exists");
}

#[tokio::test]
async fn a_repeat_after_a_crash_expires_what_is_left_and_opens_nothing_again() {
    let world = Simulated::start().await;
    let first = world.open(json!({"plan": "starter"})).await;
    for kind in ["server_error", "cut_after"] {
        world
            .control("faults", json!({"kind": kind, "method": "POST", "path": "checkout/sessions/", "count": 4}))
            .await;
        open(&world.app, kind, json!({"plan": "starter"})).await.problem(503, "stripe_unavailable");
        let opened = open(&world.app, kind, json!({"plan": "starter"})).await;
        assert!(!opened.is_replay());
        opened.expect(201);
    }
    assert!(!pay(&world, &first));
    let sessions = ["open", "expired"].map(|status| with_status(&world, "checkout.session", status));
    assert_eq!(sessions, [1, 2]);
}

/// A Stripe at which `cus_1` has `cs_0` open, and opens `cs_1`; somebody opens `cs_2` at the same time.
async fn stripe_with_an_open_session() -> StripeApi {
    let stripe = StripeApi::start().await;
    let session =
        |id: &str| json!({"id": id, "mode": "subscription", "customer": "cus_1", "url": "https://checkout.stripe.com"});
    stripe.on("GET /v1/customers/search", json!({"data": [{"id": "cus_1"}]})).await;
    stripe.on("POST /v1/checkout/sessions", session("cs_1")).await;
    let open = json!({"data": [session("cs_2"), session("cs_1"), session("cs_0")], "has_more": false});
    stripe.on("GET /v1/checkout/sessions", open).await;
    stripe.on("GET /v1/subscriptions", json!({"data": [{"id": "sub_0", "status": "incomplete"}]})).await;
    stripe.on("POST /v1/checkout/sessions/cs_1/expire", json!({"id": "cs_1", "status": "expired"})).await;
    let not_open = refusal("invalid_request_error", "", "Only Checkout Sessions with a status of open can be expired.");
    stripe.first(9, "POST /v1/checkout/sessions/cs_0/expire", 400, not_open).await;
    stripe
}

#[tokio::test]
async fn a_session_that_is_no_longer_open_when_it_is_expired_says_what_became_of_it() {
    for (now, outcome) in [
        (json!({"status": "complete", "subscription": "sub_0"}), Err((409, "subscription_exists"))),
        (json!({"status": "expired", "subscription": null}), Ok(())),
        // A payment is under way.
        (json!({"status": "open", "subscription": null}), Err((422, "stripe_refused"))),
    ] {
        let stripe = stripe_with_an_open_session().await;
        stripe.on("GET /v1/checkout/sessions/cs_0", now).await;
        let app = TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await;
        let answer = open(&app, "key-1", json!({"plan": "starter"})).await;
        match outcome {
            Ok(()) => drop(answer.expect(201)),
            Err((status, code)) => drop(answer.problem(status, code)),
        }
        let listed = &stripe.calls_of("GET /v1/checkout/sessions").await[0];
        assert_eq!((listed.field("customer"), listed.field("status")), (Some("cus_1"), Some("open")));
        let expired = stripe.calls_of("POST /v1/checkout/sessions/cs_0/expire").await;
        assert!(expired[0].key.is_some());
        let newer = stripe.calls_of("POST /v1/checkout/sessions/cs_2/expire").await;
        assert!(newer.is_empty(), "whoever opened it expires this one");
        let is_withdrawn = !stripe.calls_of("POST /v1/checkout/sessions/cs_1/expire").await.is_empty();
        assert_eq!(is_withdrawn, outcome == Err((409, "subscription_exists")));
    }
}

#[tokio::test]
async fn a_second_subscription_that_came_about_all_the_same_is_counted_and_logged() {
    let app = TestApp::start().await;
    app.put_account("user_with_two", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
    let series = "subledger_second_subscriptions_total";
    let second = |status: &str| with(subscription("cus_1", "sub_2", TEAM, START + 5), json!({"status": status}));
    app.deliver(&event("customer.subscription.created", START + 5, second("incomplete"))).await;
    assert_eq!(app.metric(series).await, 0.0, "its first payment is awaited");
    app.deliver(&event("customer.subscription.updated", START + 6, second("active"))).await;
    assert_eq!(app.metric(series).await, 1.0);
    let text = logs::text();
    let warned = text.lines().find(|line| line.contains("WARN") && line.contains("account=user_with_two"));
    assert!(warned.is_some_and(|line| line.contains("sub_1,sub_2")), "{warned:?}");
    let ended = with(second("canceled"), json!({"ended_at": START + 7}));
    app.deliver(&event("customer.subscription.deleted", START + 7, ended)).await;
    assert_eq!(app.metric(series).await, 1.0);
}
