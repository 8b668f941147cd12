//! What `reconcile` and `import` do about Checkout sessions, payments, charges, refunds and disputes that no webhook told of.

use chrono::{Duration, Utc};
use serde_json::{Value, json};
use subledger_simulator::{ApiVersion, Card, Clock, Entered, Outcome, SeedPrice};

use crate::reconcile::{counts, finding, reconcile};
use crate::support::shuffle::Random;
use crate::support::simulated::PACK;
use crate::support::stripe::*;
use crate::support::stripe_account::Stripe;
use crate::support::*;

/// How the catalog's pack is paid for.
const PRICE: i64 = 1_000;

fn stripe() -> Stripe {
    let stripe = Stripe::start(Clock::Standing(START));
    stripe.simulator.with_world(|world| {
        world.seed_price(&SeedPrice {
            id: Some(PACK.to_owned()),
            product: "prod_1".to_owned(),
            currency: "usd".to_owned(),
            unit_amount: PRICE,
            ..SeedPrice::default()
        });
    });
    stripe
}

async fn app(stripe: &Stripe) -> TestApp {
    TestApp::with(Setup { stripe_api: Some(stripe.base()), ..Setup::default() }).await
}

/// Buys the pack on Stripe's page, as a customer or as nobody Stripe knows. Answers the session.
fn buy_pack(stripe: &Stripe, account: &str, customer: Option<&str>, card: Card) -> Value {
    let common = [
        ("mode", "payment"),
        ("line_items[0][price]", PACK),
        ("line_items[0][quantity]", "1"),
        ("success_url", "https://app.example.com/"),
        ("client_reference_id", account),
        ("metadata[credit_pack]", "credits_500"),
    ];
    let of_customer = customer.map(|customer| ("customer", customer));
    let fields: Vec<(&str, &str)> = common.into_iter().chain(of_customer).collect();
    let session = stripe.post("checkout/sessions", &fields);
    let id = session["id"].as_str().expect("an id");
    let email = Some("guest@example.com".to_owned());
    let entered = Entered { card, email, name: None, promotion_code: None };
    let outcome = stripe.simulator.with_world(|world| world.pay_session(id, &entered));
    assert_eq!(outcome.expect("payable"), Outcome::Completed);
    stripe.call("GET", &format!("checkout/sessions/{id}"), &[])
}

fn refund(stripe: &Stripe, session: &Value, amount: i64) -> Value {
    let intent = session["payment_intent"].as_str().expect("an intent");
    stripe.post("refunds", &[("payment_intent", intent), ("amount", &amount.to_string())])
}

/// All that Stripe would have told by now, the oldest first.
fn told(stripe: &Stripe) -> Vec<Value> {
    let version = ApiVersion::default();
    stripe.simulator.with_world(|world| world.events_from(0).iter().map(|event| event.render(&version)).collect())
}

/// What an account sees of it all.
async fn shown(app: &TestApp, account: &str) -> Value {
    let mut credits = app.get(&format!("/v1/accounts/{account}/credits")).await.expect(200);
    // When and where it was read.
    ["as_of", "position"].iter().for_each(|field| credits[*field] = Value::Null);
    let mut shown = json!({"credits": credits});
    for list in ["payments", "credit-purchases", "invoices", "subscriptions"] {
        shown[list] = app.get(&format!("/v1/accounts/{account}/{list}")).await.expect(200)["data"].clone();
    }
    shown
}

