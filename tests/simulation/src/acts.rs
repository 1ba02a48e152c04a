//! What people do, and what happens to clouds and nodes: the script's acts carried out.

use std::{sync::atomic::Ordering, time::Duration};

use fleetwright_api::{
    Fleet as FleetObject, Machine, MachineDeployment, ProviderAccount, meta, names::cluster_key,
    time::rfc3339_seconds,
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
    fleet::{ACCOUNTS, Fleet, LEAST_CLUSTERS},
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
                let mut subject = match self.retire(&mut fleet) {
                    Some(subject) => subject,
                    None => fleet.change(&self.chance, self.world.now()),
                };
                if self.chance.permille(400) {
                    let more = fleet.change(&self.chance, self.world.now());
                    subject = format!("{subject}; {more}");
                }
                self.push(fleet, subject).await;
            }
            Act::Revert => {
                let before = self
                    .fleets
                    .len()
                    .checked_sub(2)
                    .map(|n| self.fleets[n].clone());
                if let Some(mut fleet) = before {
                    // A cluster that came with what is taken back is not deleted without a word.
                    let now = self.fleets.last().map(|f| f.clusters.clone());
                    for (name, cluster) in now.into_iter().flatten() {
                        fleet.clusters.entry(name).or_insert(cluster);
                    }
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
                if let Some((id, key, machine)) = self.instance(true)
                    && self.may_lose(&key, &machine)
                {
                    self.note(format!("instance {id} of {machine} vanishes"));
                    let now = self.world.now();
                    self.world
                        .checker
                        .lock()
                        .broken_members
                        .insert(machine, now);
                    if self.world.cloud.lose(&id).await {
                        self.world.weather.count(Kind::LostInstance, 1);
                    }
                }
            }
            Act::Duplicate => {
                if let Some((id, _, machine)) = self.instance(false)
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
            Act::BreakEtcd(members, seconds) => self.break_etcd(*members, *seconds).await,
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
                let declared = self.fleets.last().and_then(|fleet| fleet.replicas(&pool));
                let scaled = (pool.clone(), declared);
                self.world.checker.lock().scaled.extend([scaled]);
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
            Act::Restart => self.restart().await,
            Act::Strangers => self.strangers().await,
            Act::Repair => {
                self.repair().await;
                self.renew().await;
            }
        }
    }

    /// A version that a control plane has no way back to halts all later waves, until a commit says another one. Machines that wait
    /// for it are deleted.
    pub(crate) async fn put_right(&mut self) {
        self.renew().await;
        if self.world.waves.is_empty() {
            return;
        }
        let Some(mut fleet) = self.fleets.last().cloned() else {
            return;
        };
        let mut held = Vec::new();
        {
            let checker = self.world.checker.lock();
            for (name, cluster) in &mut fleet.clusters {
                let stays = checker.stays_at(name).filter(|at| *at > cluster.version);
                if let Some(at) = stays {
                    cluster.version = at;
                    held.push(name.clone());
                }
            }
        }
        if !held.is_empty() {
            let subject = format!("the versions of {} are put right", held.join(", "));
            self.push(fleet, subject).await;
        }
    }

    /// A cluster that is not wanted any more: first a commit says that it may be deleted, a later one no longer has it.
    fn retire(&self, fleet: &mut Fleet) -> Option<String> {
        if !self.chance.permille(300) || fleet.clusters.len() as u64 <= LEAST_CLUSTERS {
            return None;
        }
        let checker = self.world.checker.lock();
        let uid = |name: &String| Some(checker.clusters.get(name)?.metadata.uid.clone());
        let allowed = |(name, cluster): &(&String, &crate::fleet::Cluster)| {
            let live = checker.clusters.get(*name);
            let said = live.and_then(|c| c.metadata.annotations.get(meta::ANNOTATION_ALLOW_DELETE));
            said.is_some() && said == cluster.consent.as_ref() && said == uid(name).as_ref()
        };
        if let Some(name) = fleet.clusters.iter().find(allowed).map(|(n, _)| n.clone()) {
            fleet.clusters.remove(&name);
            return Some(format!("cluster {name} removed"));
        }
        let of = self.chance.index(fleet.clusters.len());
        let (name, cluster) = fleet.clusters.iter_mut().nth(of)?;
        cluster.consent = uid(name);
        Some(format!("cluster {name} may be deleted"))
    }

    /// A running instance of ours: a worker's, or now and then one of a control plane where `any` is meant.
    fn instance(&self, any: bool) -> Option<(String, String, String)> {
        let control_plane = any && self.chance.permille(300);
        let duplicates = self.world.checker.lock().duplicates.clone();
        let all: Vec<_> = self
            .world
            .cloud
            .instances()
            .into_iter()
            .filter(|i| i.state == InstanceState::Running && !duplicates.contains(&i.id))
            .filter_map(|i| Some((i.id, i.owner?)))
            .filter(|(_, o)| o.installation == INSTALLATION && o.pool.is_empty() == control_plane)
            .collect();
        if all.is_empty() {
            return None;
        }
        let (id, owner) = self.chance.pick(&all).clone();
        Some((id, owner.cluster_key, owner.machine))
    }

    /// Whether etcd outlives that the machine's instance vanishes: nobody brings one back that is lost.
    fn may_lose(&self, key: &str, machine: &str) -> bool {
        let members = self.world.cloud.etcd_members(key);
        if !members.iter().any(|m| m.name == machine) {
            return true;
        }
        let runs: std::collections::BTreeSet<String> = self
            .world
            .cloud
            .instances()
            .into_iter()
            .filter(|i| i.state == InstanceState::Running)
            .filter_map(|i| i.owner)
            .filter(|owner| owner.cluster_key == key)
            .map(|owner| owner.machine)
            .collect();
        let voting = members.iter().filter(|m| !m.learner);
        let stay = voting.clone().filter(|m| m.name != machine);
        stay.filter(|m| runs.contains(&m.name)).count() > voting.count() / 2
    }

    /// Members of the etcd of a control plane with several machines break, and come back.
    async fn break_etcd(&mut self, members: usize, seconds: u64) {
        let Some((_, key, _)) = self.instance(false) else {
            return;
        };
        let all = self.world.cloud.etcd_members(&key);
        let well: Vec<String> = all
            .into_iter()
            .filter(|m| m.healthy)
            .map(|m| m.name)
            .collect();
        if well.len() < 3 {
            return;
        }
        for name in well.into_iter().take(members) {
            self.note(format!("etcd member {name} breaks"));
            if !mark_member(&self.world, &key, &name, true).await {
                continue;
            }
            let now = self.world.now();
            let mut checker = self.world.checker.lock();
            checker.broken_members.insert(name.clone(), now);
            self.world.weather.count(Kind::EtcdBroken, 1);
            drop(checker);
            let (people, key) = (self.world.clone(), key.clone());
            self.later.spawn(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                mark_member(&people, &key, &name, false).await;
            });
        }
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
        let Some((_, key, machine)) = self.instance(true) else {
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
        let now = self.world.now();
        self.world
            .checker
            .lock()
            .broken_members
            .insert(machine.clone(), now);
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

    /// Somebody has the machines of a pool made anew.
    async fn restart(&self) {
        let Some(pool) = self.pool() else { return };
        let at = rfc3339_seconds(self.world.now());
        self.note(format!("kubectl annotate {pool} restarted-at {at}"));
        let annotations = json!({meta::ANNOTATION_RESTARTED_AT: at});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let pools = self.api::<MachineDeployment>();
        pools.patch(&pool, &by_hand(), &patch).await.ok();
        self.look();
    }

    /// Machines that are replaced only when somebody deletes them are deleted, one of a pool at a time.
    async fn renew(&self) {
        let outdated = self.world.checker.lock().outdated();
        for name in outdated {
            self.kill(&name).await;
        }
    }

    /// Machines that have not been available for long are deleted, where no health check looks after them.
    async fn repair(&self) {
        let doomed: Vec<String> = {
            let checker = self.world.checker.lock();
            let now = self.world.now();
            let checks = checker.live("machinehealthchecks");
            let checked = |m: &crate::checker::Known| {
                let of = m.object.spec.cluster_name.as_str();
                checks
                    .values()
                    .any(|check| check["spec"]["clusterName"] == of)
            };
            let long =
                |m: &crate::checker::Known| now.duration_since(m.changed).as_secs() > PATIENCE;
            checker
                .machines
                .iter()
                .filter(|(_, m)| !m.object.metadata.deleting() && !m.available() && long(m))
                .filter(|(_, m)| m.object.spec.provider_id.is_some() && !checked(m))
                .map(|(n, _)| n.clone())
                .collect()
        };
        for name in doomed {
            self.kill(&name).await;
        }
    }
}

/// Breaks a member of etcd, or mends it; gives whether its node is there.
async fn mark_member(world: &World, key: &str, name: &str, broken: bool) -> bool {
    let of = ClusterRef {
        key: key.to_owned(),
        ..ClusterRef::default()
    };
    let Ok(client) = world.cloud.client(&of).await else {
        return false;
    };
    let value = broken.then_some("");
    let patch =
        json!({"metadata": {"annotations": {fleetwright_provider_sim::etcd::ANNOTATION: value}}});
    let nodes = Api::<Node>::all(client);
    nodes
        .patch(name, &by_hand(), &Patch::Merge(patch))
        .await
        .is_ok()
}
