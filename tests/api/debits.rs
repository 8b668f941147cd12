//! `POST …/credits/debits` and `/v1/debits/batch`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// An account with the free plan's credits and `credits` more.
async fn account_with(app: &TestApp, account: &str, credits: i64) {
    app.put_account(account, json!({})).await.expect(201);
    if credits > 0 {
        app.grant(account, credits).await.expect(201);
    }
}

#[tokio::test]
async fn a_debit_says_what_it_took_from_which_lots_and_what_is_left() {
    on_both(async |app: TestApp| {
        account_with(&app, "user_1", 90).await;
        let debit = app.debit("user_1", "key-1", json!({"feature": "generation", "quantity": 30})).await.expect(201);
        assert_eq!((&debit["amount"], &debit["feature"]), (&json!(30), &json!("generation")));
        assert_eq!((&debit["quantity"], &debit["available"]), (&json!(30), &json!(70)));
        let credits = app.get("/v1/accounts/user_1/credits").await.expect(200);
        assert_eq!((&credits["available"], &credits["position"]), (&json!(70), &debit["position"]));
        let taken: i64 = debit["lots"].as_array().expect("lots").iter().filter_map(|lot| lot["amount"].as_i64()).sum();
        assert_eq!(taken, 30);
        let by_amount = app.debit("user_1", "key-2", json!({"amount": 70})).await.expect(201);
        assert_eq!((&by_amount["feature"], &by_amount["quantity"]), (&Value::Null, &Value::Null));
        assert_eq!(by_amount["available"], 0);
    })
    .await;
}

#[tokio::test]
async fn too_little_credit_takes_nothing_and_says_how_much_is_missing() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    let problem = app.debit("user_1", "key-1", json!({"amount": 11})).await.problem(402, "insufficient_credits");
    let detail = "11 credits are needed, 10 are available; the Idempotency-Key keeps this answer, so another attempt needs a new one";
    assert_eq!(problem["detail"], detail);
    assert_eq!(app.available("user_1").await, FREE_CREDITS);
    app.debit("user_1", "key-2", json!({"amount": 10})).await.expect(201);
    app.debit("user_1", "key-3", json!({"amount": 1})).await.problem(402, "insufficient_credits");
}

#[tokio::test]
async fn a_retry_gets_the_first_outcome_again_and_takes_nothing() {
    on_both(async |app: TestApp| {
        account_with(&app, "user_1", 90).await;
        let first = app.debit("user_1", "key-1", json!({"amount": 30})).await;
        assert!(!first.is_replay());
        for _ in 0..3 {
            let again = app.debit("user_1", "key-1", json!({"amount": 30})).await;
            assert!(again.is_replay());
            assert_eq!((again.status, &again.text), (201, &first.text));
        }
        assert_eq!(app.available("user_1").await, 70);
    })
    .await;
}

#[tokio::test]
async fn a_retry_after_a_restart_gets_the_first_outcome_again() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 90).await;
    let first = app.debit("user_1", "key-1", json!({"amount": 30})).await;
    let refused = app.debit("user_1", "key-2", json!({"amount": 1_000})).await;
    let restarted = TestApp::with(Setup { database_url: Some(app.database_url.clone()), ..Setup::default() }).await;
    let again = restarted.debit("user_1", "key-1", json!({"amount": 30})).await;
    assert!(again.is_replay());
    assert_eq!(again.text, first.text);
    let again = restarted.debit("user_1", "key-2", json!({"amount": 1_000})).await;
    assert!(again.is_replay());
    assert_eq!(again.text, refused.text);
}

#[tokio::test]
async fn a_refusal_is_frozen_too() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    let refused = app.debit("user_1", "key-1", json!({"amount": 50})).await;
    assert!(!refused.is_replay());
    app.grant("user_1", 100).await.expect(201);
    let again = app.debit("user_1", "key-1", json!({"amount": 50})).await;
    assert!(again.is_replay());
    assert_eq!(again.text, refused.text);
    again.problem(402, "insufficient_credits");
    app.debit("user_1", "key-2", json!({"amount": 50})).await.expect(201);

    app.debit("later", "key-3", json!({"amount": 1})).await.problem(404, "account_not_found");
    account_with(&app, "later", 5).await;
    let again = app.debit("later", "key-3", json!({"amount": 1})).await;
    assert!(again.is_replay());
    again.problem(404, "account_not_found");
}

