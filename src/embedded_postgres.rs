//! A private Postgres for those who have not brought one: found on the machine, set up in a folder of
//! the service's own, started before it and stopped after it.
//!
//! Everything lives in one folder, and only one service at a time may use it:
//!
//! | file | |
//! |---|---|
//! | `lock` | held (`flock`) while a service owns the folder; names its process |
//! | `cluster/` | the data folder of Postgres |
//! | `password` | of the only role, `subledger`; mode 0600 |
//! | `port` | kept, so that a restart listens where the last run did |
//! | `server.log` | what Postgres says |
//! | `location` | only when the folder had to lie elsewhere: where |
//!
//! The server listens on 127.0.0.1 alone, has no Unix socket and asks everybody for the password.
//! It never runs as root. It is told to stop when the service dies, however that happens, and is started
//! again should it die while the service lives.

mod account;
mod binaries;
mod folder;
mod leftovers;
mod server;

use std::{
    fmt, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use folder::Folder;
use server::Server;
use tokio_postgres::NoTls;

pub use binaries::find_binaries;

/// The one role of the embedded server, and the name of the database the service uses.
const NAME: &str = "subledger";

/// How often a port taken by somebody else between our look and the server's is worth another try.
const PORT_ATTEMPTS: u32 = 5;

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: `fsync`, `synchronous_commit` and `full_page_writes` are off. For tests only.
    Volatile,
}

/// Why the embedded Postgres could not be started or stopped. Each message names the cure.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedPostgresError {
    #[error(
        "no PostgreSQL server found (looked for initdb and postgres in /usr/lib/postgresql/*/bin, PATH and \
         ./.postgres/bin): run scripts/provide-postgres.sh, or name their folder in PG_BINDIR, or set \
         DATABASE_URL to use a server of your own"
    )]
    NoBinaries,
    #[error("PG_BINDIR is {path}, but initdb and postgres are not in it: correct it or unset it", path = .0.display())]
    WrongBinariesFolder(PathBuf),
    #[error(
        "cannot run {path} as user {user}: {detail}; put the binaries where that user can reach them and name \
         their folder in PG_BINDIR, or set DATABASE_URL",
        path = .path.display()
    )]
    UnusableBinaries { path: PathBuf, user: String, detail: String },
    #[error(
        "PostgreSQL {found} in {path} is too old: install version {oldest} or newer, or set DATABASE_URL",
        path = .path.display(), oldest = binaries::OLDEST_MAJOR
    )]
    TooOld { found: u32, path: PathBuf },
    #[error(
        "{path} was made by PostgreSQL {made_by}, but only version {found} was found: install PostgreSQL \
         {made_by} or name its folder in PG_BINDIR; or, if the data may go, remove that folder",
        path = .path.display()
    )]
    OtherVersion { path: PathBuf, made_by: u32, found: String },
    #[error(
        "the service runs as root, Postgres must not, and there is neither a user `postgres` nor `nobody`: \
         create one (useradd --system postgres), or run the service as an ordinary user, or set DATABASE_URL"
    )]
    NoUnprivilegedUser,
    #[error(
        "user id {0} has no entry in the user database, and Postgres refuses to run without one: add it to \
         /etc/passwd, or run as another user, or set DATABASE_URL"
    )]
    UnknownUser(u32),
    #[error(
        "{path} belongs to user id {owner}: run the service as that user, or name another folder in \
         SUBLEDGER_DATA_DIR",
        path = .path.display()
    )]
    ForeignFolder { path: PathBuf, owner: u32 },
    #[error(
        "another service (process {owner}) is using {path}: stop it, or name another folder in SUBLEDGER_DATA_DIR",
        path = .path.display()
    )]
    InUse { path: PathBuf, owner: String },
    #[error(
        "the password of the embedded Postgres is gone: put {path} back; or, if the data may go, remove the \
         folder it was in",
        path = .0.display()
    )]
    PasswordMissing(PathBuf),
    #[error("initdb failed: {0}")]
    InitFailed(String),
    #[error("Postgres stopped while starting ({status}); the end of {log}:\n{tail}", log = .log.display())]
    Exited { status: String, log: PathBuf, tail: String },
    #[error("a Postgres left over from an earlier run (process {pid}) does not stop: end it, then start again")]
    LeftoverWillNotStop { pid: i32 },
    #[error("Postgres (process {pid}) does not stop: end it by hand; what was committed is safe")]
    WillNotStop { pid: i32 },
    #[error("the embedded Postgres runs but refuses the service: {0}")]
    Refused(#[from] tokio_postgres::Error),
    #[error("cannot {action} {path}: {source}; is SUBLEDGER_DATA_DIR a folder this user may write to?", path = .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl EmbeddedPostgresError {
    /// For `map_err`: says what was being done to which file.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A running server. Dropping it asks the server to stop without waiting; prefer [`stop`](Self::stop).
pub struct EmbeddedPostgres {
    // Before the folder: on drop the server is told to stop while the folder is still locked.
    server: Server,
    folder: Folder,
    password: String,
    port: u16,
}

impl EmbeddedPostgres {
    /// Finds the binaries, sets the folder up if it is new, stops a server an earlier run left behind,
    /// starts one, and returns once it accepts connections and has a database `subledger`.
    ///
    /// After a crash this lasts as long as Postgres needs to recover; there is no time limit, for cutting
    /// a recovery short only makes it begin again. Dropping the future stops the server.
    ///
    /// As root, where the server's user cannot reach `data_dir`, the folder is `/var/lib/subledger-<hash>`
    /// instead; that is logged and written to `data_dir/location`.
    ///
    /// # Errors
    /// See [`EmbeddedPostgresError`]; nothing keeps running after an error.
    pub async fn start(data_dir: &Path, durability: Durability) -> Result<Self, EmbeddedPostgresError> {
        let folder = Folder::open(data_dir)?;
        let binaries = binaries::choose(&folder)?;
        leftovers::stop(&folder.cluster()).await?;
        let password = if folder.is_new() {
            let password = folder.new_password()?;
            server::initialise(&folder, &binaries, durability).await?;
            password
        } else {
            folder.password()?
        };
        let (server, port) = launch(&folder, &binaries, durability).await?;
        let started = Self { server, folder, password, port };
        started.create_database().await?;
        started.server.restart_when_it_dies();
        tracing::info!(
            folder = %started.folder.path().display(),
            binaries = %binaries.folder.display(),
            major_version = binaries.major,
            port,
            "embedded Postgres is ready"
        );
        Ok(started)
    }

    /// The address of the service's database, password included: not for logs.
    pub fn url(&self) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{}/{NAME}", self.password, self.port)
    }

    /// The process that heads the server; `None` for the moment between its death and its next start.
    pub fn process_id(&self) -> Option<u32> {
        self.server.process().and_then(|pid| u32::try_from(pid.as_raw()).ok())
    }

    /// Where the data is, which is not always where it was asked for (see [`start`](Self::start)).
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Cuts the server's connections, waits until it has written everything and is gone.
    ///
    /// # Errors
    /// [`EmbeddedPostgresError::WillNotStop`] when it is still there after more than a minute.
    pub async fn stop(self) -> Result<(), EmbeddedPostgresError> {
        self.server.stop().await
    }

    async fn create_database(&self) -> Result<(), EmbeddedPostgresError> {
        let (client, connection) = tokio_postgres::Config::new()
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(self.port)
            .user(NAME)
            .password(&self.password)
            .dbname("postgres")
            .connect(NoTls)
            .await?;
        let connection = tokio::spawn(connection);
        let found = client.query_opt("select 1 from pg_database where datname = $1", &[&NAME]).await?;
        if found.is_none() {
            client.batch_execute(&format!("create database {NAME}")).await?;
        }
        drop(client);
        // The queries above have answered; how the connection ends changes nothing.
        let _ = connection.await;
        Ok(())
    }
}

