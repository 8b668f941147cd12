//! The server process: how it is set up, started, watched and stopped.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Durability, EmbeddedPostgresError, NAME, account::Account, binaries::Binaries, folder::Folder, leftovers::PidFile,
};

const POLL: Duration = Duration::from_millis(20);

/// Silence during a long recovery would look like a hang.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A stop ends with a checkpoint, which writes at most `shared_buffers`.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const ABORT_PATIENCE: Duration = Duration::from_secs(10);

/// Between a server's death and its next start; a disk that is full stays so for a while.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// How much of the log (bytes) an error shows.
const LOG_TAIL: usize = 2000;

/// For a small machine that writes much: few and late checkpoints, hence small and few full-page images.
/// On the command line rather than in a file, so that an existing folder gets them too.
const SETTINGS: [(&str, &str); 13] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "100"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    // Compiling costs more than any of the service's short queries.
    ("jit", "off"),
    ("password_encryption", "scram-sha-256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("logging_collector", "off"),
    ("cluster_name", NAME),
];

const VOLATILE_SETTINGS: [(&str, &str); 3] =
    [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];

/// Makes a cluster in the folder, with one role `subledger` (a superuser) and the folder's password.
pub(super) async fn initialise(
    folder: &Folder,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), EmbeddedPostgresError> {
    let unfinished = folder.new_cluster()?;
    let program = binaries.folder.join("initdb");
    let mut command = folder.account().command(&program);
    command
        .args(["--username", NAME])
        .args(["--auth", "scram-sha-256"])
        // The C collation is the same in every build and every libc: indexes stay valid when the server
        // is upgraded or comes from elsewhere.
        .args(["--encoding", "UTF8", "--locale", "C"])
        .arg("--data-checksums")
        .arg("--pwfile")
        .arg(folder.password_file())
        .arg("--pgdata")
        .arg(&unfinished);
    if durability == Durability::Volatile {
        command.arg("--no-sync");
    }
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(EmbeddedPostgresError::io("run", &program))?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(EmbeddedPostgresError::InitFailed(detail));
    }
    folder.adopt_cluster(&unfinished)
}

/// A started server and the thread that watches it. Dropping it asks the server to stop.
pub(super) struct Server {
    watched: Arc<Mutex<Watched>>,
    watcher: JoinHandle<()>,
    cluster: PathBuf,
    log: PathBuf,
}

/// What the watching thread and its owner share.
struct Watched {
    goal: Goal,
    process: Option<Pid>,
    /// How the process last ended.
    ended: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    /// One try: an end is a failure to report.
    Start,
    /// An end is an accident to mend.
    Run,
    Stop,
}

impl Server {
    /// Starts the process; see [`ready`](Self::ready) for when it can be used.
    pub(super) fn launch(
        folder: &Folder,
        binaries: &Binaries,
        durability: Durability,
        port: u16,
    ) -> Result<Self, EmbeddedPostgresError> {
        let log = folder.log_file();
        let command = command(folder, binaries, durability, port)?;
        let watched = Arc::new(Mutex::new(Watched { goal: Goal::Start, process: None, ended: String::new() }));
        let watcher = thread::Builder::new()
            .name("postgres-watcher".to_owned())
            .spawn({
                let watched = Arc::clone(&watched);
                move || watch(command, &watched)
            })
            .map_err(EmbeddedPostgresError::io("start a thread for", &log))?;
        Ok(Self { watched, watcher, cluster: folder.cluster(), log })
    }

    /// Waits until the server accepts connections, however long a recovery takes, or ends.
    pub(super) async fn ready(&self) -> Result<(), EmbeddedPostgresError> {
        let started = Instant::now();
        let mut next_report = REPORT_EVERY;
        while !self.watcher.is_finished() {
            // The pid tells our server's file from a predecessor's.
            let process = self.process();
            if process.is_some()
                && PidFile::read(&self.cluster).is_some_and(|file| file.ready && Some(file.pid) == process)
            {
                return Ok(());
            }
            if started.elapsed() > next_report {
                tracing::info!(
                    seconds = started.elapsed().as_secs(), log = %self.log.display(),
                    "Postgres is still starting; after a crash it replays its log"
                );
                next_report += REPORT_EVERY;
            }
            tokio::time::sleep(POLL).await;
        }
        Err(EmbeddedPostgresError::Exited {
            status: lock(&self.watched).ended.clone(),
            log: self.log.clone(),
            tail: end_of(&self.log),
        })
    }

    /// From now on the server is started again whenever it dies.
    pub(super) fn restart_when_it_dies(&self) {
        lock(&self.watched).goal = Goal::Run;
    }

    pub(super) fn process(&self) -> Option<Pid> {
        lock(&self.watched).process
    }

