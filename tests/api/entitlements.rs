//! `…/entitlements` and `/v1/entitlements/check`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

const SAMPLE: &str = include_str!("../../deploy/catalog.toml");

async fn check(app: &TestApp, account: &str, what: &str) -> Value {
    app.get(&format!("/v1/accounts/{account}/entitlements/{what}")).await.expect(200)
}

/// Whether it is allowed, and why.
async fn verdict(app: &TestApp, account: &str, what: &str) -> (bool, String) {
    let answer = check(app, account, what).await;
    (answer["allowed"].as_bool().expect("a decision"), answer["reason"].as_str().expect("a reason").to_owned())
}

fn yes(reason: &str) -> (bool, String) {
    (true, reason.to_owned())
}

fn no(reason: &str) -> (bool, String) {
    (false, reason.to_owned())
}

#[tokio::test]
async fn the_plan_and_the_credits_decide() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        assert_eq!(verdict(&app, "user_1", "export").await, no("not_in_plan"));
        assert_eq!(verdict(&app, "user_1", "generation?quantity=10").await, yes("included"));
        assert_eq!(verdict(&app, "user_1", "generation?quantity=11").await, no("insufficient_credits"));
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        assert_eq!(verdict(&app, "user_1", "export").await, yes("included"));
        assert_eq!(verdict(&app, "cus_1", "generation?quantity=500").await, yes("included"));
        assert_eq!(verdict(&app, "user_1", "generation?quantity=501").await, no("insufficient_credits"));
    })
    .await;
}

#[tokio::test]
async fn an_answer_says_how_fresh_it_is() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debit = app.debit("user_1", "key-1", json!({"amount": 3})).await.expect(201);
    let answer = check(&app, "user_1", "generation").await;
    assert_eq!((&answer["plan"], &answer["remaining"]), (&json!("free"), &json!(7)));
    assert_eq!((&answer["limit"], &answer["unlimited"]), (&Value::Null, &json!(false)));
    let as_of = &answer["as_of"];
    assert_eq!((&as_of["position"], &as_of["partition"]), (&debit["position"], &json!(24)));
    assert_eq!(as_of["at"], rfc3339(START));
    assert!(as_of["age_ms"].as_u64().expect("an age") < 5_000);
}

#[tokio::test]
async fn limits_lists_and_unlimited_plans_come_from_the_catalog() {
    let app = TestApp::with(Setup { catalog: SAMPLE.to_owned(), ..Setup::default() }).await;
    app.put_account("free", json!({})).await.expect(201);
    assert_eq!(verdict(&app, "free", "projects").await, yes("included"));
    assert_eq!(verdict(&app, "free", "projects?quantity=2").await, no("limit_exceeded"));
    assert_eq!(check(&app, "free", "projects").await["limit"], 1);
    assert_eq!(check(&app, "free", "models").await["values"], json!(["flux-schnell"]));
    app.deliver_all(&sign_up("cus_1", "price_sample_premium_monthly", START)).await;
    assert_eq!(verdict(&app, "cus_1", "image_upscale?quantity=1000000").await, yes("unlimited"));
    assert_eq!(verdict(&app, "cus_1", "projects?quantity=1000000").await, yes("included"));
    let answer = check(&app, "cus_1", "image_upscale").await;
    assert_eq!((&answer["unlimited"], &answer["remaining"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn a_feature_that_costs_more_than_one_credit_leaves_fewer_units() {
    let app = TestApp::with(Setup { catalog: SAMPLE.to_owned(), ..Setup::default() }).await;
    app.deliver_all(&sign_up("cus_1", "price_sample_starter_monthly", START)).await;
    assert_eq!(check(&app, "cus_1", "image_upscale").await["remaining"], 50);
    app.debit("cus_1", "key-1", json!({"feature": "image_upscale", "quantity": 3})).await.expect(201);
    assert_eq!(check(&app, "cus_1", "image_upscale").await["remaining"], 47);
    assert_eq!(app.available("cus_1").await, 94);
}

#[tokio::test]
async fn a_failed_payment_gives_days_of_grace_and_then_ends_until_it_is_made_good() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let due = json!({"status": "open", "amount_paid": 0, "amount_remaining": 2_900,
            "billing_reason": "subscription_cycle", "status_transitions": {"paid_at": null}});
        let bill = invoice("cus_1", "in_2", "sub_1", PRO, day(31));
        let overdue =
            with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"status": "past_due", "created": START}));
        app.clock.set(day(31));
        app.deliver_all(&[
            event("customer.subscription.updated", day(31), overdue.clone()),
            event("invoice.payment_failed", day(31), with(bill.clone(), due)),
        ])
        .await;
        assert_eq!(verdict(&app, "cus_1", "export").await, yes("in_grace"));
        app.clock.set(day(34) - 1);
        assert_eq!(verdict(&app, "cus_1", "export").await, yes("in_grace"));
        app.clock.set(day(34));
        assert_eq!(verdict(&app, "cus_1", "export").await, no("payment_overdue"));
        assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["plan"], "free");
        let subscription = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        assert_eq!(subscription["status"], "past_due");

        app.clock.set(day(35));
        app.deliver_all(&[
            event("invoice.paid", day(35), with(bill, json!({"billing_reason": "subscription_cycle"}))),
            event("customer.subscription.updated", day(35), with(overdue, json!({"status": "active"}))),
        ])
        .await;
        assert_eq!(verdict(&app, "cus_1", "export").await, yes("included"));
        assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["plan"], "pro");
    })
    .await;
}

