//! Sessions of Checkout and of the portal; and what all routes that call Stripe have in common.

use reqwest::Method;
use serde_json::{Value, json};
use subledger::domain::redirect::Redirects;

use crate::support::simulated::TEAM;
use crate::support::stripe::*;
use crate::support::stripe_api::*;
use crate::support::*;

const SESSIONS: &str = "/v1/accounts/user_1/checkout-sessions";
const PRO_EUR: &str = "price_1YR8TMQhTzLmW4rNN7GQ0FcH";

async fn start(stripe: &StripeApi) -> TestApp {
    TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await
}

/// A Stripe that knows nobody, makes `cus_1`, and opens `cs_1`.
async fn fresh() -> StripeApi {
    let stripe = StripeApi::start().await;
    stripe.on("GET /v1/customers/search", json!({"object": "search_result", "data": [], "has_more": false})).await;
    stripe.on("POST /v1/customers", json!({"id": "cus_1", "object": "customer"})).await;
    opens(&stripe, "cs_1").await;
    stripe
        .on(
            "POST /v1/billing_portal/sessions",
            json!({
                "id": "bps_1", "customer": "cus_1", "url": "https://billing.stripe.com/p/session/1",
            }),
        )
        .await;
    stripe
}

/// Opens a session, the customer's only one, who has no subscription.
async fn opens(stripe: &StripeApi, id: &str) {
    let session = json!({
        "id": id, "object": "checkout.session", "mode": "subscription", "customer": "cus_1",
        "url": format!("https://checkout.stripe.com/{id}"), "expires_at": START + 86_400,
    });
    stripe.on("POST /v1/checkout/sessions", session.clone()).await;
    stripe.on("GET /v1/checkout/sessions", json!({"object": "list", "data": [session], "has_more": false})).await;
    stripe.on("GET /v1/subscriptions", json!({"object": "list", "data": [], "has_more": false})).await;
}

fn buy(what: Value) -> Value {
    let urls = json!({
        "success_url": "https://app.example.com/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://app.example.com/plans",
    });
    with(urls, what)
}

async fn open(app: &TestApp, key: &str, body: Value) -> Answer {
    app.call(Method::POST, SESSIONS).idempotency_key(key).json(body).send().await
}

#[tokio::test]
async fn a_session_by_plan_makes_the_customer_and_links_it() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    let opened = open(&app, "key-1", buy(json!({"plan": "pro", "currency": "usd", "quantity": 3}))).await.expect(201);
    assert_eq!(opened["session_id"], "cs_1");
    assert_eq!(opened["url"], "https://checkout.stripe.com/cs_1");
    assert_eq!(opened["expires_at"], rfc3339(START + 86_400));

    let made = &stripe.calls_of("POST /v1/customers").await[0];
    assert_eq!(made.field("metadata[account_id]"), Some("user_1"));
    let asked = &stripe.calls_of("POST /v1/checkout/sessions").await[0];
    for (field, value) in [
        ("mode", "subscription"),
        ("customer", "cus_1"),
        ("client_reference_id", "user_1"),
        ("line_items[0][price]", PRO),
        ("line_items[0][quantity]", "3"),
        ("subscription_data[metadata][account_id]", "user_1"),
        ("subscription_data[trial_period_days]", "14"),
        ("metadata[account_id]", "user_1"),
        ("success_url", "https://app.example.com/done?session={CHECKOUT_SESSION_ID}"),
        ("cancel_url", "https://app.example.com/plans"),
    ] {
        assert_eq!(asked.field(field), Some(value), "{field}");
    }
    let account = app.get("/v1/accounts/user_1").await.expect(200);
    assert_eq!(account["stripe_customer_ids"], json!(["cus_1"]));

    // The next one finds the customer in the ledger.
    open(&app, "key-2", buy(json!({"plan": "starter"}))).await.expect(201);
    assert_eq!(stripe.calls_of("POST /v1/customers").await.len(), 1);
    assert_eq!(stripe.calls_of("GET /v1/customers/search").await.len(), 1);
}

