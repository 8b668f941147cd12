//! The service is killed when Stripe has done what it was asked for, and before it has said so: whoever repeats the key gets
//! that very thing, and there is one of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use subledger_simulator::{ApiVersion, Card, Entered, Options, Outcome, SeedPrice, Simulator, World};

use super::client::Caller;
use super::ground::Ground;
use super::program::{Program, free_address};

const ACCOUNT: &str = "/v1/accounts/user_1";
const STARTER: &str = "price_1LATyAQhTzLmW4rNUy3GVgva";
const TEAM: &str = "price_1jWMUKQhTzLmW4rNV2H3t3ol";
const PACK: &str = "price_1nBDI0QhTzLmW4rNV9seGQGw";

/// A service that can be killed, beside a simulated Stripe that cannot.
struct Seller {
    ground: Ground,
    address: SocketAddr,
    program: Program,
    stripe: Simulator,
}

impl Seller {
    async fn new() -> Self {
        let stripe = Simulator::start(Options::default()).expect("a simulator");
        stripe.with_world(|world| {
            world.seed_product("prod_1", "Plans", json!({}));
            for (id, interval) in [(STARTER, Some("month")), (TEAM, Some("month")), (PACK, None)] {
                world.seed_price(&SeedPrice {
                    id: Some(id.to_owned()),
                    product: "prod_1".to_owned(),
                    currency: "usd".to_owned(),
                    unit_amount: 1_000,
                    interval: interval.map(str::to_owned),
                    interval_count: 1,
                    ..SeedPrice::default()
                });
            }
        });
        let (ground, address) = (Ground::new().await, free_address());
        let program = Self::start(&ground, address, &stripe).await;
        Self { ground, address, program, stripe }
    }

    async fn start(ground: &Ground, address: SocketAddr, stripe: &Simulator) -> Program {
        let base = stripe.base_url();
        let settings = [
            ("STRIPE_API_BASE", base.as_str()),
            ("STRIPE_SECRET_KEY", "sk_test_once"),
            ("SUBLEDGER_CHECKOUT_SUCCESS_URL", "https://app.example.com/done"),
            ("SUBLEDGER_CHECKOUT_CANCEL_URL", "https://app.example.com/"),
            ("SUBLEDGER_PAYMENT_ROUTES_PER_MINUTE", "0"),
        ];
        let mut program = Program::start_with(&ground.url, address, &settings);
        program.ready(address).await;
        program
    }

    fn count(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> usize {
        self.stripe.with_world(|world| world.objects(kind).filter(|object| fits(object)).count())
    }

    /// Kills the service once Stripe has done what a call to `path` asks for, starts another, and repeats the request.
    async fn killed_at(&mut self, path: &str, route: &str, body: Value, is_done: impl Fn(&World) -> bool) -> Value {
        let url = format!("{}/_simulator/faults", self.stripe.base_url());
        let fault = json!({"kind": "time_out", "method": "POST", "path": path, "count": 1, "delay_ms": 12_000});
        let planned = reqwest::Client::new().post(url).body(fault.to_string()).send().await.expect("an answer");
        assert!(planned.status().is_success());
        let key = format!("{path} {route} {body}");
        let ask = |address: SocketAddr| {
            let (route, key, body) = (route.to_owned(), key.clone(), body.clone());
            async move { Caller::new(address).command(&route, &key, &body).await }
        };
        let asked = tokio::spawn(ask(self.address));
        while !self.stripe.with_world(|world| is_done(world)) {
            assert!(!asked.is_finished(), "{:?}", asked.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.program.kill();
        assert!(asked.await.expect("no panic").is_err(), "nobody answered");
        self.program = Self::start(&self.ground, self.address, &self.stripe).await;
        let again = ask(self.address).await.expect("an answer");
        assert!((200..300).contains(&again.status) && !again.replayed, "{again:?}");
        again.json()
    }

    /// The customer pays, and the service is told of all that has happened.
    async fn pay(&self, session: &Value) {
        let session = session["session_id"].as_str().expect("an id");
        let entered = Entered { card: Card::Good, email: None, name: None, promotion_code: None };
        let paid = self.stripe.with_world(|world| world.pay_session(session, &entered));
        assert_eq!(paid.expect("a session"), Outcome::Completed);
        let events = self.stripe.with_world(|world| world.events_from(0).to_vec());
        for event in events {
            let body = event.render(&ApiVersion::default()).to_string();
            let told = Caller::new(self.address).deliver(&body, chrono::Utc::now().timestamp()).await;
            assert_eq!(told.expect("an answer").status, 200);
        }
    }
}

fn number_of(world: &World, kind: &str) -> usize {
    world.objects(kind).count()
}

fn expired(world: &World) -> usize {
    world.objects("checkout.session").filter(|session| session["status"] == "expired").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_killed_while_stripe_was_at_it_sells_changes_and_gives_back_once() {
    let mut seller = Seller::new().await;
    let sessions = format!("{ACCOUNT}/checkout-sessions");
    let starter = || json!({"plan": "starter"});
    seller.killed_at("customers", &sessions, starter(), |world| number_of(world, "customer") == 1).await;
    seller
        .killed_at("checkout/sessions", &sessions, starter(), |world| number_of(world, "checkout.session") == 2)
        .await;
    // Expiring the session before it.
    let last = seller.killed_at("checkout/sessions/", &sessions, starter(), |world| expired(world) == 2).await;
    assert_eq!((seller.count("customer", |_| true), seller.count("checkout.session", |_| true)), (1, 3));
    let open = |session: &Value| session["status"] == "open";
    assert_eq!(
        (
            seller.count("checkout.session", open),
            seller.count("checkout.session", |s| s["id"] == last["session_id"] && open(s))
        ),
        (1, 1)
    );
    seller.pay(&last).await;

    let change = format!("{ACCOUNT}/subscription/change");
    let is_changed = |world: &World| number_of(world, "invoice") == 2;
    let changed = seller.killed_at("subscriptions/", &change, json!({"plan": "team", "quantity": 2}), is_changed).await;
    assert_eq!((&changed["plan"], &changed["quantity"]), (&json!("team"), &json!(2)));
    assert_eq!(seller.count("invoice", |_| true), 2);

    let pack = json!({"credit_pack": "credits_500"});
    let pack =
        seller.killed_at("checkout/sessions", &sessions, pack, |world| number_of(world, "checkout.session") == 4).await;
    seller.pay(&pack).await;
    let payments = Caller::new(seller.address).get(&format!("{ACCOUNT}/payments")).await.json();
    let payment = payments["data"][0]["stripe_payment_intent_id"].as_str().expect("an id").to_owned();
    let refunds = format!("/v1/payments/{payment}/refunds");
    let refund =
        seller.killed_at("refunds", &refunds, json!({"amount": 300}), |world| number_of(world, "refund") == 1).await;
    assert_eq!(refund["amount"], 300);
    assert_eq!(seller.count("refund", |_| true), 1);
    seller.ground.assert_whole("killed while Stripe was at it").await;
}
