//! What can go wrong in the store.

use crate::Revision;

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
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
    /// The disk or SQLite refused: check free space, permissions and that no other process has the file open.
    #[error("the store's file cannot be read or written")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file holds what this release does not understand: a newer release wrote it, or it is damaged.
    #[error("the store's file is not understood: {0}")]
    Format(String),
    /// The writer has ended: the store is being closed.
    #[error("the store is closed")]
    Closed,
}

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Io(Box::new(error))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Box::new(error))
    }
}
