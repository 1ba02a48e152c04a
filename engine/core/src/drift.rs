//! What differs from what was declared though nobody declared it: fields of objects, instances, nodes.
//!
//! A document is compared with what lives, never with defaults that a server put in; an instance with what its provider showed
//! when it was made. What cannot be read is unknown, not drifted.

use std::{borrow::Borrow, collections::BTreeMap, fmt};

use fleetwright_api::{
    API_VERSION, Cluster, Machine,
    condition::kind,
    drift::{DriftKind, MachineDrift},
    machine::InstanceView,
    time::k8s_time,
    version::Version,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Drift, Key};

/// Most things of one machine that are told.
const MOST: usize = 32;
/// Most characters of a value in a sentence.
const SHOWN: usize = 80;

/// Something of an object that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The object.
    pub object: Key,
    /// What sort of thing.
    pub kind: DriftKind,
    /// Which one: the path of a field, the id of an instance, or as of [`MachineDrift`].
    pub what: String,
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
    /// Who holds it, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<String>,
    /// Since when, where that is known: when the manager wrote it, or when it was seen first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// All of it in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// A value as a sentence shows it.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "nothing".into();
    };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Of a field that was left to others.
#[must_use]
pub fn of_field(drift: &Drift) -> Finding {
    let since = drift.since.map(|at| format!(" since {at}"));
    Finding {
        object: drift.key.clone(),
        kind: DriftKind::Field,
        what: drift.field.clone(),
        wanted: drift.wanted.clone(),
        found: drift.found.clone(),
        managers: drift.managers.clone(),
        since: drift.since,
        message: format!(
            "{} is held by {}{}: {}, where Git says {}",
            drift.field,
            drift.managers.join(", "),
            since.unwrap_or_default(),
            shown(drift.found.as_ref()),
            shown(drift.wanted.as_ref()),
        ),
        hint: "write the value into Git, or take it back with policy correct (spec.drift of the Fleet)"
            .into(),
    }
}

/// What is known of something that may not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shown<T> {
    /// Nobody can tell now.
    #[default]
    Unknown,
    /// It is not there.
    Missing,
    /// It is this.
    There(T),
}

/// A machine's instance, as its provider's list shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Its settings and its state.
    pub view: InstanceView,
    /// Machine that its tags name.
    pub machine: String,
    /// Cluster that its tags name, as `namespace/name`.
    pub cluster: String,
}

/// A machine's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Version of its kubelet.
    pub kubelet: Option<String>,
    /// What the Machine hands to it and it has not; empty while it is kept in step.
    pub unsynced: Vec<Unsynced>,
}

/// A label or taint that a node has otherwise than its Machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsynced {
    /// Label or taint.
    pub kind: DriftKind,
    /// Its key; of a taint with its effect.
    pub key: String,
    /// The value that it should have.
    pub wanted: Option<String>,
    /// The value that it has.
    pub found: Option<String>,
}

/// What a machine shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// Its instance.
    pub instance: Shown<InstanceFacts>,
    /// Its node.
    pub node: Shown<NodeFacts>,
}

/// What differs of a machine, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What differs.
    pub found: Vec<MachineDrift>,
    /// Whether nothing was hidden.
    pub whole: bool,
}

/// What differs of `machine`. One on its way out does not drift, and one that comes up has nothing yet to differ from.
#[must_use]
pub fn of_machine(machine: &Machine, facts: &MachineFacts, now: Timestamp) -> Reading {
    if machine.metadata.deletion_timestamp.is_some() {
        return Reading {
            found: Vec::new(),
            whole: true,
        };
    }
    let before = machine.status.as_ref();
    let mut found = Vec::new();
    let mut put = |kind, what: &str, wanted: Option<&str>, is: Option<&str>| {
        let known = before.into_iter().flat_map(|s| &s.drift);
        let known = known
            .filter(|d| d.kind == kind && d.what == what && d.found.as_deref() == is)
            .map(|d| d.since.clone());
        found.push(MachineDrift {
            kind,
            what: what.to_owned(),
            wanted: wanted.map(str::to_owned),
            found: is.map(str::to_owned),
            since: known.min().unwrap_or_else(|| k8s_time(now)),
        });
    };
    let made = before.and_then(|s| s.instance.as_ref());
    match &facts.instance {
        Shown::Unknown => {}
        Shown::Missing => {
            let id = machine.spec.provider_id.as_deref();
            if id.is_some() {
                let id = made.map(|m| m.id.as_str()).or(id);
                put(DriftKind::InstanceMissing, "instance", id, None);
            }
        }
        Shown::There(seen) => {
            let changed = DriftKind::InstanceChanged;
            if seen.view.state == "Stopped" {
                put(changed, "state", Some("Running"), Some("Stopped"));
            }
            if let Some(made) = made.filter(|made| is_same(made, &seen.view)) {
                for (what, wanted, is) in [
                    (
                        "instanceType",
                        &made.instance_type,
                        &seen.view.instance_type,
                    ),
                    ("image", &made.image, &seen.view.image),
                ] {
                    // Some providers show it only once it runs.
                    if wanted != is && !wanted.is_empty() && !is.is_empty() {
                        put(changed, what, Some(wanted), Some(is));
                    }
                }
            }
            let metadata = &machine.metadata;
            let name = metadata.name.as_deref().unwrap_or_default();
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let wanted = format!("{namespace}/{} {name}", machine.spec.cluster_name);
            let is = format!("{} {}", seen.cluster, seen.machine);
            if wanted != is {
                put(changed, "tags", Some(&wanted), Some(&is));
            }
        }
    }
    if let Shown::There(node) = &facts.node {
        let wanted = machine.spec.content.version.as_deref();
        if let (Some(wanted), Some(is)) = (wanted, node.kubelet.as_deref())
            && is_other(wanted, is)
        {
            put(DriftKind::Kubelet, "kubelet", Some(wanted), Some(is));
        }
        for one in &node.unsynced {
            let (wanted, is) = (one.wanted.as_deref(), one.found.as_deref());
            put(one.kind, &one.key, wanted, is);
        }
    }
    found.truncate(MOST);
    Reading {
        found,
        whole: facts.instance != Shown::Unknown && facts.node != Shown::Unknown,
    }
}