    /// Stops the server and waits for its end: first a fast shutdown, then one without a checkpoint, which
    /// the next start makes up for.
    pub(super) async fn stop(&self) -> Result<(), EmbeddedPostgresError> {
        for (signal, patience) in [(Signal::SIGINT, STOP_PATIENCE), (Signal::SIGQUIT, ABORT_PATIENCE)] {
            self.request_stop(signal);
            let deadline = Instant::now() + patience;
            while !self.watcher.is_finished() && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
            if self.watcher.is_finished() {
                return Ok(());
            }
            tracing::warn!(%signal, "Postgres has not stopped yet");
        }
        let pid = self.process().map_or(0, Pid::as_raw);
        Err(EmbeddedPostgresError::WillNotStop { pid })
    }

    fn request_stop(&self, signal: Signal) {
        let mut watched = lock(&self.watched);
        watched.goal = Goal::Stop;
        if let Some(process) = watched.process {
            // It may be gone by now, which is what is wanted.
            let _ = kill(process, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.request_stop(Signal::SIGINT);
    }
}

/// Starts the server, waits for its end, and starts it again if it should be running.
///
/// All in one thread, for Linux sends the parent-death signal (see [`with_parent`]) when the *thread* that
/// started the process ends; those of an async runtime come and go.
fn watch(mut command: Command, watched: &Mutex<Watched>) {
    loop {
        let spawned = {
            let mut watched = lock(watched);
            if watched.goal == Goal::Stop {
                return;
            }
            let spawned = command.spawn();
            if let Ok(child) = &spawned {
                watched.process = i32::try_from(child.id()).ok().map(Pid::from_raw);
            }
            spawned
        };
        let ended = match spawned.and_then(|mut child| child.wait()) {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        {
            let mut watched = lock(watched);
            watched.process = None;
            watched.ended.clone_from(&ended);
            if watched.goal != Goal::Run {
                return;
            }
        }
        tracing::error!(%ended, "the embedded Postgres died; starting it again");
        thread::sleep(RESTART_DELAY);
    }
}

fn command(
    folder: &Folder,
    binaries: &Binaries,
    durability: Durability,
    port: u16,
) -> Result<Command, EmbeddedPostgresError> {
    let cluster = folder.cluster();
    let mut command = with_parent(folder.account(), &binaries.folder.join("postgres"));
    command.arg("-D").arg(&cluster);
    command.args(["-p", &port.to_string()]);
    let volatile = match durability {
        Durability::Durable => &[][..],
        Durability::Volatile => &VOLATILE_SETTINGS[..],
    };
    for (name, value) in SETTINGS.iter().chain(volatile) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let compression = wal_compression(folder.account(), binaries, &cluster);
    command.arg("-c").arg(compression);
    // A group of its own: Ctrl-C goes to the terminal's whole group, and the service must be able to
    // finish its work on the database first.
    command.process_group(0);
    let log = folder.open_log()?;
    let second = log.try_clone().map_err(EmbeddedPostgresError::io("write", &folder.log_file()))?;
    command.stdout(log).stderr(second);
    Ok(command)
}

/// A command that is told to shut down when the thread that started it ends, and so when the service is
/// killed. Linux offers that to a process asking for itself, which `setpriv` (util-linux) does before it
/// becomes the program. Without it the server stays behind, and the next start stops it.
fn with_parent(account: &Account, program: &Path) -> Command {
    const ASK: [&str; 3] = ["--pdeathsig", "INT", "--"];
    let setpriv = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|folder| folder.join("setpriv"))
        .find(|setpriv| setpriv.is_file());
    if let Some(setpriv) = setpriv {
        // Not every setpriv knows the option; BusyBox has its own.
        let works = account
            .command(&setpriv)
            .args(ASK)
            .arg(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if works {
            let mut command = account.command(setpriv);
            command.args(ASK).arg(program);
            return command;
        }
    }
    tracing::debug!("no setpriv: if the service is killed, Postgres runs on until the next start");
    account.command(program)
}

/// lz4 costs far less than the built-in method, but came with version 15 and only in builds with the library.
fn wal_compression(account: &Account, binaries: &Binaries, cluster: &Path) -> &'static str {
    const LZ4: &str = "wal_compression=lz4";
    let known = account
        .command(binaries.folder.join("postgres"))
        .arg("-D")
        .arg(cluster)
        .args(["-C", "wal_compression", "-c", LZ4])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if known { LZ4 } else { "wal_compression=on" }
}

/// The last lines of a file.
fn end_of(path: &Path) -> String {
    let content = fs::read(path).unwrap_or_default();
    let from = content.len().saturating_sub(LOG_TAIL);
    String::from_utf8_lossy(&content[from..]).trim().to_owned()
}

/// No code panics while it holds the lock, and a poisoned one would still be right.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
