//! Manifests as they are found: bounded, and none of them passed over in silence.
//!
//! What may hold manifests and cannot be read as plain files is kept as a mistake: if it were left out, the objects that it
//! declares would look as if Git no longer wanted them. Only [`Filter`] leaves something out on purpose.

use super::{MAX_ENTRIES, MAX_FILES, SourceError, filter::Filter};
use crate::load::{MAX_FILE_BYTES, MAX_TOTAL_BYTES, SourceFile, is_manifest};

/// What was found so far.
pub(super) struct Collector<'a> {
    filter: &'a Filter,
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

impl<'a> Collector<'a> {
    pub(super) fn new(filter: &'a Filter) -> Self {
        Self {
            filter,
            entries: 0,
            bytes: 0,
            files: Vec::new(),
        }
    }

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
        if !is_manifest(&path) || self.is_left_out(&path) {
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

    /// Takes a symbolic link; gives whether it is a mistake. Links are never followed: what lies inside the followed folder is read at its
    /// own place, so only a link that has a manifest's name, or leads out, can stand for something that is missed.
    pub(super) fn link(&mut self, path: &[u8], target: &[u8]) -> bool {
        let text = shown(path);
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if !is_manifest(&text) && (name.starts_with(b".") || stays(path, target)) {
            tracing::debug!(path = text, "a symbolic link is not followed");
            return false;
        }
        let what = match is_manifest(&text) {
            true => "a symbolic link is not read: put a plain file here",
            false => {
                "a symbolic link that leads out of the followed folder is not followed: remove it, or leave it out by spec.source.exclude"
            }
        };
        self.mistake(text, what)
    }

    /// Takes a submodule, which is a mistake.
    pub(super) fn submodule(&mut self, path: &[u8]) {
        let what = "a submodule is not fetched: put its files here, or leave it out by spec.source.exclude";
        self.mistake(shown(path), what);
    }

    /// Takes a device, pipe or socket; gives whether it has a manifest's name, which makes it a mistake.
    pub(super) fn special(&mut self, path: &[u8]) -> bool {
        let text = shown(path);
        is_manifest(&text)
            && self.mistake(
                text,
                "a device, pipe or socket is not read: put a plain file here",
            )
    }

    fn mistake(&mut self, path: String, what: &str) -> bool {
        if self.is_left_out(&path) {
            return false;
        }
        let content = Err(what.to_owned());
        self.files.push(SourceFile { path, content });
        true
    }

    fn is_left_out(&self, path: &str) -> bool {
        let takes = self.filter.takes(path);
        if !takes {
            tracing::debug!(path, "left out by spec.source.include or exclude");
        }
        !takes
    }

    /// Everything.
    pub(super) fn into_files(self) -> Vec<SourceFile> {
        self.files
    }
}

/// Whether the target of a link at `path` lies inside the followed folder, by its name alone: what the target is, is looked at at its
/// own place.
fn stays(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") {
        return false;
    }
    let mut depth = path.iter().filter(|b| **b == b'/').count();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}
