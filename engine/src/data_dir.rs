//! The folder with all state of one engine: private to its user, held by one process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::error::Failure;

/// A data folder that this process holds until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Closing it gives the lock back, also when the process is killed.
    _lock: File,
}

/// Another process holds the folder.
struct Busy;

impl DataDir {
    /// Makes the folder (mode 0700) where it is missing and takes its lock.
    ///
    /// # Errors
    /// The folder cannot be made or written, or another process holds it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Self::hold(path)?.map_err(|Busy| {
            Failure::usage(format!(
                "another fleetwright process uses the data folder {}",
                path.display()
            ))
            .hint("stop it, or choose another folder with --data")
        })
    }

    fn hold(path: &Path) -> Result<Result<Self, Busy>, Failure> {
        let cannot = |what: &str, e: io::Error| {
            Failure::usage(format!("cannot {what} {}: {e}", path.display()))
                .hint("choose another folder with --data")
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| cannot("make the data folder", e))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| cannot("make private the data folder", e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|e| cannot("open the lock file in", e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(Err(Busy)),
            Err(TryLockError::Error(e)) => Err(cannot("lock", e)),
        }
    }

    /// The same for a folder that is there; `None` when another process holds it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn open_idle(path: &Path) -> Result<Option<Self>, Failure> {
        Ok(Self::hold(path)?.ok())
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where state goes when nothing is said: `$XDG_STATE_HOME/fleetwright`, else `~/.local/state/fleetwright`.
///
/// # Errors
/// Neither `XDG_STATE_HOME` nor `HOME` is set.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    let from_env = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    from_env("XDG_STATE_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| from_env("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("fleetwright"))
        .ok_or_else(|| {
            Failure::usage("no place for state: neither XDG_STATE_HOME nor HOME is set")
                .hint("say where with --data DIR")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_private_and_held_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(
            fs::metadata(first.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let second = DataDir::open(&path).unwrap_err();
        assert!(
            second.message.contains("another fleetwright process"),
            "{second}"
        );
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_a_named_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(DataDir::open(&path).unwrap_err().message.contains("file"));
    }
}
