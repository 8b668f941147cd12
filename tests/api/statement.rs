//! The statement's causes: every entry says what it came of, in a form that leads on.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// Type and cause of each entry, those that are due and not on record too.
async fn causes(app: &TestApp, account: &str) -> Vec<(String, String)> {
    let page = app.get(&format!("/v1/accounts/{account}/credits/entries?limit=500")).await.expect(200);
    let rows = |name: &str| page[name].as_array().expect("entries").clone();
    let text = |entry: &Value, name: &str| entry[name].as_str().map(str::to_owned);
    let all = rows("data").into_iter().chain(rows("pending"));
    all.map(|entry| {
        let cause = text(&entry, "cause").unwrap_or_else(|| panic!("no cause: {entry}"));
        (text(&entry, "type").expect("a type"), cause)
    })
    .collect()
}

fn all<const N: usize>(causes: [(&str, String); N]) -> Vec<(String, String)> {
    causes.map(|(kind, cause)| (kind.to_owned(), cause)).to_vec()
}

fn id(answer: &Value) -> &str {
    answer["id"].as_str().expect("an id")
}

#[tokio::test]
async fn debits_and_holds_name_themselves_and_an_expiry_the_date() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let debit = app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201);
        let hold = async |seconds: i64| {
            let body = json!({"amount": 1, "expires_at": rfc3339(START + seconds)});
            app.post("/v1/accounts/user_1/credits/holds", body).await.expect(201)
        };
        let (used, given_back, forgotten) = (hold(600).await, hold(600).await, hold(60).await);
        app.post(&format!("/v1/holds/{}/capture", id(&used)), json!({})).await.expect(200);
        app.post(&format!("/v1/holds/{}/release", id(&given_back)), json!({})).await.expect(200);
        app.clock.set(START + 60);
        let grant = json!({"amount": 5, "expires_at": rfc3339(day(7))});
        let granted = app.post("/v1/accounts/user_1/credits/grants", grant).await.expect(201);
        // Nobody looks until both lots have ended, on different days.
        app.clock.set(day(40));
        let of_hold = |hold: &Value| format!("hold:{}", id(hold));
        let expected = all([
            ("grant", format!("free_plan:user_1/{START}")),
            ("debit", format!("debit:{}", id(&debit))),
            ("hold", of_hold(&used)),
            ("hold", of_hold(&given_back)),
            ("hold", of_hold(&forgotten)),
            ("capture", of_hold(&used)),
            ("release", of_hold(&given_back)),
            ("hold_expiry", of_hold(&forgotten)),
            ("grant", format!("grant:{}", id(&granted))),
            ("grant", format!("free_plan:user_1/{}", day(31))),
            ("expiry", format!("expired_at:{}", rfc3339(day(7)))),
            ("expiry", format!("expired_at:{}", rfc3339(day(31)))),
        ]);
        assert_eq!(causes(&app, "user_1").await, expected, "as it is due");
        let debit = app.debit("user_1", "key-2", json!({"amount": 1})).await.expect(201);
        let recorded = causes(&app, "user_1").await;
        assert_eq!(recorded[..expected.len()], expected, "as it is on record");
        assert_eq!(recorded[expected.len()..], all([("debit", format!("debit:{}", id(&debit)))]));
    })
    .await;
}

#[tokio::test]
async fn what_goes_beyond_a_rollovers_cap_says_so() {
    let catalog = SELLER.replace("trial = { days = 14, credits = 50 }", "rollover = { cap = 100 }");
    let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.clock.set(day(31));
    let renewed = with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"created": START}));
    let bill = with(invoice("cus_1", "in_2", "sub_1", PRO, day(31)), json!({"billing_reason": "subscription_cycle"}));
    app.deliver_all(&[event("customer.subscription.updated", day(31), renewed), event("invoice.paid", day(31), bill)])
        .await;
    assert_eq!(app.available("cus_1").await, PRO_CREDITS + 100);
    let entries = causes(&app, "cus_1").await;
    assert_eq!(
        entries[1..],
        all([("grant", "invoice:in_2/il_in_2".to_owned()), ("expiry", "rollover_cap:sub_1".to_owned())])
    );
}

