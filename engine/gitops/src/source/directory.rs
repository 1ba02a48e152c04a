//! A local directory, named by the tree id that Git would give it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{DirEntry, File},
    io::Read as _,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use git2::{ObjectType, Oid};
use sha2::{Digest as _, Sha256};

use super::{
    MAX_FOLDERS, Snapshot, SourceError, clean,
    collect::{Collector, shown},
    filter::Filter,
};
use crate::load::{MAX_FILE_BYTES, is_manifest};

/// The files below a directory that `filter` takes. Symbolic links and names that begin with a dot are not followed. What is left
/// out is no part of the revision.
///
/// # Errors
/// [`SourceError`], when anything below it cannot be read.
pub fn read_directory(
    directory: &Path,
    path: &str,
    filter: &Filter,
) -> Result<Snapshot, SourceError> {
    let root = below(directory, path)?;
    let mut found = Collector::new(filter);
    let tree = match folder(&root, &[], 0, &mut found)? {
        Some(tree) => tree,
        None => hash(ObjectType::Tree, &[])?,
    };
    Ok(Snapshot {
        revision: format!("dir:{tree}"),
        tree: tree.to_string(),
        files: found.into_files(),
    })
}

/// What the file system says of the files below a directory. None of them is opened: the watch of a directory shows each
/// file that is opened, and would lose edits among thousands of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    digest: [u8; 32],
    /// Second of the latest change.
    newest: i64,
}

impl Fingerprint {
    /// Of the manifests and folders below a directory.
    ///
    /// # Errors
    /// [`SourceError`], when anything below it cannot be read.
    pub fn of(directory: &Path, path: &str) -> Result<Self, SourceError> {
        let mut digest = Sha256::new();
        let newest = stamp(&below(directory, path)?, 0, &mut digest)?;
        Ok(Self {
            digest: digest.finalize().into(),
            newest,
        })
    }

    /// Whether an edit after this one would show at `now`, in seconds: file systems' clocks are coarse.
    #[must_use]
    pub fn is_old(&self, now: i64) -> bool {
        self.newest + 2 < now
    }
}

/// Folder `path` of a directory, as Git would have it: a link is no folder.
fn below(directory: &Path, path: &str) -> Result<PathBuf, SourceError> {
    let mut folder = directory.to_owned();
    for part in clean(path)?.split('/').filter(|part| !part.is_empty()) {
        folder.push(part);
        if folder.is_symlink() {
            return Err(SourceError::Linked(folder));
        }
    }
    Ok(folder)
}

fn stamp(at: &Path, depth: usize, digest: &mut Sha256) -> Result<i64, SourceError> {
    if depth > MAX_FOLDERS {
        return Err(SourceError::TooDeep);
    }
    let mut newest = std::fs::metadata(at).map_err(io(at))?.ctime();
    let entries: Result<Vec<_>, _> = std::fs::read_dir(at).map_err(io(at))?.collect();
    let mut entries = entries.map_err(io(at))?;
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let name = OsString::into_vec(entry.file_name());
        let data = entry.metadata().map_err(io(&entry.path()))?;
        let matters = data.is_dir() || data.is_symlink() || is_manifest(&shown(&name));
        if name.starts_with(b".") || !matters {
            continue;
        }
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(&name);
        digest.update(data.mode().to_be_bytes());
        if data.is_dir() {
            newest = newest.max(stamp(&entry.path(), depth + 1, digest)?);
            digest.update([0]);
        } else {
            newest = newest.max(data.ctime());
            digest.update(data.ino().to_be_bytes());
            digest.update(data.size().to_be_bytes());
            for time in [
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
            ] {
                digest.update(time.to_be_bytes());
            }
        }
    }
    Ok(newest)
}

fn hash(kind: ObjectType, bytes: &[u8]) -> Result<Oid, SourceError> {
    Oid::hash_object(kind, bytes).map_err(|source| SourceError::Git {
        doing: "hashing",
        source,
    })
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Io { path, source }
}

/// Reads a folder into `found`; gives its tree id, none for one without manifests.
fn folder(
    at: &Path,
    prefix: &[u8],
    depth: usize,
    found: &mut Collector<'_>,
) -> Result<Option<Oid>, SourceError> {
    if depth > MAX_FOLDERS {
        return Err(SourceError::TooDeep);
    }
    // Git sorts folders as if their names ended in a slash.
    let mut entries: BTreeMap<Vec<u8>, (&str, Vec<u8>, Oid)> = BTreeMap::new();
    for entry in std::fs::read_dir(at).map_err(io(at))? {
        let entry = entry.map_err(io(at))?;
        let kind = entry.file_type().map_err(io(&entry.path()))?;
        let name = OsString::into_vec(entry.file_name());
        if name.starts_with(b".") {
            continue;
        }
        found.entry()?;
        let full = [prefix, &name].concat();
        if kind.is_dir() {
            let below = [&full, b"/".as_slice()].concat();
            if let Some(tree) = folder(&entry.path(), &below, depth + 1, found)? {
                let sorted = [&name, b"/".as_slice()].concat();
                entries.insert(sorted, ("40000", name, tree));
            }
        } else if kind.is_file() {
            if let Some(blob) = file(&entry, &full, found)? {
                entries.insert(name.clone(), ("100644", name, blob));
            }
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(io(&entry.path()))?;
            if found.link(&full, target.as_os_str().as_bytes()) {
                let blob = hash(ObjectType::Blob, target.as_os_str().as_bytes())?;
                entries.insert(name.clone(), ("120000", name, blob));
            }
        } else if found.special(&full) {
            entries.insert(name.clone(), ("100644", name, hash(ObjectType::Blob, &[])?));
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    for (mode, name, id) in entries.values() {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    hash(ObjectType::Tree, &bytes).map(Some)
}

/// Reads a manifest; gives its blob id, none for other files.
fn file(
    entry: &DirEntry,
    full: &[u8],
    found: &mut Collector<'_>,
) -> Result<Option<Oid>, SourceError> {
    let path = entry.path();
    let size = entry.metadata().map_err(io(&path))?.len();
    // What is too large to be read is told apart by its size.
    let mut blob = hash(ObjectType::Blob, &size.to_be_bytes())?;
    let is_manifest = found.file(full, usize::try_from(size).unwrap_or(usize::MAX), || {
        let mut bytes = Vec::new();
        // It may grow while it is read.
        let file = File::open(&path).map_err(io(&path))?;
        file.take(MAX_FILE_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(io(&path))?;
        blob = hash(ObjectType::Blob, &bytes)?;
        Ok(bytes)
    })?;
    Ok(is_manifest.then_some(blob))
}
