//! The one thread that writes the file: what has queued up becomes one transaction, and is answered after its commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};

use tokio::sync::oneshot;

use crate::disk::Database;
use crate::state::Overlay;
use crate::{Error, Inner, Op, Result, Revision};

/// The most commits that share one transaction.
const BATCH: usize = 512;
/// After how many transactions free pages are given back even though more is queued up.
const SHRINK_EVERY: u32 = 16;

struct Request {
    ops: Vec<Op>,
    answer: oneshot::Sender<Result<Revision>>,
}

/// The handle to the writer thread. Dropping it ends the thread after what is queued.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    failing: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(database: Database, inner: Weak<Inner>) -> Self {
        let (queue, requests) = mpsc::channel();
        let failing = Arc::new(AtomicBool::new(false));
        let writing = Loop {
            database,
            inner,
            floor: 0,
            failing: Arc::clone(&failing),
            failed: 0,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writing.run(&requests))
            .inspect_err(|error| tracing::error!(%error, "the store's writer cannot start"))
            .ok();
        Self {
            queue: Some(queue),
            thread,
            failing,
        }
    }

    pub(crate) async fn commit(&self, ops: Vec<Op>) -> Result<Revision> {
        let (answer, answered) = oneshot::channel();
        self.queue
            .as_ref()
            .ok_or(Error::Closed)?
            .send(Request { ops, answer })
            .map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the writer was reported by its own thread.
            thread.join().ok();
        }
    }
}

type Answer = (oneshot::Sender<Result<Revision>>, Result<Revision>);

struct Loop {
    database: Database,
    inner: Weak<Inner>,
    /// The newest revision that a transaction was tried with. One that failed may be in the log all the same, and come
    /// back after a kill: its revision is given to nothing else.
    floor: Revision,
    failing: Arc<AtomicBool>,
    /// How many transactions have failed since one was made.
    failed: u64,
}

impl Loop {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        // Transactions since free pages were last given back.
        let mut since = 0_u32;
        loop {
            let first = if self.database.log_is_full() || self.database.may_shrink() {
                match requests.try_recv() {
                    Err(mpsc::TryRecvError::Empty) => {
                        since = 0;
                        self.tidy(true);
                        continue;
                    }
                    received => received.ok(),
                }
            } else {
                requests.recv().ok()
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = requests.try_recv()
            {
                batch.push(next);
            }
            let Some(inner) = self.inner.upgrade() else {
                return;
            };
            let answers = self.write(&inner, batch);
            // Before the answers go out: whoever then drops the last store waits for the file to be closed.
            drop(inner);
            for (answer, result) in answers {
                answer.send(result).ok();
            }
            since = since.wrapping_add(1);
            self.tidy(since.is_multiple_of(SHRINK_EVERY));
        }
    }

    /// One short step of what keeps the file small. Nobody's answer waits for it.
    fn tidy(&mut self, shrink: bool) {
        let done = if self.database.log_is_full() {
            self.database.empty_log()
        } else if shrink && self.database.may_shrink() {
            self.database.shrink()
        } else {
            Ok(())
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the store's file stays larger than it needs to be");
        }
    }

    /// Commits a batch as one transaction; each request still stands or falls on its own preconditions.
    fn write(&mut self, inner: &Inner, batch: Vec<Request>) -> Vec<Answer> {
        let mut overlay = Overlay::new();
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let mut prepared = Vec::with_capacity(batch.len());
        let mut waiting = Vec::with_capacity(batch.len());
        {
            let mut state = inner.state.lock();
            let mut newest = state.revision;
            for request in batch {
                let next = newest.max(self.floor) + 1;
                match state.prepare(&request.ops, next, &mut overlay) {
                    Err(error) => answers.push((request.answer, Err(error))),
                    Ok(changes) if changes.is_empty() => waiting.push((request.answer, newest)),
                    Ok(changes) => {
                        newest = next;
                        prepared.push((changes, newest));
                        waiting.push((request.answer, newest));
                    }
                }
            }
        }
        let written = match prepared.last() {
            None => Ok(()),
            Some((_, newest)) => {
                self.floor = *newest;
                let written = self.database.write(&prepared);
                self.note(written.as_ref().err());
                written
            }
        };
        match written {
            Ok(()) => {
                {
                    let mut state = inner.state.lock();
                    for (changes, revision) in prepared {
                        state.apply(changes, revision);
                    }
                }
                inner.announce();
                answers.extend(waiting.into_iter().map(|(answer, at)| (answer, Ok(at))));
            }
            Err(error) => {
                let refused = |(answer, _)| (answer, Err(error.clone()));
                answers.extend(waiting.into_iter().map(refused));
            }
        }
        answers
    }

    /// Tells the log when writing begins to fail, and when it works again.
    fn note(&mut self, failure: Option<&Error>) {
        match failure {
            Some(error) => {
                if self.failed == 0 {
                    tracing::error!(%error, "a transaction of the store failed; nothing of it was done");
                }
                self.failed += 1;
            }
            None if self.failed > 0 => {
                tracing::info!(
                    failed = self.failed,
                    file = %self.database.path().display(),
                    "the store can write again"
                );
                self.failed = 0;
            }
            None => {}
        }
        self.failing.store(self.failed > 0, Ordering::Relaxed);
    }
}
