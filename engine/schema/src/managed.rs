//! Who set which field: `metadata.managedFields`, after updates and server-side applies.
//!
//! A manager is known by its name, its operation, the subresource, and, for updates, the API version. The rules are those
//! of Kubernetes' field management: an update takes the fields that it changes; an apply owns what it declares, gives up
//! what it no longer declares (such a field goes, unless another manager has it), and conflicts over a value that differs.

use crate::fields::{FieldSet, PathElement};
use crate::structural::{Node, Schema};
use crate::typed::{Comparison, compare_but, faults, field_set, merge, with_named_fields, without};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

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
    fn identity(&self, operation: Operation) -> Identity {
        let api_version = if operation == Operation::Apply {
            String::new()
        } else {
            self.api_version.to_owned()
        };
        Identity {
            manager: self.manager.to_owned(),
            operation,
            api_version,
            subresource: self.subresource.to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Apply,
    Update,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    operation: Operation,
    manager: String,
    /// Empty for applies: whatever version they come in, they are the same.
    api_version: String,
    subresource: String,
}

/// The fields that a manager holds. Most writes touch those of one manager: the others' stay as they came.
#[derive(Clone, Debug)]
enum Fields<'a> {
    /// In their wire form.
    Wire(&'a Value),
    Set(FieldSet),
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self::Set(FieldSet::default())
    }
}

