//! The waves of a run's Fleet, and which of them an object of the repository is in, by rules of the simulation's own.

use serde_json::{Value, json};

use crate::chance::Chance;

/// Label of Clusters: a few have each value.
pub(crate) const RING: &str = "ring";
/// Label of some of the pools.
pub(crate) const EARLY: &str = "early";

/// A wave.
#[derive(Clone, Debug)]
struct Wave {
    /// It takes the Clusters of this ring; else all of them.
    ring: Option<u64>,
    /// It takes pools that are early, and nothing else.
    early: bool,
    soak: i64,
}

/// The waves of a run; there may be none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waves(Vec<Wave>);

/// The number in a name such as `c3` or `c3-1`: the last one.
fn number(name: &str) -> u64 {
    let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// Label that a Cluster has.
pub(crate) fn ring(cluster: &str) -> u64 {
    number(cluster) % 3
}

/// Whether a pool is early.
pub(crate) fn early(pool: &str) -> bool {
    number(pool).is_multiple_of(2)
}

impl Waves {
    /// Some runs have waves.
    pub(crate) fn draw(chance: &Chance) -> Self {
        if !chance.permille(400) {
            return Self::default();
        }
        let wave = |ring, early| Wave {
            ring,
            early,
            soak: *chance.pick(&[0, 0, 60, 240]),
        };
        let canary = wave(Some(0), false);
        Self(match chance.within(0, 4) {
            0 => vec![canary],
            1 => vec![canary, wave(Some(2), false)],
            2 => vec![wave(None, true), canary],
            _ => vec![canary, wave(Some(1), true)],
        })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the Fleet has them.
    pub(crate) fn spec(&self) -> Value {
        let labels = |is: Value| json!({"matchLabels": is});
        let wave = |(n, wave): (usize, &Wave)| {
            let mut spec = json!({"name": format!("wave-{n}"), "soakSeconds": wave.soak});
            if let Some(ring) = wave.ring {
                spec["clusters"] = labels(json!({RING: ring.to_string()}));
            }
            if wave.early {
                spec["pools"] = labels(json!({EARLY: "yes"}));
            }
            spec
        };
        self.0.iter().enumerate().map(wave).collect()
    }

    /// The place of the wave of that name; the last one where it is the rest.
    pub(crate) fn named(&self, name: &str) -> usize {
        let at = name.strip_prefix("wave-").and_then(|n| n.parse().ok());
        at.unwrap_or(self.0.len())
    }

    /// How long a place soaks, in seconds.
    pub(crate) fn soak(&self, place: usize) -> i64 {
        self.0.get(place).map_or(0, |wave| wave.soak)
    }

    /// The place of a Cluster.
    pub(crate) fn of_cluster(&self, cluster: &str) -> usize {
        self.first(cluster, None)
    }

    /// The place of a pool whose Cluster is there already.
    pub(crate) fn of_pool(&self, pool: &str, cluster: &str) -> usize {
        self.first(cluster, Some(pool))
    }

    fn first(&self, cluster: &str, pool: Option<&str>) -> usize {
        let takes = |wave: &Wave| {
            wave.ring.is_none_or(|r| r == ring(cluster)) && (!wave.early || pool.is_some_and(early))
        };
        self.0.iter().position(takes).unwrap_or(self.0.len())
    }
}

/// Gives the documents of Clusters and pools the labels that waves go by.
pub(crate) fn label(document: &mut Value) {
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    let labels = match document["kind"].as_str() {
        Some("Cluster") => json!({RING: ring(name).to_string()}),
        Some("MachineDeployment") if early(name) => json!({EARLY: "yes"}),
        _ => return,
    };
    document["metadata"]["labels"] = labels;
}
