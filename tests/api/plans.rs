//! `/v1/plans` and `/v1/credit-packs`.

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
