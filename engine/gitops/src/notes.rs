//! Writes Git notes: those that wait for the same repository go in one push.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fleetwright_api::Fleet;
use fleetwright_core::catalogue::Catalogue;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    read::{ReadError, Reader},
    source::{AppTokens, Caches, Note, SourceError},
    tell::chain,
};

/// Notes of one push.
const MOST: usize = 100;

/// Why a note was not written. It may be there all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct NoteError {
    words: String,
    /// Whether somebody must correct something first; else trying again may help.
    pub lasting: bool,
}

impl From<ReadError> for NoteError {
    fn from(error: ReadError) -> Self {
        let lasting = match &error {
            ReadError::Secret { .. } => true,
            ReadError::Source(source) => {
                source.is_lasting()
                    || matches!(
                        source,
                        SourceError::Login(_)
                            | SourceError::Untrusted(_)
                            | SourceError::Authority(_)
                            | SourceError::HostKey(_)
                    )
            }
            _ => false,
        };
        Self {
            words: chain(&error),
            lasting,
        }
    }
}

/// Namespace of a Fleet, URL of its repository and name of the Secret for it.
type Key = (String, String, Option<String>);

/// Writes notes for all Fleets.
pub struct Notes {
    client: Client,
    catalogue: Arc<Catalogue>,
    caches: Caches,
    tokens: Option<Arc<dyn AppTokens>>,
    queues: Mutex<BTreeMap<Key, Arc<Queue>>>,
}

/// What waits for one repository.
struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    turn: tokio::sync::Mutex<Reader>,
}

struct Waiting {
    note: Note,
    written: oneshot::Sender<Result<bool, NoteError>>,
}

impl Notes {
    /// One that has written nothing.
    #[must_use]
    pub fn new(
        client: Client,
        catalogue: Arc<Catalogue>,
        caches: Caches,
        tokens: Option<Arc<dyn AppTokens>>,
    ) -> Self {
        Self {
            client,
            catalogue,
            caches,
            tokens,
            queues: Mutex::default(),
        }
    }

    /// Writes a note into the repository that a Fleet follows. Nothing is pushed where it says so already.
    ///
    /// # Errors
    /// See [`NoteError`].
    pub async fn write(&self, fleet: &Fleet, note: Note, now: Timestamp) -> Result<(), NoteError> {
        let queue = self.queue(fleet);
        let commit = note.commit.clone();
        let (written, answer) = oneshot::channel();
        queue.waiting.lock().push_back(Waiting { note, written });
        {
            let mut reader = queue.turn.lock().await;
            let batch: Vec<Waiting> = {
                let mut waiting = queue.waiting.lock();
                let most = waiting.len().min(MOST);
                waiting.drain(..most).collect()
            };
            // Else another one's turn has brought ours along.
            if !batch.is_empty() {
                let notes = batch.iter().map(|waiting| waiting.note.clone()).collect();
                let result = reader.write_notes(fleet, notes, now).await;
                let result = result.map_err(NoteError::from);
                for (at, waiting) in batch.into_iter().enumerate() {
                    let there = result.clone();
                    let there = there.map(|there| there.get(at).copied().unwrap_or_default());
                    waiting.written.send(there).ok();
                }
            }
        }
        let broken = |_| NoteError {
            words: "writing notes broke off".into(),
            lasting: false,
        };
        match answer.await.map_err(broken)?? {
            true => Ok(()),
            false => Err(NoteError {
                words: format!(
                    "{commit:?} is no full commit id, or its note is too long: shorten it, or remove it (git notes --ref=fleetwright remove)"
                ),
                lasting: true,
            }),
        }
    }

    fn queue(&self, fleet: &Fleet) -> Arc<Queue> {
        let source = &fleet.spec.source;
        let key = (
            fleet.namespace().unwrap_or_default(),
            source.url.clone().unwrap_or_default(),
            source.secret_ref.as_ref().map(|secret| secret.name.clone()),
        );
        let fresh = || {
            let (client, catalogue) = (self.client.clone(), Arc::clone(&self.catalogue));
            let reader = Reader::new(client, catalogue, self.caches.clone());
            Arc::new(Queue {
                waiting: Mutex::default(),
                turn: tokio::sync::Mutex::new(reader.with_tokens(self.tokens.clone())),
            })
        };
        Arc::clone(self.queues.lock().entry(key).or_insert_with(fresh))
    }
}
