//! `…/credits`, `/entries` and `/grants`: what an account may spend, and how that came about.

use chrono::Duration;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

async fn entries(app: &TestApp, account: &str) -> Vec<Value> {
    let page = app.get(&format!("/v1/accounts/{account}/credits/entries?limit=500")).await.expect(200);
    page["data"].as_array().expect("entries").clone()
}

/// Type and amount of each line of the statement, which must add up to what the lots hold.
async fn statement(app: &TestApp, account: &str) -> Vec<(String, i64)> {
    let entries = entries(app, account).await;
    let line = |entry: &Value| {
        (entry["type"].as_str().expect("a type").to_owned(), entry["amount"].as_i64().expect("an amount"))
    };
    entries.iter().map(line).collect()
}

fn lines<const N: usize>(lines: [(&str, i64); N]) -> Vec<(String, i64)> {
    lines.map(|(kind, amount)| (kind.to_owned(), amount)).to_vec()
}

#[tokio::test]
async fn a_new_account_has_the_free_plans_month_and_the_next_one_a_month_later() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        assert_eq!(app.available("user_1").await, FREE_CREDITS);
        app.debit("user_1", "key-1", json!({"amount": 4})).await.expect(201);
        assert_eq!(app.available("user_1").await, 6);
        app.clock.set(day(31) - 1);
        assert_eq!(app.available("user_1").await, 6);
        app.clock.set(day(31));
        assert_eq!(app.available("user_1").await, FREE_CREDITS);
        app.debit("user_1", "key-2", json!({"amount": 10})).await.expect(201);
        let expected = lines([("grant", 10), ("debit", -4), ("grant", 10), ("expiry", -6), ("debit", -10)]);
        assert_eq!(statement(&app, "user_1").await, expected);
    })
    .await;
}

#[tokio::test]
async fn lots_burn_by_priority_then_the_soonest_to_expire_then_the_oldest() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grants = "/v1/accounts/user_1/credits/grants";
    let grant = async |body: Value| app.post(grants, body).await.expect(201)["id"].clone();
    let never = grant(json!({"amount": 1})).await;
    let late = grant(json!({"amount": 1, "expires_at": rfc3339(day(90))})).await;
    let soon = grant(json!({"amount": 1, "expires_at": rfc3339(day(60))})).await;
    let first = grant(json!({"amount": 1, "priority": 1})).await;
    app.clock.advance(Duration::seconds(1));
    let younger = grant(json!({"amount": 1})).await;
    let credits = app.get("/v1/accounts/user_1/credits").await.expect(200);
    let order: Vec<&Value> = credits["lots"].as_array().expect("lots").iter().map(|lot| &lot["id"]).collect();
    assert_eq!([order[0], order[2], order[3], order[4], order[5]], [&first, &soon, &late, &never, &younger]);
    assert_eq!(credits["lots"][1]["source"], "free_plan");
    let debit = app.debit("user_1", "key-1", json!({"amount": 13})).await.expect(201);
    let drawn: Vec<&Value> = debit["lots"].as_array().expect("lots").iter().map(|lot| &lot["id"]).collect();
    assert_eq!(drawn, order[..4]);
}

#[tokio::test]
async fn a_grant_may_begin_later_and_end() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let body = json!({"amount": 7, "effective_at": rfc3339(day(1)), "expires_at": rfc3339(day(2)), "source": "promotion",
        "reason": "spring"});
    let lot = app.post("/v1/accounts/user_1/credits/grants", body).await.expect(201);
    assert_eq!((&lot["source"], &lot["expires_at"]), (&json!("promotion"), &json!(rfc3339(day(2)))));
    for (days, available) in [(0, 10), (1, 17), (2, 10)] {
        app.clock.set(day(days));
        assert_eq!(app.available("user_1").await, available, "on day {days}");
    }
    let granted = entries(&app, "user_1").await;
    let of_lot = granted.iter().find(|entry| entry["id"] == lot["id"]).expect("in the statement");
    assert_eq!(of_lot["reason"], "spring");
}

