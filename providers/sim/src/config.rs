//! The simulated cloud's kinds of `providerConfig`.

use fleetwright_providers::{ConfigError, ConfigSchema};
use serde_json::{Value, json};

/// Group and version of the simulated cloud's kinds.
pub const API_VERSION: &str = "sim.fleetwright.dev/v1alpha1";
/// Settings of a machine.
pub const MACHINE_CONFIG: &str = "SimMachineConfig";
/// Settings of a cluster.
pub const CLUSTER_CONFIG: &str = "SimClusterConfig";

/// Types of instances: name, virtual CPUs, memory in GiB.
pub const INSTANCE_TYPES: &[(&str, u32, u32)] = &[
    ("sim.small", 2, 4),
    ("sim.medium", 4, 8),
    ("sim.large", 8, 16),
    ("sim.xlarge", 16, 32),
    ("metal.small", 16, 64),
    ("metal.large", 64, 512),
];

/// Seconds from create to a registered node where nothing is said.
pub const DEFAULT_BOOT_SECONDS: f64 = 5.0;

fn head(kind: &str) -> Value {
    json!({
        "apiVersion": {"type": "string", "enum": [API_VERSION], "x-fleetwright-change": "none"},
        "kind": {"type": "string", "enum": [kind]},
        "account": {"type": "string", "minLength": 1, "description": "Name of the ProviderAccount."},
    })
}

/// The schemas of both kinds.
pub fn schemas() -> Vec<ConfigSchema> {
    let types: Vec<_> = INSTANCE_TYPES.iter().map(|(name, _, _)| *name).collect();
    let mut machine = head(MACHINE_CONFIG);
    machine["instanceType"] = json!({
        "type": "string", "enum": types, "default": "sim.small", "description": "Type of the instance.",
    });
    machine["image"] = json!({
        "type": "string", "default": "ubuntu-24.04", "description": "Image that it boots.",
    });
    machine["diskGiB"] = json!({
        "type": "integer", "minimum": 1, "default": 20, "description": "Size of its disk.",
    });
    machine["network"] = json!({
        "type": "string", "default": "default", "description": "Network that it is in.",
    });
    machine["bootSeconds"] = json!({
        "type": "number", "minimum": 0, "default": DEFAULT_BOOT_SECONDS, "x-fleetwright-change": "none",
        "description": "Seconds from create to a registered node.",
    });
    machine["tags"] = json!({
        "type": "object", "additionalProperties": {"type": "string"}, "x-fleetwright-change": "in-place",
        "description": "Further tags of the instance.",
    });
    let mut cluster = head(CLUSTER_CONFIG);
    cluster["workloads"] = json!({
        "type": "array",
        "x-fleetwright-change": "in-place",
        "description": "Pods that the simulated cluster keeps on its nodes.",
        "items": {
            "type": "object",
            "required": ["name", "replicas"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "namespace": {"type": "string", "default": "default"},
                "replicas": {"type": "integer", "minimum": 0},
                "minAvailable": {"type": "integer", "minimum": 0},
                "terminationSeconds": {"type": "number", "minimum": 0, "default": 1},
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

/// Mistakes in a `providerConfig` of ours, unknown fields included.
pub fn validate(config: &Value) -> Vec<ConfigError> {
    let kind = config["kind"].as_str().unwrap_or_default();
    let Some(schema) = schemas().into_iter().find(|s| s.kind == kind) else {
        return vec![ConfigError {
            field: "kind".into(),
            message: format!("{kind:?} is none of {MACHINE_CONFIG} and {CLUSTER_CONFIG}"),
        }];
    };
    let known = schema.schema["properties"].as_object();
    let mut errors: Vec<_> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !known.is_some_and(|k| k.contains_key(*key)))
        .map(|(key, _)| ConfigError {
            field: key.clone(),
            message: format!("{kind} has no field {key}"),
        })
        .collect();
    if let Some(kind) = config["instanceType"].as_str()
        && !INSTANCE_TYPES.iter().any(|(name, _, _)| *name == kind)
    {
        let all = INSTANCE_TYPES
            .iter()
            .map(|t| t.0)
            .collect::<Vec<_>>()
            .join(", ");
        errors.push(ConfigError {
            field: "instanceType".into(),
            message: format!("there is no type {kind}: choose one of {all}"),
        });
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let good = json!({"apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "a", "instanceType": "sim.large"});
        assert_eq!(validate(&good), vec![]);
        let mut bad = good.clone();
        bad["instanceType"] = json!("sim.huge");
        bad["instanceTpye"] = json!("x");
        let fields: Vec<_> = validate(&bad).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["instanceTpye", "instanceType"]);
        assert_eq!(validate(&json!({"kind": "Other"}))[0].field, "kind");
    }
}
