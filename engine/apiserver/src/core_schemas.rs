//! Schemas of the core kinds: their fields from the published types, and how their lists and maps merge.
//!
//! The types say nothing of merging; the tables below are from the `listType`, `mapType`, `listMapKey` and
//! `patchMergeKey` markers of Kubernetes' own API definitions.

use std::sync::OnceLock;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
    Service, ServiceAccount,
};
use k8s_openapi::api::events;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Where a reference to another type begins.
pub(crate) const REF: &str = "#/components/schemas/";

/// How one list merges: the type and its field, the keys of its items by which applies merge (empty for a set of
/// values), and the key by which strategic patches merge (empty for none).
type Merging = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

const LISTS: &[Merging] = &[
    ("core.v1.PodSpec", "containers", &["name"], "name"),
    ("core.v1.PodSpec", "initContainers", &["name"], "name"),
    ("core.v1.PodSpec", "ephemeralContainers", &["name"], "name"),
    ("core.v1.PodSpec", "volumes", &["name"], "name"),
    ("core.v1.PodSpec", "imagePullSecrets", &["name"], "name"),
    ("core.v1.PodSpec", "hostAliases", &["ip"], "ip"),
    ("core.v1.PodSpec", "schedulingGates", &["name"], "name"),
    ("core.v1.PodSpec", "resourceClaims", &["name"], "name"),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        "topologyKey",
    ),
    ("core.v1.Container", "env", &["name"], "name"),
    (
        "core.v1.Container",
        "ports",
        &["containerPort", "protocol"],
        "containerPort",
    ),
    (
        "core.v1.Container",
        "volumeMounts",
        &["mountPath"],
        "mountPath",
    ),
    (
        "core.v1.Container",
        "volumeDevices",
        &["devicePath"],
        "devicePath",
    ),
    ("core.v1.PodStatus", "podIPs", &["ip"], "ip"),
    ("core.v1.PodStatus", "hostIPs", &["ip"], "ip"),
    ("core.v1.NodeSpec", "podCIDRs", &[], ""),
    ("core.v1.NodeStatus", "addresses", &["type"], "type"),
    ("core.v1.ServiceAccount", "secrets", &["name"], "name"),
    (
        "core.v1.ServiceSpec",
        "ports",
        &["port", "protocol"],
        "port",
    ),
];

/// What is filled in where a field is not given: type, field, value as JSON.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("core.v1.PodSpec", "dnsPolicy", "\"ClusterFirst\""),
    ("core.v1.PodSpec", "enableServiceLinks", "true"),
    ("core.v1.PodSpec", "restartPolicy", "\"Always\""),
    ("core.v1.PodSpec", "schedulerName", "\"default-scheduler\""),
    ("core.v1.PodSpec", "securityContext", "{}"),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core.v1.Container", "resources", "{}"),
    (
        "core.v1.Container",
        "terminationMessagePath",
        "\"/dev/termination-log\"",
    ),
    ("core.v1.Container", "terminationMessagePolicy", "\"File\""),
    ("core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("core.v1.Probe", "timeoutSeconds", "1"),
    ("core.v1.Probe", "periodSeconds", "10"),
    ("core.v1.Probe", "successThreshold", "1"),
    ("core.v1.Probe", "failureThreshold", "3"),
    ("core.v1.HTTPGetAction", "path", "\"/\""),
    ("core.v1.HTTPGetAction", "scheme", "\"HTTP\""),
    ("core.v1.ObjectFieldSelector", "apiVersion", "\"v1\""),
    ("core.v1.SecretVolumeSource", "defaultMode", "420"),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core.v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core.v1.HostPathVolumeSource", "type", "\"\""),
    ("core.v1.ServicePort", "protocol", "\"TCP\""),
    (
        "core.v1.PersistentVolumeClaimSpec",
        "volumeMode",
        "\"Filesystem\"",
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeMode",
        "\"Filesystem\"",
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "persistentVolumeReclaimPolicy",
        "\"Retain\"",
    ),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DaemonSetSpec", "updateStrategy", "{}"),
    (
        "apps.v1.DaemonSetUpdateStrategy",
        "type",
        "\"RollingUpdate\"",
    ),
];

/// Types that are owned and replaced as a whole.
const ATOMIC: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TypedLocalObjectReference",
];

