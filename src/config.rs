//! Settings: from the environment, from files for mounted secrets, from a configuration file, or from the settings table,
//! in this order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

mod stripe;

use crate::sealing::MasterKeys;
pub use stripe::{SecretKey, StripeCalls};

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
    /// For secrets in the database; may be none.
    pub master_keys: MasterKeys,
    pub webhook_secrets: Vec<String>,
    /// Which events are applied.
    pub livemode: bool,
    /// Calls to Stripe.
    pub stripe_calls: StripeCalls,
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
    /// 0: only on request.
    pub revenue_interval_seconds: u64,
    pub allow_private_webhooks: bool,
    pub mail: Option<MailConfig>,
    source: Source,
}

/// Where mail goes, and whom it comes from.
#[derive(Clone)]
pub struct MailConfig {
    pub smtp_url: String,
    pub from: String,
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
    ("SUBLEDGER_MASTER_KEYS", "id:key pairs that encrypt secrets in the database; the first encrypts, all decrypt"),
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
    (
        "SUBLEDGER_REVENUE_INTERVAL_SECONDS",
        "how often the revenue report and its metrics are made anew; 0: when somebody asks [3600]",
    ),
    (
        "SUBLEDGER_ALLOW_PRIVATE_WEBHOOKS",
        "true: webhook endpoints may lie in this network, and be reached without TLS [false]",
    ),
    ("SUBLEDGER_SMTP_URL", "mail server for notifications, smtps://user:password@host; absent: none are mailed"),
    ("SUBLEDGER_MAIL_FROM", "whom that mail comes from, such as Example <billing@example.com>"),
    ("RUST_LOG", "log filter [info]"),
];

/// Settings that are secrets: they go into the settings table encrypted or not at all.
pub const SECRETS: &[&str] = &[
    "DATABASE_URL",
    "SUBLEDGER_ADMIN_KEY",
    "SUBLEDGER_MASTER_KEYS",
    "SUBLEDGER_SMTP_URL",
    "STRIPE_WEBHOOK_SECRETS",
    "STRIPE_SECRET_KEY",
];

/// Settings that the settings table cannot hold, since they are needed before it can be read, or belong to one machine.
pub const NOT_STORED: &[&str] = &[
    "DATABASE_URL",
    "SUBLEDGER_DATA_DIR",
    "SUBLEDGER_LISTEN",
    "SUBLEDGER_CATALOG",
    "SUBLEDGER_MASTER_KEYS",
    "SUBLEDGER_LOG_FORMAT",
    "SUBLEDGER_PARTITIONS",
    "RUST_LOG",
];

/// What gives a setting, what goes before all others first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Environment,
    /// The file that `NAME_FILE` names.
    MountedFile,
    ConfigFile,
    SettingsTable,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::MountedFile => "mounted_file",
            Self::ConfigFile => "config_file",
            Self::SettingsTable => "settings_table",
        }
    }
}

/// Where single settings are looked up.
#[derive(Clone, Default)]
struct Source {
    /// Whether the environment counts.
    environment: bool,
    file: BTreeMap<String, toml::Value>,
    table: BTreeMap<String, String>,
    defaults: BTreeMap<&'static str, String>,
}

