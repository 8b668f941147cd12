//! `subledger demo`: the service at work, with a simulated Stripe beside it and a sample customer.

use std::net::SocketAddr;

use chrono::{Duration, Months, Utc};
use serde_json::{Value, json};
use subledger::config::{Config, ConfigError};
use subledger::startup::{self, StartError};
use subledger_simulator::{Clock, Options, Settings, Simulator};
use tokio::sync::oneshot;

use super::simulate;

const SAMPLE_CATALOG: &str = "deploy/catalog.toml";
const SAMPLE_SECRET: &str = "whsec_sample_secret_for_the_demo_only";
const SIMULATED_KEY: &str = "sk_test_simulator";
/// Where the simulated Stripe is, unless somebody else is there.
const SIMULATED_STRIPE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 12_111);

/// Serves until told to stop; once it answers, plays the sample and prints what came of it.
pub async fn run(config: &Config) -> Result<(), StartError> {
    check_stripe(config)?;
    let config = config.with_default("SUBLEDGER_CATALOG", SAMPLE_CATALOG)?;
    let config = config.with_default("STRIPE_WEBHOOK_SECRETS", SAMPLE_SECRET)?;
    let simulator = simulated_stripe(&config)?;
    let mut config = config.with_default("STRIPE_API_BASE", &simulator.base_url())?;
    let page = format!("http://127.0.0.1:{}/docs", config.listen.port());
    for name in ["SUBLEDGER_CHECKOUT_SUCCESS_URL", "SUBLEDGER_CHECKOUT_CANCEL_URL", "SUBLEDGER_PORTAL_RETURN_URL"] {
        config = config.with_default(name, &page)?;
    }
    let config = config.with_default("STRIPE_SECRET_KEY", SIMULATED_KEY)?;
    let stripe = simulator.base_url();
    let (ready, is_ready) = oneshot::channel();
    let playing = tokio::spawn(async move {
        // The settings table may give what the environment does not.
        let Ok(config) = is_ready.await else { return };
        let played = match check_stripe(&config) {
            Ok(()) => Visitor::new(&config, stripe).play().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = played {
            eprintln!("subledger: the sample could not be played: {error}");
        }
    });
    let served = startup::serve(config, startup::stop_signal(), |running| {
        let _ = ready.send(running.config.clone());
    });
    let outcome = served.await;
    playing.abort();
    simulator.stop().await;
    outcome
}

/// The sample's customers pay with simulated money: nothing of it may reach a Stripe account.
fn check_stripe(config: &Config) -> Result<(), ConfigError> {
    for name in ["STRIPE_SECRET_KEY", "STRIPE_API_BASE"] {
        if config.origin(name)?.is_some() {
            let problem = "the demo brings a simulated Stripe of its own; unset this, or use `subledger serve`";
            return Err(ConfigError { setting: name.to_owned(), problem: problem.to_owned() });
        }
    }
    if config.livemode {
        let problem = "the demo plays test-mode events; unset STRIPE_LIVEMODE or set it to false".to_owned();
        return Err(ConfigError { setting: "STRIPE_LIVEMODE".to_owned(), problem });
    }
    Ok(())
}

/// Sells what the catalog sells, and is as far back as the story begins.
fn simulated_stripe(config: &Config) -> Result<Simulator, StartError> {
    let now = Utc::now();
    let begins = (now - Duration::minutes(90)).checked_sub_months(Months::new(1)).unwrap_or(now);
    let options = |listen| Options {
        listen,
        public_url: None,
        clock: Clock::Running { ahead_s: (begins - now).num_seconds() },
        // Else the ids of one run would be those of the run before, whose customers the ledger knows.
        settings: Settings { seed: rand::random(), ..Settings::default() },
        // Nobody listens yet.
        endpoints: Vec::new(),
    };
    let anywhere = SocketAddr::new(SIMULATED_STRIPE.ip(), 0);
    let started = Simulator::start(options(SIMULATED_STRIPE)).or_else(|_| Simulator::start(options(anywhere)));
    let simulator = started.map_err(|cause| StartError::Listen { address: anywhere, cause })?;
    if let Some(path) = &config.catalog {
        let catalog = startup::read_catalog(path)?;
        simulator.with_world(|world| simulate::seed(world, &catalog));
    }
    Ok(simulator)
}

/// Why the story ends before its end.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Refused(String),
}

/// Calls the service as a service of one's own would, and the simulated Stripe as its customers would.
struct Visitor {
    base: String,
    stripe: String,
    secret: String,
    admin_key: Option<String>,
    http: reqwest::Client,
}

impl Visitor {
    fn new(config: &Config, stripe: String) -> Self {
        Self {
            base: format!("http://127.0.0.1:{}", config.listen.port()),
            stripe,
            secret: config.webhook_secrets.first().cloned().unwrap_or_default(),
            admin_key: config.admin_key.clone(),
            http: reqwest::Client::new(),
        }
    }

