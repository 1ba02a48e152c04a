//! Cluster: version, control plane and network; everything but the workers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    disruption::DisruptionBudget, machine::MachineTemplate, provider_config::ProviderConfig,
};

/// A Kubernetes cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "cl",
    category = "fleetwright",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.conditions[?(@.type==\"Available\")].status","description":"Control plane and workers are available"}"#,
    printcolumn = r#"{"name":"CP Desired","type":"integer","jsonPath":".status.controlPlane.desiredReplicas","description":"Wanted control-plane machines"}"#,
    printcolumn = r#"{"name":"CP Current","type":"integer","jsonPath":".status.controlPlane.replicas","description":"Control-plane machines there are","priority":10}"#,
    printcolumn = r#"{"name":"CP Ready","type":"integer","jsonPath":".status.controlPlane.readyReplicas","description":"Ready control-plane machines","priority":10}"#,
    printcolumn = r#"{"name":"CP Available","type":"integer","jsonPath":".status.controlPlane.availableReplicas","description":"Available control-plane machines"}"#,
    printcolumn = r#"{"name":"CP Up-To-Date","type":"integer","jsonPath":".status.controlPlane.upToDateReplicas","description":"Control-plane machines at the wanted content"}"#,
    printcolumn = r#"{"name":"W Desired","type":"integer","jsonPath":".status.workers.desiredReplicas","description":"Wanted workers"}"#,
    printcolumn = r#"{"name":"W Current","type":"integer","jsonPath":".status.workers.replicas","description":"Workers there are","priority":10}"#,
    printcolumn = r#"{"name":"W Ready","type":"integer","jsonPath":".status.workers.readyReplicas","description":"Ready workers","priority":10}"#,
    printcolumn = r#"{"name":"W Available","type":"integer","jsonPath":".status.workers.availableReplicas","description":"Available workers"}"#,
    printcolumn = r#"{"name":"W Up-To-Date","type":"integer","jsonPath":".status.workers.upToDateReplicas","description":"Workers at the wanted content"}"#,
    printcolumn = r#"{"name":"Paused","type":"string","jsonPath":".status.conditions[?(@.type==\"Paused\")].status","description":"Controllers leave the cluster alone","priority":10}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Pending, Provisioning, Provisioned, Deleting"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version","description":"Wanted Kubernetes version"}"#,
    printcolumn = r#"{"name":"Running","type":"string","jsonPath":".status.version","description":"Version that every control-plane machine runs","priority":10}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Kubernetes version such as v1.33.2. Below the running one it is accepted and held.
    #[schemars(
        regex(pattern = r"^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+].+)?$"),
        length(max = 256)
    )]
    pub version: String,
    /// Who runs the control plane.
    pub control_plane: ControlPlane,
    /// Networks of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_network: Option<ClusterNetwork>,
    /// The provider's settings for the cluster as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_config: Option<ProviderConfig>,
    /// How upgrades go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradePolicy>,
    /// How many machines of the cluster may be out of service at once; no limit of its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionBudget>,
    /// Manifests applied to the new cluster before its pools count, and again when they change; nothing of them is ever deleted there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub bootstrap_manifests: Vec<BootstrapManifest>,
}

/// Who runs the control plane: exactly one of the three, for ever.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.machines), has(self.managed), has(self.external)].filter(x, x).size() == 1",
        "message": "set exactly one of machines, managed and external",
    },
    {
        "rule": "has(self.machines) == has(oldSelf.machines) && has(self.managed) == has(oldSelf.managed)",
        "message": "the form of the control plane is immutable: make another cluster for another form",
    },
]))]
pub struct ControlPlane {
    /// Machines of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<ControlPlaneMachines>,
    /// The provider's own managed control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedControlPlane>,
    /// Somebody else's, reached by a kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalControlPlane>,
}

impl ControlPlane {
    /// Name of the ProviderAccount that it is made with; `None` for somebody else's.
    pub fn account(&self) -> Option<&str> {
        let machines = self.machines.as_ref();
        let of_machines = machines.map(|m| &m.template.spec.provider_config);
        let of_provider = || self.managed.as_ref().map(|m| &m.provider_config);
        of_machines
            .or_else(of_provider)
            .map(ProviderConfig::account)
    }
}

/// A control plane on machines of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneMachines {
    /// Wanted machines; odd, so that etcd keeps a quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9), extend("default" = 1, "x-kubernetes-validations" = [{"rule": "self % 2 == 1", "message": "an even number keeps no better quorum in etcd than the odd one below it: set 1, 3, 5, 7 or 9"}]))]
    pub replicas: Option<i32>,
    /// Content of the machines. Their version is the cluster's.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.spec.version)", "message": "the control plane's version is the cluster's: leave it out here"}]))]
    pub template: MachineTemplate,
    /// Limits on replacing broken machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<ControlPlaneRemediation>,
    /// What else than a changed content replaces machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<ControlPlaneRollout>,
}

