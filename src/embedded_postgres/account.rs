//! The operating-system user the server runs as: Postgres refuses to be root.

use std::{
    ffi::OsStr,
    io,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::{Uid, User};

use super::EmbeddedPostgresError;

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    uid: u32,
    gid: u32,
    /// The service is root, so its children must change to this account.
    change: bool,
}

impl Account {
    /// Whoever owns `cluster`, so that an existing one stays usable; for a new one, the service's own user
    /// or, as root, `postgres` or else `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedPostgresError> {
        let me = Uid::effective();
        let owner = std::fs::metadata(cluster).ok().map(|found| found.uid());
        if !me.is_root() {
            if let Some(owner) = owner.filter(|owner| *owner != me.as_raw()) {
                let path = cluster.to_owned();
                return Err(EmbeddedPostgresError::ForeignFolder { path, owner });
            }
            let user = user_with_id(me).ok_or(EmbeddedPostgresError::UnknownUser(me.as_raw()))?;
            return Ok(Self::of(user, false));
        }
        match owner.filter(|owner| *owner != 0) {
            Some(owner) => user_with_id(Uid::from_raw(owner)).ok_or(EmbeddedPostgresError::UnknownUser(owner)),
            None => ["postgres", "nobody"]
                .iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .ok_or(EmbeddedPostgresError::NoUnprivilegedUser),
        }
        .map(|user| Self::of(user, true))
    }

    fn of(user: User, change: bool) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), change }
    }

    /// A command run as this user, with nothing of the service's environment: its secrets are no
    /// business of the server's, and `PG…` variables would change what the server does.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            // A folder everybody may enter: the service's own may be closed to this user.
            .current_dir("/")
            .stdin(Stdio::null());
        if self.change {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether this user can reach `folder`; asked of the kernel, since mode bits do not tell it all.
    pub(super) fn can_enter(&self, folder: &Path) -> bool {
        self.command("/bin/sh")
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(folder)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Gives this user a file the service has just made.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        if self.change {
            chown(path, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }
}

fn user_with_id(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}