    async fn play(&self) -> Result<(), StepError> {
        self.wait_until_ready().await;
        let account = self.new_account().await?;
        let path = format!("/v1/accounts/{account}");
        let webhooks = json!({"url": format!("{}/webhooks/stripe", self.base), "secret": self.secret});
        self.control("webhook_endpoints", webhooks).await?;
        println!("\nA sample customer, {account}, and a simulated Stripe, over HTTP:\n");
        let sessions = format!("{path}/checkout-sessions");
        let session = self.buy(&sessions, json!({"plan": "basic", "currency": "usd"})).await?;
        self.pay("the customer pays on Stripe's page", &session).await?;
        self.pass("a month goes by, and it renews", json!({"by": {"months": 1, "hours": 1}})).await?;
        let session = self.buy(&sessions, json!({"credit_pack": "pack_250"})).await?;
        self.pay("the customer pays for the pack", &session).await?;
        self.pass("it is now", json!({"to": Utc::now().timestamp()})).await?;
        let images = json!({"feature": "image_generation", "quantity": 3});
        let debited = self.post(&format!("{path}/credits/debits"), images).await?;
        println!("\nWhat came of it:\n");
        self.show(&format!("{path}/subscription"), &["status", "plan", "price", "current_period_end"]).await?;
        self.show(&format!("{path}/credits"), &["available", "unlimited", "lots"]).await?;
        let feature = format!("{path}/entitlements/image_generation");
        self.show(&feature, &["allowed", "reason", "plan", "remaining", "as_of"]).await?;
        println!("Why the debit was as it was:\n");
        self.show(&format!("/v1/receipts/{}", said(&debited, "receipt")), &["because", "agrees"]).await?;
        self.say_what_to_try(&account);
        Ok(())
    }

    /// Customers of earlier runs are kept, but the simulated Stripe that knew them is gone.
    async fn new_account(&self) -> Result<String, StepError> {
        for name in std::iter::once("demo_user".to_owned()).chain((2..).map(|number| format!("demo_user_{number}"))) {
            let request = self.authorised(self.http.get(format!("{}/v1/accounts/{name}", self.base)));
            if !request.send().await?.status().is_success() {
                return Ok(name);
            }
        }
        Ok("demo_user".to_owned())
    }

    /// Opens a Checkout session; answers its id.
    async fn buy(&self, path: &str, what: Value) -> Result<String, StepError> {
        Ok(said(&self.post(path, what).await?, "session_id"))
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, StepError> {
        let request = self.authorised(self.http.post(format!("{}{path}", self.base)));
        let key = uuid::Uuid::now_v7().to_string();
        let answer = request.header("Idempotency-Key", key).json(&body).send().await?;
        let status = answer.status();
        let last = path.rsplit_once("demo_user").map_or(path, |(_, rest)| rest.trim_start_matches(|c| c != '/'));
        println!("  {:60} {}", format!("POST …{last} {body}"), status.as_u16());
        let answer: Value = answer.json().await?;
        if status.is_success() { Ok(answer) } else { Err(StepError::Refused(said(&answer, "detail"))) }
    }

    async fn pay(&self, story: &str, session: &str) -> Result<(), StepError> {
        let before = self.told().await?;
        self.control(&format!("checkout/sessions/{session}/complete"), json!({"card": "good"})).await?;
        self.tell(story, before).await
    }

    async fn pass(&self, story: &str, until: Value) -> Result<(), StepError> {
        let before = self.told().await?;
        let mut until = until;
        until["settle"] = json!(true);
        self.control("clock", until).await?;
        self.tell(story, before).await
    }

    async fn tell(&self, story: &str, before: usize) -> Result<(), StepError> {
        self.control("deliveries/settle", json!({})).await?;
        match self.told().await? - before {
            0 => println!("  {story}"),
            webhooks => println!("  {story:60} {webhooks} signed webhooks"),
        }
        Ok(())
    }

    /// Webhooks that the service has answered.
    async fn told(&self) -> Result<usize, StepError> {
        let answer = self.http.get(format!("{}/_simulator/deliveries", self.stripe)).send().await?;
        Ok(answer.json::<Value>().await?["data"].as_array().map_or(0, Vec::len))
    }

    async fn control(&self, path: &str, body: Value) -> Result<(), StepError> {
        let request = self.http.post(format!("{}/_simulator/{path}", self.stripe));
        request.json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    async fn wait_until_ready(&self) {
        loop {
            let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn show(&self, path: &str, fields: &[&str]) -> Result<(), StepError> {
        let answer = self.authorised(self.http.get(format!("{}{path}", self.base))).send().await?;
        let mut whole: Value = answer.json().await?;
        if let Some(object) = whole.as_object_mut() {
            object.retain(|key, _| fields.contains(&key.as_str()));
        }
        println!("GET {path}\n{}\n", serde_json::to_string_pretty(&whole).unwrap_or_default());
        Ok(())
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.admin_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn say_what_to_try(&self, account: &str) {
        let Self { base, stripe, .. } = self;
        let key = if self.admin_key.is_some() { "-H \"Authorization: Bearer $SUBLEDGER_ADMIN_KEY\" " } else { "" };
        let post = "-H 'Content-Type: application/json' -H \"Idempotency-Key: $(date +%s%N)\" -d";
        let path = format!("{base}/v1/accounts/{account}");
        println!(
            "Try:\n
  curl -s {key}{path}/credits/entries
  curl -s {key}{path}/invoices
  curl -s {key}{path}/credits/holds {post} '{{\"feature\":\"image_generation\",\"quantity\":20}}'
  curl -s {key}{path}/subscription/change-preview {post} '{{\"plan\":\"professional\"}}'
  curl -s {key}{path}/subscription/change {post} '{{\"plan\":\"professional\"}}'
  curl -s {key}{base}/v1/accounts/you/checkout-sessions {post} '{{\"plan\":\"premium\"}}'
       (open the url that it answers, and pay)
  curl -s {stripe}/_simulator/clock -d '{{\"by\":{{\"months\":1}}}}'
  curl -s {base}/metrics | grep subledger_stripe_events_total

The routes: {base}/docs    The simulated Stripe: {stripe}/    Stop: Ctrl-C (the data stay)\n"
        );
    }
}

fn said(answer: &Value, field: &str) -> String {
    answer[field].as_str().or(answer["code"].as_str()).unwrap_or("?").to_owned()
}
