//! `?as_of=`: an account as it stood at a time or a position.

use chrono::Duration;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

async fn credits(app: &TestApp, as_of: &str) -> Value {
    app.get(&format!("/v1/accounts/user_1/credits?as_of={as_of}")).await.expect(200)
}

#[tokio::test]
async fn balances_lots_and_holds_are_told_of_any_moment_that_has_been() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        app.clock.advance(Duration::seconds(10));
        let debit = app.debit("user_1", "key-1", json!({"amount": 3})).await.expect(201);
        app.clock.advance(Duration::seconds(10));
        let hold = json!({"amount": 2, "expires_at": rfc3339(START + 50)});
        let held = app.post("/v1/accounts/user_1/credits/holds", hold).await.expect(201);
        app.clock.advance(Duration::seconds(10));
        let release = format!("/v1/holds/{}/release", held["id"].as_str().expect("an id"));
        let released = app.post(&release, json!({})).await.expect(200);
        app.clock.advance(Duration::days(40));
        app.debit("user_1", "key-2", json!({"amount": 10})).await.expect(201);
        app.clock.advance(Duration::minutes(1));
        let expected = [(5, 10, 0), (10, 7, 0), (15, 7, 0), (20, 5, 2), (29, 5, 2), (30, 7, 0)];
        for (seconds, available, held) in expected {
            let then = credits(&app, &rfc3339(START + seconds)).await;
            assert_eq!((&then["available"], &then["held"]), (&json!(available), &json!(held)), "after {seconds} s");
            assert_eq!(then["as_of"]["at"], rfc3339(START + seconds));
        }
        // What the clock had made due by then counts, although nothing had recorded it.
        assert_eq!(credits(&app, &rfc3339(day(31) - 1)).await["available"], 7);
        assert_eq!(credits(&app, &rfc3339(day(31))).await["available"], 10);
        assert_eq!(credits(&app, &rfc3339(day(40) + 30)).await["available"], 0);
        for (position, available) in [(&debit["position"], 7), (&held["position"], 5), (&released["position"], 7)] {
            assert_eq!(credits(&app, &position.to_string()).await["available"], available, "at {position}");
        }
        let holds = async |seconds: i64| {
            let path = format!("/v1/accounts/user_1/credits/holds?as_of={}", rfc3339(START + seconds));
            let page = app.get(&path).await.expect(200);
            page["data"].as_array().expect("holds").iter().map(|hold| hold["status"].clone()).collect::<Vec<_>>()
        };
        let path = format!("/v1/holds/{}", held["id"].as_str().expect("an id"));
        let one = async |as_of: &str| app.get(&format!("{path}?as_of={as_of}")).await;
        one(&rfc3339(START + 15)).await.problem(404, "hold_not_found");
        let open = one(&rfc3339(START + 25)).await.expect(200);
        assert_eq!((&open["status"], &open["account"], &open["amount"]), (&json!("open"), &json!("user_1"), &json!(2)));
        assert_eq!(one(&held["position"].to_string()).await.expect(200), open);
        assert_eq!(one(&rfc3339(START + 35)).await.expect(200)["status"], "released");
        assert_eq!(one(&rfc3339(app.now())).await.problem(409, "as_of_too_recent")["status"], 409);
        assert_eq!(holds(15).await, Vec::<Value>::new());
        assert_eq!((holds(25).await, holds(35).await), (vec![json!("open")], vec![json!("released")]));
    })
    .await;
}

/// A hold is told of the stream that had it then.
#[tokio::test]
async fn a_hold_is_told_of_before_and_after_its_stream_was_taken_over() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let hold = json!({"amount": 2, "expires_at": rfc3339(day(3))});
    let held = app.post("/v1/accounts/cus_1/credits/holds", hold).await.expect(201);
    app.clock.set(START + 10);
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    app.clock.set(START + 60);
    let path = format!("/v1/holds/{}", held["id"].as_str().expect("an id"));
    for (seconds, owner) in [(5, "cus_1"), (15, "user_1")] {
        let then = app.get(&format!("{path}?as_of={}", rfc3339(START + seconds))).await.expect(200);
        assert_eq!((&then["account"], &then["status"]), (&json!(owner), &json!("open")), "after {seconds} s");
    }
    app.clock.set(day(4));
    let over = app.get(&format!("{path}?as_of={}", rfc3339(day(3) + 5))).await.expect(200);
    assert_eq!(over["status"], "expired");
}

