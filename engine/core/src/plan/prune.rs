//! Which objects may be deleted because Git no longer declares them, or because their Fleet goes.

use std::collections::BTreeSet;

use fleetwright_api::{
    meta::{ANNOTATION_ALLOW_DELETE, LABEL_FLEET, fleet_manager},
    names::fleet_hash,
};
use fleetwright_schema::{FieldSet, fields::PathElement, managed};
use serde_json::Value;

use super::{Change, Key, Live, Plan, Policy, Refusal, fields, label, removal::Belongings};

/// Why objects are deleted.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// Git no longer declares them.
    Undeclared,
    /// Their Fleet is deleted, with its objects.
    FleetGoes,
}

/// The Fleet's own objects that it does not declare, but for those that stay whatever becomes of it.
pub(super) fn given_up<'a>(
    wanted: &'a BTreeSet<Key>,
    live: &'a Live,
    policy: &Policy,
) -> impl Iterator<Item = (Key, &'a Value)> {
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let manager = fleet_manager(&policy.namespace, &policy.fleet);
    let labelled = move |object: &&Value| label(object, LABEL_FLEET) == Some(&hash);
    let objects = live.objects.iter().filter(labelled);
    let keyed = objects.map(|object| (Key::of(object), object));
    let given_up = keyed.filter(|(key, _)| key.kind != "Namespace" && !wanted.contains(key));
    // Last: who holds what has to be read for it, and nearly all objects are declared.
    given_up.filter(move |(_, object)| is_managed(object, &manager))
}

/// Whether an object is on its way out.
pub(super) fn leaves(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Adds the deletes, or, when one of them lacks consent, the refusals and no delete at all.
pub(super) fn prune(
    wanted: &BTreeSet<Key>,
    why: Why,
    live: &Live,
    policy: &Policy,
    out: &mut Plan,
) {
    let manager = fleet_manager(&policy.namespace, &policy.fleet);
    let mut refused = Vec::new();
    let mut deletes = Vec::new();
    let (mut covered, mut uncovered) = (BTreeSet::new(), BTreeSet::new());
    let mut belongings = None;
    for (key, object) in given_up(wanted, live, policy) {
        if leaves(object) {
            continue;
        }
        let mut refuse = |reason| {
            refused.push(Refusal {
                key: key.clone(),
                reason,
                wave: None,
            });
        };
        if let Some(what) = outside(policy, &key) {
            refuse(format!(
                "it may not be deleted, because the Fleet does not allow {what} any more: allow it again, or leave the object to others by taking label {LABEL_FLEET} off it"
            ));
        }
        let belongings = belongings.get_or_insert_with(|| Belongings::of(live));
        let effect = belongings.removal(&key, object);
        let consent = has_consent(object, &manager);
        if key.kind == "Cluster" && !consent {
            let uid = object.pointer("/metadata/uid");
            let uid = uid.and_then(Value::as_str).unwrap_or_default();
            let annotation = format!("{ANNOTATION_ALLOW_DELETE}: {uid}");
            refuse(match why {
                Why::Undeclared => format!(
                    "Git no longer declares it, but a cluster is deleted only with consent: declare it again with annotation {annotation}, merge that, then remove it"
                ),
                Why::FleetGoes => format!(
                    "its Fleet is deleted, but a cluster is deleted only with consent: give it annotation {annotation} through Git, or let it stay (deletionPolicy: Retain)"
                ),
            });
        }
        let counted = match consent {
            true => &mut covered,
            false => &mut uncovered,
        };
        let machines = effect.removed();
        counted.extend(machines.map(|name| (key.namespace.clone(), name.clone())));
        for (pool, nodes) in effect.removed_nodes() {
            // Named like no Machine.
            let names = (0..nodes).map(|n| (key.namespace.clone(), format!("{pool}/{n}")));
            counted.extend(names);
        }
        deletes.push(Change {
            key,
            source: String::new(),
            before: Some(fields::shown(object)),
            after: None,
            fields: Vec::new(),
            origins: Vec::new(),
            handover: Vec::new(),
            adopted_from: Vec::new(),
            wave: None,
            effect,
        });
    }
    // Consent to the end of a cluster is one to that of its pools.
    let uncovered = uncovered.difference(&covered).count();
    if refused.is_empty() && uncovered > policy.max_machines {
        for delete in &deletes {
            let reason = format!(
                "the deletions would remove {} machines, more than prune.maxMachines = {}: put annotation {ANNOTATION_ALLOW_DELETE} with the object's uid on it through Git first, or raise the ceiling",
                uncovered, policy.max_machines
            );
            refused.push(Refusal {
                key: delete.key.clone(),
                reason,
                wave: None,
            });
        }
    }
    // What is refused elsewhere leaves the repository half applied: then nothing is deleted either.
    if refused.is_empty() && out.refused.is_empty() {
        deletes.sort_by_key(|c| (u8::from(c.key.kind == "Cluster"), c.key.clone()));
        out.deletes = deletes;
    } else {
        refused.sort_by(|a, b| a.key.cmp(&b.key));
        out.refused.extend(refused);
    }
}

fn is_managed(object: &Value, manager: &str) -> bool {
    !managed::held(object, |m| m == manager).is_empty()
}

/// Which part of an object's identity the Fleet does not allow.
fn outside(policy: &Policy, key: &Key) -> Option<String> {
    let allow = &policy.allow;
    let denies = |list: &[String], one: &String| !list.is_empty() && !list.contains(one);
    if denies(&allow.namespaces, &key.namespace) {
        return Some(format!("namespace {}", key.namespace));
    }
    denies(&allow.kinds, &key.kind).then(|| format!("kind {}", key.kind))
}

/// Whether the Fleet's manager put the object's own uid into the consent annotation.
fn has_consent(object: &Value, manager: &str) -> bool {
    let metadata = object.get("metadata");
    let uid = metadata.and_then(|m| m.get("uid")).and_then(Value::as_str);
    let said = metadata.and_then(|m| m.get("annotations")?.get(ANNOTATION_ALLOW_DELETE)?.as_str());
    let holds = |fields: &FieldSet| {
        let metadata = fields.below(&PathElement::field("metadata"));
        let annotations = metadata.and_then(|m| m.below(&PathElement::field("annotations")));
        let field = PathElement::field(ANNOTATION_ALLOW_DELETE);
        annotations.is_some_and(|a| a.has(&field))
    };
    let mut own = managed::held(object, |m| m == manager).into_iter();
    uid.is_some_and(|uid| !uid.is_empty()) && uid == said && own.any(|own| holds(&own.fields))
}
