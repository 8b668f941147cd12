//! `…/credits/holds` and `/v1/holds/…`: set aside, spend, give back.

use chrono::Duration;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

async fn hold(app: &TestApp, body: Value) -> Value {
    app.post("/v1/accounts/user_1/credits/holds", body).await.expect(201)
}

async fn act(app: &TestApp, hold: &Value, act: &str, body: Value) -> Answer {
    app.post(&format!("/v1/holds/{}/{act}", hold["id"].as_str().expect("an id")), body).await
}

/// Available and held.
async fn credits(app: &TestApp) -> (i64, i64) {
    let credits = app.get("/v1/accounts/user_1/credits").await.expect(200);
    let number = |name: &str| credits[name].as_i64().expect("a number");
    let lots = credits["lots"].as_array().expect("lots").iter();
    let remaining: i64 = lots.map(|lot| lot["remaining"].as_i64().expect("a number")).sum();
    assert_eq!(number("available"), remaining - number("held") - number("debt"), "{credits}");
    (number("available"), number("held"))
}

/// The amounts of the statement, whose running balance must add up.
async fn statement(app: &TestApp) -> Vec<(String, i64)> {
    let page = app.get("/v1/accounts/user_1/credits/entries?limit=500").await.expect(200);
    let mut balance = 0;
    let line = |entry: &Value| {
        balance += entry["amount"].as_i64().expect("an amount");
        assert_eq!(entry["balance"], balance, "{entry}");
        (entry["type"].as_str().expect("a type").to_owned(), entry["amount"].as_i64().expect("an amount"))
    };
    page["data"].as_array().expect("entries").iter().map(line).collect()
}

async fn start() -> TestApp {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app
}

#[tokio::test]
async fn what_is_held_cannot_be_spent_until_it_returns() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let held = hold(&app, json!({"feature": "generation", "quantity": 7})).await;
        assert_eq!((&held["status"], &held["amount"], &held["available"]), (&json!("open"), &json!(7), &json!(3)));
        assert_eq!(credits(&app).await, (3, 7));
        app.debit("user_1", "key-1", json!({"amount": 4})).await.problem(402, "insufficient_credits");
        app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 4})).await.problem(402, "insufficient_credits");
        app.debit("user_1", "key-2", json!({"amount": 3})).await.expect(201);
        let released = act(&app, &held, "release", json!({})).await.expect(200);
        assert_eq!((&released["status"], &released["available"]), (&json!("released"), &json!(7)));
        assert_eq!(credits(&app).await, (7, 0));
        let lines = [("grant", 10), ("hold", -7), ("debit", -3), ("release", 7)];
        assert_eq!(statement(&app).await, lines.map(|(kind, amount)| (kind.to_owned(), amount)));
    })
    .await;
}

#[tokio::test]
async fn a_capture_spends_what_was_used_and_gives_back_the_rest() {
    let app = start().await;
    let held = hold(&app, json!({"amount": 7})).await;
    let captured = act(&app, &held, "capture", json!({"amount": 4})).await.expect(200);
    assert_eq!((&captured["captured"], &captured["available"]), (&json!(4), &json!(6)));
    assert_eq!(credits(&app).await, (6, 0));
    app.clock.advance(Duration::seconds(1));
    let whole = hold(&app, json!({"feature": "generation", "quantity": 5})).await;
    let captured = app.call(Method::POST, &format!("/v1/holds/{}/capture", whole["id"].as_str().expect("an id")));
    let captured = captured.idempotency_key("whole").send().await.expect(200);
    assert_eq!((&captured["captured"], &captured["status"]), (&json!(5), &json!("captured")));
    assert_eq!(credits(&app).await, (1, 0));
    let lines = [("grant", 10), ("hold", -7), ("capture", 3), ("hold", -5), ("capture", 0)];
    assert_eq!(statement(&app).await, lines.map(|(kind, amount)| (kind.to_owned(), amount)));
    let listed = app.get("/v1/accounts/user_1/credits/holds").await.expect(200);
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["status"]), (&whole["id"], &json!("captured")));
    assert_eq!((&listed["data"][1]["captured"], listed["data"].as_array().map(Vec::len)), (&json!(4), Some(2)));
}

