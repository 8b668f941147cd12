//! `/v1/receipts/{receipt}`: decisions explained out of the log.

use chrono::Duration;
use serde_json::{Value, json};

use crate::support::*;

async fn explain(app: &TestApp, receipt: &Value) -> Value {
    let explained = app.get(&format!("/v1/receipts/{}", receipt.as_str().expect("a receipt"))).await.expect(200);
    assert_ne!(explained["agrees"], false, "{explained}");
    explained
}

#[tokio::test]
async fn a_debit_is_explained_as_it_was_whatever_has_happened_since() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let body = json!({"feature": "generation", "quantity": 3});
        let debit = app.debit("user_1", "key-1", body).await.expect(201);
        app.grant("user_1", 50).await.expect(201);
        app.debit("user_1", "key-2", json!({"amount": 40})).await.expect(201);
        let dearer = SELLER.replacen("credit_cost = 1\n", "credit_cost = 9\n", 1);
        app.apply_catalog(&dearer).await;
        app.clock.advance(Duration::days(40));
        let explained = explain(&app, &debit["receipt"]).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!("debit"), &json!(true)));
        assert_eq!((&explained["available_before"], &explained["available_after"]), (&json!(10), &json!(7)));
        assert_eq!((&explained["plan"], &explained["position"]), (&json!("free"), &debit["position"]));
        assert_eq!(explained["lots"][0]["lot"], debit["lots"][0]["id"]);
        let because = explained["because"].to_string();
        assert!(because.contains("3 of generation cost 3 credits, 1 each"), "{because}");
        let by_id = explain(&app, &debit["id"]).await;
        assert_eq!(by_id, explained);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_explained_although_it_changed_nothing() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let problem = app.debit("user_1", "key-1", json!({"amount": 11})).await.problem(402, "insufficient_credits");
    let hold = app.post("/v1/accounts/user_1/credits/holds", json!({"feature": "export"})).await;
    let held = hold.problem(403, "feature_not_in_plan");
    app.grant("user_1", 50).await.expect(201);
    let explained = explain(&app, &problem["receipt"]).await;
    assert_eq!((&explained["allowed"], &explained["reason"]), (&json!(false), &json!("insufficient_credits")));
    assert_eq!((&explained["available_before"], &explained["agrees"]), (&json!(10), &json!(true)));
    let explained = explain(&app, &held["receipt"]).await;
    assert_eq!((&explained["reason"], &explained["agrees"]), (&json!("feature_not_in_plan"), &json!(true)));
    // What lies in the request has no receipt: it says all there is to say.
    let problem = app.debit("user_1", "key-2", json!({"amount": 0})).await.problem(400, "out_of_range");
    assert_eq!(problem.get("receipt"), None);
}

#[tokio::test]
async fn every_step_of_a_hold_is_explained() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grant = json!({"amount": 5, "priority": 1, "expires_at": rfc3339(START + 60)});
    app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201);
    let place = async || app.post("/v1/accounts/user_1/credits/holds", json!({"amount": 2})).await.expect(201);
    let (captured, released) = (place().await, place().await);
    let explained = explain(&app, &captured["receipt"]).await;
    assert_eq!((&explained["kind"], &explained["available_after"]), (&json!("hold"), &json!(13)));
    // The lot has expired when they end, so what returns to it expires at once: another event, of the same decision.
    app.clock.set(START + 61);
    for (hold, act, kind) in [(&captured, "capture", "capture"), (&released, "release", "hold_released")] {
        let path = format!("/v1/holds/{}/{act}", hold["id"].as_str().expect("an id"));
        let body = if act == "capture" { json!({"amount": 1}) } else { json!({}) };
        let ended = app.post(&path, body).await.expect(200);
        let explained = explain(&app, &ended["receipt"]).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!(kind), &json!(true)), "{explained}");
    }
}

