//! `…/overrides`, `…/suspension`, and the states of an account.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;
use crate::usage::with_calls;

async fn put(app: &TestApp, feature: &str, body: Value) -> Answer {
    app.call(Method::PUT, &format!("/v1/accounts/user_1/overrides/{feature}")).json(body).send().await
}

async fn check(app: &TestApp, what: &str) -> Value {
    app.get(&format!("/v1/accounts/user_1/entitlements/{what}")).await.expect(200)
}

async fn reason(app: &TestApp, what: &str) -> String {
    check(app, what).await["reason"].as_str().expect("a reason").to_owned()
}

async fn debit(app: &TestApp, feature: &str, quantity: i64) -> Answer {
    let body = json!({"feature": feature, "quantity": quantity});
    app.post("/v1/accounts/user_1/credits/debits", body).await
}

async fn start(setup: Setup) -> TestApp {
    let app = TestApp::with(setup).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app
}

#[tokio::test]
async fn an_override_grants_what_the_plan_lacks_until_it_expires() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        assert_eq!(reason(&app, "export").await, "not_in_plan");
        let body = json!({"allowed": true, "expires_at": rfc3339(day(7)), "reason": "a week to try it"});
        let set = put(&app, "export", body).await.expect(200);
        assert_eq!(
            (&set["allowed"], &set["limit"], &set["reason"]),
            (&json!(true), &Value::Null, &json!("a week to try it"))
        );
        let answer = check(&app, &format!("export?min_position={}", set["position"])).await;
        assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(true), &json!("override")));
        assert_eq!(answer["override"], json!({"expires_at": rfc3339(day(7)), "reason": "a week to try it"}));
        app.clock.set(day(7) - 1);
        assert_eq!(reason(&app, "export").await, "override");
        app.clock.set(day(7));
        let answer = check(&app, "export").await;
        assert_eq!((&answer["reason"], &answer["override"]), (&json!("not_in_plan"), &Value::Null));
        let list = app.get("/v1/accounts/user_1/overrides").await.expect(200);
        assert_eq!(list["data"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn debits_honour_overrides() {
    let app = start(with_calls(r#"[{ limit = 2, per = "minute" }, { limit = 5, per = "day" }]"#)).await;
    debit(&app, "calls", 3).await.problem(403, "limit_exceeded");
    let set = put(&app, "calls", json!({"limit": 4, "per": "hour"})).await.expect(200);
    assert_eq!((&set["limit"], &set["per"]), (&json!(4), &json!("hour")));
    debit(&app, "calls", 4).await.expect(201);
    debit(&app, "calls", 1).await.problem(403, "limit_exceeded");
    assert_eq!(put(&app, "calls", json!({"limit": "unlimited"})).await.expect(200)["limit"], "unlimited");
    debit(&app, "calls", 1_000).await.expect(201);
    let answer = check(&app, "calls").await;
    assert_eq!((&answer["reason"], &answer["limit"]), (&json!("override"), &Value::Null));
    put(&app, "calls", json!({"allowed": true})).await.expect(200);
    debit(&app, "calls", 1).await.problem(403, "limit_exceeded");
    assert_eq!(check(&app, "calls").await["limits"][1]["used"], 1_004, "uses count whatever decides");

    put(&app, "generation", json!({"allowed": false, "reason": "abuse"})).await.expect(200);
    assert_eq!(reason(&app, "generation").await, "override_denied");
    debit(&app, "generation", 1).await.problem(403, "override_denied");
    app.post("/v1/accounts/user_1/credits/debits", json!({"amount": 1})).await.expect(201);
    let removed = app.call(Method::DELETE, "/v1/accounts/user_1/overrides/generation").send().await.expect(200);
    assert!(removed["position"].is_i64());
    debit(&app, "generation", 1).await.expect(201);
}

#[tokio::test]
async fn limits_and_lists_are_replaced() {
    let catalog = include_str!("../../deploy/catalog.toml").to_owned();
    let app = start(Setup { catalog, ..Setup::default() }).await;
    assert_eq!(reason(&app, "projects?quantity=2").await, "limit_exceeded");
    put(&app, "projects", json!({"limit": 2})).await.expect(200);
    assert_eq!(reason(&app, "projects?quantity=2").await, "override");
    put(&app, "projects", json!({"limit": 0})).await.expect(200);
    assert_eq!(reason(&app, "projects").await, "limit_exceeded");
    put(&app, "projects", json!({"limit": "unlimited"})).await.expect(200);
    assert_eq!(reason(&app, "projects?quantity=1000").await, "override");
    put(&app, "models", json!({"values": ["flux-dev"]})).await.expect(200);
    assert_eq!(check(&app, "models").await["values"], json!(["flux-dev"]));
    let list = app.get("/v1/accounts/user_1/overrides").await.expect(200);
    let features: Vec<&Value> = list["data"].as_array().expect("rows").iter().map(|row| &row["feature"]).collect();
    assert_eq!(features, ["models", "projects"]);
}

#[tokio::test]
async fn the_same_override_again_changes_nothing() {
    let app = start(Setup::default()).await;
    let body = json!({"allowed": true, "reason": "x"});
    let first = put(&app, "export", body.clone()).await.expect(200);
    put(&app, "export", body).await.expect(200);
    app.call(Method::DELETE, "/v1/accounts/user_1/overrides/support").send().await.expect(200);
    let events = app.get("/v1/events?account=user_1&type=override_set").await.expect(200);
    assert_eq!(events["data"].as_array().expect("events").len(), 1);
    assert_eq!(events["data"][0]["position"], first["position"]);
}

#[tokio::test]
async fn terms_that_do_not_fit_the_feature_are_refused() {
    let catalog = include_str!("../../deploy/catalog.toml").to_owned();
    let app = start(Setup { catalog, ..Setup::default() }).await;
    for (feature, body, field) in [
        ("api_access", json!({}), "allowed"),
        ("api_access", json!({"limit": 5}), "limit"),
        ("api_access", json!({"values": ["x"]}), "values"),
        ("projects", json!({"allowed": true}), "limit"),
        ("projects", json!({"limit": -1}), "limit"),
        ("projects", json!({"limit": 5, "per": "day"}), "per"),
        ("projects", json!({"allowed": false, "limit": 5}), "allowed"),
        ("models", json!({"allowed": true}), "values"),
        ("models", json!({"values": []}), "values"),
        ("models", json!({"values": ["a\u{0}"]}), "values"),
        ("image_generation", json!({"limit": 5}), "per"),
        ("image_generation", json!({"limit": 0, "per": "day"}), "limit"),
        ("image_generation", json!({"limit": 1_000_000_000_001_i64, "per": "day"}), "limit"),
        ("image_generation", json!({"limit": "unlimited", "per": "day"}), "per"),
        ("image_generation", json!({"allowed": true, "expires_at": rfc3339(START)}), "expires_at"),
        ("image_generation", json!({"allowed": true, "reason": "x".repeat(501)}), "reason"),
        ("image_generation", json!({"allowed": true, "reason": "\u{0}"}), "reason"),
    ] {
        let problem = put(&app, feature, body.clone()).await.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.starts_with(&format!("{field}: ")), "{feature} {body}: {detail}");
    }
    for body in [json!({"limit": "many"}), json!({"limit": 1.5}), json!({"per": "week"}), json!({"until": 5})] {
        put(&app, "projects", body).await.problem(400, "invalid_body");
    }
    put(&app, "flying", json!({"allowed": true})).await.problem(404, "unknown_feature");
    let delete = async |path: &str| app.call(Method::DELETE, path).send().await;
    delete("/v1/accounts/user_1/overrides/flying").await.problem(404, "unknown_feature");
    delete("/v1/accounts/nobody/overrides/projects").await.problem(404, "account_not_found");
    delete("/v1/accounts/nobody/suspension").await.problem(404, "account_not_found");
    let of_nobody = app.call(Method::PUT, "/v1/accounts/nobody/overrides/api_access").json(json!({"allowed": true}));
    of_nobody.send().await.problem(404, "account_not_found");
    app.get("/v1/accounts/nobody/overrides").await.problem(404, "account_not_found");
}

#[tokio::test]
async fn an_account_has_fifty_overrides_at_most_and_expired_ones_make_room() {
    let features: String = (0..52).map(|n| format!("[features.f{n}]\nname = \"F\"\nkind = \"boolean\"\n")).collect();
    let app = start(Setup { catalog: format!("{features}\n{SELLER}"), ..Setup::default() }).await;
    put(&app, "f0", json!({"allowed": true, "expires_at": rfc3339(day(1))})).await.expect(200);
    for n in 1..50 {
        put(&app, &format!("f{n}"), json!({"allowed": true})).await.expect(200);
    }
    put(&app, "f50", json!({"allowed": true})).await.problem(422, "too_many_overrides");
    put(&app, "f49", json!({"allowed": false})).await.expect(200);
    app.clock.set(day(1));
    put(&app, "f50", json!({"allowed": true})).await.expect(200);
    put(&app, "f51", json!({"allowed": true})).await.problem(422, "too_many_overrides");
}

#[tokio::test]
async fn a_suspended_account_does_nothing_and_keeps_its_credits() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        put(&app, "support", json!({"allowed": true})).await.expect(200);
        let path = "/v1/accounts/user_1/suspension";
        let suspend = async |body: Value| app.call(Method::PUT, path).json(body).send().await.expect(200);
        let suspended = suspend(json!({"reason": "terms of use"})).await;
        let expected = json!({"since": rfc3339(START), "reason": "terms of use"});
        assert_eq!(suspended["suspension"], expected);
        app.clock.set(day(1));
        assert_eq!(suspend(json!({"reason": "terms of use"})).await["suspension"], expected);
        for feature in ["export", "generation", "support"] {
            let answer = check(&app, feature).await;
            assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(false), &json!("suspended")), "{feature}");
            assert_eq!(answer["state"], "suspended");
        }
        debit(&app, "generation", 1).await.problem(403, "account_suspended");
        app.post("/v1/accounts/user_1/credits/debits", json!({"amount": 1})).await.problem(403, "account_suspended");
        app.grant("user_1", 5).await.expect(201);
        app.post("/v1/accounts/user_1/usage", json!({"feature": "generation", "quantity": 1})).await.expect(201);
        assert_eq!(app.available("user_1").await, PRO_CREDITS + 5);
        let account = app.get("/v1/accounts/user_1").await.expect(200);
        assert_eq!((&account["state"], &account["suspension"]), (&json!("suspended"), &expected));
        for _ in 0..2 {
            let lifted = app.call(Method::DELETE, path).send().await.expect(200);
            assert_eq!(lifted["suspension"], Value::Null);
        }
        debit(&app, "generation", 1).await.expect(201);
        assert_eq!(reason(&app, "export").await, "included");
        assert_eq!(app.get("/v1/accounts/user_1").await.expect(200)["state"], "active");
    })
    .await;
}

