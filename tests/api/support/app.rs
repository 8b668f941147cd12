//! The real application on a port of its own, with a database of its own.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use subledger::app::outbound::OutboundSettings;
use subledger::app::service::{Lanes, Service, ServiceSettings, StripeSettings};
use subledger::clock::Clock;
use subledger::domain::catalog::Catalog;
use subledger::domain::redirect::Redirects;
use subledger::http::auth::Auth;
use subledger::http::server::{self, State};
use subledger::store::connect::{COMMAND_POOL_WAIT, Database};
use subledger::stripe::client::ClientSettings;
use subledger::stripe::signature;
use tokio::sync::{SemaphorePermit, oneshot};

use super::answer::Answer;
use super::clock::TestClock;
use super::house::{HOUSE, PLACES, TestDatabase};
use super::invariants;

pub const SELLER: &str = include_str!("../../fixtures/seller.toml");
/// The bootstrap key; tests speak with it unless they say otherwise.
pub const ADMIN_KEY: &str = "admin-key-of-the-tests-0123456789";
pub const WEBHOOK_SECRET: &str = "whsec_secret_of_the_tests";
/// The key to Stripe's API.
pub const STRIPE_KEY: &str = "sk_test_of_the_tests";

/// How a test wants its application.
#[derive(Debug, Clone)]
pub struct Setup {
    pub partitions: i16,
    /// TOML; empty: no catalog.
    pub catalog: String,
    pub admin_key: Option<String>,
    pub webhook_secrets: Vec<String>,
    pub livemode: bool,
    pub queue_length: usize,
    pub outbound: OutboundSettings,
    /// Where Stripe's API is; `None`: Stripe is not called.
    pub stripe_api: Option<String>,
    /// Where customers may be sent back to.
    pub redirects: Redirects,
    /// 0: as often as one likes.
    pub payment_routes_per_minute: u32,
    /// A migrated database elsewhere; `None`: a new one on the tests' server.
    pub database_url: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            partitions: 64,
            catalog: SELLER.to_owned(),
            admin_key: Some(ADMIN_KEY.to_owned()),
            webhook_secrets: vec![WEBHOOK_SECRET.to_owned()],
            livemode: false,
            queue_length: 4_096,
            // Receivers of the tests are on this machine.
            outbound: OutboundSettings {
                is_at_work: true,
                allow_private_webhooks: true,
                ..OutboundSettings::default()
            },
            stripe_api: None,
            redirects: Redirects::new(&["https://app.example.com".to_owned()], None, None, None).expect("origins"),
            payment_routes_per_minute: 0,
            database_url: None,
        }
    }
}

/// An answer that was received: which operation of the contract gave it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path template; `None` for a path that is none of the contract's.
    pub route: Option<String>,
    pub request_body: Option<Value>,
    pub answer: Answer,
}

/// A running application. When it is dropped, its ledger is checked.
pub struct TestApp {
    pub address: SocketAddr,
    pub service: Arc<Service>,
    pub clock: Arc<TestClock>,
    pub database_url: String,
    http: reqwest::Client,
    secret: Option<String>,
    seen: Mutex<Vec<Seen>>,
    running: Option<Running>,
}

