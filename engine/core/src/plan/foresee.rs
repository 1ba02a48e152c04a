//! What the API will make of a document: the server's own code, run before anything is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use fleetwright_api::{
    crds,
    fleet::{DriftAction, DriftPolicy},
    meta::{
        ANNOTATION_AUTOSCALER_MIN, ANNOTATION_REVISION, HANDOVER_PATHS, LABEL_FLEET,
        MANAGER_HANDOVER,
    },
};
use fleetwright_schema::{
    FieldError, FieldSet, Schema, default,
    fields::PathElement,
    managed::{self, ApplyError, Writer},
    prune, validate,
};
use serde_json::{Map, Value, json};

use super::{
    Drift, FieldDiff, Kept, Key, belonging,
    conflict::{self, Taking},
    fields,
};

/// The compiled schemas of the kinds that Git may hold.
static SCHEMAS: LazyLock<BTreeMap<String, Schema>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    let mut add = |kind: String, root: &Value| {
        if let Ok(schema) = Schema::from_openapi(root) {
            all.insert(kind, schema);
        }
    };
    for crd in crds::all() {
        let version = crd.spec.versions.first();
        let root = version.and_then(|v| v.schema.as_ref()?.open_api_v3_schema.as_ref());
        if let Some(Ok(root)) = root.map(serde_json::to_value) {
            add(crd.spec.names.kind, &root);
        }
    }
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    add(
        "ConfigMap".into(),
        &json!({"type": "object", "properties": {"data": texts, "binaryData": texts, "immutable": {"type": "boolean"}}}),
    );
    add(
        "Namespace".into(),
        &json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"finalizers": {"type": "array", "items": {"type": "string"}}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}),
    );
    all
});
/// The schema of any other kind: nothing is known, everything is kept.
static ANY: LazyLock<Schema> = LazyLock::new(Schema::preserve_unknown);

/// The schema by which the API checks and merges objects of a kind that Git may hold.
#[must_use]
pub fn schema_of(kind: &str) -> &'static Schema {
    SCHEMAS.get(kind).unwrap_or(&ANY)
}

/// What the API refuses of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, such as `spec.pools[0].name`; empty where it is about the whole object.
    pub field: String,
    /// What is wrong with it, in the API's words and with the field's name.
    pub message: String,
}

/// What the API would refuse of a document if there were no such object yet.
#[must_use]
pub fn faults(document: &Value) -> Vec<Fault> {
    let drift = DriftPolicy::default();
    let fleet = Fleet {
        manager: "fleetwright",
        hash: "",
        taking: Taking {
            drift: &drift,
            previous: None,
        },
    };
    let foreseen = fleet.foresee(&Key::of(document), document, None);
    foreseen.err().unwrap_or_default()
}

/// What an apply would come to.
pub(super) struct Foreseen {
    /// The object from then on.
    pub(super) after: Value,
    /// What is put as, or handed to, manager `fleetwright-handover`.
    pub(super) handover: Vec<Kept>,
    /// What differs, with who else holds it.
    pub(super) fields: Vec<FieldDiff>,
    /// Fields that stay as others set them, but for those to be ignored.
    pub(super) left: Vec<Drift>,
    /// Managers of other Fleets, whose fields are taken over.
    pub(super) former: Vec<String>,
    /// Whether the Fleet's manager or the handover's will hold other fields than now.
    pub(super) claims: bool,
}

impl Foreseen {
    /// Whether the apply would write anything.
    pub(super) fn changes_something(&self) -> bool {
        self.claims || !self.fields.is_empty() || !self.former.is_empty()
    }
}

/// Who applies, and what it may take from others.
pub(super) struct Fleet<'a> {
    pub(super) manager: &'a str,
    pub(super) hash: &'a str,
    pub(super) taking: Taking<'a>,
}