#[tokio::test]
async fn grants_that_make_no_sense_are_refused() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let grant = async |body: Value| app.post("/v1/accounts/user_1/credits/grants", body).await;
    grant(json!({"amount": 1, "expires_at": rfc3339(START)})).await.problem(400, "already_expired");
    let backwards = json!({"amount": 1, "effective_at": rfc3339(day(2)), "expires_at": rfc3339(day(1))});
    grant(backwards).await.problem(400, "already_expired");
    for source in ["plan", "pack", "free_plan"] {
        let problem = grant(json!({"amount": 1, "source": source})).await.problem(400, "invalid_body");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("`manual` or `promotion`"), "{detail}");
    }
    grant(json!({"amount": 1, "reason": "x".repeat(501)})).await.problem(400, "invalid_parameter");
    for body in [
        json!({"amount": 1, "source": "theft"}),
        json!({"amount": 1, "expires_at": "tomorrow"}),
        json!({"amount": 1, "expires_at": "+262142-12-31T23:59:59Z"}),
        json!({"amount": 1, "effective_at": "-0001-01-01T00:00:00Z"}),
        json!([1, "manual", 50, null, null, null]),
        json!({"amount": 1, "priority": 3_000_000_000_i64}),
        json!({"credits": 1}),
    ] {
        grant(body).await.problem(400, "invalid_body");
    }
    let without_key = app.call(Method::POST, "/v1/accounts/user_1/credits/grants").json(json!({"amount": 1}));
    without_key.send().await.problem(400, "idempotency_key_missing");
    assert_eq!(app.available("user_1").await, FREE_CREDITS);
}

#[tokio::test]
async fn a_grant_is_given_once_however_often_it_is_sent() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let call = || app.call(Method::POST, "/v1/accounts/user_1/credits/grants").idempotency_key("key-1");
    let first = call().json(json!({"amount": 7})).send().await;
    let again = call().json(json!({"amount": 7})).send().await;
    assert!(again.is_replay() && !first.is_replay());
    assert_eq!((again.status, &again.text), (201, &first.text));
    call().json(json!({"amount": 8})).send().await.problem(422, "idempotency_key_reused");
    assert_eq!(app.available("user_1").await, FREE_CREDITS + 7);
}

