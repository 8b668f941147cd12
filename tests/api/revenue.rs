//! Revenue of the whole ledger.

use reqwest::Method;
use serde_json::{Value, json};
use subledger::app::service::Service;

use crate::support::stripe::*;
use crate::support::*;

async fn report(app: &TestApp, query: &str) -> Value {
    app.get(&format!("/v1/analytics/revenue?max_age_seconds=0{query}")).await.expect(200)
}

#[tokio::test]
async fn a_ledger_without_revenue_has_a_report_all_the_same() {
    let app = TestApp::start().await;
    let told = app.get("/v1/analytics/revenue").await.expect(200);
    assert_eq!((&told["currencies"], &told["from"], &told["to"]), (&json!([]), &json!("2025-02"), &json!("2026-01")));
    assert_eq!(told["credits"]["outstanding"], 0);
}

#[tokio::test]
async fn subscriptions_move_mrr_and_invoices_are_earned_by_day() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.deliver_all(&sign_up("cus_2", PRO_YEARLY, START)).await;
        app.deliver(&event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START))).await;
        app.debit("cus_1", "key-1", json!({"amount": 5})).await.expect(201);
        let told = report(&app, "").await;
        let usd = &told["currencies"][0];
        // 29.00 a month, and 290.00 a year.
        assert_eq!(
            (&usd["mrr"], &usd["arr"], &usd["active_subscriptions"]),
            (&json!(5_317), &json!(63_804), &json!(2))
        );
        let by_plan = json!([{"plan": "pro", "mrr": 5_317, "active_subscriptions": 2, "trialing_subscriptions": 0}]);
        assert_eq!(usd["by_plan"], by_plan);
        let months = usd["months"].as_array().expect("months");
        assert_eq!((months.len(), &months[11]["new"], &months[11]["new_accounts"]), (12, &json!(5_317), &json!(2)));
        // Of 15 January one day in 31 and one in 365: 94 and 79.
        assert_eq!((&months[11]["recognised"], &usd["money"]["recognised"]), (&json!(173), &json!(173)));
        assert_eq!((&usd["money"]["paid"], &usd["money"]["deferred"]), (&json!(31_900), &json!(31_727)));
        let packs = &usd["packs"];
        let all = ["paid", "returned", "outstanding", "recognised"].map(|name| packs[name].as_i64().expect("a number"));
        assert_eq!((all, packs["months"].as_array().map(Vec::len)), ([1_000, 0, 1_000, 0], Some(12)));
        assert_eq!(packs["months"][11], json!({"month": "2026-01", "paid": 1_000, "returned": 0, "recognised": 0}));
        let deferred = usd["deferred"].as_array().expect("months");
        assert_eq!(deferred.len(), 13);
        for row in deferred {
            let month = row["month"].as_str().expect("a month");
            let gauge = format!("subledger_deferred_revenue_by_month{{currency=\"usd\",month=\"{month}\"}}");
            assert_eq!(Some(app.metric(&gauge).await), row["amount"].as_f64(), "{month}");
        }
        let credits = &told["credits"]["months"][11];
        assert_eq!((&credits["sold"], &credits["granted"], &credits["spent"]), (&json!(500), &json!(1_000), &json!(5)));
        assert_eq!(told["credits"]["outstanding"], 1_495);

        // A month later one has moved to the small plan, and the other has gone.
        app.clock.set(day(40));
        let smaller = with(subscription("cus_1", "sub_1", STARTER, day(31)), json!({"created": START}));
        let gone = json!({"status": "canceled", "ended_at": day(35)});
        app.deliver_all(&[
            event("customer.subscription.updated", day(33), smaller),
            event(
                "customer.subscription.deleted",
                day(35),
                with(subscription("cus_2", "sub_2", PRO_YEARLY, START), gone),
            ),
        ])
        .await;
        let told = report(&app, "&from=2026-02&currency=USD").await;
        let february = &told["currencies"][0]["months"][0];
        let moved = ["mrr_start", "new", "expansion", "contraction", "churn", "mrr_end"].map(|name| &february[name]);
        assert_eq!(moved, [&json!(5_317), &json!(0), &json!(0), &json!(2_000), &json!(2_417), &json!(900)]);
        assert_eq!(
            (&february["account_churn_percent"], &february["revenue_churn_percent"]),
            (&json!(50.0), &json!(83.1))
        );
        let pro = report(&app, "&from=2026-02&plan=pro").await;
        let february = &pro["currencies"][0]["months"][0];
        assert_eq!((&february["churn"], &february["churned_accounts"]), (&json!(5_317), &json!(2)));
        assert_eq!((&pro["credits"], &pro["currencies"][0]["money"]), (&Value::Null, &Value::Null));
        assert_eq!(report(&app, "&currency=eur").await["currencies"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn what_is_delivered_late_moves_mrr_when_it_happened() {
    on_both(async |app: TestApp| {
        let state = |price: &str, quantity: i64, at: i64| {
            let mut subscription = with(subscription("cus_1", "sub_1", price, at), json!({"created": START}));
            subscription["items"]["data"][0]["quantity"] = json!(quantity);
            let kind = if at == START { "customer.subscription.created" } else { "customer.subscription.updated" };
            event(kind, at, subscription)
        };
        app.clock.set(day(100));
        // In January small, in February big, in March two of them; told in another order.
        let told = [state(PRO, 2, day(60)), state(STARTER, 1, START), state(PRO, 1, day(30))];
        let mut answers = Vec::new();
        for event in &told {
            answers.push(app.deliver(event).await);
        }
        // The second makes the account older; the third changes nothing but what is told of the past.
        assert_eq!(answers, ["applied", "applied", "superseded"]);
        let report = report(&app, "&from=2026-01").await;
        let months = report["currencies"][0]["months"].as_array().expect("months");
        let moved: Vec<_> =
            months.iter().map(|month| (&month["new"], &month["expansion"], &month["mrr_end"])).collect();
        let number = |n: i64| json!(n);
        let expected = [(900, 0, 900), (0, 2_000, 2_900), (0, 2_900, 5_800), (0, 0, 5_800)];
        for (moved, (new, expansion, end)) in moved.iter().zip(expected) {
            assert_eq!(*moved, (&number(new), &number(expansion), &number(end)), "{months:#?}");
        }
        let shown = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        assert_eq!((&shown["price"], &shown["quantity"]), (&json!(PRO), &json!(2)));
    })
    .await;
}

#[tokio::test]
async fn packs_are_earned_in_the_months_in_which_their_credits_go() {
    let app = TestApp::start().await;
    app.deliver(&event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START))).await;
    let packs = async || report(&app, "&from=2026-01").await["currencies"][0]["packs"].clone();
    let by_month = |packs: &Value| -> Vec<(String, i64, i64)> {
        let number = |month: &Value, name: &str| month[name].as_i64().expect("a number");
        let months = packs["months"].as_array().expect("months").iter();
        let month = |month: &Value| month["month"].as_str().expect("a month").to_owned();
        months.map(|row| (month(row), number(row, "returned"), number(row, "recognised"))).collect()
    };
    let is = |rows: &[(&str, i64, i64)]| -> Vec<(String, i64, i64)> {
        rows.iter().map(|(month, returned, recognised)| ((*month).to_owned(), *returned, *recognised)).collect()
    };
    let catalog_takes_free_credits_first = app.available("cus_1").await - 500;
    let spend = async |key: &str, amount: i64| {
        app.debit("cus_1", key, json!({"amount": amount})).await.expect(201);
    };
    spend("key-1", catalog_takes_free_credits_first + 100).await;
    assert_eq!(by_month(&packs().await), is(&[("2026-01", 0, 200)]));
    // The free plan's credits of February come first again.
    app.clock.set(day(35));
    let free = app.available("cus_1").await - 400;
    spend("key-2", free + 50).await;
    app.clock.set(day(65));
    app.deliver(&event("refund.created", day(65), refund("pi_cs_1", "re_1", 500, day(65)))).await;
    let told = packs().await;
    // Half of the money, and 250 credits with it: 100 are left, worth 2.00.
    assert_eq!(by_month(&told), is(&[("2026-01", 0, 200), ("2026-02", 0, 100), ("2026-03", 500, 0)]));
    assert_eq!((&told["outstanding"], &told["recognised"]), (&json!(200), &json!(300)));
}

