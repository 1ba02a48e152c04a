//! What the repository says: clusters and pools, drawn and changed by chance, as documents.

use std::collections::BTreeMap;

use fleetwright_api::{
    meta::{ANNOTATION_ALLOW_DELETE, LABEL_CLUSTER_NAME},
    time::rfc3339_seconds,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{chance::Chance, waves};

/// Versions that there are, one patch of each minor version but for one.
pub(crate) const VERSIONS: [&str; 6] = [
    "v1.31.4", "v1.32.2", "v1.33.1", "v1.33.4", "v1.34.1", "v1.35.0",
];
/// Accounts with their regions.
pub(crate) const ACCOUNTS: [(&str, &str); 2] = [("sim-eu", "eu"), ("sim-us", "us")];
/// Seconds that a drain may take.
pub(crate) const DRAIN_SECONDS: i64 = 240;
/// Machines that there are at least.
pub(crate) const LEAST_MACHINES: usize = 30;

/// Clusters that there are at least.
pub(crate) const LEAST_CLUSTERS: u64 = 3;

const TYPES: [&str; 3] = ["sim.small", "sim.medium", "sim.large"];
const IMAGES: [&str; 3] = ["ubuntu-24.04", "ubuntu-26.04", "debian-13"];

/// A pool as the repository has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    /// Its replicas; `None` where the repository does not say.
    pub(crate) replicas: Option<i64>,
    /// Replicas that it begins with.
    first: i64,
    instance_type: Option<usize>,
    image: Option<usize>,
    tag: u64,
    label: u64,
    taint: bool,
    surge: Value,
    unavailable: Value,
    min_ready: i64,
    /// Index of its own version; `None` where it follows its cluster's.
    version: Option<usize>,
    /// Somebody deletes the machines that are to be replaced.
    on_delete: bool,
    /// Machines made before this time are replaced.
    after: Option<String>,
    /// Machines that may be out of service at once.
    disruption: Option<Value>,
    /// Broken machines that may be replaced at once.
    in_flight: Option<Value>,
    /// Old sets that are kept.
    history: Option<u64>,
}

/// A cluster as the repository has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cluster {
    /// Index of its version.
    pub(crate) version: usize,
    /// Control-plane machines.
    pub(crate) replicas: i64,
    account: usize,
    instance_type: Option<usize>,
    /// Workloads: replicas, and whether the budget lets none of them go.
    workloads: Vec<(i64, bool)>,
    /// Seconds that a pod takes to end.
    ends: u64,
    /// Each node has a pod of a DaemonSet.
    daemon: bool,
    /// What a drain does with the pods of the first workload, if a rule says so.
    rule: Option<Value>,
    /// Machines that may be out of service at once.
    disruption: Option<Value>,
    /// What reaches its control-plane machines in place.
    label: u64,
    /// Control-plane machines made before this time are replaced.
    after: Option<String>,
    /// Uid of the object that may be deleted.
    pub(crate) consent: Option<String>,
    /// Its health check, if it has one.
    health: Option<Health>,
    /// Its pools.
    pub(crate) pools: BTreeMap<String, Pool>,
}

/// A health check of all machines of a cluster.
#[derive(Clone, Debug, PartialEq)]
struct Health {
    /// Seconds that a node may be unwell.
    patience: u64,
    /// Another one comes before the broken one goes.
    replace_first: bool,
}

/// All that the repository says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fleet {
    /// Its clusters.
    pub(crate) clusters: BTreeMap<String, Cluster>,
    next_pool: u64,
    next_cluster: u64,
    /// Clusters and pools have the labels that waves go by.
    labelled: bool,
}

fn option(chance: &Chance, of: usize) -> Option<usize> {
    chance.permille(700).then(|| chance.index(of))
}

fn seldom<T: Clone>(chance: &Chance, permille: u64, of: &[T]) -> Option<T> {
    chance.permille(permille).then(|| chance.pick(of).clone())
}

/// A version of its own for a pool of a cluster of that version: none that an upgrade of the cluster leaves too far behind.
fn pinned(chance: &Chance, cluster: usize) -> Option<usize> {
    (cluster > 0).then(|| 1 + chance.index(cluster))
}

impl Pool {
    fn draw(chance: &Chance, cluster: usize) -> Self {
        let (surge, unavailable) = chance
            .pick(&[
                (json!(1), json!(0)),
                (json!(0), json!(1)),
                (json!(2), json!(1)),
                (json!("50%"), json!("25%")),
                (json!("25%"), json!("0%")),
            ])
            .clone();
        let first = chance.within(2, 7).cast_signed();
        Self {
            replicas: Some(first),
            first,
            instance_type: option(chance, TYPES.len()),
            image: option(chance, IMAGES.len()),
            tag: 0,
            label: 0,
            taint: chance.permille(200),
            surge,
            unavailable,
            min_ready: *chance.pick(&[0, 0, 10, 60]),
            version: pinned(chance, cluster).filter(|_| chance.permille(80)),
            on_delete: chance.permille(60),
            after: None,
            disruption: seldom(chance, 100, &[json!(1), json!(2), json!("50%")]),
            in_flight: seldom(chance, 150, &[json!(1), json!(2), json!("25%")]),
            history: seldom(chance, 150, &[0, 1, 2]),
        }
    }

