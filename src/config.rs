//! Settings: from the environment, from files for mounted secrets, or from a configuration file, in this order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

mod outbound;

pub use outbound::{Outbound, SecretKey};

/// Partitions of a ledger that nobody asked to have more; see "Sixteen partitions" in ARCHITECTURE.md.
pub const DEFAULT_PARTITIONS: i16 = 16;

/// A setting that cannot be used. The message names it and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    pub setting: String,
    pub problem: String,
}

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// `None`: the embedded Postgres.
    pub database_url: Option<String>,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub catalog: Option<PathBuf>,
    pub admin_key: Option<String>,
    pub webhook_secrets: Vec<String>,
    /// Which events are applied.
    pub livemode: bool,
    /// Calls to Stripe.
    pub outbound: Outbound,
    pub account_metadata_keys: Vec<String>,
    pub log_format: LogFormat,
    pub partitions: i16,
    pub lanes: usize,
    pub pool_size: usize,
    pub queue_length: usize,
    pub cached_accounts: usize,
    pub cache_bytes: usize,
    pub staleness_ms: u64,
    pub http_workers: usize,
    pub inbox_retention_days: u32,
    /// 0: never.
    pub sweep_interval_seconds: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    /// Text on a terminal, JSON elsewhere.
    Auto,
}

/// Every setting with its meaning and default, for `--help` and the example environment.
pub const SETTINGS: &[(&str, &str)] = &[
    ("DATABASE_URL", "Postgres to use (14 to 18); absent: the embedded one"),
    ("SUBLEDGER_DATA_DIR", "folder of the embedded Postgres [./.subledger]"),
    ("SUBLEDGER_LISTEN", "address to serve on [127.0.0.1:8080]"),
    ("SUBLEDGER_CATALOG", "catalog file (TOML), applied at start"),
    ("SUBLEDGER_ADMIN_KEY", "bootstrap API key with every scope; needed to serve beyond loopback"),
    ("STRIPE_WEBHOOK_SECRETS", "the endpoint's whsec_… secrets, comma-separated; all are accepted"),
    ("STRIPE_SECRET_KEY", "Stripe's API key; its prefix tells test from live mode"),
    ("STRIPE_API_BASE", "where Stripe's API is [https://api.stripe.com]"),
    ("STRIPE_ATTEMPT_TIMEOUT_MS", "longest time of one try of a call to Stripe [15000]"),
    ("STRIPE_TIMEOUT_MS", "longest time of a call to Stripe with all its tries [30000]"),
    ("STRIPE_LIVEMODE", "true or false: which events are applied [from the key's prefix, else false]"),
    ("SUBLEDGER_ACCOUNT_METADATA_KEYS", "Stripe metadata keys that hold your account id [account_id,user_id]"),
    ("SUBLEDGER_CHECKOUT_SUCCESS_URL", "where Checkout sends customers who have paid, unless the caller says"),
    ("SUBLEDGER_CHECKOUT_CANCEL_URL", "where Checkout sends customers who turn back, unless the caller says"),
    ("SUBLEDGER_PORTAL_RETURN_URL", "where Stripe's portal sends customers back to, unless the caller says"),
    (
        "SUBLEDGER_ALLOWED_REDIRECT_ORIGINS",
        "origins that callers may send customers back to, comma-separated [those of the three above]",
    ),
    (
        "SUBLEDGER_PAYMENT_ROUTES_PER_MINUTE",
        "calls to payment routes within a minute, for each account; 0: as many as one likes [5]",
    ),
    ("SUBLEDGER_LOG_FORMAT", "json or text [text on a terminal, else json]"),
    ("SUBLEDGER_PARTITIONS", "partitions of a new ledger, 1 to 1024; fixed for ever [16]"),
    ("SUBLEDGER_LANES", "in-process writers [2]"),
    ("SUBLEDGER_POOL_SIZE", "database connections for reading [8]"),
    ("SUBLEDGER_QUEUE_LENGTH", "commands that may wait for a lane before callers are turned away [4096]"),
    ("SUBLEDGER_CACHED_ACCOUNTS", "accounts kept in memory for writing [200000]"),
    ("SUBLEDGER_CACHE_BYTES", "memory for accounts that are read [268435456]"),
    ("SUBLEDGER_STALENESS_MS", "how old an answer from memory may be; 0: none is from memory [250]"),
    ("SUBLEDGER_HTTP_WORKERS", "HTTP threads [one for each core]"),
    ("SUBLEDGER_INBOX_RETENTION_DAYS", "days that applied webhook bodies are kept [90]"),
    (
        "SUBLEDGER_SWEEP_INTERVAL_SECONDS",
        "how often refills and expiry of idle accounts are recorded; 0: when somebody asks [3600]",
    ),
    ("RUST_LOG", "log filter [info]"),
];