#[tokio::test]
async fn a_grant_by_hand_is_explained_and_a_check_in_the_future_is_not() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 5).await.expect(201);
    let entries = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
    for entry in entries["data"].as_array().expect("entries") {
        let account = app.get("/v1/accounts/user_1/credits").await.expect(200);
        let partition = account["as_of"]["partition"].as_i64().expect("a partition");
        let explained = explain(&app, &json!(format!("{partition}-{}", entry["position"]))).await;
        assert_ne!(explained["agrees"], false, "{explained}");
    }
    let check = app.get("/v1/accounts/user_1/entitlements/generation").await.expect(200);
    let receipt = check["receipt"].as_str().expect("a receipt");
    let mut parts: Vec<&str> = receipt.split('.').collect();
    let later = format!("{}", (START + 86_400) * 1_000_000);
    parts[2] = &later;
    app.get(&format!("/v1/receipts/{}", parts.join("."))).await.problem(404, "receipt_not_found");
}

#[tokio::test]
async fn a_capture_of_credits_that_are_no_whole_units_is_explained() {
    let catalog = SELLER.replacen("credit_cost = 1\n", "credit_cost = 2\n", 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    for body in [json!({"amount": 1}), json!({"amount": 3}), json!({"quantity": 1}), json!({})] {
        let placed = json!({"feature": "generation", "quantity": 2});
        let held = app.post("/v1/accounts/user_1/credits/holds", placed).await.expect(201);
        let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
        let captured = app.post(&path, body.clone()).await.expect(200);
        let explained = explain(&app, &captured["receipt"]).await;
        assert_eq!(explained["agrees"], true, "{body}: {explained}");
    }
}

#[tokio::test]
async fn a_record_that_the_rules_would_not_have_made_is_found_out() {
    let mut app = TestApp::start().await;
    app.skip_checks();
    app.put_account("user_1", json!({})).await.expect(201);
    let debit = app.debit("user_1", "key-1", json!({"feature": "generation", "quantity": 3})).await.expect(201);
    let forged = "alter table events disable trigger all;
        update events set payload = replace(payload::text, '\"amount\":3', '\"amount\":1')::json
        where type = 'credits_debited'";
    app.database().await.batch_execute(forged).await.expect("an owner can");
    let path = format!("/v1/receipts/{}", debit["receipt"].as_str().expect("a receipt"));
    assert_eq!(app.get(&path).await.expect(200)["agrees"], false);
}

#[tokio::test]
async fn decisions_are_found_under_their_catalog_however_many_there_have_been() {
    let mut app = TestApp::start().await;
    app.skip_checks();
    let many = "insert into events
            select e.partition_id, h.position + n, e.account_id, b.version + n, h.position + n - 1, e.type, e.type_version,
                   e.at, e.payload, e.hash
            from events e join heads h using (partition_id) join balances b using (account_id)
            cross join generate_series(1, 2100) n where e.type = 'catalog_applied';
        update balances b set version = version + 2100, position = h.position + 2100 from heads h
            where b.partition_id = h.partition_id and exists (
                select from events e where e.account_id = b.account_id and e.type = 'catalog_applied');
        update heads set position = position + 2100 where position > 0";
    app.database().await.batch_execute(many).await.expect(many);
    app.clock.advance(Duration::seconds(10));
    app.apply_catalog(&SELLER.replacen("credit_cost = 1\n", "credit_cost = 3\n", 1)).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debit = app.debit("user_1", "key-1", json!({"feature": "generation"})).await.expect(201);
    let check = app.get("/v1/accounts/user_1/entitlements/generation").await.expect(200);
    app.clock.advance(Duration::seconds(10));
    app.apply_catalog(&SELLER.replacen("credit_cost = 1\n", "credit_cost = 5\n", 1)).await;
    app.clock.advance(Duration::minutes(1));
    for receipt in [&debit["receipt"], &check["receipt"]] {
        let explained = explain(&app, receipt).await;
        assert_says(&explained["because"].to_string(), &["1 of generation cost 3 credits"]);
    }
    for (seconds, remaining) in [(15, 2), (25, 1)] {
        let path = format!("/v1/accounts/user_1/entitlements/generation?as_of={}", rfc3339(START + seconds));
        assert_eq!(app.get(&path).await.expect(200)["remaining"], remaining, "after {seconds} s");
    }
}

#[tokio::test]
async fn what_a_hold_gives_back_and_what_expires_is_explained() {
    let app = TestApp::with(crate::debits::free_plan_with("overage = { limit = 5 }")).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grant = json!({"amount": 4, "priority": 1, "expires_at": rfc3339(START + 60)});
    let lot = app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201)["id"].clone();
    let place = async |body: Value| app.post("/v1/accounts/user_1/credits/holds", body).await.expect(201);
    let (small, large) =
        (place(json!({"amount": 1})).await, place(json!({"feature": "generation", "quantity": 14})).await);
    let act = async |hold: &Value, act: &str, body: Value| {
        let path = format!("/v1/holds/{}/{act}", hold["id"].as_str().expect("an id"));
        explain(&app, &app.post(&path, body).await.expect(200)["receipt"]).await
    };
    let id = |hold: &Value| hold["id"].as_str().expect("an id").to_owned();
    let extended = act(&small, "extend", json!({"expires_at": rfc3339(START + 90)})).await;
    let told = format!("the hold {} of 1 credit was to last until 2026-01-15T13:00:00Z", id(&small));
    assert_says(&extended["because"].to_string(), &[&told, "so it lasts until 2026-01-15T12:01:30Z"]);
    assert_eq!(extended["lots"], json!([{"lot": lot, "amount": 1}]));
    let released = act(&large, "release", json!({})).await;
    let told = format!("the hold {} of 14 credits, for 14 of generation, was released", id(&large));
    assert_says(&released["because"].to_string(), &[&told, "so 13 returned to 2 lots, and 1 are not to be owed"]);
    assert_eq!((&released["available_before"], &released["available_after"]), (&json!(-1), &json!(13)));
    assert_eq!(released["lots"].as_array().map(Vec::len), Some(2));
    app.clock.set(START + 61);
    app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
    app.clock.set(START + 91);
    app.debit("user_1", "key-2", json!({"amount": 1})).await.expect(201);
    let entries = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
    let account = app.get("/v1/accounts/user_1/credits").await.expect(200);
    let of_type = async |kind: &str| {
        let mut entries = entries["data"].as_array().expect("entries").iter();
        let entry = entries.rfind(|entry| entry["type"] == kind).expect(kind);
        explain(&app, &json!(format!("{}-{}", account["as_of"]["partition"], entry["position"]))).await
    };
    let expired = of_type("hold_expiry").await;
    let told = format!("the hold {} of 1 credit expired at 2026-01-15T12:01:30Z", id(&small));
    assert_says(&expired["because"].to_string(), &[&told, "so 1 returned to one lot"]);
    assert_eq!(expired["lots"], json!([{"lot": lot, "amount": 1}]));
    // What returned to the lot expired with it, of the same cause; what had been left in it expired by itself.
    assert_eq!(of_type("expiry").await["kind"], "hold_expired");
    let first = entries["data"].as_array().expect("entries").iter().find(|entry| entry["type"] == "expiry");
    let receipt = format!("{}-{}", account["as_of"]["partition"], first.expect("an expiry")["position"]);
    let unused = explain(&app, &json!(receipt)).await;
    let lot = lot.as_str().expect("an id");
    let told = format!("the lot {lot} (grant:{lot}) expired at 2026-01-15T12:01:00Z, with 3 credits unused");
    assert_says(&unused["because"].to_string(), &[&told]);
}

