//! The bare caches of one process, and whose turn it is to use them.
//!
//! Fleets of one repository that come with the same credentials share a cache. They wait for their turn in the order in which they
//! came, without a thread; a fetch brings what all of them wait for, and who asked before it began has the answer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetwright_api::names::short_hash;
use git2::Oid;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{
    SourceError, credentials::Credentials, git::GitSource, transport::Address, wanted::Wanted,
};

/// The bare caches below a folder. Clones share them.
#[derive(Clone, Default)]
pub struct Caches {
    folder: PathBuf,
    queues: Arc<Mutex<BTreeMap<PathBuf, Arc<Queue>>>>,
}

#[derive(Default)]
struct Queue {
    asks: Mutex<Asks>,
    turn: Arc<tokio::sync::Mutex<Answer>>,
}

/// What is waited for.
#[derive(Default)]
struct Asks {
    wanted: Vec<Wanted>,
    /// Fetches that have begun.
    begun: u64,
}

/// The last fetch that ended well: its number and what it asked for.
#[derive(Default)]
struct Answer {
    number: u64,
    wanted: Vec<Wanted>,
}

/// The right to use a cache, until it is dropped.
pub(crate) struct Turn {
    answer: OwnedMutexGuard<Answer>,
    source: GitSource,
    wanted: Wanted,
    /// Number and content of the fetch that is due; none where one has answered meanwhile.
    fetch: Option<(u64, Vec<Wanted>)>,
}

impl<P: Into<PathBuf>> From<P> for Caches {
    fn from(folder: P) -> Self {
        Self {
            folder: folder.into(),
            queues: Arc::default(),
        }
    }
}

impl Caches {
    /// The folder that holds them.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The repository at `address`. Who comes with other credentials, or trusts others, gets another cache: nobody gets out of one
    /// what the repository would not have given them, and nobody believes what only another would have believed.
    #[must_use]
    pub fn source(&self, address: Address, credentials: Credentials) -> GitSource {
        let key = [address.url.as_str(), &credentials.identifier];
        GitSource {
            cache: self.folder.join(short_hash(key, 20)),
            address,
            credentials: Arc::new(credentials),
        }
    }

    /// Waits for the turn to use the cache of `source` for `wanted`.
    pub(crate) async fn turn(&self, source: GitSource, wanted: Wanted) -> Turn {
        let queue = Arc::clone(self.queues.lock().entry(source.cache.clone()).or_default());
        let asked = {
            let mut asks = queue.asks.lock();
            if !asks.wanted.contains(&wanted) {
                asks.wanted.push(wanted.clone());
            }
            asks.begun
        };
        let answer = Arc::clone(&queue.turn).lock_owned().await;
        let fetch = if answer.number > asked && answer.wanted.contains(&wanted) {
            None
        } else {
            let mut asks = queue.asks.lock();
            asks.begun += 1;
            let mut all = std::mem::take(&mut asks.wanted);
            if !all.contains(&wanted) {
                all.push(wanted.clone());
            }
            Some((asks.begun, all))
        };
        Turn {
            answer,
            source,
            wanted,
            fetch,
        }
    }
}

impl Turn {
    /// The repository whose turn it is.
    pub(crate) fn source(&self) -> &GitSource {
        &self.source
    }

    /// The commit that is wanted, as the remote has it after the turn was asked for; blocks.
    pub(crate) fn commit(&mut self, now: Timestamp) -> Result<Oid, SourceError> {
        let Some((number, mut all)) = self.fetch.take() else {
            return self.source.known(&self.wanted);
        };
        let mut found = self.source.resolve(&all, &self.wanted, now);
        if matches!(found, Err(SourceError::TooLarge)) && all.len() > 1 {
            // It may be another's branch that is too large.
            all = vec![self.wanted.clone()];
            found = self.source.resolve(&all, &self.wanted, now);
        }
        if let Ok(_) | Err(SourceError::NoRef(_) | SourceError::BadRef(_)) = &found {
            let wanted = all;
            *self.answer = Answer { number, wanted };
        }
        found
    }
}