#[tokio::test]
async fn a_report_is_kept_until_somebody_asks_for_a_newer_one() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let first = app.get("/v1/analytics/revenue").await.expect(200);
    assert_eq!((&first["as_of"], &first["currencies"][0]["mrr"]), (&json!(rfc3339(START)), &json!(2_900)));
    assert_eq!(app.metric("subledger_mrr{currency=\"usd\",plan=\"pro\"}").await, 2_900.0);
    assert_eq!(app.metric("subledger_active_subscriptions{currency=\"usd\",plan=\"pro\"}").await, 1.0);
    assert_eq!(app.metric("subledger_arr{currency=\"usd\",plan=\"pro\"}").await, 34_800.0);
    assert_eq!(app.metric("subledger_mrr_moved{currency=\"usd\",movement=\"new\"}").await, 2_900.0);
    assert_eq!(app.metric("subledger_credits_moved{movement=\"granted\"}").await, 500.0);
    assert_eq!(app.metric("subledger_revenue_as_of_seconds").await, START as f64);
    app.clock.set(START + 3_600);
    app.deliver_all(&sign_up("cus_2", STARTER, START)).await;
    assert_eq!(app.get("/v1/analytics/revenue").await.expect(200), first);
    let young_enough = app.get("/v1/analytics/revenue?max_age_seconds=3600").await.expect(200);
    assert_eq!(young_enough, first);
    let newer = app.get("/v1/analytics/revenue?max_age_seconds=3599").await.expect(200);
    assert_eq!((&newer["as_of"], &newer["currencies"][0]["mrr"]), (&json!(rfc3339(START + 3_600)), &json!(3_800)));
    assert_eq!(app.metric("subledger_mrr{currency=\"usd\",plan=\"starter\"}").await, 900.0);
    // The task that does so every now and then.
    app.clock.set(START + 7_201);
    let service: &Service = &app.service;
    service.refresh_revenue(chrono::TimeDelta::seconds(3_600)).await.expect("made");
    assert_eq!(app.metric("subledger_revenue_as_of_seconds").await, (START + 7_201) as f64);
}