impl Fleet<'_> {
    /// Whether an apply of `document` would change nothing, told without making it: then [`Self::foresee`] finds nothing either.
    pub(super) fn is_applied(&self, key: &Key, document: &Value, live: &Value) -> bool {
        let config = marked(document, self.hash, annotation(live, ANNOTATION_REVISION));
        let is_former = |other: &str| belonging::is_former(other, self.manager);
        managed::is_applied(schema_of(&key.kind), live, &config, self.manager, is_former)
    }

    /// Applies `document` to the live object in thought. What changes nothing is not refused, whatever a newer release thinks of it.
    ///
    /// # Errors
    /// What the API will refuse of it.
    pub(super) fn foresee(
        &self,
        key: &Key,
        document: &Value,
        live: Option<&Value>,
    ) -> Result<Foreseen, Vec<Fault>> {
        let (manager, hash) = (self.manager, self.hash);
        let schema = schema_of(&key.kind);
        let writer = |manager| Writer {
            manager,
            api_version: &key.api_version,
            subresource: "",
            now: "",
        };
        let words = |error: ApplyError| {
            let (field, message) = (String::new(), error.to_string());
            vec![Fault { field, message }]
        };
        let revision = live.and_then(|l| annotation(l, ANNOTATION_REVISION));
        let mut config = marked(document, hash, revision);
        let former = live.map(|live| belonging::former(live, manager));
        let former = former.unwrap_or_default();
        let handover = handover(key, document, live, manager, &former);
        let mut base = live.cloned().unwrap_or(Value::Null);
        let keep = |base: &Value| {
            let kept = super::partial(key, &handover);
            managed::apply_whole(schema, base, &kept, &writer(MANAGER_HANDOVER), true)
        };
        if !handover.is_empty() && live.is_some() {
            base = keep(&base).map_err(words)?;
        }
        let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut left = Vec::new();
        let mut after = match managed::apply_whole(schema, &base, &config, &writer(manager), false)
        {
            Ok(after) => after,
            Err(ApplyError::Conflicts(conflicts)) => {
                for conflict in conflicts {
                    let name = conflict.manager.split('"').nth(1).unwrap_or_default();
                    let managers = held.entry(conflict.field).or_default();
                    managers.insert(name.to_owned());
                }
                held.retain(|field, managers| {
                    managers.retain(|name| !former.contains(name));
                    let action = self.taking.action(key, document, field, managers);
                    if action != DriftAction::Correct {
                        conflict::remove(&mut config, field);
                    }
                    if action == DriftAction::Report {
                        let (field, managers) = (field.clone(), managers.clone());
                        left.push(Drift::of(key, document, live, field, managers));
                    }
                    managers.remove(MANAGER_HANDOVER);
                    action == DriftAction::Correct
                });
                managed::apply_whole(schema, &base, &config, &writer(manager), true)
                    .map_err(words)?
            }
            Err(error) => return Err(words(error)),
        };
        if !handover.is_empty() && live.is_none() {
            after = keep(&after).map_err(words)?;
        }
        // What Fleets that it no longer belongs to alone hold goes with them.
        for manager in &former {
            let nothing = super::partial(key, &[]);
            after = managed::apply_whole(schema, &after, &nothing, &writer(manager), false)
                .map_err(words)?;
        }
        prune::prune(schema, &mut after);
        default::apply(schema, &mut after);
        if let Some(status) = live.and_then(|l| l.get("status")) {
            after["status"] = status.clone();
        }
        let mut diffs = Vec::new();
        if let Some(live) = live {
            // Defaults that came with a newer release, and fields that went with it, are not of this plan's making.
            let mut before = fields::shown(live);
            prune::prune(schema, &mut before);
            default::apply(schema, &mut before);
            diffs = fields::differences(&before, &fields::shown(&after));
        }
        for diff in &mut diffs {
            let holders = held
                .iter()
                .filter(|(field, _)| conflict::is_below(&diff.path, field));
            diff.held_by = holders.flat_map(|(_, who)| who.iter().cloned()).collect();
            diff.held_by.dedup();
        }
        let claimed = |object: &Value| [manager, MANAGER_HANDOVER].map(|m| applied_by(object, m));
        let claims = live.is_none_or(|live| claimed(live) != claimed(&after));
        let foreseen = Foreseen {
            after,
            handover,
            fields: diffs,
            left,
            former: former.into_iter().collect(),
            claims,
        };
        let errors = match foreseen.changes_something() {
            true => validate::validate(schema, &foreseen.after, live),
            false => Vec::new(),
        };
        match errors.is_empty() {
            true => Ok(foreseen),
            false => Err(errors.iter().map(fault).collect()),
        }
    }
}