#[tokio::test]
async fn a_key_stands_for_one_request_and_no_other() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 90).await;
    account_with(&app, "user_2", 90).await;
    app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
    app.debit("user_1", "key-1", json!({"amount": 2})).await.problem(422, "idempotency_key_reused");
    app.debit("user_2", "key-1", json!({"amount": 1})).await.problem(422, "idempotency_key_reused");
    let grants = app.call(Method::POST, "/v1/accounts/user_1/credits/grants").idempotency_key("key-1");
    grants.json(json!({"amount": 1})).send().await.problem(422, "idempotency_key_reused");
    assert_eq!((app.available("user_1").await, app.available("user_2").await), (99, 100));
}

#[tokio::test]
async fn a_debit_needs_a_key_that_can_be_one() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    let call = || app.call(Method::POST, "/v1/accounts/user_1/credits/debits").json(json!({"amount": 1}));
    call().send().await.problem(400, "idempotency_key_missing");
    for key in ["", "   ", &"x".repeat(256), "caf\u{e9}", "a\tb"] {
        call().idempotency_key(key).send().await.problem(400, "idempotency_key_invalid");
    }
    call().idempotency_key(&"x".repeat(255)).send().await.expect(201);
    call().idempotency_key("with spaces & ~signs").send().await.expect(201);
}

#[tokio::test]
async fn amounts_that_are_none_are_refused() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    let most: i64 = 1_000_000_000_000;
    for amount in [0, -1, i64::MIN, most + 1, i64::MAX] {
        app.post("/v1/accounts/user_1/credits/debits", json!({"amount": amount})).await.problem(400, "out_of_range");
        app.post("/v1/accounts/user_1/credits/grants", json!({"amount": amount})).await.problem(400, "out_of_range");
        let by_feature = json!({"feature": "generation", "quantity": amount});
        app.post("/v1/accounts/user_1/credits/debits", by_feature).await.problem(400, "out_of_range");
    }
    for body in [
        r#"{"amount": 9223372036854775808}"#,
        r#"{"amount": 1.5}"#,
        r#"{"amount": 1e3}"#,
        r#"{"amount": "5"}"#,
        r#"{"amount": null}"#,
        r#"{"amount": 5, "feature": "generation"}"#,
        r#"{"amount": 5, "quantity": 1}"#,
        r#"{"quantity": 5}"#,
        r#"{"amount": 5, "amount": 6}"#,
        r#"{"amount": 5, "note": "x"}"#,
        r#"{"feature": 5}"#,
        "{}",
        "[]",
        "5",
        "",
        "{",
        "\u{feff}{}",
    ] {
        let call = app.call(Method::POST, "/v1/accounts/user_1/credits/debits").idempotency_key("key-1");
        call.bytes(body.as_bytes().to_vec()).send().await.problem(400, "invalid_body");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS);
    app.grant("user_1", most).await.expect(201);
    app.debit("user_1", "key-2", json!({"amount": most})).await.expect(201);
}

#[tokio::test]
async fn features_are_priced_by_the_catalog() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    let debit = async |body: Value| app.post("/v1/accounts/user_1/credits/debits", body).await;
    debit(json!({"feature": "flying"})).await.problem(404, "unknown_feature");
    debit(json!({"feature": "export", "quantity": 1})).await.problem(403, "feature_not_in_plan");
    assert_eq!(debit(json!({"feature": "generation"})).await.expect(201)["quantity"], 1);
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(200);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    debit(json!({"feature": "export", "quantity": 1})).await.problem(422, "feature_not_metered");
}