    fn document(&self, name: &str, cluster: &str, account: &str) -> Value {
        let mut config = machine_config(account, self.instance_type, self.image);
        if self.tag > 0 {
            config["tags"] = json!({"team": format!("team-{}", self.tag)});
        }
        let metadata = metadata(self.label);
        let mut spec = json!({
            "providerConfig": config,
            "minReadySeconds": self.min_ready,
            "deletion": {"nodeDrainTimeoutSeconds": DRAIN_SECONDS, "nodeVolumeDetachTimeoutSeconds": 60, "nodeDeletionTimeoutSeconds": 30},
        });
        if self.taint {
            spec["taints"] = json!([{"key": "example.org/special", "value": "yes", "effect": "NoSchedule", "propagation": "Always"}]);
        }
        if let Some(version) = self.version {
            spec["version"] = json!(VERSIONS[version]);
        }
        let strategy = match self.on_delete {
            true => json!({"type": "OnDelete"}),
            false => json!({"type": "RollingUpdate", "rollingUpdate": {
                "maxSurge": self.surge, "maxUnavailable": self.unavailable,
            }}),
        };
        let mut document = json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "clusterName": cluster,
                "template": {"metadata": metadata, "spec": spec},
                "rollout": {"strategy": strategy},
            },
        });
        if let Some(after) = &self.after {
            document["spec"]["rollout"]["after"] = json!(after);
        }
        if let Some(most) = &self.disruption {
            document["spec"]["disruption"] = json!({"maxUnavailable": most});
        }
        if let Some(most) = &self.in_flight {
            document["spec"]["remediation"] = json!({"maxInFlight": most});
        }
        if let Some(limit) = self.history {
            document["spec"]["revisionHistoryLimit"] = json!(limit);
        }
        if let Some(replicas) = self.replicas {
            document["spec"]["replicas"] = json!(replicas);
        }
        document
    }
}

/// A template's metadata: all of it reaches machines and nodes in place.
fn metadata(label: u64) -> Value {
    let mut metadata = json!({"labels": {}});
    if label > 0 {
        metadata["labels"]["node.fleetwright.dev/tier"] = json!(format!("tier-{label}"));
    }
    if label > 1 {
        metadata["labels"]["example.org/odd"] = json!((label % 2 == 1).to_string());
        metadata["annotations"] = json!({"node.fleetwright.dev/note": format!("note {label}")});
    }
    metadata
}

fn machine_config(account: &str, kind: Option<usize>, image: Option<usize>) -> Value {
    let mut config = json!({
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig",
        "account": account, "bootSeconds": 20,
    });
    if let Some(kind) = kind {
        config["instanceType"] = json!(TYPES[kind]);
    }
    if let Some(image) = image {
        config["image"] = json!(IMAGES[image]);
    }
    config
}

impl Cluster {
    fn draw(chance: &Chance, name: &str, pools: u64) -> Self {
        let mut cluster = Self {
            version: chance.index(3),
            replicas: *chance.pick(&[1, 3, 3]),
            account: chance.index(ACCOUNTS.len()),
            instance_type: option(chance, TYPES.len()),
            workloads: Vec::new(),
            ends: *chance.pick(&[1, 1, 1, 15]),
            daemon: chance.permille(150),
            rule: seldom(
                chance,
                200,
                &[
                    json!({"behavior": "Skip"}),
                    json!({"behavior": "Drain", "order": 10}),
                ],
            ),
            disruption: seldom(chance, 100, &[json!(2), json!("40%")]),
            label: 0,
            after: None,
            consent: None,
            health: chance.permille(600).then(|| Health::draw(chance)),
            pools: BTreeMap::new(),
        };
        for _ in 0..chance.within(1, 3) {
            let workload = (chance.within(1, 4).cast_signed(), chance.permille(350));
            cluster.workloads.push(workload);
        }
        for n in 0..pools {
            cluster
                .pools
                .insert(format!("{name}-{n}"), Pool::draw(chance, cluster.version));
        }
        cluster
    }

    fn machines(&self) -> i64 {
        self.replicas + self.pools.values().map(|p| p.first).sum::<i64>()
    }

