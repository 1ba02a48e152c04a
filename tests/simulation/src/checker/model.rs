//! Objects as the checker sees them: what the API stored, read by eyes of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What the checker looks at of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub deletion_timestamp: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<Owner>,
}

impl Meta {
    pub fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn owner(&self) -> Option<&str> {
        self.owner_references.first().map(|o| o.name.as_str())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    pub name: String,
    pub kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// An object of some kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Object<S, T> {
    pub metadata: Meta,
    pub spec: S,
    pub status: T,
}

/// A provider's settings, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    pub account: String,
    pub instance_type: Option<String>,
    pub image: Option<String>,
}

impl Config {
    /// Whether a machine of these settings is what `wanted` says, as far as it says something.
    pub fn fits(&self, wanted: &Self) -> bool {
        let same = |has: &Option<String>, wants: &Option<String>| wants.is_none() || has == wants;
        same(&self.instance_type, &wanted.instance_type) && same(&self.image, &wanted.image)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deletion {
    pub node_drain_timeout_seconds: Option<i64>,
    pub node_drain_start_time: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    pub cluster_name: String,
    pub version: Option<String>,
    pub provider_config: Config,
    pub instance_key: Option<String>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub deletion: Deletion,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    pub conditions: Vec<Condition>,
    pub node_ref: Option<NodeRef>,
    pub deletion: Deletion,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeRef {
    pub name: String,
}

pub type Machine = Object<MachineSpec, MachineStatus>;

/// The content of a condition.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Whether a condition is true.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(|c| c.status == "True")
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Template {
    pub spec: MachineSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rolling {
    pub max_surge: Option<Value>,
    pub max_unavailable: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    pub rolling_update: Rolling,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rollout {
    pub strategy: Strategy,
    pub after: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSpec {
    pub cluster_name: String,
    pub replicas: i64,
    pub template: Template,
    pub rollout: Rollout,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub conditions: Vec<Condition>,
    pub version: Option<String>,
}

pub type Pool = Object<PoolSpec, Status>;

impl Pool {
    /// The fewest machines that are to be available, and the most that there may be.
    pub fn bounds(&self) -> (i64, i64) {
        let replicas = self.spec.replicas;
        let scaled = |value: &Option<Value>, default: i64, up: bool| match value {
            None => default,
            Some(Value::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                let product = percent * replicas;
                if up {
                    (product + 99) / 100
                } else {
                    product / 100
                }
            }
            Some(number) => number.as_i64().unwrap_or(0),
        };
        let rolling = &self.spec.rollout.strategy.rolling_update;
        let surge = scaled(&rolling.max_surge, 1, true);
        let mut unavailable = scaled(&rolling.max_unavailable, 0, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        ((replicas - unavailable).max(0), replicas + surge)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetSpec {
    pub cluster_name: String,
    pub replicas: i64,
    pub template: Template,
}

pub type Set = Object<SetSpec, Status>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlane {
    pub machines: ControlPlaneMachines,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ControlPlaneMachines {
    pub replicas: i64,
    pub template: Template,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    pub version: String,
    pub control_plane: ControlPlane,
}

pub type Cluster = Object<ClusterSpec, Status>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetStatus {
    pub observed: Option<Revision>,
    pub applied: Option<Revision>,
    pub settled: Option<Revision>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Revision {
    pub revision: String,
}

pub type FleetObject = Object<Empty, FleetStatus>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Content {
    pub state: String,
    pub description: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WishSpec {
    pub sha: String,
    pub wanted: Content,
    pub observation: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WishStatus {
    pub posted: Option<Content>,
}

pub type Wish = Object<WishSpec, WishStatus>;

/// Minor and patch of a version such as `v1.33.2`.
pub fn version(text: &str) -> (i64, i64) {
    let mut parts = text.trim_start_matches('v').split('.').skip(1);
    let mut next = || parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    (next(), next())
}
