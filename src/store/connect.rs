//! Connections: a pool for readers, and direct ones for the lanes.

use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;
use super::tls::{TlsMode, TlsSettings};

/// How long callers of a service wait for a connection of an exhausted pool before they are told so.
pub const POOL_WAIT: Duration = Duration::from_millis(100);
/// How long a command does: nobody waits for it but whoever started it, and half of its work done is none.
pub const COMMAND_POOL_WAIT: Duration = Duration::from_secs(60);
/// How long to wait for Postgres to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Gives up on a peer that has gone silent, so that a cut cable is noticed.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the peer is asked for a sign of life: it may have died with our query in
/// its hands, and then there is nothing to send that would show it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Puts a connection into the service's own, weaker role, where that role exists and the login may take it.
const BECOME_SERVICE: &str = "
    do $$ begin
        if pg_has_role(current_user, 'subledger_service', 'member') then
            execute 'set role subledger_service';
        end if;
    exception when undefined_object or insufficient_privilege then null;
    end $$";

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Database {
    /// Reads a `postgres://` URL or key=value settings.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let (tls, url) = TlsSettings::split(url)?;
        let mut config = Config::from_str(&url)
            .map_err(|error| StoreError::Refused(format!("DATABASE_URL cannot be read: {error}")))?;
        config.connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.application_name("subledger");
        config.ssl_mode(tls.ssl_mode());
        // A name to hold a certificate against is needed, and a socket of this machine has no wire.
        let is_local =
            !config.get_hosts().is_empty() && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let is_nameless = config.get_hosts().is_empty() && tls.mode == TlsMode::Prefer;
        if is_local || is_nameless {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Self { config, tls: tls.connector()? })
    }

    /// A pool for queries, working as the service's role.
    pub fn pool(&self, size: usize) -> Result<Pool, StoreError> {
        self.pool_with_wait(size, POOL_WAIT)
    }

    /// The same, where a connection may take `wait` to come free.
    pub fn pool_with_wait(&self, size: usize, wait: Duration) -> Result<Pool, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = deadpool_postgres::Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let timeouts = Timeouts { wait: Some(wait), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        let become_service = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(BECOME_SERVICE).await.map_err(HookError::Backend) })
        });
        Pool::builder(manager)
            .max_size(size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(become_service)
            .build()
            .map_err(|error| StoreError::Refused(error.to_string()))
    }

    /// A connection of one's own, working as the service's role.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        let client = self.connect_as_owner().await?;
        client.batch_execute(BECOME_SERVICE).await?;
        Ok(client)
    }

    /// A connection of one's own with the login's full rights: for migrations and rebuilds.
    pub async fn connect_as_owner(&self) -> Result<Client, StoreError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a database connection broke");
            }
        });
        Ok(client)
    }
}