/// Where single settings are looked up.
struct Source {
    file: BTreeMap<String, toml::Value>,
}

impl Source {
    fn open(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self { file: BTreeMap::new() }) };
        let error = |problem: String| ConfigError { setting: format!("--config {}", path.display()), problem };
        let text = std::fs::read_to_string(path).map_err(|cause| error(cause.to_string()))?;
        let file: BTreeMap<String, toml::Value> = toml::from_str(&text).map_err(|cause| error(cause.to_string()))?;
        for key in file.keys() {
            if !SETTINGS.iter().any(|(name, _)| name == key) {
                return Err(error(format!("{key} is no setting; `subledger serve --help` lists them")));
            }
        }
        Ok(Self { file })
    }

    /// `NAME`, else the contents of the file that `NAME_FILE` names, else the configuration file's.
    fn get(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let present = |value: String| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        if let Some(value) = std::env::var(name).ok().and_then(present) {
            return Ok(Some(value));
        }
        let file_name = format!("{name}_FILE");
        if let Ok(path) = std::env::var(&file_name) {
            let read = std::fs::read_to_string(&path);
            let error = |cause: std::io::Error| ConfigError { setting: file_name, problem: format!("{path}: {cause}") };
            return Ok(present(read.map_err(error)?));
        }
        Ok(self.file.get(name).and_then(|value| match value {
            toml::Value::String(text) => present(text.clone()),
            other => Some(other.to_string()),
        }))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, default: T, expected: &str) -> Result<T, ConfigError> {
        match self.get(name)? {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| ConfigError {
                setting: name.to_owned(),
                problem: format!("{value:?} must be {expected}"),
            }),
        }
    }

    fn number(&self, name: &str, default: usize, min: usize, max: usize) -> Result<usize, ConfigError> {
        let expected = format!("a whole number from {min} to {max}");
        let number = self.parsed(name, default, &expected)?;
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(ConfigError { setting: name.to_owned(), problem: format!("{number} must be {expected}") })
    }

    fn list(&self, name: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let split = |value: String| value.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
        Ok(self.get(name)?.map(split).map(|parts| parts.into_iter().filter(|part| !part.is_empty()).collect()))
    }
}