#[tokio::test]
async fn a_hold_that_ended_in_a_stream_is_told_of_after_that_was_taken_over() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let hold = json!({"amount": 2, "expires_at": rfc3339(day(3))});
    let held = app.post("/v1/accounts/cus_1/credits/holds", hold).await.expect(201);
    let path = format!("/v1/holds/{}", held["id"].as_str().expect("an id"));
    app.post(&format!("{path}/capture"), json!({})).await.expect(200);
    app.clock.set(START + 10);
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    app.clock.set(START + 60);
    let then = app.get(&format!("{path}?as_of={}", rfc3339(START + 15))).await.expect(200);
    assert_eq!((&then["captured"], &then["status"]), (&json!(2), &json!("captured")));
}

#[tokio::test]
async fn entitlements_and_subscriptions_are_told_under_the_catalog_of_then() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.clock.advance(Duration::seconds(10));
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.clock.advance(Duration::seconds(10));
    app.apply_catalog(&SELLER.replacen("credit_cost = 1\n", "credit_cost = 5\n", 1)).await;
    app.clock.advance(Duration::minutes(1));
    let check = async |seconds: i64| {
        let at = rfc3339(START + seconds);
        let answer = app.get(&format!("/v1/accounts/user_1/entitlements/generation?as_of={at}")).await.expect(200);
        (answer["plan"].clone(), answer["remaining"].clone())
    };
    assert_eq!(check(5).await, (json!("free"), json!(10)));
    assert_eq!(check(15).await, (json!("pro"), json!(500)));
    assert_eq!(check(25).await, (json!("pro"), json!(100)));
    let path = |seconds: i64| format!("/v1/accounts/user_1/subscription?as_of={}", rfc3339(START + seconds));
    app.get(&path(5)).await.problem(404, "not_found");
    assert_eq!(app.get(&path(15)).await.expect(200)["plan"], "pro");
    let all = app.get(&format!("/v1/accounts/user_1/subscriptions?as_of={}", rfc3339(START + 15))).await.expect(200);
    assert_eq!(all["data"].as_array().map(Vec::len), Some(1));
    let listed = app.get(&format!("/v1/accounts/user_1/entitlements?as_of={}", rfc3339(START + 5))).await.expect(200);
    assert!(listed["data"].as_array().expect("features").iter().all(|answer| answer["plan"] == "free"));
}

/// What a name led to then is what is told of then, whatever it leads to now.
#[tokio::test]
async fn a_time_before_a_link_is_told_as_it_was_before_the_link() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
        app.clock.advance(Duration::seconds(10));
        app.deliver_all(&[
            event("checkout.session.completed", START + 10, pack_checkout("cus_1", "cs_1", START + 10)),
            event("customer.subscription.created", START + 10, subscription("cus_1", "sub_1", PRO, START)),
        ])
        .await;
        app.clock.advance(Duration::seconds(10));
        app.debit("cus_1", "key-2", json!({"amount": 3})).await.expect(201);
        let held = json!({"amount": 2, "expires_at": rfc3339(day(3))});
        app.post("/v1/accounts/cus_1/credits/holds", held).await.expect(201);
        app.clock.advance(Duration::minutes(1));
        let at = |seconds: i64| rfc3339(START + seconds);
        let questions = [
            format!("credits?as_of={}", at(25)),
            format!("credits?as_of={}", at(15)),
            format!("credits?as_of={}", at(5)),
            format!("credits/holds?as_of={}", at(25)),
            format!("subscription?as_of={}", at(25)),
            format!("subscriptions?as_of={}", at(25)),
            format!("entitlements/export?as_of={}", at(25)),
        ];
        let ask = async || {
            let mut answers = Vec::new();
            for question in &questions {
                let mut answer = app.get(&format!("/v1/accounts/cus_1/{question}")).await.body;
                if let Some(as_of) = answer.get_mut("as_of") {
                    as_of["age_ms"] = json!(0);
                }
                answers.push(with(answer, json!({"request_id": 0})));
            }
            answers
        };
        let before = ask().await;
        assert_eq!((&before[0]["available"], &before[0]["held"]), (&json!(PACK_CREDITS - 5), &json!(2)));
        assert_eq!((&before[1]["available"], &before[2]["code"]), (&json!(PACK_CREDITS), &json!("account_not_found")));
        let linked = app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
        let linked_at = app.now() - START;
        app.clock.advance(Duration::minutes(1));
        app.debit("cus_1", "key-3", json!({"amount": 7})).await.expect(201);
        app.clock.advance(Duration::minutes(1));
        assert_eq!(ask().await, before);
        // From the link on, and by position, it is the account's.
        for moment in [at(linked_at), linked["position"].to_string()] {
            let path = |name: &str| format!("/v1/accounts/{name}/credits?as_of={moment}");
            let (theirs, ours) =
                (app.get(&path("cus_1")).await.expect(200), app.get(&path("user_1")).await.expect(200));
            assert_eq!((&theirs["available"], &theirs["lots"]), (&ours["available"], &ours["lots"]), "{moment}");
            assert_ne!(theirs["available"], before[0]["available"]);
        }
        // Its receipt explains it, too.
        let receipt = before[6]["receipt"].as_str().expect("a receipt");
        let explained = app.get(&format!("/v1/receipts/{receipt}")).await.expect(200);
        assert_eq!((&explained["account"], &explained["agrees"]), (&json!("cus_1"), &json!(true)));
    })
    .await;
}

