//! Putting a service together, and taking it apart in order.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::app::mail::MailSettings;
use crate::app::outbound::OutboundSettings;
use crate::app::service::{Lanes, Service, ServiceSettings, StripeSettings};
use crate::app::settings;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, NOT_STORED, Origin, SETTINGS, StripeCalls};
use crate::domain::catalog::Catalog;
use crate::domain::redirect::Redirects;
use crate::embedded_postgres::{self, Durability, EmbeddedPostgres, EmbeddedPostgresError};
use crate::http::auth::Auth;
use crate::http::server::{self, State};
use crate::store::connect::{COMMAND_POOL_WAIT, Database, POOL_WAIT};
use crate::store::{inbox, keys, migrate, stripe_writes};
use crate::stripe::client::ClientSettings;

/// How often old webhook bodies are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Why the service does not start, in one line with its cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Of the command line, as far as only the command itself can tell.
    #[error("{argument} {problem}")]
    Argument { argument: &'static str, problem: String },
    #[error(transparent)]
    Embedded(#[from] EmbeddedPostgresError),
    #[error(transparent)]
    Store(#[from] crate::store::error::StoreError),
    #[error(transparent)]
    Settings(#[from] crate::app::settings::SettingsError),
    #[error(transparent)]
    App(#[from] crate::app::error::AppError),
    #[error(transparent)]
    Stripe(#[from] crate::stripe::client::StripeCallError),
    #[error("the catalog {path} cannot be read: {cause}")]
    CatalogFile { path: String, cause: std::io::Error },
    #[error("the catalog {path} is not valid:\n{errors}")]
    Catalog { path: String, errors: String },
    #[error(
        "{0} is reachable from elsewhere, and no API key exists: set SUBLEDGER_ADMIN_KEY, or make a key first with \
         `subledger keys create --scope admin`, or listen on 127.0.0.1"
    )]
    OpenToAll(std::net::SocketAddr),
    #[error("cannot listen on {address}: {cause}; set SUBLEDGER_LISTEN to a free address")]
    Listen { address: std::net::SocketAddr, cause: std::io::Error },
}

/// The database to work with: the one that was named, or an embedded one that lives as long as this does.
#[derive(Debug)]
pub struct Ground {
    pub database: Database,
    embedded: Option<EmbeddedPostgres>,
}

impl Ground {
    /// Starts the embedded Postgres unless a database is named.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        if let Some(url) = &config.database_url {
            return Ok(Self { database: Database::parse(url)?, embedded: None });
        }
        let embedded = EmbeddedPostgres::start(&config.data_dir, Durability::Durable).await?;
        Ok(Self { database: Database::parse(&embedded.url())?, embedded: Some(embedded) })
    }

    /// The same for a command that may run beside a service, whose embedded Postgres it then shares.
    pub async fn open_beside(config: &Config) -> Result<Self, StartError> {
        match Self::open(config).await {
            Err(StartError::Embedded(EmbeddedPostgresError::InUse { .. })) => {
                let url = embedded_postgres::url_of_running(&config.data_dir)?;
                Ok(Self { database: Database::parse(&url)?, embedded: None })
            }
            other => other,
        }
    }

    /// Whether there is a database to open: one is named, or the embedded one has been made.
    fn is_at_hand(config: &Config) -> bool {
        config.database_url.is_some() || config.data_dir.exists()
    }

    /// Stops the embedded Postgres, if there is one.
    pub async fn close(self) -> Result<(), StartError> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

/// A migrated database with lanes at work on it.
#[derive(Debug)]
pub struct Running {
    pub service: Arc<Service>,
    /// With what the settings table has.
    pub config: Config,
    lanes: Lanes,
}

impl Running {
    /// Migrates, reads the settings table, and starts the lanes: for a command, beside a service or without one.
    pub async fn start(config: &Config, database: &Database) -> Result<Self, StartError> {
        Self::start_with(config, database, false).await
    }

    /// The same, with all that a service does by itself.
    pub async fn start_serving(config: &Config, database: &Database) -> Result<Self, StartError> {
        Self::start_with(config, database, true).await
    }

    async fn start_with(config: &Config, database: &Database, is_serving: bool) -> Result<Self, StartError> {
        let partitions = migrate::migrate(database, config.partitions).await?;
        let config = with_table(config, database).await?;
        let settings = ServiceSettings {
            database: database.clone(),
            partitions,
            clock: Arc::new(SystemClock),
            lanes: config.lanes,
            pool_size: config.pool_size,
            pool_wait: if is_serving { POOL_WAIT } else { COMMAND_POOL_WAIT },
            queue_length: config.queue_length,
            cached_accounts: config.cached_accounts,
            cache_bytes: config.cache_bytes,
            staleness: Duration::from_millis(config.staleness_ms),
            stripe: StripeSettings {
                webhook_secrets: config.webhook_secrets.clone(),
                livemode: config.livemode,
                account_metadata_keys: config.account_metadata_keys.clone(),
                client: stripe_client_settings(&config.stripe_calls),
                redirects: redirects(&config.stripe_calls)?,
                payment_routes_per_minute: config.stripe_calls.payment_routes_per_minute,
            },
            outbound: outbound_settings(&config, is_serving)?,
        };
        let (service, lanes) = Service::start(settings).await?;
        Ok(Self { service, config, lanes })
    }

    /// Finishes what was accepted.
    pub async fn stop(self) {
        self.service.stop();
        self.lanes.finish().await;
    }
}

/// The settings as a service would have them, for a command that needs nothing else of a database; without one, those
/// that are given elsewhere.
pub async fn settings_of_service(config: &Config) -> Result<Config, StartError> {
    if !Ground::is_at_hand(config) {
        return Ok(config.clone());
    }
    let ground = Ground::open_beside(config).await?;
    let read = async {
        migrate::migrate(&ground.database, config.partitions).await?;
        with_table(config, &ground.database).await
    };
    let read = read.await;
    ground.close().await?;
    read
}

/// The settings with those that only the settings table gives. What something else gives is not even opened.
async fn with_table(config: &Config, database: &Database) -> Result<Config, StartError> {
    let client = database.connect_as_owner().await?;
    let mut wanted = BTreeSet::new();
    for (name, _) in SETTINGS.iter().filter(|(name, _)| !NOT_STORED.contains(name)) {
        if config.origin(name)?.is_none_or(|origin| origin == Origin::SettingsTable) {
            wanted.insert(*name);
        }
    }
    let table = settings::read(&client, &config.master_keys, |name| wanted.contains(name)).await?;
    if !table.is_empty() {
        let names: Vec<&str> = table.keys().map(String::as_str).collect();
        tracing::info!(names = names.join(","), "settings taken from the settings table");
    }
    Ok(config.with_table(table)?)
}

fn outbound_settings(config: &Config, is_at_work: bool) -> Result<OutboundSettings, StartError> {
    let mail = config.mail.clone().map(|mail| MailSettings { smtp_url: mail.smtp_url, from: mail.from });
    if let Some(Err((setting, problem))) = mail.as_ref().map(MailSettings::check) {
        return Err(ConfigError { setting: setting.to_owned(), problem }.into());
    }
    let (allow_private_webhooks, master_keys) = (config.allow_private_webhooks, config.master_keys.clone());
    Ok(OutboundSettings { is_at_work, allow_private_webhooks, master_keys, mail })
}

/// How the settings say that Stripe is called.
pub fn stripe_client_settings(calls: &StripeCalls) -> ClientSettings {
    let defaults = ClientSettings::default();
    ClientSettings {
        secret_key: calls.secret_key.as_ref().map(|key| key.reveal().to_owned()),
        base: calls.api_base.clone().unwrap_or(defaults.base),
        attempt_timeout: Duration::from_millis(calls.attempt_timeout_ms),
        timeout: Duration::from_millis(calls.timeout_ms),
        ..ClientSettings::default()
    }
}

fn redirects(calls: &StripeCalls) -> Result<Redirects, ConfigError> {
    let (success, cancel) = (&calls.checkout_success_url, &calls.checkout_cancel_url);
    let portal = calls.portal_return_url.clone();
    let read = Redirects::new(&calls.allowed_redirect_origins, success.clone(), cancel.clone(), portal);
    read.map_err(|(url, error)| {
        let setting = "SUBLEDGER_ALLOWED_REDIRECT_ORIGINS, SUBLEDGER_CHECKOUT_…_URL or SUBLEDGER_PORTAL_RETURN_URL";
        ConfigError { setting: setting.to_owned(), problem: format!("{url:?} {error}") }
    })
}

/// Reads and checks a catalog file.
pub fn read_catalog(path: &Path) -> Result<Catalog, StartError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| StartError::CatalogFile { path: name.clone(), cause })?;
    Catalog::from_toml(&text).map_err(|errors| StartError::Catalog { path: name, errors: errors.to_string() })
}