#[tokio::test]
async fn of_two_subscriptions_the_higher_plan_decides() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    let (low, high) = (subscription("cus_1", "sub_low", STARTER, START), subscription("cus_1", "sub_high", PRO, START));
    app.deliver_all(&[
        event("customer.subscription.created", START + 60, low),
        event("customer.subscription.created", START, high.clone()),
    ])
    .await;
    assert_eq!(verdict(&app, "user_1", "export").await, yes("included"));
    let deciding = async || app.get("/v1/accounts/user_1/subscription").await.expect(200);
    assert_eq!(deciding().await["stripe_subscription_id"], "sub_high");
    let ended = with(high, json!({"status": "canceled", "ended_at": day(1)}));
    app.deliver_all(&[event("customer.subscription.deleted", day(1), ended)]).await;
    assert_eq!(verdict(&app, "user_1", "export").await, no("not_in_plan"));
    assert_eq!(deciding().await["stripe_subscription_id"], "sub_low");
}

#[tokio::test]
async fn a_feature_that_the_catalog_does_not_know_is_a_404() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.get("/v1/accounts/user_1/entitlements/flying").await.problem(404, "unknown_feature");
    for quantity in ["0", "-1", "x", "1.5", "1000000000001", "9223372036854775808", ""] {
        let path = format!("/v1/accounts/user_1/entitlements/generation?quantity={quantity}");
        app.get(&path).await.problem(400, "invalid_parameter");
    }
    let twice = "/v1/accounts/user_1/entitlements/generation?quantity=1&quantity=2";
    app.get(twice).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn names_in_the_path_of_a_check_are_read_like_those_of_other_routes() {
    let app = TestApp::start().await;
    let account = "/v1/accounts/%C3%A9t%C3%A9";
    app.call(Method::PUT, account).json(json!({})).send().await.expect(201);
    let plain = app.get(&format!("{account}/entitlements/generation")).await.expect(200);
    assert_eq!(plain["receipt"].as_str().and_then(|receipt| receipt.rsplit('.').next()), Some("%C3%A9t%C3%A9"));
    let encoded = app.get(&format!("{account}/entitlements/gener%61tion")).await.expect(200);
    assert_eq!(encoded["feature"], "generation");
    app.get("/v1/accounts/%FF/entitlements/generation").await.problem(400, "invalid_parameter");
    app.get("/v1/accounts/a%20b/entitlements/generation").await.problem(400, "invalid_parameter");
    for nothing in ["/v1/accounts//entitlements/generation", "/v1/accounts/user_1/entitlements/a/b"] {
        app.get(nothing).await.problem(404, "no_such_route");
    }
    let post = app.post(&format!("{account}/entitlements/generation"), json!({})).await;
    assert_eq!(post.header("allow"), Some("GET"));
    post.problem(405, "method_not_allowed");
}

