//! The Node that an instance registers.

use std::collections::BTreeMap;

use fleetwright_api::{meta, time::rfc3339_seconds};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{config::type_of, instance::SimInstance};

/// How long the certificates of an API server last.
const CERTIFICATES: SignedDuration = SignedDuration::from_hours(365 * 24);

/// The Node and its status, as a kubelet that has just started says them.
pub(crate) fn node_of(instance: &SimInstance, now: Timestamp) -> (Value, Value) {
    let order = &instance.order;
    let shown = instance.show();
    let mut labels = order.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", order.owner.machine.clone()),
        ("node.kubernetes.io/instance-type", shown.instance_type),
        ("topology.kubernetes.io/region", instance.region.clone()),
        (
            "topology.kubernetes.io/zone",
            shown.failure_domain.unwrap_or_default(),
        ),
    ] {
        labels.insert(key.to_owned(), value);
    }
    let mut taints: Vec<_> = order
        .taints
        .iter()
        .map(|t| json!({"key": t.key, "value": t.value, "effect": t.effect.as_str()}))
        .collect();
    if order.control_plane {
        let role = "node-role.kubernetes.io/control-plane";
        labels.insert(role.to_owned(), String::new());
        taints.push(json!({"key": role, "effect": "NoSchedule"}));
    }
    let mut annotations = BTreeMap::new();
    if order.control_plane {
        let expire = instance.created.checked_add(CERTIFICATES);
        let expire = rfc3339_seconds(expire.unwrap_or(Timestamp::MAX));
        annotations.insert(meta::ANNOTATION_CERTIFICATES_EXPIRY, expire);
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": order.owner.machine, "labels": labels, "annotations": annotations},
        "spec": {"providerID": instance.provider_id(), "taints": taints},
    });
    let condition = |kind: &str, status: &str| {
        let time = rfc3339_seconds(now);
        json!({
            "type": kind, "status": status, "reason": "Simulated", "message": "",
            "lastHeartbeatTime": time, "lastTransitionTime": time,
        })
    };
    let kind = type_of(&order.config);
    let capacity = json!({
        "cpu": kind.cpus.to_string(), "memory": format!("{}Gi", kind.memory_gib), "pods": "110",
    });
    let status = json!({
        "capacity": capacity, "allocatable": capacity,
        "nodeInfo": {
            "kubeletVersion": order.version, "kubeProxyVersion": order.version, "osImage": instance.image(),
            "architecture": "amd64", "operatingSystem": "linux", "bootID": instance.id, "machineID": instance.id,
            "systemUUID": instance.id, "containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.12.0",
        },
        "addresses": [{"type": "InternalIP", "address": instance.address()}],
        "conditions": [
            condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False"),
        ],
    });
    (node, status)
}

/// What becomes of the status when the kubelet is heard no more.
pub(crate) fn silent(now: Timestamp) -> Value {
    json!({"status": {"conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.", "lastTransitionTime": rfc3339_seconds(now),
    }]}})
}
