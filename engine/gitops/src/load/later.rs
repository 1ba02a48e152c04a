//! Mistakes that are found in objects after loading, at the places where their values were written.

use std::collections::BTreeMap;

use fleetwright_core::plan::Fault;

use super::{DesiredObject, LoadError, MAX_ERRORS, SourceFile};
use crate::yaml::{self, Node, Place};

/// What the API would refuse of loaded objects, as mistakes of the files that they were loaded from. At most [`MAX_ERRORS`].
pub fn refused(found: Vec<(&DesiredObject, Fault)>, files: &[SourceFile]) -> Vec<LoadError> {
    let mut parsed: BTreeMap<&str, Vec<Node>> = BTreeMap::new();
    let mut out = Vec::new();
    for (object, fault) in found.into_iter().take(MAX_ERRORS) {
        let at = |file: &str, line: u64, column: u64, message: String| LoadError {
            file: file.to_owned(),
            line,
            column,
            message,
        };
        let message = fault.message;
        if let Some(origin) = object.origins.of_field(&fault.field) {
            let (line, column) = (origin.line.into(), origin.column.into());
            let message = match *origin.file == *object.file {
                true => message,
                false => {
                    let DesiredObject {
                        key, file, line, ..
                    } = object;
                    format!("{message} (used by {key}, {file}:{line})")
                }
            };
            out.push(at(&origin.file, line, column, message));
            continue;
        }
        let nodes = parsed.entry(&object.file).or_insert_with(|| {
            let file = files.iter().find(|f| f.path == object.file);
            let bytes = file.and_then(|f| f.content.as_deref().ok());
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.and_then(|text| yaml::parse(text).ok())
                .unwrap_or_default()
        });
        let document = nodes
            .iter()
            .find(|n| u64::from(n.place.line) == object.line);
        let place = document.map_or(Place::START, |n| n.place_of(&fault.field));
        let line = match document {
            Some(_) => place.line.into(),
            None => object.line,
        };
        out.push(at(&object.file, line, place.column.into(), message));
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests;
