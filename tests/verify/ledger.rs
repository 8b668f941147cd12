//! A ledger of a test's own: a database in a server that all tests of this binary share, and a service on it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use subledger::app::inbound::ingest::Received;
use subledger::app::outbound::OutboundSettings;
use subledger::app::service::{Lanes, Service, ServiceSettings, StripeSettings};
use subledger::app::upkeep::verify::{Report, VerifyOptions, verify};
use subledger::app::write_path::work::Answer;
use subledger::clock::{Clock, ManualClock};
use subledger::domain::catalog::Catalog;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant};
use subledger::domain::credit::LotSource;
use subledger::domain::ids::AccountId;
use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::store::connect::{COMMAND_POOL_WAIT, Database};
use subledger::store::migrate::migrate;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The shared server's address. It stops with this process.
fn server() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        // A runtime that outlives every test's.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let postgres = EmbeddedPostgres::start(&folder(), Durability::Volatile).await.expect("a server");
                sender.send(postgres.url()).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("a server")
    })
}

/// A folder of this process; those of processes that are gone are removed.
fn folder() -> PathBuf {
    const PREFIX: &str = "subledger-verify-";
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            if let Ok(location) = std::fs::read_to_string(entry.path().join("location")) {
                let _ = std::fs::remove_dir_all(location.trim());
            }
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()))
}

pub struct Ledger {
    pub url: String,
    pub database: Database,
    pub service: Arc<Service>,
    pub clock: Arc<ManualClock>,
    pub partitions: i16,
    lanes: Option<Lanes>,
    /// As the superuser, past all grants.
    pub admin: Client,
}

impl Ledger {
    pub async fn new(partitions: i16) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let server = tokio::task::spawn_blocking(server).await.expect("a server");
        connect(server).await.batch_execute(&format!("create database {name}")).await.expect("a database");
        let url = format!("{}/{name}", server.rsplit_once('/').expect("a database in the address").0);
        let database = Database::parse(&url).expect("an address");
        migrate(&database, partitions).await.expect("migrated");
        let clock = Arc::new(ManualClock::new(DateTime::from_timestamp(1_770_000_000, 0).expect("a time")));
        let (service, lanes) = start(&database, partitions, Arc::clone(&clock)).await;
        let catalog = Catalog::from_toml(include_str!("../fixtures/seller.toml")).expect("a catalog");
        service.apply_catalog(catalog).await.expect("applied");
        let admin = connect(&url).await;
        Self { url, database, service, clock, partitions, lanes: Some(lanes), admin }
    }

    /// Another replica on the same database.
    pub async fn replica(&self) -> (Arc<Service>, Lanes) {
        start(&self.database, self.partitions, Arc::clone(&self.clock)).await
    }

    pub async fn stop(&mut self) {
        self.service.stop();
        if let Some(lanes) = self.lanes.take() {
            lanes.finish().await;
        }
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        self.clock.set(self.clock.now() + duration);
    }

    pub async fn receive(&self, event: &Value) -> Received {
        let body = Bytes::from(event.to_string());
        self.service.receive(body).await.unwrap_or_else(|error| panic!("{error}: {event}"))
    }

    pub async fn open(&self, name: &str) -> Answer {
        let open = Command::Open { stripe_customer_id: None };
        self.service.execute(account(name), open, None).await.expect("opened")
    }

    pub async fn grant(&self, name: &str, amount: i64) -> Answer {
        self.grant_until(name, amount, None, None).await
    }

    pub async fn grant_until(
        &self,
        name: &str,
        amount: i64,
        effective_at: Option<DateTime<Utc>>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Answer {
        let grant = Grant {
            grant: Uuid::new_v4(),
            amount,
            source: LotSource::Manual,
            priority: 5,
            effective_at,
            expires_at,
            reason: Some("a gift".to_owned()),
        };
        self.service.execute(account(name), Command::Grant(grant), None).await.expect("granted")
    }

    pub async fn debit(&self, name: &str, amount: i64) -> Answer {
        debit(&self.service, name, amount).await
    }

    pub async fn verify(&self) -> Report {
        verify(&self.database, &VerifyOptions::default()).await.expect("verified")
    }

    pub async fn assert_clean(&self) -> Report {
        let report = self.verify().await;
        let listed: Vec<String> = report.listed.iter().take(10).map(ToString::to_string).collect();
        assert!(report.is_clean(), "{} differences:\n{}", report.differences, listed.join("\n"));
        report
    }

    /// All rows of the read models, as text.
    pub async fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for table in ["balances", "billing_objects", "stripe_links"] {
            let query = format!("select '{table} ' || t::text from {table} t order by 1");
            rows.extend(self.admin.query(&query, &[]).await.expect("rows").iter().map(|row| row.get::<_, String>(0)));
        }
        rows
    }

    /// Changes the log behind the back of its guards.
    pub async fn tamper(&self, sql: &str) {
        let script = format!(
            "begin; alter table events disable trigger events_are_append_only; {sql};
             alter table events enable always trigger events_are_append_only; commit"
        );
        self.admin.batch_execute(&script).await.expect("tampered");
    }

    pub async fn one<T>(&self, sql: &str) -> T
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        self.admin.query_one(sql, &[]).await.expect(sql).get(0)
    }
}

