//! What a change of an object does to the machines that it stands for.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, MachineDeployment, version::Version};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Key, PlanEffect};
use crate::{
    catalogue::Catalogue,
    compare::{FieldChange, compare},
    content::Content,
};

/// What it does when `before` becomes `after`.
pub(super) fn effect(
    key: &Key,
    before: &Value,
    after: &Value,
    by_key: &BTreeMap<Key, &Value>,
    catalogue: &Catalogue,
) -> PlanEffect {
    let content = |object: &Value| match key.kind.as_str() {
        "Cluster" => {
            let cluster: Cluster = typed(object)?;
            let version: Version = cluster.spec.version.parse().ok()?;
            Content::of_control_plane(&cluster, &version, catalogue)
        }
        "MachineDeployment" => {
            let pool: MachineDeployment = typed(object)?;
            let cluster = Key {
                kind: "Cluster".into(),
                name: pool.spec.cluster_name.clone(),
                ..key.clone()
            };
            let own = pool.spec.template.spec.version.as_deref();
            let followed = || by_key.get(&cluster)?.pointer("/spec/version")?.as_str();
            let version: Version = own.or_else(followed)?.parse().ok()?;
            Some(Content::of_pool(&pool, &version, catalogue))
        }
        _ => None,
    };
    let (Some(have), Some(want)) = (content(before), content(after)) else {
        return PlanEffect::None;
    };
    let difference = compare(&want, &have, catalogue);
    let words = |changes: &[FieldChange]| {
        let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
        words.join("; ")
    };
    if !difference.replace.is_empty() {
        PlanEffect::RollingReplacement {
            reason: words(&difference.replace),
        }
    } else if !difference.in_place.is_empty() {
        PlanEffect::InPlace {
            reason: words(&difference.in_place),
        }
    } else {
        PlanEffect::None
    }
}

/// The object in its type. Who holds which field is left out: nothing here asks.
pub(super) fn typed<T: DeserializeOwned>(value: &Value) -> Option<T> {
    let mut value = value.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    serde_json::from_value(value).ok()
}