impl fmt::Debug for EmbeddedPostgres {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EmbeddedPostgres")
            .field("folder", &self.folder.path())
            .field("port", &self.port)
            .field("process_id", &self.process_id())
            .finish_non_exhaustive()
    }
}

/// Starts the server on a free port. Somebody may take the port between our look and the server's own
/// bind; then another one is tried.
async fn launch(
    folder: &Folder,
    binaries: &binaries::Binaries,
    durability: Durability,
) -> Result<(Server, u16), EmbeddedPostgresError> {
    let mut attempt = 1;
    loop {
        let port = folder.port()?;
        let server = Server::launch(folder, binaries, durability, port)?;
        match server.ready().await {
            Ok(()) => return Ok((server, port)),
            Err(error) if attempt == PORT_ATTEMPTS || folder::port_is_free(port) => {
                return Err(error);
            }
            Err(_) => attempt += 1,
        }
    }
}

/// The address of the database in a folder that another process of ours is serving, password included.
///
/// For commands that work beside a running service: they come here when [`EmbeddedPostgres::start`] says
/// [`InUse`](EmbeddedPostgresError::InUse).
///
/// # Errors
/// [`EmbeddedPostgresError::Io`] when the folder's files cannot be read by this user.
pub fn url_of_running(data_dir: &Path) -> Result<String, EmbeddedPostgresError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(EmbeddedPostgresError::io("read", path));
    let location = std::fs::read_to_string(data_dir.join("location"));
    let folder = location.map_or_else(|_| data_dir.to_owned(), |location| PathBuf::from(location.trim()));
    let (password, port) = (read(&folder.join("password"))?, read(&folder.join("port"))?);
    Ok(format!("postgres://{NAME}:{}@127.0.0.1:{}/{NAME}", password.trim(), port.trim()))
}
