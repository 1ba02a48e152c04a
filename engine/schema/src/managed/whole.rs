//! Objects that carry their managed fields themselves: as values, as the API shows them, or packed, as text.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::{ApplyError, Entry, KUBECTL, Operation, Writer, apply, claims};
use crate::fields::FieldSet;
use crate::structural::Schema;
use crate::typed::{faults, is_merged};

/// Puts the managed fields of an object into text, in their place. As values they are most of an object's memory.
pub fn pack(object: &mut Value) {
    let fields = object.pointer_mut("/metadata/managedFields");
    if let Some(fields) = fields.filter(|fields| fields.is_array()) {
        *fields = fields.to_string().into();
    }
}

/// The managed fields of an object as text; `None` where it has none that can be read.
fn kept(object: &Value) -> Option<Cow<'_, RawValue>> {
    match object.pointer("/metadata/managedFields")? {
        Value::String(text) => serde_json::from_str(text).ok().map(Cow::Borrowed),
        fields => to_raw_value(fields).ok().map(Cow::Owned),
    }
}

/// What a manager holds of an object, in one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whether it came by applies.
    pub applied: bool,
    /// When it was last written, as the API writes times.
    pub time: Option<String>,
    /// The fields.
    pub fields: FieldSet,
}

/// What the managers whose names fit hold of an object.
pub fn held(object: &Value, fits: impl Fn(&str) -> bool) -> Vec<Holding> {
    let kept = kept(object);
    let entries = kept.as_deref().and_then(read).into_iter().flatten();
    let holding = |entry: Entry<'_>| {
        Some(Holding {
            applied: entry.operation == Operation::Apply,
            time: entry.time.map(Cow::into_owned),
            fields: entry.fields?.set().into_owned(),
        })
    };
    let own = entries.filter(|entry| fits(&entry.manager));
    own.filter_map(holding).collect()
}

/// The managers that hold something of an object by applies.
#[must_use]
pub fn appliers(object: &Value) -> BTreeSet<String> {
    let kept = kept(object);
    let entries = kept.as_deref().and_then(read).into_iter().flatten();
    let applies = entries.filter(|entry| entry.operation == Operation::Apply);
    applies.map(|entry| entry.manager.into_owned()).collect()
}

fn read(kept: &RawValue) -> Option<Vec<Entry<'_>>> {
    serde_json::from_str(kept.get()).ok()
}

/// Whether an apply of `config` by `manager`, forced or not, would leave `live` and who holds what of it as they are: the manager holds
/// exactly what the configuration declares, and each value is there; and nobody who `is_former` still holds anything by an apply. Neither
/// object is copied.
#[must_use]
pub fn is_applied(
    schema: &Schema,
    live: &Value,
    config: &Value,
    manager: &str,
    is_former: impl Fn(&str) -> bool,
) -> bool {
    let kept = kept(live);
    let entries = kept.as_deref().and_then(read).into_iter().flatten();
    let mut own = None;
    for entry in entries.filter(|e| e.operation == Operation::Apply) {
        let ours = entry.manager == manager;
        if !ours && is_former(&entry.manager) || ours && own.replace(entry).is_some() {
            return false;
        }
    }
    let Some(entry) = own else {
        return false;
    };
    let root = schema.root();
    let holds = |claims: FieldSet| entry.fields.is_some_and(|f| *f.set() == claims);
    entry.subresource.is_empty()
        && manager != KUBECTL
        && is_merged(root, live, config)
        && holds(claims(root, config))
        && faults(root, config).is_empty()
}

/// As [`apply`], of an object that carries its managed fields itself; the answer has them as values.
///
/// # Errors
/// As of [`apply`].
pub fn apply_whole(
    schema: &Schema,
    live: &Value,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let kept = kept(live);
    let (mut object, kept) = apply(schema, live, kept.as_deref(), config, writer, force)?;
    let metadata = object.get_mut("metadata");
    if let Some(metadata) = metadata.and_then(|m: &mut Value| m.as_object_mut()) {
        put(metadata, kept.as_deref());
    }
    Ok(object)
}

fn put(metadata: &mut Map<String, Value>, kept: Option<&RawValue>) {
    match kept.and_then(|kept| serde_json::from_str(kept.get()).ok()) {
        Some(fields) => metadata.insert("managedFields".to_owned(), fields),
        None => metadata.remove("managedFields"),
    };
}
