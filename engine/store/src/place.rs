//! The files of a store: how one is made whole, and how one takes the place of another.
//!
//! A file is built under another name, made durable, and renamed. A store is two files while it is open, the database
//! and its log (`-wal`), and a log must never meet another database. So that a kill between two renames harms nothing,
//! what replaces a store waits under the name `.restored`, and whoever opens the store next finishes the exchange.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::disk::INSERT;
use crate::fault::explained;
use crate::format::{
    self, APPLICATION, CODEC_PLAIN, Contents, REVISION, SCHEMA, SUM, meta_checksum,
};
use crate::{Entry, Error, Result, Revision};

/// `path` with more at the end of its name.
pub(crate) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(more);
    PathBuf::from(name)
}

/// The log of the database at `path`.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// What SQLite may have beside the database at `path`, and would use with any database of that name.
fn companions(path: &Path) -> [PathBuf; 2] {
    [log_of(path), beside(path, "-journal")]
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::io("write", folder, &e))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, &e))?;
    sync_folder(to)
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// Makes an empty store at `path`, where there is none.
pub(crate) fn create(path: &Path) -> Result<()> {
    let holds = |log: &&PathBuf| fs::metadata(log).is_ok_and(|found| found.len() > 0);
    if let Some(log) = companions(path).iter().find(holds) {
        let what = format!("it is missing, though its log {} is there", log.display());
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    build(path, [], 1, path)
}

/// Writes a whole store beside `path`, and gives it the name `to`.
pub(crate) fn build<'a>(
    path: &Path,
    entries: impl IntoIterator<Item = &'a Entry>,
    revision: Revision,
    to: &Path,
) -> Result<()> {
    let new = beside(path, ".new");
    let built = Builder::create(&new).and_then(|mut builder| {
        entries
            .into_iter()
            .try_for_each(|entry| builder.put(entry))?;
        builder.finish(revision, to)
    });
    if built.is_err() {
        // It takes the room that may have been missing.
        remove(&new).ok();
    }
    built
}

/// Puts what was read of an older format in the place of its file, whose log is empty.
pub(crate) fn migrate(path: &Path, contents: &Contents) -> Result<()> {
    remove(&log_of(path))?;
    build(
        path,
        contents.rows.iter().map(|row| &row.entry),
        contents.revision,
        path,
    )
}

/// The name under which a file waits to take the place of the store at `path`.
pub(crate) fn waiting(path: &Path) -> PathBuf {
    beside(path, ".restored")
}

/// Finishes the exchange of the store at `path` for the one that waits. Says where the old one is kept.
pub(crate) fn settle(path: &Path) -> Result<Option<PathBuf>> {
    let waiting = waiting(path);
    if !waiting.exists() {
        return Ok(None);
    }
    // A log that was moved without its database belongs to an exchange that was cut off: it goes on with that name.
    let kept = (1..)
        .map(|n: u32| beside(path, &format!(".replaced-{n}")))
        .find(|kept| !kept.exists());
    let Some(kept) = kept else { return Ok(None) };
    let mut old = None;
    for (log, kept) in companions(path).iter().zip(companions(&kept)) {
        if log.exists() {
            rename(log, &kept)?;
        }
    }
    if path.exists() {
        rename(path, &kept)?;
        old = Some(kept);
    }
    rename(&waiting, path)?;
    Ok(old)
}

/// A file that is being written anew.
pub struct Builder {
    connection: Connection,
    path: PathBuf,
    rows: i64,
    sum: u32,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("path", &self.path).finish()
    }
}

impl Builder {
    /// Begins a store's file at `path`, a name that nobody else uses; what is there is replaced. Only its owner may read it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        remove(path)?;
        for leftover in companions(path) {
            remove(&leftover)?;
        }
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io("make", path, &e))?;
        let cannot = |e: rusqlite::Error| explained("write", path, &e);
        let connection = Connection::open(path).map_err(cannot)?;
        // Nobody sees it before it is whole and synced, so it needs no journal.
        connection
            .execute_batch(&format!(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
                 PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {}; BEGIN; {SCHEMA}",
                format::VERSION
            ))
            .map_err(cannot)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            rows: 0,
            sum: 0,
        })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, entry: &Entry) -> Result<()> {
        let Entry {
            key,
            value,
            created,
            modified,
        } = entry;
        let value = value.bytes();
        let checksum = format::checksum(key, *created, *modified, &value);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(checksum);
        let (created, modified) = (created.cast_signed(), modified.cast_signed());
        self.connection
            .prepare_cached(INSERT)
            .and_then(|mut insert| {
                insert.execute(params![
                    self.rows,
                    &**key,
                    created,
                    modified,
                    CODEC_PLAIN,
                    checksum,
                    &value[..]
                ])
            })
            .map_err(|e| explained("write", &self.path, &e))?;
        Ok(())
    }

    /// Makes it durable and gives it its name `to`, in the same folder; what is there is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, revision: Revision, to: &Path) -> Result<()> {
        let Self {
            connection,
            path,
            sum,
            ..
        } = self;
        let cannot = |e: rusqlite::Error| explained("write", &path, &e);
        for (name, value) in [(REVISION, revision.cast_signed()), (SUM, i64::from(sum))] {
            connection
                .execute(
                    "INSERT INTO meta VALUES (?1, ?2, ?3)",
                    params![name, value, meta_checksum(name, value)],
                )
                .map_err(cannot)?;
        }
        connection.execute_batch("COMMIT").map_err(cannot)?;
        connection.close().map_err(|(_, e)| cannot(e))?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::io("write", &path, &e))?;
        rename(&path, to)
    }
}