#[tokio::test]
async fn a_pack_a_refund_and_a_paid_invoice_that_nobody_heard_of_are_named_and_repaired() {
    let stripe = stripe();
    let app = app(&stripe).await;
    // The program goes by the machine's clock.
    stripe.control("clock", json!({"to": Utc::now().timestamp()})).await;
    app.clock.set(Utc::now().timestamp());
    let (customer, _) = stripe.subscribe(Some("user_1"), "one@example.com");
    let by_customer = buy_pack(&stripe, "user_1", Some(&customer), Card::Good);
    let by_guest = buy_pack(&stripe, "user_2", None, Card::Good);
    let refunded = refund(&stripe, &by_guest, 400);
    // Nobody has paid on this page, and no event tells of it: nothing is missing.
    stripe.post(
        "checkout/sessions",
        &[
            ("mode", "payment"),
            ("line_items[0][price]", PACK),
            ("line_items[0][quantity]", "1"),
            ("success_url", "https://app.example.com/"),
        ],
    );

    let (code, output, errors) = stripe.run(Some(&app.database_url), &["reconcile", "--dry-run"]).await;
    assert_eq!(code, Some(1), "{output}{errors}");
    let id = |object: &Value| object["id"].as_str().expect("an id").to_owned();
    for named in [
        format!("checkout session {}: not in the ledger; evt_", id(&by_customer)),
        format!("checkout session {}: not in the ledger; evt_", id(&by_guest)),
        format!("payment intent {}: not in the ledger; evt_", by_guest["payment_intent"].as_str().expect("one")),
        format!("refund {}: not in the ledger; evt_", id(&refunded)),
        "(checkout.session.completed) is late; not repaired".to_owned(),
        "(refund.created) is late; not repaired".to_owned(),
        "1 customer, 1 subscription, 1 invoice, 3 checkout sessions, 3 payment intents, 3 charges, 1 refund, 0 disputes: "
            .to_owned(),
        ": 12 differ, and nothing was done about it".to_owned(),
    ] {
        assert!(output.contains(&named), "{named}\n{output}");
    }
    app.get("/v1/accounts/user_2").await.problem(404, "account_not_found");

    app.clock.advance(Duration::hours(2));
    let report = reconcile(&app, json!({})).await;
    assert_eq!(counts(&report), (12, 12), "{report:#}");
    let found = finding(&report, "refund");
    assert_eq!((&found["cause"], &found["stripe_event_type"]), (&json!("missing"), &json!("refund.created")));
    assert_eq!(app.available("user_1").await, STARTER_CREDITS + PACK_CREDITS);
    assert_eq!(app.available("user_2").await, FREE_CREDITS + PACK_CREDITS * 6 / 10);
    let purchases = app.get("/v1/accounts/user_2/credit-purchases").await.expect(200);
    assert_eq!(purchases["data"][0]["status"], "partially_refunded", "{purchases}");
    assert_eq!(counts(&reconcile(&app, json!({})).await), (0, 0));

    // What was late comes after all.
    let before = (shown(&app, "user_1").await, shown(&app, "user_2").await);
    for event in told(&stripe) {
        app.deliver(&event).await;
    }
    assert_eq!((shown(&app, "user_1").await, shown(&app, "user_2").await), before);
    let (code, output, _) = stripe.run(Some(&app.database_url), &["reconcile"]).await;
    assert_eq!(code, Some(0), "{output}");
}

#[tokio::test]
async fn what_is_older_than_the_events_that_stripe_lists_is_found_too() {
    let stripe = stripe();
    let app = app(&stripe).await;
    let session = buy_pack(&stripe, "user_1", None, Card::Good);
    refund(&stripe, &session, 400);
    let charge = stripe.all("charges")[0]["id"].as_str().expect("an id").to_owned();
    let lost = buy_pack(&stripe, "user_1", None, Card::Good);
    let disputed = stripe.all("charges")[0]["id"].as_str().expect("an id").to_owned();
    assert_ne!(charge, disputed);
    stripe.control(&format!("charges/{disputed}/dispute"), json!({})).await;
    let events = told(&stripe);
    stripe.control("clock", json!({"by": {"days": 31}})).await;
    app.clock.set(day(31));
    assert!(stripe.all("events").is_empty(), "Stripe has forgotten it");

    let report = reconcile(&app, json!({})).await;
    assert_eq!(counts(&report), (8, 8), "{report:#}");
    for kind in ["checkout_session", "payment_intent", "charge", "refund", "dispute"] {
        let found = finding(&report, kind);
        assert_eq!((&found["cause"], &found["finding"]), (&json!("untold"), &json!("not_in_ledger")), "{found}");
    }
    let after = shown(&app, "user_1").await;
    assert_eq!(app.available("user_1").await, FREE_CREDITS + PACK_CREDITS * 6 / 10, "the other one is in dispute");
    let lots = after["credits"]["lots"].as_array().expect("lots");
    let lot = lots.iter().find(|lot| lot["source"] == "pack").expect("the pack's");
    assert_eq!(lot["effective_at"], json!(rfc3339(START)), "as of the purchase, not of the repair");
    for event in &events {
        app.deliver(event).await;
        app.deliver(event).await;
    }
    assert_eq!(shown(&app, "user_1").await, after);

    // The rest of a dispute is missed as well, years later.
    let dispute = stripe.all("disputes")[0]["id"].as_str().expect("an id").to_owned();
    stripe.control(&format!("disputes/{dispute}/close"), json!({"won": true})).await;
    stripe.control("clock", json!({"by": {"days": 31}})).await;
    app.clock.set(day(62));
    let report = reconcile(&app, json!({"account": "user_1"})).await;
    assert_eq!(counts(&report), (1, 1), "{report:#}");
    let found = finding(&report, "dispute");
    assert_eq!(found["differences"][0], json!({"field": "status", "ledger": "needs_response", "stripe": "won"}));
    assert_eq!(app.available("user_1").await, FREE_CREDITS + PACK_CREDITS * 16 / 10);
    assert!(lost["id"].is_string());
}

