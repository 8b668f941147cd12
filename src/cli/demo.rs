//! `subledger demo`: the service at work, with a sample customer played through its own webhook endpoint.

use chrono::{DateTime, Duration, Months, Utc};
use serde_json::{Value, json};
use subledger::config::{Config, ConfigError};
use subledger::startup::{self, StartError};
use subledger::stripe::signature;
use tokio::sync::oneshot;

const SAMPLE_CATALOG: &str = "deploy/catalog.toml";
/// Signs the sample's own events when no endpoint of Stripe's is configured.
const SAMPLE_SECRET: &str = "whsec_sample_secret_for_the_demo_only";
const ACCOUNT: &str = "demo_user";
const CUSTOMER: &str = "cus_demo";

/// Serves until told to stop; once it answers, plays the sample and prints what came of it.
pub async fn run(config: &Config) -> Result<(), StartError> {
    let config = config.with_default("SUBLEDGER_CATALOG", SAMPLE_CATALOG)?;
    let config = config.with_default("STRIPE_WEBHOOK_SECRETS", SAMPLE_SECRET)?;
    check_mode(&config)?;
    let (ready, is_ready) = oneshot::channel();
    let playing = tokio::spawn(async move {
        // The settings table may give what the environment does not.
        let Ok(config) = is_ready.await else { return };
        let played = match check_mode(&config) {
            Ok(()) => Visitor::new(&config).play().await.map_err(|error| error.to_string()),
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
    outcome
}

fn check_mode(config: &Config) -> Result<(), ConfigError> {
    if !config.livemode {
        return Ok(());
    }
    let problem = "the demo plays test-mode events; unset STRIPE_LIVEMODE or set it to false".to_owned();
    Err(ConfigError { setting: "STRIPE_LIVEMODE".to_owned(), problem })
}

/// Calls the service as Stripe and as a service of one's own would.
struct Visitor {
    base: String,
    secret: String,
    admin_key: Option<String>,
    http: reqwest::Client,
}

impl Visitor {
    fn new(config: &Config) -> Self {
        Self {
            base: format!("http://127.0.0.1:{}", config.listen.port()),
            secret: config.webhook_secrets.first().cloned().unwrap_or_default(),
            admin_key: config.admin_key.clone(),
            http: reqwest::Client::new(),
        }
    }

    async fn play(&self) -> Result<(), reqwest::Error> {
        self.wait_until_ready().await;
        println!("\nA sample customer, as Stripe would tell of it (signed, over HTTP):\n");
        for (story, event) in sample_events(Utc::now()) {
            let status = self.deliver(&event).await?;
            println!("  {story:48} {:36} {status}", event["type"].as_str().unwrap_or_default());
        }
        let (debit, receipt) = self.debit().await?;
        println!("  {:48} {:36} {debit}", "it makes three images", "POST …/credits/debits");
        let account = format!("/v1/accounts/{ACCOUNT}");
        println!("\nWhat came of it:\n");
        self.show(&format!("{account}/subscription"), &["status", "plan", "price", "current_period_end"]).await?;
        self.show(&format!("{account}/credits"), &["available", "unlimited", "lots"]).await?;
        let feature = format!("{account}/entitlements/image_generation");
        self.show(&feature, &["allowed", "reason", "plan", "remaining", "as_of"]).await?;
        println!("Why the debit was as it was:\n");
        self.show(&format!("/v1/receipts/{receipt}"), &["because", "agrees"]).await?;
        self.say_what_to_try();
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

    async fn deliver(&self, event: &Value) -> Result<String, reqwest::Error> {
        let body = event.to_string();
        let header = signature::sign(body.as_bytes(), &self.secret, Utc::now().timestamp());
        let request = self.http.post(format!("{}/webhooks/stripe", self.base));
        let answer = request.header("Stripe-Signature", header).body(body).send().await?;
        Ok(said(&answer.json().await?, "status"))
    }

    /// What became of it, and its receipt.
    async fn debit(&self) -> Result<(String, String), reqwest::Error> {
        let url = format!("{}/v1/accounts/{ACCOUNT}/credits/debits", self.base);
        let request = self.authorised(self.http.post(url)).header("Idempotency-Key", "demo-images-1");
        let body = json!({"feature": "image_generation", "quantity": 3});
        let answer = request.json(&body).send().await?;
        let replayed = answer.headers().contains_key("idempotent-replayed");
        let status = answer.status().as_u16();
        let receipt = said(&answer.json().await?, "receipt");
        Ok((if replayed { format!("{status}, as before") } else { status.to_string() }, receipt))
    }

    async fn show(&self, path: &str, fields: &[&str]) -> Result<(), reqwest::Error> {
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

    fn say_what_to_try(&self) {
        let base = &self.base;
        let key = if self.admin_key.is_some() { "-H \"Authorization: Bearer $SUBLEDGER_ADMIN_KEY\" " } else { "" };
        println!(
            "Try:\n
  curl -s {key}{base}/v1/accounts/{ACCOUNT}/invoices
  curl -s {key}{base}/v1/accounts/{ACCOUNT}/credits/entries
  curl -s {key}{base}/v1/accounts/{ACCOUNT}/credits/debits -H 'Idempotency-Key: mine-1' \\
       -H 'Content-Type: application/json' -d '{{\"feature\":\"image_generation\",\"quantity\":5}}'
  curl -s {key}{base}/v1/accounts/{ACCOUNT}/credits/holds -H 'Idempotency-Key: mine-2' \\
       -H 'Content-Type: application/json' -d '{{\"feature\":\"image_generation\",\"quantity\":20}}'
  curl -s {key}{base}/v1/accounts/{ACCOUNT}/usage
  curl -s {key}{base}/v1/plans
  curl -s {base}/metrics | grep subledger_stripe_events_total

The routes: {base}/docs    Stop: Ctrl-C (the data stay)\n"
        );
    }
}

fn said(answer: &Value, field: &str) -> String {
    answer[field].as_str().or(answer["code"].as_str()).unwrap_or("?").to_owned()
}

/// Sign-up a month ago, renewal just now, a credit pack; in the payload shape of a current API version.
fn sample_events(now: DateTime<Utc>) -> Vec<(&'static str, Value)> {
    let renewed = now - Duration::minutes(10);
    let signed_up = renewed.checked_sub_months(Months::new(1)).unwrap_or(renewed);
    let ends = renewed.checked_add_months(Months::new(1)).unwrap_or(renewed);
    let bought = now - Duration::minutes(5);
    vec![
        ("somebody signs up for Basic", subscription("created", signed_up, signed_up, renewed)),
        ("the first invoice is paid: 200 credits", invoice("in_demo_1", "subscription_create", signed_up, renewed)),
        ("Checkout says whose subscription it is", checkout(signed_up, None)),
        ("a month later it renews", subscription("updated", renewed, renewed, ends)),
        ("the renewal is paid: 200 fresh credits", invoice("in_demo_2", "subscription_cycle", renewed, ends)),
        ("a pack of 250 credits is bought", checkout(bought, Some("pack_250"))),
    ]
}

fn event(id: &str, event_type: &str, created: DateTime<Utc>, object: Value) -> Value {
    json!({
        "id": id, "object": "event", "api_version": "2025-08-27.basil", "created": created.timestamp(),
        "type": event_type, "livemode": false, "pending_webhooks": 1, "data": {"object": object},
    })
}

fn subscription(what: &str, at: DateTime<Utc>, start: DateTime<Utc>, end: DateTime<Utc>) -> Value {
    let price = json!({
        "id": "price_sample_basic_monthly", "object": "price", "currency": "usd", "unit_amount": 999,
        "product": "prod_sample_basic", "recurring": {"interval": "month", "interval_count": 1},
    });
    let item = json!({
        "id": "si_demo", "object": "subscription_item", "price": price, "quantity": 1,
        "current_period_start": start.timestamp(), "current_period_end": end.timestamp(),
    });
    let object = json!({
        "id": "sub_demo", "object": "subscription", "customer": CUSTOMER, "status": "active", "currency": "usd",
        "created": at.timestamp(), "cancel_at_period_end": false, "items": {"object": "list", "data": [item]},
        "latest_invoice": if what == "created" { "in_demo_1" } else { "in_demo_2" },
    });
    event(&format!("evt_demo_subscription_{what}"), &format!("customer.subscription.{what}"), at, object)
}

fn invoice(id: &str, reason: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Value {
    let line = json!({
        "id": format!("il_{id}"), "object": "line_item", "amount": 999, "currency": "usd", "quantity": 1,
        "period": {"start": start.timestamp(), "end": end.timestamp()},
        "parent": {"type": "subscription_item_details", "subscription_item_details":
            {"subscription": "sub_demo", "subscription_item": "si_demo", "proration": false}},
        "pricing": {"type": "price_details", "price_details":
            {"price": "price_sample_basic_monthly", "product": "prod_sample_basic"}},
    });
    let object = json!({
        "id": id, "object": "invoice", "customer": CUSTOMER, "status": "paid", "billing_reason": reason,
        "currency": "usd", "subtotal": 999, "total": 999, "amount_due": 999, "amount_paid": 999,
        "amount_remaining": 0, "attempt_count": 1, "created": start.timestamp(),
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_demo"}},
        "lines": {"object": "list", "has_more": false, "data": [line]},
        "status_transitions": {"paid_at": start.timestamp()},
    });
    event(&format!("evt_demo_{id}"), "invoice.paid", start, object)
}

fn checkout(at: DateTime<Utc>, pack: Option<&str>) -> Value {
    let id = if pack.is_some() { "cs_demo_pack" } else { "cs_demo_signup" };
    let metadata = pack.map_or_else(|| json!({}), |pack| json!({"kind": "credit_pack", "credit_pack": pack}));
    let object = json!({
        "id": id, "object": "checkout.session", "customer": CUSTOMER, "client_reference_id": ACCOUNT,
        "mode": if pack.is_some() { "payment" } else { "subscription" }, "status": "complete",
        "payment_status": "paid", "currency": "usd", "amount_total": if pack.is_some() { 2_000 } else { 999 },
        "payment_intent": pack.map(|_| "pi_demo_pack"), "subscription": pack.is_none().then_some("sub_demo"),
        "metadata": metadata, "created": at.timestamp(),
    });
    event(&format!("evt_demo_{id}"), "checkout.session.completed", at, object)
}
