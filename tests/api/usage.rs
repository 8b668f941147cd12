//! `…/usage`, and limits within windows of time.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// The seller's catalog with `calls`, which cost nothing and are limited by `limits` on the free plan, and by 1,000 a
/// period on the pro plan.
pub fn with_calls(limits: &str) -> Setup {
    let feature = "[features.calls]\nname = \"Calls\"\nkind = \"metered\"\n\n[features.support]";
    let catalog = SELLER
        .replace("[features.support]", feature)
        .replacen(
            "features = { generation = true }",
            &format!("features = {{ generation = true, calls = {limits} }}"),
            1,
        )
        .replacen(
            "features = { generation = true, export = true }",
            "features = { generation = true, export = true, calls = { limit = 1_000, per = \"period\" } }",
            1,
        );
    Setup { catalog, ..Setup::default() }
}

async fn start(limits: &str) -> TestApp {
    let app = TestApp::with(with_calls(limits)).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app
}

async fn call(app: &TestApp, account: &str, quantity: i64) -> Answer {
    app.post(&format!("/v1/accounts/{account}/credits/debits"), json!({"feature": "calls", "quantity": quantity})).await
}

async fn record(app: &TestApp, body: Value) -> Answer {
    app.post("/v1/accounts/user_1/usage", body).await
}

async fn usage(app: &TestApp, account: &str, query: &str) -> Value {
    app.get(&format!("/v1/accounts/{account}/usage?feature=calls{query}")).await.expect(200)
}

/// What the account's windows of `calls` say: how much is used of each.
async fn used(app: &TestApp) -> Vec<i64> {
    let limits = usage(app, "user_1", "").await["features"][0]["limits"].clone();
    limits.as_array().expect("limits").iter().map(|limit| limit["used"].as_i64().expect("a number")).collect()
}

async fn check(app: &TestApp, what: &str) -> Value {
    app.get(&format!("/v1/accounts/user_1/entitlements/{what}")).await.expect(200)
}

const ALL_WINDOWS: &str = r#"[{ limit = 10, per = "minute" }, { limit = 20, per = "hour" }, { limit = 30, per = "day" },
    { limit = 40, per = "month" }, { limit = 50, per = "period" }]"#;

#[tokio::test]
async fn a_limit_a_minute_holds_until_the_minute_is_over() {
    on_both_with(with_calls(r#"{ limit = 3, per = "minute" }"#), async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        app.clock.set(START + 30);
        let debit = call(&app, "user_1", 2).await.expect(201);
        assert_eq!((&debit["amount"], &debit["lots"], &debit["quantity"]), (&json!(0), &json!([]), &json!(2)));
        assert_eq!(debit["available"], FREE_CREDITS);
        call(&app, "user_1", 1).await.expect(201);
        let body = json!({"feature": "calls"});
        let refused = app.debit("user_1", "key-1", body.clone()).await;
        assert_eq!(refused.header("retry-after"), Some("Thu, 15 Jan 2026 12:01:00 GMT"));
        let detail = "calls is limited to 3 per minute, 3 are used, and the count begins anew at 2026-01-15T12:01:00Z; the Idempotency-Key keeps this answer, so another attempt needs a new one";
        assert_eq!(refused.clone().problem(403, "limit_exceeded")["detail"], detail);
        let answer = check(&app, "calls").await;
        assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(false), &json!("limit_exceeded")));
        assert_eq!((&answer["remaining"], &answer["limit"], &answer["per"]), (&json!(0), &json!(3), &json!("minute")));
        assert_eq!(answer["resets_at"], rfc3339(START + 60));

        app.clock.set(START + 60);
        assert_eq!(check(&app, "calls?quantity=3").await["reason"], "included");
        assert_eq!(check(&app, "calls?quantity=4").await["reason"], "limit_exceeded");
        let again = app.debit("user_1", "key-1", body.clone()).await;
        assert!(again.is_replay(), "a refusal is frozen");
        assert_eq!((&again.text, again.header("retry-after")), (&refused.text, refused.header("retry-after")));
        app.debit("user_1", "key-2", body).await.expect(201);
        call(&app, "user_1", 3).await.problem(403, "limit_exceeded");
        let whole = call(&app, "user_1", 4).await;
        assert_eq!(whole.header("retry-after"), None, "waiting would not help");
        let detail = whole.problem(403, "limit_exceeded")["detail"].clone();
        assert!(detail.as_str().is_some_and(|detail| detail.starts_with("4 of calls are more than its whole limit of 3")));
        call(&app, "user_1", 2).await.expect(201);
        let entries = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
        assert_eq!(entries["data"].as_array().expect("entries").last().expect("one")["amount"], 0);
    })
    .await;
}

