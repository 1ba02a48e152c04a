//! The kinds of `providerConfig` of EKS: what they allow is said here alone.

use fleetwright_providers::ConfigSchema;
use serde_json::{Value, json};

use crate::schema::{API_VERSION, SUBNET, head, security_groups, tags};

/// Settings of a control plane that EKS runs.
pub(crate) const CONTROL_PLANE_CONFIG: &str = "EKSControlPlaneConfig";
/// Settings of a managed group of nodes.
pub(crate) const NODE_GROUP_CONFIG: &str = "EKSNodeGroupConfig";

const ROLE: &str = "^arn:[a-z-]+:iam::[0-9]{12}:role/.+$";

fn role(description: &str) -> Value {
    json!({
        "type": "string", "pattern": ROLE, "maxLength": 2048, "x-fleetwright-change": "replace",
        "description": description,
    })
}

fn subnets(least: usize, change: &str, description: &str) -> Value {
    json!({
        "type": "array", "minItems": least, "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "pattern": SUBNET}, "x-fleetwright-change": change,
        "description": description,
    })
}

fn control_plane() -> Value {
    let mut fields = head(CONTROL_PLANE_CONFIG);
    let mut add = |name: &str, schema: Value| fields[name] = schema;
    add(
        "roleARN",
        role("ARN of the role by which EKS acts for the cluster. It cannot change."),
    );
    add(
        "subnets",
        subnets(
            2,
            "in-place",
            "Ids of subnets in at least two availability zones, where EKS puts its network interfaces. Others must be of the same zones and VPC.",
        ),
    );
    add("securityGroups", security_groups("further", "in-place"));
    add(
        "endpointAccess",
        json!({
            "type": "object", "default": {}, "x-fleetwright-change": "in-place",
            "description": "From where the API can be reached.",
            "properties": {
                "public": {"type": "boolean", "default": true, "description": "From the internet, with credentials."},
                "private": {"type": "boolean", "default": true, "description": "From within the VPC."},
                "publicCIDRs": {
                    "type": "array", "minItems": 1, "maxItems": 40, "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"},
                    "description": "Blocks of addresses that may reach it from the internet; all when left out.",
                },
            },
            "x-kubernetes-validations": [{
                "rule": "!has(self.public) || self.public || !has(self.private) || self.private",
                "message": "somebody must be able to reach the API: set public or private",
            }],
        }),
    );
    add(
        "logging",
        json!({
            "type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "x-fleetwright-change": "in-place",
            "items": {"type": "string", "enum": ["api", "audit", "authenticator", "controllerManager", "scheduler"]},
            "description": "Logs that go to CloudWatch.",
        }),
    );
    add(
        "encryptionKeyARN",
        json!({
            "type": "string", "pattern": "^arn:[a-z-]+:kms:.+$", "maxLength": 2048, "x-fleetwright-change": "replace",
            "description": "ARN of the key that encrypts Secrets once more. It cannot change.",
        }),
    );
    add(
        "authenticationMode",
        json!({
            "type": "string", "enum": ["API", "API_AND_CONFIG_MAP"], "default": "API_AND_CONFIG_MAP", "x-fleetwright-change": "in-place",
            "description": "Where EKS looks up who may do what: its access entries, or ConfigMap aws-auth as well. From API there is no way back.",
        }),
    );
    add("tags", tags("the control plane"));
    json!({
        "type": "object", "required": ["account", "roleARN", "subnets"], "properties": fields,
        "x-fleetwright-for": "ControlPlane",
    })
}

fn node_group() -> Value {
    let mut fields = head(NODE_GROUP_CONFIG);
    let mut add = |name: &str, schema: Value| fields[name] = schema;
    add(
        "nodeRoleARN",
        role("ARN of the role that nodes have. It cannot change."),
    );
    add(
        "subnets",
        subnets(
            1,
            "replace",
            "Ids of subnets that nodes are in. They cannot change.",
        ),
    );
    add(
        "instanceTypes",
        json!({
            "type": "array", "minItems": 1, "maxItems": 20, "default": ["t3.medium"], "x-kubernetes-list-type": "set",
            "items": {"type": "string", "pattern": "^[a-z0-9-]+\\.[a-z0-9-]+$", "maxLength": 64},
            "description": "Types of instances, the first that there is. They cannot change.",
        }),
    );
    add(
        "amiType",
        json!({
            "type": "string", "pattern": "^[A-Z0-9_a-z]+$", "maxLength": 64, "default": "AL2023_x86_64_STANDARD",
            "description": "Which of EKS' images nodes boot, such as AL2023_ARM_64_STANDARD or BOTTLEROCKET_x86_64. It cannot change.",
        }),
    );
    add(
        "capacityType",
        json!({
            "type": "string", "enum": ["ON_DEMAND", "SPOT"], "default": "ON_DEMAND",
            "description": "Whether nodes are spot instances. It cannot change.",
        }),
    );
    add(
        "diskSizeGiB",
        json!({
            "type": "integer", "minimum": 1, "maximum": 16384, "default": 20,
            "description": "Size of each node's disk. It cannot change.",
        }),
    );
    add(
        "scaling",
        json!({
            "type": "object", "required": ["minSize", "maxSize"], "x-fleetwright-change": "in-place",
            "description": "Bounds for whoever else scales the group, such as the cluster autoscaler; 0 and the pool's replicas when left out.",
            "properties": {
                "minSize": {"type": "integer", "minimum": 0, "maximum": 10_000, "description": "Fewest nodes."},
                "maxSize": {"type": "integer", "minimum": 1, "maximum": 10_000, "description": "Most nodes."},
            },
            "x-kubernetes-validations": [{
                "rule": "self.minSize <= self.maxSize", "message": "minSize is above maxSize",
            }],
        }),
    );
    add(
        "update",
        json!({
            "type": "object", "x-fleetwright-change": "in-place",
            "description": "How many nodes are replaced at once when their version changes; 1 when left out.",
            "properties": {
                "maxUnavailable": {"type": "integer", "minimum": 1, "maximum": 100, "description": "So many."},
                "maxUnavailablePercentage": {"type": "integer", "minimum": 1, "maximum": 100, "description": "So many of a hundred."},
            },
            "x-kubernetes-validations": [{
                "rule": "has(self.maxUnavailable) != has(self.maxUnavailablePercentage)",
                "message": "set one of maxUnavailable and maxUnavailablePercentage",
            }],
        }),
    );
    add("tags", tags("the group"));
    json!({
        "type": "object", "required": ["account", "nodeRoleARN", "subnets"], "properties": fields,
        "x-fleetwright-for": "Pool",
    })
}

/// The schemas of both kinds.
pub(crate) fn schemas() -> Vec<ConfigSchema> {
    let schema = |kind: &str, schema: Value| ConfigSchema {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        schema,
    };
    vec![
        schema(CONTROL_PLANE_CONFIG, control_plane()),
        schema(NODE_GROUP_CONFIG, node_group()),
    ]
}
