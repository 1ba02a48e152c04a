//! Machine: one instance at a provider and its node.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{drift::MachineDrift, provider_config::ProviderConfig};

/// What a pool's, a set's and a control plane's template says of each machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplate {
    /// Labels and annotations of the machines; they flow down without replacing anything.
    #[serde(default, skip_serializing_if = "TemplateMeta::is_empty")]
    pub metadata: TemplateMeta,
    /// The machines' content.
    pub spec: MachineTemplateSpec,
}

/// Labels and annotations of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMeta {
    /// Whether there is neither a label nor an annotation.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// Content of a machine as its template says it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplateSpec {
    /// Kubernetes version such as v1.33.2. A pool may leave it out: it follows the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+].+)?$"),
        length(max = 256)
    )]
    pub version: Option<String>,
    /// The provider's settings.
    pub provider_config: ProviderConfig,
    /// Failure domain that the instance is to be made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    /// Seconds that a machine must be ready before it counts as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// Further conditions of the Machine that Ready takes into account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<ReadinessGate>,
    /// How machines are taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<MachineDeletion>,
    /// Taints kept on the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
}

/// A condition that Ready takes into account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGate {
    /// The condition's type.
    #[schemars(length(min = 1, max = 316))]
    pub condition_type: String,
    /// Positive (default): True is good. Negative: False is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polarity: Option<Polarity>,
}

/// Which status of a condition is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Polarity {
    /// True is good.
    Positive,
    /// False is good.
    Negative,
}

/// How a machine is taken away. Every time-out is finite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeletion {
    /// Longest time for the drain, in seconds; then the instance goes all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 1800))]
    pub node_drain_timeout_seconds: Option<i32>,
    /// Longest wait for volumes to be detached, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 600))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
    /// Longest time for deleting the Node object, in seconds, counted from when that step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 60))]
    pub node_deletion_timeout_seconds: Option<i32>,
}

/// Default of `nodeDrainTimeoutSeconds`.
pub const DEFAULT_NODE_DRAIN_TIMEOUT_SECONDS: i32 = 1800;
/// Default of `nodeVolumeDetachTimeoutSeconds`.
pub const DEFAULT_NODE_VOLUME_DETACH_TIMEOUT_SECONDS: i32 = 600;
/// Default of `nodeDeletionTimeoutSeconds`.
pub const DEFAULT_NODE_DELETION_TIMEOUT_SECONDS: i32 = 60;

/// A taint kept on the machine's node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTaint {
    /// Key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect.
    pub effect: TaintEffect,
    /// Always: kept in step. OnInitialization: put once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<TaintPropagation>,
}

/// A taint's effect.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TaintEffect {
    /// No new pods without a toleration.
    NoSchedule,
    /// Rather no new pods.
    PreferNoSchedule,
    /// Pods without a toleration are evicted.
    NoExecute,
}

impl TaintEffect {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// When a taint is put on the node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TaintPropagation {
    /// Kept in step with the Machine.
    Always,
    /// Put once, when the node appears.
    OnInitialization,
}

/// One instance at a provider and its node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "Machine",
    plural = "machines",
    shortname = "ma",
    category = "fleetwright",
    namespaced,
    status = "MachineStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.clusterName","description":"Cluster"}"#,
    printcolumn = r#"{"name":"Node Name","type":"string","jsonPath":".status.nodeRef.name","description":"Node of this machine"}"#,
    printcolumn = r#"{"name":"Provider ID","type":"string","jsonPath":".spec.providerID","description":"Provider's id of the instance","priority":10}"#,
    printcolumn = r#"{"name":"Failure Domain","type":"string","jsonPath":".status.failureDomain","description":"Failure domain that the instance is in"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Machine is ready"}"#,
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.conditions[?(@.type==\"Available\")].status","description":"Machine is available"}"#,
    printcolumn = r#"{"name":"Up-To-Date","type":"string","jsonPath":".status.conditions[?(@.type==\"UpToDate\")].status","description":"Machine is what its owner wants"}"#,
    printcolumn = r#"{"name":"Internal-IP","type":"string","jsonPath":".status.addresses[?(@.type==\"InternalIP\")].address","description":"Internal address","priority":10}"#,
    printcolumn = r#"{"name":"External-IP","type":"string","jsonPath":".status.addresses[?(@.type==\"ExternalIP\")].address","description":"External address","priority":10}"#,
    printcolumn = r#"{"name":"OS-Image","type":"string","jsonPath":".status.nodeInfo.osImage","description":"Operating system of the node","priority":10}"#,
    printcolumn = r#"{"name":"Paused","type":"string","jsonPath":".status.conditions[?(@.type==\"Paused\")].status","description":"Controllers leave the machine alone","priority":10}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Pending, Provisioning, Provisioned, Running, Deleting"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version","description":"Kubernetes version"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(oldSelf.instanceKey) || has(self.instanceKey)",
    "message": "instanceKey is immutable: it is what ties the machine to its one instance",
}]))]
pub struct MachineSpec {
    /// Name of the Cluster in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "clusterName is immutable: make another machine for another cluster"}]))]
    pub cluster_name: String,
    /// The machine's content, in the words of its template.
    #[serde(flatten)]
    pub content: MachineTemplateSpec,
    /// Provider's id of the instance, equal to the node's.
    #[serde(
        default,
        rename = "providerID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 1, max = 512))]
    pub provider_id: Option<String>,
    /// 128 random bits in hexadecimal, set when the Machine is made: client token and ownership tag of
    /// the one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "instanceKey is immutable: it is what ties the machine to its one instance"}]))]
    pub instance_key: Option<String>,
}

