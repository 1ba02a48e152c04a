//! Settings of control planes and groups of nodes as values; what the schema says of each field is not said again.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_providers::ProviderError;
use serde::Deserialize;
use serde_json::Value;

use super::schema::{CONTROL_PLANE_CONFIG, NODE_GROUP_CONFIG};
use crate::config::read;

/// Settings of a control plane.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ControlPlaneConfig {
    #[serde(rename = "roleARN")]
    pub(crate) role_arn: String,
    pub(crate) subnets: BTreeSet<String>,
    pub(crate) security_groups: Option<BTreeSet<String>>,
    pub(crate) endpoint_access: EndpointAccess,
    #[serde(default)]
    pub(crate) logging: BTreeSet<String>,
    #[serde(rename = "encryptionKeyARN")]
    pub(crate) encryption_key_arn: Option<String>,
    pub(crate) authentication_mode: String,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointAccess {
    pub(crate) public: bool,
    pub(crate) private: bool,
    #[serde(rename = "publicCIDRs")]
    pub(crate) public_cidrs: Option<BTreeSet<String>>,
}

/// Settings of a group of nodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeGroupConfig {
    #[serde(rename = "nodeRoleARN")]
    pub(crate) node_role_arn: String,
    pub(crate) subnets: BTreeSet<String>,
    pub(crate) instance_types: Vec<String>,
    pub(crate) ami_type: String,
    pub(crate) capacity_type: String,
    #[serde(rename = "diskSizeGiB")]
    pub(crate) disk_size_gib: i32,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) update: Option<Update>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scaling {
    pub(crate) min_size: i32,
    pub(crate) max_size: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Update {
    pub(crate) max_unavailable: Option<i32>,
    pub(crate) max_unavailable_percentage: Option<i32>,
}

/// The settings of a control plane.
///
/// # Errors
/// They are not right.
pub(crate) fn control_plane(config: &Value) -> Result<ControlPlaneConfig, ProviderError> {
    read(CONTROL_PLANE_CONFIG, "a control plane of EKS", config)
}

/// The settings of a group of nodes.
///
/// # Errors
/// They are not right.
pub(crate) fn node_group(config: &Value) -> Result<NodeGroupConfig, ProviderError> {
    read(NODE_GROUP_CONFIG, "a group of nodes of EKS", config)
}
