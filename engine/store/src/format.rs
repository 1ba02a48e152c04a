//! How a file is laid out, and how files of earlier releases are read.
//!
//! A file is only ever written in the newest format, [`VERSION`]; each earlier one has a function that reads it. A
//! migration reads the old file, builds a new one beside it, and puts that in its place by one rename.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, Row};

use crate::error::damaged;
use crate::{Entry, Error, Result, Revision};

/// The format that this release writes; `user_version` of the file.
pub(crate) const VERSION: i64 = 2;
/// `application_id` of the file since format 2: "FLWT".
pub(crate) const APPLICATION: i64 = 0x464c_5754;
/// How a value is encoded, and with which key. Today: plain, no key.
pub(crate) const CODEC_PLAIN: i64 = 1;
/// The name of the row of `meta` with the newest revision, and of the one with the sum of all rows' checksums.
pub(crate) const REVISION: &str = "revision";
pub(crate) const SUM: &str = "sum";

/// `id` is known in memory, so that no index is kept and new rows are appended. `auto_vacuum` comes before any table.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE data (id INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
        codec INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL);
";

/// One row of a file.
pub(crate) struct Stored {
    pub(crate) row: i64,
    pub(crate) checksum: u32,
    pub(crate) entry: Entry,
}

/// All that a file holds.
pub(crate) struct Contents {
    pub(crate) revision: Revision,
    pub(crate) rows: Vec<Stored>,
}

type Reader = fn(&Connection, &Path) -> Result<Contents>;

/// The formats that are read, with how; the last one is the newest.
const READERS: &[(i64, Reader)] = &[(1, read_1), (VERSION, read_2)];

/// The checksum of a row: of all that it says.
pub(crate) fn checksum(key: &str, created: Revision, modified: Revision, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&created.to_le_bytes());
    hasher.update(&modified.to_le_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(value);
    hasher.finalize()
}

/// The checksum of a row of `meta`.
pub(crate) fn meta_checksum(name: &str, value: i64) -> u32 {
    checksum(name, value.cast_unsigned(), 0, b"")
}

/// Which format the file behind a connection has.
///
/// # Errors
/// When it is no store, or one of a newer release.
pub(crate) fn version(connection: &Connection, path: &Path) -> Result<i64> {
    let pragma = |name: &str| -> Result<i64> {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(|e| damaged(path, &e))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let known = match (application, version) {
        (APPLICATION, version) => version,
        // Format 1 said so in a table alone.
        (0, 0) => connection
            .query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| {
                row.get(0)
            })
            .map_err(|e| damaged(path, &e))?,
        _ => {
            let what = format!(
                "application id {application:#x} is not ours: this is another program's file"
            );
            return Err(Error::Format {
                path: path.to_owned(),
                what,
            });
        }
    };
    if known > VERSION {
        let what = format!(
            "format {known} is newer than {VERSION}, the newest that this release knows: start the release that wrote it, or a later one"
        );
        return Err(Error::Format {
            path: path.to_owned(),
            what,
        });
    }
    Ok(known)
}

/// Reads a file of any known format, and holds it to its checks.
///
/// # Errors
/// When the file is damaged, is no store, or is one of a newer release.
pub(crate) fn read(connection: &Connection, path: &Path) -> Result<(i64, Contents)> {
    let version = version(connection, path)?;
    // The file is locked since it was first read.
    crate::log::check(path)?;
    let found: Vec<String> = connection
        .prepare("PRAGMA quick_check(3)")
        .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect())
        .map_err(|e| damaged(path, &e))?;
    if found != ["ok"] {
        return Err(Error::Damaged {
            path: path.to_owned(),
            what: found.join("; "),
        });
    }
    let reader = READERS.iter().find(|(known, _)| *known == version);
    let Some((_, reader)) = reader else {
        let what = format!("there never was a format {version}");
        return Err(Error::Format {
            path: path.to_owned(),
            what,
        });
    };
    Ok((version, reader(connection, path)?))
}

/// Refuses what SQLite would take for a new database: an empty file, or one whose beginning is gone.
///
/// # Errors
/// When the file cannot be read, or does not begin as a database does.
pub(crate) fn check_head(path: &Path) -> Result<()> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(100).read_to_end(&mut head))
        .map_err(|e| Error::io("read", path, &e))?;
    if head.len() < 100 || !head.starts_with(MAGIC) {
        let what = match head.len() {
            0 => "the file is empty".to_owned(),
            short @ 1..100 => format!("the file ends after {short} bytes"),
            _ => "the file does not begin as a database does".to_owned(),
        };
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    Ok(())
}