#[tokio::test]
async fn of_several_limits_the_tightest_decides() {
    let app = start(ALL_WINDOWS).await;
    for (at, quantity) in [(0, 10), (60, 10), (3_600, 10)] {
        app.clock.set(START + at);
        call(&app, "user_1", quantity).await.expect(201);
        call(&app, "user_1", 1).await.problem(403, "limit_exceeded");
    }
    app.clock.set(START + 7_200);
    let problem = call(&app, "user_1", 1).await.problem(403, "limit_exceeded");
    assert!(problem["detail"].as_str().expect("a detail").contains("30 per day"), "{problem}");
    app.clock.set(day(1));
    assert_eq!(used(&app).await, [0, 0, 0, 30, 30]);
    let answer = check(&app, "calls").await;
    assert_eq!((&answer["remaining"], &answer["per"]), (&json!(10), &json!("month")));
    assert_eq!(answer["limits"].as_array().expect("limits").len(), 5);
    call(&app, "user_1", 10).await.expect(201);
    // February, and still the account's own month, which began on 15 January.
    app.clock.set(day(17));
    assert_eq!(used(&app).await, [0, 0, 0, 0, 40]);
    call(&app, "user_1", 10).await.expect(201);
    app.clock.advance(chrono::Duration::minutes(1));
    let problem = call(&app, "user_1", 1).await.problem(403, "limit_exceeded");
    assert!(problem["detail"].as_str().expect("a detail").contains("50 per period"), "{problem}");
    app.clock.set(day(31));
    assert_eq!(used(&app).await, [0, 0, 0, 10, 0]);
    call(&app, "user_1", 10).await.expect(201);
}

