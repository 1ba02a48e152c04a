//! What applying the repository would do: creates, changes, deletes, each with its effect and its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{
    Machine, MachineSet, ProviderAccount,
    disruption::DisruptionBudget,
    fleet::{Allow, DriftPolicy},
    meta::fleet_manager,
    names::fleet_hash,
    version::Version,
    waves::{Wave, Window},
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    catalogue::Catalogue,
    images::{Image, Missing},
    waves::Waves,
};

pub mod belonging;
mod blockers;
pub mod conflict;
mod departure;
mod digest;
mod effect;
mod fields;
mod forecast;
mod foresee;
mod model;
mod origins;
mod prune;
mod removal;
mod staged;

pub use self::{
    blockers::{BlockerKind, FilePlace, Mistake, PlanBlocker},
    departure::{Departure, depart},
    forecast::{
        BootImage, ByProvider, History, HistoryOf, Images, Rollout, Step, forecast, has_quota,
    },
    foresee::{Fault, faults, marked, partial, schema_of},
    origins::{Origin, Origins, Written},
    removal::{Removal, Removed},
    staged::PlannedWave,
};

/// An object that the repository declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The raw document, with its namespace.
    pub document: Value,
    /// File and line.
    pub source: String,
    /// Where its values were written, if it is built on other documents.
    pub origins: Origins,
}

/// What the API holds.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Objects of the kinds that Git may hold, with managedFields (packed or not): the Fleet's, all that the repository names, and all
    /// pools of the clusters among them.
    pub objects: Vec<Value>,
    /// Sets of the pools; [`forecast`] alone looks at them.
    pub sets: Vec<MachineSet>,
    /// Machines of the clusters; of all clusters where the Fleet has a disruption budget or an account a quota of instances.
    pub machines: Vec<Machine>,
    /// The accounts of providers; [`forecast`] alone looks at them, for their quotas.
    pub accounts: Vec<ProviderAccount>,
    /// The Fleets that there are; `None` where they are not known. What is labelled with one that is gone is nobody's.
    pub fleets: Option<belonging::Fleets>,
    /// Images that there are none of, or no instance types to boot them, with what their providers say to that; [`forecast`] tells which
    /// ones to ask for.
    pub missing_images: BTreeMap<Image, Missing>,
}

/// What the Fleet says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Namespace of the Fleet.
    pub namespace: String,
    /// Name of the Fleet.
    pub fleet: String,
    /// Most machines that may be deleted without consent.
    pub max_machines: usize,
    /// What is done about fields that others hold.
    pub drift: DriftPolicy,
    /// Versions that upgrades may pass through, in the Fleet's order; all when empty.
    pub versions: Vec<Version>,
    /// What the repository may hold: nothing else is deleted.
    pub allow: Allow,
    /// The Fleet's own disruption budget.
    pub disruption: Option<DisruptionBudget>,
    /// In which order changes reach clusters and pools.
    pub waves: Vec<Wave>,
    /// When they may begin.
    pub windows: Vec<Window>,
}

impl Policy {
    /// The Fleet's waves, with its windows.
    #[must_use]
    pub fn waves(&self) -> Waves<'_> {
        Waves::new(&self.waves, &self.windows)
    }
}

/// Identity of an object: `apiVersion`, kind, namespace, name.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum PlanEffect {
    /// Nothing.
    #[default]
    None,
    /// Machines are changed while they run.
    InPlace {
        /// Why.
        reason: String,
    },
    /// Machines are replaced.
    RollingReplacement {
        /// Why.
        reason: String,
    },
    /// A control plane or a group of nodes is changed by the provider that runs it, by bounds of its own.
    ByProvider {
        /// Why.
        reason: String,
        /// Nodes that it replaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nodes: Option<i32>,
    },
    /// Machines and whatever else there is are deleted with their owner.
    Removal {
        /// In this order.
        steps: Vec<Removal>,
    },
}

impl PlanEffect {
    /// Names of the machines that are deleted with their owner.
    pub fn removed(&self) -> impl Iterator<Item = &String> {
        let steps = match self {
            Self::Removal { steps } => steps.as_slice(),
            _ => &[],
        };
        steps.iter().flat_map(|step| &step.machines)
    }

    /// Nodes that providers run and that are deleted with their owner, by pool.
    pub fn removed_nodes(&self) -> impl Iterator<Item = (&String, i32)> {
        let steps = match self {
            Self::Removal { steps } => steps.as_slice(),
            _ => &[],
        };
        let nodes = steps.iter().flat_map(|step| &step.nodes);
        nodes.map(|(pool, nodes)| (pool, *nodes))
    }
}

/// One field that will differ from what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldDiff {
    /// Path, by its parts.
    pub path: Vec<String>,
    /// The live value.
    pub from: Option<Value>,
    /// The value to come: what Git says, or the default that follows when Git no longer says it.
    pub to: Option<Value>,
    /// Other managers that it is taken from: the commit changes it, or the policy says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
}

/// A value that stays though Git does not say it: manager `fleetwright-handover` holds it from then on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Path, by its parts.
    pub path: Vec<String>,
    /// The value.
    pub value: Value,
}

/// One object that a plan creates, changes or deletes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The object.
    pub key: Key,
    /// File and line; empty for deletes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The object as it is, without status and bookkeeping; `None` for a create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The object as it will be, defaults filled in; `None` for a delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// What differs. A change without any only takes over fields that have the wanted value already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldDiff>,
    /// Where the values that differ were written, if the document is built on others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Written>,
    /// Values that stay though Git does not say them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handover: Vec<Kept>,
    /// Managers of Fleets that it no longer belongs to: what they hold becomes this Fleet's, or is no longer held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted_from: Vec<String>,
    /// What it does to machines.
    pub effect: PlanEffect,
    /// The wave that it belongs to, where the Fleet has waves. What belongs to no cluster comes before all of them, deletes after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