pub async fn debit(service: &Service, name: &str, amount: i64) -> Answer {
    let debit = Command::Debit { debit: Uuid::new_v4(), charge: Charge::Amount(amount) };
    service.execute(account(name), debit, None).await.expect("answered")
}

async fn start(database: &Database, partitions: i16, clock: Arc<ManualClock>) -> (Arc<Service>, Lanes) {
    let settings = ServiceSettings {
        database: database.clone(),
        partitions,
        clock,
        lanes: 2,
        pool_size: 4,
        pool_wait: COMMAND_POOL_WAIT,
        queue_length: 10_000,
        cached_accounts: 100_000,
        cache_bytes: 256 << 20,
        staleness: std::time::Duration::from_millis(250),
        stripe: StripeSettings { account_metadata_keys: vec!["user_id".to_owned()], ..StripeSettings::default() },
        outbound: OutboundSettings::default(),
    };
    Service::start(settings).await.expect("a service")
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

pub fn account(name: &str) -> AccountId {
    AccountId::new(name).expect("a valid id")
}

/// A StripeEvent around an object.
pub fn stripe_event(id: &str, event_type: &str, created: i64, object: Value) -> Value {
    json!({"id": id, "object": "event", "api_version": "2025-08-27.basil", "created": created, "livemode": false,
           "type": event_type, "data": {"object": object}})
}

/// The story of a customer, in the order it happened: a subscription with its paid invoice, a credit pack partly
/// refunded, a payment method that comes and goes, an end.
pub fn story(name: &str) -> Vec<Value> {
    let (cus, sub, inv) = (format!("cus_{name}"), format!("sub_{name}"), format!("in_{name}"));
    let (pi, pack, ch, cs) =
        (format!("pi_{name}"), format!("pi_pack{name}"), format!("ch_{name}"), format!("cs_{name}"));
    let (user, pm, start) = (format!("user_{name}"), format!("pm_{name}"), 1_769_000_000i64);
    let price = json!({"id": "price_1LATyAQhTzLmW4rNUy3GVgva", "currency": "usd", "unit_amount": 900,
        "recurring": {"interval": "month", "interval_count": 1}});
    let subscription = |status: &str, ended: Value| {
        json!({"id": sub, "object": "subscription", "customer": cus, "status": status, "currency": "usd",
            "created": start, "ended_at": ended, "metadata": {"user_id": user}, "items": {"data": [{"id": "si_1",
            "price": price, "quantity": 1, "current_period_start": start, "current_period_end": start + 2_600_000}]}})
    };
    let invoice = json!({"id": inv, "object": "invoice", "customer": cus, "currency": "usd", "status": "paid",
        "billing_reason": "subscription_create", "subtotal": 900, "total": 900, "amount_due": 900, "amount_paid": 900,
        "amount_remaining": 0, "created": start, "payment_intent": pi, "subscription": sub, "lines": {"data": [
        {"id": "il_1", "amount": 900, "price": price, "quantity": 1, "subscription": sub, "proration": false,
         "period": {"start": start, "end": start + 2_600_000}}]}});
    let session = json!({"id": cs, "object": "checkout.session", "mode": "payment", "status": "complete",
        "payment_status": "paid", "customer": cus, "client_reference_id": user, "payment_intent": pack,
        "amount_total": 1_000, "currency": "usd", "created": start, "metadata": {"kind": "credit_pack", "credits": "500"}});
    let charge = |refunded: i64| {
        json!({"id": ch, "object": "charge", "customer": cus, "payment_intent": pack, "status": "succeeded",
            "currency": "usd", "amount": 1_000, "amount_captured": 1_000, "amount_refunded": refunded, "created": start})
    };
    let refund = json!({"id": format!("re_{name}"), "object": "refund", "charge": ch, "payment_intent": pack,
        "status": "succeeded", "currency": "usd", "amount": 300, "created": start + 20});
    let method = |customer: Value| {
        json!({"id": pm, "object": "payment_method", "type": "card", "customer": customer, "created": start,
            "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2030}})
    };
    let customer = json!({"id": cus, "object": "customer", "created": start, "email": format!("{name}@example.com")});
    let mut detached = stripe_event("", "payment_method.detached", start + 40, method(Value::Null));
    detached["data"]["previous_attributes"] = json!({"customer": cus});
    let mut events = vec![
        stripe_event("", "customer.created", start, customer),
        stripe_event("", "payment_method.attached", start, method(json!(cus))),
        stripe_event("", "customer.subscription.created", start, subscription("incomplete", Value::Null)),
        stripe_event("", "customer.subscription.updated", start + 1, subscription("active", Value::Null)),
        stripe_event("", "invoice.paid", start + 1, invoice),
        stripe_event("", "checkout.session.completed", start + 10, session),
        stripe_event("", "charge.succeeded", start + 10, charge(0)),
        stripe_event("", "charge.refunded", start + 20, charge(300)),
        stripe_event("", "refund.created", start + 20, refund),
        detached,
        stripe_event("", "customer.subscription.deleted", start + 50, subscription("canceled", json!(start + 50))),
    ];
    for (n, event) in events.iter_mut().enumerate() {
        event["id"] = json!(format!("evt_{name}_{n}"));
    }
    events
}
