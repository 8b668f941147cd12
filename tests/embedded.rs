//! The embedded Postgres with real processes: life, death and recovery.
//!
//! As root the server must be another user; as an ordinary user it is that user. Both are worth a run.

// The helpers beside the tests, too.
#![allow(clippy::unwrap_used)]

#[path = "support/test_folder.rs"]
mod test_folder;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, getpgid},
};
use subledger::embedded_postgres::{
    Durability::{self, Durable, Volatile},
    EmbeddedPostgres, EmbeddedPostgresError, find_binaries,
};
use test_folder::TestFolder;
use tokio_postgres::{Client, NoTls, config::Host, error::SqlState};

/// Tells [`owner_process`] that it is the child of another test, and which folder to use.
const OWNER_FOLDER: &str = "SUBLEDGER_TEST_OWNER_FOLDER";

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn one(postgres: &EmbeddedPostgres, sql: &str) -> String {
    let client = connect(&postgres.url()).await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn execute(postgres: &EmbeddedPostgres, sql: &str) {
    let client = connect(&postgres.url()).await.unwrap();
    client.batch_execute(sql).await.unwrap();
}

fn pid(postgres: &EmbeddedPostgres) -> Pid {
    Pid::from_raw(postgres.process_id().unwrap().try_into().unwrap())
}

fn is_alive(pid: Pid) -> bool {
    // A zombie nobody has reaped yet is as dead as any.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn port_of(url: &str) -> u16 {
    url.parse::<tokio_postgres::Config>().unwrap().get_ports()[0]
}

#[tokio::test]
async fn a_new_folder_gets_a_server_and_a_restart_keeps_its_data_and_its_address() {
    let folder = TestFolder::new("restart");
    let first = EmbeddedPostgres::start(&folder.0, Durable).await.unwrap();
    assert_eq!(one(&first, "select (1 + 1)::text").await, "2");
    execute(&first, "create table kept (n int); insert into kept values (42)").await;
    let url = first.url();
    let server = pid(&first);
    first.stop().await.unwrap();
    assert!(!is_alive(server), "stop returned before the server's end");

    let second = EmbeddedPostgres::start(&folder.0, Durable).await.unwrap();
    assert_eq!(second.url(), url);
    assert_eq!(one(&second, "select n::text from kept").await, "42");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn only_the_tests_server_may_lose_commits() {
    async fn switches(durability: Durability) -> String {
        let folder = TestFolder::new("durability");
        let postgres = EmbeddedPostgres::start(&folder.0, durability).await.unwrap();
        let sql = "select concat_ws(' ', current_setting('fsync'), \
                   current_setting('synchronous_commit'), current_setting('full_page_writes'))";
        let switches = one(&postgres, sql).await;
        postgres.stop().await.unwrap();
        switches
    }
    assert_eq!(switches(Durable).await, "on on on");
    assert_eq!(switches(Volatile).await, "off off off");
}

#[tokio::test]
async fn nobody_without_the_password_gets_in_and_only_by_loopback() {
    let folder = TestFolder::new("closed");
    let postgres = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let url = postgres.url();

    let config: tokio_postgres::Config = url.parse().unwrap();
    assert_eq!(config.get_hosts(), [Host::Tcp("127.0.0.1".to_owned())]);
    let mut stranger = config.clone();
    stranger.password("wrong");
    let error = stranger.connect(NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
    let sql = "select concat_ws('|', current_setting('listen_addresses'), \
               current_setting('unix_socket_directories'))";
    assert_eq!(one(&postgres, sql).await, "127.0.0.1|");
    let sql = "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules";
    assert_eq!(one(&postgres, sql).await, "scram-sha-256");

    let password = folder.0.join("password");
    assert_eq!(fs::metadata(&password).unwrap().mode() & 0o777, 0o600);
    let password = fs::read_to_string(&password).unwrap();
    assert!(url.contains(password.trim()));
    assert!(!format!("{postgres:?}").contains(password.trim()), "the password is in the debug output");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_is_never_root_and_out_of_reach_of_ctrl_c() {
    let folder = TestFolder::new("account");
    let postgres = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let server = pid(&postgres);
    let owner = fs::metadata(format!("/proc/{server}")).unwrap().uid();
    if Uid::effective().is_root() {
        assert_ne!(owner, 0);
    } else {
        eprintln!("NOT ROOT: that the server drops root's rights is not shown by this run");
        assert_eq!(owner, Uid::effective().as_raw());
    }
    assert_eq!(getpgid(Some(server)).unwrap(), server);
    let environment = fs::read_to_string(format!("/proc/{server}/environ")).unwrap_or_default();
    assert!(!environment.contains("CARGO"), "the server got our environment");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_the_servers_user_cannot_reach_is_replaced_by_one_it_can() {
    if !Uid::effective().is_root() {
        eprintln!("NOT ROOT, SKIPPED: only root runs the server as somebody else");
        return;
    }
    let closed = TestFolder::new("closed-to-others");
    fs::DirBuilder::new().mode(0o700).create(&closed.0).unwrap();
    let wanted = TestFolder(closed.0.join("data"));

    let first = EmbeddedPostgres::start(&wanted.0, Volatile).await.unwrap();
    let actual = first.folder().to_owned();
    assert!(!actual.starts_with(&closed.0));
    let note = fs::read_to_string(wanted.0.join("location")).unwrap();
    assert_eq!(Path::new(note.trim()), actual);
    execute(&first, "create table kept (n int)").await;
    first.stop().await.unwrap();

    // Opening the folder later must not make the data seem lost.
    fs::set_permissions(&closed.0, fs::Permissions::from_mode(0o755)).unwrap();
    let second = EmbeddedPostgres::start(&wanted.0, Volatile).await.unwrap();
    assert_eq!(second.folder(), actual);
    assert_eq!(one(&second, "select count(*)::text from kept").await, "0");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_service_on_the_folder_is_refused_and_the_first_goes_on() {
    let folder = TestFolder::new("twice");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let error = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap_err();
    assert!(matches!(error, EmbeddedPostgresError::InUse { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains("SUBLEDGER_DATA_DIR"), "{message}");
    assert_eq!(one(&first, "select 'alive'").await, "alive");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_by_itself_with_every_commit() {
    let folder = TestFolder::new("killed");
    let postgres = EmbeddedPostgres::start(&folder.0, Durable).await.unwrap();
    execute(&postgres, "create table kept (n int); insert into kept select generate_series(1, 1000)").await;
    let killed = pid(&postgres);
    kill(killed, Signal::SIGKILL).unwrap();

    let deadline = Instant::now() + Duration::from_secs(30);
    let client = loop {
        match connect(&postgres.url()).await {
            Ok(client) if !is_alive(killed) => break client,
            _ => assert!(Instant::now() < deadline, "the server did not come back"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let count: i64 = client.query_one("select count(*) from kept", &[]).await.unwrap().get(0);
    assert_eq!(count, 1000);
    assert_ne!(pid(&postgres), killed);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn after_a_killed_server_and_service_the_next_start_recovers() {
    let folder = TestFolder::new("both-killed");
    let mut owner = Owner::start(&folder.0, true);
    let client = connect(&owner.url).await.unwrap();
    client.batch_execute("create table kept (n int); insert into kept values (42)").await.unwrap();
    // The service first, or it would start the server again.
    kill(owner.process_id(), Signal::SIGSTOP).unwrap();
    kill(owner.server, Signal::SIGKILL).unwrap();
    owner.kill();
    assert!(folder.0.join("cluster/postmaster.pid").exists());

    let postgres = EmbeddedPostgres::start(&folder.0, Durable).await.unwrap();
    assert_eq!(one(&postgres, "select n::text from kept").await, "42");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_goes_when_its_service_is_killed() {
    let folder = TestFolder::new("goes-along");
    let mut owner = Owner::start(&folder.0, true);
    owner.kill();
    if !setpriv_works() {
        eprintln!("NO SETPRIV: that the server dies with the service is not shown by this run");
    } else {
        eventually("the server is gone", || !is_alive(owner.server)).await;
    }
    let postgres = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_left_behind_is_replaced() {
    let folder = TestFolder::new("orphan");
    let mut owner = Owner::start(&folder.0, false);
    let client = connect(&owner.url).await.unwrap();
    client.batch_execute("create table kept (n int); insert into kept values (42)").await.unwrap();
    owner.kill();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is_alive(owner.server), "without setpriv the server stays");

    let postgres = EmbeddedPostgres::start(&folder.0, Durable).await.unwrap();
    assert!(!is_alive(owner.server));
    assert_eq!(postgres.url(), owner.url);
    assert_eq!(one(&postgres, "select n::text from kept").await, "42");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_dropped_without_stop_is_no_obstacle() {
    let folder = TestFolder::new("dropped");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let server = pid(&first);
    drop(first);
    let second = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    assert!(!is_alive(server));
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_a_living_stranger_is_no_obstacle() {
    let folder = TestFolder::new("stale-pid");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let pid_file = folder.0.join("cluster/postmaster.pid");
    let content = fs::read_to_string(&pid_file).unwrap();
    first.stop().await.unwrap();
    // A stranger of the server's own user, for Postgres itself only fears those.
    let mut stranger = as_owner_of(&folder.0.join("cluster"), "sleep").arg("60").spawn().unwrap();
    let (_, rest) = content.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", stranger.id())).unwrap();

    let second = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    second.stop().await.unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_exchanged_for_another() {
    let folder = TestFolder::new("port");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    let taken = port_of(&first.url());
    first.stop().await.unwrap();
    let _squatter = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let second = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    assert_ne!(port_of(&second.url()), taken);
    assert_eq!(one(&second, "select 'alive'").await, "alive");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_password_and_a_foreign_version_are_explained() {
    let folder = TestFolder::new("explained");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    first.stop().await.unwrap();

    let password = folder.0.join("password");
    fs::rename(&password, folder.0.join("hidden")).unwrap();
    let error = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap_err();
    assert!(matches!(error, EmbeddedPostgresError::PasswordMissing(_)), "{error}");
    fs::rename(folder.0.join("hidden"), password).unwrap();

    fs::write(folder.0.join("cluster/PG_VERSION"), "9\n").unwrap();
    let error = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("made by PostgreSQL 9"), "{message}");
    assert!(message.contains("PG_BINDIR"), "{message}");
}

#[tokio::test]
async fn a_start_that_fails_shows_what_postgres_said() {
    let folder = TestFolder::new("fails");
    let first = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap();
    first.stop().await.unwrap();
    fs::remove_file(folder.0.join("cluster/global/pg_control")).unwrap();
    let error = EmbeddedPostgres::start(&folder.0, Volatile).await.unwrap_err();
    assert!(error.to_string().contains("pg_control"), "{error}");
}

/// A service in a process of its own, so that it can be killed.
struct Owner {
    process: Child,
    url: String,
    server: Pid,
}

impl Owner {
    /// This test program again, running nothing but [`owner_process`].
    fn start(folder: &Path, with_setpriv: bool) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "owner_process", "--nocapture"])
            .env(OWNER_FOLDER, folder)
            .env("PG_BINDIR", find_binaries().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if !with_setpriv {
            command.env("PATH", "");
        }
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let line = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("started ").map(|(_, rest)| rest.to_owned()))
            .expect("the owner did not start its server");
        let (server, url) = line.split_once(' ').unwrap();
        Self { process, url: url.to_owned(), server: Pid::from_raw(server.parse().unwrap()) }
    }

    fn process_id(&self) -> Pid {
        Pid::from_raw(self.process.id().try_into().unwrap())
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test by itself: what [`Owner`] runs. Waits to be killed.
#[tokio::test]
async fn owner_process() {
    let Some(folder) = env::var_os(OWNER_FOLDER) else {
        return;
    };
    let postgres = EmbeddedPostgres::start(Path::new(&folder), Durable).await.unwrap();
    println!("started {} {}", pid(&postgres), postgres.url());
    tokio::time::sleep(Duration::from_secs(120)).await;
    postgres.stop().await.unwrap();
}

fn setpriv_works() -> bool {
    Command::new("setpriv").args(["--pdeathsig", "INT", "--", "true"]).status().is_ok_and(|status| status.success())
}

fn as_owner_of(path: &Path, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let owner = fs::metadata(path).unwrap();
    let mut command = Command::new(program);
    if Uid::effective().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}