#[tokio::test]
async fn a_repayment_names_the_lot_that_paid_and_the_lot_is_in_the_statement() {
    let catalog = SELLER.replacen("credits = 10\n", "credits = 10\noverage = { limit = 20 }\n", 1);
    on_both_with(Setup { catalog, ..Setup::default() }, async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let debit = app.debit("user_1", "key-1", json!({"amount": 25})).await.expect(201);
        let grant = async |priority: i64| {
            let body = json!({"amount": 10, "priority": priority, "effective_at": rfc3339(day(1))});
            app.post("/v1/accounts/user_1/credits/grants", body).await.expect(201)
        };
        let (first, second) = (grant(1).await, grant(2).await);
        // Both begin at the same moment, and one alone does not pay all that is owed.
        app.clock.set(day(2));
        let of_lot = |grant: &Value| format!("lot:{}", id(grant));
        let expected = all([
            ("grant", format!("free_plan:user_1/{START}")),
            ("debit", format!("debit:{}", id(&debit))),
            ("grant", format!("grant:{}", id(&first))),
            ("grant", format!("grant:{}", id(&second))),
            ("repayment", of_lot(&first)),
            ("repayment", of_lot(&second)),
        ]);
        assert_eq!(causes(&app, "user_1").await, expected, "as it is due");
        app.grant("user_1", 1).await.expect(201);
        let page = app.get("/v1/accounts/user_1/credits/entries").await.expect(200);
        let entries = page["data"].as_array().expect("entries");
        let ids: std::collections::BTreeSet<&str> = entries.iter().map(id).collect();
        assert_eq!(ids.len(), entries.len(), "an id is there twice");
        for repaid in entries.iter().filter(|entry| entry["type"] == "repayment") {
            let lot = repaid["cause"].as_str().and_then(|cause| cause.strip_prefix("lot:")).expect("a lot");
            assert!(entries.iter().any(|entry| entry["type"] == "grant" && entry["id"] == lot));
            assert_eq!(repaid["lots"][0]["id"], lot);
        }
    })
    .await;
}

/// What a dispute took comes back; and if the lot that it was taken from has expired, as a lot of its own.
#[tokio::test]
async fn what_returns_to_a_lot_that_has_expired_is_a_lot_of_its_own() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.debit("cus_1", "key-1", json!({"amount": 100})).await.expect(201);
    app.clock.set(day(5));
    let open = dispute("pi_1", "du_1", "needs_response", 2_900, day(5));
    app.deliver_all(&[event("charge.dispute.created", day(5), open.clone())]).await;
    assert_eq!(app.available("cus_1").await, 0);
    app.clock.set(day(60));
    app.deliver_all(&[event("charge.dispute.closed", day(60), with(open, json!({"status": "won"})))]).await;
    let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
    let lot = credits["lots"].as_array().and_then(|lots| lots.last()).expect("a lot");
    assert_eq!(lot["source"], "reinstatement", "{credits}");
    // Taken with 26 days left.
    assert_eq!((&lot["granted"], &lot["expires_at"]), (&json!(400), &json!(rfc3339(day(86)))));
    let payment = "payment:pi_1".to_owned();
    let entries = causes(&app, "cus_1").await;
    let expected = all([
        ("clawback", payment.clone()),
        ("reinstatement", payment),
        ("expiry", format!("expired_at:{}", rfc3339(day(31)))),
        ("grant", lot["cause"].as_str().expect("a cause").to_owned()),
    ]);
    assert_eq!(entries[2..], expected);
    assert!(lot["cause"].as_str().is_some_and(|cause| cause.starts_with("reinstatement:du_1/")), "{lot}");
    app.clock.set(day(86));
    assert_eq!(app.available("cus_1").await, 0);
}
