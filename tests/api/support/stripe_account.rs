//! A simulated Stripe account, and the program that works on it.

use std::process::Stdio;

use serde_json::{Value, json};
use subledger_simulator::{Clock, Options, Request, SeedPrice, Simulator};
use tokio::process::{Child, Command};

use super::STRIPE_KEY;
use super::stripe::STARTER;

/// A Stripe account without a webhook endpoint: whatever happens in it, nobody is told.
pub struct Stripe {
    pub simulator: Simulator,
    http: reqwest::Client,
}

impl Stripe {
    /// Sells [`STARTER`].
    pub fn start(clock: Clock) -> Self {
        let simulator = Simulator::start(Options { clock, ..Options::default() }).expect("a simulator");
        simulator.with_world(|world| {
            world.seed_product("prod_1", "Starter", json!({}));
            world.seed_price(&SeedPrice {
                id: Some(STARTER.to_owned()),
                product: "prod_1".to_owned(),
                currency: "usd".to_owned(),
                unit_amount: 900,
                interval: Some("month".to_owned()),
                interval_count: 1,
                ..SeedPrice::default()
            });
        });
        Self { simulator, http: reqwest::Client::new() }
    }

    pub fn base(&self) -> String {
        self.simulator.base_url()
    }

    /// One of Stripe's calls, which must succeed.
    pub fn call(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Value {
        let parameters = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters: parameters.into_bytes(),
            ..Request::default()
        };
        let answer = self.simulator.with_world(|world| world.handle(&request));
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body
    }

    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        self.call("POST", path, fields)
    }

    /// Everything of a list, the newest first.
    pub fn all(&self, path: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let last = all.last().map(|object| object["id"].as_str().expect("an id").to_owned());
            let after = last.as_deref().map(|last| ("starting_after", last));
            let fields: Vec<(&str, &str)> = std::iter::once(("limit", "100")).chain(after).collect();
            let page = self.call("GET", path, &fields);
            all.extend(page["data"].as_array().expect("a list").iter().cloned());
            if page["has_more"] != true {
                return all;
            }
        }
    }

    /// Somebody subscribes to [`STARTER`]. Answers customer and subscription.
    pub fn subscribe(&self, account: Option<&str>, email: &str) -> (String, String) {
        let named = account.map(|account| ("metadata[account_id]", account));
        let fields: Vec<(&str, &str)> = std::iter::once(("email", email)).chain(named).collect();
        let customer = self.post("customers", &fields)["id"].as_str().expect("an id").to_owned();
        let card = self.post("payment_methods/pm_card_visa/attach", &[("customer", &customer)]);
        let card = card["id"].as_str().expect("an id");
        self.post(&format!("customers/{customer}"), &[("invoice_settings[default_payment_method]", card)]);
        let fields = [("customer", customer.as_str()), ("items[0][price]", STARTER)];
        let subscription = self.post("subscriptions", &fields);
        assert_eq!(subscription["status"], "active");
        (customer, subscription["id"].as_str().expect("an id").to_owned())
    }

    /// A control route.
    pub async fn control(&self, path: &str, body: Value) {
        let url = format!("{}/_simulator/{path}", self.base());
        let answer = self.http.post(url).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
    }

    /// The program, about to run a command on this account.
    pub fn program(&self, database_url: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_subledger"));
        command
            .args(arguments)
            .env("STRIPE_API_BASE", self.base())
            .env("STRIPE_SECRET_KEY", STRIPE_KEY)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match database_url {
            Some(url) => command.env("DATABASE_URL", url),
            None => command.env_remove("DATABASE_URL").env("SUBLEDGER_DATA_DIR", "/nowhere/subledger"),
        };
        command
    }

    /// Runs it. Answers the exit code, standard output and standard error.
    pub async fn run(&self, database_url: Option<&str>, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.program(database_url, arguments).output().await.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    pub fn spawn(&self, database_url: Option<&str>, arguments: &[&str]) -> Child {
        self.program(database_url, arguments).spawn().expect("it runs")
    }
}