    fn account(&self) -> &'static str {
        ACCOUNTS[self.account].0
    }

    fn document(&self, name: &str) -> Value {
        let mut workloads: Vec<Value> = self
            .workloads
            .iter()
            .enumerate()
            .map(|(n, (replicas, blocks))| {
                let least = if *blocks { *replicas } else { replicas - 1 };
                json!({
                    "name": format!("app-{n}"), "replicas": replicas, "minAvailable": least,
                    "startSeconds": 2, "terminationSeconds": self.ends,
                })
            })
            .collect();
        if self.daemon {
            workloads.push(json!({"name": "agent", "replicas": 1, "kind": "DaemonSet"}));
        }
        let consent = self.consent.as_ref();
        let annotations = consent.map(|uid| json!({ANNOTATION_ALLOW_DELETE: uid}));
        let mut config = machine_config(self.account(), self.instance_type, None);
        if self.label > 0 {
            config["tags"] = json!({"team": format!("team-{}", self.label)});
        }
        let mut document = json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations.unwrap_or_else(|| json!({}))},
            "spec": {
                "version": VERSIONS[self.version],
                "controlPlane": {"machines": {"replicas": self.replicas, "template": {"metadata": metadata(self.label), "spec": {
                    "providerConfig": config,
                    "deletion": {"nodeDrainTimeoutSeconds": DRAIN_SECONDS, "nodeVolumeDetachTimeoutSeconds": 60, "nodeDeletionTimeoutSeconds": 30},
                }}}},
                "providerConfig": {
                    "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimClusterConfig",
                    "account": self.account(), "workloads": workloads,
                },
            },
        });
        if let Some(after) = &self.after {
            document["spec"]["controlPlane"]["machines"]["rollout"] = json!({"after": after});
        }
        if let Some(most) = &self.disruption {
            document["spec"]["disruption"] = json!({"maxUnavailable": most});
        }
        document
    }

    /// The rule for drains of its machines, if it has one.
    fn rule(&self, name: &str) -> Option<Value> {
        let drain = self.rule.as_ref()?;
        let labels = |of: Value| json!([{"selector": {"matchLabels": of}}]);
        Some(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDrainRule",
            "metadata": {"name": format!("{name}-drain"), "namespace": "default"},
            "spec": {
                "drain": drain,
                "machines": labels(json!({LABEL_CLUSTER_NAME: name})),
                "pods": labels(json!({"app": "app-0"})),
            },
        }))
    }
}

impl Health {
    fn draw(chance: &Chance) -> Self {
        Self {
            patience: *chance.pick(&[60, 180, 400]),
            replace_first: chance.permille(400),
        }
    }

    fn document(&self, cluster: &str) -> Value {
        let unwell = |kind: &str, status: &str| json!({"type": kind, "status": status, "timeoutSeconds": self.patience});
        let strategy = match self.replace_first {
            true => "ReplaceFirst",
            false => "DeleteFirst",
        };
        json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineHealthCheck",
            "metadata": {"name": format!("{cluster}-health"), "namespace": "default"},
            "spec": {
                "clusterName": cluster,
                "selector": {"matchLabels": {LABEL_CLUSTER_NAME: cluster}},
                "checks": {
                    "nodeStartupTimeoutSeconds": 300,
                    "unhealthyNodeConditions": [unwell("Ready", "Unknown"), unwell("Ready", "False")],
                    "unhealthyMachineConditions": [unwell("EtcdMemberHealthy", "False")],
                },
                "remediation": {"strategy": strategy},
            },
        })
    }
}

impl Fleet {
    /// A fleet to begin with.
    pub(crate) fn draw(chance: &Chance, labelled: bool) -> Self {
        let mut fleet = Self {
            clusters: BTreeMap::new(),
            next_pool: 10,
            next_cluster: chance.within(LEAST_CLUSTERS, 5),
            labelled,
        };
        for n in 0..fleet.next_cluster {
            let name = format!("c{n}");
            let pools = chance.within(2, 4);
            let cluster = Cluster::draw(chance, &name, pools);
            fleet.clusters.insert(name, cluster);
        }
        while fleet.machines() < LEAST_MACHINES + 2 {
            let of = chance.index(fleet.clusters.len());
            let Some(cluster) = fleet.clusters.values_mut().nth(of) else {
                continue;
            };
            let of = chance.index(cluster.pools.len());
            if let Some(pool) = cluster.pools.values_mut().nth(of) {
                pool.first += 1;
                pool.replicas = Some(pool.first);
            }
        }
        fleet
    }

    /// Machines that it begins with.
    pub(crate) fn machines(&self) -> usize {
        let all: i64 = self.clusters.values().map(Cluster::machines).sum();
        usize::try_from(all).unwrap_or(0)
    }

