//! Subscriptions, invoices, payments, credit purchases, payment methods.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// Reads a list page by page.
async fn all_pages(app: &TestApp, list: &str, limit: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("{list}?limit={limit}{cursor}")).await.expect(200);
        let data = page["data"].as_array().expect("rows");
        assert!(data.len() <= limit);
        rows.extend(data.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                assert_eq!(page["has_more"], false);
                return rows;
            }
        }
    }
}

fn ids(rows: &[Value], field: &str) -> Vec<String> {
    rows.iter().map(|row| row[field].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_subscription_is_shown_in_stripes_words() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let shown = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        let expected = json!({
            "stripe_subscription_id": "sub_1", "stripe_customer_id": "cus_1", "status": "active", "plan": "pro",
            "price": PRO, "currency": "usd", "unit_amount": 2_900, "interval": "month", "interval_count": 1,
            "quantity": 1, "current_period_start": rfc3339(START), "current_period_end": rfc3339(day(31)),
            "cancel_at_period_end": false, "cancel_at": null, "canceled_at": null, "ended_at": null,
            "trial_start": null, "trial_end": null, "paused": false, "pause": null, "pending_change": null,
            "schedule": null, "latest_invoice": "in_sub_1_1", "created_at": rfc3339(START),
            "items": [{"id": "si_sub_1", "plan": "pro", "price": PRO, "product": "prod_1", "unit_amount": 2_900,
                "currency": "usd", "interval": "month", "quantity": 1}],
        });
        assert_eq!(shown, expected);
        let list = app.get("/v1/accounts/cus_1/subscriptions").await.expect(200);
        assert_eq!(list, json!({"data": [expected], "has_more": false, "next_cursor": null}));
    })
    .await;
}

#[tokio::test]
async fn an_account_without_a_subscription_has_none() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.get("/v1/accounts/user_1/subscription").await.problem(404, "not_found");
    let list = app.get("/v1/accounts/user_1/subscriptions").await.expect(200);
    assert_eq!(list, json!({"data": [], "has_more": false, "next_cursor": null}));
}

#[tokio::test]
async fn cancellations_trials_pauses_and_changes_to_come_are_shown() {
    let app = TestApp::start().await;
    let changed = json!({
        "cancel_at_period_end": true, "cancel_at": day(31), "canceled_at": day(2), "trial_start": START,
        "trial_end": day(14), "schedule": "sub_sched_1",
        "pause_collection": {"behavior": "void", "resumes_at": day(20)},
    });
    let schedule = json!({
        "id": "sub_sched_1", "object": "subscription_schedule", "customer": "cus_1", "subscription": "sub_1",
        "status": "active", "created": START, "current_phase": {"start_date": START, "end_date": day(31)},
        "phases": [
            {"start_date": START, "end_date": day(31), "items": [{"price": PRO, "quantity": 1}]},
            {"start_date": day(31), "end_date": day(62), "items": [{"price": STARTER, "quantity": 2}]},
        ],
    });
    app.deliver_all(&[
        event("customer.subscription.updated", START, with(subscription("cus_1", "sub_1", PRO, START), changed)),
        event("subscription_schedule.created", START, schedule),
    ])
    .await;
    let shown = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
    assert_eq!((&shown["cancel_at_period_end"], &shown["cancel_at"]), (&json!(true), &json!(rfc3339(day(31)))));
    assert_eq!((&shown["canceled_at"], &shown["trial_end"]), (&json!(rfc3339(day(2))), &json!(rfc3339(day(14)))));
    assert_eq!(shown["paused"], true);
    assert_eq!(shown["pause"], json!({"behavior": "void", "resumes_at": rfc3339(day(20))}));
    let to_come = json!({"waits_for": "schedule", "effective_at": rfc3339(day(31)), "plan": "starter", "price": STARTER,
        "quantity": 2});
    assert_eq!(shown["pending_change"], to_come);
}

#[tokio::test]
async fn an_invoice_and_its_payment_lead_to_each_other() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        let invoices = app.get("/v1/accounts/cus_1/invoices").await.expect(200);
        let bill = &invoices["data"][0];
        let line = json!({"id": "il_in_sub_1_1", "amount": 2_900, "price": PRO, "plan": "pro", "quantity": 1,
            "proration": false, "stripe_subscription_id": "sub_1", "period_start": rfc3339(START),
            "period_end": rfc3339(day(31))});
        assert_eq!(bill["lines"], json!([line]));
        assert_eq!((&bill["status"], &bill["billing_reason"]), (&json!("paid"), &json!("subscription_create")));
        assert_eq!((&bill["total"], &bill["tax"], &bill["amount_remaining"]), (&json!(2_900), &json!(0), &json!(0)));
        assert_eq!(bill["stripe_payment_intent_id"], "pi_1");
        assert_eq!(bill["hosted_invoice_url"], "https://invoice.stripe.com/i/in_sub_1_1");
        assert_eq!(bill["invoice_pdf"], "https://pay.stripe.com/invoice/in_sub_1_1/pdf");
        let payments = app.get("/v1/accounts/cus_1/payments").await.expect(200);
        let payment = &payments["data"][0];
        assert_eq!((&payment["status"], &payment["amount_received"]), (&json!("succeeded"), &json!(2_900)));
        assert_eq!(payment["stripe_invoice_id"], bill["stripe_invoice_id"]);
        assert_eq!((&payment["dispute"], &payment["failure_code"]), (&Value::Null, &Value::Null));
    })
    .await;
}