#[tokio::test]
async fn an_unlimited_plan_is_recorded_and_takes_nothing() {
    on_both(async |app: TestApp| {
        app.apply_catalog(&SELLER.replace("credits = 500\ngrace", "credits = \"unlimited\"\ngrace")).await;
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
        assert_eq!((&credits["unlimited"], &credits["available"]), (&json!(true), &json!(0)));
        let body = json!({"feature": "generation", "quantity": 1_000_000});
        let debit = app.debit("cus_1", "key-1", body).await.expect(201);
        assert_eq!((&debit["unlimited"], &debit["lots"]), (&json!(true), &json!([])));
        assert_eq!((&debit["amount"], &debit["available"]), (&json!(1_000_000), &json!(0)));
        let entries = app.get("/v1/accounts/cus_1/credits/entries").await.expect(200);
        let last = entries["data"].as_array().expect("entries").last().expect("one").clone();
        assert_eq!(
            (&last["type"], &last["amount"], &last["quantity"]),
            (&json!("debit"), &json!(0), &json!(1_000_000))
        );
    })
    .await;
}

#[tokio::test]
async fn many_debits_at_once_never_overspend() {
    on_both(async |app: TestApp| {
        account_with(&app, "user_1", 90).await;
        let debit = async |n: usize| app.debit("user_1", &format!("key-{n}"), json!({"amount": 7})).await.status;
        let mut statuses = futures_util::future::join_all((0..40).map(debit)).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![201; 14], vec![402; 26]].concat());
        assert_eq!(app.available("user_1").await, 2);
    })
    .await;
}

#[tokio::test]
async fn the_same_key_at_the_same_time_debits_once() {
    on_both(async |app: TestApp| {
        account_with(&app, "user_1", 90).await;
        let debit = async |_| app.debit("user_1", "key-1", json!({"amount": 7})).await;
        let answers = futures_util::future::join_all((0..20).map(debit)).await;
        assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == answers[0].text));
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        assert_eq!(app.available("user_1").await, 93);
    })
    .await;
}

#[tokio::test]
async fn good_rows_of_a_batch_go_through_beside_bad_ones() {
    on_both(async |app: TestApp| {
        account_with(&app, "user_1", 90).await;
        account_with(&app, "user_2", 0).await;
        let rows = json!([
            {"account": "user_1", "idempotency_key": "row-0", "amount": 30},
            {"account": "user_2", "idempotency_key": "row-1", "feature": "generation", "quantity": 4},
            {"account": "user_2", "idempotency_key": "row-2", "amount": 7},
            {"account": "nobody", "idempotency_key": "row-3", "amount": 1},
            {"account": "user_1", "amount": 1},
            {"account": "user_1", "idempotency_key": "", "amount": 1},
            {"account": "user_1", "idempotency_key": "row-6", "amount": 0},
            {"account": "user_1", "idempotency_key": "row-7"},
            {"account": "a b", "idempotency_key": "row-8", "amount": 1},
            {"account": "user_1", "idempotency_key": "row-9", "feature": "flying"},
            {"account": "user_1", "idempotency_key": "row-10", "amount": 1, "note": "x"},
            "no row at all",
            {"account": "user_1", "idempotency_key": "row-0", "amount": 31},
            {"account": "user_1", "idempotency_key": "row-0", "amount": 30},
        ]);
        let call = || app.call(Method::POST, "/v1/debits/batch").json(json!({"debits": rows})).beyond_the_contract();
        let outcome = call().send().await.expect(200);
        let outcomes: Vec<(i64, &str)> = outcome["data"].as_array().expect("rows").iter().map(said).collect();
        let expected = [
            (201, ""),
            (201, ""),
            (402, "insufficient_credits"),
            (404, "account_not_found"),
            (400, "idempotency_key_missing"),
            (400, "idempotency_key_invalid"),
            (400, "out_of_range"),
            (400, "invalid_body"),
            (400, "invalid_parameter"),
            (404, "unknown_feature"),
            (400, "invalid_body"),
            (400, "invalid_body"),
            (422, "idempotency_key_reused"),
            (201, "replayed"),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!((app.available("user_1").await, app.available("user_2").await), (70, 6));

        let again = call().send().await.expect(200);
        let outcomes: Vec<(i64, &str)> = again["data"].as_array().expect("rows").iter().map(said).collect();
        assert_eq!(&outcomes[..3], [(201, "replayed"), (201, "replayed"), (402, "insufficient_credits")]);
        assert_eq!(again["data"][0]["debit"], outcome["data"][0]["debit"]);
        assert_eq!((app.available("user_1").await, app.available("user_2").await), (70, 6));
    })
    .await;
}

/// Status of a row, with its code, or whether it is a replay.
fn said(row: &Value) -> (i64, &str) {
    let replayed = if row["replayed"] == true { "replayed" } else { "" };
    (row["status"].as_i64().expect("a status"), row["problem"]["code"].as_str().unwrap_or(replayed))
}

#[tokio::test]
async fn a_batch_has_one_to_a_thousand_rows() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 2_000).await;
    let batch = async |rows: usize| {
        let row = |n| json!({"account": "user_1", "idempotency_key": format!("row-{n}"), "amount": 1});
        let rows: Vec<Value> = (0..rows).map(row).collect();
        app.call(Method::POST, "/v1/debits/batch").json(json!({"debits": rows})).send().await
    };
    batch(0).await.problem(400, "invalid_parameter");
    batch(1_001).await.problem(400, "invalid_parameter");
    let outcome = batch(1_000).await.expect(200);
    let statuses: Vec<&Value> = outcome["data"].as_array().expect("rows").iter().map(|row| &row["status"]).collect();
    assert!(statuses.iter().all(|status| **status == 201), "{statuses:?}");
    assert_eq!(app.available("user_1").await, FREE_CREDITS + 1_000);
}

