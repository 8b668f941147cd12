//! `…/usage`: what of a plan's credits is used within the period.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

async fn shown(app: &TestApp, account: &str) -> Value {
    app.get(&format!("/v1/accounts/{account}/usage")).await.expect(200)["credits"].clone()
}

#[tokio::test]
async fn the_plans_credits_are_told_whatever_else_has_been_used_up_since() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.debit("user_1", "key-1", json!({"amount": 10})).await.expect(201);
    app.clock.set(START + 60);
    for _ in 0..101 {
        app.grant("user_1", 1).await.expect(201);
    }
    app.debit("user_1", "key-2", json!({"amount": 101})).await.expect(201);
    let credits = shown(&app, "user_1").await;
    assert_eq!(
        (&credits["granted"], &credits["used"], &credits["percentage"]),
        (&json!(10), &json!(10), &json!(100.0))
    );
    // The month after, they are those of another lot.
    app.clock.set(day(31));
    let credits = shown(&app, "user_1").await;
    assert_eq!((&credits["granted"], &credits["used"], &credits["remaining"]), (&json!(10), &json!(0), &json!(10)));
}

/// What the statistics say of the plan's credits: granted, rolled over, used, remaining; and the percentage.
async fn plan_credits(app: &TestApp) -> ([i64; 4], Value) {
    let credits = shown(app, "cus_1").await;
    let numbers =
        ["granted", "rolled_over", "used", "remaining"].map(|field| credits[field].as_i64().expect("a number"));
    assert_eq!(numbers[0] + numbers[1], numbers[2] + numbers[3], "{credits}");
    (numbers, credits["percentage"].clone())
}

async fn spend(app: &TestApp, amount: i64) {
    app.post("/v1/accounts/cus_1/credits/debits", json!({"amount": amount})).await.expect(201);
}

/// Stripe tells of a month's renewal, which is paid.
async fn renew(app: &TestApp, n: i64, at: i64) {
    let renewed = with(subscription("cus_1", "sub_1", PRO, at), json!({"created": START}));
    let bill = invoice("cus_1", &format!("in_{n}"), "sub_1", PRO, at);
    let bill = with(bill, json!({"billing_reason": "subscription_cycle"}));
    app.clock.set(at);
    app.deliver_all(&[event("customer.subscription.updated", at, renewed), event("invoice.paid", at, bill)]).await;
}

fn rolling_over(rollover: &str) -> Setup {
    let catalog = SELLER.replace("trial = { days = 14, credits = 50 }", &format!("rollover = {rollover}"));
    Setup { catalog, ..Setup::default() }
}

#[tokio::test]
async fn credits_used_are_those_of_the_period_where_what_is_left_rolls_over() {
    for (rollover, kept) in [("{ cap = 500 }", 100), ("{ cap = 60 }", 60), ("\"all\"", 100)] {
        on_both_with(rolling_over(rollover), async |app: TestApp| {
            app.deliver_all(&sign_up("cus_1", PRO, START)).await;
            spend(&app, 400).await;
            assert_eq!(plan_credits(&app).await, ([500, 0, 400, 100], json!(80.0)));
            renew(&app, 2, day(31)).await;
            assert_eq!(plan_credits(&app).await, ([500, kept, 0, 500 + kept], json!(0.0)), "{rollover}");
            // What rolled over is spent first, and counts.
            spend(&app, 30).await;
            assert_eq!(plan_credits(&app).await.0, [500, kept, 30, 470 + kept]);
            spend(&app, kept).await;
            assert_eq!(plan_credits(&app).await.0, [500, kept, 30 + kept, 470]);
            let held = app.post("/v1/accounts/cus_1/credits/holds", json!({"amount": 20})).await.expect(201);
            assert_eq!(plan_credits(&app).await.0, [500, kept, 30 + kept, 470], "held is not used");
            let capture = format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id"));
            app.post(&capture, json!({"amount": 10})).await.expect(200);
            assert_eq!(plan_credits(&app).await.0, [500, kept, 40 + kept, 460]);
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_hold_took_of_earlier_credits_is_used_when_it_is_captured() {
    let app = TestApp::with(rolling_over("\"all\"")).await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.clock.set(day(30));
    let hold = json!({"amount": 500, "expires_at": rfc3339(day(40))});
    let held = app.post("/v1/accounts/cus_1/credits/holds", hold).await.expect(201);
    renew(&app, 2, day(31)).await;
    assert_eq!(plan_credits(&app).await.0, [500, 500, 0, 1_000]);
    app.post(&format!("/v1/holds/{}/capture", held["id"].as_str().expect("an id")), json!({})).await.expect(200);
    assert_eq!(plan_credits(&app).await, ([500, 500, 500, 500], json!(50.0)), "the lot is used up, and told of");
    renew(&app, 3, day(59)).await;
    assert_eq!(plan_credits(&app).await, ([500, 500, 0, 1_000], json!(0.0)));
}

#[tokio::test]
async fn of_a_yearly_price_the_month_counts_that_its_credits_are_for() {
    let app = TestApp::with(rolling_over("{ cap = 500 }")).await;
    app.deliver_all(&sign_up("cus_1", PRO_YEARLY, START)).await;
    spend(&app, 400).await;
    app.clock.set(day(31));
    assert_eq!(plan_credits(&app).await.0, [500, 100, 0, 600]);
    spend(&app, 150).await;
    assert_eq!(plan_credits(&app).await.0, [500, 100, 150, 450]);
    let statistics = app.get("/v1/accounts/cus_1/usage").await.expect(200);
    assert_eq!(statistics["credits"]["period"], json!({"start": rfc3339(day(31)), "end": rfc3339(day(59))}));
    assert_eq!(statistics["period"]["start"], rfc3339(START), "the year");
    app.clock.set(day(59));
    assert_eq!(plan_credits(&app).await, ([500, 450, 0, 950], json!(0.0)));
}

#[tokio::test]
async fn without_a_subscription_the_accounts_own_month_counts() {
    let app = TestApp::start().await;
    app.put_account("cus_1", json!({})).await.expect(201);
    app.grant("cus_1", 50).await.expect(201);
    spend(&app, 13).await;
    assert_eq!(plan_credits(&app).await, ([10, 0, 10, 0], json!(100.0)), "the plan's alone, and not what was given");
    app.clock.set(day(31));
    assert_eq!(plan_credits(&app).await, ([10, 0, 0, 10], json!(0.0)));
    let month = json!({"start": rfc3339(day(31)), "end": rfc3339(day(59))});
    assert_eq!(shown(&app, "cus_1").await["period"], month);
}