#[tokio::test]
async fn a_plan_is_sold_by_interval_currency_quantity_and_trial() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    for (what, price, quantity, trial, codes) in [
        (json!({"plan": "pro", "interval": "year"}), PRO_YEARLY, "1", Some("14"), None),
        (json!({"plan": "pro", "currency": "eur", "trial_days": 0}), PRO_EUR, "1", None, None),
        (json!({"plan": "team", "quantity": 7, "trial_days": 30}), TEAM, "7", Some("30"), None),
        (json!({"plan": "starter", "allow_promotion_codes": true}), STARTER, "1", None, Some("true")),
    ] {
        open(&app, &what.to_string(), buy(what.clone())).await.expect(201);
        let asked = stripe.calls_of("POST /v1/checkout/sessions").await.pop().expect("asked");
        assert_eq!(asked.field("line_items[0][price]"), Some(price), "{what}");
        assert_eq!(asked.field("line_items[0][quantity]"), Some(quantity), "{what}");
        assert_eq!(asked.field("subscription_data[trial_period_days]"), trial, "{what}");
        assert_eq!(asked.field("allow_promotion_codes"), codes, "{what}");
    }
}

#[tokio::test]
async fn urls_that_a_caller_leaves_out_are_those_of_the_settings() {
    let stripe = fresh().await;
    let url = |path: &str| Some(format!("https://shop.example.com/{path}"));
    let success = url("done?session={CHECKOUT_SESSION_ID}");
    let redirects = Redirects::new(&[], success.clone(), url("plans"), url("billing")).expect("URLs");
    let app = TestApp::with(Setup { stripe_api: Some(stripe.base()), redirects, ..Setup::default() }).await;
    open(&app, "key-1", json!({"plan": "starter"})).await.expect(201);
    let asked = stripe.calls_of("POST /v1/checkout/sessions").await.remove(0);
    assert_eq!(asked.field("success_url"), success.as_deref());
    assert_eq!(asked.field("cancel_url"), url("plans").as_deref());
    app.post("/v1/accounts/user_1/portal-sessions", json!({})).await.expect(201);
    let asked = stripe.calls_of("POST /v1/billing_portal/sessions").await.remove(0);
    assert_eq!(asked.field("return_url"), url("billing").as_deref());
    // Their origin is allowed, and none but theirs.
    open(&app, "key-2", json!({"plan": "starter", "success_url": url("elsewhere")})).await.expect(201);
    open(&app, "key-3", buy(json!({"plan": "starter"}))).await.problem(422, "redirect_not_allowed");
}

#[tokio::test]
async fn a_customer_that_a_crash_left_without_a_link_is_found_by_its_metadata() {
    let stripe = StripeApi::start().await;
    stripe.on("GET /v1/customers/search", json!({"data": [{"id": "cus_7"}]})).await;
    opens(&stripe, "cs_1").await;
    let app = start(&stripe).await;
    open(&app, "key-1", buy(json!({"plan": "starter"}))).await.expect(201);
    let asked = &stripe.calls().await[0];
    assert_eq!(asked.field("query"), Some("metadata[\"account_id\"]:\"user_1\""));
    let account = app.get("/v1/accounts/user_1").await.expect(200);
    assert_eq!(account["stripe_customer_ids"], json!(["cus_7"]));
}

#[tokio::test]
async fn the_first_outcome_of_a_key_is_kept() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    let first = open(&app, "key-1", buy(json!({"plan": "starter"}))).await;
    assert!(!first.is_replay());
    let first = first.expect(201);
    stripe.reset().await;
    let again = open(&app, "key-1", buy(json!({"plan": "starter"}))).await;
    assert!(again.is_replay());
    assert_eq!(again.expect(201), first);
    open(&app, "key-1", buy(json!({"plan": "team"}))).await.problem(422, "idempotency_key_reused");

    let refused = open(&app, "key-2", buy(json!({"plan": "gold"}))).await.problem(404, "unknown_plan");
    let again = open(&app, "key-2", buy(json!({"plan": "gold"}))).await;
    assert!(again.is_replay());
    assert_eq!(again.problem(404, "unknown_plan")["detail"], refused["detail"]);
    assert!(stripe.calls().await.is_empty());
}

