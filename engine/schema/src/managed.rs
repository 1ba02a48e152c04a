//! Who set which field: `metadata.managedFields`, after updates and server-side applies.
//!
//! A manager is known by its name, its operation, the subresource, and, for updates, the API version. The rules are those
//! of Kubernetes' field management: an update takes the fields that it changes; an apply owns what it declares, gives up
//! what it no longer declares (such a field goes, unless another manager has it), and conflicts over a value that differs.
//!
//! Managed fields are half of many an object, and a write touches few of them: they are kept apart from it, as the text
//! that they are stored as ([`Kept`]), and only those parts are read of which a write changes something.

use crate::fields::{FieldSet, PathElement};
use crate::structural::{Node, Schema};
use crate::typed::{
    Comparison, child, compare_but, faults, field_set, field_set_but, merge, with_named_fields,
    without,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::borrow::Cow;
use std::collections::BTreeMap;

mod whole;

pub use whole::{Holding, appliers, apply_whole, held, is_applied, pack};

/// The value of `metadata.managedFields` as JSON text; `None` when nobody holds a field.
pub type Kept = Option<Box<RawValue>>;

/// The name given to what was there before the first apply to an object without managedFields.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager as which kubectl applies, and where it notes what it applied by itself.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// `group/version` of the request.
    pub api_version: &'a str,
    /// Subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The time, RFC 3339 in seconds; empty for none.
    pub now: &'a str,
}

impl Writer<'_> {
    fn identity(&self, operation: Operation) -> Identity<'static> {
        let api_version = match operation {
            Operation::Apply => String::new(),
            Operation::Update => self.api_version.to_owned(),
        };
        Identity {
            operation,
            manager: self.manager.to_owned().into(),
            api_version: api_version.into(),
            subresource: self.subresource.to_owned().into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
enum Operation {
    Apply,
    #[default]
    #[serde(other)]
    Update,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity<'a> {
    operation: Operation,
    manager: Cow<'a, str>,
    /// Empty for applies: whatever version they come in, they are the same.
    api_version: Cow<'a, str>,
    subresource: Cow<'a, str>,
}

/// An entry on the wire.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    fields_type: Cow<'a, str>,
    #[serde(borrow, rename = "fieldsV1")]
    fields: Option<Fields<'a>>,
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    #[serde(default)]
    operation: Operation,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    subresource: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    time: Option<Cow<'a, str>>,
}

/// The fields that a manager holds. Most writes touch those of one manager: the others' stay as they came.
#[derive(Clone, Debug)]
enum Fields<'a> {
    /// In their wire form.
    Wire(&'a RawValue),
    Set(FieldSet),
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self::Set(FieldSet::default())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::Wire)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wire(wire) => wire.serialize(serializer),
            Self::Set(set) => set.serialize(serializer),
        }
    }
}