#[tokio::test]
async fn the_statement_comes_in_pages_that_miss_and_repeat_nothing() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    for n in 0..9 {
        app.debit("user_1", &format!("key-{n}"), json!({"amount": 1})).await.expect(201);
    }
    let all = entries(&app, "user_1").await;
    assert_eq!(all.len(), 10);
    let mut paged: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("/v1/accounts/user_1/credits/entries?limit=3{cursor}")).await.expect(200);
        paged.extend(page["data"].as_array().expect("entries").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else {
            assert_eq!(page["has_more"], false);
            break;
        };
        assert_eq!(page["has_more"], true);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn a_cursor_of_the_statement_is_good_for_its_account_and_unchanged() {
    let app = TestApp::start().await;
    for account in ["user_1", "user_2"] {
        app.put_account(account, json!({})).await.expect(201);
        for n in 0..3 {
            app.debit(account, &format!("{account}-{n}"), json!({"amount": 1})).await.expect(201);
        }
    }
    let path = |account: &str, cursor: &str| format!("/v1/accounts/{account}/credits/entries?limit=2&cursor={cursor}");
    let page = app.get("/v1/accounts/user_1/credits/entries?limit=2").await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    app.get(&path("user_1", cursor)).await.expect(200);
    app.get(&path("user_2", cursor)).await.problem(400, "invalid_parameter");
    let told = String::from_utf8(hex::decode(cursor).expect("hex")).expect("text");
    let parts: Vec<&str> = told.split('/').collect();
    let [version, balance, seal] = parts[..] else { panic!("another cursor: {told}") };
    for changed in [
        format!("{version}/1000000/{seal}"),
        format!("{version}/{balance}/0000000000000000"),
        format!("{version}/{balance}"),
        format!("1/{balance}/{seal}"),
        format!("999/{balance}/{seal}"),
        format!("-1/{balance}/{seal}"),
        format!("{}/{balance}/{seal}", i64::MAX),
        "0/0".to_owned(),
    ] {
        let problem = app.get(&path("user_1", &hex::encode(&changed))).await.problem(400, "invalid_parameter");
        assert_eq!(problem["detail"], "cursor: must be a next_cursor that this list gave", "{changed}");
    }
}

#[tokio::test]
async fn the_statement_ends_with_what_is_due_and_not_on_record() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO_YEARLY, START)).await;
        app.debit("cus_1", "key-1", json!({"amount": 200})).await.expect(201);
        let hold = json!({"amount": 50, "expires_at": rfc3339(START + 60)});
        app.post("/v1/accounts/cus_1/credits/holds", hold).await.expect(201);
        let of_page =
            async |limit: i64| app.get(&format!("/v1/accounts/cus_1/credits/entries?limit={limit}")).await.expect(200);
        assert_eq!(of_page(50).await["pending"], json!([]));
        // The hold has ended, the first month is over, and the second has begun.
        app.clock.set(day(31));
        let page = of_page(50).await;
        let mut balance = page["data"].as_array().expect("entries").last().expect("one")["balance"].as_i64();
        assert_eq!(balance, Some(250), "as it is on record");
        let pending = page["pending"].as_array().expect("entries");
        let lines: Vec<(&str, i64)> = pending
            .iter()
            .map(|entry| (entry["type"].as_str().expect("a type"), entry["amount"].as_i64().expect("an amount")))
            .collect();
        assert_eq!(lines, [("hold_expiry", 50), ("expiry", -300), ("grant", PRO_CREDITS)]);
        for entry in pending {
            balance = balance.zip(entry["amount"].as_i64()).map(|(balance, amount)| balance + amount);
            assert_eq!((entry["balance"].as_i64(), &entry["position"]), (balance, &json!(null)));
            assert_eq!(entry["at"], rfc3339(day(31)));
        }
        assert_eq!(balance, Some(app.available("cus_1").await));
        assert_eq!(of_page(1).await["pending"], json!([]), "only after the last entry");
        // Recorded, it is the same.
        app.debit("cus_1", "key-2", json!({"amount": 1})).await.expect(201);
        let page = of_page(50).await;
        assert_eq!(page["pending"], json!([]));
        let entries = page["data"].as_array().expect("entries");
        let recorded = &entries[entries.len() - 1 - pending.len()..entries.len() - 1];
        for (recorded, pending) in recorded.iter().zip(pending) {
            for field in ["type", "amount", "balance", "lots", "cause", "expires_at", "hold"] {
                assert_eq!(recorded[field], pending[field], "{field}");
            }
            assert!(recorded["position"].is_i64());
        }
    })
    .await;
}

#[tokio::test]
async fn a_yearly_plan_refills_monthly() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO_YEARLY, START)).await;
        assert_eq!(app.available("cus_1").await, PRO_CREDITS);
        app.debit("cus_1", "key-1", json!({"amount": 200})).await.expect(201);
        // The anchor is the 15th: 31 days in January, 28 in February.
        for (days, available) in [(30, 300), (31, PRO_CREDITS), (58, PRO_CREDITS), (59, PRO_CREDITS)] {
            app.clock.set(day(days));
            assert_eq!(app.available("cus_1").await, available, "on day {days}");
        }
        app.debit("cus_1", "key-2", json!({"amount": PRO_CREDITS})).await.expect(201);
        app.debit("cus_1", "key-3", json!({"amount": 1})).await.problem(402, "insufficient_credits");
        app.clock.set(day(364));
        app.debit("cus_1", "key-4", json!({"amount": PRO_CREDITS})).await.expect(201);
        app.clock.set(day(366));
        app.debit("cus_1", "key-5", json!({"amount": 1})).await.problem(402, "insufficient_credits");
    })
    .await;
}

#[tokio::test]
async fn a_renewal_replaces_what_was_left() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.debit("cus_1", "key-1", json!({"amount": 200})).await.expect(201);
    app.clock.set(day(31));
    let renewed = subscription("cus_1", "sub_1", PRO, day(31));
    let bill = with(invoice("cus_1", "in_2", "sub_1", PRO, day(31)), json!({"billing_reason": "subscription_cycle"}));
    app.deliver_all(&[
        event("customer.subscription.updated", day(31), with(renewed, json!({"created": START}))),
        event("invoice.paid", day(31), bill),
    ])
    .await;
    assert_eq!(app.available("cus_1").await, PRO_CREDITS);
    let expected = lines([("grant", 500), ("debit", -200), ("expiry", -300), ("grant", 500)]);
    assert_eq!(statement(&app, "cus_1").await, expected);
}