/// Serves until `shutdown` ends, then stops in order: no new requests, those under way, the lanes, Postgres.
///
/// `ready` is called once the service answers.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Running),
) -> Result<(), StartError> {
    // Taken first, so that a port in use is said before Postgres is started.
    let listener =
        TcpListener::bind(config.listen).map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    let catalog = config.catalog.as_deref().map(read_catalog).transpose()?;
    let ground = Ground::open(&config).await?;
    let running = Running::start_serving(&config, &ground.database).await?;
    let (service, config) = (Arc::clone(&running.service), running.config.clone());
    refuse_open_door(&config, &service).await?;
    if let Some(catalog) = catalog {
        let file = catalog.digest();
        let is_new = service.apply_catalog_at_start(catalog).await?;
        let active = service.catalog.current();
        tracing::info!(version = active.digest, is_new, "catalog applied");
        if active.digest != file {
            tracing::info!(
                version = active.digest,
                file,
                "what was changed since the catalog's file was applied stays"
            );
        }
    }
    let pruning = prune_inbox(Arc::clone(&service), config.inbox_retention_days);
    let sweeping = sweep(Arc::clone(&service), config.sweep_interval_seconds);
    let reporting = report_revenue(Arc::clone(&service), config.revenue_interval_seconds);
    let auth = Auth::new(config.admin_key.as_deref(), config.listen.ip().is_loopback());
    tracing::info!(address = %config.listen, partitions = service.partitions, lanes = config.lanes, "serving");
    ready(&running);
    let served = server::run(listener, State::new(Arc::clone(&service), auth), config.http_workers, shutdown).await;
    pruning.abort();
    sweeping.abort();
    reporting.abort();
    running.stop().await;
    ground.close().await?;
    served.map_err(|cause| StartError::Listen { address: config.listen, cause })?;
    tracing::info!("stopped");
    Ok(())
}