/// Whether an instance still has the settings that we gave it last: then it should look as it did then.
#[must_use]
pub fn is_same(made: &InstanceView, seen: &InstanceView) -> bool {
    made.id == seen.id && made.config_digest == seen.config_digest
}

/// Whether two versions differ; what a distribution adds to them does not count, nor what is no version.
fn is_other(wanted: &str, found: &str) -> bool {
    let parts = |text: &str| {
        let version = text.parse::<Version>().ok()?;
        Some((version.major(), version.minor(), version.patch()))
    };
    match (parts(wanted), parts(found)) {
        (Some(wanted), Some(found)) => wanted != found,
        _ => false,
    }
}

/// The findings that a Machine's status tells.
#[must_use]
pub fn findings_of_machine(machine: &Machine) -> Vec<Finding> {
    let list = machine.status.iter().flat_map(|s| &s.drift);
    let finding = |drift: &MachineDrift| {
        Finding {
        object: key("Machine", &machine.metadata),
        kind: drift.kind,
        what: drift.what.clone(),
        wanted: drift.wanted.clone().map(Value::String),
        found: drift.found.clone().map(Value::String),
        managers: Vec::new(),
        since: Some(drift.since.0),
        message: drift.to_string(),
        hint: match drift.kind {
            DriftKind::InstanceMissing => {
                "a MachineHealthCheck replaces such machines; without one delete the Machine"
            }
            DriftKind::InstanceChanged if drift.what == "state" => {
                "start the instance at its provider, or delete the Machine: its owner makes another one"
            }
            DriftKind::Label | DriftKind::Taint => {
                "it is put right when the machine is not paused and its cluster lets us write"
            }
            _ => "change it back at its provider, or delete the Machine: its owner makes another one",
        }
        .into(),
    }
    };
    list.map(finding).collect()
}

/// The findings that a Cluster's status tells of instances.
#[must_use]
pub fn findings_of_cluster(cluster: &Cluster) -> Vec<Finding> {
    let Some(status) = &cluster.status else {
        return Vec::new();
    };
    let finding = |kind, id: &String, message: String, hint: &str| Finding {
        object: key("Cluster", &cluster.metadata),
        kind,
        what: id.clone(),
        wanted: None,
        found: Some(Value::String(id.clone())),
        managers: Vec::new(),
        since: None,
        message,
        hint: hint.to_owned(),
    };
    let orphaned = status.unmanaged_instances.iter().map(|id| {
        let message = format!("instance {id} carries the cluster's key, and no Machine has it");
        let hint =
            "delete it at its provider if nothing there is needed: it is never deleted for you";
        finding(DriftKind::Orphaned, id, message, hint)
    });
    let duplicated = status.duplicate_instances.iter().map(|id| {
        let message =
            format!("instance {id} carries the key of a Machine that another one has too");
        let hint = "delete the one that is not the Machine's (spec.providerID) at its provider";
        finding(DriftKind::Duplicated, id, message, hint)
    });
    orphaned.chain(duplicated).collect()
}

fn key(kind: &str, metadata: &ObjectMeta) -> Key {
    Key {
        api_version: API_VERSION.into(),
        kind: kind.to_owned(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// How many of a cluster's machines differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachinesInSync {
    /// All machines.
    pub machines: usize,
    /// Those that differ.
    pub drifted: usize,
    /// Those that differed when they could last be seen as a whole.
    pub unknown: usize,
    /// The first one that differs, by name, with what.
    pub first: Option<String>,
}

impl MachinesInSync {
    /// Counted by the machines' own conditions.
    #[must_use]
    pub fn of(machines: &[impl Borrow<Machine>]) -> Self {
        let mut out = Self {
            machines: machines.len(),
            ..Self::default()
        };
        let mut drifted = BTreeMap::new();
        for machine in machines {
            let machine: &Machine = machine.borrow();
            let conditions = machine.status.iter().flat_map(|s| &s.conditions);
            let Some(told) = conditions.into_iter().find(|c| c.type_ == kind::IN_SYNC) else {
                continue;
            };
            let name = machine.metadata.name.as_deref().unwrap_or_default();
            match told.status.as_str() {
                "False" => drop(drifted.insert(name, told.message.as_str())),
                "Unknown" => out.unknown += 1,
                _ => {}
            }
        }
        out.drifted = drifted.len();
        out.first = drifted
            .first_key_value()
            .map(|(name, message)| format!("{name}: {message}"));
        out
    }
}

#[cfg(test)]
mod tests;