/// Limits on replacing broken control-plane machines, as in Cluster API's KubeadmControlPlane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneRemediation {
    /// How often the replacement of a broken machine that breaks too is replaced again; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_retry: Option<i32>,
    /// Shortest time between two replacements of the same chain, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 0))]
    pub retry_period_seconds: Option<i32>,
    /// A machine that breaks sooner than so many seconds after it was made for a broken one continues its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 3600))]
    pub min_healthy_period_seconds: Option<i32>,
}

/// Default of `remediation.minHealthyPeriodSeconds`.
pub const DEFAULT_MIN_HEALTHY_PERIOD_SECONDS: i32 = 3600;

/// What else than a changed content replaces control-plane machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneRollout {
    /// Machines made before this time are replaced once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// Machines whose certificates expire within so many days are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 7))]
    pub certificates_expiry_days: Option<i32>,
}

/// A provider's managed control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.providerConfig.account == oldSelf.providerConfig.account && self.providerConfig.apiVersion == oldSelf.providerConfig.apiVersion && self.providerConfig.kind == oldSelf.providerConfig.kind",
    "message": "account, apiVersion and kind of a control plane that a provider runs are immutable: make another cluster",
}]))]
pub struct ManagedControlPlane {
    /// The provider's settings.
    pub provider_config: ProviderConfig,
}

/// Somebody else's control plane. `spec.version` says what its user takes it to run; nothing here changes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalControlPlane {
    /// Secret in the same namespace whose key `value` is a kubeconfig.
    pub kubeconfig_secret_ref: LocalSecretRef,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalSecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Networks of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetwork {
    /// Port of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub api_server_port: Option<i32>,
    /// Addresses of Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<NetworkRanges>,
    /// Addresses of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NetworkRanges>,
    /// DNS domain of Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_domain: Option<String>,
}

/// Address ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    /// CIDR blocks.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 43)), extend("x-kubernetes-list-type" = "atomic"))]
    pub cidr_blocks: Vec<String>,
}

/// How upgrades of the control plane go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePolicy {
    /// Control-plane machines above `replicas` while one is replaced: 1, or 0 where there is no spare
    /// machine (needs at least three replicas).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1), extend("default" = 1))]
    pub max_surge: Option<i32>,
}

/// Manifests applied to the new cluster: a path in the repository or a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.path) != has(self.configMap)", "message": "set exactly one of path and configMap"}]))]
pub struct BootstrapManifest {
    /// File with YAML or JSON documents, as a path from the folder that the Fleet follows; for Clusters in Git alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// ConfigMap in the same namespace, whose values are YAML or JSON documents; those of keys that end in `.gz` are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// SHA-256 of the content, in hexadecimal digits. Not written by hand: whoever reads the repository fills it in, so that a changed
    /// manifest is a change of the Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub content_hash: Option<String>,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where in its life the cluster is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ClusterPhase>,
    /// Milestones that are never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialization: Option<ClusterInitialization>,
    /// SHA-256 of all bootstrap manifests together as they were last applied, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_manifests_hash: Option<String>,
    /// Version that every control-plane machine runs: what pools without a version of their own use. Of somebody else's control plane it is
    /// the oldest version that its API said within ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Newest version that a control-plane machine has or is to get, while it is not the running one: pools keep within three
    /// minors of it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrading_to: Option<String>,
    /// Where the API server listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// Counts of control-plane machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<MachineCounts>,
    /// Counts of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<MachineCounts>,
    /// Failure domains that control-plane machines are spread over, as the provider has them (at most 100).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub failure_domains: Vec<String>,
    /// Instances that carry the cluster's key but belong to no Machine (at most 100).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unmanaged_instances: Vec<String>,
    /// Instances that carry the key of one Machine together (at most 100).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub duplicate_instances: Vec<String>,
    /// Nodes of somebody else's cluster that belong to no Machine: they are never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged_nodes: Option<i32>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where in its life a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterPhase {
    /// Nothing was made yet.
    Pending,
    /// The control plane is being made.
    Provisioning,
    /// The control plane serves.
    Provisioned,
    /// The cluster is on its way out.
    Deleting,
}

/// Milestones of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInitialization {
    /// An API server of the control plane has served.
    #[serde(default)]
    pub control_plane_initialized: bool,
    /// All bootstrap manifests have been applied once; or there were none when the control plane began to serve.
    #[serde(default)]
    pub bootstrap_manifests_applied: bool,
}

/// Host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Host.
    pub host: String,
    /// Port.
    pub port: i32,
}

/// Counts of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineCounts {
    /// Wanted.
    #[serde(default)]
    pub desired_replicas: i32,
    /// There are.
    #[serde(default)]
    pub replicas: i32,
    /// Ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Available.
    #[serde(default)]
    pub available_replicas: i32,
    /// Up to date.
    #[serde(default)]
    pub up_to_date_replicas: i32,
}
