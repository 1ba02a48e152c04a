//! Forecasts of whole fleets, from nothing and from what an earlier forecast left behind.

use fleetwright_api::{MachineSet, disruption::DisruptionBudget, waves::Wave};
use serde_json::json;

use super::*;
use crate::plan::{Desired, Origins, plan};

mod blockers;
mod expected;
mod managed;

fn policy() -> Policy {
    Policy {
        namespace: "default".into(),
        fleet: "default".into(),
        max_machines: 10,
        drift: fleetwright_api::fleet::DriftPolicy {
            policy: Some(fleetwright_api::fleet::DriftAction::Correct),
            rules: Vec::new(),
        },
        ..Policy::default()
    }
}

fn config(size: u32) -> Value {
    json!({"apiVersion": "s/v1", "kind": "M", "account": "x", "size": size})
}

fn cluster(version: &str, replicas: u32) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"version": version, "controlPlane": {"machines": {"replicas": replicas, "template": {"spec": {"providerConfig": config(1)}}}}}})
}

fn pool(replicas: u32, size: u32, bounds: (u32, u32)) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "MachineDeployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterName": "a", "replicas": replicas,
            "rollout": {"strategy": {"rollingUpdate": {"maxSurge": bounds.0, "maxUnavailable": bounds.1}}},
            "template": {"spec": {"providerConfig": config(size)}}}})
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A fleet that has converged on what it was last told.
#[derive(Default)]
struct Fleet {
    live: Live,
    /// The Fleet's own budget.
    budget: Option<DisruptionBudget>,
    /// Its waves.
    waves: Vec<Wave>,
}

impl Fleet {
    fn plan(&self, documents: &[Value]) -> Plan {
        self.foretell(documents).0
    }

    /// The plan, and the images that it needs.
    fn foretell(&self, documents: &[Value]) -> (Plan, BTreeSet<Image>) {
        let desired: Vec<Desired> = documents
            .iter()
            .map(|d| Desired {
                document: d.clone(),
                source: "a.yaml:1".into(),
                origins: Origins::default(),
            })
            .collect();
        let catalogue = Catalogue::default();
        let policy = Policy {
            disruption: self.budget.clone(),
            waves: self.waves.clone(),
            ..policy()
        };
        let mut out = plan(&desired, None, &self.live, &policy, &catalogue);
        let images = forecast(&mut out, &self.live, &policy, &catalogue, now());
        (out, images.into_values().flatten().collect())
    }

    /// Carries the plan out to its end, on the model.
    fn settle(&mut self, documents: &[Value]) {
        let plan = self.plan(documents);
        let catalogue = Catalogue::default();
        let key = Key {
            api_version: API_VERSION.into(),
            kind: "Cluster".into(),
            namespace: "default".into(),
            name: "a".into(),
        };
        let made = |kind: &str| {
            let change = plan
                .creates
                .iter()
                .chain(&plan.changes)
                .find(|c| c.key.kind == kind);
            let live = self.live.objects.iter().find(|o| o["kind"] == kind);
            (live, change)
        };
        let (live, change) = made("Cluster");
        let cluster: Cluster = merged(live, change).unwrap();
        let (live, change) = made("MachineDeployment");
        let pool: Option<MachineDeployment> = merged(live, change);
        let mut model = Model {
            cluster,
            pools: pool.into_iter().collect(),
            sets: self.live.sets.clone(),
            fresh: self
                .live
                .sets
                .iter()
                .filter_map(|s| s.metadata.name.clone())
                .collect(),
            machines: by_cluster(&self.live, &BTreeSet::from([key.clone()]))
                .remove(&key)
                .unwrap_or_default()
                .into_iter()
                .map(|(set, all)| (set, all.into_iter().cloned().collect()))
                .collect(),
            versions: &[],
            catalogue: &catalogue,
            now: now(),
            missing: &BTreeMap::new(),
            images: BTreeMap::new(),
            provided: Provided::default(),
            waits: BTreeMap::new(),
        };
        while !model.decide().is_empty() || model.progress() {}
        assert!(model.decide().is_empty(), "the end is a fixed point");
        let objects = [json!(model.cluster)]
            .into_iter()
            .chain(model.pools.iter().map(|p| json!(p)));
        let hash = fleetwright_api::names::fleet_hash("default", "default");
        self.live = Live {
            objects: objects
                .map(|mut o| {
                    o["metadata"]["labels"] = json!({fleetwright_api::meta::LABEL_FLEET: hash});
                    o
                })
                .collect(),
            sets: model.sets,
            machines: model.machines.into_values().flatten().collect(),
            ..Live::default()
        };
    }
}

