//! MachineHealthCheck: when a machine counts as broken, and what may be done about it.
//!
//! Fields follow Cluster API v1beta2. A broken machine is always marked (condition HealthCheckSucceeded); what `remediation` says
//! gates the replacement alone.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::machine_deployment::count_or_share;

/// When a machine counts as broken, and what may be done about it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "MachineHealthCheck",
    plural = "machinehealthchecks",
    shortname = "mhc",
    shortname = "mhcs",
    category = "fleetwright",
    namespaced,
    status = "MachineHealthCheckStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.clusterName","description":"Cluster"}"#,
    printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".status.expectedMachines","description":"Machines that are looked at"}"#,
    printcolumn = r#"{"name":"Healthy","type":"integer","jsonPath":".status.currentHealthy","description":"Machines that are not broken"}"#,
    printcolumn = r#"{"name":"Allowed","type":"string","jsonPath":".status.conditions[?(@.type==\"RemediationAllowed\")].status","description":"Broken machines may be replaced"}"#,
    printcolumn = r#"{"name":"Paused","type":"string","jsonPath":".status.conditions[?(@.type==\"Paused\")].status","description":"Controllers leave the check alone","priority":10}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MachineHealthCheckSpec {
    /// Name of the Cluster in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "clusterName is immutable: make another check for another cluster"}]))]
    pub cluster_name: String,
    /// Labels of the machines that are looked at.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
        "message": "an empty selector would take every machine: name at least one label",
    }]))]
    pub selector: LabelSelector,
    /// When a machine counts as broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<HealthChecks>,
    /// What may be done about broken machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<HealthRemediation>,
}

/// When a machine counts as broken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthChecks {
    /// Longest time until a machine's node appears, in seconds, counted from the latest of: the machine's creation, the
    /// cluster's first API server, the running instance. 0 switches this check off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 600, "x-kubernetes-validations" = [{"rule": "self == 0 || self >= 30", "message": "set 30 seconds or more, or 0 to switch the check off"}]))]
    pub node_startup_timeout_seconds: Option<i32>,
    /// Conditions of the node that break a machine when they last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy_node_conditions: Vec<UnhealthyCondition>,
    /// Conditions of the Machine that break it when they last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [{
        "rule": "self.all(c, !(c.type in ['Ready', 'Available', 'HealthCheckSucceeded', 'OwnerRemediated', 'ExternallyRemediated']))",
        "message": "Ready, Available, HealthCheckSucceeded, OwnerRemediated and ExternallyRemediated follow from this check: name another condition",
    }]))]
    pub unhealthy_machine_conditions: Vec<UnhealthyCondition>,
}

/// Default of `nodeStartupTimeoutSeconds`.
pub const DEFAULT_NODE_STARTUP_TIMEOUT_SECONDS: i32 = 600;

/// A condition that breaks a machine when it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyCondition {
    /// Its type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub kind: String,
    /// Its status.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// How long it must last, in seconds.
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
}

/// What may be done about broken machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthRemediation {
    /// How a broken worker is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "DeleteFirst"))]
    pub strategy: Option<RemediationStrategy>,
    /// When broken machines may be replaced at all; always when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_if: Option<TriggerIf>,
    /// When failures have too much in common for replacing machines to help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormBreaker>,
}

/// How a broken worker is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RemediationStrategy {
    /// It is deleted, then another is made in its place.
    #[default]
    DeleteFirst,
    /// Another is made; once that is available the broken one is deleted.
    ReplaceFirst,
}

/// When broken machines may be replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerIf {
    /// While at most so many machines are broken: a number, or a percentage of the machines looked at that rounds down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "100%", "x-kubernetes-validations" = count_or_share()))]
    pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
    /// While the number of broken machines is in this range, such as `[1-3]`; it wins over the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^\[[0-9]+-[0-9]+\]$"), length(max = 32))]
    pub unhealthy_in_range: Option<String>,
}

/// When failures have too much in common for replacing machines to help.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StormBreaker {
    /// Machines that break within `windowSeconds` with something in common (revision, image, failure domain, account) and stop
    /// remediation. 0 switches the breaker off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 5))]
    pub machines: Option<i32>,
    /// Within how many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 600))]
    pub window_seconds: Option<i32>,
}

/// Default of `storm.machines`.
pub const DEFAULT_STORM_MACHINES: i32 = 5;
/// Default of `storm.windowSeconds`.
pub const DEFAULT_STORM_WINDOW_SECONDS: i32 = 600;

/// What is known of the check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineHealthCheckStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Machines that are looked at.
    #[serde(default)]
    pub expected_machines: i32,
    /// Machines that are not broken; those that still start are among them.
    #[serde(default)]
    pub current_healthy: i32,
    /// How many more machines may break before remediation stops.
    #[serde(default)]
    pub remediations_allowed: i32,
    /// Names of broken machines (at most 100).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy: Vec<String>,
    /// Machines that broke within `storm.windowSeconds` (at most 100, the newest), those among them that were replaced since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub recent: Vec<Breakdown>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A machine that broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breakdown {
    /// Its name.
    pub machine: String,
    /// Its MachineSet, or its Cluster when it is of the control plane.
    pub owner: String,
    /// When it broke.
    pub time: Time,
    /// What it may have in common with others, such as `image ubuntu-24.04`.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub traits: Vec<String>,
}