/// The sample seller, with a line more in the free plan.
pub fn free_plan_with(line: &str) -> Setup {
    let catalog = SELLER.replacen("credits = 10\n", &format!("credits = 10\n{line}\n"), 1);
    Setup { catalog, ..Setup::default() }
}

#[tokio::test]
async fn a_plan_may_let_an_account_owe_so_many_credits_and_new_ones_make_it_good() {
    let app = TestApp::with(free_plan_with("overage = { limit = 5 }")).await;
    account_with(&app, "user_1", 0).await;
    let check = async |quantity: i64| {
        let path = format!("/v1/accounts/user_1/entitlements/generation?quantity={quantity}");
        let answer = app.get(&path).await.expect(200);
        (answer["allowed"].clone(), answer["reason"].clone())
    };
    assert_eq!(check(10).await, (json!(true), json!("included")));
    assert_eq!(check(15).await, (json!(true), json!("overage")));
    assert_eq!(check(16).await, (json!(false), json!("insufficient_credits")));
    let debit = app.debit("user_1", "key-1", json!({"feature": "generation", "quantity": 12})).await.expect(201);
    assert_eq!((&debit["debt"], &debit["overage"], &debit["available"]), (&json!(2), &json!(0), &json!(-2)));
    let taken: i64 = debit["lots"].as_array().expect("lots").iter().filter_map(|lot| lot["amount"].as_i64()).sum();
    assert_eq!(taken, 10);
    let problem = app.debit("user_1", "key-2", json!({"amount": 4})).await.problem(402, "insufficient_credits");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("4 credits are needed, -2 are available, and 3 more may be owed;"), "{detail}");
    let path = format!("/v1/receipts/{}", problem["receipt"].as_str().expect("a receipt"));
    let because = app.get(&path).await.expect(200)["because"].to_string();
    assert!(because.contains("-2 credits were available, 0 held, and 3 of 5 could still be owed"), "{because}");
    // A hold may go as far, and what it may come to owe cannot be owed twice.
    let hold = json!({"amount": 3});
    let held = app.post("/v1/accounts/user_1/credits/holds", hold.clone()).await.expect(201);
    assert_eq!(held["available"], -5);
    app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 1})).await.problem(402, "insufficient_credits");
    app.post(&format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id")), hold).await.expect(200);
    let credits = app.get("/v1/accounts/user_1/credits").await.expect(200);
    assert_eq!((&credits["available"], &credits["debt"]), (&json!(-5), &json!(5)));
    app.grant("user_1", 20).await.expect(201);
    assert_eq!(app.available("user_1").await, 15);
}