/// `+name` for what comes and `-name` for what goes, by step, without the sets' hashes.
fn lines(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    for rollout in &plan.rollouts {
        for step in &rollout.steps {
            let short = |sign: &str, name: &String| {
                let parts: Vec<&str> = name.split('-').collect();
                let (first, last) = (parts[0], parts[parts.len() - 1]);
                format!("{sign}{first}-{last}")
            };
            let moves = step.create.iter().map(|n| short("+", n));
            let moves = moves.chain(step.delete.iter().map(|n| short("-", n)));
            out.push(format!(
                "{}: {}",
                step.step,
                moves.collect::<Vec<_>>().join(" ")
            ));
        }
    }
    out
}

#[test]
fn a_new_cluster_grows_its_control_plane_one_by_one_and_pools_with_the_first() {
    let plan = Fleet::default().plan(&[cluster("v1.33.2", 3), pool(2, 1, (1, 0))]);
    assert_eq!(
        lines(&plan),
        ["1: +a-0", "2: +a-1", "3: +a-2", "2: +web-0 +web-1"]
    );
    assert_eq!(
        plan.rollouts[0].because[0],
        "the first machine of the control plane"
    );
    assert_eq!(plan.rollouts[1].because, ["the first machines of the pool"]);
}

#[test]
fn a_fleet_under_another_name_rolls_nothing() {
    let mut fleet = Fleet::default();
    let desired = [cluster("v1.33.2", 1), pool(3, 1, (1, 0))];
    fleet.settle(&desired);
    let old = fleetwright_api::names::fleet_hash("default", "old");
    for object in &mut fleet.live.objects {
        object["metadata"]["labels"] = json!({fleetwright_api::meta::LABEL_FLEET: old});
    }
    assert_eq!(
        fleet.plan(&desired).refused.len(),
        2,
        "as long as it is there"
    );
    fleet.live.fleets = Some(BTreeMap::new());
    let plan = fleet.plan(&desired);
    assert_eq!((plan.changes.len(), lines(&plan)), (2, vec![]));
}

#[test]
fn an_upgrade_moves_the_control_plane_first_and_keeps_the_bounds() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))]);
    let plan = fleet.plan(&[cluster("v1.34.1", 1), pool(3, 1, (1, 0))]);
    assert_eq!(
        lines(&plan),
        [
            "1: +a-1",
            "2: -a-0", // the control plane
            "3: +web-3",
            "4: -web-0",
            "5: +web-4",
            "6: -web-1",
            "7: +web-5",
            "8: -web-2",
        ]
    );
    let workers = &plan.rollouts[1];
    assert_eq!(workers.because, ["spec.version: v1.33.2 -> v1.34.1"]);
    assert_eq!(workers.counts(), (3, 3));
    assert_eq!(workers.steps[0].version.as_deref(), Some("v1.34.1"));
    assert_eq!(
        fleet
            .plan(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))])
            .rollouts,
        []
    );
}

#[test]
fn a_config_change_rolls_in_the_pools_own_waves() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(4, 1, (2, 1))]);
    let plan = fleet.plan(&[cluster("v1.33.2", 1), pool(4, 2, (2, 1))]);
    assert_eq!(
        lines(&plan),
        [
            "1: +web-4 +web-5 -web-0",
            "2: +web-6 -web-1 -web-2",
            "3: +web-7 -web-3",
        ]
    );
    assert_eq!(
        plan.rollouts[0].because,
        ["spec.providerConfig.size: 1 -> 2"]
    );
}

#[test]
fn several_minors_take_the_control_plane_through_each_before_workers_move() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    let plan = fleet.plan(&[cluster("v1.35.0", 1), pool(1, 1, (1, 0))]);
    let versions: Vec<_> = plan
        .rollouts
        .iter()
        .flat_map(|r| r.steps.iter().filter_map(|s| s.version.as_deref()))
        .collect();
    assert_eq!(versions, ["v1.34.0", "v1.35.0", "v1.35.0"]);
    assert_eq!(
        plan.rollouts[0].path.as_deref(),
        Some("v1.33.2 -> v1.34.0 -> v1.35.0; workers at v1.35.0")
    );
    assert_eq!(lines(&plan).last().unwrap(), "6: -web-0");
}

#[test]
fn a_control_plane_that_grows_and_is_upgraded_goes_through_the_domains_that_its_provider_has() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.32.2", 1)]);
    for machine in &mut fleet.live.machines {
        machine.status.get_or_insert_default().failure_domain = Some("a".into());
    }
    let gone = |fleet: &Fleet| -> Vec<String> {
        let steps = fleet.plan(&[cluster("v1.34.1", 3)]).rollouts;
        let steps = steps.into_iter().flat_map(|r| r.steps);
        steps.flat_map(|step| step.delete).collect()
    };
    // As far as the one machine shows.
    assert_eq!(gone(&fleet), ["a-cp-0", "a-cp-1", "a-cp-2", "a-cp-3"]);
    let known = fleet.live.objects.iter_mut();
    for cluster in known.filter(|o| o["kind"] == "Cluster") {
        cluster["status"]["failureDomains"] = json!(["a", "b", "c"]);
    }
    assert_eq!(gone(&fleet), ["a-cp-0", "a-cp-3", "a-cp-1", "a-cp-2"]);
}