#[tokio::test]
async fn what_is_no_receipt_is_a_404() {
    let app = TestApp::start().await;
    for receipt in [
        "nonsense",
        "0-999",
        "999-1",
        "check.1.2",
        "01a1fdf1-7c44-7b0e-b1c1-4f2a7d3e9c55",
        "5f0c6a52-7f3c-4b8e-9a52-2f6f4a0d9f11",
    ] {
        app.get(&format!("/v1/receipts/{receipt}")).await.problem(404, "receipt_not_found");
    }
}

#[tokio::test]
async fn a_check_is_explained_although_it_left_no_trace() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.debit("user_1", "key-1", json!({"amount": 4})).await.expect(201);
    let check = async |feature: &str, quantity: i64| {
        let path = format!("/v1/accounts/user_1/entitlements/{feature}?quantity={quantity}");
        app.get(&path).await.expect(200)["receipt"].clone()
    };
    let (allowed, refused) = (check("generation", 6).await, check("generation", 7).await);
    let not_in_plan = check("export", 1).await;
    app.grant("user_1", 50).await.expect(201);
    app.apply_catalog(&SELLER.replacen("credit_cost = 1\n", "credit_cost = 9\n", 1)).await;
    app.clock.advance(Duration::days(40));
    for (receipt, is_allowed, reason) in
        [(allowed, true, "included"), (refused, false, "insufficient_credits"), (not_in_plan, false, "not_in_plan")]
    {
        let explained = explain(&app, &receipt).await;
        assert_eq!((&explained["kind"], &explained["agrees"]), (&json!("check"), &json!(true)), "{explained}");
        assert_eq!((&explained["allowed"], &explained["reason"]), (&json!(is_allowed), &json!(reason)));
        assert_eq!(explained["available_before"], 6);
    }
}