impl Fields<'_> {
    fn set(&self) -> Cow<'_, FieldSet> {
        match self {
            Self::Wire(wire) => Cow::Owned(serde_json::from_str(wire.get()).unwrap_or_default()),
            Self::Set(set) => Cow::Borrowed(set),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.get() == "{}",
            Self::Set(set) => set.is_empty(),
        }
    }

    /// Whether a path of `set` is held.
    fn touches(&self, set: &FieldSet) -> bool {
        match self {
            Self::Wire(wire) => set.overlap(wire).any,
            Self::Set(own) => !own.intersection(set).is_empty(),
        }
    }

    fn add(&mut self, set: &FieldSet) {
        if let Self::Wire(wire) = self
            && set.overlap(wire).all
        {
            return;
        }
        *self = Self::Set(self.set().into_owned().union(set));
    }

    fn remove(&mut self, set: &FieldSet) {
        if self.touches(set) {
            *self = Self::Set(self.set().difference(set));
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Held<'a> {
    api_version: Cow<'a, str>,
    time: Option<Cow<'a, str>>,
    fields: Fields<'a>,
}

#[derive(Clone, Debug, Default)]
struct Managers<'a>(BTreeMap<Identity<'a>, Held<'a>>);

impl<'a> Managers<'a> {
    /// What cannot be read holds nothing.
    fn of(kept: Option<&'a RawValue>) -> Self {
        let read = |kept: &'a RawValue| serde_json::from_str::<Vec<Entry<'a>>>(kept.get()).ok();
        let mut out = BTreeMap::new();
        for entry in kept.and_then(read).into_iter().flatten() {
            let Some(fields) = entry.fields else {
                continue;
            };
            let identity = Identity {
                operation: entry.operation,
                manager: entry.manager,
                api_version: match entry.operation {
                    Operation::Apply => Cow::default(),
                    Operation::Update => entry.api_version.clone(),
                },
                subresource: entry.subresource,
            };
            let held: &mut Held<'_> = out.entry(identity).or_default();
            if held.fields.is_empty() {
                held.fields = fields;
            } else {
                held.fields.add(&fields.set());
            }
            (held.api_version, held.time) = (entry.api_version, entry.time);
        }
        Self(out)
    }

    fn write(self) -> Kept {
        let mut entries: Vec<Entry<'_>> = self
            .0
            .into_iter()
            .map(|(identity, held)| Entry {
                api_version: held.api_version,
                fields_type: "FieldsV1".into(),
                fields: Some(held.fields),
                manager: identity.manager,
                operation: identity.operation,
                subresource: identity.subresource,
                time: held.time,
            })
            .collect();
        entries.sort_by(|a, b| {
            let order = |e: &Entry<'a>| (e.operation, e.time.clone(), e.manager.clone());
            order(a).cmp(&order(b))
        });
        // Fields are texts and sets: nothing of that can fail to be written.
        let some = !entries.is_empty();
        some.then(|| to_raw_value(&entries).ok()).flatten()
    }

    /// Takes from everybody what was changed or is gone; from `writer` only the latter.
    fn give_up(&mut self, taken: &FieldSet, removed: &FieldSet, writer: Option<&Identity<'_>>) {
        let all = taken.clone().union(removed);
        for (identity, held) in &mut self.0 {
            let own = writer == Some(identity);
            held.fields.remove(if own { removed } else { &all });
        }
        self.0.retain(|_, held| !held.fields.is_empty());
    }
}

/// The fields of metadata that nobody manages: they are the server's, or the object's name.
const UNMANAGED: [&str; 10] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// How two objects differ in what is managed. An absent object has no fields but an empty `metadata`.
fn changes(root: &Node, old: &Value, new: &Value) -> Comparison {
    let mut out = compare_but(root, old, new, &["apiVersion", "kind", "metadata"]);
    let metadata = child(root, "metadata");
    let below = compare_but(metadata, &old["metadata"], &new["metadata"], &UNMANAGED);
    out.insert_below(&PathElement::field("metadata"), below);
    out
}

/// The fields that an apply of an object claims.
fn claims(root: &Node, object: &Value) -> FieldSet {
    let mut out = field_set_but(root, object, &["apiVersion", "kind", "metadata"]);
    let metadata = child(root, "metadata");
    let below = field_set_but(metadata, &object["metadata"], &UNMANAGED);
    out.insert_below(PathElement::field("metadata"), below);
    out
}

/// The managed fields of `object`, which an update puts in the place of `live` (null for a create), whose managed fields
/// are `kept`. What either object carries as managed fields itself is not looked at.
#[must_use]
pub fn update(
    schema: &Schema,
    live: &Value,
    kept: Option<&RawValue>,
    object: &Value,
    writer: &Writer<'_>,
) -> Kept {
    let changes = changes(schema.root(), live, object);
    if changes.is_same() {
        return kept.map(ToOwned::to_owned);
    }
    let mut managers = Managers::of(kept);
    // What nobody manages is managed by nobody until the first apply.
    if managers.0.is_empty() && live["metadata"]["resourceVersion"].is_string() {
        return None;
    }
    let own = writer.identity(Operation::Update);
    let taken = changes.added.union(&changes.modified);
    managers.give_up(&taken, &changes.removed, Some(&own));
    if !taken.is_empty() {
        let held = managers.0.entry(own).or_default();
        held.fields.add(&taken);
        held.api_version = writer.api_version.to_owned().into();
        held.time = Some(writer.now.to_owned().into()).filter(|_| !writer.now.is_empty());
    }
    managers.write()
}

/// The entries as they are on the wire; what cannot be read has none.
fn entries(kept: Option<&RawValue>) -> Vec<Value> {
    kept.and_then(|kept| serde_json::from_str(kept.get()).ok())
        .unwrap_or_default()
}

/// Takes a field of the first level, such as `f:status`, from everybody.
#[must_use]
pub fn disown(kept: Kept, field: &str) -> Kept {
    let mut entries = entries(kept.as_deref());
    for entry in &mut entries {
        if let Some(fields) = entry["fieldsV1"].as_object_mut() {
            fields.remove(field);
        }
    }
    entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|f| !f.is_empty()));
    let some = !entries.is_empty();
    some.then(|| to_raw_value(&entries).ok()).flatten()
}

/// The names of the managers that hold the field at a path such as `/spec/replicas`.
#[must_use]
pub fn holders(kept: Option<&RawValue>, path: &str) -> Vec<String> {
    let path: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| format!("/f:{part}"))
        .collect();
    entries(kept)
        .iter()
        .filter(|entry| entry["fieldsV1"].pointer(&path).is_some())
        .filter_map(|entry| entry["manager"].as_str().map(str::to_owned))
        .collect()
}

/// A field that another manager holds with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as messages name it: `"name"`, with `with subresource "status"` and `using v1` where they apply.
    pub manager: String,
    /// The field, such as `.spec.replicas`.
    pub field: String,
}

