//! Manifests as they are found: bounded, and none of them passed over in silence.
//!
//! A manifest that cannot be read as a plain file is kept as a mistake: if it were left out, the objects that it
//! declares would look as if Git no longer wanted them.

use super::{MAX_ENTRIES, MAX_FILES, SourceError};
use crate::load::{MAX_FILE_BYTES, MAX_TOTAL_BYTES, SourceFile, is_manifest};

/// What was found so far.
#[derive(Default)]
pub(super) struct Collector {
    entries: usize,
    bytes: usize,
    files: Vec<SourceFile>,
}

/// A path for people: what is not UTF-8 and what would break a line is escaped.
pub(super) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

impl Collector {
    /// Counts an entry of any kind.
    pub(super) fn entry(&mut self) -> Result<(), SourceError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES || self.files.len() > MAX_FILES {
            return Err(SourceError::TooMany);
        }
        Ok(())
    }

    /// Takes a plain file of `size` bytes; gives whether it is a manifest. `read` is asked only for what is small enough.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        size: usize,
        read: impl FnOnce() -> Result<Vec<u8>, SourceError>,
    ) -> Result<bool, SourceError> {
        let path = shown(path);
        if !is_manifest(&path) {
            return Ok(false);
        }
        self.bytes = self.bytes.saturating_add(size);
        let content = if size > MAX_FILE_BYTES || self.bytes > MAX_TOTAL_BYTES {
            Err(format!(
                "too large: a file may have {} MiB, all together {} MiB",
                MAX_FILE_BYTES >> 20,
                MAX_TOTAL_BYTES >> 20
            ))
        } else {
            Ok(read()?)
        };
        self.files.push(SourceFile { path, content });
        Ok(true)
    }

    /// Takes something that is no plain file; gives whether it has a manifest's name, which makes it a mistake.
    pub(super) fn other(&mut self, path: &[u8], what: &str) -> bool {
        let path = shown(path);
        if !is_manifest(&path) {
            tracing::info!(path, "{what} is not followed");
            return false;
        }
        let content = Err(format!("{what} is not read: put a plain file here"));
        self.files.push(SourceFile { path, content });
        true
    }

    /// Everything.
    pub(super) fn into_files(self) -> Vec<SourceFile> {
        self.files
    }
}