#[tokio::test]
async fn a_refused_row_of_a_batch_has_a_receipt() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debits = json!({"debits": [{"account": "user_1", "idempotency_key": "key-1", "amount": 11}]});
    let batch = app.call(reqwest::Method::POST, "/v1/debits/batch").json(debits).send().await.expect(200);
    let explained = explain(&app, &batch["data"][0]["problem"]["receipt"]).await;
    assert_eq!((&explained["reason"], &explained["agrees"]), (&json!("insufficient_credits"), &json!(true)));
}

/// What a receipt says of the rule that decided: override and limits, and in words.
async fn rule(app: &TestApp, receipt: &Value) -> (Value, Value, String) {
    let explained = explain(app, receipt).await;
    assert_eq!(explained["agrees"], true, "{explained}");
    (explained["override"].clone(), explained["limits"].clone(), explained["because"].to_string())
}

fn assert_says(because: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(because.contains(text), "{text}: {because}");
    }
}

#[tokio::test]
async fn what_an_override_decided_is_explained_by_the_override() {
    let render = "[features.render]\nname = \"Render\"\nkind = \"metered\"\ncredit_cost = 2\n\n[features.support]";
    let catalog = SELLER.replacen("[features.support]", render, 1);
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let put = async |feature: &str, body: Value| {
        let path = format!("/v1/accounts/user_1/overrides/{feature}");
        app.call(reqwest::Method::PUT, &path).json(body).send().await.expect(200)
    };
    let body = json!({"limit": 4, "per": "hour", "expires_at": rfc3339(START + 60), "reason": "a minute to try it"});
    put("render", body).await;
    let debit = app.debit("user_1", "key-1", json!({"feature": "render", "quantity": 3})).await.expect(201);
    let refused = app.debit("user_1", "key-2", json!({"feature": "render", "quantity": 2})).await;
    let refused = refused.problem(403, "limit_exceeded");
    put("generation", json!({"allowed": false, "reason": "abuse"})).await;
    let denied = app.debit("user_1", "key-3", json!({"feature": "generation"})).await.problem(403, "override_denied");
    let check = app.get("/v1/accounts/user_1/entitlements/export").await.expect(200);
    put("export", json!({"allowed": true})).await;
    let allowed = app.get("/v1/accounts/user_1/entitlements/export").await.expect(200);
    // Neither what has ended since nor what was set later is what decided.
    app.clock.set(day(1));
    put("render", json!({"allowed": false})).await;

    let by = json!({"feature": "render", "allowed": true, "limit": 4, "per": "hour", "values": null,
        "expires_at": rfc3339(START + 60), "reason": "a minute to try it"});
    let told = "an override limits render to 4 per hour until 2026-01-15T12:01:00Z, because: a minute to try it";
    let limit = |used: i64| {
        json!([{"limit": 4, "per": "hour", "used": used, "held": 0, "remaining": 4 - used,
            "resets_at": rfc3339(START + 3_600)}])
    };
    let (set, limits, because) = rule(&app, &debit["receipt"]).await;
    assert_eq!((set, limits), (by.clone(), limit(0)));
    let price = ["3 of render cost 6 credits, 2 each", "10 credits were available", "so 6 came out of one lot"];
    assert_says(&because, &[told, price[0], price[1], price[2]]);
    assert!(!because.contains("does not include"), "{because}");
    let (set, limits, because) = rule(&app, &refused["receipt"]).await;
    assert_eq!((set, limits), (by, limit(3)));
    let used = "render is limited to 4 per hour: 3 were used and 0 held, the count begins anew at 2026-01-15T13:00:00Z, so 2 \
                would be too many";
    assert_says(&because, &[told, used]);

    let (set, _, because) = rule(&app, &denied["receipt"]).await;
    assert_eq!((&set["allowed"], &set["reason"]), (&json!(false), &json!("abuse")));
    assert_says(&because, &["an override denies generation, because: abuse"]);
    let (set, _, because) = rule(&app, &check["receipt"]).await;
    assert_eq!(set, Value::Null);
    assert_says(&because, &["free does not include export"]);
    let (set, _, because) = rule(&app, &allowed["receipt"]).await;
    assert_eq!((&set["allowed"], &set["limit"], &set["expires_at"]), (&json!(true), &Value::Null, &Value::Null));
    assert_says(&because, &["an override allows export\""]);
}