#[tokio::test]
async fn a_hold_that_has_ended_says_how() {
    let app = start().await;
    let captured = hold(&app, json!({"amount": 1})).await;
    act(&app, &captured, "capture", json!({})).await.expect(200);
    let released = hold(&app, json!({"amount": 1})).await;
    act(&app, &released, "release", json!({})).await.expect(200);
    let expired = hold(&app, json!({"amount": 1, "expires_at": rfc3339(START + 60)})).await;
    app.clock.advance(Duration::seconds(60));
    for (hold, code) in [(&captured, "hold_captured"), (&released, "hold_released"), (&expired, "hold_expired")] {
        for (name, body) in
            [("capture", json!({})), ("release", json!({})), ("extend", json!({"expires_at": rfc3339(day(1))}))]
        {
            act(&app, hold, name, body).await.problem(409, code);
        }
    }
    let status = async |hold: &Value| {
        app.get(&format!("/v1/holds/{}", hold["id"].as_str().expect("an id"))).await.expect(200)["status"].clone()
    };
    assert_eq!(status(&captured).await, "captured");
    assert_eq!(status(&released).await, "released");
    assert_eq!(status(&expired).await, "expired");
}

#[tokio::test]
async fn what_a_hold_would_owe_is_held_too() {
    for (overage, owed, billed) in [("{ limit = 10 }", 7, 0), ("\"unlimited\"", 0, 7)] {
        let app = TestApp::with(crate::debits::free_plan_with(&format!("overage = {overage}"))).await;
        app.put_account("user_1", json!({})).await.expect(201);
        let held = hold(&app, json!({"amount": 17})).await;
        assert_eq!((&held["debt"], &held["overage"]), (&json!(owed), &json!(billed)), "{held}");
        assert_eq!(credits(&app).await, (-owed, 10 + owed));
        let shown = app.get(&format!("/v1/holds/{}", held["id"].as_str().expect("an id"))).await.expect(200);
        assert_eq!((&shown["debt"], &shown["overage"]), (&json!(owed), &json!(billed)), "{shown}");
        act(&app, &held, "capture", json!({"amount": 12})).await.expect(200);
        // Two beyond the lots were spent; so what was granted is what is left, less what is owed, and what was spent.
        assert_eq!(credits(&app).await, (-owed.min(2), 0));
    }
}

#[tokio::test]
async fn a_hold_expires_when_it_says_whether_or_not_anybody_writes() {
    let app = start().await;
    let held = hold(&app, json!({"amount": 7, "expires_at": rfc3339(START + 60)})).await;
    app.clock.set(START + 59);
    assert_eq!(credits(&app).await, (3, 7));
    app.clock.set(START + 60);
    assert_eq!(credits(&app).await, (10, 0));
    let shown = app.get(&format!("/v1/holds/{}", held["id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!((&shown["status"], &shown["account"]), (&json!("expired"), &json!("user_1")));
    app.debit("user_1", "key-1", json!({"amount": 10})).await.expect(201);
    let lines = [("grant", 10), ("hold", -7), ("hold_expiry", 7), ("debit", -10)];
    assert_eq!(statement(&app).await, lines.map(|(kind, amount)| (kind.to_owned(), amount)));
}

#[tokio::test]
async fn a_hold_can_be_extended_and_lasts_an_hour_if_nobody_says_otherwise() {
    let app = start().await;
    let held = hold(&app, json!({"amount": 7})).await;
    assert_eq!(held["expires_at"], rfc3339(START + 3_600));
    let extended = act(&app, &held, "extend", json!({"expires_at": rfc3339(START + 7_200)})).await.expect(200);
    assert_eq!((&extended["expires_at"], &extended["status"]), (&json!(rfc3339(START + 7_200)), &json!("open")));
    app.clock.set(START + 7_199);
    assert_eq!(credits(&app).await, (3, 7));
    act(&app, &held, "capture", json!({"amount": 2})).await.expect(200);
    assert_eq!(credits(&app).await, (8, 0));
}

#[tokio::test]
async fn what_is_held_outlives_its_lot_and_expires_with_it_when_it_returns() {
    let app = start().await;
    let grant = json!({"amount": 5, "priority": 1, "expires_at": rfc3339(START + 60)});
    app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201);
    let kept = hold(&app, json!({"amount": 2})).await;
    let given_back = hold(&app, json!({"amount": 2})).await;
    app.clock.set(START + 60);
    // The lot's unheld credit is gone; the four that are held are not.
    assert_eq!(credits(&app).await, (10, 4));
    act(&app, &kept, "capture", json!({})).await.expect(200);
    act(&app, &given_back, "release", json!({})).await.expect(200);
    assert_eq!(credits(&app).await, (10, 0));
    let lines = [
        ("grant", 10),
        ("grant", 5),
        ("hold", -2),
        ("hold", -2),
        ("expiry", -1),
        ("capture", 0),
        ("release", 2),
        ("expiry", -2),
    ];
    assert_eq!(statement(&app).await, lines.map(|(kind, amount)| (kind.to_owned(), amount)));
}

#[tokio::test]
async fn a_retry_of_any_step_gets_its_first_outcome() {
    let app = start().await;
    let place = || app.call(Method::POST, "/v1/accounts/user_1/credits/holds").idempotency_key("place");
    let first = place().json(json!({"amount": 7})).send().await;
    let held = first.clone().expect(201);
    assert_eq!(place().json(json!({"amount": 7})).send().await.text, first.text);
    assert_eq!(credits(&app).await, (3, 7));
    let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
    let capture = || app.call(Method::POST, &path).idempotency_key("capture").json(json!({"amount": 5}));
    let first = capture().send().await;
    first.clone().expect(200);
    for _ in 0..2 {
        let again = capture().send().await;
        assert!(again.is_replay());
        assert_eq!((again.status, &again.text), (200, &first.text));
    }
    assert_eq!(credits(&app).await, (5, 0));
    // A refusal is kept as well.
    let late = || app.call(Method::POST, &path).idempotency_key("late").json(json!({}));
    late().send().await.problem(409, "hold_captured");
    let again = late().send().await;
    assert!(again.is_replay());
    again.problem(409, "hold_captured");
}

#[tokio::test]
async fn many_captures_of_one_hold_at_once_spend_it_once() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let held = hold(&app, json!({"amount": 7})).await;
        let captures = (0..16).map(|_| act(&app, &held, "capture", json!({})));
        let answers = futures_util::future::join_all(captures).await;
        let done = answers.iter().filter(|answer| answer.status == 200).count();
        let refused = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((done, refused), (1, 15));
        assert_eq!(credits(&app).await, (3, 0));
    })
    .await;
}