#[tokio::test]
async fn what_a_customer_did_before_it_was_linked_is_the_accounts_own() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
        report(&app, "").await;
        app.clock.set(day(40));
        let bigger = with(subscription("cus_1", "sub_1", PRO, day(31)), json!({"created": START}));
        app.deliver(&event("customer.subscription.updated", day(33), bigger)).await;
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        let told = report(&app, "&from=2026-01").await;
        let months = told["currencies"][0]["months"].as_array().expect("months");
        assert_eq!((&months[0]["new"], &months[1]["expansion"]), (&json!(900), &json!(2_000)));
        assert_eq!((&months[1]["accounts_end"], &months[1]["mrr_end"]), (&json!(1), &json!(2_900)));
        // It is collected once, whatever is asked how often, and on a rebuilt ledger as on this one.
        assert_eq!(report(&app, "&from=2026-01").await["credits"], told["credits"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said() {
    let app = TestApp::start().await;
    for query in [
        "from=2026",
        "from=2026-13",
        "to=yesterday",
        "from=2026-01&to=2025-12",
        "from=2001-01",
        "to=2026-02",
        "currency=dollars",
        "currency=",
        "max_age_seconds=-1",
        "max_age_seconds=soon",
        "from=2026-01&from=2026-01",
    ] {
        app.get(&format!("/v1/analytics/revenue?{query}")).await.problem(400, "invalid_parameter");
    }
    app.get("/v1/analytics/revenue?plan=flying").await.problem(404, "not_found");
    let made = app.post("/v1/admin/keys", json!({"scope": "bill"})).await.expect(201);
    let key = made["key"].as_str().expect("a key");
    app.call(Method::GET, "/v1/analytics/revenue").key(key).send().await.problem(403, "forbidden");
}

#[tokio::test]
async fn replicas_that_report_at_once_count_everything_once() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.debit("cus_1", "key-1", json!({"amount": 5})).await.expect(201);
    let database_url = Some(app.database_url.clone());
    let other = TestApp::with(Setup { database_url, ..Setup::default() }).await;
    let (one, two) = futures_util::join!(report(&app, ""), report(&other, ""));
    let again = report(&other, "").await;
    for told in [&one, &two, &again] {
        let credits = &told["credits"]["months"][11];
        assert_eq!((&credits["granted"], &credits["spent"]), (&json!(500), &json!(5)));
        assert_eq!(told["currencies"][0]["months"][11]["new"], 2_900);
    }
}
