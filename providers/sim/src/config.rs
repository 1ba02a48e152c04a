//! The simulated cloud's kinds of `providerConfig`: what they allow is said here alone, in their schemas.

use fleetwright_api::drift::InstanceSettings;
use fleetwright_providers::{ConfigSchema, CreateInstance, ProviderError, config_errors};
use serde_json::{Map, Value, json};

use crate::workloads::Workload;

/// Failure domains of a region: letters after its name.
pub(crate) fn failure_domains(region: &str) -> Vec<String> {
    ["a", "b", "c"].map(|d| format!("{region}-{d}")).into()
}

/// Name of the provider, as `ProviderAccount.spec.provider` has it.
pub const PROVIDER: &str = "sim";
/// Group and version of the simulated cloud's kinds.
pub const API_VERSION: &str = "sim.fleetwright.dev/v1alpha1";
/// Settings of a machine.
pub const MACHINE_CONFIG: &str = "SimMachineConfig";
/// Settings of a cluster.
pub const CLUSTER_CONFIG: &str = "SimClusterConfig";

/// A type of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name, such as `sim.small`.
    pub name: &'static str,
    /// Virtual CPUs.
    pub cpus: i64,
    /// Memory in GiB.
    pub memory_gib: i64,
}

const fn instance_type(name: &'static str, cpus: i64, memory_gib: i64) -> InstanceType {
    InstanceType {
        name,
        cpus,
        memory_gib,
    }
}

/// All types of instances; the first is the default.
pub const INSTANCE_TYPES: &[InstanceType] = &[
    instance_type("sim.small", 2, 4),
    instance_type("sim.medium", 4, 8),
    instance_type("sim.large", 8, 16),
    instance_type("sim.xlarge", 16, 32),
    instance_type("metal.small", 16, 64),
    instance_type("metal.large", 64, 512),
];

/// Fields of a machine's settings that change in place.
pub(crate) const IN_PLACE: [&str; 2] = ["securityGroups", "tags"];
/// Network where nothing is said.
const DEFAULT_NETWORK: &str = "default";
/// Image where nothing is said.
pub(crate) const DEFAULT_IMAGE: &str = "ubuntu-24.04";
/// Seconds from create to a registered node where nothing is said.
pub const DEFAULT_BOOT_SECONDS: f64 = 5.0;
/// Most pods of one workload: they are real objects in the cluster's API.
const MOST_REPLICAS: u64 = 10_000;

/// The type with this name; the default where there is none, which a checked configuration never asks for.
pub(crate) fn type_of(config: &Value) -> InstanceType {
    let name = config["instanceType"].as_str().unwrap_or_default();
    let found = INSTANCE_TYPES.iter().find(|t| t.name == name);
    *found.unwrap_or(&INSTANCE_TYPES[0])
}

fn head(kind: &str) -> Value {
    json!({
        "apiVersion": {
            "type": "string", "enum": [API_VERSION], "x-fleetwright-change": "none",
            "description": "Group and version of these settings.",
        },
        "kind": {"type": "string", "enum": [kind], "description": "Kind of these settings."},
        "account": {"type": "string", "minLength": 1, "description": "Name of the ProviderAccount."},
    })
}