#[tokio::test]
async fn one_accounts_refunds_are_found_by_its_charges_and_since_a_time_by_events() {
    let stripe = stripe();
    let app = app(&stripe).await;
    let (customer, _) = stripe.subscribe(Some("user_1"), "one@example.com");
    let (other, _) = stripe.subscribe(Some("user_2"), "two@example.com");
    let pack = buy_pack(&stripe, "user_1", Some(&customer), Card::Good);
    let others = buy_pack(&stripe, "user_2", Some(&other), Card::Good);
    reconcile(&app, json!({})).await;
    refund(&stripe, &pack, 400);
    refund(&stripe, &others, 600);
    let report = reconcile(&app, json!({"account": "user_1", "dry_run": true})).await;
    assert_eq!(counts(&report), (1, 0), "{report:#}");
    let by_event = reconcile(&app, json!({"account": "user_1", "since": rfc3339(START)})).await;
    assert_eq!(counts(&by_event), (1, 1), "{by_event:#}");
    assert_eq!(finding(&report, "refund")["stripe_id"], finding(&by_event, "refund")["stripe_id"]);
    assert_eq!(app.available("user_1").await, STARTER_CREDITS + PACK_CREDITS * 6 / 10);
    assert_eq!(app.available("user_2").await, STARTER_CREDITS + PACK_CREDITS, "that is another question");

    // A refund that fails is put right as well.
    let refund = stripe.all("refunds").pop().expect("the first one")["id"].as_str().expect("an id").to_owned();
    stripe.control(&format!("refunds/{refund}/fail"), json!({})).await;
    let report = reconcile(&app, json!({"account": "user_1"})).await;
    assert_eq!(counts(&report), (1, 1), "{report:#}");
    assert_eq!(app.available("user_1").await, STARTER_CREDITS + PACK_CREDITS);
}

#[tokio::test]
async fn a_payment_that_came_or_failed_days_later_is_found() {
    let stripe = stripe();
    let app = app(&stripe).await;
    for (account, succeeds) in [("user_1", true), ("user_2", false)] {
        let session = buy_pack(&stripe, account, None, Card::SettlesLater);
        assert_eq!(session["payment_status"], "unpaid");
        reconcile(&app, json!({})).await;
        let purchases = app.get(&format!("/v1/accounts/{account}/credit-purchases")).await.expect(200);
        assert_eq!(purchases["data"][0]["status"], "pending");
        let id = session["id"].as_str().expect("an id");
        stripe.control(&format!("checkout/sessions/{id}/settle"), json!({"succeeds": succeeds})).await;
        stripe.control("clock", json!({"by": {"days": 31}})).await;
        app.clock.set(app.now() + 31 * 86_400);
        let report = reconcile(&app, json!({})).await;
        assert_eq!(counts(&report).0, counts(&report).1, "{report:#}");
        assert_eq!(finding(&report, "checkout_session")["cause"], "untold");
        let purchases = app.get(&format!("/v1/accounts/{account}/credit-purchases")).await.expect(200);
        let (status, credits) = if succeeds { ("paid", PACK_CREDITS) } else { ("failed", 0) };
        assert_eq!(purchases["data"][0]["status"], status);
        assert_eq!(app.available(account).await, FREE_CREDITS + credits);
        assert_eq!(counts(&reconcile(&app, json!({})).await), (0, 0));
    }
}

/// However many of the webhooks come before, and however the others after: the end is as if all had come in order.
#[tokio::test]
async fn it_does_not_matter_which_webhooks_came_before() {
    let stripe = stripe();
    let (customer, _) = stripe.subscribe(Some("user_1"), "one@example.com");
    let bought = buy_pack(&stripe, "user_1", Some(&customer), Card::Good);
    let by_guest = buy_pack(&stripe, "user_1", None, Card::Good);
    refund(&stripe, &bought, 400);
    refund(&stripe, &by_guest, 1_000);
    let events = told(&stripe);
    let end = {
        let app = app(&stripe).await;
        for event in &events {
            app.deliver(event).await;
        }
        assert_eq!(counts(&reconcile(&app, json!({})).await), (0, 0));
        assert_eq!(app.available("user_1").await, STARTER_CREDITS + PACK_CREDITS * 6 / 10);
        shown(&app, "user_1").await
    };
    for seed in 0..6 {
        let app = app(&stripe).await;
        let mut random = Random(seed);
        let (before, after): (Vec<Value>, Vec<Value>) = events.iter().cloned().partition(|_| random.below(3) == 0);
        for mut part in [before, after] {
            random.shuffle(&mut part);
            for event in &part {
                app.deliver(event).await;
            }
            let report = reconcile(&app, json!({})).await;
            assert_eq!(counts(&report).0, counts(&report).1, "seed {seed}: {report:#}");
            assert_eq!(shown(&app, "user_1").await, end, "seed {seed}");
        }
    }
}