#[tokio::test]
async fn a_capture_beyond_its_hold_needs_the_features_leave_and_the_credits() {
    let catalog = SELLER.replace("credit_cost = 1\n", "credit_cost = 1\ncapture_beyond_hold = true\n");
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let of_amount = hold(&app, json!({"amount": 2})).await;
    act(&app, &of_amount, "capture", json!({"amount": 3})).await.problem(422, "capture_exceeds_hold");
    act(&app, &of_amount, "capture", json!({"quantity": 1})).await.problem(422, "hold_without_feature");
    let of_feature = hold(&app, json!({"feature": "generation", "quantity": 2})).await;
    act(&app, &of_feature, "capture", json!({"quantity": 9})).await.problem(402, "insufficient_credits");
    let captured = act(&app, &of_feature, "capture", json!({"quantity": 8})).await.expect(200);
    assert_eq!((&captured["captured"], &captured["available"]), (&json!(8), &json!(0)));
    assert_eq!(credits(&app).await, (0, 2));
    statement(&app).await;
}

#[tokio::test]
async fn a_capture_beyond_its_hold_is_asked_for_like_a_debit() {
    let catalog = SELLER.replace("credit_cost = 1\n", "credit_cost = 1\ncapture_beyond_hold = true\n");
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let path = |what: &str| format!("/v1/accounts/user_1/{what}");
    let place = async || hold(&app, json!({"feature": "generation", "quantity": 2})).await;
    let (suspended, denied, limited) = (place().await, place().await, place().await);

    app.call(Method::PUT, &path("suspension")).json(json!({"reason": "fraud"})).send().await.expect(200);
    act(&app, &suspended, "capture", json!({"quantity": 3})).await.problem(403, "account_suspended");
    act(&app, &suspended, "capture", json!({"quantity": 2})).await.expect(200);
    app.call(Method::DELETE, &path("suspension")).send().await.expect(200);

    let overrides = path("overrides/generation");
    app.call(Method::PUT, &overrides).json(json!({"allowed": false})).send().await.expect(200);
    act(&app, &denied, "capture", json!({"amount": 3})).await.problem(403, "override_denied");
    act(&app, &denied, "capture", json!({})).await.expect(200);

    app.call(Method::PUT, &overrides).json(json!({"limit": 8, "per": "day"})).send().await.expect(200);
    // Four are used; the hold's own two count with what goes beyond them.
    act(&app, &limited, "capture", json!({"quantity": 5})).await.problem(403, "limit_exceeded");
    act(&app, &limited, "capture", json!({"quantity": 4})).await.expect(200);
    assert_eq!(credits(&app).await, (2, 0));
}