/// Something that the plan does not do, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The object.
    pub key: Key,
    /// Why, and what to do.
    pub reason: String,
    /// The wave that it belongs to, as of a [`Change`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

/// A field that another manager holds and that therefore was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The object.
    pub key: Key,
    /// Path of the field, as the API writes it.
    pub field: String,
    /// Who holds it.
    pub managers: Vec<String>,
    /// What Git says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
    /// What the API holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
    /// When one of the managers last wrote it or what it holds beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub since: Option<Timestamp>,
}

impl Drift {
    /// Of a field of `document` that the `managers` of the live object hold.
    #[must_use]
    pub fn of(
        key: &Key,
        document: &Value,
        live: Option<&Value>,
        field: String,
        managers: BTreeSet<String>,
    ) -> Self {
        let found = live.and_then(|live| conflict::value(live, &field));
        Self {
            key: key.clone(),
            wanted: conflict::value(document, &field).cloned(),
            found: found.cloned(),
            since: live.and_then(|live| conflict::written(live, &field, &managers)),
            field,
            managers: managers.into_iter().collect(),
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is held by {}",
            self.key,
            self.field,
            self.managers.join(", ")
        )
    }
}

/// What applying the repository would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Fields that stay as others set them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// What becomes of machines, step by step; filled in by [`forecast`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<Rollout>,
    /// How long it takes until the last machine is available and every wave has soaked, in seconds: drains, holds and whatever else waits
    /// not counted. `None` where no machine tells how long one takes, or none comes. Filled in by [`forecast`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<i64>,
    /// What is in the way of it; filled in by [`forecast`] and [`Plan::stage`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<PlanBlocker>,
    /// The waves and windows that changes wait for, in their order; filled in by [`Plan::stage`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<PlannedWave>,
}

impl Plan {
    /// Whether there is nothing to do and nothing refused.
    pub fn is_empty(&self) -> bool {
        self.creates.is_empty()
            && self.changes.is_empty()
            && self.deletes.is_empty()
            && self.refused.is_empty()
    }
}

/// The plan that makes `live` what `desired` says. `desired` must come from a complete load without errors; `previous` are the
/// documents that the Fleet declared before: what differs from them is what this revision changes, and is taken from whoever
/// holds it. Without them nothing is.
pub fn plan(
    desired: &[Desired],
    previous: Option<&BTreeMap<Key, Value>>,
    live: &Live,
    policy: &Policy,
    catalogue: &Catalogue,
) -> Plan {
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let manager = fleet_manager(&policy.namespace, &policy.fleet);
    let by_key: BTreeMap<Key, &Value> = live.objects.iter().map(|o| (Key::of(o), o)).collect();
    let wanted: BTreeSet<Key> = desired.iter().map(|d| Key::of(&d.document)).collect();
    let fleet = foresee::Fleet {
        manager: &manager,
        hash: &hash,
        taking: conflict::Taking {
            drift: &policy.drift,
            previous,
        },
    };
    let waves = policy.waves();
    let places = match policy.waves.is_empty() {
        true => Default::default(),
        false => waves.places(desired, &live.objects),
    };
    let mut out = Plan::default();
    for want in desired {
        let key = Key::of(&want.document);
        let have = by_key.get(&key).copied();
        let mut refuse = |key, why: String| {
            let reason = format!("{}: {why}", want.source);
            let wave = waves.name(places.of(&key)).map(str::to_owned);
            out.refused.push(Refusal { key, reason, wave });
        };
        let fleets = live.fleets.as_ref();
        if let Some(why) = have.and_then(|have| belonging::barred(have, &hash, fleets)) {
            refuse(key, why);
            continue;
        }
        if have.is_some_and(|have| fleet.is_applied(&key, &want.document, have)) {
            continue;
        }
        let foreseen = match fleet.foresee(&key, &want.document, have) {
            Ok(foreseen) => foreseen,
            Err(faults) => {
                let words: Vec<String> = faults.iter().map(|f| said(f, &want.origins)).collect();
                refuse(key, words.join("; "));
                continue;
            }
        };
        out.drift.extend(foreseen.left.iter().cloned());
        if !foreseen.changes_something() {
            continue;
        }
        let fixed = have.and_then(|have| effect::fixed(&key, have, &foreseen.after, catalogue));
        if let Some(why) = fixed {
            refuse(key, why);
            continue;
        }
        let effect = have.map_or(PlanEffect::None, |have| {
            effect::effect(&key, have, &foreseen.after, &by_key, catalogue)
        });
        let list = match have {
            Some(_) => &mut out.changes,
            None => &mut out.creates,
        };
        let origins = &want.origins;
        list.push(Change {
            wave: waves.name(places.of(&key)).map(str::to_owned),
            key,
            source: want.source.clone(),
            origins: origins.of_fields(&foreseen.fields, &want.document, &foreseen.after),
            before: have.map(fields::shown),
            after: Some(fields::shown(&foreseen.after)),
            fields: foreseen.fields,
            handover: foreseen.handover,
            adopted_from: foreseen.former,
            effect,
        });
    }
    out.creates
        .sort_by_key(|c| (rank(&c.key.kind), c.key.clone()));
    out.changes
        .sort_by_key(|c| (rank(&c.key.kind), c.key.clone()));
    prune::prune(&wanted, prune::Why::Undeclared, live, policy, &mut out);
    out
}

/// A fault with the place that the value came from, where it may be another than the document's.
fn said(fault: &Fault, origins: &Origins) -> String {
    match origins.of_field(&fault.field) {
        Some(origin) => format!("{} (from {origin})", fault.message),
        None => fault.message.clone(),
    }
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

#[cfg(test)]
mod tests;