/// The same sign-up as Stripe told it before 2025-03-31.
fn old_sign_up() -> Vec<Value> {
    let mut plan = subscription("cus_1", "sub_1", PRO, START);
    let item = &mut plan["items"]["data"][0];
    let (start, end) = (item["current_period_start"].take(), item["current_period_end"].take());
    plan = with(plan, json!({"current_period_start": start, "current_period_end": end}));
    let mut bill = invoice("cus_1", "in_sub_1_1", "sub_1", PRO, START);
    bill["parent"] = Value::Null;
    let line = &mut bill["lines"]["data"][0];
    line["parent"] = Value::Null;
    line["pricing"] = Value::Null;
    let of_subscription = json!({"subscription": "sub_1", "proration": false, "price": {"id": PRO},
        "subscription_item": "si_sub_1", "type": "subscription"});
    *line = with(line.take(), of_subscription);
    bill = with(bill, json!({"subscription": "sub_1", "payment_intent": "pi_1", "tax": 0, "paid": true}));
    let events = [
        event("customer.subscription.created", START, plan),
        event("invoice.paid", START, bill),
        event("payment_intent.succeeded", START, payment_intent("cus_1", "pi_1", 2_900, START)),
    ];
    events.map(|event| with(event, json!({"api_version": "2022-11-15"}))).to_vec()
}

#[tokio::test]
async fn an_older_api_version_shows_the_same() {
    let mut shown = Vec::new();
    for events in [sign_up("cus_1", PRO, START), old_sign_up()] {
        let app = TestApp::start().await;
        app.deliver_all(&events).await;
        let mut answers = vec![json!(app.available("cus_1").await)];
        for part in ["subscription", "subscriptions", "invoices", "payments"] {
            answers.push(app.get(&format!("/v1/accounts/cus_1/{part}")).await.expect(200));
        }
        shown.push(answers);
    }
    assert_eq!(shown[0], shown[1]);
}

#[tokio::test]
async fn an_invoice_that_was_paid_in_parts_tells_what_went_back_of_all_of_them() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        let mut events = vec![
            event("customer.subscription.created", START, subscription("cus_1", "sub_1", PRO, START)),
            event("invoice.paid", START, invoice("cus_1", "in_1", "sub_1", PRO, START)),
        ];
        for (payment, amount, back) in [("pi_1", 900, 300), ("pi_2", 2_000, 1_150)] {
            let link = with(invoice_payment("in_1", payment), json!({"id": format!("inpay_{payment}")}));
            events.push(event("invoice_payment.paid", START, link));
            let intent = payment_intent("cus_1", payment, amount, START);
            events.push(event("payment_intent.succeeded", START, intent));
            events.push(event("refund.created", START, refund(payment, &format!("re_{payment}"), back, START)));
        }
        app.deliver_all(&events).await;
        let invoices = app.get("/v1/accounts/user_1/invoices").await.expect(200);
        let shown = &invoices["data"][0];
        assert_eq!((&shown["amount_refunded"], &shown["stripe_payment_intent_id"]), (&json!(1_450), &json!("pi_1")));
        let payments = app.get("/v1/accounts/user_1/payments").await.expect(200);
        for payment in payments["data"].as_array().expect("payments") {
            assert_eq!(payment["stripe_invoice_id"], "in_1", "{payment}");
        }
        assert_eq!(app.available("user_1").await, 250, "half of the price went back");
    })
    .await;
}