#[tokio::test]
async fn a_repeat_after_an_unknown_outcome_sends_the_very_same_again() {
    let stripe = fresh().await;
    stripe.first(4, "POST /v1/checkout/sessions", 500, json!({})).await;
    let app = start(&stripe).await;
    let body = buy(json!({"plan": "starter"}));
    let lost = open(&app, "key-1", body.clone()).await;
    assert!(lost.header("retry-after").is_some());
    lost.problem(503, "stripe_unavailable");
    // Whatever has changed since.
    app.apply_catalog(&SELLER.replace(STARTER, "price_of_another_catalog")).await;
    open(&app, "key-1", body).await.expect(201);
    let asked = stripe.calls_of("POST /v1/checkout/sessions").await;
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|call| *call == asked[0]), "{asked:#?}");
    // Another request under this key is none of Stripe's business.
    open(&app, "key-1", buy(json!({"plan": "team"}))).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn what_a_pack_session_says_of_itself_grants_its_credits_when_it_completes() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    open(&app, "key-1", buy(json!({"credit_pack": "credits_500", "quantity": 2}))).await.expect(201);
    let asked = stripe.calls_of("POST /v1/checkout/sessions").await.remove(0);
    assert_eq!(asked.field("mode"), Some("payment"));
    let metadata: serde_json::Map<String, Value> = asked
        .fields
        .iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((key.to_owned(), json!(value)))
        })
        .collect();
    let completed = with(pack_checkout("cus_1", "cs_1", START), json!({"metadata": metadata, "amount_total": 2_000}));
    assert_eq!(app.deliver(&event("checkout.session.completed", START, completed)).await, "applied");
    assert_eq!(app.available("user_1").await, 2 * PACK_CREDITS + FREE_CREDITS);
}

#[tokio::test]
async fn a_second_subscription_is_not_sold() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", STARTER, START)).await;
    let problem = open(&app, "key-1", buy(json!({"plan": "team"}))).await.problem(409, "subscription_exists");
    assert_eq!(
        problem["see"],
        json!(["/v1/accounts/user_1/subscription/change", "/v1/accounts/user_1/portal-sessions"])
    );
    // A pack is, and an ended subscription is none; but there was a trial to be had once.
    open(&app, "key-2", buy(json!({"credit_pack": "credits_500"}))).await.expect(201);
    let ended =
        with(subscription("cus_1", "sub_1", STARTER, START), json!({"status": "canceled", "ended_at": START + 5}));
    app.deliver(&event("customer.subscription.deleted", START + 5, ended)).await;
    stripe.reset().await;
    opens(&stripe, "cs_2").await;
    open(&app, "key-3", buy(json!({"plan": "pro", "currency": "usd"}))).await.expect(201);
    assert_eq!(stripe.calls().await[0].field("subscription_data[trial_period_days]"), None);
}

#[tokio::test]
async fn a_raw_price_is_sold_as_what_stripe_says_it_is() {
    let stripe = fresh().await;
    stripe
        .on(
            "GET /v1/prices/price_monthly",
            json!({"id": "price_monthly", "recurring": {"interval": "month", "interval_count": 1}}),
        )
        .await;
    stripe.on("GET /v1/prices/price_once", json!({"id": "price_once", "recurring": null})).await;
    let app = start(&stripe).await;
    for (price, mode) in [("price_monthly", "subscription"), ("price_once", "payment"), (STARTER, "subscription")] {
        open(&app, price, buy(json!({"price": price}))).await.expect(201);
        let asked = stripe.calls_of("POST /v1/checkout/sessions").await.pop().expect("asked");
        assert_eq!((asked.field("mode"), asked.field("line_items[0][price]")), (Some(mode), Some(price)));
    }
}

#[tokio::test]
async fn a_price_without_an_id_is_found_by_its_lookup_key() {
    let stripe = fresh().await;
    stripe
        .on(
            "GET /v1/prices",
            json!({"data": [{"id": "price_9", "recurring": {"interval": "month", "interval_count": 1}}]}),
        )
        .await;
    let app = start(&stripe).await;
    let named = SELLER.replace(&format!("stripe_price_id = \"{STARTER}\""), "lookup_key = \"starter_monthly\"");
    app.apply_catalog(&named).await;
    open(&app, "key-1", buy(json!({"plan": "starter"}))).await.expect(201);
    assert_eq!(stripe.calls_of("GET /v1/prices").await[0].field("lookup_keys[0]"), Some("starter_monthly"));
    let asked = stripe.calls_of("POST /v1/checkout/sessions").await.remove(0);
    assert_eq!(asked.field("line_items[0][price]"), Some("price_9"));

    stripe.reset().await;
    stripe.on("GET /v1/prices", json!({"data": []})).await;
    open(&app, "key-2", buy(json!({"plan": "starter"}))).await.problem(422, "price_not_in_stripe");
}

