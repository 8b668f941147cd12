//! What is wrong with a body: the field, what was given, and what it takes; in a batch, of each row by itself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::FREE_CREDITS;
use crate::support::*;

const AMOUNT: &str = "a whole number without a fraction, from 1 to 1000000000000";
const TIME: &str = "an RFC 3339 time such as 2026-01-31T12:00:00Z";

async fn send(app: &TestApp, path: &str, body: &str) -> Answer {
    app.call(Method::POST, path)
        .idempotency_key("key-1")
        .bytes(body.as_bytes().to_vec())
        .beyond_the_contract()
        .send()
        .await
}

/// The detail of a refusal of a body.
async fn detail(app: &TestApp, path: &str, body: &str) -> String {
    let problem = send(app, path, body).await.problem(400, "invalid_body");
    let detail = problem["detail"].as_str().expect("a detail");
    for word in ["struct", "i64", "i32", "Post", "line 1"] {
        assert!(!detail.contains(word), "{path} {body}: {detail}");
    }
    detail.strip_prefix("the body cannot be read: ").expect("a detail of a body").to_owned()
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_named_with_what_was_given_and_what_it_takes() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let held = app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 5})).await.expect(201);
    let of_hold = |act: &str| format!("/v1/holds/{}/{act}", held["id"].as_str().expect("an id"));
    let of_account = |part: &str| format!("/v1/accounts/user_1/{part}");
    let fraction = |field: &str| format!("{field}: invalid type: floating point `1.5`, expected {AMOUNT}");
    let routes = [
        of_account("credits/debits"),
        of_account("credits/holds"),
        of_account("credits/grants"),
        of_hold("capture"),
        "/v1/payments/py_1/refunds".to_owned(),
    ];
    for path in &routes {
        assert_eq!(detail(&app, path, r#"{"amount": 1.5}"#).await, fraction("amount"), "{path}");
        let huge = format!("amount: invalid value: integer `9223372036854775808`, expected {AMOUNT}");
        assert_eq!(detail(&app, path, r#"{"amount": 9223372036854775808}"#).await, huge, "{path}");
        let text = format!("amount: invalid type: string \"5\", expected {AMOUNT}");
        assert_eq!(detail(&app, path, r#"{"amount": "5"}"#).await, text, "{path}");
        let beyond = "amount: the number is beyond what can be read; write it out, without an exponent";
        assert_eq!(detail(&app, path, r#"{"amount": 1e400}"#).await, beyond, "{path}");
        for body in ["null", "5", "\"x\"", "[1]", "[]"] {
            assert_eq!(
                detail(&app, path, body).await,
                "must be a JSON object, with its fields by name",
                "{path} {body}"
            );
        }
    }
    let usage = detail(&app, &of_account("usage"), r#"{"feature": "generation", "quantity": 1.5}"#).await;
    assert_eq!(usage, fraction("quantity").replace("from 1", "from 0"));
    for (path, field) in [
        (of_account("credits/holds"), "expires_at"),
        (of_account("credits/grants"), "expires_at"),
        (of_account("credits/grants"), "effective_at"),
        (of_account("usage"), "timestamp"),
        (of_hold("extend"), "expires_at"),
        ("/v1/admin/reconcile".to_owned(), "since"),
    ] {
        for given in ["x", "2026-01-31", "12026-01-31T12:00:00Z"] {
            let said = detail(&app, &path, &format!(r#"{{"{field}": "{given}"}}"#)).await;
            let expected = format!("{field}: invalid value: string \"{given}\", expected {TIME}");
            assert!(said.starts_with(&expected), "{path}: {said}");
        }
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS - 5);
}

#[tokio::test]
async fn other_faults_of_a_body_are_told_without_our_own_words() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grants = "/v1/accounts/user_1/credits/grants";
    for (body, expected) in [
        (r#"{"amount": 1, "amount": 2}"#, "duplicate field `amount`"),
        ("{}", "missing field `amount`"),
        (
            r#"{"amount": 1, "priority": 1.5}"#,
            "priority: invalid type: floating point `1.5`, expected a whole number without a fraction, at most 2147483647",
        ),
        (r#"{"amount": 1, "source": 5}"#, "source: must be one of the texts that the schema names"),
        (r#"{"amount": 1, "reason": 5}"#, "reason: invalid type: integer `5`, expected a string"),
    ] {
        assert_eq!(detail(&app, grants, body).await, expected, "{body}");
    }
    let unknown = detail(&app, grants, r#"{"amount": 1, "note": "x"}"#).await;
    assert!(unknown.starts_with("note: unknown field `note`, expected one of `amount`, `source`"), "{unknown}");
    let unpaired = detail(&app, grants, r#"{"amount": 1, "reason": "\ud800"}"#).await;
    assert!(unpaired.starts_with("reason: "), "{unpaired}");
    // What is no JSON has no fields: the place is all that can be told.
    for (body, place) in [("{", "line 1 column 1"), (r#"{"amount": 1} x"#, "line 1 column 15")] {
        let problem = send(&app, grants, body).await.problem(400, "invalid_body");
        assert!(problem["detail"].as_str().expect("a detail").ends_with(place), "{problem}");
    }
    let bytes = app.call(Method::POST, grants).idempotency_key("key-1").bytes(b"{\"reason\": \"\xff\"}".to_vec());
    bytes.send().await.problem(400, "invalid_body");
}

/// Status and detail of each row.
fn rows(answer: &Value) -> Vec<(i64, String)> {
    let rows = answer["data"].as_array().expect("rows").iter();
    let detail = |row: &Value| row["problem"]["detail"].as_str().unwrap_or_default().to_owned();
    rows.map(|row| (row["status"].as_i64().expect("a status"), detail(row))).collect()
}

#[tokio::test]
async fn a_row_that_cannot_be_read_spoils_no_other_and_says_which_it_is_and_why() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let bad = [
        (
            r#"{"account": "user_1", "idempotency_key": "a", "amount": 1, "amount": 5}"#,
            "debits[1]: duplicate field `amount`",
        ),
        (
            r#"{"account": "user_1", "idempotency_key": "b", "amount": 1e400}"#,
            "debits[2].amount: the number is beyond what can be read; write it out, without an exponent",
        ),
        (r#"{"account": "user_1", "idempotency_key": "\ud800", "amount": 1}"#, "debits[3].idempotency_key: "),
        (
            r#"{"account": "user_1", "idempotency_key": "c", "amount": 1.5}"#,
            "debits[4].amount: invalid type: floating point `1.5`, expected a whole number without a fraction, from 1 to",
        ),
        (
            r#"{"account": 5, "idempotency_key": "d", "amount": 1}"#,
            "debits[5].account: invalid type: integer `5`, expected a string",
        ),
        ("null", "debits[6]: must be a JSON object"),
        (r#"["user_1", "e", null, null, 1]"#, "debits[7]: must be a JSON object"),
        (
            r#"{"account": "user_1", "idempotency_key": "f", "note": {"a": 1e400}}"#,
            "debits[8].note: unknown field `note`",
        ),
    ];
    let good = |key: &str| format!(r#"{{"account": "user_1", "idempotency_key": "{key}", "amount": 2}}"#);
    let all = bad.iter().map(|(row, _)| (*row).to_owned());
    let all: Vec<String> = [good("first")].into_iter().chain(all).chain([good("last")]).collect();
    let body = format!(r#"{{"debits": [{}]}}"#, all.join(", "));
    let answer = send(&app, "/v1/debits/batch", &body).await.expect(200);
    let said = rows(&answer);
    assert_eq!((said[0].0, said[9].0), (201, 201));
    for ((status, detail), (row, expected)) in said[1..9].iter().zip(bad) {
        let detail = detail.strip_prefix("the body cannot be read: ").unwrap_or(detail);
        assert!(*status == 400 && detail.starts_with(expected), "{row}: {status} {detail}");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS - 4);

    let checks = r#"{"checks": [
        {"account": "user_1", "feature": "generation", "quantity": 1, "quantity": 1000},
        {"account": "user_1", "feature": "generation", "quantity": 1e400},
        {"account": "user_1", "feature": "\udfff"},
        {"account": "user_1", "feature": "generation", "min_position": -1},
        {"account": "user_1", "feature": "generation"}
    ]}"#;
    let answer = send(&app, "/v1/entitlements/check", checks).await.expect(200);
    let said = rows(&answer);
    assert_eq!(said.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [400, 400, 400, 400, 200]);
    let expected =
        ["checks[0]: duplicate field `quantity`", "checks[1].quantity: ", "checks[2].feature: ", "min_position: "];
    for ((_, detail), expected) in said.iter().zip(expected) {
        assert!(detail.contains(expected), "{detail}");
    }
    for body in [r#"{"debits": [{]}"#, r#"{"debits": [1e]}"#, r#"{"debits": ["\u12"]}"#, r#"{"debits": {}}"#] {
        send(&app, "/v1/debits/batch", body).await.problem(400, "invalid_body");
    }
}

/// A row is the same row however it is laid out, and the same as before rows were read one by one.
#[tokio::test]
async fn a_rows_key_stands_for_what_the_row_says() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    for (row, replayed) in [
        (r#"{"account": "user_1", "idempotency_key": "k", "amount": 1}"#, false),
        (r#"{"amount":1,"idempotency_key":"\u006b","account":"user_1"}"#, true),
    ] {
        let answer = send(&app, "/v1/debits/batch", &format!(r#"{{"debits": [{row}]}}"#)).await.expect(200);
        assert_eq!((&answer["data"][0]["status"], &answer["data"][0]["replayed"]), (&json!(201), &json!(replayed)));
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS - 1);
}

#[tokio::test]
async fn a_key_is_one_key_by_whichever_route_it_comes() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debits = "/v1/accounts/user_1/credits/debits";
    let call = || app.call(Method::POST, debits).json(json!({"amount": 1}));
    call().idempotency_key("k").send().await.expect(201);
    for second in ["other", "k"] {
        let answer = call().idempotency_key("k").idempotency_key(second).send().await;
        let problem = answer.problem(400, "idempotency_key_invalid");
        assert_eq!(problem["detail"], "there are several Idempotency-Key headers; send one");
    }
    let checkout = app.call(Method::POST, "/v1/accounts/user_1/checkout-sessions").json(json!({"plan": "pro"}));
    checkout.idempotency_key("a").idempotency_key("b").send().await.problem(400, "idempotency_key_invalid");
    // Around a header's value, HTTP takes blanks away.
    assert!(call().idempotency_key(" k ").send().await.is_replay());
    for key in [" k ", " k", "k ", " "] {
        let row = json!({"account": "user_1", "idempotency_key": key, "amount": 1});
        let call = app.call(Method::POST, "/v1/debits/batch").json(json!({"debits": [row]})).beyond_the_contract();
        let answer = call.send().await.expect(200);
        assert_eq!(answer["data"][0]["problem"]["code"], "idempotency_key_invalid", "{key:?}: {answer}");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS - 1);
}

/// As if it had been left out, in every row and on every route.
#[tokio::test]
async fn null_is_the_same_as_nothing() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let post = async |path: &str, body: Value| app.post(&format!("/v1/accounts/user_1/{path}"), body).await.expect(201);
    let debit = post("credits/debits", json!({"feature": "generation", "quantity": null, "amount": null})).await;
    assert_eq!((&debit["quantity"], &debit["amount"]), (&json!(1), &json!(1)));
    post("credits/debits", json!({"amount": 1, "feature": null, "quantity": null})).await;
    let hold = json!({"feature": "generation", "quantity": null, "amount": null, "expires_at": null});
    let held = post("credits/holds", hold).await;
    assert_eq!((&held["quantity"], &held["amount"]), (&json!(1), &json!(1)));
    let capture = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
    app.post(&capture, json!({"amount": null, "quantity": null})).await.expect(200);
    let nothing = json!({"source": null, "priority": null, "effective_at": null, "expires_at": null, "reason": null});
    let mut grant = nothing.clone();
    grant["amount"] = json!(5);
    let granted = post("credits/grants", grant).await;
    assert_eq!((&granted["source"], &granted["priority"]), (&json!("manual"), &json!(50)));
    let usage = json!({"feature": "generation", "quantity": 2, "action": null, "timestamp": null});
    assert_eq!(post("usage", usage).await["action"], "increment");
    let row = json!({"account": "user_1", "idempotency_key": "row", "feature": "generation", "quantity": null, "amount": null});
    let rows = app.call(Method::POST, "/v1/debits/batch").json(json!({"debits": [row]})).send().await.expect(200);
    assert_eq!(rows["data"][0]["debit"]["quantity"], 1, "{rows}");
    let check = json!({"account": "user_1", "feature": "generation", "quantity": null, "min_position": null,
        "consistency": null});
    let rows =
        app.call(Method::POST, "/v1/entitlements/check").json(json!({"checks": [check]})).send().await.expect(200);
    assert_eq!(rows["data"][0]["status"], 200, "{rows}");
    // What must be given is something.
    app.post("/v1/accounts/user_1/credits/debits", json!({"feature": null, "quantity": 1}))
        .await
        .problem(400, "invalid_body");
}
