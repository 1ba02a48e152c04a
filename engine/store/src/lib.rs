//! An ordered, versioned, watchable store of bytes, on SQLite or in memory.
//!
//! All current values are in memory, so that reads and watches never wait for the disk; a change is answered only
//! after it is durable. Every [`Store::commit`] that changes something gets the next revision, and no revision is
//! ever given twice, restarts included.

mod blob;
mod disk;
mod error;
mod fault;
mod format;
mod log;
mod pack;
mod place;
mod snapshot;
mod state;
mod wake;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use blob::Blob;
pub use error::{Error, Result};
pub use place::Builder;
pub use snapshot::{Decoder, Snapshot};
use state::State;
pub use watch::Watch;

/// The number of a change. The first change of a new store is revision 2; 0 stands for "does not exist".
pub type Revision = u64;

/// How many bytes of past changes a store on disk keeps for watchers: some ten thousand, packed as they are.
pub const DISK_HISTORY_BYTES: usize = 8 << 20;
/// How many bytes of past changes a memory store keeps: such stores come by the hundred in a simulation.
pub const MEMORY_HISTORY_BYTES: usize = 1 << 20;

/// A value and when it was made and last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: Blob,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that changed it last.
    pub modified: Revision,
}

/// A value to be written. With `stamp`, the revision of the commit is written into it as decimal digits at that
/// byte offset, so that readers get bytes which name their own version without being decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the digits of the revision are to be inserted.
    pub stamp: Option<usize>,
}

impl Value {
    /// A value that is stored as it is.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            stamp: None,
        }
    }

    /// The bytes at `revision`.
    pub fn at(&self, revision: Revision) -> Bytes {
        let Some(offset) = self.stamp.map(|at| at.min(self.bytes.len())) else {
            return Bytes::copy_from_slice(&self.bytes);
        };
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(self.bytes.len() + digits.len());
        out.extend_from_slice(&self.bytes[..offset]);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(&self.bytes[offset..]);
        Bytes::from(out)
    }
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Value,
        /// The modification revision that the key must have; 0: it must not exist; `None`: whatever it is.
        expect: Option<Revision>,
    },
    /// Removes a key; removing one that is not there changes nothing.
    Delete {
        /// The key.
        key: String,
        /// The modification revision that the key must have; `None`: whatever it is.
        expect: Option<Revision>,
        /// What watchers see as the last value, instead of the stored one.
        last: Option<Value>,
    },
    /// Changes nothing, and demands that a key has this modification revision (0: it does not exist).
    Check {
        /// The key.
        key: String,
        /// The revision demanded.
        expect: Revision,
    },
}

impl Op {
    /// The key that this change is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the commit; events of one commit share it.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// The new value; of a removal, the last one.
    pub value: Blob,
    /// The value before, if there was one.
    pub previous: Option<Blob>,
    /// Whether the key was removed.
    pub deleted: bool,
}

pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    writer: Option<writer::Writer>,
}

/// The store. Clones are cheap and share everything; the last clone dropped closes the file.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .finish()
    }
}

impl Store {
    /// An empty store in memory. It is synchronous: no thread and no timer, so that a simulation's clock holds.
    pub fn memory() -> Self {
        Self::memory_bounded(MEMORY_HISTORY_BYTES)
    }

    /// An empty store in memory that keeps at most `history` bytes of past changes.
    pub fn memory_bounded(history: usize) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State::new(history)),
            writer: None,
        }))
    }

    /// A store in memory that goes on from `entries`, kept elsewhere; its revisions go on after `revision`, which must
    /// be past any that was ever given.
    pub fn memory_from(revision: Revision, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut state = State::new(MEMORY_HISTORY_BYTES);
        for entry in entries {
            state.load(entry);
        }
        (state.revision, state.compacted) = (revision, revision);
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            writer: None,
        }))
    }

    /// Opens the SQLite file at `path`, made when missing, migrated when an earlier release wrote it, and reads all of
    /// it. A file that is damaged or not understood is left as it is.
    ///
    /// # Errors
    /// When the file cannot be opened or read, is damaged or not a store, or is open in another process.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_bounded(path, DISK_HISTORY_BYTES)
    }

    /// As [`Store::open`], keeping at most `history` bytes of past changes.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_bounded(path: impl AsRef<Path>, history: usize) -> Result<Self> {
        let (database, state) = disk::Database::open(path.as_ref(), history)?;
        let inner = Arc::new_cyclic(|weak: &std::sync::Weak<Inner>| Inner {
            state: Mutex::new(state),
            writer: Some(writer::Writer::start(database, weak.clone())),
        });
        Ok(Self(inner))
    }

    /// All of it as it is now. Only references are copied: it costs writers a few milliseconds for 100,000 keys.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.0.state.lock();
        Snapshot {
            revision: state.revision,
            entries: state.range("", None, 0),
        }
    }

    /// Whether the last commit could not be made durable: what is not urgent may wait for one that can.
    pub fn failing(&self) -> bool {
        let writer = self.0.writer.as_ref();
        writer.is_some_and(writer::Writer::failing)
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.0.state.lock().revision
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.0.state.lock().get(key)
    }

    /// The entries whose keys begin with `prefix` and come after `start_after`, in the order of their keys, at most
    /// `limit` (0: all), and the revision at which that is so.
    pub fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> (Vec<Entry>, Revision) {
        let state = self.0.state.lock();
        (state.range(prefix, start_after, limit), state.revision)
    }

    /// What [`Store::range`] gave at an earlier revision: keys and values as they were then, in the order of their keys.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the changes since are no longer kept.
    pub fn range_at(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        revision: Revision,
    ) -> Result<Vec<(Arc<str>, Blob)>> {
        self.0.state.lock().range_at(prefix, start_after, revision)
    }

    /// How many keys begin with `prefix` and come after `start_after`.
    pub fn count(&self, prefix: &str, start_after: Option<&str>) -> usize {
        self.0.state.lock().count(prefix, start_after)
    }

    /// Makes all of `ops` or none of them, and answers after they are durable, with their revision. When they change
    /// nothing, that is the newest revision.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a key has not the expected revision, [`Error::Io`] when the disk refuses.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Revision> {
        match &self.0.writer {
            None => {
                let revision = self.0.state.lock().commit(&ops)?;
                self.0.announce();
                Ok(revision)
            }
            Some(writer) => writer.commit(ops).await,
        }
    }

    /// A stream of the changes to keys that begin with `prefix`, after revision `from`.
    pub fn watch(&self, prefix: impl Into<String>, from: Revision) -> Watch {
        Watch::new(self.clone(), prefix.into(), from)
    }

    /// The oldest revision that a watch may still start from.
    pub fn compacted(&self) -> Revision {
        self.0.state.lock().compacted
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Wakes those whom the changes made so far concern.
    pub(crate) fn announce(&self) {
        let due = self.state.lock().bells.due();
        for bell in due {
            bell.notify_waiters();
        }
    }
}
