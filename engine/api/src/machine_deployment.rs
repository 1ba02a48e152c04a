//! MachineDeployment: a pool of machines that is rolled when its content changes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{disruption::DisruptionBudget, machine::MachineTemplate, machine_set::SetDeletion};

/// A pool of machines.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "MachineDeployment",
    plural = "machinedeployments",
    shortname = "md",
    category = "fleetwright",
    namespaced,
    status = "MachineDeploymentStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.clusterName","description":"Cluster"}"#,
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.conditions[?(@.type==\"Available\")].status","description":"Enough machines are available"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".spec.replicas","description":"Wanted machines"}"#,
    printcolumn = r#"{"name":"Current","type":"integer","jsonPath":".status.replicas","description":"Machines there are"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.readyReplicas","description":"Ready machines"}"#,
    printcolumn = r#"{"name":"Available","type":"integer","jsonPath":".status.availableReplicas","description":"Available machines"}"#,
    printcolumn = r#"{"name":"Up-To-Date","type":"integer","jsonPath":".status.upToDateReplicas","description":"Machines that are what the pool wants"}"#,
    printcolumn = r#"{"name":"Paused","type":"string","jsonPath":".status.conditions[?(@.type==\"Paused\")].status","description":"Controllers leave the pool alone","priority":10}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"ScalingUp, ScalingDown, Running"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version","description":"Effective Kubernetes version"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.selector) == has(oldSelf.selector)",
        "message": "selector is immutable: leave it as it was, or make another pool",
    },
    selects_its_template(),
]))]
pub struct MachineDeploymentSpec {
    /// Name of the Cluster in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "clusterName is immutable: make another pool for another cluster"}]))]
    pub cluster_name: String,
    /// Wanted machines. When Git stops saying it, the live number stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// Labels by which machines belong to this pool; made from its name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "selector is immutable: leave it as it was, or make another pool"}]))]
    pub selector: Option<LabelSelector>,
    /// Content of the machines.
    pub template: MachineTemplate,
    /// How a changed content reaches the machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Which machines go first when scaling down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<SetDeletion>,
    /// Limits on replacing broken machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation>,
    /// How many machines of the pool may be out of service at once; no limit of its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionBudget>,
    /// Old sets that are kept, without machines, as history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 10))]
    pub revision_history_limit: Option<i32>,
}

/// Default of `revisionHistoryLimit`.
pub const DEFAULT_REVISION_HISTORY_LIMIT: i32 = 10;

/// How a changed content reaches the machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Machines of sets made before this time are replaced once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// The strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
}

/// Strategy of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStrategy {
    /// RollingUpdate (default) or OnDelete.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "RollingUpdate"))]
    pub kind: Option<StrategyType>,
    /// Bounds of a rolling update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Kind of a strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// Machines are replaced step by step.
    #[default]
    RollingUpdate,
    /// Machines are replaced when somebody deletes them.
    OnDelete,
}

/// Bounds of a rolling update; a number or a percentage of `replicas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.maxSurge) && has(self.maxUnavailable) && (type(self.maxSurge) == int ? int(self.maxSurge) == 0 : string(self.maxSurge).matches('^0+%$')) && (type(self.maxUnavailable) == int ? int(self.maxUnavailable) == 0 : string(self.maxUnavailable).matches('^0+%$')))",
    "message": "maxSurge and maxUnavailable cannot both be 0: set one of them to 1 or more",
}]))]
pub struct RollingUpdate {
    /// Machines above `replicas`; a percentage rounds up. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1, "x-kubernetes-validations" = count_or_share()))]
    pub max_surge: Option<IntOrString>,
    /// Machines below `replicas`; a percentage rounds down. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 0, "x-kubernetes-validations" = count_or_share()))]
    pub max_unavailable: Option<IntOrString>,
}

/// The rule that a selector, where one is written, selects what is made of the template. The pool's own labels need not be in it.
pub(crate) fn selects_its_template() -> serde_json::Value {
    serde_json::json!({
        "rule": "!has(self.selector) || !has(self.selector.matchLabels) || self.selector.matchLabels.all(k, k.startsWith('fleetwright.dev/') || (has(self.template.metadata) && has(self.template.metadata.labels) && k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))",
        "message": "selector does not match the template's labels: write the same labels into template.metadata.labels, or leave selector out",
        "fieldPath": ".selector",
    })
}

/// The rule of a number or a percentage.
pub(crate) fn count_or_share() -> serde_json::Value {
    serde_json::json!([{
        "rule": "type(self) == int ? int(self) >= 0 : string(self).matches('^[0-9]+%$')",
        "message": "write a number of machines, or a percentage such as \"25%\"",
    }])
}

/// Limits on replacing broken machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remediation {
    /// Most machines replaced at the same time; a number or a percentage that rounds up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = count_or_share()))]
    pub max_in_flight: Option<IntOrString>,
}

/// What is known of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeploymentStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The selector in its text form, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Machines there are.
    #[serde(default)]
    pub replicas: i32,
    /// Ready machines.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Available machines.
    #[serde(default)]
    pub available_replicas: i32,
    /// Machines that are what the pool wants.
    #[serde(default)]
    pub up_to_date_replicas: i32,
    /// Where the pool stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PoolPhase>,
    /// Effective version: the pool's own, or the one that the cluster lets it use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolPhase {
    /// Machines are being added.
    ScalingUp,
    /// Machines are being removed.
    ScalingDown,
    /// As many as wanted, all up to date and available.
    Running,
}
