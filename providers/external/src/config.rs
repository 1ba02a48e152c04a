//! The kinds of `providerConfig`: what they allow is said here alone.

use fleetwright_providers::{ConfigSchema, ProviderError, config_errors};
use serde_json::{Value, json};

/// Name of the provider, as `ProviderAccount.spec.provider` has it.
pub const PROVIDER: &str = "external";
/// Group and version of the kinds.
pub const API_VERSION: &str = "external.fleetwright.dev/v1alpha1";
/// Settings of a machine.
pub const MACHINE_CONFIG: &str = "ExternalMachineConfig";
/// Settings of a cluster.
pub const CLUSTER_CONFIG: &str = "ExternalClusterConfig";

/// The operating system of images that nobody says one of.
pub(crate) const USUAL_OS: &str = "ubuntu-24.04";
/// The one field of a machine that changes in place.
pub(crate) const IN_PLACE: &str = "tags";

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

fn words(description: &str, change: &str) -> Value {
    json!({
        "type": "object", "maxProperties": 64, "x-fleetwright-change": change,
        "additionalProperties": {"type": "string", "maxLength": 256},
        "description": description,
    })
}

fn machine() -> Value {
    let mut fields = head(MACHINE_CONFIG);
    fields["hosts"] = words(
        "What a fitting machine has, in the words of whoever makes machines.",
        "replace",
    );
    fields["image"] = json!({
        "type": "string", "minLength": 1, "maxLength": 1024,
        "description": "Image that it boots, in the words of whoever makes machines.",
    });
    fields["os"] = json!({
        "type": "string", "enum": [USUAL_OS, "ubuntu-22.04", "debian-12", "flatcar"], "default": USUAL_OS,
        "description": "Operating system of the image: how it becomes a node.",
    });
    fields[IN_PLACE] = words(
        "Whatever else whoever makes machines is to know; it may change while the machine runs.",
        "in-place",
    );
    json!({
        "type": "object", "required": ["account"], "properties": fields,
        "x-fleetwright-cluster": {"kind": CLUSTER_CONFIG},
    })
}

fn cluster() -> Value {
    let mut fields = head(CLUSTER_CONFIG);
    fields["controlPlaneEndpoint"] = json!({
        "type": "object", "required": ["host"], "x-fleetwright-change": "in-place",
        "description": "The way to the API, which somebody else makes; it cannot change once the cluster serves.",
        "properties": {
            "host": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Host name or address."},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 6443, "description": "Port."},
        },
    });
    json!({
        "type": "object", "required": ["account", "controlPlaneEndpoint"], "properties": fields,
    })
}

/// All kinds.
pub fn schemas() -> Vec<ConfigSchema> {
    let of = |kind: &str, schema: Value| ConfigSchema {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        schema,
    };
    vec![of(MACHINE_CONFIG, machine()), of(CLUSTER_CONFIG, cluster())]
}

/// Refuses settings that are not right, or of another kind.
pub(crate) fn check(kind: &str, config: &Value) -> Result<(), ProviderError> {
    let mut errors = config_errors(&schemas(), config)
        .into_iter()
        .map(|e| format!("{}: {}", e.field, e.message));
    let message = match errors.next() {
        Some(first) => errors.fold(first, |all, next| format!("{all}; {next}")),
        None if config["kind"] != kind => format!("kind: {kind} is needed here"),
        None => return Ok(()),
    };
    Err(ProviderError::Terminal { message })
}