/// Units that cost nothing are held, and limited, as others are.
#[tokio::test]
async fn units_that_cost_nothing_are_beyond_a_hold_as_others_are() {
    for (cost, beyond, code) in [
        ("", false, "capture_exceeds_hold"),
        ("", true, "limit_exceeded"),
        ("credit_cost = [{ up_to = 5, each = 1 }, { each = 0 }]", false, "capture_exceeds_hold"),
        ("credit_cost = [{ up_to = 5, each = 1 }, { each = 0 }]", true, "limit_exceeded"),
    ] {
        let calls = format!("{cost}\ncapture_beyond_hold = {beyond}\n");
        let limited = "features = { generation = { limit = 10, per = \"day\" } }";
        let catalog = SELLER.replacen("credit_cost = 1\n", &calls, 1);
        let catalog = catalog.replacen("features = { generation = true }", limited, 1);
        let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
        app.put_account("user_1", json!({})).await.expect(201);
        let held = hold(&app, json!({"feature": "generation", "quantity": 5})).await;
        let status = if beyond { 403 } else { 422 };
        let refused = act(&app, &held, "capture", json!({"quantity": 11})).await.problem(status, code);
        if !beyond {
            let detail = refused["detail"].as_str().expect("a detail");
            assert!(detail.starts_with("the hold has set 5 units aside, 11 were used"), "{detail}");
        }
        let before = credits(&app).await;
        let most = if beyond { 10 } else { 5 };
        act(&app, &held, "capture", json!({"quantity": most})).await.expect(200);
        assert_eq!(credits(&app).await, (before.0, 0));
        let usage = app.get("/v1/accounts/user_1/usage").await.expect(200);
        assert_eq!(usage["features"][0]["used"], most, "{usage}");
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let app = start().await;
    let path = "/v1/accounts/user_1/credits/holds";
    for amount in [0, -1, 1_000_000_000_001_i64] {
        app.call(Method::POST, path)
            .idempotency_key(&format!("key{amount}"))
            .json(json!({"amount": amount}))
            .beyond_the_contract()
            .send()
            .await
            .problem(400, "out_of_range");
    }
    for body in [
        json!({}),
        json!({"amount": 1.5}),
        json!({"amount": 1, "feature": "generation"}),
        json!({"amount": 1, "ttl": 3}),
    ] {
        app.post(path, body).await.problem(400, "invalid_body");
    }
    for at in [START, START - 1, day(31) + 1] {
        app.post(path, json!({"amount": 1, "expires_at": rfc3339(at)})).await.problem(400, "hold_expiry_out_of_range");
    }
    app.post(path, json!({"feature": "flying"})).await.problem(404, "unknown_feature");
    app.post(path, json!({"feature": "export"})).await.problem(403, "feature_not_in_plan");
    app.post("/v1/accounts/nobody/credits/holds", json!({"amount": 1})).await.problem(404, "account_not_found");
    app.call(Method::POST, path).json(json!({"amount": 1})).send().await.problem(400, "idempotency_key_missing");
    let held = hold(&app, json!({"amount": 1})).await;
    act(&app, &held, "capture", json!({"amount": 2})).await.problem(422, "capture_exceeds_hold");
    act(&app, &held, "capture", json!({"amount": 1, "quantity": 1})).await.problem(400, "invalid_body");
    act(&app, &held, "capture", json!({"amount": 0})).await.problem(400, "out_of_range");
    act(&app, &held, "extend", json!({"expires_at": rfc3339(START)})).await.problem(400, "hold_expiry_out_of_range");
    for id in ["nonsense", "01a1fdf1-7c44-7b0e-b1c1-4f2a7d3e9c55"] {
        app.get(&format!("/v1/holds/{id}")).await.problem(404, "hold_not_found");
        act(&app, &json!({"id": id}), "release", json!({})).await.problem(404, "hold_not_found");
    }
    assert_eq!(credits(&app).await, (9, 1));
}

#[tokio::test]
async fn a_hold_keeps_no_credits_from_a_refund() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&[
        event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START)),
        event("payment_intent.succeeded", START, payment_intent("cus_1", "pi_cs_1", 1_000, START)),
    ])
    .await;
    let held = hold(&app, json!({"amount": FREE_CREDITS + 60})).await;
    app.deliver_all(&[event("refund.created", START + 1, refund("pi_cs_1", "re_1", 1_000, START + 1))]).await;
    assert_eq!(credits(&app).await, (0, FREE_CREDITS + 60));
    act(&app, &held, "release", json!({})).await.expect(200);
    assert_eq!(credits(&app).await, (FREE_CREDITS, 0), "the pack's went back with the money");
    statement(&app).await;
}

