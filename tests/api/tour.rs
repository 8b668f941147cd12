//! One customer's way through every operation there is.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use subledger_simulator::Request;

use crate::support::app::Seen;
use crate::support::contract::operations;
use crate::support::simulated::Simulated;
use crate::support::stripe::*;
use crate::support::*;

#[tokio::test]
async fn every_operation_answers_as_the_contract_says() {
    let mut seen = {
        let app = TestApp::start().await;
        live_a_little(&app).await;
        ask_everything(&app).await;
        administer(&app).await;
        be_told(&app).await;
        app.seen()
    };
    seen.extend(sell().await);

    let documented: BTreeSet<(String, String)> =
        operations().into_iter().map(|(method, path, _)| (method, path)).collect();
    let good = seen.iter().filter(|seen| (200..300).contains(&seen.answer.status));
    let answered: BTreeSet<(String, String)> =
        good.filter_map(|seen| Some((seen.method.clone(), seen.route.clone()?))).collect();
    assert_eq!(answered, documented, "each operation is to be answered once at least");
    write_examples(seen);
}

/// An account with a customer, a subscription, a pack, a refund and some debits.
async fn live_a_little(app: &TestApp) {
    let link = json!({"stripe_customer_id": "cus_tour", "email": "ada@example.com", "metadata": {"team": "research"}});
    app.put_account("user_1", link).await.expect(201);
    app.put_account("user_1", json!({})).await.expect(200);
    app.deliver_all(&sign_up("cus_tour", PRO, START)).await;
    let card = json!({
        "id": "pm_tour", "object": "payment_method", "customer": "cus_tour", "type": "card", "created": START,
        "card": {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2030},
    });
    app.deliver(&event("payment_method.attached", START, card)).await;
    app.deliver(&event("checkout.session.completed", START, pack_checkout("cus_tour", "cs_tour", START))).await;
    app.deliver(&event("refund.created", START, refund("pi_cs_tour", "re_tour", 250, START))).await;
    let grants = "/v1/accounts/user_1/credits/grants";
    app.post(grants, json!({"amount": 25, "source": "promotion", "reason": "spring"})).await.expect(201);
    app.debit("user_1", "render-8811", json!({"feature": "generation", "quantity": 3})).await.expect(201);
    app.debit("user_1", "render-8812", json!({"amount": 5})).await.expect(201);
    let holds = "/v1/accounts/user_1/credits/holds";
    for (act, body) in
        [("extend", json!({"expires_at": rfc3339(day(1))})), ("capture", json!({"amount": 3})), ("release", json!({}))]
    {
        let held = app.post(holds, json!({"feature": "generation", "quantity": 5})).await.expect(201);
        let hold = held["id"].as_str().expect("an id");
        app.get(&format!("/v1/holds/{hold}")).await.expect(200);
        app.post(&format!("/v1/holds/{hold}/{act}"), body).await.expect(200);
    }
    let override_path = "/v1/accounts/user_1/overrides/generation";
    let terms = json!({"limit": 1_000, "per": "day", "expires_at": rfc3339(day(30)), "reason": "launch week"});
    app.call(Method::PUT, override_path).json(terms).send().await.expect(200);
    app.get("/v1/accounts/user_1/overrides").await.expect(200);
    app.post("/v1/accounts/user_1/usage", json!({"feature": "generation", "quantity": 100})).await.expect(201);
    app.get("/v1/accounts/user_1/usage").await.expect(200);
    app.call(Method::DELETE, override_path).send().await.expect(200);
    let suspension = "/v1/accounts/user_1/suspension";
    app.call(Method::PUT, suspension).json(json!({"reason": "terms of use"})).send().await.expect(200);
    app.call(Method::DELETE, suspension).send().await.expect(200);
    let debits = json!({"debits": [
        {"account": "user_1", "idempotency_key": "render-8813", "feature": "generation", "quantity": 2},
        {"account": "user_9", "idempotency_key": "render-8814", "amount": 5},
    ]});
    app.call(Method::POST, "/v1/debits/batch").json(debits).send().await.expect(200);
}

async fn ask_everything(app: &TestApp) {
    let account = "/v1/accounts/user_1";
    for part in [
        "",
        "/subscription",
        "/subscriptions",
        "/invoices?limit=10",
        "/payments",
        "/credit-purchases",
        "/payment-methods",
        "/entitlements",
        "/entitlements/generation?quantity=2",
        "/credits",
        "/credits/entries?limit=3",
        "/credits/holds",
    ] {
        app.get(&format!("{account}{part}")).await.expect(200);
    }
    let checks = json!({"checks": [
        {"account": "user_1", "feature": "export"},
        {"account": "user_1", "feature": "generation", "quantity": 1000},
        {"account": "user_9", "feature": "generation"},
    ]});
    app.call(Method::POST, "/v1/entitlements/check").json(checks).send().await.expect(200);
    let receipt = app.debit("user_1", "render-8815", json!({"amount": 1})).await.expect(201)["receipt"].clone();
    app.get(&format!("/v1/receipts/{}", receipt.as_str().expect("a receipt"))).await.expect(200);
    for path in [
        "/v1/plans",
        "/v1/plans/pro",
        "/v1/credit-packs",
        "/v1/events?account=user_1&limit=2",
        "/v1/analytics/revenue?from=2026-01",
    ] {
        app.get(path).await.expect(200);
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.yaml", "/openapi.json", "/docs"] {
        app.call(Method::GET, path).without_key().send().await.expect(200);
    }
}

