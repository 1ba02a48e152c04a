//! The columns of the core kinds, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    about, address, amount, count, first, first_seen, joined, last_seen, list, modes, node_status,
    or, or_none, or_unknown, pairs, phase, pod_status, since, size,
};
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
        let format = match self.name {
            "Name" | "Attacher" => "name",
            _ => "",
        };
        let words = match self.name {
            "Name" => super::meta_words("name").clone(),
            "Age" | "Created At" => super::meta_words("creationTimestamp").clone(),
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
    text("Data", |o, _| {
        (size(&o["data"]) + size(&o["binaryData"])).into()
    }),
    AGE,
];
const SECRETS: &[Column] = &[
    NAME,
    text("Type", |o, _| o["type"].clone()),
    text("Data", |o, _| size(&o["data"]).into()),
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
    wide(text("Count", |o, _| {
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
/// A field of each container of a pod's template.
fn containers(object: &Value, field: &str) -> Value {
    let all: Vec<&str> = list(&object["spec"]["template"]["spec"]["containers"])
        .iter()
        .filter_map(|container| container[field].as_str())
        .collect();
    all.join(",").into()
}

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
    wide(text("Containers", |o, _| containers(o, "name"))),
    wide(text("Images", |o, _| containers(o, "image"))),
    wide(text("Selector", |o, _| {
        pairs(&o["spec"]["selector"]["matchLabels"])
    })),
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
    Column {
        kind: "boolean",
        ..text("Attached", |o, _| {
            o["status"]["attached"].as_bool().unwrap_or(false).into()
        })
    },
    AGE,
];
const DEFINITIONS: &[Column] = &[
    NAME,
    Column {
        kind: "date",
        ..text("Created At", |o, _| {
            o["metadata"]["creationTimestamp"].clone()
        })
    },
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
        "services" => SERVICES,
        "volumeattachments" => ATTACHMENTS,
        _ => ANY,
    })
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
