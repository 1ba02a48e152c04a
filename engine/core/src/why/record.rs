//! What a set or a control-plane machine was made for, and why a machine goes: written when it is decided, so that it can be told later.

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, condition::reason, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{annotation, name};
use crate::{
    compare::FieldChange,
    control_plane::{CreateReason, DeleteReason, Trigger},
    health::broken,
    machine_set::Because,
    rollout::Turn,
};

/// What something was made for: the value of [`meta::ANNOTATION_MADE_BECAUSE`], as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The revision of the repository that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What differs from what was there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// The reason where nothing differs, or more words on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Record {
    /// From an annotation's value; `None` when it is no record.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The record on an object.
    pub fn on(object: &ObjectMeta) -> Option<Self> {
        Self::read(annotation(object, meta::ANNOTATION_MADE_BECAUSE)?)
    }

    /// As an annotation's value.
    pub fn write(&self) -> String {
        // Of strings and JSON values: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of a set that becomes the current one. A version that the pool does not write itself is the Cluster's, and so is its commit.
    pub fn of_set(turn: &Turn, pool: &MachineDeployment, cluster: Option<&Cluster>) -> Self {
        let follows = pool.spec.template.spec.version.is_none();
        let version_alone =
            !turn.changes.is_empty() && turn.changes.iter().all(|c| c.path == "spec.version");
        let commit = match cluster {
            Some(cluster) if follows && version_alone => revision(&cluster.metadata),
            _ => revision(&pool.metadata),
        };
        let note = match (&turn.restart, turn.changes.is_empty()) {
            (Some(at), _) => Some(format!("machines made before {at} are replaced")),
            (None, true) => Some("it is the first of its pool".to_owned()),
            (None, false) => None,
        };
        Self {
            commit: commit.filter(|_| turn.restart.is_none()),
            changes: turn.changes.clone(),
            note,
        }
    }

    /// Of a control-plane machine.
    pub fn of_control_plane(reason: &CreateReason, cluster: &Cluster) -> Self {
        let (changes, note) = match reason {
            CreateReason::Replace { machine, because } => match split(because) {
                (changes, times) if times.is_empty() => (changes, format!("it replaces {machine}")),
                (changes, times) => (changes, format!("it replaces {machine}: {times}")),
            },
            reason => (Vec::new(), reason.to_string()),
        };
        Self {
            commit: revision(&cluster.metadata),
            changes,
            note: Some(note),
        }
    }

    /// What can follow the word "because".
    pub fn clause(&self) -> String {
        let mut text = clauses(&self.changes);
        if let Some(commit) = self.commit.as_ref().filter(|_| !text.is_empty()) {
            text.push_str(&format!(" in {}", short(commit)));
        }
        match &self.note {
            Some(note) if text.is_empty() => note.clone(),
            _ if text.is_empty() => "its content is what is wanted".to_owned(),
            _ => text,
        }
    }
}

fn clauses(changes: &[FieldChange]) -> String {
    let words: Vec<String> = changes.iter().map(FieldChange::clause).collect();
    words.join(" and ")
}

/// The revision of the repository that last changed an object.
fn revision(object: &ObjectMeta) -> Option<String> {
    annotation(object, meta::ANNOTATION_REVISION).map(ToOwned::to_owned)
}

/// A revision as people write it: seven digits of its hash.
pub fn short(revision: &str) -> String {
    let (before, hash) = match revision.rsplit_once(':') {
        Some((before, hash)) => (format!("{before}:"), hash),
        None => (String::new(), revision),
    };
    let digits = hash.len() >= 40 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = if digits { &hash[..7] } else { hash };
    format!("{before}{hash}")
}

/// Why a worker goes: its set is not the current one any more, or has too many. `current` is the current set of its pool.
pub fn worker_goes(
    because: Because,
    set: &MachineSet,
    pool: Option<&MachineDeployment>,
    current: Option<&MachineSet>,
) -> String {
    let old = current.filter(|c| c.metadata.name != set.metadata.name);
    let owner = match pool {
        Some(pool) => format!("pool {}", name(&pool.metadata)),
        None => format!("set {}", name(&set.metadata)),
    };
    let mut text = match (old, old.and_then(|o| Record::on(&o.metadata))) {
        (Some(_), Some(record)) => format!("replaced because {}", record.clause()),
        (Some(_), None) => format!("replaced because it is not what {owner} wants any more"),
        (None, _) => {
            let wanted = pool.map_or(set.spec.replicas, |p| p.spec.replicas);
            format!(
                "removed because {owner} wants {} machines",
                wanted.unwrap_or(1)
            )
        }
    };
    match because {
        Because::Marked => text.push_str("; this one because it is marked to go first"),
        Because::Unhealthy => text.push_str("; this one because it is not healthy"),
        Because::Deleting | Because::Order => {}
    }
    text
}

/// The fields that differ, and the times that have come in words.
fn split(because: &[Trigger]) -> (Vec<FieldChange>, String) {
    let (mut changes, mut times) = (Vec::new(), Vec::new());
    for trigger in because {
        match trigger {
            Trigger::Field(change) => changes.push(change.clone()),
            time => times.push(time.to_string()),
        }
    }
    (changes, times.join(" and "))
}

/// Why a machine goes that is marked as broken.
pub fn broken_goes(machine: &Machine) -> String {
    match broken(machine).map(|c| (c.reason.as_str(), c.message.as_str())) {
        None | Some((_, "")) => "replaced because it is broken".into(),
        Some((reason::DRIFTED, why)) => format!("replaced because {why}"),
        Some((_, why)) => format!("replaced because it is broken: {why}"),
    }
}

/// Why a control-plane machine goes.
pub fn control_plane_goes(
    machine: &Machine,
    reason: DeleteReason,
    because: &[Trigger],
    cluster: &Cluster,
) -> String {
    let (changes, times) = split(because);
    if reason == DeleteReason::Broken {
        return broken_goes(machine);
    }
    if changes.is_empty() && !times.is_empty() {
        return format!("replaced because {times}");
    }
    if changes.is_empty() {
        return format!("removed because of this: {reason}");
    }
    let record = Record {
        commit: revision(&cluster.metadata),
        changes,
        note: None,
    };
    format!("replaced because {}", record.clause())
}