/// Beyond loopback, somebody must hold a key.
async fn refuse_open_door(config: &Config, service: &Service) -> Result<(), StartError> {
    if config.listen.ip().is_loopback() || config.admin_key.is_some() {
        return Ok(());
    }
    let client = service.connection().await?;
    if keys::any(&**client).await? { Ok(()) } else { Err(StartError::OpenToAll(config.listen)) }
}

fn prune_inbox(service: Arc<Service>, retention_days: u32) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let before = SystemClock.now() - chrono::Duration::days(i64::from(retention_days));
            let pruned = match service.connection().await {
                Ok(client) => inbox::prune(&**client, before).await,
                Err(error) => Err(error),
            };
            prune_stripe_writes(&service).await;
            match pruned {
                Ok(0) => {}
                Ok(bodies) => tracing::info!(bodies, "old webhook bodies dropped"),
                Err(error) => tracing::warn!(%error, "old webhook bodies could not be dropped; trying again later"),
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        }
    })
}

/// Stripe forgets its keys after a day or so; a week is long enough for any repeat.
async fn prune_stripe_writes(service: &Service) {
    let before = SystemClock.now() - chrono::Duration::days(7);
    let pruned = match service.connection().await {
        Ok(client) => stripe_writes::prune(&**client, before).await,
        Err(error) => Err(error),
    };
    if let Err(error) = pruned {
        tracing::warn!(%error, "old requests to Stripe could not be dropped; trying again later");
    }
}

fn sweep(service: Arc<Service>, interval_seconds: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        if interval_seconds == 0 {
            return;
        }
        loop {
            match service.sweep().await {
                Ok(0) => {}
                Ok(accounts) => tracing::info!(accounts, "refills and expiry of idle accounts recorded"),
                Err(error) => tracing::warn!(%error, "idle accounts could not be swept; trying again later"),
            }
            tokio::time::sleep(Duration::from_secs(interval_seconds)).await;
        }
    })
}

fn report_revenue(service: Arc<Service>, interval_seconds: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Ok(seconds) = i64::try_from(interval_seconds) else { return };
        if seconds == 0 {
            return;
        }
        loop {
            // Of several replicas, the others show what the first has made.
            if let Err(error) = service.refresh_revenue(chrono::Duration::seconds(seconds)).await {
                tracing::warn!(%error, "the revenue report could not be made; trying again later");
            }
            tokio::time::sleep(Duration::from_secs(interval_seconds)).await;
        }
    })
}

/// Ends when the process is told to stop (Ctrl-C, or SIGTERM).
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