/// What must end in order.
struct Running {
    service: Arc<Service>,
    lanes: Lanes,
    shutdown: oneshot::Sender<()>,
    /// `None`: somebody else's.
    database: Option<TestDatabase>,
    checks: bool,
    /// No test holds two at a time, or they could wait for each other for ever.
    _place: Option<SemaphorePermit<'static>>,
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        super::logs::capture();
        subledger::crypto::install_provider();
        let (place, database, url) = match &setup.database_url {
            Some(url) => (None, None, url.clone()),
            None => {
                let place = PLACES.acquire().await.expect("never closed");
                let database = TestDatabase::new(setup.partitions).await;
                let url = database.url.clone();
                (Some(place), Some(database), url)
            }
        };
        let clock = Arc::new(TestClock::new());
        let settings = ServiceSettings {
            database: Database::parse(&url).expect("a URL"),
            partitions: setup.partitions,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            lanes: 2,
            pool_size: 4,
            // Many tests share a busy machine, and none is about waiting for a connection.
            pool_wait: COMMAND_POOL_WAIT,
            queue_length: setup.queue_length,
            cached_accounts: 4_096,
            cache_bytes: 256 << 20,
            staleness: std::time::Duration::from_millis(250),
            stripe: StripeSettings {
                webhook_secrets: setup.webhook_secrets.clone(),
                livemode: setup.livemode,
                account_metadata_keys: vec!["account_id".to_owned(), "user_id".to_owned()],
                client: ClientSettings {
                    secret_key: setup.stripe_api.as_ref().map(|_| STRIPE_KEY.to_owned()),
                    base: setup.stripe_api.clone().unwrap_or_default(),
                    first_delay: std::time::Duration::from_millis(1),
                    ..ClientSettings::default()
                },
                redirects: setup.redirects.clone(),
                payment_routes_per_minute: setup.payment_routes_per_minute,
            },
            outbound: setup.outbound.clone(),
        };
        let catalog = (!setup.catalog.is_empty()).then(|| Catalog::from_toml(&setup.catalog).expect("a catalog"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (shutdown, is_over) = oneshot::channel::<()>();
        let admin_key = setup.admin_key.clone();
        let starting = HOUSE.spawn(async move {
            let (service, lanes) = Service::start(settings).await.expect("a service");
            if let Some(catalog) = catalog {
                service.apply_catalog(catalog).await.expect("the catalog is recorded");
            }
            let state = State::new(Arc::clone(&service), Auth::new(admin_key.as_deref(), true));
            tokio::spawn(server::run(listener, state, 1, async {
                let _ = is_over.await;
            }));
            (service, lanes)
        });
        let (service, lanes) = starting.await.expect("a running application");
        let running = Running { service: Arc::clone(&service), lanes, shutdown, database, checks: true, _place: place };
        Self {
            address,
            service,
            clock,
            database_url: url,
            http: reqwest::Client::new(),
            secret: setup.webhook_secrets.first().cloned(),
            seen: Mutex::new(Vec::new()),
            running: Some(running),
        }
    }

    /// For tests that break their ledger: it is not checked at the end.
    pub fn skip_checks(&mut self) {
        if let Some(running) = &mut self.running {
            running.checks = false;
        }
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection of the test's own, with all rights.
    pub async fn database(&self) -> tokio_postgres::Client {
        super::house::owner(&self.database_url).await
    }

    pub fn now(&self) -> i64 {
        self.clock.now().timestamp()
    }

    /// Puts another catalog in force.
    pub async fn apply_catalog(&self, toml: &str) {
        let catalog = Catalog::from_toml(toml).expect("a catalog");
        let service = Arc::clone(&self.service);
        let applied = HOUSE.spawn(async move { service.apply_catalog(catalog).await });
        applied.await.expect("no panic").expect("the catalog is recorded");
    }

    /// Does with a catalog file what a service does when it starts with it.
    pub async fn apply_catalog_at_start(&self, toml: &str) {
        let catalog = Catalog::from_toml(toml).expect("a catalog");
        let service = Arc::clone(&self.service);
        let applied = HOUSE.spawn(async move { service.apply_catalog_at_start(catalog).await });
        applied.await.expect("no panic").expect("the catalog is in force");
    }

    /// Begins a request, with the bootstrap key.
    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        let request = self.http.request(method.clone(), format!("http://{}{path}", self.address));
        let request = request.header("x-request-id", "test-request");
        let key = Some(ADMIN_KEY.to_owned());
        Call { app: self, method, path: path.to_owned(), request, key, body: None, is_allowed: true }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).send().await
    }

