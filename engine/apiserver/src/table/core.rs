//! The columns of the core kinds, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::age;
use crate::registry::Kind;

/// A column of a core kind.
pub(super) struct Column {
    name: &'static str,
    kind: &'static str,
    /// 0 for one that is always shown, 1 for one with `-o wide`.
    priority: u8,
    pub(super) cell: fn(&Value, Timestamp) -> Value,
}

impl Column {
    pub(super) fn definition(&self) -> Value {
        let format = if self.name == "Name" { "name" } else { "" };
        let words = match self.name {
            "Name" => super::meta_words("name").clone(),
            "Age" => super::meta_words("creationTimestamp").clone(),
            name => name.into(),
        };
        json!({"name": self.name, "type": self.kind, "format": format, "description": words, "priority": self.priority})
    }
}

const fn text(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        kind: "string",
        priority: 0,
        cell,
    }
}

const fn number(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        kind: "integer",
        priority: 0,
        cell,
    }
}

const fn wide(mut column: Column) -> Column {
    column.priority = 1;
    column
}

const NAME: Column = text("Name", |o, _| o["metadata"]["name"].clone());
const AGE: Column = text("Age", |o, now| {
    since(&o["metadata"]["creationTimestamp"], now)
});

const ANY: &[Column] = &[NAME, AGE];
const CONFIG_MAPS: &[Column] = &[
    NAME,
    number("Data", |o, _| {
        (size(&o["data"]) + size(&o["binaryData"])).into()
    }),
    AGE,
];
const SECRETS: &[Column] = &[
    NAME,
    text("Type", |o, _| o["type"].clone()),
    number("Data", |o, _| size(&o["data"]).into()),
    AGE,
];
const SERVICE_ACCOUNTS: &[Column] = &[
    NAME,
    number("Secrets", |o, _| list(&o["secrets"]).len().into()),
    AGE,
];
const NAMESPACES: &[Column] = &[
    NAME,
    text("Status", |o, _| o["status"]["phase"].clone()),
    AGE,
];
const PODS: &[Column] = &[
    NAME,
    text("Ready", |o, _| {
        let all = list(&o["spec"]["containers"]).len();
        let ready = list(&o["status"]["containerStatuses"])
            .iter()
            .filter(|s| s["ready"] == true && !s["state"]["running"].is_null())
            .count();
        format!("{ready}/{all}").into()
    }),
    text("Status", |o, _| pod_status(o)),
    text("Restarts", |o, _| {
        let statuses = list(&o["status"]["containerStatuses"]);
        let sum: i64 = statuses
            .iter()
            .filter_map(|s| s["restartCount"].as_i64())
            .sum();
        sum.to_string().into()
    }),
    AGE,
    wide(text("IP", |o, _| or_none(&o["status"]["podIP"]))),
    wide(text("Node", |o, _| or_none(&o["spec"]["nodeName"]))),
    wide(text("Nominated Node", |o, _| {
        or_none(&o["status"]["nominatedNodeName"])
    })),
    wide(text("Readiness Gates", |o, _| {
        let gates = list(&o["spec"]["readinessGates"]);
        let met = |gate: &&Value| {
            list(&o["status"]["conditions"])
                .iter()
                .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
        };
        if gates.is_empty() {
            return "<none>".into();
        }
        format!("{}/{}", gates.iter().filter(met).count(), gates.len()).into()
    })),
];
const NODES: &[Column] = &[
    NAME,
    text("Status", |o, _| node_status(o)),
    text("Roles", |o, _| {
        let labels = o["metadata"]["labels"].as_object();
        let mut roles: Vec<&str> = labels
            .into_iter()
            .flatten()
            .filter_map(
                |(label, value)| match label.strip_prefix("node-role.kubernetes.io/") {
                    Some("") | None => (label == "kubernetes.io/role").then(|| value.as_str())?,
                    role => role,
                },
            )
            .collect();
        roles.sort_unstable();
        joined(&roles)
    }),
    AGE,
    text("Version", |o, _| {
        o["status"]["nodeInfo"]["kubeletVersion"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    wide(text("Internal-IP", |o, _| address(o, "InternalIP"))),
    wide(text("External-IP", |o, _| address(o, "ExternalIP"))),
    wide(text("OS-Image", |o, _| {
        or_unknown(&o["status"]["nodeInfo"]["osImage"])
    })),
    wide(text("Kernel-Version", |o, _| {
        or_unknown(&o["status"]["nodeInfo"]["kernelVersion"])
    })),
    wide(text("Container-Runtime", |o, _| {
        or_unknown(&o["status"]["nodeInfo"]["containerRuntimeVersion"])
    })),
];
const EVENTS: &[Column] = &[
    text("Last Seen", last_seen),
    text("Type", |o, _| o["type"].as_str().unwrap_or_default().into()),
    text("Reason", |o, _| {
        o["reason"].as_str().unwrap_or_default().into()
    }),
    text("Object", |o, _| {
        let of = about(o);
        let kind = of["kind"].as_str().unwrap_or_default().to_lowercase();
        match of["name"].as_str() {
            Some(name) if !name.is_empty() => format!("{kind}/{name}").into(),
            _ => kind.into(),
        }
    }),
    wide(text("Subobject", |o, _| {
        about(o)["fieldPath"].as_str().unwrap_or_default().into()
    })),
    wide(text("Source", |o, _| {
        let (source, modern) = (
            first(&o["source"], &o["deprecatedSource"]),
            first(&o["reportingComponent"], &o["reportingController"]),
        );
        let (component, host) = match source["component"].as_str() {
            Some(component) if !component.is_empty() => (component, &source["host"]),
            _ => (modern.as_str().unwrap_or_default(), &o["reportingInstance"]),
        };
        match host.as_str() {
            Some(host) if !host.is_empty() => format!("{component}, {host}").into(),
            _ => component.into(),
        }
    })),
    text("Message", |o, _| {
        let words = first(&o["message"], &o["note"]);
        words.as_str().unwrap_or_default().trim().into()
    }),
    wide(text("First Seen", |o, now| since(first_seen(o), now))),
    wide(number("Count", |o, _| {
        let count = first(&o["count"], &o["deprecatedCount"]);
        let count = if o["series"].is_object() {
            &o["series"]["count"]
        } else {
            count
        };
        count.as_i64().unwrap_or(1).into()
    })),
    wide(NAME),
];
const LEASES: &[Column] = &[
    NAME,
    text("Holder", |o, _| {
        o["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    AGE,
];
const BUDGETS: &[Column] = &[
    NAME,
    text("Min Available", |o, _| amount(&o["spec"]["minAvailable"])),
    text("Max Unavailable", |o, _| {
        amount(&o["spec"]["maxUnavailable"])
    }),
    number("Allowed Disruptions", |o, _| {
        count(&o["status"]["disruptionsAllowed"])
    }),
    AGE,
];
const SERVICES: &[Column] = &[
    NAME,
    text("Type", |o, _| {
        o["spec"]["type"].as_str().unwrap_or("ClusterIP").into()
    }),
    text("Cluster-IP", |o, _| or_none(&o["spec"]["clusterIP"])),
    text("External-IP", |o, _| {
        let addresses: Vec<&str> = list(&o["spec"]["externalIPs"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        joined(&addresses)
    }),
    text("Port(s)", |o, _| {
        let ports: Vec<String> = list(&o["spec"]["ports"])
            .iter()
            .map(|p| format!("{}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP")))
            .collect();
        joined(&ports)
    }),
    AGE,
    wide(text("Selector", |o, _| pairs(&o["spec"]["selector"]))),
];
const DAEMON_SETS: &[Column] = &[
    NAME,
    number("Desired", |o, _| {
        count(&o["status"]["desiredNumberScheduled"])
    }),
    number("Current", |o, _| {
        count(&o["status"]["currentNumberScheduled"])
    }),
    number("Ready", |o, _| count(&o["status"]["numberReady"])),
    number("Up-to-date", |o, _| {
        count(&o["status"]["updatedNumberScheduled"])
    }),
    number("Available", |o, _| count(&o["status"]["numberAvailable"])),
    text("Node Selector", |o, _| {
        pairs(&o["spec"]["template"]["spec"]["nodeSelector"])
    }),
    AGE,
];
const VOLUMES: &[Column] = &[
    NAME,
    text("Capacity", |o, _| {
        o["spec"]["capacity"]["storage"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    text("Access Modes", |o, _| modes(&o["spec"]["accessModes"])),
    text("Reclaim Policy", |o, _| {
        o["spec"]["persistentVolumeReclaimPolicy"]
            .as_str()
            .unwrap_or("Retain")
            .into()
    }),
    text("Status", |o, _| phase(o)),
    text("Claim", |o, _| {
        let claim = &o["spec"]["claimRef"];
        match (claim["namespace"].as_str(), claim["name"].as_str()) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}").into(),
            _ => "".into(),
        }
    }),
    text("StorageClass", |o, _| {
        o["spec"]["storageClassName"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    text("VolumeAttributesClass", |o, _| {
        or(&o["spec"]["volumeAttributesClassName"], "<unset>")
    }),
    text("Reason", |o, _| {
        o["status"]["reason"].as_str().unwrap_or_default().into()
    }),
    AGE,
    wide(text("VolumeMode", |o, _| {
        or(&o["spec"]["volumeMode"], "Filesystem")
    })),
];
const CLAIMS: &[Column] = &[
    NAME,
    text("Status", |o, _| phase(o)),
    text("Volume", |o, _| {
        o["spec"]["volumeName"].as_str().unwrap_or_default().into()
    }),
    text("Capacity", |o, _| {
        o["status"]["capacity"]["storage"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    text("Access Modes", |o, _| modes(&o["status"]["accessModes"])),
    text("StorageClass", |o, _| {
        o["spec"]["storageClassName"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    text("VolumeAttributesClass", |o, _| {
        or(&o["spec"]["volumeAttributesClassName"], "<unset>")
    }),
    AGE,
    wide(text("VolumeMode", |o, _| {
        or(&o["spec"]["volumeMode"], "Filesystem")
    })),
];
const ATTACHMENTS: &[Column] = &[
    NAME,
    text("Attacher", |o, _| o["spec"]["attacher"].clone()),
    text("PV", |o, _| {
        o["spec"]["source"]["persistentVolumeName"]
            .as_str()
            .unwrap_or_default()
            .into()
    }),
    text("Node", |o, _| o["spec"]["nodeName"].clone()),
    text("Attached", |o, _| {
        o["status"]["attached"]
            .as_bool()
            .unwrap_or(false)
            .to_string()
            .into()
    }),
    AGE,
];
const DEFINITIONS: &[Column] = &[
    NAME,
    text("Created At", |o, _| {
        o["metadata"]["creationTimestamp"].clone()
    }),
];

/// The columns of a core kind; `None` for a custom one.
pub(super) fn columns(kind: &Kind) -> Option<&'static [Column]> {
    if kind.custom {
        return None;
    }
    Some(match kind.plural.as_str() {
        "configmaps" => CONFIG_MAPS,
        "customresourcedefinitions" => DEFINITIONS,
        "daemonsets" => DAEMON_SETS,
        "events" => EVENTS,
        "leases" => LEASES,
        "namespaces" => NAMESPACES,
        "nodes" => NODES,
        "persistentvolumeclaims" => CLAIMS,
        "persistentvolumes" => VOLUMES,
        "poddisruptionbudgets" => BUDGETS,
        "pods" => PODS,
        "secrets" => SECRETS,
        "serviceaccounts" => SERVICE_ACCOUNTS,
        "services" => SERVICES,
        "volumeattachments" => ATTACHMENTS,
        _ => ANY,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn count(value: &Value) -> Value {
    value.as_i64().unwrap_or(0).into()
}

fn or(value: &Value, other: &str) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.into(),
        _ => other.into(),
    }
}

fn or_none(value: &Value) -> Value {
    or(value, "<none>")
}

fn or_unknown(value: &Value) -> Value {
    or(value, "<unknown>")
}

fn first<'a>(one: &'a Value, other: &'a Value) -> &'a Value {
    if one.is_null() { other } else { one }
}

fn joined<T: AsRef<str>>(parts: &[T]) -> Value {
    if parts.is_empty() {
        return "<none>".into();
    }
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    parts.join(",").into()
}

fn pairs(map: &Value) -> Value {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    joined(&pairs)
}

fn amount(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

fn modes(value: &Value) -> Value {
    let modes: Vec<&str> = list(value)
        .iter()
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    modes.join(",").into()
}

fn since(time: &Value, now: Timestamp) -> Value {
    age(time.as_str().unwrap_or_default(), now).into()
}

fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn phase(object: &Value) -> Value {
    if deleting(object) {
        return "Terminating".into();
    }
    object["status"]["phase"]
        .as_str()
        .unwrap_or_default()
        .into()
}

/// What an event is about, in the words of either of its versions.
fn about(event: &Value) -> &Value {
    first(&event["involvedObject"], &event["regarding"])
}

fn first_seen(event: &Value) -> &Value {
    let seen = first(&event["firstTimestamp"], &event["deprecatedFirstTimestamp"]);
    first(seen, &event["eventTime"])
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let last = first(&event["lastTimestamp"], &event["deprecatedLastTimestamp"]);
    let last = first(last, first_seen(event));
    since(first(&event["series"]["lastObservedTime"], last), now)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&object["status"]["conditions"])
        .iter()
        .find(|c| c["type"] == kind)
}

fn node_status(node: &Value) -> Value {
    let mut status = match condition(node, "Ready").map(|c| &c["status"]) {
        Some(status) if status == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn address(node: &Value, kind: &str) -> Value {
    let found = list(&node["status"]["addresses"])
        .iter()
        .find(|a| a["type"] == kind);
    found.map_or("<none>".into(), |a| or_none(&a["address"]))
}

fn pod_status(pod: &Value) -> Value {
    let status = &pod["status"];
    if deleting(pod) {
        return if status["reason"] == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .into();
    }
    let waits = list(&status["containerStatuses"])
        .iter()
        .rev()
        .find_map(|s| {
            let state = &s["state"];
            let reason = |of: &Value| {
                of["reason"]
                    .as_str()
                    .filter(|r| !r.is_empty())
                    .map(str::to_owned)
            };
            reason(&state["waiting"]).or_else(|| reason(&state["terminated"]))
        });
    match (waits, status["reason"].as_str()) {
        (Some(waits), _) => waits.into(),
        (None, Some(reason)) if !reason.is_empty() => reason.into(),
        _ => status["phase"].as_str().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(columns: &[Column], object: &Value) -> Vec<Value> {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        columns.iter().map(|c| (c.cell)(object, now)).collect()
    }

    #[test]
    fn nodes_pods_and_events_read_as_kubectl_shows_them() {
        let made = "2026-01-01T00:00:00Z";
        let node = json!({"metadata": {"name": "n", "creationTimestamp": made,
                "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.34.1"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        let want = json!([
            "n",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "60m",
            "v1.34.1",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]);
        assert_eq!(Value::from(cells(NODES, &node)), want);
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": made}, "spec": {"containers": [{}, {}], "nodeName": "n"},
            "status": {"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 2, "state": {"running": {}}}]}});
        let want = json!([
            "p", "1/2", "Running", "2", "60m", "<none>", "n", "<none>", "<none>"
        ]);
        assert_eq!(Value::from(cells(PODS, &pod)), want);
        let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Gadget", "name": "a"}, "note": "made\n",
            "reason": "Made", "type": "Normal", "eventTime": made, "reportingController": "c", "reportingInstance": "i"});
        let want = json!([
            "60m", "Normal", "Made", "gadget/a", "", "c, i", "made", "60m", 1, "e"
        ]);
        assert_eq!(Value::from(cells(EVENTS, &event)), want);
    }
}
