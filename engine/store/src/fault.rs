//! What a failure of SQLite means: which file, what the system says, what to do.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::Error;

/// How much is written to find out what the system says to a write.
const PROBE: usize = 64 << 10;

/// What is known about the place of a file that could not be written.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Bytes that are free there; `None` where the system does not say.
    pub(crate) free: Option<u64>,
    /// Whether it is mounted read-only.
    pub(crate) read_only: bool,
    /// What the system says to a write of another file there, where it refuses.
    pub(crate) refusal: Option<String>,
}

/// The error about `path` with its cause in words.
pub(crate) fn explained(doing: &'static str, path: &Path, error: &rusqlite::Error) -> Error {
    Error::Io {
        doing,
        path: path.to_owned(),
        cause: explain(error, &look(path, doing)),
    }
}

/// The cause of a failure in one line, with what to do.
pub(crate) fn explain(error: &rusqlite::Error, place: &Place) -> String {
    let mut said = error.to_string();
    if let Some(code) = error.sqlite_error().map(|e| e.extended_code) {
        said = match call_of(code) {
            Some(call) => format!("{said} ({call}, SQLite code {code})"),
            None => format!("{said} (SQLite code {code})"),
        };
    }
    if let Some(refusal) = &place.refusal {
        said = format!("{said}, {refusal}");
    }
    let free = place
        .free
        .map(|bytes| format!(", {bytes} bytes are free there"))
        .unwrap_or_default();
    let then = match error.sqlite_error_code() {
        _ if place.read_only => {
            "its file system is read-only: mount it for writing, and look into the system's log why it is not".to_owned()
        }
        Some(ErrorCode::DiskFull) => {
            format!("make room{free}; writes go on by themselves then")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has it open: stop that one".to_owned()
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            "see that this user may write the file and its folder".to_owned()
        }
        _ => format!("see that the disk works and has room{free}; writes go on by themselves then"),
    };
    format!("{said}: {then}")
}

/// What was asked of the system when an I/O error with this extended code came.
fn call_of(code: i32) -> Option<&'static str> {
    use rusqlite::ffi::{
        SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ,
        SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    };
    Some(match code {
        SQLITE_IOERR_READ | SQLITE_IOERR_SHORT_READ => "read",
        SQLITE_IOERR_WRITE => "write",
        SQLITE_IOERR_FSYNC => "fsync",
        SQLITE_IOERR_DIR_FSYNC => "fsync of the folder",
        SQLITE_IOERR_TRUNCATE => "truncate",
        _ => return None,
    })
}

/// Looks at the place of a file.
fn look(path: &Path, doing: &str) -> Place {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut place = Place::default();
    if let Ok(stat) = rustix::fs::statvfs(folder) {
        place.free = Some(stat.f_bavail.saturating_mul(stat.f_frsize));
        place.read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    }
    if doing == "write" {
        place.refusal = probe(folder).err().map(|e| e.to_string());
    }
    place
}

/// Writes a file that nobody needs.
fn probe(folder: &Path) -> io::Result<()> {
    use std::io::Write as _;
    let path = folder.join(".write-probe");
    let tried = (|| {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&vec![0; PROBE])?;
        file.sync_all()
    })();
    std::fs::remove_file(&path).ok();
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32, text: &str) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(text.to_owned()))
    }

    #[test]
    fn says_what_the_system_said_and_what_to_do() {
        let full = Place {
            free: Some(12),
            refusal: Some("No space left on device (os error 28)".to_owned()),
            ..Place::default()
        };
        let read_only = Place {
            read_only: true,
            refusal: Some("Read-only file system (os error 30)".to_owned()),
            ..Place::default()
        };
        let table = [
            (
                failure(13, "database or disk is full"),
                full,
                "database or disk is full (SQLite code 13), No space left on device (os error 28): make room, 12 bytes are free there; writes go on by themselves then",
            ),
            (
                failure(778, "disk I/O error"),
                read_only,
                "disk I/O error (write, SQLite code 778), Read-only file system (os error 30): its file system is read-only: mount it for writing, and look into the system's log why it is not",
            ),
            (
                failure(1034, "disk I/O error"),
                Place::default(),
                "disk I/O error (fsync, SQLite code 1034): see that the disk works and has room; writes go on by themselves then",
            ),
            (
                failure(5, "database is locked"),
                Place::default(),
                "database is locked (SQLite code 5): another process has it open: stop that one",
            ),
        ];
        for (error, place, wanted) in table {
            assert_eq!(explain(&error, &place), wanted);
        }
    }
}