#[tokio::test]
async fn an_import_brings_packs_and_refunds_too() {
    let stripe = stripe();
    let app = app(&stripe).await;
    let session = buy_pack(&stripe, "user_1", None, Card::Good);
    refund(&stripe, &session, 400);
    stripe.control("clock", json!({"by": {"days": 31}})).await;
    app.clock.set(day(31));
    let (code, output, errors) = stripe.run(Some(&app.database_url), &["import", "--requests-per-second", "100"]).await;
    assert_eq!(code, Some(0), "{errors}");
    for line in ["1 checkout session, 1 of them news", "1 payment intent, 1 of", "1 charge, 1 of", "1 refund, 1 of"] {
        assert!(output.contains(line), "{output}");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS + PACK_CREDITS * 6 / 10);
    let (_, output, _) = stripe.run(Some(&app.database_url), &["--json", "import"]).await;
    let again: Value = serde_json::from_str(&output).expect("JSON");
    let kinds = again["kinds"].as_array().expect("kinds");
    assert!(kinds.len() == 8 && kinds.iter().all(|kind| kind["changed"] == 0), "{again}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_keeps_nothing_else_back() {
    let stripe = stripe();
    let app = app(&stripe).await;
    let fields = [
        ("mode", "payment"),
        ("line_items[0][price]", PACK),
        ("line_items[0][quantity]", "1"),
        ("success_url", "https://app.example.com/"),
        ("client_reference_id", "user_1"),
        ("metadata[credit_pack]", "credits_500"),
        ("metadata[credits]", "many"),
    ];
    let odd = stripe.post("checkout/sessions", &fields)["id"].as_str().expect("an id").to_owned();
    let entered = Entered { card: Card::Good, email: None, name: None, promotion_code: None };
    stripe.simulator.with_world(|world| world.pay_session(&odd, &entered)).expect("payable");
    buy_pack(&stripe, "user_2", None, Card::Good);
    for cause in ["late", "misapplied"] {
        let report = reconcile(&app, json!({})).await;
        assert_eq!(counts(&report).0 - counts(&report).1, 1, "{report:#}");
        let findings = report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|other| other["stripe_id"] == odd.as_str()).expect("it is named");
        assert_eq!((&found["finding"], &found["cause"]), (&json!("unreadable"), &json!(cause)), "{found}");
        assert!(found["problem"].as_str().is_some_and(|problem| problem.contains("metadata.credits")), "{found}");
    }
    assert_eq!(app.available("user_2").await, FREE_CREDITS + PACK_CREDITS);
    let (code, output, _) = stripe.run(Some(&app.database_url), &["import"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("metadata.credits") && output.contains("1 could not be brought in"), "{output}");
}

#[tokio::test]
async fn what_cost_nothing_and_has_no_customer_is_found_by_the_account_it_names() {
    let stripe = stripe();
    let app = app(&stripe).await;
    stripe.post("coupons", &[("id", "all"), ("percent_off", "100"), ("duration", "once")]);
    for account in [Some("user_1"), None] {
        let named = account.map(|account| ("client_reference_id", account));
        let fields = [
            ("mode", "payment"),
            ("line_items[0][price]", PACK),
            ("line_items[0][quantity]", "1"),
            ("success_url", "https://app.example.com/"),
            ("metadata[credit_pack]", "credits_500"),
            ("discounts[0][coupon]", "all"),
        ];
        let fields: Vec<(&str, &str)> = fields.into_iter().chain(named).collect();
        let session = stripe.post("checkout/sessions", &fields)["id"].as_str().expect("an id").to_owned();
        let entered = Entered { card: Card::Good, email: None, name: None, promotion_code: None };
        stripe.simulator.with_world(|world| world.pay_session(&session, &entered)).expect("payable");
        assert_eq!(counts(&reconcile(&app, json!({})).await), (1, 1), "{account:?}");
        assert_eq!(counts(&reconcile(&app, json!({})).await), (0, 0), "{account:?}");
    }
    assert_eq!(app.available("user_1").await, FREE_CREDITS + PACK_CREDITS);
}