impl Source {
    fn open(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self { environment: true, ..Self::default() }) };
        let error = |problem: String| ConfigError { setting: format!("--config {}", path.display()), problem };
        let text = std::fs::read_to_string(path).map_err(|cause| error(cause.to_string()))?;
        let parsed = toml::from_str::<BTreeMap<String, toml::Value>>(&text);
        // The parser's own message shows the line, which may hold a secret.
        let file = parsed.map_err(|cause| {
            let line =
                cause.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            error(format!("line {line}: {}", cause.message()))
        })?;
        for key in file.keys() {
            if !SETTINGS.iter().any(|(name, _)| name == key) {
                return Err(error(format!("{key} is no setting; `subledger serve --help` lists them")));
            }
        }
        Ok(Self { environment: true, file, ..Self::default() })
    }

    /// `NAME`, else the contents of the file that `NAME_FILE` names, else the configuration file's, else the table's.
    fn find(&self, name: &str) -> Result<Option<(Origin, String)>, ConfigError> {
        let present = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        if let Some(value) = std::env::var(name).ok().filter(|_| self.environment).as_deref().and_then(present) {
            return Ok(Some((Origin::Environment, value)));
        }
        let file_name = format!("{name}_FILE");
        if let Some(path) = std::env::var(&file_name).ok().filter(|_| self.environment) {
            let read = std::fs::read_to_string(&path);
            let error = |cause: std::io::Error| ConfigError { setting: file_name, problem: format!("{path}: {cause}") };
            if let Some(value) = present(&read.map_err(error)?) {
                return Ok(Some((Origin::MountedFile, value)));
            }
        }
        let in_file = self.file.get(name).and_then(|value| match value {
            toml::Value::String(text) => present(text),
            other => Some(other.to_string()),
        });
        if let Some(value) = in_file {
            return Ok(Some((Origin::ConfigFile, value)));
        }
        Ok(self.table.get(name).map(|value| (Origin::SettingsTable, value.clone())))
    }

    fn get(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let found = self.find(name)?.map(|(_, value)| value);
        Ok(found.or_else(|| self.defaults.get(name).cloned()))
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
    /// Reads all settings but those of the settings table.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(Source::open(file)?)
    }

    /// The same with what the settings table has.
    pub fn with_table(&self, table: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::read(Source { table, ..self.source.clone() })
    }

    /// The same with a default of a command's own.
    pub fn with_default(&self, name: &'static str, value: &str) -> Result<Self, ConfigError> {
        let mut source = self.source.clone();
        source.defaults.insert(name, value.to_owned());
        Self::read(source)
    }

    /// What gives a setting; `None`: it has its default.
    pub fn origin(&self, name: &str) -> Result<Option<Origin>, ConfigError> {
        Ok(self.source.find(name)?.map(|(origin, _)| origin))
    }

    /// Whether the settings table may give a setting this value.
    pub fn check_stored(name: &str, value: &str) -> Result<(), ConfigError> {
        let error = |problem: &str| Err(ConfigError { setting: name.to_owned(), problem: problem.to_owned() });
        if !SETTINGS.iter().any(|(known, _)| *known == name) {
            return error("is no setting; `subledger serve --help` lists them");
        }
        if NOT_STORED.contains(&name) {
            return error(
                "cannot be kept in the settings table: it is needed before the table can be read, or belongs to one \
                 machine; set it in the environment, as NAME_FILE, or in --config",
            );
        }
        if value.trim().is_empty() {
            return error("is empty; `subledger settings unset` takes a setting away");
        }
        let table = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Self::read(Source { table, ..Source::default() }).map(|_| ())
    }

    fn read(source: Source) -> Result<Self, ConfigError> {
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
            master_keys: master_keys(source.get("SUBLEDGER_MASTER_KEYS")?)?,
            webhook_secrets: webhook_secrets(source.list("STRIPE_WEBHOOK_SECRETS")?.unwrap_or_default())?,
            livemode,
            stripe_calls: StripeCalls::load(&source, livemode)?,
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
            revenue_interval_seconds: source.number("SUBLEDGER_REVENUE_INTERVAL_SECONDS", 3_600, 0, 31_536_000)? as u64,
            allow_private_webhooks: source.parsed("SUBLEDGER_ALLOW_PRIVATE_WEBHOOKS", false, "true or false")?,
            mail: mail(source.get("SUBLEDGER_SMTP_URL")?, source.get("SUBLEDGER_MAIL_FROM")?)?,
            source,
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

fn master_keys(keys: Option<String>) -> Result<MasterKeys, ConfigError> {
    let error = |problem: String| ConfigError { setting: "SUBLEDGER_MASTER_KEYS".to_owned(), problem };
    MasterKeys::parse(&keys.unwrap_or_default()).map_err(|cause| error(cause.to_string()))
}

impl std::fmt::Debug for MailConfig {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailConfig").field("from", &self.from).finish_non_exhaustive()
    }
}

fn webhook_secrets(secrets: Vec<String>) -> Result<Vec<String>, ConfigError> {
    if secrets.iter().any(|secret| !secret.starts_with("whsec_")) {
        let problem = "each must start with whsec_, as Stripe's dashboard shows them".to_owned();
        return Err(ConfigError { setting: "STRIPE_WEBHOOK_SECRETS".to_owned(), problem });
    }
    Ok(secrets)
}