/// The second is answered out of memory, without the app.
#[tokio::test]
async fn the_same_check_has_the_same_answer_from_memory_as_from_the_app() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let path = "/v1/accounts/user_1/entitlements";
    app.get(&format!("{path}/generation")).await.expect(200);
    let ask = async |what: &str| {
        let asked = app.get(&format!("{path}/{what}")).await;
        let mut answer = (asked.status, asked.body, asked.headers);
        answer.1["as_of"]["age_ms"].take();
        answer.2.remove("date");
        answer.2.remove("content-length");
        answer
    };
    for (plain, full) in [
        ("generation", "generation?consistency=bounded"),
        ("generation?quantity=500", "generation?quantity=500&min_position=0"),
        ("generation?quantity=501", "generation?consistency=bounded&quantity=501"),
        ("generation?quantity=0", "generation?quantity=0&min_position=0"),
        ("generation?quantity=%31", "generation?quantity=1&min_position=0"),
        ("generation?quantity=99999999999999999999", "generation?quantity=99999999999999999999&min_position=0"),
        ("export", "export?min_position=0"),
        ("nothing", "nothing?min_position=0"),
    ] {
        let (plain, full) = (ask(plain).await, ask(full).await);
        assert!(plain.2.contains_key("x-request-id"));
        assert_eq!(plain, full);
    }
    let metrics = app.get("/metrics").await.text;
    let counted = "route=\"/v1/accounts/{account}/entitlements/{feature}\",status=\"200\"} 11";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_check_from_memory_is_for_holders_of_a_key_alone() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let path = "/v1/accounts/user_1/entitlements/generation";
    let made = app.post("/v1/admin/keys", json!({"scope": "read"})).await.expect(201);
    let (id, key) = (made["key_id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    for _ in 0..3 {
        app.call(Method::GET, path).key(key).send().await.expect(200);
    }
    app.call(Method::GET, path).without_key().send().await.problem(401, "unauthorized");
    app.call(Method::GET, path).key("wrong").send().await.problem(401, "unauthorized");
    app.call(Method::DELETE, &format!("/v1/admin/keys/{id}")).send().await.expect(204);
    app.call(Method::GET, path).key(key).send().await.problem(401, "unauthorized");
}

#[tokio::test]
async fn all_features_of_the_catalog_are_listed() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let list = app.get("/v1/accounts/user_1/entitlements").await.expect(200);
    let rows = list["data"].as_array().expect("rows");
    let said: Vec<(&str, bool)> = rows
        .iter()
        .map(|row| (row["feature"].as_str().expect("a feature"), row["allowed"].as_bool().expect("a decision")))
        .collect();
    assert_eq!(said, [("export", false), ("generation", true), ("support", false)]);
}

#[tokio::test]
async fn checks_in_a_batch_each_have_their_own_outcome() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let checks = json!([
            {"account": "user_1", "feature": "generation", "quantity": 5},
            {"account": "cus_1", "feature": "export"},
            {"account": "user_1", "feature": "export"},
            {"account": "nobody", "feature": "export"},
            {"account": "user_1", "feature": "flying"},
            {"account": "user_1", "feature": "generation", "quantity": 0},
            {"account": "a b", "feature": "generation"},
            {"account": "user_1", "feature": "export", "min_position": i64::MAX},
            {"account": "user_1", "feature": "export", "min_position": -1},
            {"account": "user_1"},
            {"account": "user_1", "feature": "generation", "quantity": 1.5},
            "user_1",
        ]);
        let call = app.call(Method::POST, "/v1/entitlements/check").json(json!({"checks": checks}));
        let outcome = call.beyond_the_contract().send().await.expect(200);
        let said: Vec<Value> = outcome["data"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| json!([row["status"], row["entitlement"]["allowed"], row["problem"]["code"]]))
            .collect();
        let expected = json!([
            [200, true, null],
            [200, true, null],
            [200, false, null],
            [404, null, "account_not_found"],
            [404, null, "unknown_feature"],
            [400, null, "invalid_parameter"],
            [400, null, "invalid_parameter"],
            [409, null, "position_not_reached"],
            [400, null, "invalid_parameter"],
            [400, null, "invalid_body"],
            [400, null, "invalid_body"],
            [400, null, "invalid_body"],
        ]);
        assert_eq!(json!(said), expected);
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_checks_has_one_to_a_thousand_rows() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let batch = async |rows: usize| {
        let row = json!({"account": "user_1", "feature": "generation"});
        app.call(Method::POST, "/v1/entitlements/check").json(json!({"checks": vec![row; rows]})).send().await
    };
    batch(0).await.problem(400, "invalid_parameter");
    batch(1_001).await.problem(400, "invalid_parameter");
    assert_eq!(batch(1_000).await.expect(200)["data"].as_array().expect("rows").len(), 1_000);
    for body in [json!({}), json!({"checks": "x"}), json!([])] {
        app.call(Method::POST, "/v1/entitlements/check").json(body).send().await.problem(400, "invalid_body");
    }
}