    /// What it says of a pool's replicas.
    pub(crate) fn replicas(&self, pool: &str) -> Option<i64> {
        let mut pools = self.clusters.values().filter_map(|c| c.pools.get(pool));
        pools.next()?.replicas
    }

    /// Its documents, one a file.
    pub(crate) fn files(&self) -> BTreeMap<String, Value> {
        let mut files = BTreeMap::new();
        for (name, cluster) in &self.clusters {
            files.insert(format!("{name}/cluster.json"), cluster.document(name));
            if let Some(health) = &cluster.health {
                files.insert(format!("{name}/health.json"), health.document(name));
            }
            if let Some(rule) = cluster.rule(name) {
                files.insert(format!("{name}/drain.json"), rule);
            }
            for (pool, it) in &cluster.pools {
                let document = it.document(pool, name, cluster.account());
                files.insert(format!("{name}/{pool}.json"), document);
            }
        }
        if self.labelled {
            files.values_mut().for_each(waves::label);
        }
        files
    }

    /// One change, and what it is about.
    pub(crate) fn change(&mut self, chance: &Chance, now: Timestamp) -> String {
        let of = chance.index(self.clusters.len());
        let Some((name, cluster)) = self.clusters.iter_mut().nth(of) else {
            return String::new();
        };
        let at = chance.index(cluster.pools.len().max(1));
        let several = cluster.pools.len();
        let what = chance.within(0, 110);
        if what < 22 {
            let most = VERSIONS.len() as u64;
            let to = chance.within(cluster.version as u64, most.min(cluster.version as u64 + 4));
            cluster.version = usize::try_from(to).unwrap_or(0);
            return format!("{name}: version {}", VERSIONS[cluster.version]);
        }
        if what < 25 {
            cluster.label = chance.within(0, 4);
            return format!("{name}: label of the control plane");
        }
        if what < 28 {
            cluster.instance_type = Some(chance.index(TYPES.len()));
            return format!("{name}: type of the control plane");
        }
        if what < 32 {
            cluster.replicas = if cluster.replicas == 1 {
                3
            } else {
                cluster.replicas
            };
            return format!("{name}: control-plane replicas {}", cluster.replicas);
        }
        if what < 34 {
            cluster.health = cluster.health.is_none().then(|| Health::draw(chance));
            return format!("{name}: health check");
        }
        if what < 36 {
            let n = chance.index(cluster.workloads.len());
            cluster.workloads[n] = (chance.within(1, 4).cast_signed(), chance.permille(350));
            return format!("{name}: workloads");
        }
        if what < 39 {
            let name = format!("c{}", self.next_cluster);
            self.next_cluster += 1;
            let pools = chance.within(1, 3);
            let cluster = Cluster::draw(chance, &name, pools);
            self.clusters.insert(name.clone(), cluster);
            return format!("cluster {name} added");
        }
        if what < 44 {
            self.next_pool += 1;
            let pool = format!("{name}-{}", self.next_pool);
            let mut drawn = Pool::draw(chance, cluster.version);
            drawn.replicas = drawn.replicas.filter(|_| chance.permille(700));
            cluster.pools.insert(pool.clone(), drawn);
            return format!("{name}: pool {pool} added");
        }
        if what == 100 {
            cluster.after = Some(rfc3339_seconds(now));
            return format!("{name}: rollout of the control plane after now");
        }
        let version = cluster.version;
        let Some((pool, it)) = cluster.pools.iter_mut().nth(at) else {
            return String::new();
        };
        let pool = pool.clone();
        match what {
            44..62 => it.instance_type = option(chance, TYPES.len()),
            62..70 => it.image = Some(chance.index(IMAGES.len())),
            70..78 => it.replicas = Some(chance.within(1, 8).cast_signed()),
            78..82 => it.replicas = None,
            82..88 => it.label = chance.within(0, 4),
            88..91 => it.taint = !it.taint,
            91..93 => it.tag = chance.within(0, 4),
            93..97 => {
                let other = Pool::draw(chance, version);
                (it.surge, it.unavailable) = (other.surge, other.unavailable);
            }
            101..103 => it.after = Some(rfc3339_seconds(now)),
            103..105 => it.version = pinned(chance, version).filter(|_| it.version.is_none()),
            105 => it.on_delete = !it.on_delete,
            106..108 => {
                it.disruption = seldom(chance, 500, &[json!(1), json!("50%")]);
                it.history = seldom(chance, 500, &[0, 2]);
            }
            108..110 => it.in_flight = seldom(chance, 700, &[json!(1), json!("50%")]),
            _ if several > 1 => {
                cluster.pools.remove(&pool);
                return format!("{name}: pool {pool} removed");
            }
            _ => it.min_ready = *chance.pick(&[0, 10, 30]),
        }
        format!("{pool}: changed ({what})")
    }
}