impl Config {
    /// Reads all settings.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let source = Source::open(file)?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let keys = source.list("SUBLEDGER_ACCOUNT_METADATA_KEYS")?;
        let livemode = livemode(&source)?;
        let partitions =
            source.number("SUBLEDGER_PARTITIONS", usize::from(DEFAULT_PARTITIONS.unsigned_abs()), 1, 1_024)?;
        Ok(Self {
            database_url: source.get("DATABASE_URL")?,
            data_dir: source.get("SUBLEDGER_DATA_DIR")?.map_or_else(|| PathBuf::from(".subledger"), PathBuf::from),
            listen: source.parsed(
                "SUBLEDGER_LISTEN",
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                "an address and port, such as 127.0.0.1:8080",
            )?,
            catalog: source.get("SUBLEDGER_CATALOG")?.map(PathBuf::from),
            admin_key: admin_key(source.get("SUBLEDGER_ADMIN_KEY")?)?,
            webhook_secrets: webhook_secrets(source.list("STRIPE_WEBHOOK_SECRETS")?.unwrap_or_default())?,
            livemode,
            outbound: Outbound::load(&source, livemode)?,
            account_metadata_keys: keys.unwrap_or_else(|| vec!["account_id".to_owned(), "user_id".to_owned()]),
            log_format: log_format(source.get("SUBLEDGER_LOG_FORMAT")?)?,
            partitions: i16::try_from(partitions).unwrap_or(DEFAULT_PARTITIONS),
            lanes: source.number("SUBLEDGER_LANES", 2, 1, 64)?,
            pool_size: source.number("SUBLEDGER_POOL_SIZE", 8, 2, 1_000)?,
            queue_length: source.number("SUBLEDGER_QUEUE_LENGTH", 4_096, 16, 1_000_000)?,
            cached_accounts: source.number("SUBLEDGER_CACHED_ACCOUNTS", 200_000, 1_024, 100_000_000)?,
            cache_bytes: source.number("SUBLEDGER_CACHE_BYTES", 256 << 20, 0, 1 << 40)?,
            staleness_ms: source.number("SUBLEDGER_STALENESS_MS", 250, 0, 60_000)? as u64,
            http_workers: source.number("SUBLEDGER_HTTP_WORKERS", cores, 1, 1_024)?,
            inbox_retention_days: u32::try_from(source.number("SUBLEDGER_INBOX_RETENTION_DAYS", 90, 1, 36_500)?)
                .unwrap_or(90),
            sweep_interval_seconds: source.number("SUBLEDGER_SWEEP_INTERVAL_SECONDS", 3_600, 0, 31_536_000)? as u64,
        })
    }
}

/// Guessable keys are worse than none.
fn admin_key(key: Option<String>) -> Result<Option<String>, ConfigError> {
    const MIN_LEN: usize = 16;
    if key.as_ref().is_some_and(|key| key.len() < MIN_LEN) {
        let problem = format!("must have at least {MIN_LEN} characters, such as those of `openssl rand -hex 32`");
        return Err(ConfigError { setting: "SUBLEDGER_ADMIN_KEY".to_owned(), problem });
    }
    Ok(key)
}

fn webhook_secrets(secrets: Vec<String>) -> Result<Vec<String>, ConfigError> {
    if secrets.iter().any(|secret| !secret.starts_with("whsec_")) {
        let problem = "each must start with whsec_, as Stripe's dashboard shows them".to_owned();
        return Err(ConfigError { setting: "STRIPE_WEBHOOK_SECRETS".to_owned(), problem });
    }
    Ok(secrets)
}

fn livemode(source: &Source) -> Result<bool, ConfigError> {
    if source.get("STRIPE_LIVEMODE")?.is_some() {
        return source.parsed("STRIPE_LIVEMODE", false, "true or false");
    }
    let key = source.get("STRIPE_SECRET_KEY")?.unwrap_or_default();
    Ok(outbound::is_live(&key))
}

fn log_format(format: Option<String>) -> Result<LogFormat, ConfigError> {
    match format.as_deref() {
        None => Ok(LogFormat::Auto),
        Some("json") => Ok(LogFormat::Json),
        Some("text") => Ok(LogFormat::Text),
        Some(other) => Err(ConfigError {
            setting: "SUBLEDGER_LOG_FORMAT".to_owned(),
            problem: format!("{other:?} must be json or text"),
        }),
    }
}

impl std::fmt::Debug for Config {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("database", &self.database_url.as_ref().map_or("embedded", |_| "DATABASE_URL"))
            .field("listen", &self.listen)
            .field("webhook_secrets", &self.webhook_secrets.len())
            .field("livemode", &self.livemode)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}