#[tokio::test]
async fn what_a_window_limit_refused_is_explained_by_that_limit() {
    let setup = crate::usage::with_calls(r#"[{ limit = 2, per = "minute" }, { limit = 5, per = "day" }]"#);
    let app = TestApp::with(setup).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let debit = async |key: &str| app.debit("user_1", key, json!({"feature": "calls"})).await;
    debit("key-1").await.expect(201);
    let held = json!({"feature": "calls", "quantity": 1, "expires_at": rfc3339(START + 30)});
    app.post("/v1/accounts/user_1/credits/holds", held).await.expect(201);
    let refused = debit("key-2").await.problem(403, "limit_exceeded");
    let check = app.get("/v1/accounts/user_1/entitlements/calls").await.expect(200);
    assert_eq!(check["reason"], "limit_exceeded");
    app.clock.set(START + 60);
    debit("key-3").await.expect(201);
    for receipt in [&refused["receipt"], &check["receipt"]] {
        let (set, limits, because) = rule(&app, receipt).await;
        assert_eq!(set, Value::Null);
        let row = |limit: i64, per: &str, resets_at: i64| {
            json!({"limit": limit, "per": per, "used": 1, "held": 1, "remaining": limit - 2,
                "resets_at": rfc3339(resets_at)})
        };
        assert_eq!(limits, json!([row(2, "minute", START + 60), row(5, "day", START + 43_200)]));
        let used = "1 were used and 1 held, the count begins anew at";
        let minute = format!("calls is limited to 2 per minute: {used} 2026-01-15T12:01:00Z, so 1 would be too many");
        let day = format!("calls is limited to 5 per day: {used} 2026-01-16T00:00:00Z\"");
        assert_says(&because, &["free includes calls", &minute, &day]);
    }
}