/// The schemas of both kinds.
pub fn schemas() -> Vec<ConfigSchema> {
    let types: Vec<_> = INSTANCE_TYPES.iter().map(|t| t.name).collect();
    let mut machine = head(MACHINE_CONFIG);
    machine["instanceType"] = json!({
        "type": "string", "enum": types, "default": types[0], "description": "Type of the instance.",
    });
    machine["image"] = json!({
        "type": "string", "default": DEFAULT_IMAGE, "description": "Image that it boots.",
    });
    machine["diskGiB"] = json!({
        "type": "integer", "minimum": 1, "default": 20, "description": "Size of its disk.",
    });
    machine["network"] = json!({
        "type": "string", "default": DEFAULT_NETWORK, "description": "Network that it is in.",
    });
    machine["securityGroups"] = json!({
        "type": "array", "items": {"type": "string", "minLength": 1}, "x-fleetwright-change": "in-place",
        "description": "Its security groups, in any order; none when left out.",
    });
    machine["bootSeconds"] = json!({
        "type": "number", "minimum": 0, "maximum": 3600, "default": DEFAULT_BOOT_SECONDS,
        "x-fleetwright-change": "none", "description": "Seconds from create to a registered node.",
    });
    machine["tags"] = json!({
        "type": "object", "additionalProperties": {"type": "string"}, "x-fleetwright-change": "in-place",
        "description": "Further tags of the instance.",
    });
    let mut cluster = head(CLUSTER_CONFIG);
    let name = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    cluster["workloads"] = json!({
        "type": "array",
        "x-fleetwright-change": "in-place",
        "description": "Pods that the simulated cluster keeps on its nodes, and their budgets.",
        "items": {
            "type": "object",
            "required": ["name", "replicas"],
            "properties": {
                "name": {
                    "type": "string", "pattern": name, "maxLength": 50,
                    "description": "Name of the workload: label `app` of its pods, and the budget's name.",
                },
                "namespace": {
                    "type": "string", "pattern": name, "maxLength": 63, "default": "default",
                    "description": "Namespace of its pods.",
                },
                "replicas": {
                    "type": "integer", "minimum": 0, "maximum": MOST_REPLICAS,
                    "description": "Pods that there should be.",
                },
                "minAvailable": {
                    "type": "integer", "minimum": 0,
                    "description": "Ready pods that evictions must leave; no budget where it is left out.",
                },
                "startSeconds": {
                    "type": "number", "minimum": 0, "maximum": 3600, "default": 0.5,
                    "description": "Seconds from a pod's creation until it is ready.",
                },
                "terminationSeconds": {
                    "type": "number", "minimum": 0, "maximum": 3600, "default": 1,
                    "description": "Seconds that a pod takes to end.",
                },
                "kind": {
                    "type": "string", "enum": ["Deployment", "DaemonSet", "StaticPod"], "default": "Deployment",
                    "description": "What keeps its pods: of the last two, one on each node unless replicas is 0.",
                },
                "labels": {
                    "type": "object", "additionalProperties": {"type": "string"},
                    "description": "Further labels of its pods.",
                },
                "emptyDir": {
                    "type": "boolean", "default": false,
                    "description": "Whether its pods have an emptyDir volume.",
                },
                "completeSeconds": {
                    "type": "number", "minimum": 0, "maximum": 86400,
                    "description": "Seconds that a pod runs before it has done its work; for ever where it is left out.",
                },
                "volumeDetachSeconds": {
                    "type": "number", "minimum": 0, "maximum": 86400,
                    "description": "Gives each pod a volume, which is detached so many seconds after the pod has ended.",
                },
            },
        },
    });
    let schema = |kind: &str, properties: Value| ConfigSchema {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        schema: json!({"type": "object", "required": ["account"], "properties": properties}),
    };
    vec![
        schema(MACHINE_CONFIG, machine),
        schema(CLUSTER_CONFIG, cluster),
    ]
}

/// Refuses a configuration that is not of this kind or is not right.
fn check(kind: &str, what: &str, config: &Value) -> Result<(), ProviderError> {
    let terminal = |message: String| Err(ProviderError::Terminal { message });
    if config["kind"] != kind {
        return terminal(format!(
            "kind: {what} is made from {kind}, not {}",
            config["kind"]
        ));
    }
    match config_errors(&schemas(), config).first() {
        Some(error) => terminal(format!("{}: {}", error.field, error.message)),
        None => Ok(()),
    }
}

/// Refuses an order that the cloud cannot fulfil, whatever it has.
pub(crate) fn check_order(order: &CreateInstance) -> Result<(), ProviderError> {
    let terminal = |message: String| Err(ProviderError::Terminal { message });
    let owner = &order.owner;
    if owner.instance_key.is_empty() || owner.machine.is_empty() {
        return terminal("the order names no machine and instance key".into());
    }
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let key = &owner.cluster_key;
    if key.is_empty() || key.len() > 128 || !key.chars().all(simple) {
        return terminal(format!(
            "clusterKey: {key:?} is no key of a cluster: it is made of at most 128 letters, digits, dashes, dots and underscores"
        ));
    }
    check_machine(&order.config)
}

