//! The opened SQLite file: what is written to it, and how it is kept small.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, params};

use crate::error::damaged;
use crate::fault::explained;
use crate::format::{self, CODEC_PLAIN, REVISION, SUM, meta_checksum};
use crate::state::{Change, State};
use crate::{Error, Result, Revision, place};

/// From how many pages on the write-ahead log is moved into the file. That holds all writers up and costs most of a write to
/// a page of its own; with SQLite's 1,000 every 25th write of a busy server waited for it.
const LOG_PAGES: usize = 8_000;
/// What the log may take on disk while nothing is in it, in bytes.
const LOG_KEPT: i64 = 40 << 20;
/// Pages kept in memory, in KiB: the inner pages of 100,000 objects and more.
const CACHE_KIB: i64 = 2 << 10;
/// How many free pages are given back in one step: 1 MiB, a few milliseconds.
const STEP_PAGES: u32 = 256;
/// How many free pages a file keeps for what comes next.
const SPARE_PAGES: u32 = 256;
/// How long another process may hold the file, such as one that is just ending.
const BUSY: Duration = Duration::from_secs(5);
/// Adds a row.
pub(crate) const INSERT: &str = "INSERT INTO data (id, key, created, modified, codec, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// The opened file.
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
    /// The sum of the checksums of all rows, modulo 2³².
    sum: u32,
    /// How many pages are in the log.
    log: Arc<AtomicUsize>,
    /// Whether pages may have become free that are to be given back.
    freed: bool,
    /// Whether some were, since the log was last moved for it.
    given_back: bool,
}