/// The definitions of all types that the core kinds use, by name such as `io.k8s.api.core.v1.PodSpec`; they refer to
/// each other.
pub(crate) fn definitions() -> &'static Map<String, Value> {
    static ALL: OnceLock<Map<String, Value>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let g = &mut generator;
        g.subschema_for::<ConfigMap>();
        g.subschema_for::<Event>();
        g.subschema_for::<events::v1::Event>();
        g.subschema_for::<Namespace>();
        g.subschema_for::<Node>();
        g.subschema_for::<PersistentVolume>();
        g.subschema_for::<PersistentVolumeClaim>();
        g.subschema_for::<Pod>();
        g.subschema_for::<Secret>();
        g.subschema_for::<Service>();
        g.subschema_for::<ServiceAccount>();
        g.subschema_for::<DaemonSet>();
        g.subschema_for::<CustomResourceDefinition>();
        g.subschema_for::<Lease>();
        g.subschema_for::<PodDisruptionBudget>();
        g.subschema_for::<VolumeAttachment>();
        g.subschema_for::<SelfSubjectAccessReview>();
        g.subschema_for::<SelfSubjectRulesReview>();
        g.subschema_for::<SelfSubjectReview>();
        g.subschema_for::<Eviction>();
        g.subschema_for::<Scale>();
        g.subschema_for::<DeleteOptions>();
        g.subschema_for::<ListMeta>();
        g.subschema_for::<Status>();
        let mut all = generator.take_definitions(true);
        for definition in all.values_mut() {
            references(definition);
        }
        merging(&mut all);
        all
    })
}

/// Brings references with words beside them into the form that OpenAPI 3.0 allows.
fn references(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("title");
            map.remove("$schema");
            if map.len() > 1
                && let Some(target) = map.remove("$ref")
            {
                map.insert("allOf".to_owned(), json!([{"$ref": target}]));
            }
            map.values_mut().for_each(references);
        }
        Value::Array(list) => list.iter_mut().for_each(references),
        _ => {}
    }
}

fn merging(all: &mut Map<String, Value>) {
    for (of, list, keys, patch) in LISTS {
        mark(&mut all[&format!("io.k8s.api.{of}")], list, keys, patch);
    }
    let container = all["io.k8s.api.core.v1.Container"].clone();
    let lists = &mut all["io.k8s.api.core.v1.EphemeralContainer"]["properties"];
    for list in ["env", "ports", "volumeMounts", "volumeDevices"] {
        lists[list] = container["properties"][list].clone();
    }
    for (of, field, value) in DEFAULTS {
        let field = &mut all[&format!("io.k8s.api.{of}")]["properties"][*field];
        field["default"] = serde_json::from_str(value).unwrap_or_default();
    }
    for atomic in ATOMIC {
        all[&format!("io.k8s.api.{atomic}")]["x-kubernetes-map-type"] = "atomic".into();
    }
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1";
    all[&format!("{meta}.LabelSelector")]["x-kubernetes-map-type"] = "atomic".into();
    let object = &mut all[&format!("{meta}.ObjectMeta")];
    mark(object, "ownerReferences", &["uid"], "uid");
    mark(object, "finalizers", &[], "");
    for definition in all.values_mut() {
        let conditions = &definition["properties"]["conditions"];
        if conditions["type"] == "array" {
            mark(definition, "conditions", &["type"], "type");
        }
    }
}

fn mark(of: &mut Value, list: &str, keys: &[&str], patch: &str) {
    let list = &mut of["properties"][list];
    list["x-kubernetes-list-type"] = json!(if keys.is_empty() { "set" } else { "map" });
    if !keys.is_empty() {
        list["x-kubernetes-list-map-keys"] = json!(keys);
    }
    list["x-kubernetes-patch-strategy"] = json!("merge");
    if !patch.is_empty() {
        list["x-kubernetes-patch-merge-key"] = json!(patch);
    }
}

/// The name of a core kind's definition.
pub(crate) fn name_of(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "api.core",
        "apiextensions.k8s.io" => {
            return format!(
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"
            );
        }
        group => &format!("api.{}", group.split('.').next().unwrap_or(group)),
    };
    format!("io.k8s.{package}.{version}.{kind}")
}

/// The schema of a definition with everything that it refers to in place.
pub(crate) fn inlined(name: &str) -> Option<Value> {
    definitions().get(name).map(inline)
}

fn inline(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let target = map.get("$ref").or_else(|| map.get("allOf")?[0].get("$ref"));
            let target = target
                .and_then(Value::as_str)
                .and_then(|t| t.strip_prefix(REF));
            let Some(found) = target.and_then(|t| definitions().get(t)) else {
                return map.iter().map(|(k, v)| (k.clone(), inline(v))).collect();
            };
            let mut found = inline(found);
            for (field, value) in map {
                if field != "$ref" && field != "allOf" {
                    found[field] = value.clone();
                }
            }
            found
        }
        Value::Array(list) => list.iter().map(inline).collect(),
        other => other.clone(),
    }
}
