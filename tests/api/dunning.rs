//! What becomes of an account while its payment is overdue.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// The sample seller, whose Pro plan keeps one feature for a while.
fn catalog() -> String {
    let terms = "[plans.pro.dunning]\nrestricted_features = [\"generation\"]\nsuspend_after_days = 10\n";
    SELLER.replace("[plans.pro.prices.monthly]", &format!("{terms}[plans.pro.prices.monthly]"))
}

async fn account(app: &TestApp) -> Value {
    app.get("/v1/accounts/cus_1").await.expect(200)
}

async fn verdict(app: &TestApp, feature: &str) -> Value {
    let answer = app.get(&format!("/v1/accounts/cus_1/entitlements/{feature}")).await.expect(200);
    json!([answer["allowed"], answer["reason"], answer["state"]])
}

#[tokio::test]
async fn grace_then_fewer_features_then_none_until_the_payment_comes() {
    on_both_with(Setup { catalog: catalog(), ..Setup::default() }, async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.grant("cus_1", 20).await.expect(201);
        assert_eq!(account(&app).await["dunning"], Value::Null);
        let due = json!({"status": "open", "amount_paid": 0, "amount_remaining": 2_900,
            "billing_reason": "subscription_cycle", "status_transitions": {"paid_at": null}});
        let bill = invoice("cus_1", "in_2", "sub_1", PRO, day(31));
        let overdue =
            with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"status": "past_due", "created": START}));
        // Heard of two days late: counted from when it happened.
        app.clock.set(day(33));
        app.deliver_all(&[
            event("customer.subscription.updated", day(31), overdue.clone()),
            event("invoice.payment_failed", day(31), with(bill.clone(), due)),
        ])
        .await;
        let stage = |stage: &str, next: Value, at: Value| {
            json!({"stage": stage, "since": rfc3339(day(31)), "next_stage": next, "next_stage_at": at})
        };
        let in_grace = stage("in_grace", json!("restricted"), json!(rfc3339(day(34))));
        assert_eq!(account(&app).await["dunning"], in_grace);
        assert_eq!(verdict(&app, "export").await, json!([true, "in_grace", "in_grace"]));

        app.clock.set(day(34));
        let shown = account(&app).await;
        assert_eq!(shown["dunning"], stage("restricted", json!("suspended"), json!(rfc3339(day(41)))));
        assert_eq!((&shown["plan"], &shown["state"]), (&json!("pro"), &json!("restricted")));
        assert_eq!(verdict(&app, "export").await, json!([false, "payment_overdue", "restricted"]));
        let answer = app.get("/v1/accounts/cus_1/entitlements/generation").await.expect(200);
        assert_eq!((&answer["allowed"], &answer["reason"]), (&json!(true), &json!("restricted")));
        assert_eq!(answer["dunning"], shown["dunning"]);
        app.debit("cus_1", "key-1", json!({"amount": 1})).await.expect(201);
        let hold = json!({"amount": 1, "expires_at": rfc3339(day(44))});
        let held = app.post("/v1/accounts/cus_1/credits/holds", hold.clone()).await.expect(201);

        app.clock.set(day(41));
        assert_eq!(account(&app).await["dunning"], stage("suspended", Value::Null, Value::Null));
        assert_eq!(verdict(&app, "generation").await, json!([false, "suspended_unpaid", "suspended"]));
        let refused = app.debit("cus_1", "key-2", json!({"amount": 1})).await.problem(403, "suspended_unpaid");
        app.post("/v1/accounts/cus_1/credits/holds", hold).await.problem(403, "suspended_unpaid");
        let receipt = refused["receipt"].as_str().expect("on record").to_owned();
        let explained = app.get(&format!("/v1/receipts/{receipt}")).await.expect(200);
        assert_eq!((&explained["agrees"], &explained["reason"]), (&json!(true), &json!("suspended_unpaid")));
        // What was set aside before is spent as agreed.
        let path = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
        app.post(&path, json!({})).await.expect(200);

        app.deliver_all(&[
            event("invoice.paid", day(41), with(bill, json!({"billing_reason": "subscription_cycle"}))),
            event("customer.subscription.updated", day(41), with(overdue, json!({"status": "active"}))),
        ])
        .await;
        assert_eq!(verdict(&app, "export").await, json!([true, "included", "active"]));
        assert_eq!(account(&app).await["dunning"], Value::Null);
        app.debit("cus_1", "key-3", json!({"amount": 1})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn a_debit_of_what_the_default_plan_lacks_says_that_the_payment_is_overdue() {
    let metered =
        SELLER.replace("kind = \"boolean\"\n\n[features.support]", "kind = \"metered\"\n\n[features.support]");
    let app = TestApp::with(Setup { catalog: metered, ..Setup::default() }).await;
    let past_due = with(subscription("cus_1", "sub_1", PRO, START), json!({"status": "past_due"}));
    app.deliver_all(&[event("customer.subscription.updated", START, past_due)]).await;
    app.clock.set(day(4));
    app.debit("cus_1", "key-1", json!({"feature": "export", "quantity": 1})).await.problem(403, "payment_overdue");
}

/// A plan without limit is so, once it is overdue, for the features that it keeps; all else takes the credits there are.
#[tokio::test]
async fn after_the_grace_an_unlimited_plan_is_so_for_the_features_that_it_keeps_alone() {
    let paid = "rank = 20\ncredits = 500\n";
    let catalog = catalog()
        .replace(paid, "rank = 20\ncredits = \"unlimited\"\noverage = \"unlimited\"\n")
        .replace(
            "[features.support]",
            "[features.upscale]\nname = \"Upscale\"\nkind = \"metered\"\ncredit_cost = 1\n\n[features.support]",
        )
        .replace(
            "features = { generation = true, export = true }",
            "features = { generation = true, export = true, upscale = true }",
        );
    on_both_with(Setup { catalog, ..Setup::default() }, async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let credits = async || app.get("/v1/accounts/cus_1/credits").await.expect(200)["unlimited"].clone();
        let much = json!({"amount": 1_000_000});
        assert_eq!(credits().await, true);
        let past_due = with(subscription("cus_1", "sub_1", PRO, START), json!({"status": "past_due"}));
        app.deliver_all(&[event("customer.subscription.updated", START + 60, past_due)]).await;
        app.clock.set(day(2));
        assert_eq!(app.debit("cus_1", "key-1", much.clone()).await.expect(201)["unlimited"], true, "in grace");
        app.clock.set(day(4));
        assert_eq!(credits().await, false);
        assert_eq!(app.get("/v1/accounts/cus_1/usage").await.expect(200)["credits"]["unlimited"], false);
        let refused = app.debit("cus_1", "key-2", much.clone()).await.problem(402, "insufficient_credits");
        app.post("/v1/accounts/cus_1/credits/holds", much).await.problem(402, "insufficient_credits");
        let receipt = refused["receipt"].as_str().expect("on record").to_owned();
        let explained = app.get(&format!("/v1/receipts/{receipt}")).await.expect(200);
        assert_eq!(explained["agrees"], true);
        assert!(explained["because"].to_string().contains("0 credits were available"), "{explained}");
        let kept =
            app.debit("cus_1", "key-3", json!({"feature": "generation", "quantity": 1_000_000})).await.expect(201);
        assert_eq!((&kept["unlimited"], &kept["lots"]), (&json!(true), &json!([])));
        let check =
            async |feature: &str| app.get(&format!("/v1/accounts/cus_1/entitlements/{feature}")).await.expect(200);
        assert_eq!(check("generation").await["unlimited"], true);
        assert_eq!(
            (&check("upscale").await["unlimited"], &check("upscale").await["reason"]),
            (&json!(false), &json!("payment_overdue"))
        );
        // What an override allows is paid for with credits.
        let allow = app.call(Method::PUT, "/v1/accounts/cus_1/overrides/upscale").json(json!({"allowed": true}));
        allow.send().await.expect(200);
        assert_eq!(check("upscale").await["reason"], "insufficient_credits");
        app.grant("cus_1", 20).await.expect(201);
        app.debit("cus_1", "key-4", json!({"feature": "upscale", "quantity": 15})).await.expect(201);
        app.debit("cus_1", "key-5", json!({"amount": 5})).await.expect(201);
        app.debit("cus_1", "key-6", json!({"amount": 1})).await.problem(402, "insufficient_credits");
    })
    .await;
}