#[tokio::test]
async fn the_session_and_the_invoice_never_both_grant() {
    let app = TestApp::start().await;
    let mut events = sign_up("cus_1", PRO, START);
    let bill = invoice("cus_1", "in_sub_1_1", "sub_1", PRO, START);
    events.push(event("checkout.session.completed", START, checkout("cus_1", "cs_1", "sub_1", START)));
    events.push(event("invoice.payment_succeeded", START, bill));
    for event in &events {
        app.deliver(event).await;
    }
    assert_eq!(app.available("cus_1").await, PRO_CREDITS);
}

#[tokio::test]
async fn after_the_subscriptions_end_the_free_plan_holds_and_packs_stay() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.deliver_all(&[event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START))]).await;
        assert_eq!(app.available("cus_1").await, PRO_CREDITS + PACK_CREDITS);
        app.clock.set(day(5));
        let ended = json!({"status": "canceled", "ended_at": day(5), "canceled_at": day(5)});
        let gone = with(subscription("cus_1", "sub_1", PRO, START), ended);
        app.deliver_all(&[event("customer.subscription.deleted", day(5), gone)]).await;
        let account = app.get("/v1/accounts/cus_1").await.expect(200);
        assert_eq!(account["plan"], "free");
        assert_eq!(app.available("cus_1").await, FREE_CREDITS + PACK_CREDITS);
        let subscription = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        assert_eq!((&subscription["status"], &subscription["ended_at"]), (&json!("canceled"), &json!(rfc3339(day(5)))));
    })
    .await;
}

#[tokio::test]
async fn an_unpaid_checkout_grants_when_the_money_comes_and_not_if_it_never_does() {
    let app = TestApp::start().await;
    for (n, outcome) in ["succeeded", "failed"].into_iter().enumerate() {
        let customer = format!("cus_{n}");
        let session = pack_checkout(&customer, &format!("cs_{n}"), START);
        let unpaid = with(session.clone(), json!({"payment_status": "unpaid"}));
        app.deliver_all(&[event("checkout.session.completed", START, unpaid.clone())]).await;
        assert_eq!(app.available(&customer).await, FREE_CREDITS);
        let later = if outcome == "succeeded" { session } else { unpaid };
        let kind = format!("checkout.session.async_payment_{outcome}");
        app.deliver_all(&[event(&kind, START + 3_600, later)]).await;
    }
    app.clock.set(START + 3_600);
    assert_eq!(app.available("cus_0").await, FREE_CREDITS + PACK_CREDITS);
    assert_eq!(app.available("cus_1").await, FREE_CREDITS);
    let failed = app.get("/v1/accounts/cus_1/credit-purchases").await.expect(200);
    assert_eq!(failed["data"][0]["status"], "failed");
}

#[tokio::test]
async fn refunds_claw_back_their_share_and_a_failed_one_gives_it_back() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let partial = refund("pi_1", "re_1", 1_450, START + 60);
        app.deliver_all(&[event("refund.created", START + 60, partial.clone())]).await;
        assert_eq!(app.available("cus_1").await, PRO_CREDITS / 2);
        let failed = with(partial, json!({"status": "failed"}));
        app.deliver_all(&[event("refund.failed", START + 120, failed)]).await;
        assert_eq!(app.available("cus_1").await, PRO_CREDITS);
        app.debit("cus_1", "key-1", json!({"amount": 100})).await.expect(201);
        app.deliver_all(&[event("refund.created", START + 180, refund("pi_1", "re_2", 2_900, START + 180))]).await;
        // What was spent is written off: the plan's policy.
        let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
        assert_eq!((&credits["available"], &credits["debt"]), (&json!(0), &json!(0)));
        let expected =
            lines([("grant", 500), ("clawback", -250), ("reinstatement", 250), ("debit", -100), ("clawback", -400)]);
        assert_eq!(statement(&app, "cus_1").await, expected);
        let payments = app.get("/v1/accounts/cus_1/payments").await.expect(200);
        assert_eq!(payments["data"][0]["amount_refunded"], 2_900);
        let invoices = app.get("/v1/accounts/cus_1/invoices").await.expect(200);
        assert_eq!(invoices["data"][0]["amount_refunded"], 2_900);
    })
    .await;
}