#[tokio::test]
async fn whatever_may_be_spent_makes_good_what_is_owed_and_what_may_not_does_not() {
    let app = TestApp::with(free_plan_with("overage = { limit = 50 }")).await;
    let standing = async |account: &str| {
        let credits = app.get(&format!("/v1/accounts/{account}/credits")).await.expect(200);
        (credits["available"].as_i64().expect("a number"), credits["debt"].as_i64().expect("a number"))
    };
    let grant = async |account: &str, body: Value| {
        app.post(&format!("/v1/accounts/{account}/credits/grants"), body).await.expect(201)
    };
    let owe = async |account: &str| {
        account_with(&app, account, 0).await;
        app.debit(account, &format!("{account} owes"), json!({"amount": 40})).await.expect(201);
        assert_eq!(standing(account).await, (-30, 30));
    };
    // What a hold gives back.
    account_with(&app, "user_1", 0).await;
    app.debit("user_1", "all there is", json!({"amount": 10})).await.expect(201);
    grant("user_1", json!({"amount": 100, "expires_at": rfc3339(START + 60)})).await;
    let held = app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 100})).await.expect(201);
    app.debit("user_1", "beyond", json!({"amount": 30})).await.expect(201);
    assert_eq!(standing("user_1").await, (-30, 30));
    app.post(&format!("/v1/holds/{}/release", held["id"].as_str().expect("an id")), json!({})).await.expect(200);
    assert_eq!(standing("user_1").await, (70, 0));
    // It is recorded with the release, before anybody looks.
    let page = app.get("/v1/accounts/user_1/credits/entries?limit=500").await.expect(200);
    let last = page["data"].as_array().and_then(|entries| entries.last()).expect("an entry");
    assert_eq!(
        (&last["type"], &last["amount"], &last["lots"][0]["amount"]),
        (&json!("repayment"), &json!(0), &json!(30))
    );
    // What begins later, also if nobody looks until it is over.
    owe("user_2").await;
    let later = json!({"amount": 100, "effective_at": rfc3339(START + 10), "expires_at": rfc3339(START + 50)});
    let granted = grant("user_2", later).await;
    assert_eq!((granted["remaining"].clone(), standing("user_2").await), (json!(100), (-30, 30)));
    // What begins in a year, and opens no new room before.
    owe("user_3").await;
    grant("user_3", json!({"amount": 500, "effective_at": rfc3339(START + 31_536_000)})).await;
    app.debit("user_3", "more", json!({"amount": 21})).await.problem(402, "insufficient_credits");
    app.debit("user_3", "the rest", json!({"amount": 20})).await.expect(201);
    assert_eq!(standing("user_3").await, (-50, 50));
    // Less than is owed.
    owe("user_4").await;
    assert_eq!(grant("user_4", json!({"amount": 10})).await["remaining"], 0);
    assert_eq!(standing("user_4").await, (-20, 20));

    app.clock.set(START + 61);
    assert_eq!(standing("user_1").await, (0, 0), "the lot is over, and had paid before");
    assert_eq!(standing("user_2").await, (0, 0));
    for account in ["user_1", "user_2", "user_3", "user_4"] {
        app.debit(account, &format!("{account} looks"), json!({"amount": 1_000}))
            .await
            .problem(402, "insufficient_credits");
        let page = app.get(&format!("/v1/accounts/{account}/credits/entries?limit=500")).await.expect(200);
        let entries = page["data"].as_array().expect("entries");
        let sum: i64 = entries.iter().map(|entry| entry["amount"].as_i64().expect("an amount")).sum();
        let ahead = if account == "user_3" { 500 } else { 0 };
        assert_eq!(sum, standing(account).await.0 + ahead, "{account}");
    }
}