async fn administer(app: &TestApp) {
    let unreadable = with(
        event("invoice.paid", START, invoice("cus_tour", "in_bad", "sub_tour", PRO, START)),
        json!({"id": "evt_tour", "data": {"object": {"currency": "zzz"}}}),
    );
    assert_eq!(app.deliver(&unreadable).await, "parked");
    app.get("/v1/admin/parked").await.expect(200);
    app.call(Method::POST, "/v1/admin/parked/evt_tour/retry").send().await.expect(200);
    app.call(Method::POST, "/v1/admin/parked/retry").send().await.expect(200);
    for job in ["/v1/admin/verify", "/v1/admin/rebuild"] {
        app.call(Method::POST, job).send().await.expect(202);
        app.get(job).await.expect(200);
    }
    let support = json!({"name": "Support", "rank": 500, "features": {"export": {}}});
    app.call(Method::PUT, "/v1/plans/support").json(support).send().await.expect(200);
    app.call(Method::DELETE, "/v1/admin/accounts/user_1/personal-data").send().await.expect(200);
    let made = app.post("/v1/admin/keys", json!({"scope": "spend", "name": "render farm"})).await.expect(201);
    app.get("/v1/admin/keys").await.expect(200);
    let key_id = made["key_id"].as_str().expect("an id");
    app.call(Method::DELETE, &format!("/v1/admin/keys/{key_id}")).send().await.expect(204);
}

async fn be_told(app: &TestApp) {
    let receiver = Receiver::start().await;
    let (id, _) = receiver::endpoint(app, &receiver.url(), &["credits_debited", "notification.*"]).await;
    let at = format!("/v1/webhook-endpoints/{id}");
    app.debit("user_1", "render-8816", json!({"amount": 1})).await.expect(201);
    let message = receiver.wait_for(1).await[0].id().to_owned();
    for path in ["/v1/webhook-endpoints", &at, &format!("{at}/deliveries")] {
        app.get(path).await.expect(200);
    }
    let delivery = format!("{at}/deliveries/{message}");
    let is_delivered = |row: &Value| row["status"] == "delivered";
    eventually(async || app.get(&delivery).await.expect(200), is_delivered).await;
    app.call(Method::POST, &format!("{delivery}/retry")).send().await.expect(202);
    app.post(&format!("{at}/replay"), json!({"since": rfc3339(START)})).await.expect(202);
    app.call(Method::POST, &format!("{at}/rotate-secret")).send().await.expect(200);
    app.call(Method::PATCH, &at).json(json!({"description": "billing"})).send().await.expect(200);
    app.call(Method::DELETE, &at).send().await.expect(204);
}

/// What needs a Stripe to be called. Answers what was received.
async fn sell() -> Vec<Seen> {
    let world = Simulated::start().await;
    let make = |path: &str, parameters: &str| {
        let (path, parameters) = (path.to_owned(), parameters.as_bytes().to_vec());
        let request = Request { method: "POST".to_owned(), path, parameters, ..Request::default() };
        let answer = world.stripe.with_world(|world| world.handle(&request));
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    make("coupons", "id=spring&percent_off=20&duration=once");
    make("promotion_codes", "promotion[type]=coupon&promotion[coupon]=spring&code=SPRING20");
    world.buy(json!({"plan": "starter"})).await;
    let account = "/v1/accounts/user_1";
    world.app.get(&format!("{account}/upcoming-invoice")).await.expect(200);
    let back = json!({"return_url": "https://app.example.com/billing"});
    world.app.post(&format!("{account}/portal-sessions"), back).await.expect(201);
    for (act, body) in [
        ("change-preview", json!({"plan": "pro"})),
        ("change", json!({"plan": "pro", "when": "period_end"})),
        ("cancel-change", json!({})),
        ("promotion-code", json!({"promotion_code": "SPRING20"})),
        ("pause-collection", json!({"behavior": "void"})),
        ("resume-collection", json!({})),
        ("cancel", json!({})),
        ("resume", json!({})),
    ] {
        world.pause().await;
        world.app.post(&format!("{account}/subscription/{act}"), body).await.expect(200);
        world.settle().await;
    }
    let payments = world.app.get(&format!("{account}/payments")).await.expect(200);
    let payment = payments["data"][0]["stripe_payment_intent_id"].as_str().expect("an id");
    world.app.post(&format!("/v1/payments/{payment}/refunds"), json!({"amount": 100})).await.expect(201);
    world.settle().await;
    let reconcile = "/v1/admin/reconcile";
    world.app.call(Method::POST, reconcile).json(json!({"dry_run": true})).send().await.expect(202);
    let is_over = |job: &Value| job["status"] != "running";
    let job = eventually(async || world.app.get(reconcile).await.expect(200), is_over).await;
    assert_eq!(job["result"]["differing"], 0, "what was told is what is there: {job:#}");
    world.app.seen()
}

/// For whoever writes the contract's examples: the last good answer of each operation, as a JSON file.
fn write_examples(seen: Vec<Seen>) {
    let Some(path) = std::env::var_os("SUBLEDGER_WRITE_EXAMPLES") else { return };
    let mut examples: BTreeMap<String, Value> = BTreeMap::new();
    for seen in seen {
        let Some(route) = seen.route.filter(|_| (200..300).contains(&seen.answer.status)) else { continue };
        let example = json!({"request": seen.request_body, "status": seen.answer.status, "response": seen.answer.body});
        examples.insert(format!("{} {route} {}", seen.method, seen.answer.status), example);
    }
    let text = serde_json::to_string_pretty(&examples).expect("JSON");
    std::fs::write(path, text).expect("the file can be written");
}
