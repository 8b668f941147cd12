//! What all tests of the binary share: a runtime apart from the tests' own, and one Postgres, started by the first test
//! that needs it and gone with the process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use subledger::embedded_postgres::{Durability, EmbeddedPostgres};
use subledger::store::connect::Database;
use subledger::store::migrate;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, OnceCell, Semaphore};

/// Services run here, so that they outlive the test that started them by the moment it takes to stop in order.
pub static HOUSE: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime for the services")
});

/// Services at a time: each has a dozen connections or so, as has a program beside it, and the server takes a hundred.
pub static PLACES: Semaphore = Semaphore::const_new(5);

static SERVER: OnceCell<Server> = OnceCell::const_new();
/// The numbers of partitions there is a template for.
static TEMPLATES: Mutex<BTreeSet<i16>> = Mutex::const_new(BTreeSet::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

struct Server {
    url: String,
    _postgres: EmbeddedPostgres,
    /// Its standard input is closed by the kernel when this process ends, however it ends; then it clears up.
    _janitor: Janitor,
}

/// A folder that does not exist yet.
pub fn new_folder() -> PathBuf {
    std::env::temp_dir().join(format!("subledger-api-{}", uuid::Uuid::new_v4().simple()))
}

/// Starts a server of its own in `folder`; see [`janitor`] for who removes the folder.
pub async fn start_postgres(folder: PathBuf) -> EmbeddedPostgres {
    HOUSE
        .spawn(async move { EmbeddedPostgres::start(&folder, Durability::Volatile).await })
        .await
        .expect("no panic")
        .expect("an embedded Postgres")
}

async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            let folder = new_folder();
            let janitor = janitor(&folder);
            let postgres = start_postgres(folder).await;
            Server { url: postgres.url(), _postgres: postgres, _janitor: janitor }
        })
        .await
}

/// Clears up once this process has ended.
#[derive(Debug)]
pub struct Janitor {
    _process: Child,
}

/// A process that outlives this one: once its standard input closes it waits for the server's end and removes the
/// folder. Nothing in Rust runs when a test binary exits.
pub fn janitor(folder: &Path) -> Janitor {
    use std::os::unix::process::CommandExt;
    const SCRIPT: &str = r#"
        read -r _
        real=$(cat "$1/location" 2>/dev/null || echo "$1")
        tries=0
        while [ -e "$real/cluster/postmaster.pid" ] && [ "$tries" -lt 300 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        rm -rf "$real" "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "janitor"]).arg(folder);
    // A group of its own, so that Ctrl-C does not end it before its work.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Janitor { _process: command.spawn().expect("a shell") }
}

/// An empty, migrated database for one test.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    pub url: String,
}

impl TestDatabase {
    pub async fn new(partitions: i16) -> Self {
        let server = server().await;
        let owner = owner(&server.url).await;
        let template = format!("template_{partitions}");
        // Migrating creates a role, which belongs to the whole server: one at a time.
        let mut templates = TEMPLATES.lock().await;
        if !templates.contains(&partitions) {
            owner.batch_execute(&format!("create database {template}")).await.expect("a template");
            migrate_database(&url_of(&server.url, &template), partitions).await;
            templates.insert(partitions);
        }
        drop(templates);
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        owner.batch_execute(&format!("create database {name} template {template}")).await.expect("a database");
        Self { url: url_of(&server.url, &name), name }
    }

    pub async fn remove(self) {
        let owner = owner(&server().await.url).await;
        let removed = owner.batch_execute(&format!("drop database {} with (force)", self.name)).await;
        removed.expect("the test's database is dropped");
    }
}

/// Migrates from within the house: the connection's task ends with the runtime it was made in.
pub async fn migrate_database(url: &str, partitions: i16) {
    let database = Database::parse(url).expect("a URL");
    let migrated = HOUSE.spawn(async move { migrate::migrate(&database, partitions).await });
    migrated.await.expect("no panic").expect("migrations");
}

fn url_of(server: &str, database: &str) -> String {
    let (base, _) = server.rsplit_once('/').expect("a URL that ends in a database");
    format!("{base}/{database}")
}

/// A connection with all rights.
pub async fn owner(url: &str) -> tokio_postgres::Client {
    Database::parse(url).expect("a URL").connect_as_owner().await.expect("a connection")
}