/// Reads all rows that `select` gives, with `make`.
fn rows(
    connection: &Connection,
    path: &Path,
    select: &str,
    mut make: impl FnMut(&Row<'_>) -> rusqlite::Result<Result<Stored, String>>,
) -> Result<Vec<Stored>> {
    let mut all = Vec::new();
    let mut statement = connection.prepare(select).map_err(|e| damaged(path, &e))?;
    let mut rows = statement.query([]).map_err(|e| damaged(path, &e))?;
    while let Some(row) = rows.next().map_err(|e| damaged(path, &e))? {
        let made = make(row).map_err(|e| damaged(path, &e))?;
        all.push(made.map_err(|what| Error::Damaged {
            path: path.to_owned(),
            what,
        })?);
    }
    Ok(all)
}

/// Format 1: `meta(name, value)`, `data(key, created, modified, value)` by key, a value's first two bytes its codec.
fn read_1(connection: &Connection, path: &Path) -> Result<Contents> {
    let revision: i64 = connection
        .query_row(
            "SELECT value FROM meta WHERE name = 'revision'",
            [],
            |row| row.get(0),
        )
        .map_err(|e| damaged(path, &e))?;
    let mut revision = revision.cast_unsigned();
    let mut count = 0;
    let select = "SELECT key, created, modified, value FROM data";
    let rows = rows(connection, path, select, |row| {
        let key: String = row.get(0)?;
        let (created, modified) = (row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
        let stored: Vec<u8> = row.get(3)?;
        if stored.get(..2) != Some(&[1, 0]) {
            return Ok(Err(format!("the encoding of {key} is not known")));
        }
        count += 1;
        let value = Bytes::from(stored).slice(2..);
        let (created, modified) = (created.cast_unsigned(), modified.cast_unsigned());
        revision = revision.max(modified);
        Ok(Ok(Stored {
            row: count,
            checksum: checksum(&key, created, modified, &value),
            entry: Entry {
                key: key.into(),
                value: value.into(),
                created,
                modified,
            },
        }))
    })?;
    Ok(Contents { revision, rows })
}

fn read_2(connection: &Connection, path: &Path) -> Result<Contents> {
    let wrong = |what: String| Error::Damaged {
        path: path.to_owned(),
        what,
    };
    let meta = |name: &str| -> Result<i64> {
        let (value, stored): (i64, i64) = connection
            .query_row(
                "SELECT value, checksum FROM meta WHERE name = ?1",
                [name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|e| damaged(path, &e))?;
        if i64::from(meta_checksum(name, value)) != stored {
            return Err(wrong(format!("the checksum of its {name} is wrong")));
        }
        Ok(value)
    };
    let (revision, wanted) = (meta(REVISION)?.cast_unsigned(), meta(SUM)?);
    let mut sum = 0_u32;
    let select = "SELECT id, key, created, modified, codec, checksum, value FROM data";
    let mut rows = rows(connection, path, select, |row| {
        let id: i64 = row.get(0)?;
        let key: String = row.get(1)?;
        let created = row.get::<_, i64>(2)?.cast_unsigned();
        let modified = row.get::<_, i64>(3)?.cast_unsigned();
        let value = Bytes::from(row.get::<_, Vec<u8>>(6)?);
        let checksum = checksum(&key, created, modified, &value);
        if row.get::<_, i64>(5)? != i64::from(checksum) {
            return Ok(Err(format!("the checksum of {key:?} is wrong")));
        }
        if row.get::<_, i64>(4)? != CODEC_PLAIN {
            return Ok(Err(format!("the encoding of {key} is not known")));
        }
        sum = sum.wrapping_add(checksum);
        let entry = Entry {
            key: key.into(),
            value: value.into(),
            created,
            modified,
        };
        Ok(Ok(Stored {
            row: id,
            checksum,
            entry,
        }))
    })?;
    if i64::from(sum) != wanted {
        return Err(wrong(
            "rows are missing, or are older than the rest".to_owned(),
        ));
    }
    if let Some(late) = rows.iter().find(|r| r.entry.modified > revision) {
        return Err(wrong(format!("{} is newer than the file", late.entry.key)));
    }
    rows.sort_unstable_by(|a, b| a.entry.key.cmp(&b.entry.key));
    Ok(Contents { revision, rows })
}