#[tokio::test]
async fn a_capture_counts_towards_the_features_limits_and_a_hold_that_they_do_not_leave_is_refused() {
    let limited = "features = { generation = { limit = 5, per = \"day\", overage = \"unlimited\" } }";
    let catalog = SELLER.replacen("features = { generation = true }", limited, 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let place = async |quantity: i64| {
        let body = json!({"feature": "generation", "quantity": quantity});
        app.post("/v1/accounts/user_1/credits/holds", body).await
    };
    place(6).await.problem(403, "limit_exceeded");
    let held = place(4).await.expect(201);
    act(&app, &held, "capture", json!({"amount": 3})).await.expect(200);
    let usage = app.get("/v1/accounts/user_1/usage").await.expect(200);
    assert_eq!(usage["features"][0]["used"], 3, "{usage}");
    place(3).await.problem(403, "limit_exceeded");
    let open = place(2).await.expect(201);
    place(1).await.problem(403, "limit_exceeded");
    act(&app, &open, "capture", json!({})).await.expect(200);
    let usage = app.get("/v1/accounts/user_1/usage").await.expect(200);
    assert_eq!(usage["features"][0]["used"], 5, "{usage}");
    app.call(Method::PUT, "/v1/accounts/user_1/suspension").json(json!({})).send().await.expect(200);
    place(1).await.problem(403, "account_suspended");
}

/// Both were given the free month, and it is one.
#[tokio::test]
async fn a_hold_of_a_stream_that_is_linked_is_paid_out_of_the_accounts_own_month_or_owed() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
        let customer = json!({"id": "cus_9", "object": "customer", "created": START, "metadata": {}});
        app.deliver_all(&[event("customer.created", START, customer)]).await;
        let place = json!({"amount": FREE_CREDITS});
        let held = app.post("/v1/accounts/cus_9/credits/holds", place).await.expect(201);
        app.put_account("user_1", json!({"stripe_customer_id": "cus_9"})).await.expect(200);
        let linked = app.get("/v1/accounts/user_1/credits").await.expect(200);
        assert_eq!((&linked["available"], &linked["held"]), (&json!(-1), &json!(FREE_CREDITS)), "{linked}");
        let shown = app.get(&format!("/v1/holds/{}", held["id"].as_str().expect("an id"))).await.expect(200);
        assert_eq!((&shown["account"], &shown["amount"]), (&json!("user_1"), &json!(FREE_CREDITS)), "{shown}");
        assert_eq!(shown["lots"], json!([{"id": linked["lots"][0]["id"], "amount": 9}]));
        app.debit("user_1", "key-2", json!({"amount": 1})).await.problem(402, "insufficient_credits");
        act(&app, &held, "capture", json!({})).await.expect(200);
        let spent = app.get("/v1/accounts/user_1/credits").await.expect(200);
        assert_eq!((&spent["available"], &spent["held"], &spent["debt"]), (&json!(-1), &json!(0), &json!(1)));
        let lines = statement(&app).await;
        assert_eq!(lines.iter().map(|(_, amount)| amount).sum::<i64>(), -1, "{lines:?}");
    })
    .await;
}

/// Else small captures would pass every limit uncounted.
#[tokio::test]
async fn a_capture_by_amount_counts_a_unit_that_was_used_in_part() {
    let catalog = SELLER.replacen("credit_cost = 1\n", "credit_cost = 3\n", 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 100).await.expect(201);
    let mut used = 0;
    for (amount, units) in [(1, 1), (3, 1), (4, 2), (6, 2), (12, 4)] {
        let held = hold(&app, json!({"feature": "generation", "quantity": 4})).await;
        act(&app, &held, "capture", json!({"amount": amount})).await.expect(200);
        used += units;
        let usage = app.get("/v1/accounts/user_1/usage").await.expect(200);
        assert_eq!(usage["features"][0]["used"], used, "after {amount}");
    }
}

