//! Watching: a cursor into the shared history, without a queue per watcher.

use std::sync::Arc;

use crate::{Error, Event, Result, Revision, Store, wake::Bell};

/// The most events that one step hands out, so that the store's lock is held only shortly.
const BATCH: usize = 256;

/// The changes to the keys of one prefix, in order. A watcher that falls behind the kept history gets
/// [`Error::Compacted`].
pub struct Watch {
    store: Store,
    prefix: String,
    seen: Revision,
    changed: Bell,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.inner().state.lock().bells.leave(&self.prefix);
    }
}

impl Watch {
    pub(crate) fn new(store: Store, prefix: String, from: Revision) -> Self {
        let changed = store.inner().state.lock().bells.join(&prefix);
        Self {
            store,
            prefix,
            seen: from,
            changed,
        }
    }

    /// The revision up to which everything has been handed out.
    pub fn seen(&self) -> Revision {
        self.seen
    }

    /// The events that are there already: possibly none.
    ///
    /// # Errors
    /// [`Error::Compacted`] when events were missed.
    pub fn ready(&mut self) -> Result<Vec<Event>> {
        let state = self.store.inner().state.lock();
        if self.seen < state.compacted {
            return Err(Error::Compacted {
                compacted: state.compacted,
            });
        }
        let start = state
            .history
            .partition_point(|event| event.revision <= self.seen);
        let mut events: Vec<Event> = Vec::new();
        for event in state.history.range(start..) {
            if events.len() >= BATCH && events.last().is_some_and(|e| e.revision != event.revision)
            {
                self.seen = events.last().map_or(self.seen, |e| e.revision);
                return Ok(events);
            }
            if event.key.starts_with(&self.prefix) {
                events.push(event.clone());
            }
        }
        self.seen = self.seen.max(state.revision);
        Ok(events)
    }

    /// Waits for the next events: at least one, commits never split.
    ///
    /// # Errors
    /// [`Error::Compacted`] when events were missed.
    pub async fn next(&mut self) -> Result<Vec<Event>> {
        let bell = Arc::clone(&self.changed);
        loop {
            // What rings from here on is heard.
            let changed = bell.notified();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            changed.await;
        }
    }
}
