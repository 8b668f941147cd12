//! `/v1/plans` and `/v1/credit-packs`.

use chrono::Duration;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

#[tokio::test]
async fn plans_are_listed_by_rank_with_the_version_of_the_catalog() {
    let app = TestApp::start().await;
    let list = app.get("/v1/plans").await.expect(200);
    let plans = list["data"].as_array().expect("plans");
    let ids: Vec<&Value> = plans.iter().map(|plan| &plan["id"]).collect();
    assert_eq!(ids, ["free", "support", "starter", "pro", "team"]);
    let catalog = list["catalog"].clone();
    assert_eq!(app.get("/v1/credit-packs").await.expect(200)["catalog"], catalog);
    app.apply_catalog(&SELLER.replace("credits = 500\ngrace", "credits = 501\ngrace")).await;
    assert_ne!(app.get("/v1/plans").await.expect(200)["catalog"], catalog);
}

#[tokio::test]
async fn how_credits_are_to_be_shown_is_told_beside_them() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        for scale in [0, 2] {
            if scale > 0 {
                app.clock.advance(Duration::hours(1));
                app.apply_catalog(&format!("credit_display_scale = {scale}\n{SELLER}")).await;
            }
            for path in ["/v1/plans", "/v1/credit-packs", "/v1/accounts/user_1/credits"] {
                assert_eq!(app.get(path).await.expect(200)["credit_display_scale"], scale, "{path}");
            }
        }
        // As it was then, like all else that is asked of the past.
        app.clock.advance(Duration::days(1));
        for (at, scale) in [(START + 60, 0), (START + 7_200, 2)] {
            let path = format!("/v1/accounts/user_1/credits?as_of={}", rfc3339(at));
            assert_eq!(app.get(&path).await.expect(200)["credit_display_scale"], scale, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_shown_whole() {
    let app = TestApp::start().await;
    let plan = app.get("/v1/plans/pro").await.expect(200);
    assert_eq!((&plan["name"], &plan["credits"]), (&json!("Pro"), &json!({"per_period": 500})));
    assert_eq!((&plan["grace_days"], &plan["trial"]), (&json!(3), &json!({"days": 14, "credits": {"amount": 50}})));
    let prices = plan["prices"].as_array().expect("prices");
    let monthly = prices.iter().find(|price| price["id"] == "pro.monthly").expect("a monthly price");
    let expected = json!({"id": "pro.monthly", "stripe_price_id": PRO, "lookup_key": null, "currency": "usd",
        "unit_amount": 2_900, "interval": "month", "interval_count": 1});
    assert_eq!(*monthly, expected);
    assert_eq!(plan["features"]["export"], json!({"limit": null, "values": []}));
    app.get("/v1/plans/gold").await.problem(404, "not_found");
}

#[tokio::test]
async fn credit_packs_are_listed() {
    let app = TestApp::start().await;
    let packs = app.get("/v1/credit-packs").await.expect(200);
    assert_eq!((&packs["data"][0]["id"], &packs["data"][0]["credits"]), (&json!("credits_500"), &json!(500)));
    assert_eq!((&packs["data"][0]["expires_after_days"], &packs["data"][0]["priority"]), (&Value::Null, &json!(50)));
}

#[tokio::test]
async fn without_a_catalog_there_is_a_free_plan_with_nothing_in_it() {
    let app = TestApp::with(Setup { catalog: String::new(), ..Setup::default() }).await;
    let list = app.get("/v1/plans").await.expect(200);
    assert_eq!(list["data"].as_array().expect("plans").len(), 1);
    app.put_account("user_1", json!({})).await.expect(201);
    assert_eq!(app.available("user_1").await, 0);
    app.grant("user_1", 5).await.expect(201);
    app.debit("user_1", "key-1", json!({"amount": 5})).await.expect(201);
}

#[tokio::test]
async fn a_restart_goes_on_under_the_catalog_applied_last() {
    let app = TestApp::start().await;
    let before = app.get("/v1/plans").await.expect(200);
    let url = Some(app.database_url.clone());
    let restarted = TestApp::with(Setup { catalog: String::new(), database_url: url, ..Setup::default() }).await;
    assert_eq!(restarted.get("/v1/plans").await.expect(200), before);
}

async fn put(app: &TestApp, plan: &str, body: Value) -> Answer {
    app.call(Method::PUT, &format!("/v1/plans/{plan}")).json(body).send().await
}

async fn plans(app: &TestApp) -> Vec<Value> {
    app.get("/v1/plans").await.expect(200)["data"].as_array().expect("plans").clone()
}

async fn versions(app: &TestApp) -> i64 {
    let count = "select count(*) from events where type = 'catalog_applied'";
    app.database().await.query_one(count, &[]).await.expect("a count").get(0)
}

/// A plan that nobody sells yet.
fn gold() -> Value {
    json!({
        "name": "Gold", "rank": 40, "credits": {"per_period": 2_000}, "features": {"generation": {}, "export": {}},
        "prices": [{"id": "gold.monthly", "currency": "usd", "unit_amount": 9_900, "interval": "month"}],
    })
}

#[tokio::test]
async fn a_plan_is_put_into_the_catalog_and_others_stay() {
    let app = TestApp::start().await;
    let before = app.get("/v1/plans").await.expect(200);
    let mut pro = app.get("/v1/plans/pro").await.expect(200);
    pro["credits"] = json!({"per_period": 600});
    let changed = put(&app, "pro", pro.clone()).await.expect(200);
    assert_eq!(changed["plan"], pro);
    assert_ne!(changed["catalog"], before["catalog"]);
    let list = app.get("/v1/plans").await.expect(200);
    assert_eq!(list["catalog"], changed["catalog"]);
    let others = |list: &Value| -> Vec<Value> {
        list["data"].as_array().expect("plans").iter().filter(|plan| plan["id"] != "pro").cloned().collect()
    };
    assert_eq!(others(&list), others(&before));
    assert_eq!(versions(&app).await, 2);
    let position = changed["position"].as_i64().expect("a position");
    assert_eq!(put(&app, "pro", pro).await.expect(200), changed, "the same again is no new version");
    assert_eq!(versions(&app).await, 2);

    // What is left out has its default, and decisions go by it from now on.
    let added = put(&app, "gold", gold()).await.expect(200);
    assert_eq!(added["plan"]["trial"], json!({"days": 0, "credits": "full"}));
    assert!(added["position"].as_i64().is_some_and(|added| added > position));
    let ids: Vec<Value> = plans(&app).await.iter().map(|plan| plan["id"].clone()).collect();
    assert_eq!(ids, ["free", "support", "starter", "pro", "team", "gold"]);
    let mut free = app.get("/v1/plans/free").await.expect(200);
    free["credits"] = json!({"per_period": 25});
    put(&app, "free", free).await.expect(200);
    app.put_account("user_1", json!({})).await.expect(201);
    assert_eq!(app.available("user_1").await, 25);
}

#[tokio::test]
async fn a_plan_that_cannot_be_is_refused_by_its_field() {
    let app = TestApp::start().await;
    let with = |changes: Value| with(gold(), changes);
    let price = |changes: Value| {
        let mut plan = gold();
        plan["prices"][0] = crate::support::stripe::with(plan["prices"][0].clone(), changes);
        plan
    };
    for (body, code, place) in [
        (json!({"rank": 40}), "invalid_body", "missing field `name`"),
        (json!("gold"), "invalid_body", "must be a JSON object"),
        (json!([gold()]), "invalid_body", "must be a JSON object"),
        (with(json!({"colour": "red"})), "invalid_parameter", "colour: "),
        (with(json!({"trial": {"dayz": 3}})), "invalid_parameter", "trial.dayz: "),
        (price(json!({"amount": 3})), "invalid_parameter", "prices.0.amount: "),
        (price(json!({"currency": "gold"})), "invalid_parameter", "prices.0.currency: "),
        (with(json!({"rank": -1})), "invalid_parameter", "rank: "),
        (with(json!({"credits": "many"})), "invalid_parameter", "credits: "),
        (with(json!({"credits": {"per_period": -5}})), "invalid_parameter", "credits: -5 is too low"),
        (with(json!({"id": "silver"})), "invalid_parameter", "id: "),
        (with(json!({"rank": 20})), "invalid_parameter", "rank: the rank \"20\" is taken by plans.pro.rank"),
        (with(json!({"name": "  "})), "invalid_parameter", "name: is empty"),
        (with(json!({"name": "G\u{0}ld"})), "invalid_parameter", "name: "),
        (with(json!({"default": true})), "invalid_parameter", "default: plans.free is the default already"),
        (with(json!({"features": {"exprt": {}}})), "invalid_parameter", "did you mean `export`?"),
        (price(json!({"id": "monthly"})), "invalid_parameter", "prices.monthly: "),
        (
            price(json!({"stripe_price_id": PRO})),
            "invalid_parameter",
            "prices.monthly.stripe_price_id: the Stripe price",
        ),
    ] {
        let answer = app.call(Method::PUT, "/v1/plans/gold").json(body.clone()).send().await;
        let problem = answer.problem(400, code);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(place), "{body}: {detail}");
    }
    put(&app, "Gold Plan", gold()).await.problem(400, "invalid_parameter");
    put(&app, "free", json!({"name": "Free", "rank": 0})).await.problem(400, "invalid_parameter");
    assert_eq!(versions(&app).await, 1, "nothing of it is on record");
    assert_eq!(plans(&app).await.len(), 5);
}

#[tokio::test]
async fn plans_that_are_put_at_once_through_two_replicas_are_all_there() {
    let app = TestApp::start().await;
    let url = Some(app.database_url.clone());
    let other = TestApp::with(Setup { catalog: String::new(), database_url: url, ..Setup::default() }).await;
    let putting = (0..10).map(|n| {
        let replica = if n % 2 == 0 { &app } else { &other };
        async move {
            let plan = json!({"name": format!("Plan {n}"), "rank": 100 + n});
            put(replica, &format!("plan_{n}"), plan).await.expect(200)
        }
    });
    join_all(putting).await;
    assert_eq!(versions(&app).await, 11);
    for replica in [&app, &other] {
        eventually(async || plans(replica).await.len(), |plans| *plans == 15).await;
    }
}

#[tokio::test]
async fn a_start_with_the_file_applied_last_undoes_nothing_and_another_file_replaces_all() {
    let app = TestApp::start().await;
    let is_there = async |plan: &str| app.get(&format!("/v1/plans/{plan}")).await.status == 200;
    put(&app, "gold", gold()).await.expect(200);
    app.apply_catalog_at_start(SELLER).await;
    assert!(is_there("gold").await);
    let changed = SELLER.replace("credits = 500\ngrace", "credits = 501\ngrace");
    app.apply_catalog_at_start(&changed).await;
    assert!(!is_there("gold").await);
    put(&app, "gold", gold()).await.expect(200);
    app.apply_catalog_at_start(&changed).await;
    assert!(is_there("gold").await);
    // Back to the file before is another file, too.
    app.apply_catalog_at_start(SELLER).await;
    assert!(!is_there("gold").await);

    // A file that says what was put already holds it from then on.
    let mut pro = app.get("/v1/plans/pro").await.expect(200);
    pro["credits"] = json!({"per_period": 501});
    put(&app, "pro", pro).await.expect(200);
    app.apply_catalog_at_start(&changed).await;
    put(&app, "gold", gold()).await.expect(200);
    app.apply_catalog_at_start(&changed).await;
    assert!(is_there("gold").await);

    // Told to, it applies the file whatever was put since.
    app.apply_catalog(&changed).await;
    assert!(!is_there("gold").await);
}
