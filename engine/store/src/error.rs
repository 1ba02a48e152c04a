//! What can go wrong in the store.

use std::path::{Path, PathBuf};

use crate::Revision;

/// Why the store refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A key has not the revision that the commit expects. Read it again and decide anew.
    #[error("{key} is at revision {found}, not {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// The revision that the commit expects.
        expected: Revision,
        /// The revision that the key has; 0 when it does not exist.
        found: Revision,
    },
    /// The changes asked for are no longer kept. List, and watch from the list's revision.
    #[error("changes up to revision {compacted} are no longer kept")]
    Compacted {
        /// The newest revision that is forgotten.
        compacted: Revision,
    },
    /// The disk or SQLite refused. Of a commit: nothing of it was done as far as anybody is told; where the system
    /// failed while making it durable, it may be there after a restart, under a revision that nobody has seen.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said, and what to do.
        cause: String,
    },
    /// The file is not what was written. It is left as it is.
    #[error("{} is damaged: {what}; it was left as it is: restore a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file is not one of this release. It is left as it is.
    #[error("{} cannot be used: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A stream of a backup ended early, or is none.
    #[error("the backup is not whole: {0}")]
    Stream(String),
    /// The writer has ended: the store is being closed.
    #[error("the store is closed")]
    Closed,
}

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        Self::Io {
            doing,
            path,
            cause: error.to_string(),
        }
    }

    /// The same about another file.
    pub(crate) fn about(mut self, file: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Damaged { path, .. } | Self::Format { path, .. } =
            &mut self
        {
            file.clone_into(path);
        }
        self
    }
}

/// A failure while reading a file: damage, unless the disk or another process stands in the way.
pub(crate) fn damaged(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(
            Code::SystemIoFailure
            | Code::CannotOpen
            | Code::PermissionDenied
            | Code::ReadOnly
            | Code::DiskFull
            | Code::OutOfMemory
            | Code::DatabaseBusy
            | Code::DatabaseLocked,
        ) => crate::fault::explained("read", path, error),
        _ => Error::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        },
    }
}
