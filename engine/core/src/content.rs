//! The content of machines: what a pool, a set, a machine or a control plane says of one, in one shape.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, ProviderConfig,
    machine::{MachineTemplate, MachineTemplateSpec, TemplateMeta},
    version::Version,
};
use serde_json::{Map, Value};

use crate::catalogue::{Catalogue, Effect};

/// Annotation on sets and machines: the `providerConfig` as it was written (JSON, no defaults filled in).
/// Their own `providerConfig` is the effective one, frozen when they were made.
pub const ANNOTATION_WRITTEN_CONFIG: &str = "fleetwright.dev/written-provider-config";
/// Annotation on machines: keys of the labels that came from the template, comma separated.
pub const ANNOTATION_TEMPLATE_LABELS: &str = "fleetwright.dev/labels-from-template";
/// Annotation on machines: keys of the annotations that came from the template, comma separated.
pub const ANNOTATION_TEMPLATE_ANNOTATIONS: &str = "fleetwright.dev/annotations-from-template";

const OURS: &str = "fleetwright.dev/";

/// What a machine is or is to be made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Labels and annotations that come from the template.
    pub metadata: TemplateMeta,
    /// Everything else; version and `providerConfig` are the effective ones.
    pub spec: MachineTemplateSpec,
    /// The `providerConfig` as written.
    pub written: ProviderConfig,
}

impl Content {
    /// Of a template, at an effective version.
    pub fn of_template(
        template: &MachineTemplate,
        version: Option<&Version>,
        catalogue: &Catalogue,
    ) -> Self {
        let mut spec = template.spec.clone();
        spec.version = version.map(ToString::to_string);
        let written = std::mem::take(&mut spec.provider_config);
        spec.provider_config = catalogue.effective(&written);
        Self {
            metadata: template.metadata.clone(),
            spec,
            written,
        }
    }

    /// What a pool wants, at its effective version.
    pub fn of_pool(pool: &MachineDeployment, version: &Version, catalogue: &Catalogue) -> Self {
        Self::of_template(&pool.spec.template, Some(version), catalogue)
    }

    /// What a cluster wants of its control-plane machines at `version`; `None` when it has none of ours.
    pub fn of_control_plane(
        cluster: &Cluster,
        version: &Version,
        catalogue: &Catalogue,
    ) -> Option<Self> {
        let machines = cluster.spec.control_plane.machines.as_ref()?;
        Some(Self::of_template(
            &machines.template,
            Some(version),
            catalogue,
        ))
    }

    /// What a cluster wants of a control plane that its provider runs, at `version`; `None` when it has none.
    pub fn of_managed(cluster: &Cluster, version: &Version, catalogue: &Catalogue) -> Option<Self> {
        let managed = cluster.spec.control_plane.managed.as_ref()?;
        let spec = MachineTemplateSpec {
            version: Some(version.to_string()),
            provider_config: catalogue.effective(&managed.provider_config),
            ..MachineTemplateSpec::default()
        };
        Some(Self {
            metadata: TemplateMeta::default(),
            spec,
            written: managed.provider_config.clone(),
        })
    }

    /// What a set makes machines of.
    pub fn of_set(set: &MachineSet) -> Self {
        let spec = set.spec.template.spec.clone();
        Self {
            metadata: set.spec.template.metadata.clone(),
            written: written_config(set.metadata.annotations.as_ref(), &spec),
            spec,
        }
    }

    /// What a machine was made of. Labels and annotations that did not come from its template are left out.
    pub fn of_machine(machine: &Machine) -> Self {
        let annotations = machine.metadata.annotations.as_ref();
        let tracked = |key: &str, all: Option<&BTreeMap<String, String>>| {
            let list = annotations.and_then(|a| a.get(key)).map(String::as_str);
            all.into_iter()
                .flatten()
                .filter(|(k, _)| list.is_some_and(|l| l.split(',').any(|have| have == k.as_str())))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let spec = machine.spec.content.clone();
        Self {
            metadata: TemplateMeta {
                labels: tracked(ANNOTATION_TEMPLATE_LABELS, machine.metadata.labels.as_ref()),
                annotations: tracked(ANNOTATION_TEMPLATE_ANNOTATIONS, annotations),
            },
            written: written_config(annotations, &spec),
            spec,
        }
    }

    /// The template that a set of this content carries.
    pub fn to_template(&self) -> MachineTemplate {
        MachineTemplate {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
        }
    }

    /// The effective version, if there is one that can be read.
    pub fn version(&self) -> Option<Version> {
        self.spec.version.as_deref()?.parse().ok()
    }

    /// The annotation that a set of this content carries.
    pub fn set_annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(
            ANNOTATION_WRITTEN_CONFIG.to_owned(),
            self.written.to_value().to_string(),
        )])
    }

    /// Labels that a machine of this content carries from its template (keys under our prefix are never
    /// taken from a template).
    pub fn machine_labels(&self) -> BTreeMap<String, String> {
        foreign(&self.metadata.labels)
    }

    /// Annotations that a machine of this content carries: the template's and ours that remember them.
    pub fn machine_annotations(&self) -> BTreeMap<String, String> {
        let mut all = foreign(&self.metadata.annotations);
        let keys =
            |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>().join(",");
        let lists = [
            (ANNOTATION_TEMPLATE_LABELS, keys(&self.machine_labels())),
            (ANNOTATION_TEMPLATE_ANNOTATIONS, keys(&all)),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                all.insert(key.to_owned(), list);
            }
        }
        all.extend(self.set_annotations());
        all
    }

    /// This content with everything of `want` that reaches a running machine: fields whose change replaces
    /// stay as they are.
    pub fn with_in_place(&self, want: &Self, catalogue: &Catalogue) -> Self {
        let mut new = want.clone();
        new.spec.version = self.spec.version.clone();
        new.spec.failure_domain = self.spec.failure_domain.clone();
        let merge = |have: &ProviderConfig, want: &ProviderConfig| {
            let mut path = Vec::new();
            ProviderConfig::from(merge_in_place(
                have.settings(),
                want.settings(),
                &mut path,
                &|path: &[&str]| catalogue.change_of(have.api_version(), have.kind(), path),
            ))
        };
        new.spec.provider_config = merge(&self.spec.provider_config, &want.spec.provider_config);
        new.written = merge(&self.written, &want.written);
        new
    }
}

fn foreign(map: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    map.iter()
        .filter(|(k, _)| !k.starts_with(OURS))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn written_config(
    annotations: Option<&BTreeMap<String, String>>,
    spec: &MachineTemplateSpec,
) -> ProviderConfig {
    annotations
        .and_then(|a| a.get(ANNOTATION_WRITTEN_CONFIG))
        .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok())
        .map_or_else(|| spec.provider_config.clone(), ProviderConfig::from)
}

fn merge_in_place<'a>(
    have: &'a Map<String, Value>,
    want: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    effect: &dyn Fn(&[&str]) -> Effect,
) -> Map<String, Value> {
    let mut keys: Vec<&'a String> = have.keys().chain(want.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut out = Map::new();
    for key in keys {
        path.push(key);
        let value = match (have.get(key), want.get(key)) {
            (Some(Value::Object(h)), Some(Value::Object(w))) => {
                Some(Value::Object(merge_in_place(h, w, path, effect)))
            }
            (h, w) => {
                if effect(path) == Effect::Replace {
                    h.cloned()
                } else {
                    w.cloned()
                }
            }
        };
        path.pop();
        if let Some(value) = value {
            out.insert(key.clone(), value);
        }
    }
    out
}