#[tokio::test]
async fn what_cannot_be_sold_says_why() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    let unlinked = SELLER.replace("stripe_price_id = \"price_1jWMUKQhTzLmW4rNV2H3t3ol\"\n", "");
    app.apply_catalog(&unlinked).await;
    let cases = [
        (json!({"plan": "gold"}), 404, "unknown_plan"),
        (json!({"credit_pack": "credits_1"}), 404, "unknown_credit_pack"),
        (json!({"plan": "free"}), 422, "plan_not_for_sale"),
        (json!({"plan": "starter", "interval": "year"}), 422, "interval_not_offered"),
        (json!({"plan": "starter", "currency": "eur"}), 422, "currency_not_offered"),
        (json!({"plan": "pro"}), 422, "currency_ambiguous"),
        (json!({"plan": "team"}), 422, "price_not_in_stripe"),
        (json!({"price": "prod_123"}), 422, "price_is_product"),
        (json!({"plan": "starter", "success_url": "https://evil.example/done"}), 422, "redirect_not_allowed"),
        (json!({"plan": "starter", "cancel_url": "https://app.example.com@evil.example"}), 422, "redirect_not_allowed"),
        (json!({"plan": "starter", "cancel_url": "/plans"}), 422, "redirect_not_allowed"),
    ];
    for (what, status, code) in cases {
        let key = what.to_string();
        open(&app, &key, buy(what)).await.problem(status, code);
    }
    let without_urls = json!({"plan": "starter"});
    open(&app, "no-urls", without_urls).await.problem(422, "redirect_not_allowed");
    for (what, status, code) in [
        (json!({}), 400, "invalid_body"),
        (json!({"plan": "pro", "price": PRO}), 400, "invalid_body"),
        (json!({"plan": "pro", "interval": "century"}), 400, "invalid_body"),
        (json!({"plan": "pro", "currency": "xxx"}), 400, "invalid_parameter"),
        (json!({"plan": "pro", "quantity": 0}), 400, "invalid_parameter"),
        (json!({"plan": "pro", "trial_days": 731}), 400, "invalid_parameter"),
        (json!({"price": "price_1/../../customers"}), 400, "invalid_parameter"),
    ] {
        open(&app, "malformed", buy(what)).await.problem(status, code);
    }
    app.call(Method::POST, SESSIONS)
        .json(buy(json!({"plan": "starter"})))
        .send()
        .await
        .problem(400, "idempotency_key_missing");
    assert!(stripe.calls().await.is_empty(), "nothing of this is asked of Stripe");
}

#[tokio::test]
async fn what_stripe_refuses_comes_with_stripes_words() {
    let other_mode = "No such price: 'price_live'; a similar object exists in live mode, but a test mode key was used to \
                      make this request.";
    let cases = [
        (400, "invalid_request_error", "resource_missing", "No such price: 'price_gone'", 404, "unknown_price"),
        (400, "invalid_request_error", "resource_missing", other_mode, 422, "price_of_other_mode"),
        (400, "invalid_request_error", "parameter_invalid_integer", "Invalid integer: -1", 422, "stripe_refused"),
        (402, "card_error", "card_declined", "Your card was declined.", 402, "payment_declined"),
        (
            400,
            "idempotency_error",
            "",
            "Keys for idempotent requests can only be used with the same parameters",
            422,
            "idempotency_key_reused",
        ),
        (401, "invalid_request_error", "", "Invalid API Key provided: sk_test_*****", 503, "stripe_key_refused"),
    ];
    for (status, kind, code, message, ours, our_code) in cases {
        let stripe = fresh().await;
        stripe.first(1, "POST /v1/checkout/sessions", status, refusal(kind, code, message)).await;
        let app = start(&stripe).await;
        let body = buy(json!({"plan": "starter"}));
        let problem = open(&app, "key-1", body.clone()).await.problem(ours, our_code);
        if matches!(our_code, "stripe_refused" | "payment_declined") {
            assert_eq!(problem["stripe"]["message"], message);
            assert_eq!(problem["stripe"]["stripe_request_id"], "req_1");
        }
        // What a caller or an operator can mend is not kept; the rest is.
        let is_kept = !matches!(our_code, "stripe_key_refused" | "idempotency_key_reused");
        assert_eq!(open(&app, "key-1", body).await.is_replay(), is_kept, "{our_code}");
    }
}

