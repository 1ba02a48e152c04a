//! What people do, and what happens to clouds and nodes: the script's acts carried out.

use std::{sync::atomic::Ordering, time::Duration};

use fleetwright_api::{
    Fleet as FleetObject, Machine, MachineDeployment, ProviderAccount, meta, names::cluster_key,
};
use fleetwright_provider_sim::Fault;
use fleetwright_providers::{ClusterConnections, ClusterRef, InstanceState};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    chance::Chance,
    checker::{FOREIGN_NODE, INSTALLATION},
    fleet::{ACCOUNTS, Fleet},
    script::Act,
    weather::Kind,
    world::World,
};

/// Seconds after which people give up on a machine that does not come.
const PATIENCE: i64 = 900;

/// Those who act, and what the repository has come to.
pub(crate) struct People {
    pub(crate) world: World,
    pub(crate) chance: Chance,
    /// What the repository says, commit by commit.
    pub(crate) fleets: Vec<Fleet>,
    /// What ends by itself later.
    pub(crate) later: JoinSet<()>,
}

fn by_hand() -> PatchParams {
    PatchParams {
        field_manager: Some("kubectl".into()),
        ..PatchParams::default()
    }
}

impl People {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.world.kubectl(), "default")
    }

    fn note(&self, text: String) {
        let mut checker = self.world.checker.lock();
        checker.look();
        checker.line(text);
    }

    fn look(&self) {
        self.world.checker.lock().look();
    }

    /// Pushes what `fleet` says.
    pub(crate) async fn push(&mut self, fleet: Fleet, subject: String) {
        let files = fleet.files();
        self.fleets.push(fleet);
        self.commit(files, subject).await;
    }

    async fn commit(&self, files: std::collections::BTreeMap<String, Value>, subject: String) {
        let sha = self.world.repository.push(files, self.world.now());
        self.note(format!("commit {sha}: {subject}"));
        // Often a webhook tells of it; else the next look finds it.
        if self.chance.permille(700) {
            let at = self.world.now().to_string();
            let patch = Patch::Merge(
                json!({"metadata": {"annotations": {meta::ANNOTATION_REQUESTED_AT: at}}}),
            );
            self.api::<FleetObject>()
                .patch("default", &by_hand(), &patch)
                .await
                .ok();
            self.look();
        }
    }

    /// Does what the script says.
    pub(crate) async fn act(&mut self, act: &Act) {
        match act {
            Act::Commit => {
                let Some(mut fleet) = self.fleets.last().cloned() else {
                    return;
                };
                let mut subject = fleet.change(&self.chance);
                if self.chance.permille(400) {
                    subject = format!("{subject}; {}", fleet.change(&self.chance));
                }
                self.push(fleet, subject).await;
            }
            Act::Revert => {
                let before = self
                    .fleets
                    .len()
                    .checked_sub(2)
                    .map(|n| self.fleets[n].clone());
                if let Some(fleet) = before {
                    self.push(fleet, "revert".into()).await;
                }
            }
            Act::Mistake(_) => {
                let Some(head) = self.world.repository.head() else {
                    return;
                };
                let mut files = head.files;
                let of = self.chance.index(files.len());
                if let Some(file) = files.values_mut().nth(of) {
                    *file = json!("a mistake");
                }
                self.commit(files, "a mistake".into()).await;
            }
            Act::Mend => {
                if let Some(fleet) = self.fleets.last().cloned() {
                    self.commit(fleet.files(), "mended".into()).await;
                }
            }
            Act::Crash(polls) => self.world.life.lock().end_after(*polls),
            Act::Release => {
                self.world.release.fetch_add(1, Ordering::Relaxed);
                self.world.weather.count(Kind::Release, 1);
                self.world.life.lock().end_after(0);
            }
            Act::Provider(effect, verb, count) => {
                let fault = Fault {
                    id: 0,
                    effect: *effect,
                    verb: verb.map(ToOwned::to_owned),
                    account: None,
                    region: None,
                    machine: None,
                    count: *count,
                    fired: 0,
                };
                self.world.cloud.add_fault(fault);
            }
            Act::QuotaLow(account) => self.quota(*account, true).await,
            Act::QuotaHigh(account) => self.quota(*account, false).await,
            Act::Lose => {
                if let Some((id, _, machine)) = self.instance() {
                    self.note(format!("instance {id} of {machine} vanishes"));
                    if self.world.cloud.lose(&id).await {
                        self.world.weather.count(Kind::LostInstance, 1);
                    }
                }
            }
            Act::Duplicate => {
                if let Some((id, _, machine)) = self.instance()
                    && let Some(copy) = self.world.cloud.duplicate(&id).await
                {
                    self.note(format!(
                        "instance {id} of {machine} is there twice, as {copy}"
                    ));
                    self.world.checker.lock().duplicates.insert(copy);
                    self.world.weather.count(Kind::Duplicate, 1);
                }
            }
            Act::Flap(seconds) => self.flap(*seconds).await,
            Act::Unreachable(seconds) => {
                let Some(name) = self.cluster() else { return };
                self.note(format!("cluster {name} cannot be reached"));
                let key = cluster_key(INSTALLATION, "default", &name);
                let weather = self.world.weather.clone();
                weather.cut(&key, true);
                let wait = Duration::from_secs(*seconds);
                self.later.spawn(async move {
                    tokio::time::sleep(wait).await;
                    weather.cut(&key, false);
                });
            }
            Act::Scale => {
                let Some(pool) = self.pool() else { return };
                let to = self.chance.within(1, 8);
                self.note(format!("kubectl scale {pool} --replicas {to}"));
                let patch = Patch::Merge(json!({"spec": {"replicas": to}}));
                self.api::<MachineDeployment>()
                    .patch(&pool, &by_hand(), &patch)
                    .await
                    .ok();
                self.look();
            }
            Act::Pause(seconds) => self.pause(*seconds).await,
            Act::Kill => {
                let machines: Vec<String> =
                    self.world.checker.lock().machines.keys().cloned().collect();
                if !machines.is_empty() {
                    let name = self.chance.pick(&machines).clone();
                    self.kill(&name).await;
                }
            }
            Act::Strangers => self.strangers().await,
            Act::Repair => self.repair().await,
        }
    }

    /// A running instance of ours.
    fn instance(&self) -> Option<(String, String, String)> {
        let duplicates = self.world.checker.lock().duplicates.clone();
        let all: Vec<_> = self
            .world
            .cloud
            .instances()
            .into_iter()
            .filter(|i| i.state == InstanceState::Running && !duplicates.contains(&i.id))
            .filter_map(|i| Some((i.id, i.owner?)))
            .filter(|(_, o)| o.installation == INSTALLATION && !o.pool.is_empty())
            .collect();
        if all.is_empty() {
            return None;
        }
        let (id, owner) = self.chance.pick(&all).clone();
        Some((id, owner.cluster_key, owner.machine))
    }

    fn cluster(&self) -> Option<String> {
        let names: Vec<String> = self.world.checker.lock().clusters.keys().cloned().collect();
        (!names.is_empty()).then(|| self.chance.pick(&names).clone())
    }

    fn pool(&self) -> Option<String> {
        let names: Vec<String> = self.world.checker.lock().pools.keys().cloned().collect();
        (!names.is_empty()).then(|| self.chance.pick(&names).clone())
    }

    async fn quota(&self, account: usize, low: bool) {
        let name = ACCOUNTS[account].0;
        let quotas: Value = if low {
            let used = self.world.cloud.instances().len();
            json!({"instances": used / 2 + 2})
        } else {
            json!({"instances": null})
        };
        self.note(format!("quota of {name}: {quotas}"));
        let patch = Patch::Merge(json!({"spec": {"quotas": quotas}}));
        let accounts = Api::<ProviderAccount>::all(self.world.kubectl());
        accounts.patch(name, &by_hand(), &patch).await.ok();
        self.look();
    }

    async fn flap(&mut self, seconds: u64) {
        let Some((_, key, machine)) = self.instance() else {
            return;
        };
        let of = ClusterRef {
            key,
            ..ClusterRef::default()
        };
        let Ok(client) = self.world.cloud.client(&of).await else {
            return;
        };
        let nodes = Api::<Node>::all(client);
        let heard = |status: &'static str| {
            Patch::Strategic(
                json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "Simulated", "message": ""}]}}),
            )
        };
        let none = PatchParams::default();
        if nodes
            .patch_status(&machine, &none, &heard("Unknown"))
            .await
            .is_err()
        {
            return;
        }
        self.note(format!("node {machine} is heard of no more"));
        self.world.weather.count(Kind::NodeFlap, 1);
        let cloud = self.world.cloud.clone();
        self.later.spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            // Only a kubelet that is there reports again.
            let there = cloud.instances().into_iter().any(|i| {
                i.state == InstanceState::Running && i.owner.is_some_and(|o| o.machine == machine)
            });
            if there {
                nodes
                    .patch_status(&machine, &none, &heard("True"))
                    .await
                    .ok();
            }
        });
    }

    async fn pause(&mut self, seconds: u64) {
        let Some(pool) = self.pool() else { return };
        self.note(format!("kubectl annotate {pool} paused"));
        let annotate = |value: Value| {
            Patch::Merge(json!({"metadata": {"annotations": {meta::ANNOTATION_PAUSED: value}}}))
        };
        let pools = self.api::<MachineDeployment>();
        pools
            .patch(&pool, &by_hand(), &annotate(json!("true")))
            .await
            .ok();
        self.look();
        let world = self.world.clone();
        self.later.spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let pools = Api::<MachineDeployment>::namespaced(world.kubectl(), "default");
            pools
                .patch(&pool, &by_hand(), &annotate(Value::Null))
                .await
                .ok();
        });
    }

    async fn strangers(&self) {
        let Some(name) = self.cluster() else { return };
        self.note(format!("kubectl create pool {name}-by-hand"));
        let pool = json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment",
            "metadata": {"name": format!("{name}-by-hand")},
            "spec": {"clusterName": name, "replicas": 1, "template": {"spec": {"providerConfig": {
                "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": ACCOUNTS[0].0,
            }}}},
        });
        if let Ok(pool) = serde_json::from_value(pool) {
            let pools = self.api::<MachineDeployment>();
            pools.create(&PostParams::default(), &pool).await.ok();
        }
        self.look();
        let clusters: Vec<String> = self.world.checker.lock().clusters.keys().cloned().collect();
        for name in clusters {
            let of = ClusterRef {
                key: cluster_key(INSTALLATION, "default", &name),
                ..ClusterRef::default()
            };
            let Ok(client) = self.world.cloud.client(&of).await else {
                continue;
            };
            let node = json!({"metadata": {"name": FOREIGN_NODE}, "spec": {"providerID": format!("metal://{name}")}});
            if let Ok(node) = serde_json::from_value::<Node>(node) {
                Api::<Node>::all(client)
                    .create(&PostParams::default(), &node)
                    .await
                    .ok();
            }
        }
    }

    async fn kill(&self, name: &str) {
        self.note(format!("kubectl delete machine {name}"));
        self.world.checker.lock().by_people.insert(name.to_owned());
        self.api::<Machine>()
            .delete(name, &DeleteParams::background())
            .await
            .ok();
        self.look();
    }

    /// Machines that have not been available for long are deleted.
    async fn repair(&self) {
        let doomed: Vec<String> = {
            let checker = self.world.checker.lock();
            let now = self.world.now();
            let long =
                |m: &crate::checker::Known| now.duration_since(m.changed).as_secs() > PATIENCE;
            checker
                .machines
                .iter()
                .filter(|(_, m)| !m.object.metadata.deleting() && !m.available() && long(m))
                .filter(|(_, m)| m.object.spec.provider_id.is_some())
                .map(|(n, _)| n.clone())
                .collect()
        };
        for name in doomed {
            self.kill(&name).await;
        }
    }
}