impl Database {
    /// Opens the file, made when missing, holds it to its checks, migrates it when it is older, and reads all of it.
    pub(crate) fn open(path: &Path, history: usize) -> Result<(Self, State)> {
        place::settle(path)?;
        if !path.exists() {
            place::create(path)?;
        }
        format::check_head(path)?;
        let connection = connect(path)?;
        let (version, mut contents) = format::read(&connection, path)?;
        let mut connection = if version == format::VERSION {
            connection
        } else {
            tracing::info!(file = %path.display(), from = version, to = format::VERSION, "migrating the store's file");
            // Its log is put into it and removed, so that one rename replaces all of it.
            checkpoint_on_close(&connection, path, true)?;
            checkpoint(&connection, path, CheckpointMode::TRUNCATE)?;
            let cannot = |(_, e): (Connection, rusqlite::Error)| explained("write", path, &e);
            connection.close().map_err(cannot)?;
            place::migrate(path, &contents)?;
            let connection = connect(path)?;
            contents = format::read(&connection, path)?.1;
            connection
        };
        let set = |name: &str, value: &dyn rusqlite::ToSql| {
            connection
                .pragma_update(None, name, value)
                .map_err(|e| explained("write", path, &e))
        };
        set("journal_mode", &"WAL")?;
        set("synchronous", &"FULL")?;
        set("wal_autocheckpoint", &0)?;
        set("journal_size_limit", &LOG_KEPT)?;
        set("cache_size", &-CACHE_KIB)?;
        checkpoint_on_close(&connection, path, true)?;
        // What a killed process left in the log is moved at once.
        let log = Arc::new(AtomicUsize::new(LOG_PAGES));
        let count = Arc::clone(&log);
        let counted = connection.wal_hook(Some(move |_: &mut Wal, pages| {
            count.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }));
        counted.map_err(|e| explained("open", path, &e))?;
        let sum = contents
            .rows
            .iter()
            .fold(0_u32, |sum, row| sum.wrapping_add(row.checksum));
        let state = State::loaded(history, contents);
        let database = Self {
            connection,
            path: path.to_owned(),
            sum,
            log,
            freed: true,
            given_back: false,
        };
        Ok((database, state))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes commits as one transaction.
    pub(crate) fn write(&mut self, batch: &[(Vec<Change>, Revision)]) -> Result<()> {
        let changes = || batch.iter().flat_map(|(changes, _)| changes);
        match self.transact(batch) {
            Ok(Some(sum)) => {
                self.sum = sum;
                self.freed |= changes().any(|change| change.replaced.is_some());
                Ok(())
            }
            Ok(None) => Err(Error::Damaged {
                path: self.path.clone(),
                what: "a row that was written is not there".to_owned(),
            }),
            Err(error) => {
                // What is in the log goes into the file as far as that is possible, and makes room in the log.
                self.log.fetch_max(LOG_PAGES, Ordering::Relaxed);
                Err(explained("write", &self.path, &error))
            }
        }
    }

    /// The transaction; gives the new sum. `None`, and nothing is done, when a row is not where it must be.
    fn transact(&self, batch: &[(Vec<Change>, Revision)]) -> rusqlite::Result<Option<u32>> {
        // Dropped without a commit it is rolled back.
        let transaction = self.connection.unchecked_transaction()?;
        let mut sum = self.sum;
        let mut newest = 0;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            let mut update = transaction.prepare_cached(
                "UPDATE data SET modified = ?2, codec = ?3, checksum = ?4, value = ?5 WHERE id = ?1",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM data WHERE id = ?1")?;
            for (changes, revision) in batch {
                newest = revision.cast_signed();
                for change in changes {
                    let row = &change.row;
                    sum = sum.wrapping_sub(change.replaced.unwrap_or_default());
                    let done = match &change.value {
                        None => delete.execute([row.id])?,
                        Some(value) => {
                            sum = sum.wrapping_add(row.checksum);
                            let (check, value) = (row.checksum, &value[..]);
                            if change.replaced.is_some() {
                                update.execute(params![
                                    row.id,
                                    newest,
                                    CODEC_PLAIN,
                                    check,
                                    value
                                ])?
                            } else {
                                let (key, made) = (&change.key, row.created.cast_signed());
                                insert.execute(params![
                                    row.id,
                                    key,
                                    made,
                                    newest,
                                    CODEC_PLAIN,
                                    check,
                                    value
                                ])?
                            }
                        }
                    };
                    if done != 1 {
                        return Ok(None);
                    }
                }
            }
            let mut meta = transaction
                .prepare_cached("UPDATE meta SET value = ?2, checksum = ?3 WHERE name = ?1")?;
            for (name, value) in [(REVISION, newest), (SUM, i64::from(sum))] {
                if meta.execute(params![name, value, meta_checksum(name, value)])? != 1 {
                    return Ok(None);
                }
            }
        }
        transaction.commit()?;
        Ok(Some(sum))
    }

    /// Whether the log is to be moved into the file.
    pub(crate) fn log_is_full(&self) -> bool {
        self.log.load(Ordering::Relaxed) >= LOG_PAGES
    }

    /// Moves the log into the file.
    pub(crate) fn empty_log(&mut self) -> Result<()> {
        // One that fails is tried again once more is written, not at once.
        self.log.store(0, Ordering::Relaxed);
        checkpoint(&self.connection, &self.path, CheckpointMode::PASSIVE)
    }

    /// Whether free pages may be there to be given back.
    pub(crate) fn may_shrink(&self) -> bool {
        self.freed
    }

    /// Gives some free pages back: one short step.
    pub(crate) fn shrink(&mut self) -> Result<()> {
        self.freed = false;
        let pages = |name: &str| -> Result<u32> {
            self.connection
                .pragma_query_value(None, name, |row| row.get(0))
                .map_err(|e| explained("read", &self.path, &e))
        };
        let step = excess(pages("freelist_count")?, pages("page_count")?).min(STEP_PAGES);
        if step == 0 {
            // The file is shorter once its log says so in the file itself.
            if std::mem::take(&mut self.given_back) {
                self.log.fetch_max(LOG_PAGES, Ordering::Relaxed);
            }
            return Ok(());
        }
        // It gives a row for each page.
        let give = || -> rusqlite::Result<()> {
            let mut statement = self
                .connection
                .prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        give().map_err(|e| explained("write", &self.path, &e))?;
        self.freed = true;
        self.given_back = true;
        Ok(())
    }
}

/// How many of `free` pages of a file of `all` pages are to be given back: it keeps an eighth, so that a file whose
/// contents come and go is not moved about for ever.
fn excess(free: u32, all: u32) -> u32 {
    free.saturating_sub(SPARE_PAGES + (all - all.min(free)) / 8)
}

/// A connection that holds the file alone. Until it is known to be ours nothing is written, not even when it is closed.
pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(|e| explained("open", path, &e))?;
    checkpoint_on_close(&connection, path, false)?;
    connection
        .busy_timeout(BUSY)
        .and_then(|()| connection.pragma_update(None, "locking_mode", "EXCLUSIVE"))
        .map_err(|e| damaged(path, &e))?;
    Ok(connection)
}

fn checkpoint_on_close(connection: &Connection, path: &Path, on: bool) -> Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !on)
        .map_err(|e| explained("open", path, &e))?;
    Ok(())
}

/// Moves the log into the file.
pub(crate) fn checkpoint(connection: &Connection, path: &Path, mode: CheckpointMode) -> Result<()> {
    connection
        .wal_checkpoint_v2(None::<&str>, mode)
        .map_err(|e| explained("write", path, &e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_keeps_an_eighth_of_its_pages_free() {
        let table = [
            (0, 10, 0),
            (256, 256, 0),
            (300, 300, 44),
            (1_256, 9_256, 0),
            (2_000, 10_000, 744),
        ];
        for (free, all, wanted) in table {
            assert_eq!(super::excess(free, all), wanted, "{free} of {all}");
        }
    }
}
