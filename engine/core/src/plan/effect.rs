//! What a change of an object does to the machines that it stands for.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, MachineDeployment, ProviderConfig,
    machine::{MachineTemplateSpec, TemplateMeta},
    version::Version,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Key, PlanEffect};
use crate::{
    catalogue::{Catalogue, Purpose},
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
                .or_else(|| Content::of_managed(&cluster, &version, catalogue))
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
    let config = &want.spec.provider_config;
    let purpose = catalogue
        .schema(config.api_version(), config.kind())
        .map(Purpose::of);
    let (replace, in_place) = (words(&difference.replace), words(&difference.in_place));
    match purpose.unwrap_or_default() {
        _ if difference.is_empty() => PlanEffect::None,
        Purpose::ControlPlane => PlanEffect::ByProvider {
            reason: words(&[difference.replace, difference.in_place].concat()),
            nodes: None,
        },
        _ if difference.replace.is_empty() => PlanEffect::InPlace { reason: in_place },
        Purpose::Pool => PlanEffect::ByProvider {
            reason: replace,
            nodes: nodes(before),
        },
        Purpose::Own => PlanEffect::RollingReplacement { reason: replace },
    }
}

fn words(changes: &[FieldChange]) -> String {
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// How many nodes a pool has.
pub(super) fn nodes(pool: &Value) -> Option<i32> {
    let nodes = pool.pointer("/status/replicas")?.as_i64()?;
    i32::try_from(nodes).ok()
}

/// What of a control plane or a group of nodes that a provider runs cannot become what it is to become, and what to do instead.
pub(super) fn fixed(
    key: &Key,
    before: &Value,
    after: &Value,
    catalogue: &Catalogue,
) -> Option<String> {
    let path = match key.kind.as_str() {
        "Cluster" => "/spec/controlPlane/managed/providerConfig",
        "MachineDeployment" => "/spec/template/spec/providerConfig",
        _ => return None,
    };
    let content = |object: &Value| {
        let config = object.pointer(path)?.as_object()?.clone();
        let written = ProviderConfig::from(config);
        let spec = MachineTemplateSpec {
            provider_config: catalogue.effective(&written),
            ..MachineTemplateSpec::default()
        };
        Some(Content {
            metadata: TemplateMeta::default(),
            spec,
            written,
        })
    };
    let (have, want) = (content(before)?, content(after)?);
    let is_group = |content: &Content| catalogue.is_group(&content.spec.provider_config);
    let (another, of_provider) = match key.kind.as_str() {
        "Cluster" => ("cluster", true),
        _ => ("pool", is_group(&have) || is_group(&want)),
    };
    let replace = compare(&want, &have, catalogue).replace;
    (of_provider && !replace.is_empty()).then(|| {
        let what = words(&replace);
        format!("the provider cannot change {what}: make another {another}, and delete this one")
    })
}

/// The object in its type. Who holds which field is left out: nothing here asks.
pub(super) fn typed<T: DeserializeOwned>(value: &Value) -> Option<T> {
    let mut value = value.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    serde_json::from_value(value).ok()
}
