//! Schemas of the core kinds: their fields from the published types, and how their lists merge.
//!
//! The types say nothing of merging; the table below is from the `listType`, `listMapKey` and `patchMergeKey` markers of
//! Kubernetes' own API definitions.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
    ServiceAccount,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// How one list merges: where it is below the pod template or the root, the keys of its items by which applies merge
/// (empty for a set of values), and the key by which strategic patches merge (empty for none).
type Merging = (&'static str, &'static [&'static str], &'static str);

const POD: &[Merging] = &[
    ("containers", &["name"], "name"),
    ("initContainers", &["name"], "name"),
    ("ephemeralContainers", &["name"], "name"),
    ("volumes", &["name"], "name"),
    ("imagePullSecrets", &["name"], "name"),
    ("hostAliases", &["ip"], "ip"),
    ("schedulingGates", &["name"], "name"),
    ("resourceClaims", &["name"], "name"),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        "topologyKey",
    ),
];
const CONTAINER: &[Merging] = &[
    ("env", &["name"], "name"),
    ("ports", &["containerPort", "protocol"], "containerPort"),
    ("volumeMounts", &["mountPath"], "mountPath"),
    ("volumeDevices", &["devicePath"], "devicePath"),
];
const CONDITIONS: Merging = ("conditions", &["type"], "type");

/// The OpenAPI schema of a core kind; `None` for one that describes schemas itself.
pub(crate) fn of(kind: &str) -> Option<Value> {
    let mut schema = match kind {
        "ConfigMap" => plain::<ConfigMap>(),
        "Event" => plain::<Event>(),
        "Namespace" => plain::<Namespace>(),
        "Node" => plain::<Node>(),
        "PersistentVolume" => plain::<PersistentVolume>(),
        "PersistentVolumeClaim" => plain::<PersistentVolumeClaim>(),
        "Pod" => plain::<Pod>(),
        "Secret" => plain::<Secret>(),
        "ServiceAccount" => plain::<ServiceAccount>(),
        "DaemonSet" => plain::<DaemonSet>(),
        "Lease" => plain::<Lease>(),
        "PodDisruptionBudget" => plain::<PodDisruptionBudget>(),
        "VolumeAttachment" => plain::<VolumeAttachment>(),
        _ => return None,
    };
    match kind {
        "Pod" => {
            pod(&mut schema["properties"]["spec"]);
            let status = &mut schema["properties"]["status"];
            for merging in [("podIPs", &["ip"][..], "ip"), ("hostIPs", &["ip"], "ip")] {
                mark(status, &merging);
            }
        }
        "DaemonSet" => {
            pod(&mut schema["properties"]["spec"]["properties"]["template"]["properties"]["spec"]);
        }
        "Node" => {
            mark(&mut schema["properties"]["spec"], &("podCIDRs", &[], ""));
            mark(
                &mut schema["properties"]["status"],
                &("addresses", &["type"], "type"),
            );
        }
        "ServiceAccount" => mark(&mut schema, &("secrets", &["name"], "name")),
        _ => {}
    }
    if !schema["properties"]["status"]["properties"]["conditions"].is_null() {
        mark(&mut schema["properties"]["status"], &CONDITIONS);
    }
    Some(schema)
}

fn plain<K: JsonSchema>() -> Value {
    let generator = SchemaSettings::openapi3()
        .with(|s| s.inline_subschemas = true)
        .into_generator();
    let mut schema: Value = generator.into_root_schema_for::<K>().into();
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
        map.remove("title");
    }
    schema
}

fn pod(spec: &mut Value) {
    for merging in POD {
        mark(spec, merging);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let container = &mut spec["properties"][list]["items"];
        for merging in CONTAINER {
            mark(container, merging);
        }
        container["properties"]["ports"]["items"]["properties"]["protocol"]["default"] =
            json!("TCP");
    }
}

fn mark(parent: &mut Value, (list, keys, patch): &Merging) {
    let list = &mut parent["properties"][list];
    if !list.is_object() {
        return;
    }
    list["x-kubernetes-list-type"] = json!(if keys.is_empty() { "set" } else { "map" });
    if !keys.is_empty() {
        list["x-kubernetes-list-map-keys"] = json!(keys);
    }
    list["x-kubernetes-patch-strategy"] = json!("merge");
    if !patch.is_empty() {
        list["x-kubernetes-patch-merge-key"] = json!(patch);
    }
}