#[test]
fn a_pool_that_grows_during_an_upgrade_tells_that_those_who_still_start_go_first() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    let plan = fleet.plan(&[cluster("v1.34.1", 1), pool(2, 1, (1, 0))]);
    assert_eq!(
        lines(&plan),
        [
            "1: +a-1",
            "2: -a-0", // the control plane
            "1: +web-1",
            "3: +web-2",
            "4: -web-0",
            "5: +web-3",
            "6: -web-1",
        ]
    );
    let workers = &plan.rollouts[1];
    assert_eq!(workers.passing().len(), 1);
    assert_eq!(
        notes(plan.clone()),
        [
            "web: machines that come with this and are not available yet when they are to go again go before the others"
        ]
    );
    // One that only grows, and one that only rolls, have nothing to tell.
    let grown = fleet.plan(&[cluster("v1.33.2", 1), pool(2, 1, (1, 0))]);
    let rolled = fleet.plan(&[cluster("v1.34.1", 1), pool(1, 1, (1, 0))]);
    assert_eq!((notes(grown).len(), notes(rolled).len()), (0, 0));
}

#[test]
fn labels_reach_machines_in_place_and_scaling_names_who_goes() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))]);
    let mut labelled = pool(2, 1, (1, 0));
    labelled["spec"]["template"]["metadata"] = json!({"labels": {"team": "x"}});
    let plan = fleet.plan(&[cluster("v1.33.2", 1), labelled]);
    assert_eq!(lines(&plan), ["1: -web-0"]);
    assert_eq!(plan.rollouts[0].in_place.len(), 2);
    assert!(
        fleet
            .plan(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))])
            .rollouts
            .is_empty()
    );
}

#[test]
fn machines_of_untouched_clusters_are_not_looked_at() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1)]);
    let set = MachineSet::default();
    fleet.live.sets.push(set);
    assert!(fleet.plan(&[cluster("v1.33.2", 1)]).rollouts.is_empty());
}

/// What is noted and what is in the way, with the name of the object that it is about.
fn notes(plan: Plan) -> Vec<String> {
    let note = |r: Rollout| Some(format!("{}: {}", r.owner.name, r.note?));
    let notes = plan.rollouts.into_iter().filter_map(note);
    let blocker = |b: PlanBlocker| {
        let name = b.object.map_or_else(String::new, |key| key.name);
        format!("{name}: {}: {}", b.kind, b.reason)
    };
    let blockers = plan.blockers.into_iter().map(blocker);
    notes.chain(blockers).collect()
}

#[test]
fn a_rollout_tells_what_its_new_machines_boot_from() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.0", 1), pool(1, 2, (1, 0))]);
    let desired = [cluster("v1.34.0", 1), pool(1, 2, (1, 0))];
    let desired = desired.map(|document| Desired {
        document,
        source: "a.yaml:1".into(),
        origins: Origins::default(),
    });
    let catalogue = Catalogue::default();
    let mut out = plan(&desired, None, &fleet.live, &policy(), &catalogue);
    let images = forecast(&mut out, &fleet.live, &policy(), &catalogue, now());
    let owners: Vec<&str> = images.keys().map(|key| key.kind.as_str()).collect();
    assert_eq!(owners, ["Cluster", "MachineDeployment"]);
    assert!(out.rollouts.iter().all(|r| r.images.is_empty()));
    let before = out.digest("t", &policy());
    let mut told: BTreeMap<Image, Option<String>> = BTreeMap::new();
    for (owner, images) in &images {
        let image = (owner.kind == "Cluster").then(|| "ami-1".to_owned());
        told.extend(images.iter().map(|of| (of.clone(), image.clone())));
    }
    out.boots_from(&images, &told);
    for rollout in &out.rollouts {
        let one = BootImage {
            version: "v1.34.0".into(),
            image: (rollout.owner.kind == "Cluster").then(|| "ami-1".to_owned()),
        };
        assert_eq!(rollout.images, [one]);
    }
    // An image that comes out makes no other plan of it.
    assert_eq!(out.digest("t", &policy()), before);
    out.boots_from(&images, &BTreeMap::new());
    assert!(out.rollouts.iter().all(|r| r.images.is_empty()));
}
