//! Objects as the checker sees them: what the API stored, read by eyes of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What the checker looks at of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner_references: Vec<Owner>,
}

impl Meta {
    pub(crate) fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.owner_references.first().map(|o| o.name.as_str())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// An object of some kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Object<S, T> {
    pub(crate) metadata: Meta,
    pub(crate) spec: S,
    pub(crate) status: T,
}

/// A provider's settings, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub(crate) account: String,
    pub(crate) instance_type: Option<String>,
    pub(crate) image: Option<String>,
}

impl Config {
    /// Whether a machine of these settings is what `wanted` says, as far as it says something.
    pub(crate) fn fits(&self, wanted: &Self) -> bool {
        let same = |has: &Option<String>, wants: &Option<String>| wants.is_none() || has == wants;
        same(&self.instance_type, &wanted.instance_type) && same(&self.image, &wanted.image)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Deletion {
    pub(crate) node_drain_timeout_seconds: Option<i64>,
    pub(crate) node_drain_start_time: Option<String>,
    pub(crate) node_deletion_timeout_seconds: Option<i64>,
    pub(crate) node_deletion_start_time: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MachineSpec {
    pub(crate) cluster_name: String,
    pub(crate) version: Option<String>,
    pub(crate) provider_config: Config,
    pub(crate) instance_key: Option<String>,
    #[serde(rename = "providerID")]
    pub(crate) provider_id: Option<String>,
    pub(crate) deletion: Deletion,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MachineStatus {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) node_ref: Option<NodeRef>,
    pub(crate) deletion: Deletion,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct NodeRef {
    pub(crate) name: String,
}

pub(crate) type Machine = Object<MachineSpec, MachineStatus>;

/// The content of a condition.
pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Whether a condition is true.
pub(crate) fn is_true(conditions: &[Condition], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(|c| c.status == "True")
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Template {
    pub(crate) spec: MachineSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rolling {
    pub(crate) max_surge: Option<Value>,
    pub(crate) max_unavailable: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Strategy {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) rolling_update: Rolling,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Rollout {
    pub(crate) strategy: Strategy,
    pub(crate) after: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PoolSpec {
    pub(crate) cluster_name: String,
    pub(crate) replicas: i64,
    pub(crate) template: Template,
    pub(crate) rollout: Rollout,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) version: Option<String>,
}

pub(crate) type Pool = Object<PoolSpec, Status>;

impl Pool {
    /// Whether its machines are replaced when somebody deletes them, and not before.
    pub(crate) fn on_delete(&self) -> bool {
        self.spec.rollout.strategy.kind.as_deref() == Some("OnDelete")
    }

    /// The fewest machines that are to be available, and the most that there may be.
    pub(crate) fn bounds(&self) -> (i64, i64) {
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
pub(crate) struct SetSpec {
    pub(crate) cluster_name: String,
    pub(crate) replicas: i64,
    pub(crate) template: Template,
}

pub(crate) type Set = Object<SetSpec, Status>;

impl Set {
    /// Which of its pool's sets it is, counted from the first; the newest where that is not written yet.
    pub(crate) fn revision(&self) -> u64 {
        let written = self
            .metadata
            .annotations
            .get(fleetwright_api::meta::ANNOTATION_ROLLOUT_REVISION);
        written.and_then(|r| r.parse().ok()).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ControlPlane {
    pub(crate) machines: ControlPlaneMachines,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ControlPlaneMachines {
    pub(crate) replicas: i64,
    pub(crate) template: Template,
    pub(crate) rollout: Rollout,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClusterSpec {
    pub(crate) version: String,
    pub(crate) control_plane: ControlPlane,
}

pub(crate) type Cluster = Object<ClusterSpec, Status>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FleetStatus {
    pub(crate) observed: Option<Revision>,
    pub(crate) applied: Option<Revision>,
    pub(crate) settled: Option<Revision>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Revision {
    pub(crate) revision: String,
}

pub(crate) type FleetObject = Object<Empty, FleetStatus>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Content {
    pub(crate) state: String,
    pub(crate) description: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct WishSpec {
    pub(crate) sha: String,
    pub(crate) context: String,
    pub(crate) wanted: Content,
    pub(crate) observation: i64,
}

impl WishSpec {
    /// The cluster that it speaks of; `None` where it speaks of the whole commit.
    pub(crate) fn cluster(&self) -> Option<&str> {
        let (_, cluster) = self.context.split_once("/cluster/")?;
        cluster.split_once('.').map(|(_, name)| name)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct WishStatus {
    pub(crate) posted: Option<Content>,
}

pub(crate) type Wish = Object<WishSpec, WishStatus>;

/// Minor and patch of a version such as `v1.33.2`.
pub(crate) fn version(text: &str) -> (i64, i64) {
    let mut parts = text.trim_start_matches('v').split('.').skip(1);
    let mut next = || parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    (next(), next())
}