/// What was set aside for units is what they cost at most; of a part of them, its share.
#[tokio::test]
async fn units_that_were_held_cost_no_more_when_their_feature_has_become_dearer() {
    let at =
        |each: i64| SELLER.replace("credit_cost = 1\n", &format!("credit_cost = {each}\ncapture_beyond_hold = true\n"));
    let app = TestApp::with(Setup { catalog: at(2), ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 90).await.expect(201);
    let place = async || hold(&app, json!({"feature": "generation", "quantity": 10})).await;
    let held = [place().await, place().await, place().await, place().await];
    app.clock.advance(Duration::seconds(1));
    let capture = async |hold: &Value, quantity: i64| {
        let answer = act(&app, hold, "capture", json!({"quantity": quantity})).await;
        let captured = answer.expect(200);
        let receipt = captured["receipt"].as_str().expect("a receipt");
        let explained = app.get(&format!("/v1/receipts/{receipt}")).await.expect(200);
        assert_eq!(explained["agrees"], true, "{explained}");
        captured["captured"].clone()
    };
    app.apply_catalog(&at(3)).await;
    // All of them, a part, and two more than were held.
    assert_eq!(capture(&held[0], 10).await, 20);
    assert_eq!(capture(&held[1], 3).await, 6);
    assert_eq!(capture(&held[2], 12).await, 20 + 2 * 3);
    app.apply_catalog(&at(1)).await;
    assert_eq!(capture(&held[3], 10).await, 10);
    assert_eq!(credits(&app).await, (100 - 20 - 6 - 26 - 10, 0));
    statement(&app).await;
}

/// Rounded up; and without leave to go beyond the hold, for all that was held.
#[tokio::test]
async fn units_that_were_held_are_captured_after_a_change_of_price_without_leave_to_go_beyond() {
    let tiers = |first: i64, then: i64| {
        let tiers = format!("credit_cost = [{{ up_to = 2, each = {first} }}, {{ each = {then} }}]\n");
        SELLER.replace("credit_cost = 1\n", &tiers)
    };
    let app = TestApp::with(Setup { catalog: tiers(2, 1), ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 90).await.expect(201);
    let place = async || hold(&app, json!({"feature": "generation", "quantity": 5})).await;
    let held = [place().await, place().await, place().await];
    assert_eq!(held[0]["amount"], 7);
    let capture = async |hold: &Value, quantity: i64| act(&app, hold, "capture", json!({"quantity": quantity})).await;
    assert_eq!(capture(&held[0], 2).await.expect(200)["captured"], 4);
    app.apply_catalog(&tiers(5, 5)).await;
    assert_eq!(capture(&held[1], 5).await.expect(200)["captured"], 7);
    // Two fifths of seven.
    capture(&held[2], 6).await.problem(422, "capture_exceeds_hold");
    assert_eq!(capture(&held[2], 2).await.expect(200)["captured"], 3);
}

#[tokio::test]
async fn an_account_has_at_most_a_thousand_open_holds() {
    let app = start().await;
    app.grant("user_1", 2_000).await.expect(201);
    let path = "/v1/accounts/user_1/credits/holds";
    let soon = json!({"amount": 1, "expires_at": rfc3339(START + 60)});
    let long = json!({"amount": 1, "expires_at": rfc3339(START + 600)});
    let place = async |n: usize, body: &Value| {
        app.call(Method::POST, path).idempotency_key(&format!("hold-{n}")).json(body.clone()).send().await
    };
    let first = place(0, &long).await.expect(201);
    let placed = (1..1_000).map(|n| place(n, if n == 1 { &soon } else { &long }));
    for answer in futures_util::future::join_all(placed).await {
        answer.expect(201);
    }
    let refused = place(1_000, &long).await.problem(422, "too_many_holds");
    let detail = refused["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("an account has at most 1000 open holds; capture or release one first"), "{detail}");
    assert_eq!(refused.get("receipt"), None);
    assert_eq!(place(1_000, &long).await.problem(422, "too_many_holds")["detail"], refused["detail"]);
    // One that ends makes room, and so does one that has expired, whether or not anything has recorded that.
    act(&app, &first, "release", json!({})).await.expect(200);
    place(1_001, &long).await.expect(201);
    place(1_002, &long).await.problem(422, "too_many_holds");
    app.clock.set(START + 60);
    place(1_003, &long).await.expect(201);
    place(1_004, &long).await.problem(422, "too_many_holds");
    app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
}
