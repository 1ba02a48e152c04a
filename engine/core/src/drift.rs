//! What differs from what was declared though nobody declared it: fields of objects, instances, nodes.
//!
//! A document is compared with what lives, never with defaults that a server put in; an instance with what its provider showed
//! when it was made, and with what its settings say for certain. What cannot be read is unknown, not drifted.

mod correction;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use fleetwright_api::{
    API_VERSION, Cluster, Machine,
    condition::kind,
    drift::{DriftKind, InstanceSettings, MachineDrift},
    machine::InstanceView,
    time::k8s_time,
    version::Version,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::correction::{Correction, correct};
use crate::{
    external::differs,
    plan::{Drift, Key},
};

/// Most things of one machine that are told.
const MOST: usize = 32;
/// Most characters of a value that are kept in a status.
const KEPT: usize = 256;
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
    /// What else it shows of its settings.
    pub settings: Arc<InstanceSettings>,
    /// What it should show of them; `None` while settings of ours are on their way to it.
    pub wanted: Option<InstanceSettings>,
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

/// What differs of a machine, as it is found.
struct Found<'a> {
    machine: &'a Machine,
    now: Timestamp,
    list: Vec<MachineDrift>,
}

impl Found<'_> {
    /// Takes in that something is not as wanted. What was so at the `first` sight of it has been so since the machine was made.
    fn put(
        &mut self,
        kind: DriftKind,
        what: &str,
        (wanted, found): (Option<&str>, Option<&str>),
        first: bool,
    ) {
        let (what, wanted, found) = (bounded(what), wanted.map(bounded), found.map(bounded));
        let before = self.machine.status.iter().flat_map(|s| &s.drift);
        let known = before
            .filter(|d| d.kind == kind && d.what == what && d.found == found)
            .map(|d| d.since.clone())
            .min();
        let made = self.machine.metadata.creation_timestamp.as_ref();
        let made = made.filter(|_| first).cloned();
        let since = known.or(made).unwrap_or_else(|| k8s_time(self.now));
        self.list.push(MachineDrift {
            kind,
            what,
            wanted,
            found,
            since,
        });
    }

    fn instance(&mut self, seen: &InstanceFacts) {
        let changed = DriftKind::InstanceChanged;
        let made = self.machine.status.as_ref();
        let made = made.and_then(|s| s.instance.as_ref());
        // Nobody has seen it run before.
        let first = made.is_none_or(|made| made.id != seen.view.id || made.state == "Pending");
        if seen.view.state == "Stopped" {
            let values = (Some("Running"), Some("Stopped"));
            self.put(changed, "state", values, false);
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
                    self.put(changed, what, (Some(wanted), Some(is)), false);
                }
            }
        }
        if let Some(wanted) = &seen.wanted {
            self.settings(wanted, &seen.settings, first);
        }
        let metadata = &self.machine.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let wanted = format!("{namespace}/{} {name}", self.machine.spec.cluster_name);
        let is = format!("{} {}", seen.cluster, seen.machine);
        if wanted != is {
            self.put(changed, "tags", (Some(&wanted), Some(&is)), first);
        }
    }

    /// What the document says and a provider shows in the same words. What either leaves out, and what others put on beside, is no
    /// drift; nor is any order.
    fn settings(&mut self, wanted: &InstanceSettings, seen: &InstanceSettings, first: bool) {
        let changed = DriftKind::InstanceChanged;
        if let (Some(wanted), Some(is)) = (&wanted.network, &seen.network)
            && wanted != is
        {
            self.put(changed, "network", (Some(wanted), Some(is)), first);
        }
        if let (Some(wanted), Some(is)) = (&wanted.security_groups, &seen.security_groups)
            && wanted != is
        {
            let text = |all: &BTreeSet<String>| {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                (!all.is_empty()).then(|| all.join(", "))
            };
            let (wanted, is) = (text(wanted), text(is));
            let values = (wanted.as_deref(), is.as_deref());
            self.put(changed, "securityGroups", values, first);
        }
        for (key, wanted) in &wanted.tags {
            let is = seen.tags.get(key);
            if is != Some(wanted) {
                let values = (Some(wanted.as_str()), is.map(String::as_str));
                self.put(changed, &format!("tags.{key}"), values, first);
            }
        }
    }

    fn node(&mut self, node: &NodeFacts) {
        let status = self.machine.status.as_ref();
        let first = status.is_none_or(|s| s.node_ref.is_none());
        let wanted = self.machine.spec.content.version.as_deref();
        if let (Some(wanted), Some(is)) = (wanted, node.kubelet.as_deref())
            && is_other(wanted, is)
        {
            let values = (Some(wanted), Some(is));
            self.put(DriftKind::Kubelet, "kubelet", values, first);
        }
        for one in &node.unsynced {
            let values = (one.wanted.as_deref(), one.found.as_deref());
            self.put(one.kind, &one.key, values, false);
        }
    }
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
    let mut found = Found {
        machine,
        now,
        list: Vec::new(),
    };
    match &facts.instance {
        Shown::Unknown => {}
        Shown::Missing => {
            if let Some(id) = machine.spec.provider_id.as_deref() {
                let made = machine.status.as_ref().and_then(|s| s.instance.as_ref());
                let id = made.map_or(id, |made| made.id.as_str());
                let gone = DriftKind::InstanceMissing;
                found.put(gone, "instance", (Some(id), None), false);
            }
        }
        Shown::There(seen) => found.instance(seen),
    }
    if let Shown::There(node) = &facts.node {
        found.node(node);
    }
    found.list.truncate(MOST);
    Reading {
        found: found.list,
        whole: facts.instance != Shown::Unknown && facts.node != Shown::Unknown,
    }
}

/// A text of others, short enough to be kept.
fn bounded(text: &str) -> String {
    text.chars().take(KEPT).collect()
}

/// Whether an instance still has the settings that we gave it last: then it should look as it did then.
#[must_use]
pub fn is_same(made: &InstanceView, seen: &InstanceView) -> bool {
    made.id == seen.id && made.config_digest == seen.config_digest
}

/// Whether two versions differ; what a distribution adds to them does not count, nor what is no version.
pub(crate) fn is_other(wanted: &str, found: &str) -> bool {
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
                "it is replaced as a broken machine is; annotation fleetwright.dev/skip-remediation keeps it"
            }
            DriftKind::Label | DriftKind::Taint => {
                "it is put right when the machine is not paused and its cluster lets us write"
            }
            _ if correction::is_inborn(machine, drift) => {
                "it was never otherwise, and another machine would be the same: correct its settings"
            }
            DriftKind::InstanceChanged if drift.what == "state" => {
                "start the instance at its provider, or delete the Machine: its owner makes another one"
            }
            DriftKind::InstanceChanged if correction::is_in_place(drift) => {
                "change it back at its provider, or let policy correct do it (spec.drift of the Fleet)"
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
    let version = differs(cluster, status.version.as_deref()).map(|(declared, runs)| Finding {
        wanted: Some(Value::String(declared.to_owned())),
        ..finding(
            DriftKind::Version,
            &runs.to_owned(),
            format!("the control plane runs {runs}, declared is {declared}"),
            "set spec.version to what it runs, or have whoever runs it upgrade it: it is never changed for you",
        )
    });
    let version = version.map(|found| Finding {
        what: "version".into(),
        ..found
    });
    orphaned.chain(duplicated).chain(version).collect()
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
