//! `POST /webhooks/stripe`: what is taken in, what is refused, and what waits.

use reqwest::Method;
use serde_json::{Value, json};
use subledger::stripe::signature;

use crate::support::stripe::*;
use crate::support::*;

fn a_customer(at: i64) -> Value {
    event("customer.created", at, json!({"id": "cus_1", "object": "customer", "created": at, "email": null}))
}

async fn rows_in_inbox(app: &TestApp) -> i64 {
    app.database().await.query_one("select count(*) from inbox", &[]).await.expect("a count").get(0)
}

async fn inbox_reason(app: &TestApp, id: &str) -> (String, Option<String>) {
    let query = "select status, reason from inbox where stripe_event_id = $1";
    let row = app.database().await.query_one(query, &[&id]).await.expect("it is kept");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn an_event_is_applied_once_and_then_a_duplicate_for_ever() {
    on_both(async |app: TestApp| {
        let events = sign_up("cus_1", PRO, START);
        app.deliver_all(&events).await;
        for _ in 0..3 {
            for event in &events {
                assert_eq!(app.deliver(event).await, "duplicate");
            }
            app.clock.advance(chrono::Duration::days(3));
        }
        assert_eq!(app.available("cus_1").await, PRO_CREDITS);
    })
    .await;
}

#[tokio::test]
async fn events_delivered_backwards_and_twice_end_the_same() {
    let mut ends = Vec::new();
    for backwards in [false, true] {
        let app = TestApp::start().await;
        let mut events = sign_up("cus_1", PRO, START);
        events.push(event("checkout.session.completed", START, pack_checkout("cus_1", "cs_1", START)));
        events.push(event("refund.created", START + 60, refund("pi_cs_1", "re_1", 500, START + 60)));
        if backwards {
            events.reverse();
        }
        app.clock.set(START + 120);
        for event in events.iter().chain(&events) {
            app.deliver(event).await;
        }
        let mut end = Vec::new();
        for part in ["subscription", "invoices", "payments", "credit-purchases"] {
            end.push(app.get(&format!("/v1/accounts/cus_1/{part}")).await.expect(200));
        }
        let credits = app.get("/v1/accounts/cus_1/credits").await.expect(200);
        end.push(json!([credits["available"], credits["debt"], credits["lots"]]));
        ends.push(end);
    }
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn whatever_is_not_signed_by_stripe_is_refused_and_nothing_of_it_is_stored() {
    let app = TestApp::start().await;
    let body = a_customer(START).to_string().into_bytes();
    let sign = |secret: &str, at: i64| signature::sign(&body, secret, at);
    let good = sign(WEBHOOK_SECRET, app.now());
    let cases = [
        (None, "signature_missing"),
        (Some(String::new()), "signature_malformed"),
        (Some("nonsense".to_owned()), "signature_malformed"),
        (Some(sign("whsec_other", app.now())), "signature_mismatch"),
        (Some(sign(WEBHOOK_SECRET, app.now() - 301)), "signature_too_old"),
        (Some(sign(WEBHOOK_SECRET, app.now() + 301)), "signature_too_new"),
    ];
    for (header, code) in cases {
        app.deliver_signed(body.clone(), header.as_deref()).await.problem(400, code);
    }
    let mut changed = body.clone();
    changed.push(b' ');
    app.deliver_signed(changed, Some(&good)).await.problem(400, "signature_mismatch");
    assert_eq!(rows_in_inbox(&app).await, 0);
    app.get("/v1/accounts/cus_1").await.problem(404, "account_not_found");
    let refused = "subledger_stripe_events_total{status=\"refused\",type=\"unverified\"}";
    assert_eq!(app.metric(refused).await, 7.0);
    assert_eq!(app.deliver_signed(body, Some(&good)).await.expect(200)["status"], "applied");
}

#[tokio::test]
async fn while_secrets_are_rotated_both_are_accepted() {
    let secrets = vec!["whsec_new".to_owned(), "whsec_old".to_owned()];
    let app = TestApp::with(Setup { webhook_secrets: secrets, ..Setup::default() }).await;
    for (n, secret) in ["whsec_new", "whsec_old"].into_iter().enumerate() {
        let body = a_customer(START + n as i64).to_string().into_bytes();
        let header = signature::sign(&body, secret, app.now());
        app.deliver_signed(body, Some(&header)).await.expect(200);
    }
}

#[tokio::test]
async fn without_a_secret_nothing_is_taken_and_stripe_is_told_to_come_again() {
    let app = TestApp::with(Setup { webhook_secrets: Vec::new(), ..Setup::default() }).await;
    let answer = app.deliver_body("{}").await;
    assert!(answer.header("retry-after").is_some());
    answer.problem(503, "stripe_not_configured");
}

#[tokio::test]
async fn a_body_of_one_mebibyte_is_read_and_one_byte_more_is_not() {
    const MEBIBYTE: usize = 1024 * 1024;
    let app = TestApp::start().await;
    assert_eq!(app.deliver_body(vec![b'x'; MEBIBYTE]).await.expect(200)["status"], "parked");
    app.deliver_body(vec![b'x'; MEBIBYTE + 1]).await.problem(413, "body_too_large");
    assert_eq!(rows_in_inbox(&app).await, 1);
    let api = app.call(Method::POST, "/v1/debits/batch").bytes(vec![b' '; MEBIBYTE + 1]).send().await;
    api.problem(413, "body_too_large");
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_with_its_body_and_the_reason() {
    let app = TestApp::start().await;
    let object = json!({"id": "cus_1", "object": "customer"});
    let envelope = |changes: Value| with(event("customer.created", START, object.clone()), changes).to_string();
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"not json".to_vec(), "not JSON"),
        (b"".to_vec(), "not JSON"),
        (b"\xff\xfe".to_vec(), "not JSON"),
        (b"[]".to_vec(), "event: must be an object"),
        (b"{}".to_vec(), "event.id: is missing"),
        (b"{\"id\": \"evt_x\", \"type\": 5}".to_vec(), "event.type: must be a string"),
        (envelope(json!({"id": 7})).into_bytes(), "event.id: must be a string"),
        (envelope(json!({"id": "a\u{0}b"})).into_bytes(), "event.id: contains a control character"),
        (envelope(json!({"id": "x".repeat(10_000)})).into_bytes(), "event.id: is longer than"),
        (envelope(json!({"created": null})).into_bytes(), "event.created: is missing"),
        (envelope(json!({"livemode": "no"})).into_bytes(), "event.livemode: must be true or false"),
        ("[".repeat(100_000).into_bytes(), "not JSON"),
    ];
    for (n, (body, reason)) in bodies.iter().enumerate() {
        let answer = app.deliver_body(body.clone()).await;
        assert_eq!(answer.expect(200)["status"], "parked", "{reason}");
        let parked = app.get("/v1/admin/parked").await.expect(200);
        let rows = parked["data"].as_array().expect("rows");
        assert_eq!(rows.len(), n + 1, "{reason}");
        let found = rows.iter().any(|row| row["reason"].as_str().is_some_and(|text| text.contains(reason)));
        assert!(found, "{reason} is not in {parked}");
    }
    let query = "select body from inbox where reason like '%not JSON%'";
    let stored: Vec<Vec<u8>> =
        app.database().await.query(query, &[]).await.expect("bodies").iter().map(|row| row.get(0)).collect();
    assert!(stored.contains(&b"not json".to_vec()), "the raw body is kept");
    assert_eq!(app.metric("subledger_parked_events").await, bodies.len() as f64);
    // The same body again is the same parked event.
    app.deliver_body("not json").await.expect(200);
    assert_eq!(rows_in_inbox(&app).await, bodies.len() as i64);
}

#[tokio::test]
async fn an_event_whose_object_cannot_be_applied_is_parked_with_the_fields_name() {
    let app = TestApp::start().await;
    let bill = || invoice("cus_1", "in_1", "sub_1", PRO, START);
    let too_large: Value = serde_json::from_str("9223372036854775808").expect("a number");
    let cases = [
        (json!({"currency": "zzz"}), "data.object.currency: is not an ISO 4217 currency"),
        (json!({"currency": null}), "data.object.currency: is missing"),
        (json!({"total": too_large}), "data.object.total: must be a whole number of at most 15 digits"),
        (json!({"total": 1.5}), "data.object.total: must be a whole number of at most 15 digits"),
        (json!({"total": "2900"}), "data.object.total: must be a whole number of at most 15 digits"),
        (json!({"status": "pa\u{0}id"}), "data.object.status: contains a control character"),
        (json!({"id": null}), "data.object.id: is missing"),
        (json!({"lines": "none"}), "data.object.lines: must be a list"),
        (json!({"lines": {"data": [5]}}), "data.object.lines.data[0]: must be an object"),
    ];
    for (changes, reason) in cases {
        let event = event("invoice.paid", START, with(bill(), changes));
        assert_eq!(app.deliver(&event).await, "parked", "{reason}");
        let id = event["id"].as_str().expect("an id");
        let (status, said) = inbox_reason(&app, id).await;
        assert_eq!((status.as_str(), said.as_deref()), ("parked", Some(reason)));
    }
    for broken in [json!({}), json!({"object": null}), json!({"object": "cus_1"}), Value::Null] {
        let mut event = a_customer(START);
        event["data"] = broken;
        assert_eq!(app.deliver(&event).await, "parked");
    }
    app.get("/v1/accounts/cus_1").await.problem(404, "account_not_found");
}

#[tokio::test]
async fn ids_too_long_for_an_index_are_parked_and_spoil_nothing_around_them() {
    let app = TestApp::start().await;
    // Incompressible, so that no index can hold it.
    let long: String = (0..400).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let unhappy = event("invoice.paid", START, invoice("cus_1", &format!("in_{long}"), "sub_1", PRO, START));
    assert_eq!(app.deliver(&unhappy).await, "parked");
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    assert_eq!(app.available("cus_1").await, PRO_CREDITS);
}

#[tokio::test]
async fn a_parked_event_is_applied_once_its_cause_is_cured() {
    let app = TestApp::start().await;
    let good = a_customer(START);
    let id = good["id"].as_str().expect("an id");
    let bad = with(good.clone(), json!({"data": {"object": {"currency": "zzz"}}}));
    assert_eq!(app.deliver(&bad).await, "parked");
    let retry = format!("/v1/admin/parked/{id}/retry");
    assert_eq!(app.call(Method::POST, &retry).send().await.expect(200)["status"], "parked");
    // The cure here: the stored body. In life it is a newer version of the service.
    let database = app.database().await;
    let cure = "update inbox set body = $1 where stripe_event_id = $2";
    database.execute(cure, &[&good.to_string().into_bytes(), &id]).await.expect("cured");
    assert_eq!(app.call(Method::POST, &retry).send().await.expect(200)["status"], "applied");
    app.get("/v1/accounts/cus_1").await.expect(200);
    let parked = app.get("/v1/admin/parked").await.expect(200);
    assert_eq!(parked["data"], json!([]));
    assert_eq!(app.metric("subledger_parked_events").await, 0.0);
    assert_eq!(inbox_reason(&app, id).await.0, "applied");
    app.call(Method::POST, &retry).send().await.problem(404, "not_found");
    assert_eq!(app.deliver(&good).await, "duplicate");
}

#[tokio::test]
async fn all_parked_events_are_tried_again_oldest_first() {
    let app = TestApp::start().await;
    let mut good = Vec::new();
    for n in 0..3 {
        app.clock.advance(chrono::Duration::seconds(1));
        let event = a_customer(START + n);
        app.deliver(&with(event.clone(), json!({"data": {"object": {"currency": "zzz"}}}))).await;
        good.push(event);
    }
    app.deliver_body("not json").await.expect(200);
    let database = app.database().await;
    for event in &good {
        let id = event["id"].as_str().expect("an id");
        let cure = "update inbox set body = $1 where stripe_event_id = $2";
        database.execute(cure, &[&event.to_string().into_bytes(), &id]).await.expect("cured");
    }
    let outcomes = app.call(Method::POST, "/v1/admin/parked/retry").send().await.expect(200);
    let rows = outcomes["data"].as_array().expect("rows");
    let ids: Vec<&Value> = rows[..3].iter().map(|row| &row["stripe_event_id"]).collect();
    assert_eq!(ids, good.iter().map(|event| &event["id"]).collect::<Vec<_>>());
    assert_eq!(rows[0]["status"], "applied");
    assert_eq!((rows.len(), &rows[3]["status"]), (4, &json!("parked")));
    assert_eq!(app.metric("subledger_parked_events").await, 1.0);
}

#[tokio::test]
async fn an_unknown_type_is_kept_and_counted() {
    let app = TestApp::start().await;
    for kind in ["treasury.outbound_payment.posted", "v1.billing.meter.no_meter_found", "Strange Type"] {
        let event = event(kind, START, json!({"id": "obj_1", "object": "thing"}));
        assert_eq!(app.deliver(&event).await, "ignored");
        assert_eq!(app.deliver(&event).await, "duplicate");
        let (status, reason) = inbox_reason(&app, event["id"].as_str().expect("an id")).await;
        assert_eq!((status.as_str(), reason.as_deref()), ("ignored", Some("no use is made of this type")));
    }
    let ignored = "subledger_stripe_events_total{status=\"ignored\",type=\"other\"}";
    assert_eq!(app.metric(ignored).await, 3.0);
}

#[tokio::test]
async fn an_event_of_the_other_mode_is_recorded_and_not_applied() {
    for livemode in [false, true] {
        let app = TestApp::with(Setup { livemode, ..Setup::default() }).await;
        let other = with(a_customer(START), json!({"livemode": !livemode}));
        assert_eq!(app.deliver(&other).await, "ignored");
        let (status, reason) = inbox_reason(&app, other["id"].as_str().expect("an id")).await;
        assert_eq!(status, "ignored");
        assert!(reason.expect("a reason").contains("STRIPE_LIVEMODE"));
        app.get("/v1/accounts/cus_1").await.problem(404, "account_not_found");
        let ours = with(a_customer(START), json!({"livemode": livemode}));
        assert_eq!(app.deliver(&ours).await, "applied");
    }
}

#[tokio::test]
async fn old_news_is_superseded() {
    let app = TestApp::start().await;
    let now = subscription("cus_1", "sub_1", PRO, START);
    let before = with(now.clone(), json!({"status": "incomplete"}));
    app.deliver_all(&[a_customer(START), event("customer.subscription.updated", START + 60, now)]).await;
    assert_eq!(app.deliver(&event("customer.subscription.created", START + 30, before)).await, "superseded");
    let subscription = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
    assert_eq!(subscription["status"], "active");
}

#[tokio::test]
async fn events_are_counted_by_type_and_outcome() {
    let app = TestApp::start().await;
    let event = a_customer(START);
    app.deliver(&event).await;
    app.deliver(&event).await;
    for status in ["applied", "duplicate"] {
        let series = format!("subledger_stripe_events_total{{status=\"{status}\",type=\"customer.created\"}}");
        assert_eq!(app.metric(&series).await, 1.0, "{status}");
    }
}

#[tokio::test]
async fn a_price_that_no_plan_names_is_shown_counted_and_mapped_as_soon_as_a_catalog_names_it() {
    on_both(async |app: TestApp| {
        const NEW: &str = "price_nobody_knows";
        app.deliver_all(&sign_up("cus_1", NEW, START)).await;
        let subscription = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        assert_eq!(subscription["plan"], Value::Null);
        assert_eq!((&subscription["price"], &subscription["status"]), (&json!(NEW), &json!("active")));
        assert_eq!((&subscription["unit_amount"], &subscription["quantity"]), (&json!(1_500), &json!(1)));
        assert_eq!(subscription["current_period_start"], rfc3339(START));
        let account = app.get("/v1/accounts/cus_1").await.expect(200);
        assert_eq!(account["plan"], Value::Null);
        assert_eq!(app.available("cus_1").await, 0);
        assert_eq!(app.metric("subledger_unmapped_prices_total").await, 1.0);
        let warned = logs::text().lines().any(|line| line.contains("WARN") && line.contains(NEW));
        assert!(warned, "the log warns of the price");

        let named = SELLER.replace(STARTER, NEW);
        app.apply_catalog(&named).await;
        let subscription = app.get("/v1/accounts/cus_1/subscription").await.expect(200);
        assert_eq!(subscription["plan"], "starter");
        assert_eq!(app.available("cus_1").await, STARTER_CREDITS);
        app.debit("cus_1", "key-1", json!({"feature": "generation", "quantity": 1})).await.expect(201);
        app.deliver_all(&sign_up("cus_2", NEW, START)).await;
        assert_eq!(app.metric("subledger_unmapped_prices_total").await, 1.0, "it is known now");
    })
    .await;
}
