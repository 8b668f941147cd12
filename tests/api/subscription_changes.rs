//! Changes of a subscription: asked of Stripe, seen at once, and the same once Stripe's events tell of them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::stripe_api::*;
use crate::support::*;

const TEAM: &str = "price_1jWMUKQhTzLmW4rNV2H3t3ol";
const UPDATE: &str = "POST /v1/subscriptions/sub_1";

fn route(name: &str) -> String {
    format!("/v1/accounts/user_1/subscription/{name}")
}

/// A service of somebody who subscribes to Pro by the month.
async fn subscribed(stripe: &StripeApi) -> TestApp {
    let app = TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app
}

fn pro(changes: Value) -> Value {
    with(subscription("cus_1", "sub_1", PRO, START), changes)
}

/// The subscription on another price.
fn on(price: &str, changes: Value) -> Value {
    with(subscription("cus_1", "sub_1", price, START), changes)
}

async fn shown(app: &TestApp) -> Value {
    app.get("/v1/accounts/user_1/subscription").await.expect(200)
}

/// What Stripe tells of a change later leaves everything as the answer showed it.
async fn agrees(app: &TestApp, object: Value) {
    let before = shown(app).await;
    app.deliver(&event("customer.subscription.updated", START + 30, object)).await;
    assert_eq!(shown(app).await, before);
}

#[tokio::test]
async fn canceled_at_the_periods_end_and_resumed() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.post(&route("resume"), json!({})).await.problem(409, "subscription_not_ending");
    let ending = pro(json!({"cancel_at_period_end": true, "cancel_at": day(31), "canceled_at": START + 20}));
    stripe.on(UPDATE, ending.clone()).await;
    let mut answer = app.call(Method::POST, &route("cancel")).idempotency_key("key-1").send().await.expect(200);
    assert_eq!(answer["cancel_at_period_end"], true);
    answer.as_object_mut().expect("an object").remove("position");
    assert_eq!(shown(&app).await, answer);
    assert_eq!(stripe.calls().await[0].field("cancel_at_period_end"), Some("true"));
    agrees(&app, ending).await;

    stripe.reset().await;
    stripe.on(UPDATE, pro(json!({}))).await;
    assert_eq!(app.post(&route("resume"), json!({})).await.expect(200)["cancel_at"], Value::Null);
    assert_eq!(stripe.calls().await[0].field("cancel_at_period_end"), Some("false"));
    assert_eq!(shown(&app).await["cancel_at_period_end"], false);
}

#[tokio::test]
async fn an_end_at_some_date_is_taken_back_too() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    let ending = pro(json!({"cancel_at": day(20)}));
    app.deliver(&event("customer.subscription.updated", START + 10, ending)).await;
    stripe.on(UPDATE, pro(json!({}))).await;
    assert_eq!(app.post(&route("resume"), json!({})).await.expect(200)["cancel_at"], Value::Null);
    assert_eq!(stripe.calls().await[0].field("cancel_at"), Some(""));
}

#[tokio::test]
async fn canceled_at_once_once() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.clock.advance(chrono::Duration::minutes(1));
    let ended = pro(json!({"status": "canceled", "canceled_at": START + 20, "ended_at": START + 20}));
    let delete = "DELETE /v1/subscriptions/sub_1";
    stripe.first(4, delete, 500, json!({})).await;
    let cancel = async || {
        let call = app.call(Method::POST, &route("cancel")).idempotency_key("key-1");
        call.json(json!({"at_period_end": false})).send().await
    };
    cancel().await.problem(503, "stripe_unavailable");
    // It was done all the same, and Stripe heeds no key here.
    stripe.reset().await;
    stripe.on("GET /v1/subscriptions/sub_1", ended).await;
    stripe
        .first(9, delete, 404, refusal("invalid_request_error", "resource_missing", "No such subscription: 'sub_1'"))
        .await;
    assert_eq!(cancel().await.expect(200)["status"], "canceled");
    assert_eq!(shown(&app).await["status"], "canceled");
    assert_eq!(app.available("user_1").await, FREE_CREDITS, "what the plan gave ends with it");
    for change in ["cancel", "resume", "pause-collection"] {
        let problem = app.post(&route(change), json!({})).await.problem(409, "subscription_ended");
        assert_eq!(problem["see"], json!(["/v1/accounts/user_1/checkout-sessions"]));
    }
}

#[tokio::test]
async fn an_account_without_a_subscription_has_nothing_to_change() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.post("/v1/accounts/nobody/subscription/cancel", json!({})).await.problem(404, "no_subscription");
    app.post(&route("cancel"), json!({"subscription": "sub_of_others"})).await.problem(404, "no_subscription");
    app.get("/v1/accounts/nobody/upcoming-invoice").await.problem(404, "no_subscription");
    assert!(stripe.calls().await.is_empty());
}