impl Fields<'_> {
    fn set(&self) -> Cow<'_, FieldSet> {
        match self {
            Self::Wire(wire) => Cow::Owned(FieldSet::from_fields_v1(wire).unwrap_or_default()),
            Self::Set(set) => Cow::Borrowed(set),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.as_object().is_none_or(Map::is_empty),
            Self::Set(set) => set.is_empty(),
        }
    }

    /// Whether a path of `set` is held.
    fn touches(&self, set: &FieldSet) -> bool {
        match self {
            Self::Wire(wire) => set.touches(wire),
            Self::Set(own) => !own.intersection(set).is_empty(),
        }
    }

    fn add(&mut self, set: &FieldSet) {
        *self = Self::Set(self.set().into_owned().union(set));
    }

    fn to_wire(&self) -> Value {
        match self {
            Self::Wire(wire) => (*wire).clone(),
            Self::Set(set) => set.to_fields_v1(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Held<'a> {
    api_version: String,
    time: Option<Value>,
    fields: Fields<'a>,
}

#[derive(Clone, Debug, Default)]
struct Managers<'a>(BTreeMap<Identity, Held<'a>>);

impl<'a> Managers<'a> {
    /// Entries that cannot be read hold nothing.
    fn of(object: &'a Value) -> Self {
        let mut out = BTreeMap::new();
        for entry in object["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let operation = if entry["operation"] == "Apply" {
                Operation::Apply
            } else {
                Operation::Update
            };
            let Some(wire) = entry.get("fieldsV1").filter(|fields| fields.is_object()) else {
                continue;
            };
            let api_version = text("apiVersion");
            let identity = Identity {
                operation,
                manager: text("manager"),
                api_version: if operation == Operation::Apply {
                    String::new()
                } else {
                    api_version.clone()
                },
                subresource: text("subresource"),
            };
            let time = entry.get("time").cloned();
            let held: &mut Held<'_> = out.entry(identity).or_default();
            if held.fields.is_empty() {
                held.fields = Fields::Wire(wire);
            } else {
                held.fields.add(&Fields::Wire(wire).set());
            }
            (held.api_version, held.time) = (api_version, time);
        }
        Self(out)
    }

    fn write(&self, object: &mut Value) {
        let mut entries: Vec<(&Identity, &Held<'_>)> = self.0.iter().collect();
        let time = |held: &Held<'_>| {
            held.time
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        entries.sort_by_key(|(identity, held)| {
            (identity.operation, time(held), identity.manager.clone())
        });
        let list: Vec<Value> = entries
            .into_iter()
            .map(|(identity, held)| {
                let operation = if identity.operation == Operation::Apply { "Apply" } else { "Update" };
                let mut entry = json!({"manager": identity.manager, "operation": operation, "apiVersion": held.api_version,
                    "fieldsType": "FieldsV1", "fieldsV1": held.fields.to_wire()});
                if let Some(time) = &held.time {
                    entry["time"] = time.clone();
                }
                if !identity.subresource.is_empty() {
                    entry["subresource"] = identity.subresource.as_str().into();
                }
                entry
            })
            .collect();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        if list.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), list.into());
        }
    }

    /// Takes from everybody what was changed or is gone.
    fn give_up(&mut self, changes: &Comparison) {
        let taken = changes
            .added
            .clone()
            .union(&changes.modified)
            .union(&changes.removed);
        for held in self.0.values_mut() {
            if held.fields.touches(&taken) {
                held.fields = Fields::Set(held.fields.set().difference(&taken));
            }
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

/// The metadata of an object without what nobody manages.
fn managed_metadata(object: &Value) -> Value {
    let all = object["metadata"].as_object().into_iter().flatten();
    let managed = all.filter(|(name, _)| !UNMANAGED.contains(&name.as_str()));
    Value::Object(managed.map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// How two objects differ in what is managed. An absent object has no fields but an empty `metadata`.
fn changes(root: &Node, old: &Value, new: &Value) -> Comparison {
    let mut out = compare_but(root, old, new, &["apiVersion", "kind", "metadata"]);
    let at = PathElement::Field("metadata".to_owned());
    let (old, new) = (managed_metadata(old), managed_metadata(new));
    out.enter(at, root.child("metadata"), Some(&old), Some(&new));
    out
}

/// The fields that an apply of an object claims.
fn claims(root: &Node, object: &Value) -> FieldSet {
    let all = object.as_object().into_iter().flatten();
    let named = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    let mut part: Map<String, Value> = all
        .filter(|(name, _)| !named(name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    // An empty metadata holds nothing but the name, which nobody manages.
    let metadata = managed_metadata(object);
    if metadata != json!({}) {
        part.insert("metadata".to_owned(), metadata);
    }
    field_set(root, &part.into())
}

/// Writes `metadata.managedFields` of `object`, which an update puts in the place of `live` (null for a create).
///
/// Managed fields that `object` carries itself are used when they are an empty list of one empty entry (a reset).
pub fn update(schema: &Schema, live: &Value, object: &mut Value, writer: &Writer<'_>) {
    let reset = object["metadata"]["managedFields"] == json!([{}]);
    let mut managers = if reset {
        Managers::default()
    } else {
        Managers::of(live)
    };
    // What nobody manages is managed by nobody until the first apply.
    let untracked = managers.0.is_empty() && live["metadata"]["resourceVersion"].is_string();
    let changes = changes(schema.root(), live, object);
    if !changes.is_same() && !reset && !untracked {
        managers.give_up(&changes);
        let taken = changes.added.union(&changes.modified);
        if !taken.is_empty() {
            let held = managers
                .0
                .entry(writer.identity(Operation::Update))
                .or_default();
            held.fields.add(&taken);
            writer.api_version.clone_into(&mut held.api_version);
            held.time = Some(writer.now.into()).filter(|_| !writer.now.is_empty());
        }
    }
    managers.write(object);
}

/// Takes a field of the first level, such as `f:status`, from everybody.
pub fn disown(object: &mut Value, field: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(entries) = metadata
        .get_mut("managedFields")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for entry in entries.iter_mut() {
        if let Some(fields) = entry["fieldsV1"].as_object_mut() {
            fields.remove(field);
        }
    }
    entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|f| !f.is_empty()));
    if entries.is_empty() {
        metadata.remove("managedFields");
    }
}

/// The names of the managers that hold the field at a path such as `/spec/replicas`.
#[must_use]
pub fn holders(object: &Value, path: &str) -> Vec<String> {
    let path: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| format!("/f:{part}"))
        .collect();
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
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

/// The object after a server-side apply of `config` to `live` (null when there is none), with its `managedFields`.
///
/// With `force`, conflicting fields are taken from their managers. Defaults are not filled in here: fields that come by
/// default belong to nobody.
///
/// # Errors
/// [`ApplyError`]: the configuration does not fit the schema, or conflicts with other managers.
pub fn apply(
    schema: &Schema,
    live: &Value,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let root = schema.root();
    let found = faults(root, config);
    if !found.is_empty() {
        return Err(ApplyError::Untyped(found));
    }
    let mut managers = Managers::of(live);
    if managers.0.is_empty() && !live.is_null() {
        let first = Writer {
            manager: BEFORE_FIRST_APPLY,
            subresource: "",
            ..*writer
        };
        let held = Held {
            api_version: writer.api_version.to_owned(),
            time: Some(writer.now.into()),
            fields: Fields::Set(claims(root, live)),
        };
        managers.0.insert(first.identity(Operation::Update), held);
    }
    let own = writer.identity(Operation::Apply);
    let claimed = claims(root, config);
    let before = managers.0.remove(&own).unwrap_or_default();
    let merged = merge(
        root,
        if live.is_null() { &Value::Null } else { live },
        config,
    );
    let mut object = drop_unclaimed(root, merged, &before.fields.set(), config, &managers);
    let changes = changes(root, live, &object);
    let mut wanted = changes.added.clone().union(&changes.modified);
    // What kubectl set by its own way of applying it may go on setting by this one.
    let adopted = (writer.manager == KUBECTL)
        .then(|| last_applied(live))
        .flatten();
    if let Some(last) = adopted.as_ref().filter(|_| !force) {
        let since = self::changes(root, last, live);
        let own = claims(root, last)
            .difference(&since.added)
            .difference(&since.modified)
            .difference(&since.removed);
        wanted = wanted.difference(&own);
    }
    let conflicts = conflicts(&managers, &wanted);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.give_up(&changes);
    let time = if changes.is_same() {
        before.time
    } else {
        Some(writer.now.into())
    };
    if !claimed.is_empty() {
        managers.0.insert(
            own,
            Held {
                api_version: writer.api_version.to_owned(),
                time,
                fields: Fields::Set(claimed),
            },
        );
    }
    managers.write(&mut object);
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
    Ok(object)
}

/// What kubectl applied last without the server's help, as it noted it.
fn last_applied(live: &Value) -> Option<Value> {
    let noted = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(noted).ok().filter(Value::is_object)
}

/// Drops what this manager had and no longer declares, unless another has it.
fn drop_unclaimed(
    root: &Node,
    merged: Value,
    before: &FieldSet,
    config: &Value,
    others: &Managers<'_>,
) -> Value {
    // All of the configuration, with the name: the metadata that holds it must stay.
    let kept = with_named_fields(root, &field_set(root, config));
    let mut gone = with_named_fields(root, before).difference(&kept);
    for held in others.0.values() {
        if gone.is_empty() {
            return merged;
        }
        gone = gone.difference(&with_named_fields(root, &held.fields.set()));
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