#[tokio::test]
async fn lists_come_newest_first_in_pages_that_miss_and_repeat_nothing() {
    on_both(async |app: TestApp| {
        // Several of the same second, so that the time alone is no order.
        for n in 0..7 {
            let at = START + 60 * (n / 3);
            let bill = invoice("cus_1", &format!("in_{n}"), "sub_1", PRO, at);
            app.deliver_all(&[
                event("invoice.paid", at, with(bill, json!({"billing_reason": "manual", "lines": {"data": []}}))),
                event("payment_intent.succeeded", at, payment_intent("cus_1", &format!("pi_{n}"), 100, at)),
            ])
            .await;
        }
        for (list, field, prefix) in
            [("invoices", "stripe_invoice_id", "in"), ("payments", "stripe_payment_intent_id", "pi")]
        {
            let path = format!("/v1/accounts/cus_1/{list}");
            let expected: Vec<String> = (0..7).rev().map(|n| format!("{prefix}_{n}")).collect();
            for limit in [1, 2, 3, 6, 7, 8, 500] {
                assert_eq!(ids(&all_pages(&app, &path, limit).await, field), expected, "{list} by {limit}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_is_not_shifted_by_what_comes_meanwhile() {
    let app = TestApp::start().await;
    let pay = async |n: i64| {
        let intent = payment_intent("cus_1", &format!("pi_{n}"), 100, START + n);
        app.deliver_all(&[event("payment_intent.succeeded", START + n, intent)]).await;
    };
    for n in 0..4 {
        pay(n).await;
    }
    let first = app.get("/v1/accounts/cus_1/payments?limit=2").await.expect(200);
    pay(9).await;
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = app.get(&format!("/v1/accounts/cus_1/payments?limit=2&cursor={cursor}")).await.expect(200);
    let rows = [first["data"].as_array().expect("rows").clone(), second["data"].as_array().expect("rows").clone()];
    assert_eq!(ids(&rows.concat(), "stripe_payment_intent_id"), ["pi_3", "pi_2", "pi_1", "pi_0"]);
}

#[tokio::test]
async fn pages_that_cannot_be_are_refused() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    for list in ["subscriptions", "invoices", "payments", "credit-purchases", "payment-methods", "credits/entries"] {
        for query in ["limit=0", "limit=-1", "limit=501", "limit=x", "limit=", "cursor=zz", "cursor=6162", "cursor="] {
            app.get(&format!("/v1/accounts/user_1/{list}?{query}")).await.problem(400, "invalid_parameter");
        }
    }
}

#[tokio::test]
async fn a_purchase_tells_what_became_of_it() {
    let app = TestApp::start().await;
    let status = async || {
        let list = app.get("/v1/accounts/cus_1/credit-purchases").await.expect(200);
        (list["data"][0]["status"].clone(), list["data"][0]["amount_refunded"].clone())
    };
    app.deliver_all(&[
        event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START)),
        event("payment_intent.succeeded", START, payment_intent("cus_1", "pi_cs_1", 1_000, START)),
    ])
    .await;
    let list = app.get("/v1/accounts/cus_1/credit-purchases").await.expect(200);
    let expected = json!({"stripe_checkout_session_id": "cs_1", "stripe_payment_intent_id": "pi_cs_1",
        "credits": PACK_CREDITS, "currency": "usd", "amount": 1_000, "status": "paid", "amount_refunded": 0,
        "created_at": rfc3339(START)});
    assert_eq!(list["data"], json!([expected]));
    app.deliver_all(&[event("refund.created", START + 1, refund("pi_cs_1", "re_1", 250, START + 1))]).await;
    assert_eq!(status().await, (json!("partially_refunded"), json!(250)));
    app.deliver_all(&[event("refund.created", START + 2, refund("pi_cs_1", "re_2", 750, START + 2))]).await;
    assert_eq!(status().await, (json!("refunded"), json!(1_000)));
    assert_eq!(app.available("cus_1").await, FREE_CREDITS);
}

#[tokio::test]
async fn a_lost_dispute_marks_the_purchase() {
    let app = TestApp::start().await;
    app.deliver_all(&[
        event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START)),
        event("charge.dispute.closed", START + 1, dispute("pi_cs_1", "du_1", "lost", 1_000, START)),
    ])
    .await;
    let list = app.get("/v1/accounts/cus_1/credit-purchases").await.expect(200);
    assert_eq!(list["data"][0]["status"], "dispute_lost");
    assert_eq!(app.available("cus_1").await, FREE_CREDITS);
}

#[tokio::test]
async fn payment_methods_come_and_go() {
    let app = TestApp::start().await;
    let card = json!({
        "id": "pm_1", "object": "payment_method", "customer": "cus_1", "type": "card", "created": START,
        "card": {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2030},
    });
    app.deliver_all(&[event("payment_method.attached", START, card.clone())]).await;
    let list = app.get("/v1/accounts/cus_1/payment-methods").await.expect(200);
    let expected = json!({"stripe_payment_method_id": "pm_1", "type": "card", "brand": "visa", "last4": "4242",
        "exp_month": 8, "exp_year": 2030, "created_at": rfc3339(START)});
    assert_eq!(list["data"], json!([expected]));
    let mut detached = event("payment_method.detached", START + 1, with(card, json!({"customer": null})));
    detached["data"]["previous_attributes"] = json!({"customer": "cus_1"});
    app.deliver_all(&[detached]).await;
    let list = app.get("/v1/accounts/cus_1/payment-methods").await.expect(200);
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn a_failed_payment_says_why() {
    let app = TestApp::start().await;
    let failed = json!({"status": "requires_payment_method", "amount_received": 0,
        "last_payment_error": {"code": "card_declined", "type": "card_error"}});
    let intent = with(payment_intent("cus_1", "pi_1", 2_900, START), failed);
    app.deliver_all(&[event("payment_intent.payment_failed", START, intent)]).await;
    let list = app.get("/v1/accounts/cus_1/payments").await.expect(200);
    assert_eq!(
        (&list["data"][0]["status"], &list["data"][0]["failure_code"]),
        (&json!("failed"), &json!("card_declined"))
    );
    assert_eq!(list["data"][0]["amount_received"], 0);
}