/// Why a configuration is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The configuration cannot be merged by the schema.
    #[error("failed to create typed patch object: {}", .0.join(", "))]
    Untyped(Vec<String>),
    /// Other managers hold fields that it wants otherwise.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager
            .entry(&conflict.manager)
            .or_default()
            .push(&conflict.field);
    }
    let plural = if conflicts.len() == 1 { "" } else { "s" };
    let head = format!("Apply failed with {} conflict{plural}: ", conflicts.len());
    let parts: Vec<String> = match by_manager.iter().next() {
        Some((manager, fields)) if by_manager.len() == 1 && fields.len() == 1 => {
            vec![format!("conflict with {manager}: {}", fields.concat())]
        }
        _ => by_manager
            .iter()
            .map(|(manager, fields)| {
                let lines: Vec<String> = fields.iter().map(|f| format!("- {f}")).collect();
                format!("conflicts with {manager}:\n{}", lines.join("\n"))
            })
            .collect(),
    };
    format!("{head}{}", parts.join("\n"))
}

/// The object after a server-side apply of `config` to `live` (null when there is none), whose managed fields are `kept`,
/// and its managed fields then.
///
/// With `force`, conflicting fields are taken from their managers. Defaults are not filled in here: fields that come by
/// default belong to nobody.
///
/// # Errors
/// [`ApplyError`]: the configuration does not fit the schema, or conflicts with other managers.
pub fn apply(
    schema: &Schema,
    live: &Value,
    kept: Option<&RawValue>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Kept), ApplyError> {
    let root = schema.root();
    let found = faults(root, config);
    if !found.is_empty() {
        return Err(ApplyError::Untyped(found));
    }
    let mut managers = Managers::of(kept);
    if managers.0.is_empty() && !live.is_null() {
        let first = Writer {
            manager: BEFORE_FIRST_APPLY,
            subresource: "",
            ..*writer
        };
        let held = Held {
            api_version: writer.api_version.into(),
            time: Some(writer.now.into()),
            fields: Fields::Set(claims(root, live)),
        };
        managers.0.insert(first.identity(Operation::Update), held);
    }
    let own = writer.identity(Operation::Apply);
    let claimed = claims(root, config);
    let before = managers.0.remove(&own).unwrap_or_default();
    let merged = merge(root, live, config);
    let mut object = drop_unclaimed(
        root,
        merged,
        &before.fields.set().difference(&claimed),
        config,
        &managers,
    );
    let changes = changes(root, live, &object);
    let taken = changes.added.clone().union(&changes.modified);
    // What kubectl set by its own way of applying it may go on setting by this one.
    let adopted = (writer.manager == KUBECTL)
        .then(|| last_applied(live))
        .flatten();
    if !force {
        let mut wanted = taken.clone();
        if let Some(last) = &adopted {
            let since = self::changes(root, last, live);
            let own = claims(root, last)
                .difference(&since.added)
                .difference(&since.modified)
                .difference(&since.removed);
            wanted = wanted.difference(&own);
        }
        let conflicts = conflicts(&managers, &wanted);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    managers.give_up(&taken, &changes.removed, None);
    let time = if changes.is_same() {
        before.time
    } else {
        Some(writer.now.into())
    };
    if !claimed.is_empty() {
        managers.0.insert(
            own,
            Held {
                api_version: writer.api_version.into(),
                time,
                fields: Fields::Set(claimed),
            },
        );
    }
    if adopted.is_some() {
        let mut config = config.clone();
        if let Some(all) = config
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            all.remove(LAST_APPLIED);
        }
        object["metadata"]["annotations"][LAST_APPLIED] = format!("{config}\n").into();
    }
    Ok((object, managers.write()))
}

/// What kubectl applied last without the server's help, as it noted it.
fn last_applied(live: &Value) -> Option<Value> {
    let noted = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(noted).ok().filter(Value::is_object)
}

/// Drops of `before`, what this manager had and claims no longer, all that the configuration does not declare otherwise and
/// no other manager has.
fn drop_unclaimed(
    root: &Node,
    merged: Value,
    before: &FieldSet,
    config: &Value,
    others: &Managers<'_>,
) -> Value {
    if before.is_empty() {
        return merged;
    }
    // All of the configuration, with the name: the metadata that holds it must stay.
    let kept = with_named_fields(root, &field_set(root, config));
    let mut gone = with_named_fields(root, before).difference(&kept);
    for held in others.0.values() {
        if gone.is_empty() {
            break;
        }
        gone = gone.difference(&with_named_fields(root, &held.fields.set()));
    }
    if gone.is_empty() {
        return merged;
    }
    without(root, &merged, &gone)
}

fn conflicts(managers: &Managers<'_>, wanted: &FieldSet) -> Vec<Conflict> {
    let mut out = Vec::new();
    for (identity, held) in &managers.0 {
        if !held.fields.touches(wanted) {
            continue;
        }
        let mut manager = format!("{:?}", identity.manager);
        if !identity.subresource.is_empty() {
            manager.push_str(&format!(" with subresource {:?}", identity.subresource));
        }
        if identity.operation == Operation::Update {
            manager.push_str(&format!(" using {}", held.api_version));
        }
        let fields = held.fields.set().intersection(wanted).paths();
        out.extend(fields.into_iter().map(|field| Conflict {
            manager: manager.clone(),
            field,
        }));
    }
    out
}

#[cfg(test)]
mod tests;
