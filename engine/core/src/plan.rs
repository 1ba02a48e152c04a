//! What applying the repository would do: creates, changes, deletes, each with its effect and its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment,
    meta::{
        HANDOVER_PATHS, LABEL_CLUSTER_NAME, LABEL_CONTROL_PLANE, LABEL_DEPLOYMENT_NAME,
        LABEL_FLEET, fleet_manager,
    },
    names::{fleet_hash, short_hash},
    version::Version,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{catalogue::Catalogue, compare::compare, content::Content};

mod fields;
mod prune;

/// An object that the repository declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The raw document, with its namespace.
    pub document: Value,
    /// File and line.
    pub source: String,
}

/// What the API holds.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Objects of the kinds that Git may hold, with managedFields: the Fleet's and all that the repository names.
    pub objects: Vec<Value>,
    /// Machines of their clusters.
    pub machines: Vec<Machine>,
}

/// What the Fleet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Namespace of the Fleet.
    pub namespace: String,
    /// Name of the Fleet.
    pub fleet: String,
    /// Most machines that may be deleted without consent.
    pub max_machines: usize,
}

/// Identity of an object: `apiVersion`, kind, namespace, name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// `apiVersion`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

/// What a change does to running machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum PlanEffect {
    /// Nothing.
    #[default]
    None,
    /// Machines are changed while they run.
    InPlace {
        /// Their names.
        machines: Vec<String>,
        /// Why.
        reason: String,
    },
    /// Machines are replaced.
    RollingReplacement {
        /// Their names, in the order of the roll: control plane before workers.
        machines: Vec<String>,
        /// Why.
        reason: String,
    },
}

/// One field that differs from what Git says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldDiff {
    /// Path, by its parts.
    pub path: Vec<String>,
    /// The live value.
    pub from: Option<Value>,
    /// The wanted value; `None` when Git no longer declares the field.
    pub to: Option<Value>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The object.
    pub key: Key,
    /// File and line; empty for deletes.
    pub source: String,
    /// Fields; empty for creates and deletes.
    pub fields: Vec<FieldDiff>,
    /// Values that Git stops declaring but that stay, handed to manager `fleetwright-handover`.
    pub handover: Vec<FieldDiff>,
    /// What it does to machines.
    pub effect: PlanEffect,
}

/// Something that the plan does not do, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The object.
    pub key: Key,
    /// Why, and what to do.
    pub reason: String,
}

/// What applying the repository would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[must_use]
pub struct Plan {
    /// Objects to create: Namespaces, then Clusters, then the rest.
    pub creates: Vec<Change>,
    /// Objects to change.
    pub changes: Vec<Change>,
    /// Objects to delete, last.
    pub deletes: Vec<Change>,
    /// What is refused. A refused deletion leaves all deletes out.
    pub refused: Vec<Refusal>,
}

impl Plan {
    /// Whether there is nothing to do and nothing refused.
    pub fn is_empty(&self) -> bool {
        self.creates.is_empty()
            && self.changes.is_empty()
            && self.deletes.is_empty()
            && self.refused.is_empty()
    }

    /// SHA-256 of the decisions, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        short_hash(["plan", &text], 64)
    }
}