fn fault(error: &FieldError) -> Fault {
    let field = Some(error.field.as_str()).filter(|f| *f != "<nil>");
    Fault {
        field: field.unwrap_or_default().to_owned(),
        message: error.to_string(),
    }
}

/// The document as it is sent: with the inventory's label and, where there is one, the revision's annotation.
#[must_use]
pub fn marked(document: &Value, hash: &str, revision: Option<&str>) -> Value {
    let mut sent = document.clone();
    let marks = [
        ("labels", LABEL_FLEET, Some(hash)),
        ("annotations", ANNOTATION_REVISION, revision),
    ];
    for (field, name, value) in marks {
        let metadata = sent.get_mut("metadata").and_then(Value::as_object_mut);
        if let (Some(value), Some(metadata)) = (value, metadata) {
            let map = metadata.entry(field).or_insert_with(|| json!({}));
            if map.is_null() {
                *map = json!({});
            }
            if let Some(map) = map.as_object_mut() {
                map.insert(name.to_owned(), value.into());
            }
        }
    }
    sent
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(name)?
        .as_str()
}

/// What keeps a value that Git does not say: the live one where Git stops saying it, the autoscaler's lower bound for
/// a pool that it is to scale.
fn handover(
    key: &Key,
    document: &Value,
    live: Option<&Value>,
    manager: &str,
    former: &BTreeSet<String>,
) -> Vec<Kept> {
    let at = |object: &Value, path: &[&str]| {
        let found = path.iter().try_fold(object, |node, part| node.get(part));
        found.filter(|v| !v.is_null()).cloned()
    };
    let mut out = Vec::new();
    for (kind, path) in HANDOVER_PATHS {
        if *kind != key.kind || at(document, path).is_some() {
            continue;
        }
        let value = match live {
            Some(live) => {
                let mut ours = former.iter().map(String::as_str).chain([manager]);
                at(live, path).filter(|_| ours.any(|m| owns(&applied_by(live, m), path)))
            }
            None => annotation(document, ANNOTATION_AUTOSCALER_MIN)
                .and_then(|least| least.parse::<i32>().ok())
                .map(Value::from),
        };
        out.extend(value.map(|value| Kept {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            value,
        }));
    }
    out
}

/// What `manager` holds of an object by its applies.
fn applied_by(object: &Value, manager: &str) -> FieldSet {
    let own = managed::held(object, |m| m == manager).into_iter();
    own.filter(|holding| holding.applied)
        .fold(FieldSet::default(), |all, own| all.union(&own.fields))
}

fn owns(set: &FieldSet, path: &[&str]) -> bool {
    let Some((last, parents)) = path.split_last() else {
        return false;
    };
    let field = |name: &str| PathElement::field(name);
    let parent = parents
        .iter()
        .try_fold(set, |set, name| set.below(&field(name)));
    parent.is_some_and(|set| set.has(&field(last)))
}

/// The object that holds `kept` alone, with identity, for an apply.
#[must_use]
pub fn partial(key: &Key, kept: &[Kept]) -> Value {
    let mut metadata = Map::from_iter([("name".to_owned(), Value::from(key.name.clone()))]);
    if !key.namespace.is_empty() {
        metadata.insert("namespace".into(), key.namespace.clone().into());
    }
    let mut object = json!({"apiVersion": key.api_version, "kind": key.kind, "metadata": metadata});
    for kept in kept {
        fields::set(&mut object, &kept.path, kept.value.clone());
    }
    object
}