#[tokio::test]
async fn changed_now_with_the_difference_invoiced_at_once() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    stripe.on(UPDATE, on(TEAM, json!({}))).await;
    let answer = app.post(&route("change"), json!({"plan": "team", "quantity": 4})).await.expect(200);
    assert_eq!(answer["plan"], "team");
    let asked = stripe.calls().await.remove(0);
    for (field, value) in [
        ("items[0][id]", "si_sub_1"),
        ("items[0][price]", TEAM),
        ("items[0][quantity]", "4"),
        ("proration_behavior", "always_invoice"),
        ("payment_behavior", "pending_if_incomplete"),
    ] {
        assert_eq!(asked.field(field), Some(value), "{field}");
    }
    assert_eq!(shown(&app).await["plan"], "team");
    agrees(&app, on(TEAM, json!({}))).await;
}

#[tokio::test]
async fn the_interval_changes_and_the_plan_stays() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    stripe.on(UPDATE, on(PRO_YEARLY, json!({}))).await;
    let change = json!({"interval": "year", "proration": "none"});
    assert_eq!(app.post(&route("change"), change).await.expect(200)["interval"], "year");
    let asked = stripe.calls().await.remove(0);
    assert_eq!(asked.field("items[0][price]"), Some(PRO_YEARLY));
    assert_eq!(asked.field("proration_behavior"), Some("none"));
}

#[tokio::test]
async fn a_payment_that_is_awaited_leaves_the_change_pending() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    let wanted = on(TEAM, json!({}));
    let pending =
        json!({"pending_update": {"expires_at": START + 82_800, "subscription_items": wanted["items"]["data"]}});
    stripe.on(UPDATE, pro(pending)).await;
    let answer = app.post(&route("change"), json!({"plan": "team"})).await.expect(200);
    assert_eq!((&answer["plan"], &answer["pending_change"]["waits_for"]), (&json!("pro"), &json!("payment")));
    assert_eq!(answer["pending_change"]["plan"], "team");
}

fn schedule(status: &str, phases: Value) -> Value {
    json!({
        "id": "sub_sched_1", "object": "subscription_schedule", "customer": "cus_1", "subscription": "sub_1",
        "status": status, "created": START + 20, "current_phase": {"start_date": START, "end_date": day(31)},
        "phases": phases,
    })
}

fn phase(price: &str, start: i64, end: i64) -> Value {
    json!({"start_date": start, "end_date": end, "items": [{"price": price, "quantity": 1}]})
}

#[tokio::test]
async fn a_change_waits_for_the_periods_end_and_is_taken_back() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.post(&route("cancel-change"), json!({})).await.problem(409, "no_pending_change");
    let now = phase(PRO, START, day(31));
    stripe.on("POST /v1/subscription_schedules", schedule("active", json!([now]))).await;
    let both = json!([now, phase(STARTER, day(31), day(59))]);
    stripe.on("POST /v1/subscription_schedules/sub_sched_1", schedule("active", both)).await;
    stripe.on("GET /v1/subscriptions/sub_1", pro(json!({"schedule": "sub_sched_1"}))).await;
    let change = json!({"plan": "starter", "when": "period_end"});
    let answer = app.post(&route("change"), change).await.expect(200);
    let waiting = json!({"waits_for": "schedule", "effective_at": rfc3339(day(31)), "plan": "starter", "price": STARTER, "quantity": 1});
    assert_eq!((&answer["plan"], &answer["pending_change"]), (&json!("pro"), &waiting));
    assert_eq!(shown(&app).await["pending_change"], waiting);
    let asked = stripe.calls().await;
    assert_eq!(asked[0].field("from_subscription"), Some("sub_1"));
    let (start, end) = (START.to_string(), day(31).to_string());
    for (field, value) in [
        ("end_behavior", "release"),
        ("proration_behavior", "none"),
        ("phases[0][start_date]", start.as_str()),
        ("phases[0][end_date]", end.as_str()),
        ("phases[0][items][0][price]", PRO),
        ("phases[1][items][0][price]", STARTER),
        ("phases[1][duration][interval]", "month"),
    ] {
        assert_eq!(asked[1].field(field), Some(value), "{field}");
    }

    stripe.reset().await;
    let release = "POST /v1/subscription_schedules/sub_sched_1/release";
    let released =
        with(schedule("released", json!([now])), json!({"subscription": null, "released_subscription": "sub_1"}));
    stripe.on(release, released).await;
    stripe.on("GET /v1/subscriptions/sub_1", pro(json!({"schedule": null}))).await;
    let answer = app.post(&route("cancel-change"), json!({})).await.expect(200);
    assert_eq!(answer["pending_change"], Value::Null);
    assert_eq!(shown(&app).await["pending_change"], Value::Null);
}

