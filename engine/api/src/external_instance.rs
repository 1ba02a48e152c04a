//! ExternalInstance: a machine that is ordered of somebody else, and what becomes of the order.
//!
//! The spec is ours to write. The status is written by whoever makes machines: a person, a playbook, a controller of bare metal.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    machine::{MachineAddress, MachineTaint},
    provider_config::ProviderConfig,
};

/// A machine that is ordered of somebody else.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "ExternalInstance",
    plural = "externalinstances",
    shortname = "xi",
    category = "fleetwright",
    namespaced,
    status = "ExternalInstanceStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.clusterName","description":"Cluster"}"#,
    printcolumn = r#"{"name":"Machine","type":"string","jsonPath":".spec.machine","description":"Machine, and name of the node"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version","description":"Kubernetes version"}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.providerConfig.image","description":"Image that it is to boot"}"#,
    printcolumn = r#"{"name":"Secret","type":"string","jsonPath":".spec.userData.secretName","description":"Secret with what it runs at its first boot","priority":10}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state","description":"Empty: nobody has taken the order up"}"#,
    printcolumn = r#"{"name":"To Release","type":"date","jsonPath":".metadata.deletionTimestamp","description":"Since when the machine is to be given back"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ExternalInstanceSpec {
    /// Name of the ProviderAccount.
    #[schemars(length(min = 1, max = 63))]
    pub account: String,
    /// The installation of Fleetwright.
    pub installation: String,
    /// Name of the Cluster in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// The cluster's key: of the installation, the namespace and the name.
    pub cluster_key: String,
    /// The pool; empty for control-plane machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// The set; empty for control-plane machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// The Machine; the node has its name.
    #[schemars(length(min = 1, max = 63))]
    pub machine: String,
    /// The Machine's instance key: there is one order for each.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "instanceKey is immutable: it is what ties the order to its Machine"}]))]
    pub instance_key: String,
    /// What the node registers as its `spec.providerID` (the kubelet's `--provider-id`).
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// Whether it runs the control plane.
    #[serde(default)]
    pub control_plane: bool,
    /// Kubernetes version.
    pub version: String,
    /// Settings of the machine.
    pub provider_config: ProviderConfig,
    /// Digest of the settings that were written last.
    #[serde(default)]
    pub config_digest: String,
    /// Failure domain that it is to be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_domain: Option<String>,
    /// Labels that the node registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub taints: Vec<MachineTaint>,
    /// What it runs at its first boot; left out where the cluster is somebody else's: then whoever makes the machine joins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserDataRef>,
}

/// Where user data is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserDataRef {
    /// Secret in the same namespace: user data under `value`, `cloud-config` or `ignition` under `format`. It is there until the machine
    /// has joined.
    pub secret_name: String,
}

/// What became of the order, in the words of whoever makes machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalInstanceStatus {
    /// Where in its life the machine is; nobody has taken the order up while it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ExternalInstanceState>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Addresses: kubelets' serving certificates are approved for these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<MachineAddress>,
    /// Type of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub instance_type: Option<String>,
    /// Image that it was booted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
}

/// Where in its life the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalInstanceState {
    /// It is being made.
    Pending,
    /// It runs.
    Running,
    /// Somebody stopped it.
    Stopped,
    /// It will never run.
    Failed,
}