#[tokio::test]
async fn many_at_once_never_pass_a_limit() {
    let app = start(r#"{ limit = 25, per = "hour" }"#).await;
    let answers = futures_util::future::join_all((0..40).map(|_| call(&app, "user_1", 1))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 25);
    assert!(answers.iter().all(|answer| [201, 403].contains(&answer.status)));
}

#[tokio::test]
async fn counts_outlive_the_process_and_are_shared_by_replicas() {
    let app = start(r#"{ limit = 10, per = "day" }"#).await;
    call(&app, "user_1", 6).await.expect(201);
    let setup = with_calls(r#"{ limit = 10, per = "day" }"#);
    let other = TestApp::with(Setup { database_url: Some(app.database_url.clone()), ..setup }).await;
    call(&other, "user_1", 5).await.problem(403, "limit_exceeded");
    call(&other, "user_1", 4).await.expect(201);
    call(&app, "user_1", 1).await.problem(403, "limit_exceeded");
}

#[tokio::test]
async fn a_subscriptions_period_is_its_own() {
    let app = start("true").await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    call(&app, "user_1", 5).await.expect(201);
    app.clock.set(day(3));
    app.deliver_all(&sign_up("cus_1", PRO, day(3))).await;
    call(&app, "user_1", 999).await.expect(201);
    call(&app, "user_1", 2).await.problem(403, "limit_exceeded");
    let statistics = usage(&app, "user_1", "").await;
    assert_eq!(statistics["period"], json!({"start": rfc3339(day(3)), "end": rfc3339(day(34))}));
    let renewed = with(subscription("cus_1", "sub_cus_1", PRO, day(34)), json!({"created": day(3)}));
    app.clock.set(day(34));
    app.deliver(&event("customer.subscription.updated", day(34), renewed)).await;
    let ids = app.get("/v1/accounts/user_1/subscriptions").await.expect(200);
    assert_eq!(usage(&app, "user_1", "").await["period"]["start"], rfc3339(day(34)), "{ids}");
    call(&app, "user_1", 1_000).await.expect(201);
}

#[tokio::test]
async fn between_a_periods_end_and_its_renewal_the_next_period_counts() {
    let app = start("true").await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    app.clock.set(day(3));
    app.deliver_all(&sign_up("cus_1", PRO, day(3))).await;
    call(&app, "user_1", 1_000).await.expect(201);
    // Stripe has not told of the renewal: nothing is left to be reset in the past.
    app.clock.set(day(34) + 60);
    call(&app, "user_1", 999).await.expect(201);
    let refused = call(&app, "user_1", 2).await;
    assert_eq!(refused.header("retry-after"), Some("Wed, 18 Mar 2026 12:00:00 GMT"));
    refused.problem(403, "limit_exceeded");
    let answer = check(&app, "calls?quantity=2").await;
    // From 18 January to 18 February, and on to 18 March.
    assert_eq!((&answer["remaining"], &answer["resets_at"]), (&json!(1), &json!(rfc3339(day(62)))));
    let period = json!({"start": rfc3339(day(34)), "end": rfc3339(day(62))});
    assert_eq!(usage(&app, "user_1", "").await["period"], period);
    let renewed = with(subscription("cus_1", "sub_cus_1", PRO, day(34)), json!({"created": day(3)}));
    app.deliver(&event("customer.subscription.updated", day(34), renewed)).await;
    assert_eq!(usage(&app, "user_1", "").await["period"]["start"], period["start"]);
    assert_eq!(check(&app, "calls").await["remaining"], 1, "what was used meanwhile is still there");
}

#[tokio::test]
async fn what_is_recorded_counts_and_is_never_refused() {
    on_both_with(with_calls(r#"{ limit = 10, per = "day" }"#), async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let recorded = record(&app, json!({"feature": "calls", "quantity": 4})).await.expect(201);
        assert_eq!((&recorded["action"], &recorded["day"]), (&json!("increment"), &json!("2026-01-15")));
        assert_eq!((&recorded["timestamp"], &recorded["day_total"]), (&json!(rfc3339(START)), &json!(4)));
        let again = record(&app, json!({"feature": "calls", "quantity": 40})).await.expect(201);
        assert_eq!(again["day_total"], 44);
        let answer = check(&app, &format!("calls?min_position={}", again["position"])).await;
        assert_eq!((&answer["reason"], &answer["remaining"]), (&json!("limit_exceeded"), &json!(0)));
        call(&app, "user_1", 1).await.problem(403, "limit_exceeded");
        let set = record(&app, json!({"feature": "calls", "quantity": 7, "action": "set"})).await.expect(201);
        assert_eq!(set["day_total"], 7);
        call(&app, "user_1", 4).await.problem(403, "limit_exceeded");
        call(&app, "user_1", 3).await.expect(201);
        let statistics = usage(&app, "user_1", "").await;
        assert_eq!(statistics["features"][0]["used"], 10);
        assert_eq!(statistics["features"][0]["percentage"], 100.0);
        let none = record(&app, json!({"feature": "calls", "quantity": 0, "action": "set"})).await.expect(201);
        assert_eq!(none["day_total"], 0);
        // Not in the plan, and yet it happened.
        record(&app, json!({"feature": "generation", "quantity": 1_000})).await.expect(201);
        assert_eq!(app.available("user_1").await, FREE_CREDITS);
    })
    .await;
}

#[tokio::test]
async fn a_retry_of_a_record_counts_nothing() {
    let app = start("true").await;
    let send = async |quantity: i64| {
        let call = app.call(Method::POST, "/v1/accounts/user_1/usage").idempotency_key("use-1");
        call.json(json!({"feature": "calls", "quantity": quantity, "timestamp": rfc3339(START)})).send().await
    };
    let first = send(5).await;
    // Long past the time within which it could be recorded.
    app.clock.set(day(100));
    let again = send(5).await;
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!((again.status, &again.text), (201, &first.text));
    send(6).await.problem(422, "idempotency_key_reused");
    let setup = Setup { database_url: Some(app.database_url.clone()), ..with_calls("true") };
    let restarted = TestApp::with(setup).await;
    let call = restarted.call(Method::POST, "/v1/accounts/user_1/usage").idempotency_key("use-1");
    let again = call.json(json!({"feature": "calls", "quantity": 5, "timestamp": rfc3339(START)})).send().await;
    assert_eq!((again.is_replay(), &again.text), (true, &first.text));
}

#[tokio::test]
async fn bad_records_are_told_apart() {
    let app = start("true").await;
    for (quantity, action) in
        [(0, "increment"), (-1, "increment"), (1_000_000_000_001, "increment"), (i64::MIN, "set"), (-1, "set")]
    {
        let body = json!({"feature": "calls", "quantity": quantity, "action": action});
        record(&app, body).await.problem(400, "out_of_range");
    }
    for body in [
        r#"{"feature": "calls", "quantity": 9223372036854775808}"#,
        r#"{"feature": "calls", "quantity": 1.5}"#,
        r#"{"feature": "calls", "quantity": "1"}"#,
        r#"{"feature": "calls"}"#,
        r#"{"quantity": 1}"#,
        r#"{"feature": "calls", "quantity": 1, "action": "decrement"}"#,
        r#"{"feature": "calls", "quantity": 1, "timestamp": 1768478400}"#,
        r#"{"feature": "calls", "quantity": 1, "timestamp": "yesterday"}"#,
        r#"{"feature": "calls", "quantity": 1, "timestamp": "2026-01-15T12:00:00Z", "at": "2026-01-15T12:00:00Z"}"#,
        r#"{"feature": "calls", "quantity": 1, "note": "x"}"#,
    ] {
        let call = app.call(Method::POST, "/v1/accounts/user_1/usage").idempotency_key("key-1");
        call.bytes(body.as_bytes().to_vec()).send().await.problem(400, "invalid_body");
    }
    let body = json!({"feature": "calls", "quantity": 1});
    let without = app.call(Method::POST, "/v1/accounts/user_1/usage").json(body.clone()).send().await;
    without.problem(400, "idempotency_key_missing");
    app.post("/v1/accounts/nobody/usage", body).await.problem(404, "account_not_found");
    record(&app, json!({"feature": "flying", "quantity": 1})).await.problem(404, "unknown_feature");
    record(&app, json!({"feature": "export", "quantity": 1})).await.problem(422, "feature_not_metered");
    let statistics = "/v1/accounts/user_1/usage";
    app.get(&format!("{statistics}?feature=flying")).await.problem(404, "unknown_feature");
    app.get("/v1/accounts/nobody/usage").await.problem(404, "account_not_found");
    for query in [
        "from=x",
        "to=2026-02-30",
        "from=2026-01-02&to=2026-01-01",
        "from=2024-01-01",
        "from=-262143-01-01",
        "to=-262143-01-01",
        "to=x",
    ] {
        app.get(&format!("{statistics}?{query}")).await.problem(400, "invalid_parameter");
    }
    let problem = app.get(&format!("{statistics}?to=2026-01-14")).await.problem(400, "invalid_parameter");
    let detail = "from: must be given, too: to lies before the running period, which began on 2026-01-15";
    assert_eq!(problem["detail"], detail);
    app.get(&format!("{statistics}?to=2026-01-15")).await.expect(200);
    app.get(&format!("{statistics}?from=1970-01-01&to=1970-01-01")).await.expect(200);
    assert_eq!(used(&app).await, Vec::<i64>::new());
}

/// A feature that costs nothing is held for its limit's sake.
#[tokio::test]
async fn open_holds_count_towards_limits_in_every_window_and_captures_once() {
    on_both_with(with_calls(r#"{ limit = 10, per = "day" }"#), async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let hold = async |quantity: i64| {
            let body = json!({"feature": "calls", "quantity": quantity, "expires_at": rfc3339(day(2))});
            app.post("/v1/accounts/user_1/credits/holds", body).await
        };
        let act = async |hold: &Value, act: &str, body: Value| {
            app.post(&format!("/v1/holds/{}/{act}", hold["id"].as_str().expect("an id")), body).await
        };
        let limit = async || {
            let answer = check(&app, "calls").await;
            assert_eq!(answer["remaining"], answer["limits"][0]["remaining"]);
            ["used", "held", "remaining"].map(|name| answer["limits"][0][name].as_i64().expect("a number"))
        };
        let first = hold(6).await.expect(201);
        assert_eq!((&first["amount"], &first["lots"], &first["quantity"]), (&json!(0), &json!([]), &json!(6)));
        let second = hold(3).await.expect(201);
        assert_eq!(limit().await, [0, 9, 1]);
        let problem = hold(2).await.problem(403, "limit_exceeded");
        assert!(problem["detail"].as_str().expect("a detail").contains("0 are used and 9 are held"), "{problem}");
        call(&app, "user_1", 2).await.problem(403, "limit_exceeded");
        assert_eq!(check(&app, "calls?quantity=1").await["allowed"], true);
        assert_eq!(check(&app, "calls?quantity=2").await["reason"], "limit_exceeded");
        call(&app, "user_1", 1).await.expect(201);
        act(&first, "capture", json!({"quantity": 4})).await.expect(200);
        assert_eq!(limit().await, [5, 3, 2]);
        // The other is open still when the next day begins.
        app.clock.set(day(1));
        assert_eq!(limit().await, [0, 3, 7]);
        call(&app, "user_1", 8).await.problem(403, "limit_exceeded");
        call(&app, "user_1", 7).await.expect(201);
        act(&second, "capture", json!({})).await.expect(200);
        assert_eq!(limit().await, [10, 0, 0]);
        assert_eq!(usage(&app, "user_1", "").await["features"][0]["limits"][0]["held"], 0);
        app.clock.set(day(1) + 43_200);
        hold(10).await.expect(201);
        assert_eq!(limit().await, [0, 10, 0]);
        app.clock.set(day(2));
        assert_eq!(limit().await, [0, 0, 10], "an expired hold counts no more");
    })
    .await;
}

#[tokio::test]
async fn many_holds_at_once_never_pass_a_limit() {
    let app = start(r#"{ limit = 25, per = "hour" }"#).await;
    let one = || app.post("/v1/accounts/user_1/credits/holds", json!({"feature": "calls"}));
    let answers = futures_util::future::join_all((0..40).map(|_| one())).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 25);
}

#[tokio::test]
async fn at_most_35_days_back_and_hardly_ahead() {
    let app = start("true").await;
    let at = async |seconds: i64| {
        record(&app, json!({"feature": "calls", "quantity": 1, "timestamp": rfc3339(seconds)})).await
    };
    let problem = at(day(-35) - 1).await.problem(400, "time_out_of_range");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("timestamp must be from 2025-12-11T12:00:00Z to 2026-01-15T12:05:00Z;"), "{detail}");
    assert_eq!(at(day(-35)).await.expect(201)["day"], "2025-12-11");
    at(START + 301).await.problem(400, "time_out_of_range");
    assert_eq!(at(START + 300).await.expect(201)["timestamp"], rfc3339(START), "what is ahead is taken for now");
}

#[tokio::test]
async fn days_are_told_by_feature_and_a_day_that_is_over_has_a_row() {
    let app = start(r#"{ limit = 1_000, per = "month" }"#).await;
    for (n, quantity) in [(0, 1), (1, 20), (3, 300)] {
        app.clock.set(day(n));
        call(&app, "user_1", quantity).await.expect(201);
        app.post("/v1/accounts/user_1/credits/debits", json!({"feature": "generation"})).await.expect(201);
    }
    let rows =
        app.database().await.query("select day, feature, used, credits from usage_days order by 1, 2", &[]).await;
    let rows: Vec<(String, String, i64, i64)> =
        rows.expect("rows").iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let row = |day: &str, feature: &str, used, credits| (day.to_owned(), feature.to_owned(), used, credits);
    let expected = [
        row("2026-01-15", "calls", 1, 0),
        row("2026-01-15", "generation", 1, 1),
        row("2026-01-16", "calls", 20, 0),
        row("2026-01-16", "generation", 1, 1),
    ];
    assert_eq!(rows, expected, "the day of the last use is in the hot part alone");

    let statistics = app.get("/v1/accounts/user_1/usage").await.expect(200);
    assert_eq!((&statistics["from"], &statistics["to"]), (&json!("2026-01-15"), &json!("2026-01-18")));
    let month = json!({"start": rfc3339(START), "end": rfc3339(day(31))});
    let credits = json!({"period": month, "granted": 10, "rolled_over": 0, "used": 3, "remaining": 7,
        "percentage": 30.0, "available": 7, "unlimited": false});
    assert_eq!(statistics["credits"], credits);
    let [calls, generation] = statistics["features"].as_array().expect("features").as_slice() else {
        panic!("other features: {statistics}");
    };
    assert_eq!((&calls["feature"], &calls["used"], &calls["remaining"]), (&json!("calls"), &json!(321), &json!(679)));
    assert_eq!((&calls["limit"], &calls["percentage"]), (&json!(1_000), &json!(32.1)));
    let days = json!([{"day": "2026-01-15", "used": 1, "credits": 0}, {"day": "2026-01-16", "used": 20, "credits": 0},
        {"day": "2026-01-18", "used": 300, "credits": 0}]);
    assert_eq!(calls["days"], days);
    assert_eq!((&generation["used"], &generation["credits"]), (&json!(3), &json!(3)));
    let two = usage(&app, "user_1", "&from=2026-01-16&to=2026-01-17").await;
    assert_eq!((&two["features"][0]["used"], &two["features"][0]["limits"][0]["used"]), (&json!(20), &json!(321)));
}

#[tokio::test]
async fn what_is_recorded_late_counts_on_its_day_in_its_month_and_period_and_in_no_minute() {
    let app = start(ALL_WINDOWS).await;
    call(&app, "user_1", 1).await.expect(201);
    app.clock.set(day(2));
    call(&app, "user_1", 1).await.expect(201);
    let late = async |quantity: i64, action: &str, seconds: i64| {
        let body = json!({"feature": "calls", "quantity": quantity, "action": action, "timestamp": rfc3339(seconds)});
        record(&app, body).await.expect(201)["day_total"].clone()
    };
    assert_eq!(late(4, "increment", START + 60).await, 5);
    assert_eq!(used(&app).await, [1, 1, 1, 6, 6]);
    assert_eq!(late(2, "set", START + 60).await, 2);
    assert_eq!(used(&app).await, [1, 1, 1, 3, 3]);
    // Of another month, and of the time before the account's period.
    assert_eq!(late(100, "increment", day(-20)).await, 100);
    assert_eq!(used(&app).await, [1, 1, 1, 3, 3]);
    assert_eq!(late(7, "increment", day(-5)).await, 7);
    assert_eq!(used(&app).await, [1, 1, 1, 10, 3]);
    let statistics = usage(&app, "user_1", "&from=2025-12-20").await;
    let days: Vec<i64> =
        statistics["features"][0]["days"].as_array().expect("days").iter().filter_map(|d| d["used"].as_i64()).collect();
    assert_eq!(days, [100, 7, 2, 1]);
    assert_eq!(late(0, "set", day(-20)).await, 0);
    assert_eq!(usage(&app, "user_1", "&from=2025-12-20").await["features"][0]["used"], 10, "a day of nothing is none");
}

#[tokio::test]
async fn what_a_customer_used_before_it_was_linked_is_the_accounts() {
    let app = start(r#"{ limit = 100, per = "month" }"#).await;
    app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
    for (n, quantity) in [(0, 1), (1, 2), (2, 4)] {
        app.clock.set(day(n));
        app.post("/v1/accounts/cus_1/usage", json!({"feature": "calls", "quantity": quantity})).await.expect(201);
        app.post("/v1/accounts/user_1/usage", json!({"feature": "calls", "quantity": 10 * quantity})).await.expect(201);
    }
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    let statistics = usage(&app, "user_1", "&from=2026-01-01").await;
    let days: Vec<i64> =
        statistics["features"][0]["days"].as_array().expect("days").iter().filter_map(|d| d["used"].as_i64()).collect();
    assert_eq!(days, [11, 22, 44]);
}

#[tokio::test]
async fn a_clock_that_goes_back_opens_no_closed_day() {
    let app = start(r#"{ limit = 10, per = "day" }"#).await;
    call(&app, "user_1", 1).await.expect(201);
    app.clock.set(day(1));
    call(&app, "user_1", 2).await.expect(201);
    app.clock.set(START);
    call(&app, "user_1", 4).await.expect(201);
    assert_eq!(check(&app, "calls").await["remaining"], 4);
    let body = json!({"feature": "calls", "quantity": 1, "timestamp": rfc3339(START)});
    assert_eq!(record(&app, body).await.expect(201)["day_total"], 2, "a stated time is taken at its word");
    app.clock.set(day(2));
    call(&app, "user_1", 1).await.expect(201);
    let statistics = usage(&app, "user_1", "&from=2026-01-15").await;
    let days: Vec<i64> =
        statistics["features"][0]["days"].as_array().expect("days").iter().filter_map(|d| d["used"].as_i64()).collect();
    assert_eq!(days, [2, 6, 1]);
}

#[tokio::test]
async fn a_timestamp_may_go_by_its_other_name() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    for (name, total) in [("timestamp", 5), ("at", 10)] {
        let body = json!({"feature": "generation", "quantity": 5, name: rfc3339(START - 60)});
        let recorded = app.post("/v1/accounts/user_1/usage", body).await.expect(201);
        assert_eq!((&recorded["timestamp"], &recorded["day_total"]), (&json!(rfc3339(START - 60)), &json!(total)));
    }
    let old = json!({"feature": "generation", "quantity": 5, "timestamp": rfc3339(START - 36 * 86_400)});
    let problem = app.post("/v1/accounts/user_1/usage", old).await.problem(400, "time_out_of_range");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with("timestamp ")), "{problem}");
}
