//! What is made again after the state was lost: the tags of an instance say whose it is, and it gets its Machine back.
//!
//! Only an owner that has never made a machine under this state asks for it ([`has_begun`]): its counter of ordinals is not there
//! yet, and is written when all of it is done. What was made from the settings that Git has now is as it was; of anything else nobody
//! knows what it was made from, and it is replaced in the ordinary way.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Cluster, MachineDeployment, MachineSet, ProviderConfig, machine::MachineSpec, meta,
    version::Version,
};
use serde_json::{Map, Value};

use crate::{
    catalogue::Catalogue,
    content::Content,
    control_plane,
    machine_set::{self, NewMachine, ordinal_in},
    rollout::{NewSet, set_named},
    why::Record,
};

/// Setting on machines and sets that were made again though it is not known from which settings their instances were made. No provider
/// is ever told of it.
pub const LOST: &str = "lostWithState";

/// An instance as its tags and its provider show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Name of its Machine.
    pub machine: String,
    /// Name of the Machine's set; empty for the control plane.
    pub set: String,
    /// Its key.
    pub instance_key: String,
    /// The provider's id of it, as its node has it.
    pub provider_id: String,
    /// Kubernetes version that it was made for, where its tags say it.
    pub version: Option<Version>,
    /// Failure domain that it is in.
    pub failure_domain: Option<String>,
    /// The effective settings that it was made from, if `known`: what aliases in them stood for then.
    pub config: Option<ProviderConfig>,
    /// Whether the settings that it was told last are those that are wanted now.
    pub known: bool,
    /// Whether it is on its way out: its name is not given again, and it gets no Machine.
    pub leaves: bool,
}

impl Found {
    /// Whether the tags can be those of a Machine, of a set where it is a pool's: whoever may tag instances may write anything there.
    pub fn is_usable(&self, of_pool: bool) -> bool {
        let is_key = self.instance_key.len() == 32
            && self
                .instance_key
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_key
            && is_name(&self.machine)
            && ordinal_in(&self.machine).is_some()
            && (!of_pool || is_name(&self.set))
    }
}

/// What is to be made of what was found; nothing once all of it is there.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Rebuilt {
    /// Sets, before their machines.
    pub sets: Vec<NewSet>,
    /// Machines with the key and the id of their instances, by the name of their set; empty for the control plane.
    pub machines: Vec<(String, NewMachine)>,
    /// The counter of the owner once that is done.
    pub next_ordinal: u64,
}

/// Whether the owner of this counter has made machines under this state.
pub fn has_begun(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.is_some_and(|a| a.contains_key(meta::ANNOTATION_NEXT_ORDINAL))
}

/// The settings without what only we know of.
pub fn for_provider(settings: &Map<String, Value>) -> Value {
    let mut settings = settings.clone();
    settings.remove(LOST);
    Value::Object(settings)
}

/// The sets and machines of a pool. `sets` are its own, `machines` those of its cluster, as they are there: an instance that has its Machine
/// is one of this state, of a pool of this name before or of a try before, and no set is made for it. `version` is what the pool wants, for
/// instances whose tags do not say theirs.
pub fn pool(
    pool: &MachineDeployment,
    sets: &[MachineSet],
    machines: &BTreeSet<String>,
    found: &[Found],
    version: &Version,
    catalogue: &Catalogue,
) -> Rebuilt {
    let mut of_set: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    let lost = |f: &&Found| f.is_usable(true) && !f.leaves && !machines.contains(&f.machine);
    for one in found.iter().filter(lost) {
        of_set.entry(&one.set).or_default().push(one);
    }
    // What Git wants now was the newest.
    let mut order: Vec<(bool, Version, &str)> = of_set
        .iter()
        .map(|(set, found)| {
            let versions = found.iter().filter_map(|f| f.version.clone());
            let newest = versions.max().unwrap_or_else(|| version.clone());
            (found.iter().any(|f| f.known), newest, *set)
        })
        .collect();
    order.sort();
    let mut out = Rebuilt {
        next_ordinal: next_ordinal(found),
        ..Rebuilt::default()
    };
    for (revision, (known, version, name)) in (1_u64..).zip(order) {
        let Some(found) = of_set.get(name) else {
            continue;
        };
        let there = sets
            .iter()
            .find(|s| s.metadata.name.as_deref() == Some(name));
        let content = match there {
            Some(set) => Content::of_set(set),
            None => {
                let made = found
                    .iter()
                    .find(|f| f.known)
                    .and_then(|f| f.config.clone());
                mark(
                    frozen(Content::of_pool(pool, &version, catalogue), made),
                    known,
                )
            }
        };
        let set = set_named(pool, name, &content, revision, found.len());
        let set = match there {
            Some(there) => there.clone(),
            None => {
                let made = set.to_set(pool);
                out.sets.push(set);
                made
            }
        };
        for one in found {
            let mut machine = machine_set::new_machine(&set, name, 0, &content);
            remember(&mut machine, one);
            out.machines.push((name.to_owned(), machine));
        }
    }
    out
}

/// The machines of a control plane.
pub fn control_plane(
    cluster: &Cluster,
    machines: &BTreeSet<String>,
    found: &[Found],
    catalogue: &Catalogue,
) -> Rebuilt {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let wanted = cluster.spec.version.parse::<Version>().ok();
    let mut out = Rebuilt {
        next_ordinal: next_ordinal(found),
        ..Rebuilt::default()
    };
    let lost = |f: &&Found| f.is_usable(false) && !f.leaves && !machines.contains(&f.machine);
    for one in found.iter().filter(lost) {
        let version = one.version.as_ref().or(wanted.as_ref());
        let content =
            version.and_then(|version| Content::of_control_plane(cluster, version, catalogue));
        let Some(content) = content else { continue };
        let content = mark(frozen(content, one.config.clone()), one.known);
        let mut machine = control_plane::new_machine(name, 0, &content);
        let domain = &mut machine.spec.content.failure_domain;
        if domain.is_none() {
            domain.clone_from(&one.failure_domain);
        }
        remember(&mut machine, one);
        out.machines.push((String::new(), machine));
    }
    out
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=fleetwright_api::names::MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| inner(b) || b == b'-' || b == b'.')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().next_back().is_some_and(inner)
}

fn next_ordinal(found: &[Found]) -> u64 {
    let ordinals = found.iter().filter_map(|f| ordinal_in(&f.machine));
    ordinals
        .max()
        .map_or(0, |highest| highest.saturating_add(1))
}

/// The content with the settings that were made of it.
fn frozen(mut content: Content, made: Option<ProviderConfig>) -> Content {
    if let Some(made) = made {
        content.spec.provider_config = made;
    }
    content
}

fn mark(mut content: Content, known: bool) -> Content {
    if !known {
        for config in [&mut content.spec.provider_config, &mut content.written] {
            let mut settings = config.settings().clone();
            settings.insert(LOST.to_owned(), Value::Bool(true));
            *config = settings.into();
        }
    }
    content
}

fn remember(machine: &mut NewMachine, found: &Found) {
    let record = Record {
        note: Some("the state was lost, and the tags of its instance say whose it is".to_owned()),
        ..Record::default()
    };
    machine
        .annotations
        .insert(meta::ANNOTATION_MADE_BECAUSE.to_owned(), record.write());
    machine.name.clone_from(&found.machine);
    machine.ordinal = ordinal_in(&found.machine).unwrap_or_default();
    machine.spec = MachineSpec {
        provider_id: Some(found.provider_id.clone()),
        instance_key: Some(found.instance_key.clone()),
        ..machine.spec.clone()
    };
}

#[cfg(test)]
mod tests;
