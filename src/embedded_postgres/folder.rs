//! The folder an embedded Postgres lives in: where it is, whose it is, and the small files beside the data.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{EmbeddedPostgresError, account::Account};

/// Where the folder goes when the server's user cannot reach the wanted one.
const FALLBACK_PARENT: &str = "/var/lib";

/// A log larger than this (bytes) is set aside at the next start.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    account: Account,
    _lock: File,
}

impl Folder {
    /// Creates the folder if needed, and locks it.
    pub(super) fn open(wanted: &Path) -> Result<Self, EmbeddedPostgresError> {
        let wanted = std::path::absolute(wanted).map_err(EmbeddedPostgresError::io("find", wanted))?;
        let (path, account) = settle(&wanted)?;
        if !path.exists() {
            create_private(&path, &account)?;
        }
        let lock = lock(&path, &account)?;
        if path != wanted {
            note_location(&wanted, &path)?;
        }
        Ok(Self { path, account, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// What Postgres calls its data directory.
    pub(super) fn cluster(&self) -> PathBuf {
        cluster_in(&self.path)
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.path.join("password")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.path.join("server.log")
    }

    /// No cluster is here yet.
    pub(super) fn is_new(&self) -> bool {
        !self.cluster().exists()
    }

    /// The major version of the Postgres that made the cluster.
    pub(super) fn made_by(&self) -> Option<u32> {
        let version = fs::read_to_string(self.cluster().join("PG_VERSION")).ok()?;
        version.trim().parse().ok()
    }

    /// An empty folder to make a cluster in. Its name is new each time: an `initdb` left running by a
    /// killed service cannot write into it. Remains of such runs are removed.
    pub(super) fn new_cluster(&self) -> Result<PathBuf, EmbeddedPostgresError> {
        const PREFIX: &str = "cluster.unfinished-";
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(EmbeddedPostgresError::io("remove", &entry.path()))?;
            }
        }
        let path = self.path.join(format!("{PREFIX}{}", random_hex::<4>()));
        create_private(&path, &self.account)?;
        Ok(path)
    }

    /// Makes a finished cluster the one in use: it is there whole or not at all.
    pub(super) fn adopt_cluster(&self, finished: &Path) -> Result<(), EmbeddedPostgresError> {
        fs::rename(finished, self.cluster())
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(EmbeddedPostgresError::io("rename", finished))
    }

    /// Writes a new random password to its file.
    pub(super) fn new_password(&self) -> Result<String, EmbeddedPostgresError> {
        let password = random_hex::<24>();
        self.write_private(&self.password_file(), &password)?;
        Ok(password)
    }

    pub(super) fn password(&self) -> Result<String, EmbeddedPostgresError> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(password) => Ok(password.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(EmbeddedPostgresError::PasswordMissing(path)),
            Err(error) => Err(EmbeddedPostgresError::io("read", &path)(error)),
        }
    }

    /// The port of the last run while it is free, else a new one, which is kept for the next run.
    pub(super) fn port(&self) -> Result<u16, EmbeddedPostgresError> {
        let path = self.path.join("port");
        let last: Option<u16> = fs::read_to_string(&path).ok().and_then(|port| port.trim().parse().ok());
        if let Some(port) = last.filter(|port| port_is_free(*port)) {
            return Ok(port);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(EmbeddedPostgresError::io("find a free port for", &path))?
            .port();
        self.write_private(&path, &port.to_string())?;
        Ok(port)
    }

    /// Opens the server's log for appending, a new one if the last has grown large.
    pub(super) fn open_log(&self) -> Result<File, EmbeddedPostgresError> {
        let path = self.log_file();
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
            fs::rename(&path, self.path.join("server.log.old")).map_err(EmbeddedPostgresError::io("rename", &path))?;
        }
        open_private(&path, &self.account).map_err(EmbeddedPostgresError::io("write", &path))
    }

    /// Replaces a small file as a whole, so that a crash leaves the old or the new one.
    fn write_private(&self, path: &Path, content: &str) -> Result<(), EmbeddedPostgresError> {
        let unfinished = path.with_extension("unfinished");
        let write = || {
            let mut file = open_private(&unfinished, &self.account)?;
            file.set_len(0)?;
            writeln!(file, "{content}")?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(EmbeddedPostgresError::io("write", path))
    }
}

/// Whether a server could listen there now.
pub(super) fn port_is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn cluster_in(folder: &Path) -> PathBuf {
    folder.join("cluster")
}

/// The folder to use, and the user to run the server as. As root the server is somebody else, who may not
/// be able to reach the wanted folder, say below /root; then a folder in /var/lib stands in. A note in
/// the wanted folder says which, and holds from then on: data must not seem to vanish when folders change.
fn settle(wanted: &Path) -> Result<(PathBuf, Account), EmbeddedPostgresError> {
    if let Ok(noted) = fs::read_to_string(location_file(wanted)) {
        let path = PathBuf::from(noted.trim());
        let account = Account::choose(&cluster_in(&path))?;
        return Ok((path, account));
    }
    let account = Account::choose(&cluster_in(wanted))?;
    let existing = wanted.ancestors().find(|folder| folder.exists());
    if !nix::unistd::Uid::effective().is_root() || existing.is_some_and(|folder| account.can_enter(folder)) {
        return Ok((wanted.to_owned(), account));
    }
    let hash = hex::encode(Sha256::digest(wanted.as_os_str().as_encoded_bytes()));
    let path = Path::new(FALLBACK_PARENT).join(format!("subledger-{}", &hash[..12]));
    let account = Account::choose(&cluster_in(&path))?;
    Ok((path, account))
}

/// Says where the data is when it is not in the wanted folder; `make clean-data` reads it too.
fn location_file(wanted: &Path) -> PathBuf {
    wanted.join("location")
}

fn note_location(wanted: &Path, actual: &Path) -> Result<(), EmbeddedPostgresError> {
    tracing::warn!(
        wanted = %wanted.display(), actual = %actual.display(),
        "the server's user cannot reach the wanted data folder; the data is in another one"
    );
    let note = location_file(wanted);
    fs::create_dir_all(wanted)
        .and_then(|()| fs::write(&note, format!("{}\n", actual.display())))
        .map_err(EmbeddedPostgresError::io("write", &note))
}

fn create_private(path: &Path, account: &Account) -> Result<(), EmbeddedPostgresError> {
    let create = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path)?;
        account.give(path)
    };
    create().map_err(EmbeddedPostgresError::io("create", path))
}

/// Opens for appending a file that only the server's user (and root) may read.
fn open_private(path: &Path, account: &Account) -> io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    account.give(path)?;
    Ok(file)
}

/// The lock goes with the process that holds it, so a killed service leaves none behind. It does not pass
/// to the server: Rust opens files close-on-exec.
fn lock(folder: &Path, account: &Account) -> Result<File, EmbeddedPostgresError> {
    let path = folder.join("lock");
    let mut file = open_private(&path, account).map_err(EmbeddedPostgresError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Only for the message; the lock itself is what counts.
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut owner));
            return Err(EmbeddedPostgresError::InUse { path: folder.to_owned(), owner: owner.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => {
            return Err(EmbeddedPostgresError::io("lock", &path)(error));
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(EmbeddedPostgresError::io("write", &path))?;
    Ok(file)
}

fn random_hex<const BYTES: usize>() -> String {
    hex::encode(std::array::from_fn::<u8, BYTES, _>(|_| rand::random()))
}