#[tokio::test]
async fn a_refund_is_understood_even_if_the_payment_itself_was_never_heard_of() {
    let app = TestApp::start().await;
    app.deliver_all(&[
        event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START)),
        event("refund.created", START + 1, refund("pi_cs_1", "re_1", 250, START + 1)),
    ])
    .await;
    assert_eq!(app.available("cus_1").await, FREE_CREDITS + PACK_CREDITS * 3 / 4);
    let late = payment_intent("cus_1", "pi_cs_1", 1_000, START);
    app.deliver_all(&[event("payment_intent.succeeded", START, late)]).await;
    assert_eq!(app.available("cus_1").await, FREE_CREDITS + PACK_CREDITS * 3 / 4);
}

#[tokio::test]
async fn under_a_debt_policy_refunded_credits_that_were_spent_are_owed() {
    let app = TestApp::start().await;
    app.apply_catalog(&SELLER.replace("trial = { days = 14, credits = 50 }", "clawback = \"debt\"")).await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.debit("cus_1", "key-1", json!({"amount": 480})).await.expect(201);
    app.deliver_all(&[event("refund.created", START + 60, refund("pi_1", "re_1", 2_900, START + 60))]).await;
    let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
    assert_eq!((&credits["available"], &credits["debt"]), (&json!(-480), &json!(480)));
    app.debit("cus_1", "key-2", json!({"amount": 1})).await.problem(402, "insufficient_credits");
    app.grant("cus_1", 500).await.expect(201);
    let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
    assert_eq!((&credits["available"], &credits["debt"]), (&json!(20), &json!(0)));
}

#[tokio::test]
async fn a_dispute_takes_the_credits_at_once_and_only_a_win_gives_them_back() {
    on_both(async |app: TestApp| {
        for (customer, outcome, left) in [("cus_won", "won", PRO_CREDITS), ("cus_lost", "lost", 0)] {
            let intent = customer.replace("cus", "pi");
            app.deliver_all(&sign_up(customer, PRO, START)).await;
            let open = dispute(&intent, &format!("du_{customer}"), "needs_response", 2_900, START + 60);
            app.deliver_all(&[event("charge.dispute.created", START + 60, open.clone())]).await;
            assert_eq!(app.available(customer).await, 0);
            let closed = with(open, json!({"status": outcome}));
            app.deliver_all(&[event("charge.dispute.closed", START + 120, closed)]).await;
            assert_eq!(app.available(customer).await, left, "{outcome}");
            let payments = app.get(&format!("/v1/accounts/{customer}/payments")).await.expect(200);
            let lost = if outcome == "lost" { 2_900 } else { 0 };
            assert_eq!(payments["data"][0]["dispute"], outcome);
            assert_eq!(payments["data"][0]["amount_lost_in_dispute"], lost);
        }
    })
    .await;
}

#[tokio::test]
async fn an_inquiry_takes_nothing() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    let inquiry = dispute("pi_1", "du_1", "warning_needs_response", 2_900, START + 60);
    app.deliver_all(&[event("charge.dispute.created", START + 60, inquiry)]).await;
    assert_eq!(app.available("cus_1").await, PRO_CREDITS);
}

#[tokio::test]
async fn a_trial_grants_what_the_plan_says_of_trials() {
    let app = TestApp::start().await;
    let trial = json!({"status": "trialing", "trial_start": START, "trial_end": day(14)});
    let mut bill = invoice("cus_1", "in_1", "sub_1", PRO, START);
    bill["lines"]["data"][0]["amount"] = json!(0);
    bill["lines"]["data"][0]["period"]["end"] = json!(day(14));
    let bill = with(bill, json!({"subtotal": 0, "total": 0, "amount_due": 0, "amount_paid": 0}));
    app.deliver_all(&[
        event("customer.subscription.created", START, with(subscription("cus_1", "sub_1", PRO, START), trial)),
        event("invoice.paid", START, bill),
    ])
    .await;
    assert_eq!(app.available("cus_1").await, 50);
    assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["plan"], "pro");
}