#[tokio::test]
async fn a_plan_may_bill_what_goes_beyond_the_credits() {
    let setup = free_plan_with("overage = \"unlimited\"");
    let dearer = setup.catalog.replacen("credit_cost = 1\n", "credit_cost = 3\n", 1);
    let app = TestApp::with(setup).await;
    account_with(&app, "user_1", 0).await;
    let debit = app.debit("user_1", "key-1", json!({"amount": 12})).await.expect(201);
    assert_eq!((&debit["debt"], &debit["overage"], &debit["available"]), (&json!(0), &json!(2), &json!(0)));
    let more = app.debit("user_1", "key-2", json!({"amount": 3})).await.expect(201);
    assert_eq!((&more["overage"], &more["lots"], &more["available"]), (&json!(3), &json!([]), &json!(0)));
    app.grant("user_1", 20).await.expect(201);
    assert_eq!(app.available("user_1").await, 20, "what is billed is not owed");
    // Without end, but for what one debit may take.
    app.apply_catalog(&dearer).await;
    let most = 1_000_000_000_000_i64 / 3;
    for (quantity, allowed, reason) in [(most, true, "overage"), (most + 1, false, "out_of_range")] {
        let path = format!("/v1/accounts/user_1/entitlements/generation?quantity={quantity}");
        let answer = app.get(&path).await.expect(200);
        assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(allowed), &json!(reason)));
    }
    let body = json!({"feature": "generation", "quantity": most + 1});
    app.debit("user_1", "key-3", body).await.problem(400, "out_of_range");
    let entries = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
    let overage: Vec<&Value> =
        entries["data"].as_array().expect("entries").iter().map(|entry| &entry["overage"]).collect();
    assert_eq!(overage, [&Value::Null, &json!(2), &json!(3), &Value::Null]);
}

#[tokio::test]
async fn a_feature_may_go_beyond_the_credits_where_its_plan_does_not() {
    let catalog = SELLER.replacen(
        "features = { generation = true }",
        "features = { generation = { overage = \"unlimited\" } }",
        1,
    );
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    account_with(&app, "user_1", 0).await;
    app.debit("user_1", "key-1", json!({"amount": 11})).await.problem(402, "insufficient_credits");
    let debit = app.debit("user_1", "key-2", json!({"feature": "generation", "quantity": 11})).await.expect(201);
    assert_eq!(debit["overage"], 1);
}

#[tokio::test]
async fn tiers_make_the_later_units_of_a_debit_cheaper() {
    let tiers = "credit_cost = [{ up_to = 3, each = 2 }, { each = 1 }]\n";
    let app =
        TestApp::with(Setup { catalog: SELLER.replacen("credit_cost = 1\n", tiers, 1), ..Setup::default() }).await;
    account_with(&app, "user_1", 0).await;
    let check = app.get("/v1/accounts/user_1/entitlements/generation").await.expect(200);
    assert_eq!(check["remaining"], 7);
    let debit = app.debit("user_1", "key-1", json!({"feature": "generation", "quantity": 5})).await.expect(201);
    assert_eq!((&debit["amount"], &debit["quantity"], &debit["available"]), (&json!(8), &json!(5), &json!(2)));
}

#[tokio::test]
async fn refusals_that_lie_in_the_account_are_on_record_and_change_nothing() {
    let app = TestApp::start().await;
    account_with(&app, "user_1", 0).await;
    app.debit("user_1", "key-1", json!({"amount": 11})).await.problem(402, "insufficient_credits");
    app.debit("user_1", "key-2", json!({"feature": "export"})).await.problem(403, "feature_not_in_plan");
    // Whatever was wrong, the key has its answer.
    for (account, key, feature, code) in
        [("user_1", "key-3", "flying", "unknown_feature"), ("nobody", "key-4", "generation", "account_not_found")]
    {
        let problem = app.debit(account, key, json!({"feature": feature})).await.problem(404, code);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.ends_with("another attempt needs a new one"), "{detail}");
    }
    let events = app.get("/v1/events?account=user_1&type=charge_rejected").await.expect(200);
    let codes: Vec<&Value> =
        events["data"].as_array().expect("events").iter().map(|event| &event["payload"]["rejection"]["code"]).collect();
    assert_eq!(codes, ["insufficient_credits", "feature_not_in_plan"]);
    assert_eq!(app.available("user_1").await, FREE_CREDITS);
}
