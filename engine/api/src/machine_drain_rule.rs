//! MachineDrainRule: which pods a drain evicts, in which order, and which it leaves or waits for. As in Cluster API v1beta2.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pods a drain evicts, in which order, and which it leaves or waits for. Rules are looked at by name; the first that
/// matches a machine and a pod decides.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "MachineDrainRule",
    plural = "machinedrainrules",
    category = "fleetwright",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Behavior","type":"string","jsonPath":".spec.drain.behavior","description":"Drain, Skip or WaitCompleted"}"#,
    printcolumn = r#"{"name":"Order","type":"integer","jsonPath":".spec.drain.order","description":"Pods of a lower order go first"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MachineDrainRuleSpec {
    /// What is done with the pods.
    pub drain: DrainRule,
    /// Machines of the same namespace that the rule holds for; all when empty. One entry must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = each_once("machines")))]
    pub machines: Vec<DrainRuleMachines>,
    /// Pods that the rule holds for; all when empty. One entry must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = each_once("pods")))]
    pub pods: Vec<DrainRulePods>,
}

/// The rule of a list without repetitions.
fn each_once(list: &str) -> serde_json::Value {
    serde_json::json!([{
        "rule": "self.all(x, self.exists_one(y, x == y))",
        "message": format!("entries in {list} must be unique: leave out what is there already"),
    }])
}

/// The rule of a selector: its operators are those that Kubernetes knows.
fn known_operators() -> serde_json::Value {
    serde_json::json!([{
        "rule": "!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",
        "message": "an operator of matchExpressions is none of In, NotIn, Exists and DoesNotExist",
    }])
}

/// What is done with the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.behavior == 'Drain' || !has(self.order)",
    "message": "order is for behavior Drain alone: leave it out",
}]))]
pub struct DrainRule {
    /// What is done.
    pub behavior: DrainBehavior,
    /// Pods of a lower order go first; 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
}

/// What is done with a pod when its node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainBehavior {
    /// It is evicted.
    #[default]
    Drain,
    /// It is left alone.
    Skip,
    /// It is not evicted, and its end is waited for.
    WaitCompleted,
}

/// Machines: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DrainRuleMachines {
    /// Labels of the Machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = known_operators()))]
    pub selector: Option<LabelSelector>,
    /// Labels of the Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = known_operators()))]
    pub cluster_selector: Option<LabelSelector>,
}

/// Pods: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DrainRulePods {
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = known_operators()))]
    pub selector: Option<LabelSelector>,
    /// Labels of the pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = known_operators()))]
    pub namespace_selector: Option<LabelSelector>,
}
