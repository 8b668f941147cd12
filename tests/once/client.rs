//! Callers: each with a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use subledger::stripe::signature;

use super::ground::SECRET;

/// What a caller was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Under this key the same was answered before.
    pub replayed: bool,
    /// Exactly as it came.
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What became of a StripeEvent.
    pub fn received(&self) -> String {
        self.json()["status"].as_str().unwrap_or_default().to_owned()
    }
}

/// A caller.
#[derive(Debug, Clone)]
pub struct Caller {
    http: reqwest::Client,
    address: SocketAddr,
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build();
        Self { http: http.expect("a client"), address }
    }

    /// Callers whose connections are open already, so that what they ask next arrives together.
    pub async fn many(count: usize, addresses: &[SocketAddr]) -> Vec<Self> {
        let callers: Vec<Self> = (0..count).map(|n| Self::new(addresses[n % addresses.len()])).collect();
        for caller in &callers {
            caller.get("/healthz").await;
        }
        callers
    }

    /// `Err` when no answer came.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let replayed = response.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
        Ok(Reply { status, replayed, text: response.text().await? })
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[], None).await.expect("an answer")
    }

    pub async fn put_account(&self, account: &str, body: &Value) -> Result<Reply, reqwest::Error> {
        self.ask(Method::PUT, &format!("/v1/accounts/{account}"), &[], Some(body.to_string())).await
    }

    pub async fn link(&self, account: &str, customer: &str) -> Result<Reply, reqwest::Error> {
        self.put_account(account, &json!({"stripe_customer_id": customer})).await
    }

    /// Delivers a StripeEvent signed at a Unix second.
    pub async fn deliver(&self, body: &str, second: i64) -> Result<Reply, reqwest::Error> {
        let signature = signature::sign(body.as_bytes(), SECRET, second);
        let headers = [("stripe-signature", signature.as_str())];
        self.ask(Method::POST, "/webhooks/stripe", &headers, Some(body.to_owned())).await
    }

    /// Posts a command under a key.
    pub async fn command(&self, path: &str, key: &str, body: &Value) -> Result<Reply, reqwest::Error> {
        self.ask(Method::POST, path, &[("idempotency-key", key)], Some(body.to_string())).await
    }

    pub async fn debit(&self, account: &str, key: &str, amount: i64) -> Result<Reply, reqwest::Error> {
        self.command(&format!("/v1/accounts/{account}/credits/debits"), key, &json!({"amount": amount})).await
    }

    pub async fn grant(&self, account: &str, key: &str, amount: i64) -> Result<Reply, reqwest::Error> {
        self.command(&format!("/v1/accounts/{account}/credits/grants"), key, &json!({"amount": amount})).await
    }
}
