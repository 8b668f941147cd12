//! Where PostgreSQL's server binaries are on this machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::{EmbeddedPostgresError, account::Account, folder::Folder};

pub(super) const OLDEST_MAJOR: u32 = 14;

/// The server binaries to use.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

/// The folder of `initdb` and `postgres` that a new cluster would be made with: `PG_BINDIR` if it is set
/// (and then nothing else), else the highest version in `/usr/lib/postgresql/*/bin`, else the first in
/// `PATH`, else `./.postgres/bin`, which `scripts/provide-postgres.sh` fills.
pub fn find_binaries() -> Option<PathBuf> {
    find_all().into_iter().next()
}

fn find_all() -> Vec<PathBuf> {
    search(env::var_os("PG_BINDIR"), Path::new("/usr/lib/postgresql"), env::var_os("PATH"), Path::new(".postgres/bin"))
}

fn search(chosen: Option<OsString>, debian: &Path, path: Option<OsString>, provided: &Path) -> Vec<PathBuf> {
    let places = match chosen {
        Some(chosen) => vec![PathBuf::from(chosen)],
        None => {
            let mut places = versions_in(debian);
            places.extend(path.iter().flat_map(env::split_paths));
            places.push(provided.to_owned());
            places
        }
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for place in places {
        let has_server = ["initdb", "postgres"].iter().all(|program| place.join(program).is_file());
        // Absolute, since the server is started from another folder; without links, since one of the
        // folders above a link may be closed to the server's user.
        if let (true, Ok(place)) = (has_server, place.canonicalize())
            && !found.contains(&place)
        {
            found.push(place);
        }
    }
    found
}

/// `<root>/<major>/bin`, highest first.
fn versions_in(root: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

/// The first binaries that run as the server's user and fit the folder: an existing cluster can only be
/// read by the major version that made it.
pub(super) fn choose(folder: &Folder) -> Result<Binaries, EmbeddedPostgresError> {
    let places = find_all();
    if places.is_empty() {
        return Err(match env::var_os("PG_BINDIR") {
            Some(path) => EmbeddedPostgresError::WrongBinariesFolder(path.into()),
            None => EmbeddedPostgresError::NoBinaries,
        });
    }
    let made_by = folder.made_by();
    let mut problem = None;
    let mut other_versions = Vec::new();
    for place in places {
        match major_version(&place, folder.account()) {
            Ok(major) if made_by.is_some_and(|made_by| made_by != major) => {
                other_versions.push(major.to_string());
            }
            Ok(found) if found < OLDEST_MAJOR => {
                problem = Some(EmbeddedPostgresError::TooOld { found, path: place });
            }
            Ok(major) => {
                return Ok(Binaries { folder: place, major });
            }
            Err(error) => problem = Some(error),
        }
    }
    Err(match (made_by, problem) {
        (Some(made_by), _) if !other_versions.is_empty() => {
            EmbeddedPostgresError::OtherVersion { path: folder.cluster(), made_by, found: other_versions.join(", ") }
        }
        (_, problem) => problem.unwrap_or(EmbeddedPostgresError::NoBinaries),
    })
}

fn major_version(folder: &Path, account: &Account) -> Result<u32, EmbeddedPostgresError> {
    let program = folder.join("postgres");
    let unusable = |detail: String| EmbeddedPostgresError::UnusableBinaries {
        path: program.clone(),
        user: account.name.clone(),
        detail,
    };
    let output = account.command(&program).arg("--version").output().map_err(|error| unusable(error.to_string()))?;
    if !output.status.success() {
        return Err(unusable(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let version = String::from_utf8_lossy(&output.stdout);
    parse_major(&version).ok_or_else(|| unusable(format!("it says {version:?}")))
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `… 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18.4"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_major("postgres 9"), None);
    }

    #[test]
    fn the_highest_version_comes_first_and_a_chosen_folder_shuts_out_the_others() {
        let root = env::temp_dir().join(format!("subledger-binaries-{}", std::process::id()));
        let root = {
            fs::create_dir_all(&root).unwrap();
            root.canonicalize().unwrap()
        };
        for folder in ["debian/9/bin", "debian/15/bin", "debian/17/bin", "own"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            for program in ["initdb", "postgres"] {
                fs::write(root.join(folder).join(program), "").unwrap();
            }
        }
        fs::create_dir_all(root.join("debian/18/bin")).unwrap(); // client programs only
        let debian = root.join("debian");
        let own = root.join("own");

        let all = search(None, &debian, Some(own.clone().into()), &own);
        let expected = ["debian/17/bin", "debian/15/bin", "debian/9/bin", "own"];
        assert_eq!(all, expected.map(|folder| root.join(folder)));

        let chosen = search(Some(own.clone().into()), &debian, None, &own);
        assert_eq!(chosen, vec![own.clone()]);
        let empty = search(Some(root.join("debian/18/bin").into()), &debian, None, &own);
        assert_eq!(empty, Vec::<PathBuf>::new());
        fs::remove_dir_all(root).unwrap();
    }
}