/// The plan that makes `live` what `desired` says. `desired` must come from a complete load without errors.
pub fn plan(desired: &[Desired], live: &Live, policy: &Policy, catalogue: &Catalogue) -> Plan {
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let manager = fleet_manager(&policy.namespace, &policy.fleet);
    let by_key: BTreeMap<Key, &Value> = live.objects.iter().map(|o| (Key::of(o), o)).collect();
    let wanted: BTreeSet<Key> = desired.iter().map(|d| Key::of(&d.document)).collect();
    let mut out = Plan::default();
    for want in desired {
        let key = Key::of(&want.document);
        let Some(have) = by_key.get(&key) else {
            out.creates.push(Change {
                key,
                source: want.source.clone(),
                fields: Vec::new(),
                handover: Vec::new(),
                effect: PlanEffect::None,
            });
            continue;
        };
        let owner = label(have, LABEL_FLEET);
        if owner.is_some_and(|owner| owner != hash) {
            let reason = format!(
                "{}: it belongs to another Fleet: remove it from one of the two repositories",
                want.source
            );
            out.refused.push(Refusal { key, reason });
            continue;
        }
        if have.pointer("/metadata/deletionTimestamp").is_some() {
            let reason = format!(
                "{}: it is being deleted: it is made again when it is gone",
                want.source
            );
            out.refused.push(Refusal { key, reason });
            continue;
        }
        let mut fields = fields::declared(&want.document, have);
        let (handover, removed) = fields::removed(&want.document, have, &manager)
            .into_iter()
            .partition(|diff: &FieldDiff| is_handover(&key.kind, &diff.path));
        fields.extend::<Vec<FieldDiff>>(removed);
        if owner.is_none() {
            let path = ["metadata", "labels", LABEL_FLEET]
                .map(str::to_owned)
                .to_vec();
            fields.push(FieldDiff {
                path,
                from: None,
                to: Some(hash.clone().into()),
            });
        }
        if fields.is_empty() && handover.is_empty() {
            continue;
        }
        let effect = effect(&key, have, &fields, live, &by_key, catalogue);
        out.changes.push(Change {
            key,
            source: want.source.clone(),
            fields,
            handover,
            effect,
        });
    }
    out.creates
        .sort_by_key(|c| (rank(&c.key.kind), c.key.clone()));
    out.changes
        .sort_by_key(|c| (rank(&c.key.kind), c.key.clone()));
    prune::prune(&wanted, live, policy, &hash, &manager, &mut out);
    out
}

fn is_handover(kind: &str, path: &[String]) -> bool {
    HANDOVER_PATHS
        .iter()
        .any(|(k, p)| *k == kind && p.iter().eq(path.iter()))
}

fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "ConfigMap" => 1,
        "Cluster" => 2,
        _ => 3,
    }
}

fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(name)?.as_str()
}