/// One without the other is a mistake.
fn mail(smtp_url: Option<String>, from: Option<String>) -> Result<Option<MailConfig>, ConfigError> {
    let missing = |setting: &str, other: &str| {
        let problem = format!("is needed beside {other}, or neither of them");
        Err(ConfigError { setting: setting.to_owned(), problem })
    };
    match (smtp_url, from) {
        (Some(smtp_url), Some(from)) => Ok(Some(MailConfig { smtp_url, from })),
        (None, None) => Ok(None),
        (Some(_), None) => missing("SUBLEDGER_MAIL_FROM", "SUBLEDGER_SMTP_URL"),
        (None, Some(_)) => missing("SUBLEDGER_SMTP_URL", "SUBLEDGER_MAIL_FROM"),
    }
}

fn livemode(source: &Source) -> Result<bool, ConfigError> {
    if source.get("STRIPE_LIVEMODE")?.is_some() {
        return source.parsed("STRIPE_LIVEMODE", false, "true or false");
    }
    let key = source.get("STRIPE_SECRET_KEY")?.unwrap_or_default();
    Ok(stripe::is_live(&key))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_like_a_secret_is_one() {
        const SOUNDS: [&str; 4] = ["KEY", "SECRET", "PASSWORD", "TOKEN"];
        const NONE: &[&str] = &["SUBLEDGER_ACCOUNT_METADATA_KEYS"];
        for (name, _) in SETTINGS {
            let sounds = SOUNDS.iter().any(|sound| name.contains(sound));
            assert!(
                !sounds || SECRETS.contains(name) || NONE.contains(name),
                "{name}: SECRETS or, if it is none, NONE"
            );
        }
        for name in SECRETS.iter().chain(NOT_STORED) {
            assert!(SETTINGS.iter().any(|(known, _)| known == name), "{name} is no setting");
        }
    }

    #[test]
    fn secrets_are_in_no_debug_output() {
        let settings = [
            ("DATABASE_URL", "postgres://user:hidden@localhost/x"),
            ("SUBLEDGER_ADMIN_KEY", "hidden-0123456789"),
            ("SUBLEDGER_SMTP_URL", "smtps://user:hidden@localhost"),
            ("SUBLEDGER_MAIL_FROM", "billing@example.com"),
            ("STRIPE_WEBHOOK_SECRETS", "whsec_hidden"),
            ("STRIPE_SECRET_KEY", "sk_test_hidden"),
        ];
        let file = settings.map(|(name, value)| (name.to_owned(), toml::Value::String(value.to_owned())));
        let config = Config::read(Source { file: file.into(), ..Source::default() }).expect("valid");
        let shown = format!("{config:?} {:?} {:?}", config.stripe_calls, config.mail);
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn the_table_comes_before_defaults_alone() {
        let config = Config::read(Source::default()).expect("the defaults");
        assert_eq!((config.lanes, config.origin("SUBLEDGER_LANES").expect("readable")), (2, None));
        let given = config.with_default("SUBLEDGER_LANES", "3").expect("valid");
        assert_eq!(given.lanes, 3);
        let table = |value: &str| BTreeMap::from([("SUBLEDGER_LANES".to_owned(), value.to_owned())]);
        let stored = given.with_table(table("4")).expect("valid");
        let origin = stored.origin("SUBLEDGER_LANES").expect("readable");
        assert_eq!((stored.lanes, origin), (4, Some(Origin::SettingsTable)));
        let file = BTreeMap::from([("SUBLEDGER_LANES".to_owned(), toml::Value::Integer(5))]);
        let filed = Config::read(Source { file, table: table("4"), ..Source::default() }).expect("valid");
        assert_eq!(filed.lanes, 5);
        assert!(config.with_table(table("no number")).is_err());
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused_before_it_is_there() {
        for (name, value) in [
            ("SUBLEDGER_LANSE", "2"),
            ("DATABASE_URL", "postgres://localhost/x"),
            ("SUBLEDGER_LANES", " "),
            ("SUBLEDGER_LANES", "two"),
            ("STRIPE_WEBHOOK_SECRETS", "not one"),
        ] {
            let error = Config::check_stored(name, value).expect_err(name);
            assert_eq!(error.setting, name);
        }
        Config::check_stored("SUBLEDGER_LANES", "4").expect("valid");
    }
}
