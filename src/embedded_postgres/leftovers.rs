//! Servers of an earlier run. A service killed with no chance to stop its Postgres may leave it running;
//! a killed Postgres leaves its pid file, and for a moment some of its children.
//!
//! Such a server is stopped rather than adopted: the new one then has today's settings, is this service's
//! child and goes when it goes. Only called with the folder locked, so no living service uses it.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::EmbeddedPostgresError;

const POLL: Duration = Duration::from_millis(20);

/// Ever harder ways to say it, with the time each is given. Committed data survives them all. The first
/// is Postgres's fast shutdown, which ends with a checkpoint; it also covers children of a killed server,
/// who leave by themselves.
const WAYS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(60)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(10)),
];

/// Stops whatever still serves `cluster`, and clears a pid file that would keep a new server from starting.
pub(super) async fn stop(cluster: &Path) -> Result<(), EmbeddedPostgresError> {
    for (signal, patience) in WAYS {
        let running = servers_in(cluster);
        if running.is_empty() {
            break;
        }
        tracing::warn!(?running, %signal, "stopping a Postgres left over from an earlier run");
        for pid in targets(cluster, &running, signal) {
            // It may be gone by now, which is what is wanted.
            let _ = kill(pid, signal);
        }
        let deadline = Instant::now() + patience;
        while !servers_in(cluster).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
    if let Some(pid) = servers_in(cluster).first() {
        return Err(EmbeddedPostgresError::LeftoverWillNotStop { pid: pid.as_raw() });
    }
    remove_misleading_pid_file(cluster)
}

/// The gentle signal means "cancel the query" to all but the head of the server, so only that gets it.
fn targets(cluster: &Path, running: &[Pid], signal: Signal) -> Vec<Pid> {
    let head = PidFile::read(cluster).map(|file| file.pid);
    running.iter().copied().filter(|pid| signal != Signal::SIGINT || Some(*pid) == head).collect()
}

/// Every process of a Postgres that works in `cluster`. Where there is no /proc, only its head is known.
fn servers_in(cluster: &Path) -> Vec<Pid> {
    let Ok(cluster) = cluster.canonicalize() else {
        return Vec::new();
    };
    let Some(processes) = fs::read_dir("/proc/self").ok().and_then(|_| fs::read_dir("/proc").ok()) else {
        return PidFile::read(&cluster)
            .map(|file| file.pid)
            .filter(|pid| kill(*pid, None).is_ok())
            .into_iter()
            .collect();
    };
    processes
        .flatten()
        .filter(|process| {
            // The name too: somebody's shell may stand in that folder.
            fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == cluster)
                && fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.trim() == "postgres")
        })
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// A pid file of a dead server is no obstacle: Postgres sees that nobody has that pid. But pids are used
/// again, soon so in containers, and then Postgres would believe its predecessor alive for ever.
fn remove_misleading_pid_file(cluster: &Path) -> Result<(), EmbeddedPostgresError> {
    let misleads = PidFile::read(cluster).is_some_and(|file| kill(file.pid, None).is_ok());
    if !misleads {
        return Ok(());
    }
    let path = PidFile::path(cluster);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EmbeddedPostgresError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// What a server says about itself in `postmaster.pid`.
pub(super) struct PidFile {
    pub(super) pid: Pid,
    /// It accepts connections.
    pub(super) ready: bool,
}

impl PidFile {
    fn path(cluster: &Path) -> std::path::PathBuf {
        cluster.join("postmaster.pid")
    }

    /// `None` when there is no such file, or not a whole one yet.
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        let content = fs::read_to_string(Self::path(cluster)).ok()?;
        let mut lines = content.lines();
        // Negative when a single-user server wrote it.
        let pid: i32 = lines.next()?.trim().parse().ok()?;
        // The eighth line is the state, since PostgreSQL 10.
        let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        (pid > 1).then_some(Self { pid: Pid::from_raw(pid), ready })
    }
}