/// Names of the machines in `namespace` whose labels fit, control plane first.
fn machines_of(
    live: &Live,
    namespace: &str,
    fits: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Vec<String> {
    let mut names: Vec<(bool, String)> = live
        .machines
        .iter()
        .filter(|m| m.metadata.namespace.as_deref() == Some(namespace))
        .filter_map(|m| {
            let labels = m.metadata.labels.as_ref()?;
            fits(labels).then(|| {
                (
                    !labels.contains_key(LABEL_CONTROL_PLANE),
                    m.metadata.name.clone().unwrap_or_default(),
                )
            })
        })
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

fn effect(
    key: &Key,
    have: &Value,
    diffs: &[FieldDiff],
    live: &Live,
    by_key: &BTreeMap<Key, &Value>,
    catalogue: &Catalogue,
) -> PlanEffect {
    let mut next = have.clone();
    for diff in diffs {
        fields::set(&mut next, &diff.path, diff.to.clone());
    }
    let is = |labels: &BTreeMap<String, String>, name: &str, value: &str| {
        labels.get(name).is_some_and(|v| v == value)
    };
    let (before, after, mut machines, version_moves) = match key.kind.as_str() {
        "Cluster" => {
            let (Ok(old), Ok(new)) = (typed::<Cluster>(have), typed::<Cluster>(&next)) else {
                return PlanEffect::None;
            };
            let content = |c: &Cluster| {
                let version: Version = c.spec.version.parse().ok()?;
                Content::of_control_plane(c, &version, catalogue)
            };
            let machines = machines_of(live, &key.namespace, |l| {
                is(l, LABEL_CLUSTER_NAME, &key.name) && l.contains_key(LABEL_CONTROL_PLANE)
            });
            (
                content(&old),
                content(&new),
                machines,
                old.spec.version != new.spec.version,
            )
        }
        "MachineDeployment" => {
            let (Ok(old), Ok(new)) = (
                typed::<MachineDeployment>(have),
                typed::<MachineDeployment>(&next),
            ) else {
                return PlanEffect::None;
            };
            let content = |p: &MachineDeployment| {
                let cluster = Key {
                    kind: "Cluster".into(),
                    name: p.spec.cluster_name.clone(),
                    ..key.clone()
                };
                let own = p.spec.template.spec.version.as_deref();
                let followed = || by_key.get(&cluster)?.pointer("/spec/version")?.as_str();
                let version: Version = own.or_else(followed)?.parse().ok()?;
                Some(Content::of_pool(p, &version, catalogue))
            };
            let machines = machines_of(live, &key.namespace, |l| {
                is(l, LABEL_DEPLOYMENT_NAME, &key.name)
            });
            (content(&old), content(&new), machines, false)
        }
        _ => return PlanEffect::None,
    };
    if version_moves {
        for pool in by_key
            .iter()
            .filter(|(k, _)| k.kind == "MachineDeployment" && k.namespace == key.namespace)
        {
            let follows = pool.1.pointer("/spec/clusterName").and_then(Value::as_str)
                == Some(&key.name)
                && pool.1.pointer("/spec/template/spec/version").is_none();
            if follows {
                machines.extend(machines_of(live, &key.namespace, |l| {
                    is(l, LABEL_DEPLOYMENT_NAME, &pool.0.name)
                }));
            }
        }
    }
    let (Some(before), Some(after)) = (before, after) else {
        return PlanEffect::None;
    };
    let difference = compare(&after, &before, catalogue);
    let reason = |changes: &[crate::compare::FieldChange]| {
        changes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    if !difference.replace.is_empty() {
        PlanEffect::RollingReplacement {
            machines,
            reason: reason(&difference.replace),
        }
    } else if !difference.in_place.is_empty() {
        PlanEffect::InPlace {
            machines,
            reason: reason(&difference.in_place),
        }
    } else {
        PlanEffect::None
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value.clone())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |v: &Option<Value>| {
            v.as_ref()
                .map_or_else(|| "(unset)".to_owned(), Value::to_string)
        };
        for create in &self.creates {
            writeln!(f, "+ {} ({})", create.key, create.source)?;
        }
        for change in &self.changes {
            writeln!(f, "~ {} ({})", change.key, change.source)?;
            for diff in &change.fields {
                writeln!(
                    f,
                    "    {}: {} -> {}",
                    diff.path.join("."),
                    text(&diff.from),
                    text(&diff.to)
                )?;
            }
            for diff in &change.handover {
                writeln!(
                    f,
                    "    {}: {} stays, no longer declared",
                    diff.path.join("."),
                    text(&diff.from)
                )?;
            }
            match &change.effect {
                PlanEffect::None => {}
                PlanEffect::InPlace { machines, reason } => {
                    writeln!(f, "    in place on {} machines: {reason}", machines.len())?;
                }
                PlanEffect::RollingReplacement { machines, reason } => {
                    writeln!(
                        f,
                        "    rolling replacement of {} machines ({}): {reason}",
                        machines.len(),
                        machines.join(", ")
                    )?;
                }
            }
        }
        for delete in &self.deletes {
            writeln!(f, "- {}", delete.key)?;
        }
        for refusal in &self.refused {
            writeln!(f, "! {}: {}", refusal.key, refusal.reason)?;
        }
        write!(
            f,
            "{} to create, {} to change, {} to delete, {} refused",
            self.creates.len(),
            self.changes.len(),
            self.deletes.len(),
            self.refused.len()
        )
    }
}

/// The object that holds `diffs` alone, with identity, for an apply.
pub fn partial(key: &Key, diffs: &[FieldDiff]) -> Value {
    let mut metadata = Map::from_iter([("name".to_owned(), Value::from(key.name.clone()))]);
    if !key.namespace.is_empty() {
        metadata.insert("namespace".into(), key.namespace.clone().into());
    }
    let mut object =
        serde_json::json!({"apiVersion": key.api_version, "kind": key.kind, "metadata": metadata});
    for diff in diffs {
        fields::set(&mut object, &diff.path, diff.from.clone());
    }
    object
}

#[cfg(test)]
mod tests;