#[tokio::test]
async fn without_stripe_or_an_answer_of_it_the_key_stays_open() {
    let app = TestApp::start().await;
    let body = buy(json!({"plan": "starter"}));
    open(&app, "key-1", body.clone()).await.problem(503, "stripe_not_configured");

    let stripe = fresh().await;
    stripe.first(1, "POST /v1/checkout/sessions", 200, json!({"object": "checkout.session"})).await;
    let app = start(&stripe).await;
    open(&app, "key-1", body.clone()).await.problem(502, "stripe_unreadable");
    open(&app, "key-1", body).await.expect(201);

    stripe.fail(503).await;
    let down = open(&app, "key-2", buy(json!({"plan": "starter"}))).await;
    assert!(down.header("retry-after").is_some());
    down.problem(503, "stripe_unavailable");
}

#[tokio::test]
async fn the_portal_needs_a_customer() {
    let stripe = fresh().await;
    let app = start(&stripe).await;
    let portal = "/v1/accounts/user_1/portal-sessions";
    let back = json!({"return_url": "https://app.example.com/billing"});
    let problem = app.post(portal, back.clone()).await.problem(409, "no_stripe_customer");
    assert_eq!(problem["see"], json!(["/v1/accounts/user_1/checkout-sessions"]));
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    let opened = app.post(portal, back).await.expect(201);
    assert_eq!(opened["url"], "https://billing.stripe.com/p/session/1");
    let asked = &stripe.calls_of("POST /v1/billing_portal/sessions").await[0];
    assert_eq!(asked.field("return_url"), Some("https://app.example.com/billing"));
    app.post(portal, json!({"return_url": "https://evil.example"})).await.problem(422, "redirect_not_allowed");
    app.post(portal, json!({})).await.problem(422, "redirect_not_allowed");
}

#[tokio::test]
async fn an_account_calls_payment_routes_so_often_within_a_minute() {
    let stripe = fresh().await;
    let setup = Setup { stripe_api: Some(stripe.base()), payment_routes_per_minute: 2, ..Setup::default() };
    let app = TestApp::with(setup.clone()).await;
    // Another replica on the same ledger counts with it.
    let other = TestApp::with(Setup { database_url: Some(app.database_url.clone()), ..setup }).await;
    app.clock.advance(chrono::Duration::seconds(20));
    let body = buy(json!({"plan": "starter"}));
    let first = open(&app, "key-1", body.clone()).await;
    let said = |answer: &Answer| {
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| answer.header(name).map(str::to_owned))
    };
    let header = |text: &str| Some(text.to_owned());
    assert_eq!(said(&first), [header("2"), header("1"), header("40")]);
    first.expect(201);
    open(&other, "key-2", body.clone()).await.expect(201);
    let refused = open(&app, "key-3", body.clone()).await;
    assert_eq!(said(&refused), [header("2"), header("0"), header("40")]);
    assert_eq!(refused.header("retry-after"), Some("40"));
    refused.problem(429, "too_many_payment_calls");
    // A repeat is no call, and nothing is kept of a refusal that passes.
    assert!(open(&app, "key-1", body.clone()).await.is_replay());
    app.clock.advance(chrono::Duration::seconds(40));
    open(&app, "key-3", body).await.expect(201);
}

#[tokio::test]
async fn calls_to_stripe_are_counted() {
    let stripe = fresh().await;
    stripe.first(1, "POST /v1/checkout/sessions", 500, json!({})).await;
    let app = start(&stripe).await;
    open(&app, "key-1", buy(json!({"plan": "starter"}))).await.expect(201);
    let calls = "subledger_stripe_calls_total{operation=\"checkout_session.create\",outcome=\"ok\"}";
    assert_eq!(app.metric(calls).await, 1.0);
    assert_eq!(app.metric("subledger_stripe_retries_total{operation=\"checkout_session.create\"}").await, 1.0);
    assert_eq!(app.metric("subledger_stripe_breaker_state").await, 0.0);
}