#[tokio::test]
async fn a_paused_subscription_stops_unless_its_plan_keeps_on() {
    let paused = json!({"pause_collection": {"behavior": "void", "resumes_at": null}});
    for (n, changes) in [paused, json!({"status": "paused"})].into_iter().enumerate() {
        let app = start(Setup::default()).await;
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        assert_eq!(
            (reason(&app, "export").await.as_str(), &check(&app, "export").await["state"]),
            ("included", &json!("active"))
        );
        let subscription_id =
            app.get("/v1/accounts/user_1/subscription").await.expect(200)["stripe_subscription_id"].clone();
        let id = subscription_id.as_str().expect("an id");
        let whole = with(subscription("cus_1", id, PRO, START), json!({"created": START}));
        let stopped = with(whole.clone(), changes);
        app.deliver_all(&[event("customer.subscription.updated", day(1), stopped)]).await;
        let answer = check(&app, "export").await;
        assert_eq!((&answer["reason"], &answer["state"]), (&json!("paused"), &json!("paused")), "{n}");
        assert_eq!(answer["plan"], "free");
        let refused = debit(&app, "export", 1).await.problem(403, "subscription_paused");
        let hold = json!({"feature": "export", "quantity": 1});
        app.post("/v1/accounts/user_1/credits/holds", hold).await.problem(403, "subscription_paused");
        let receipt = refused["receipt"].as_str().expect("on record");
        let explained = app.get(&format!("/v1/receipts/{receipt}")).await.expect(200);
        assert_eq!((&explained["agrees"], &explained["reason"]), (&json!(true), &json!("subscription_paused")));
        let because = explained["because"].to_string();
        assert!(
            because.contains("free does not include export, and the subscription that would is paused"),
            "{because}"
        );
        // What no subscription has is not in the plan, paused or not.
        debit(&app, "support", 1).await.problem(403, "feature_not_in_plan");
        debit(&app, "generation", 1).await.expect(201);

        app.apply_catalog(&SELLER.replace("trial = {", "while_paused = \"keep\"\ntrial = {")).await;
        let answer = check(&app, "export").await;
        assert_eq!(
            (&answer["reason"], &answer["state"], &answer["plan"]),
            (&json!("included"), &json!("paused"), &json!("pro"))
        );
        app.apply_catalog(SELLER).await;
        app.deliver_all(&[event("customer.subscription.updated", day(2), whole)]).await;
        assert_eq!(check(&app, "export").await["reason"], "included");
    }
}

#[tokio::test]
async fn a_trial_and_days_of_grace_are_states() {
    let app = start(Setup::default()).await;
    assert_eq!(check(&app, "generation").await["state"], "free");
    let trial = json!({"status": "trialing", "trial_start": START, "trial_end": day(14)});
    let subscription = with(subscription("cus_1", "sub_1", PRO, START), trial);
    app.deliver_all(&[event("customer.subscription.created", START, subscription.clone())]).await;
    let answer = check(&app, "export").await;
    assert_eq!((&answer["reason"], &answer["state"]), (&json!("included"), &json!("trialing")));
    let overdue = with(subscription, json!({"status": "past_due"}));
    app.deliver_all(&[event("customer.subscription.updated", day(14), overdue)]).await;
    app.clock.set(day(15));
    let answer = check(&app, "export").await;
    assert_eq!((&answer["reason"], &answer["state"]), (&json!("in_grace"), &json!("in_grace")));
}
