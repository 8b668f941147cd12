//! Random scripts of callers and Stripe, over HTTP: every answer, and what is left in the end, is as the model's reference
//! says (`tests/model`, which plays many more of them without HTTP and a database).

#[path = "../model/prices.rs"]
mod prices;
#[path = "../model/reference/mod.rs"]
mod reference;
#[path = "../model/script/mod.rs"]
mod script;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use subledger::domain::command::Command;
use subledger::domain::ids::AccountId;

use crate::support::*;
use reference::{Charge, Used};
use script::{Action, Play, Script, Step};

const SCRIPTS: usize = 30;
const STEPS: usize = 40;

/// An application that plays actions.
struct Player {
    app: TestApp,
    holds: Vec<String>,
    requests: usize,
}

impl Player {
    async fn start() -> Self {
        let catalog = include_str!("../model/catalog.toml").to_owned();
        let app = TestApp::with(Setup { catalog, ..Setup::default() }).await;
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        Self { app, holds: Vec::new(), requests: 0 }
    }

    /// Posts what may be wrong on purpose, twice: the second answer is the first one's.
    async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.requests += 1;
        let key = format!("request {}", self.requests);
        let call = || self.app.call(Method::POST, path).idempotency_key(&key).json(body.clone()).beyond_the_contract();
        let first = call().send().await;
        let again = call().send().await;
        assert_eq!((again.status, &again.body["code"]), (first.status, &first.body["code"]));
        assert!(again.is_replay() && !first.is_replay());
        first
    }

    /// What may be spent afterwards, where the answer says so, or the code of the refusal.
    async fn play(&mut self, play: &Play) -> Result<Option<i64>, String> {
        self.app.clock.set(play.at);
        let credits = |route: &str| format!("/v1/accounts/user_1/credits/{route}");
        let answer = match &play.action {
            Action::Grant { amount, priority, begins, ends } => {
                let body = json!({"amount": amount, "priority": priority, "effective_at": rfc3339(*begins),
                    "expires_at": ends.map(rfc3339)});
                self.post(&credits("grants"), body).await
            }
            Action::Debit(charge) => self.post(&credits("debits"), body_of(*charge)).await,
            Action::Hold { charge, ends } => {
                let mut body = body_of(*charge);
                body["expires_at"] = json!(rfc3339(*ends));
                let answer = self.post(&credits("holds"), body).await;
                self.holds.extend(answer.body["id"].as_str().map(str::to_owned));
                answer
            }
            Action::Capture { hold, used } => {
                let body = match used {
                    Used::All => json!({}),
                    Used::Amount(amount) => json!({"amount": amount}),
                    Used::Quantity(quantity) => json!({"quantity": quantity}),
                };
                self.act(*hold, "capture", body).await
            }
            Action::Release { hold } => self.act(*hold, "release", json!({})).await,
            Action::Extend { hold, ends } => self.act(*hold, "extend", json!({"expires_at": rfc3339(*ends)})).await,
            Action::Settle => {
                let account = AccountId::new("user_1").expect("a valid id");
                self.app
                    .service
                    .execute(account, Command::Settle, None)
                    .await
                    .expect("settled")
                    .result
                    .expect("never refused");
                return Ok(None);
            }
            Action::Stripe(events) => {
                for event in events {
                    self.app.deliver(event).await;
                }
                return Ok(None);
            }
        };
        match answer.body["code"].as_str() {
            None => Ok(answer.body["available"].as_i64()),
            Some(code) => Err(code.to_owned()),
        }
    }

    async fn act(&mut self, hold: usize, act: &str, body: Value) -> Answer {
        let path = format!("/v1/holds/{}/{act}", self.holds[hold]);
        self.post(&path, body).await
    }

    /// Available, held, debt, and lots by cause: what remains and what is held.
    async fn view(&self) -> (i64, i64, i64, Vec<(String, i64, i64)>) {
        let credits = self.app.get("/v1/accounts/user_1/credits").await.expect(200);
        let number = |value: &Value, name: &str| value[name].as_i64().unwrap_or_default();
        let lots = credits["lots"].as_array().expect("lots").iter().map(|lot| {
            let cause = nameless(lot["cause"].as_str().expect("a cause"));
            (cause, number(lot, "remaining"), number(lot, "held"))
        });
        let mut lots: Vec<_> = lots.collect();
        lots.sort();
        (number(&credits, "available"), number(&credits, "held"), number(&credits, "debt"), lots)
    }

    /// What the statement comes to, page by page.
    async fn balance(&self) -> i64 {
        let (mut balance, mut path) = (0, "/v1/accounts/user_1/credits/entries?limit=20".to_owned());
        loop {
            let page = self.app.get(&path).await.expect(200);
            for entry in page["data"].as_array().expect("entries") {
                balance += entry["amount"].as_i64().expect("an amount");
                assert_eq!(entry["balance"], balance, "{entry}");
            }
            let Some(cursor) = page["next_cursor"].as_str() else { return balance };
            path = format!("/v1/accounts/user_1/credits/entries?limit=20&cursor={cursor}");
        }
    }
}

fn body_of(charge: Charge) -> Value {
    match charge {
        Charge::Amount(amount) => json!({"amount": amount}),
        Charge::Feature(feature, quantity) => json!({"feature": feature, "quantity": quantity}),
    }
}

/// The service gives grants ids of its own.
fn nameless(cause: &str) -> String {
    if cause.starts_with("grant:") { "grant".to_owned() } else { cause.to_owned() }
}

async fn play(steps: &[Step]) {
    let mut player = Player::start().await;
    let mut script = Script::new(START, |cause| cause.to_owned(), |nth| format!("grant:{nth}"));
    for (n, step) in steps.iter().enumerate() {
        for play in script.play(step) {
            let got = player.play(&play).await;
            let want = play.expected.clone().map_err(|refusal| refusal.code.to_owned());
            assert_eq!(got, want, "step {n}, {step:?} of {steps:#?}");
        }
    }
    player.app.clock.set(script.now);
    let want = script.ledger.view(script.now);
    let lots = want.lots.into_iter().map(|(cause, remaining, held)| (nameless(&cause), remaining, held));
    let mut lots: Vec<_> = lots.collect();
    lots.sort();
    assert_eq!(player.view().await, (want.available, want.held, want.debt, lots), "{steps:#?}");
    assert_eq!(player.balance().await, script.ledger.balance(), "the statement of {steps:#?}");
}

#[tokio::test]
async fn random_scripts_over_http_end_as_the_reference_says() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..SCRIPTS {
        let steps = script::steps(STEPS).new_tree(&mut runner).expect("a script").current();
        play(&steps).await;
    }
}