/// What is known of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where in its life the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ref: Option<NodeRef>,
    /// What the node says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_info: Option<NodeInfo>,
    /// Addresses of the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<MachineAddress>,
    /// Failure domain that the instance is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_domain: Option<String>,
    /// What the provider last showed of the instance, written on change. Type and image stay as they were first shown, or after our own
    /// last change of settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceView>,
    /// Why the machine goes, and when the steps of its deletion began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<MachineDeletionStatus>,
    /// How long conditions of the node that a health check looks at have been bad: what comes and goes adds up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub bad_conditions: Vec<BadCondition>,
    /// What differs though nobody declared it (at most 32 things); the first ones where there are more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub drift: Vec<MachineDrift>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// An instance as its provider shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceView {
    /// The provider's id of it.
    pub id: String,
    /// Pending, Running, Stopped, Failed or Deleting.
    pub state: String,
    /// Its type.
    pub instance_type: String,
    /// The image that it was made from.
    pub image: String,
    /// Digest of the settings that it has.
    pub config_digest: String,
}

/// Where in its life a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachinePhase {
    /// Nothing was asked of the provider yet.
    Pending,
    /// The instance is asked for.
    Provisioning,
    /// The instance runs, its node is not there yet.
    Provisioned,
    /// The node is there.
    Running,
    /// The machine is on its way out.
    Deleting,
}

/// How long a condition of the node has been bad. While it is bad the seconds go up, while it is good they go down, a quarter as
/// fast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BadCondition {
    /// The condition's type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub kind: String,
    /// Whether it is bad since `since`; it is good since then otherwise.
    pub bad: bool,
    /// When it last went from good to bad, or back.
    pub since: Time,
    /// Bad seconds that had added up by then.
    #[schemars(range(min = 0))]
    pub seconds: i64,
}

/// A node, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRef {
    /// The node's name.
    pub name: String,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Version of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_version: Option<String>,
    /// Operating system's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_image: Option<String>,
}

/// An address of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAddress {
    /// Hostname, InternalIP, ExternalIP, InternalDNS or ExternalDNS.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

impl MachineStatus {
    /// Whether the provider gives the machine this name: a host or DNS name, or the first label of one inside, as hosts call themselves.
    pub fn is_called(&self, name: &str) -> bool {
        let is = |known: &str| !name.is_empty() && known.eq_ignore_ascii_case(name);
        self.addresses.iter().any(|known| {
            let address = known.address.as_str();
            match known.kind.as_str() {
                "Hostname" | "InternalDNS" => {
                    is(address) || address.split('.').next().is_some_and(is)
                }
                "ExternalDNS" => is(address),
                _ => false,
            }
        })
    }
}

/// Why a machine goes, and when the steps of its deletion began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeletionStatus {
    /// Why it goes, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// The drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_drain_start_time: Option<Time>,
    /// The wait for volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_node_volume_detach_start_time: Option<Time>,
    /// The wait for pre-drain hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_pre_drain_hook_start_time: Option<Time>,
    /// The wait for pre-terminate hooks, or, without one, the instance's deletion: drain and volumes are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_pre_terminate_hook_start_time: Option<Time>,
    /// The deletion of the Node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_deletion_start_time: Option<Time>,
}
