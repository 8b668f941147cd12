//! The application beside a simulated Stripe that tells it of everything by webhooks.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use subledger_simulator::{ApiVersion, Card, Clock, Entered, Options, Outcome, SeedPrice, Simulator};

use super::app::STRIPE_KEY;
use super::clock::START;
use super::stripe::{PRO, PRO_YEARLY, STARTER};
use super::{Setup, TestApp};

pub const TEAM: &str = "price_1jWMUKQhTzLmW4rNV2H3t3ol";
pub const PACK: &str = "price_1nBDI0QhTzLmW4rNV9seGQGw";

/// Both, on one clock.
pub struct Simulated {
    pub app: TestApp,
    pub stripe: Simulator,
    http: reqwest::Client,
    /// Events that the application was told of.
    told: AtomicUsize,
}

impl Simulated {
    /// A seller whose prices exist at Stripe.
    pub async fn start() -> Self {
        let stripe =
            Simulator::start(Options { clock: Clock::Standing(START), ..Options::default() }).expect("a simulator");
        stripe.with_world(|world| {
            world.seed_product("prod_1", "Plans", json!({}));
            for (id, amount, interval) in [
                (STARTER, 900, Some("month")),
                (PRO, 2_900, Some("month")),
                (PRO_YEARLY, 29_000, Some("year")),
                (TEAM, 1_200, Some("month")),
                (PACK, 1_000, None),
            ] {
                world.seed_price(&SeedPrice {
                    id: Some(id.to_owned()),
                    product: "prod_1".to_owned(),
                    lookup_key: None,
                    currency: "usd".to_owned(),
                    unit_amount: amount,
                    interval: interval.map(str::to_owned),
                    interval_count: 1,
                });
            }
        });
        let app = TestApp::with(Setup { stripe_api: Some(stripe.base_url()), ..Setup::default() }).await;
        Self { app, stripe, http: reqwest::Client::new(), told: AtomicUsize::new(0) }
    }

    /// One of the simulator's control routes.
    pub async fn control(&self, path: &str, body: Value) {
        let url = format!("{}/_simulator/{path}", self.stripe.base_url());
        let answer = self.http.post(url).body(body.to_string()).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
    }

    /// One of Stripe's own calls.
    pub async fn call(&self, path: &str) {
        let call = self.http.post(format!("{}/v1/{path}", self.stripe.base_url())).bearer_auth(STRIPE_KEY);
        let answer = call.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
    }

    /// Tells the application of everything that has happened, as webhooks signed at the time of its own clock: the
    /// simulator signs at the machine's.
    pub async fn settle(&self) {
        let from = self.told.load(Ordering::SeqCst);
        let version = ApiVersion::default();
        let events = self.stripe.with_world(|world| world.events_from(from).to_vec());
        for event in &events {
            self.app.deliver_body(event.render(&version).to_string()).await.expect(200);
        }
        self.told.store(from + events.len(), Ordering::SeqCst);
    }

    /// Opens a Checkout session as `user_1`; answers its id.
    pub async fn open(&self, what: Value) -> String {
        let mut body = json!({"success_url": "https://app.example.com/done", "cancel_url": "https://app.example.com/"});
        body.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        let opened = self.app.post("/v1/accounts/user_1/checkout-sessions", body).await.expect(201);
        opened["session_id"].as_str().expect("an id").to_owned()
    }

    /// Opens a session, and the customer pays.
    pub async fn buy(&self, what: Value) {
        let session = self.open(what).await;
        let entered =
            Entered { card: Card::Good, email: Some("ada@example.com".to_owned()), name: None, promotion_code: None };
        let outcome = self.stripe.with_world(|world| world.pay_session(&session, &entered)).expect("a session");
        assert_eq!(outcome, Outcome::Completed);
        self.settle().await;
    }

    /// Moves both clocks, and lets all that becomes due on the way happen and be told.
    pub async fn advance_to(&self, target: i64) {
        loop {
            let due = self.stripe.with_world(|world| world.next_due()).filter(|due| *due < target).unwrap_or(target);
            self.app.clock.set(due.max(self.app.now()));
            self.control("clock", json!({"to": due.max(self.app.now())})).await;
            self.settle().await;
            if due == target {
                return;
            }
        }
    }

    /// Lets some seconds pass: what goes there and back within one, Stripe's events do not tell the order of.
    pub async fn pause(&self) {
        self.advance_to(self.app.now() + 5).await;
    }

    pub async fn subscription(&self) -> Value {
        self.app.get("/v1/accounts/user_1/subscription").await.expect(200)
    }
}
