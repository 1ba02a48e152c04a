//! The SQLite file and the one thread that writes it.

use std::path::Path;
use std::sync::{Weak, mpsc};

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::state::{Change, Overlay, State};
use crate::{Error, Inner, Op, Result, Revision};

/// The first two bytes of every stored value: how it is encoded, and with which key. Today: plain, no key.
const CODEC_PLAIN: [u8; 2] = [1, 0];
/// Pages of the log after which they are brought into the file. That holds all writers up and costs most of a write to a
/// page of its own; with SQLite's 1,000 every 25th write of a busy server waited for it.
const CHECKPOINT_PAGES: i64 = 8_000;
/// Pages kept in memory, in KiB: the inner pages of 100,000 objects and more.
const CACHE_KIB: i64 = 16 << 10;
/// The most commits that share one transaction.
const BATCH: usize = 512;
const FORMAT: i64 = 1;

/// The opened file.
pub(crate) struct Database {
    connection: Connection,
}

impl Database {
    pub(crate) fn open(path: &Path, history: usize) -> Result<(Self, State)> {
        private_file(path)?;
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // Objects are in a table with rowids: one without keeps a quarter of a page of each and chains the rest, which makes
        // each write touch twice as many pages. Files that have such a table serve as well.
        connection.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, created INTEGER NOT NULL,
                 modified INTEGER NOT NULL, value BLOB NOT NULL);
             INSERT OR IGNORE INTO meta VALUES ('format', 1), ('revision', 1);
             COMMIT;",
        )?;
        let meta = |name: &str| -> Result<i64> {
            Ok(
                connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
                    row.get(0)
                })?,
            )
        };
        let format = meta("format")?;
        if format != FORMAT {
            return Err(Error::Format(format!(
                "format {format}, this release knows {FORMAT}"
            )));
        }
        let mut state = State::new(history);
        state.revision = meta("revision")?.cast_unsigned();
        {
            let mut rows = connection.prepare("SELECT key, created, modified, value FROM data")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let key: String = row.get(0)?;
                let stored: Vec<u8> = row.get(3)?;
                if stored.len() < 2 || stored[..2] != CODEC_PLAIN {
                    return Err(Error::Format(format!("unknown encoding of {key}")));
                }
                let modified = row.get::<_, i64>(2)?.cast_unsigned();
                state.revision = state.revision.max(modified);
                let value = Bytes::from(stored).slice(2..);
                state.load(key, value, row.get::<_, i64>(1)?.cast_unsigned(), modified);
            }
        }
        state.compacted = state.revision;
        Ok((Self { connection }, state))
    }

    fn write(&mut self, batch: &[(Vec<Change>, Revision)]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO data (key, created, modified, value) VALUES (?1, ?2, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET modified = ?2, value = ?3",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM data WHERE key = ?1")?;
            let mut newest = 0;
            for (changes, revision) in batch {
                newest = *revision;
                for change in changes {
                    match &change.value {
                        Some(value) => {
                            let mut stored = Vec::with_capacity(value.len() + 2);
                            stored.extend_from_slice(&CODEC_PLAIN);
                            stored.extend_from_slice(value);
                            put.execute(params![change.key, revision.cast_signed(), stored])?;
                        }
                        None => {
                            delete.execute([&change.key])?;
                        }
                    }
                }
            }
            transaction
                .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'revision'")?
                .execute([newest.cast_signed()])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Makes the file readable for its owner alone, before SQLite writes to it.
fn private_file(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}

struct Request {
    ops: Vec<Op>,
    answer: oneshot::Sender<Result<Revision>>,
}

/// The handle to the writer thread. Dropping it ends the thread after what is queued.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(database: Database, inner: Weak<Inner>) -> Self {
        let (queue, requests) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(database, &inner, &requests))
            .inspect_err(|error| tracing::error!(%error, "the store's writer cannot start"))
            .ok();
        Self {
            queue: Some(queue),
            thread,
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

fn run(mut database: Database, inner: &Weak<Inner>, requests: &mpsc::Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let answers = write_batch(&mut database, &inner, batch);
        // Before the answers go out: whoever then drops the last store waits for the file to be closed.
        drop(inner);
        for (answer, result) in answers {
            answer.send(result).ok();
        }
    }
}

type Answer = (oneshot::Sender<Result<Revision>>, Result<Revision>);

/// Commits a batch as one transaction; each request still stands or falls on its own preconditions.
fn write_batch(database: &mut Database, inner: &Inner, batch: Vec<Request>) -> Vec<Answer> {
    let mut overlay = Overlay::new();
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    let mut prepared = Vec::with_capacity(batch.len());
    let mut waiting = Vec::with_capacity(batch.len());
    {
        let state = inner.state.lock();
        let mut revision = state.revision;
        for request in batch {
            match state.prepare(&request.ops, revision + 1, &overlay) {
                Err(error) => answers.push((request.answer, Err(error))),
                Ok(changes) if changes.is_empty() => waiting.push((request.answer, revision)),
                Ok(changes) => {
                    revision += 1;
                    for change in &changes {
                        let now = if change.value.is_some() { revision } else { 0 };
                        overlay.insert(change.key.clone(), now);
                    }
                    prepared.push((changes, revision));
                    waiting.push((request.answer, revision));
                }
            }
        }
    }
    let written = if prepared.is_empty() {
        Ok(())
    } else {
        database.write(&prepared)
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
            tracing::error!(%error, "a transaction of the store failed; nothing of it was done");
            let text = match error {
                Error::Io(source) => source.to_string(),
                other => other.to_string(),
            };
            answers.extend(
                waiting
                    .into_iter()
                    .map(|(answer, _)| (answer, Err(Error::Io(text.clone().into())))),
            );
        }
    }
    answers
}