/// What an instance with these settings shows of them.
pub(crate) fn settings(config: &Map<String, Value>) -> InstanceSettings {
    let network = config.get("network").and_then(Value::as_str);
    let groups = config.get("securityGroups").and_then(Value::as_array);
    let groups = groups.into_iter().flatten().filter_map(Value::as_str);
    let tags = config.get("tags").and_then(Value::as_object);
    let tags = tags.into_iter().flatten();
    InstanceSettings {
        network: Some(network.unwrap_or(DEFAULT_NETWORK).to_owned()),
        security_groups: Some(groups.map(str::to_owned).collect()),
        tags: tags
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

/// Refuses settings that no instance can have.
pub(crate) fn check_machine(config: &Value) -> Result<(), ProviderError> {
    check(MACHINE_CONFIG, "a machine", config)
}

/// The workloads that a cluster's `providerConfig` declares: none where there is no such config.
pub(crate) fn workloads(cluster_config: Option<&Value>) -> Result<Vec<Workload>, ProviderError> {
    let Some(config) = cluster_config else {
        return Ok(Vec::new());
    };
    check(CLUSTER_CONFIG, "a cluster", config)?;
    let listed = config.get("workloads").cloned().unwrap_or_default();
    let read: Result<Option<Vec<Workload>>, _> = serde_json::from_value(listed);
    let workloads = read.map_err(|e| ProviderError::Terminal {
        message: format!("workloads: {e}"),
    })?;
    let workloads = workloads.unwrap_or_default();
    for (n, workload) in workloads.iter().enumerate() {
        let same = |w: &Workload| (&w.namespace, &w.name) == (&workload.namespace, &workload.name);
        if workloads[..n].iter().any(same) {
            let (namespace, name) = (&workload.namespace, &workload.name);
            return Err(ProviderError::Terminal {
                message: format!("workloads[{n}]: {namespace}/{name} is there already"),
            });
        }
    }
    Ok(workloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(config: &Value) -> Vec<String> {
        let errors = config_errors(&schemas(), config);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn mistakes_are_named() {
        let good = json!({"apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "a", "instanceType": "sim.large"});
        assert!(fields(&good).is_empty());
        let mut bad = good.clone();
        bad["instanceType"] = json!("sim.huge");
        bad["instanceTpye"] = json!("x");
        bad["bootSeconds"] = json!("5");
        assert_eq!(
            fields(&bad),
            ["instanceTpye", "bootSeconds", "instanceType"]
        );
        assert_eq!(fields(&json!({"kind": "Other"})), ["kind"]);
    }

    #[test]
    fn workloads_are_read_with_their_defaults_or_refused_with_their_place() {
        let config = |workloads: Value| json!({"apiVersion": API_VERSION, "kind": CLUSTER_CONFIG, "account": "a", "workloads": workloads});
        let read = |list: Value| workloads(Some(&config(list)));
        let one = read(json!([{"name": "shop", "replicas": 2}])).unwrap();
        assert_eq!(
            (one[0].namespace.as_str(), one[0].min_available),
            ("default", None)
        );
        assert_eq!(
            (one[0].start_seconds, one[0].termination_seconds),
            (0.5, 1.0)
        );
        assert!(workloads(None).unwrap().is_empty());
        for (list, expected) in [
            (
                json!([{"name": "shop"}]),
                "workloads[0].replicas: Required value",
            ),
            (
                json!([{"name": "shop", "replicas": 1, "minAvailible": 1}]),
                "workloads[0].minAvailible: SimClusterConfig has no such field",
            ),
            (
                json!([{"name": "Shop", "replicas": 1}]),
                "workloads[0].name: Invalid value",
            ),
            (
                json!([{"name": "a", "replicas": 1}, {"name": "a", "replicas": 1}]),
                "workloads[1]: default/a is there already",
            ),
        ] {
            let text = read(list.clone()).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{list}: {text}");
        }
        let machine = json!({"apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "a"});
        let text = workloads(Some(&machine)).unwrap_err().to_string();
        assert!(
            text.contains("a cluster is made from SimClusterConfig"),
            "{text}"
        );
    }
}