#[tokio::test]
async fn a_subscription_that_a_schedule_manages_is_let_go_before_it_is_changed() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.deliver(&event("customer.subscription.updated", START + 10, pro(json!({"schedule": "sub_sched_1"})))).await;
    let released =
        with(schedule("released", json!([])), json!({"subscription": null, "released_subscription": "sub_1"}));
    stripe.on("POST /v1/subscription_schedules/sub_sched_1/release", released).await;
    stripe.on("GET /v1/subscriptions/sub_1", pro(json!({}))).await;
    stripe.on(UPDATE, pro(json!({"cancel_at_period_end": true}))).await;
    app.post(&route("change"), json!({"plan": "pro"})).await.problem(409, "subscription_unchanged");
    assert!(stripe.calls().await.is_empty(), "a change that is refused lets nothing go");
    app.post(&route("cancel"), json!({})).await.expect(200);
    let routes: Vec<String> = stripe.calls().await.into_iter().map(|call| call.route).collect();
    let release = "POST /v1/subscription_schedules/sub_sched_1/release";
    assert_eq!(routes, [release, "GET /v1/subscriptions/sub_1", UPDATE]);
}

#[tokio::test]
async fn collection_is_paused_and_resumed() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    app.post(&route("resume-collection"), json!({})).await.problem(409, "collection_not_paused");
    stripe.on(UPDATE, pro(json!({"pause_collection": {"behavior": "keep_as_draft", "resumes_at": day(9)}}))).await;
    let pause = json!({"behavior": "keep_as_draft", "resumes_at": rfc3339(day(9))});
    let answer = app.post(&route("pause-collection"), pause.clone()).await.expect(200);
    assert_eq!((&answer["paused"], &answer["pause"]), (&json!(true), &pause));
    let (asked, until) = (stripe.calls().await.remove(0), day(9).to_string());
    assert_eq!(asked.field("pause_collection[behavior]"), Some("keep_as_draft"));
    assert_eq!(asked.field("pause_collection[resumes_at]"), Some(until.as_str()));

    stripe.reset().await;
    stripe.on(UPDATE, pro(json!({}))).await;
    assert_eq!(app.post(&route("resume-collection"), json!({})).await.expect(200)["paused"], false);
    assert_eq!(stripe.calls().await[0].field("pause_collection"), Some(""));
    assert_eq!(shown(&app).await["paused"], false);
}

#[tokio::test]
async fn a_promotion_code_is_looked_up_and_applied() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    stripe.on("GET /v1/promotion_codes", json!({"data": []})).await;
    let spring = json!({"promotion_code": "SPRING20"});
    app.post(&route("promotion-code"), spring.clone()).await.problem(404, "unknown_promotion_code");
    stripe.reset().await;
    stripe.on("GET /v1/promotion_codes", json!({"data": [{"id": "promo_1"}]})).await;
    stripe.on(UPDATE, pro(json!({}))).await;
    app.post(&route("promotion-code"), spring).await.expect(200);
    let asked = stripe.calls().await;
    assert_eq!((asked[0].field("code"), asked[0].field("active")), (Some("SPRING20"), Some("true")));
    assert_eq!(asked[1].field("discounts[0][promotion_code]"), Some("promo_1"));
}

fn preview() -> Value {
    let line = |amount: i64, price: &str, start: i64, proration: bool| {
        json!({
            "id": "il_1", "amount": amount, "description": "Time on a plan", "quantity": 1,
            "period": {"start": start, "end": day(31)},
            "parent": {"type": "invoice_item_details", "invoice_item_details": {"proration": proration}},
            "pricing": {"type": "price_details", "price_details": {"price": price, "product": "prod_1"}},
        })
    };
    json!({
        "id": "upcoming_in_1", "object": "invoice", "currency": "usd", "subtotal": -850, "total": -850, "amount_due": 0,
        "starting_balance": 0, "next_payment_attempt": null, "period_end": day(31),
        "lines": {"object": "list", "has_more": false, "data": [
            line(-1_450, PRO, day(15), true), line(600, TEAM, day(15), true),
        ]},
    })
}

