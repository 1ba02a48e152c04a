//! Mistakes that are found in objects after loading, at the places where their values were written.

use std::collections::BTreeMap;

use fleetwright_core::plan::{Desired, Fault, FilePlace, Key, Origins, PlanBlocker};

use super::{DesiredObject, LoadError, MAX_ERRORS, SourceFile};
use crate::yaml::{self, Node, Place};

/// What the API would refuse of loaded objects, as mistakes of the files that they were loaded from. At most [`MAX_ERRORS`].
pub fn refused(found: Vec<(&DesiredObject, Fault)>, files: &[SourceFile]) -> Vec<LoadError> {
    let mut places = Places::new(files);
    let mut out = Vec::new();
    for (object, Fault { field, message }) in found.into_iter().take(MAX_ERRORS) {
        let DesiredObject {
            key,
            file,
            line,
            origins,
            ..
        } = object;
        let place = places.of((file, *line), origins, &field);
        out.push(LoadError {
            message: match place.file == *file {
                true => message,
                false => format!("{message} (used by {key}, {file}:{line})"),
            },
            line: place.line.into(),
            column: place.column.into(),
            file: place.file,
        });
    }
    out.sort();
    out
}

/// Fills in where the mistakes among `blockers` are written in the `files` that `desired` was loaded from.
pub fn place(blockers: &mut [PlanBlocker], desired: &[Desired], files: &[SourceFile]) {
    let objects: BTreeMap<Key, &Desired> = desired
        .iter()
        .map(|object| (Key::of(&object.document), object))
        .collect();
    let mut places = Places::new(files);
    let mistakes = blockers.iter_mut().filter_map(|b| b.mistake.as_mut());
    for mistake in mistakes {
        mistake.place = objects.get(&mistake.object).and_then(|object| {
            let (file, line) = object.source.rsplit_once(':')?;
            let begins = (file, line.parse().ok()?);
            Some(places.of(begins, &object.origins, &mistake.field))
        });
    }
}

/// Where fields stand in the files that they were loaded from. Each file is parsed once.
struct Places<'f> {
    files: &'f [SourceFile],
    parsed: BTreeMap<String, Vec<Node>>,
}

impl<'f> Places<'f> {
    fn new(files: &'f [SourceFile]) -> Self {
        Self {
            files,
            parsed: BTreeMap::new(),
        }
    }

    /// Where a field of the document that begins at this file and line is written; of one that is not there, the deepest part of its path
    /// that is.
    fn of(&mut self, (file, line): (&str, u64), origins: &Origins, field: &str) -> FilePlace {
        if let Some(origin) = origins.of_field(field) {
            return FilePlace {
                file: origin.file.to_string(),
                line: origin.line,
                column: origin.column,
            };
        }
        let nodes = self.parsed.entry(file.to_owned()).or_insert_with(|| {
            let found = self.files.iter().find(|f| f.path == file);
            let bytes = found.and_then(|f| f.content.as_deref().ok());
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.and_then(|text| yaml::parse(text).ok())
                .unwrap_or_default()
        });
        let document = nodes.iter().find(|n| u64::from(n.place.line) == line);
        let place = match document {
            Some(document) => document.place_of(field),
            None => Place {
                line: u32::try_from(line).unwrap_or(u32::MAX),
                ..Place::START
            },
        };
        FilePlace {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
        }
    }
}

#[cfg(test)]
mod tests;