#[tokio::test]
async fn further_notifications_do_not_put_the_end_of_the_grace_off() {
    on_both_with(Setup { catalog: catalog(), ..Setup::default() }, async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let told = |at: i64, changes: Value| {
            let state =
                with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"status": "past_due", "created": START}));
            event("customer.subscription.updated", at, with(state, changes))
        };
        // No failed payment was ever heard of.
        app.clock.set(day(33));
        app.deliver(&told(day(33), json!({"latest_invoice": "in_3"}))).await;
        assert_eq!(account(&app).await["dunning"]["since"], rfc3339(day(33)));
        app.deliver(&told(day(31), json!({"latest_invoice": "in_2"}))).await;
        app.clock.set(day(34));
        app.deliver(&told(day(34), json!({"cancel_at_period_end": true}))).await;
        let shown = account(&app).await["dunning"].clone();
        assert_eq!((&shown["since"], &shown["stage"]), (&json!(rfc3339(day(31))), &json!("restricted")));
    })
    .await;
}

#[tokio::test]
async fn an_accounts_own_suspension_is_told_apart() {
    let app = TestApp::with(Setup { catalog: catalog(), ..Setup::default() }).await;
    let past_due = with(subscription("cus_1", "sub_1", PRO, START), json!({"status": "past_due"}));
    app.deliver_all(&[event("customer.subscription.updated", START, past_due)]).await;
    app.clock.set(day(10));
    assert_eq!(verdict(&app, "generation").await, json!([false, "suspended_unpaid", "suspended"]));
    let suspension = "/v1/accounts/cus_1/suspension";
    app.call(Method::PUT, suspension).json(json!({})).send().await.expect(200);
    assert_eq!(verdict(&app, "generation").await, json!([false, "suspended", "suspended"]));
    app.call(Method::DELETE, suspension).send().await.expect(200);
    assert_eq!(verdict(&app, "generation").await, json!([false, "suspended_unpaid", "suspended"]));
}