#[tokio::test]
async fn moments_that_are_none_are_refused() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let path = |as_of: &str| format!("/v1/accounts/user_1/credits?as_of={as_of}");
    for as_of in ["yesterday", "-1", "1.5", "2026-01-15", &rfc3339(START + 1)] {
        app.get(&path(as_of)).await.problem(400, "invalid_parameter");
    }
    let problem = app.get(&path(&rfc3339(START - 31))).await.problem(404, "account_not_found");
    let detail = "user_1 was opened at 2026-01-15T12:00:00Z only; nothing is known of it before that";
    assert_eq!(problem["detail"], detail);
    assert_eq!(app.get(&path("0")).await.problem(404, "account_not_found")["detail"], detail);
    let nobody = "/v1/accounts/nobody/credits?as_of=0";
    assert_eq!(app.get(nobody).await.problem(404, "account_not_found")["detail"], "no account is called nobody");
    app.get(&path("999")).await.problem(409, "position_not_reached");
    app.get("/v1/accounts/user_1/invoices?as_of=1").await.problem(400, "invalid_parameter");
}

/// A replica may have decided something at the time asked for, and not have written it yet.
#[tokio::test]
async fn a_time_is_told_once_nothing_can_be_written_of_it_any_more() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.clock.advance(Duration::seconds(10));
    let asked = START + 10;
    let path = format!("/v1/accounts/user_1/credits?as_of={}", rfc3339(asked));
    for _ in 0..2 {
        let problem = app.get(&path).await.problem(409, "as_of_too_recent");
        assert!(problem["detail"].as_str().expect("a detail").contains(&rfc3339(asked + 30)), "{problem}");
        app.clock.set(asked + 29);
    }
    // Decided by a clock that is ten seconds behind: on record after somebody might have asked, and of a time before that.
    app.clock.set(asked - 10);
    let late = app.debit("user_1", "key-1", json!({"amount": 3})).await.expect(201);
    assert_eq!(credits(&app, &late["position"].to_string()).await["available"], 7, "a position is told at once");
    app.clock.set(asked + 30);
    let first = app.get(&path).await.expect(200);
    assert_eq!(first["available"], 7);
    app.clock.advance(Duration::days(1));
    assert_eq!(app.get(&path).await.expect(200)["available"], 7);
}

/// What was written goes before what is asked: as of a moment, too, no answer is older than the caller's own write.
#[tokio::test]
async fn the_past_is_told_once_a_position_has_been_reached() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let debit = app.debit("user_1", "key-1", json!({"amount": 3})).await.expect(201);
    let reached = debit["position"].as_i64().expect("a position");
    app.clock.advance(Duration::minutes(1));
    let paths =
        ["credits", "credits/holds", "entitlements", "entitlements/generation", "subscription", "subscriptions"];
    for part in paths {
        for as_of in [reached.to_string(), rfc3339(START + 20)] {
            let path =
                |min_position: i64| format!("/v1/accounts/user_1/{part}?as_of={as_of}&min_position={min_position}");
            app.get(&path(reached)).await.expect(200);
            let problem = app.get(&path(reached + 99)).await.problem(409, "position_not_reached");
            let without = app.get(&format!("/v1/accounts/user_1/credits?min_position={}", reached + 99)).await;
            assert_eq!(problem["detail"], without.problem(409, "position_not_reached")["detail"]);
        }
    }
}