#[tokio::test]
async fn a_change_is_previewed_with_the_amounts_and_the_moment_they_are_true_for() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    stripe.on("POST /v1/invoices/create_preview", preview()).await;
    let seen = app.post(&route("change-preview"), json!({"plan": "team"})).await.expect(200);
    assert_eq!((&seen["total"], &seen["amount_due"]), (&json!(-850), &json!(0)));
    assert_eq!(seen["proration_date"], rfc3339(day(15)));
    assert_eq!(seen["lines"][1]["plan"], "team");
    assert_eq!(seen["lines"][1]["proration"], true);
    let asked = stripe.calls().await.remove(0);
    assert_eq!(asked.field("subscription"), Some("sub_1"));
    assert_eq!(asked.field("subscription_details[items][0][id]"), Some("si_sub_1"));
    assert_eq!(asked.field("subscription_details[items][0][price]"), Some(TEAM));
    assert_eq!(asked.field("subscription_details[proration_behavior]"), Some("always_invoice"));
    assert_eq!(shown(&app).await["plan"], "pro", "nothing is changed");

    stripe.on(UPDATE, on(TEAM, json!({}))).await;
    let as_seen = json!({"plan": "team", "proration_date": seen["proration_date"]});
    app.post(&route("change"), as_seen).await.expect(200);
    let (asked, at) = (stripe.calls_of(UPDATE).await.remove(0), day(15).to_string());
    assert_eq!(asked.field("proration_date"), Some(at.as_str()));
}

#[tokio::test]
async fn the_upcoming_invoice_is_stripes_or_none() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    stripe.on("POST /v1/invoices/create_preview", preview()).await;
    let seen = app.get("/v1/accounts/user_1/upcoming-invoice").await.expect(200);
    assert_eq!(seen["period_end"], rfc3339(day(31)));
    stripe.reset().await;
    let none = refusal("invalid_request_error", "invoice_upcoming_none", "No upcoming invoices for customer: cus_1");
    stripe.first(1, "POST /v1/invoices/create_preview", 404, none).await;
    app.get("/v1/accounts/user_1/upcoming-invoice").await.problem(404, "not_found");
}

#[tokio::test]
async fn what_cannot_be_changed_says_why() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    let cases = [
        (json!({"plan": "pro"}), 409, "subscription_unchanged"),
        (json!({"quantity": 1}), 409, "subscription_unchanged"),
        (json!({"plan": "gold"}), 404, "unknown_plan"),
        (json!({"plan": "starter", "interval": "year"}), 422, "interval_not_offered"),
        (json!({"price": "price_1YR8TMQhTzLmW4rNN7GQ0FcH"}), 409, "currency_fixed"),
        (json!({"price": "prod_1"}), 422, "price_is_product"),
        (json!({}), 400, "invalid_body"),
        (json!({"plan": "team", "price": TEAM}), 400, "invalid_body"),
        (json!({"plan": "team", "when": "someday"}), 400, "invalid_body"),
        (json!({"quantity": 1_000_000}), 400, "invalid_parameter"),
    ];
    for (change, status, code) in cases {
        app.post(&route("change"), change.clone()).await.problem(status, code);
        app.post(&route("change-preview"), change).await.problem(status, code);
    }
    let unnamed =
        |id: &str| json!({"id": id, "quantity": 1, "price": {"id": format!("price_of_{id}"), "currency": "usd"}});
    let several = pro(json!({"items": {"data": [unnamed("si_a"), unnamed("si_b")]}}));
    app.deliver(&event("customer.subscription.updated", START + 10, several)).await;
    app.post(&route("change"), json!({"plan": "team"})).await.problem(409, "several_items");
    assert!(stripe.calls().await.is_empty());
}

#[tokio::test]
async fn a_change_that_was_paused_in_the_middle_goes_on_where_it_was() {
    let stripe = StripeApi::start().await;
    let app = subscribed(&stripe).await;
    let now = phase(PRO, START, day(31));
    stripe.on("POST /v1/subscription_schedules", schedule("active", json!([now]))).await;
    stripe.first(4, "POST /v1/subscription_schedules/sub_sched_1", 500, json!({})).await;
    let both = json!([now, phase(STARTER, day(31), day(59))]);
    stripe.on("POST /v1/subscription_schedules/sub_sched_1", schedule("active", both)).await;
    stripe.on("GET /v1/subscriptions/sub_1", pro(json!({"schedule": "sub_sched_1"}))).await;
    let change = async || {
        let call = app.call(Method::POST, &route("change")).idempotency_key("key-1");
        call.json(json!({"plan": "starter", "when": "period_end"})).send().await
    };
    change().await.problem(503, "stripe_unavailable");
    // Stripe's events of the first half come in between.
    app.deliver(&event("customer.subscription.updated", START + 10, pro(json!({"schedule": "sub_sched_1"})))).await;
    let answer = change().await.expect(200);
    assert_eq!(answer["pending_change"]["plan"], "starter");
    let creations = stripe.calls_of("POST /v1/subscription_schedules").await;
    assert!(creations.iter().all(|call| *call == creations[0]), "one schedule, by one key");
    assert!(stripe.calls_of("POST /v1/subscription_schedules/sub_sched_1/release").await.is_empty());
}