    /// Sends a body, of which no two are retries of each other.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let key = uuid::Uuid::new_v4().to_string();
        self.call(Method::POST, path).idempotency_key(&key).json(body).send().await
    }

    pub async fn put_account(&self, account: &str, body: Value) -> Answer {
        self.call(Method::PUT, &format!("/v1/accounts/{account}")).json(body).send().await
    }

    pub async fn debit(&self, account: &str, idempotency_key: &str, body: Value) -> Answer {
        let path = format!("/v1/accounts/{account}/credits/debits");
        self.call(Method::POST, &path).idempotency_key(idempotency_key).json(body).send().await
    }

    pub async fn grant(&self, account: &str, amount: i64) -> Answer {
        self.post(&format!("/v1/accounts/{account}/credits/grants"), json!({"amount": amount})).await
    }

    /// What an account may spend.
    pub async fn available(&self, account: &str) -> i64 {
        let credits = self.get(&format!("/v1/accounts/{account}/credits")).await.expect(200);
        credits["available"].as_i64().expect("a number")
    }

    /// Delivers a StripeEvent as Stripe would. Answers what became of it.
    pub async fn deliver(&self, event: &Value) -> String {
        let answer = self.deliver_body(event.to_string()).await;
        let body = answer.expect(200);
        assert_eq!(body["received"], true);
        body["status"].as_str().expect("a status").to_owned()
    }

    /// Delivers several, all of which must change something.
    pub async fn deliver_all(&self, events: &[Value]) {
        for event in events {
            assert_eq!(self.deliver(event).await, "applied", "{event}");
        }
    }

    /// Delivers any body with a valid signature.
    pub async fn deliver_body(&self, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let secret = self.secret.as_deref().unwrap_or(WEBHOOK_SECRET);
        let signature = signature::sign(&body, secret, self.now());
        self.deliver_signed(body, Some(&signature)).await
    }

    pub async fn deliver_signed(&self, body: Vec<u8>, signature: Option<&str>) -> Answer {
        let mut call = self.call(Method::POST, "/webhooks/stripe").without_key();
        if let Some(signature) = signature {
            call = call.header("stripe-signature", signature);
        }
        call.bytes(body).send().await
    }

    /// A number out of `/metrics`; 0 for a series that is not there yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let metrics = self.get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().expect("a number"))
    }
}

/// A request on its way.
pub struct Call<'a> {
    app: &'a TestApp,
    method: Method,
    path: String,
    request: RequestBuilder,
    key: Option<String>,
    body: Option<Vec<u8>>,
    is_allowed: bool,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        // As bytes: a test may want to send what is no text.
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
        self.request = self.request.header(name, value);
        self
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Speaks with another API key.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json").bytes(body.to_string().into_bytes())
    }

    pub fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    /// The body is not what the contract allows, although the answer as a whole is good: batches with bad rows.
    pub fn beyond_the_contract(mut self) -> Self {
        self.is_allowed = false;
        self
    }

    pub async fn send(self) -> Answer {
        let mut request = self.request;
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let request_body = self.body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let name = format!("{} {}", self.method, self.path);
        let response = request.send().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let answer = Answer::read(name, response).await;
        let checked = request_body.as_ref().filter(|_| self.is_allowed);
        let route = super::contract::check(self.method.as_str(), &self.path, checked, &answer);
        let seen = Seen { method: self.method.to_string(), route, request_body, answer: answer.clone() };
        self.app.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        answer
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let has_failed = std::thread::panicking();
        running.checks &= !has_failed;
        // The test's own runtime is busy running this very drop.
        let ended = std::thread::scope(|scope| scope.spawn(|| HOUSE.block_on(running.end())).join());
        if let Err(panic) = ended
            && !has_failed
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Running {
    async fn end(self) {
        self.service.stop();
        self.lanes.finish().await;
        self.service.pool.close();
        // Idle connections may take the server a second; nobody needs to wait for that.
        let _ = self.shutdown.send(());
        let Some(database) = self.database else { return };
        if self.checks {
            invariants::check(&database.url).await;
        }
        database.remove().await;
    }
}

/// Tells a story on a ledger of one partition, then on one of 64: neither may matter.
pub async fn on_both(story: impl AsyncFn(TestApp)) {
    on_both_with(Setup::default(), story).await;
}

/// The same, with a setup of the story's own.
pub async fn on_both_with(setup: Setup, story: impl AsyncFn(TestApp)) {
    for partitions in [1, 64] {
        story(TestApp::with(Setup { partitions, ..setup.clone() }).await).await;
    }
}
