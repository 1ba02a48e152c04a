//! Forecasts of whole fleets, from nothing and from what an earlier forecast left behind.

use fleetwright_api::{MachineSet, disruption::DisruptionBudget};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::*;
use crate::plan::{Desired, Origins, plan};

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
            ..policy()
        };
        let mut out = plan(&desired, None, &self.live, &policy, &catalogue);
        let images = forecast(&mut out, &self.live, &policy, &catalogue, now());
        (out, images)
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
                .unwrap_or_default(),
            versions: &[],
            catalogue: &catalogue,
            now: now(),
            missing: &BTreeMap::new(),
            images: BTreeMap::new(),
            notes: BTreeMap::new(),
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
fn a_version_below_the_running_one_holds_the_control_plane_and_moves_workers_back() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.34.1", 1), pool(1, 1, (1, 0))]);
    let plan = fleet.plan(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    assert_eq!(lines(&plan), ["1: +web-1", "2: -web-0"]);
    assert!(
        plan.rollouts[0]
            .note
            .as_ref()
            .unwrap()
            .contains("stays at v1.34.1")
    );
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
fn a_paused_pool_waits_and_a_bad_bound_is_refused() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    let mut paused = pool(1, 2, (1, 0));
    paused["metadata"]["annotations"] = json!({"fleetwright.dev/paused": ""});
    let plan = fleet.plan(&[cluster("v1.33.2", 1), paused]);
    assert_eq!(plan.rollouts[0].note.as_deref(), Some("paused"));
    let mut bad = pool(1, 2, (1, 0));
    bad["spec"]["rollout"]["strategy"]["rollingUpdate"]["maxSurge"] = json!("half");
    let plan = fleet.plan(&[cluster("v1.33.2", 1), bad]);
    assert!(plan.refused[0].reason.contains("maxSurge"), "{plan:?}");
}

#[test]
fn machines_of_untouched_clusters_are_not_looked_at() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1)]);
    let set = MachineSet::default();
    fleet.live.sets.push(set);
    assert!(fleet.plan(&[cluster("v1.33.2", 1)]).rollouts.is_empty());
}

#[test]
fn a_budget_that_lets_nothing_go_is_named_beforehand() {
    let mut fleet = Fleet::default();
    let budget = |mut object: Value, text: &str| {
        object["spec"]["disruption"] = json!({"maxUnavailable": text});
        object
    };
    fleet.settle(&[cluster("v1.33.2", 1), pool(2, 1, (1, 0))]);
    let notes =
        |plan: Plan| -> Vec<_> { plan.rollouts.into_iter().filter_map(|r| r.note).collect() };
    let of_pool = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(2, 2, (1, 0)), "0%")]));
    assert_eq!(
        of_pool,
        ["held by the disruption budget of pool web: it lets no machine be taken out of service"]
    );
    let of_cluster = notes(fleet.plan(&[budget(cluster("v1.33.2", 1), "0%"), pool(2, 2, (1, 0))]));
    assert_eq!(
        of_cluster,
        ["held by the disruption budget of Cluster a: it lets no machine be taken out of service"]
    );
    // One that lets one go lets all go in the end; and what only comes is not held.
    let one = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(2, 2, (1, 0)), "1%")]));
    let more = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(3, 1, (1, 0)), "0%")]));
    assert_eq!((one.len(), more.len()), (0, 0));
}

fn notes(plan: Plan) -> Vec<String> {
    let note = |r: Rollout| Some(format!("{}: {}", r.owner.name, r.note?));
    plan.rollouts.into_iter().filter_map(note).collect()
}

#[test]
fn a_fleets_budget_counts_all_its_clusters_and_one_that_is_spent_or_slower_is_named() {
    let of = |count: i32| {
        Some(DisruptionBudget {
            max_unavailable: IntOrString::Int(count),
        })
    };
    let mut fleet = Fleet::default();
    let start = [cluster("v1.33.2", 1), pool(4, 1, (0, 3))];
    fleet.settle(&start);
    // Applied objects carry the Fleet's label.
    for object in &mut fleet.live.objects {
        object["metadata"]["labels"][LABEL_FLEET] = json!(fleet_hash("default", "default"));
    }
    let mut other = cluster("v1.33.2", 1);
    other["metadata"]["name"] = json!("b");
    other["metadata"]["labels"] = json!({LABEL_FLEET: fleet_hash("default", "default")});
    let next = [cluster("v1.33.2", 1), pool(4, 2, (0, 3))];
    for (budget, other_cluster, want) in [
        (None, false, &[][..]),
        (
            of(0),
            false,
            &[
                "web: held by the disruption budget of Fleet default: it lets no machine be taken out of service",
            ],
        ),
        (
            of(1),
            false,
            &[
                "web: the disruption budget of Fleet default lets no more than 1 of the 3 machines of a step be out of service at once",
            ],
        ),
        (of(3), false, &[]),
        // A cluster of the same Fleet is on its way up: it spends.
        (
            of(1),
            true,
            &[
                "web: held by the disruption budget of Fleet default: 1 of at most 1 machines are out of service now",
            ],
        ),
    ] {
        let mut fleet = Fleet {
            live: fleet.live.clone(),
            budget: budget.clone(),
        };
        let mut documents = next.to_vec();
        if other_cluster {
            fleet.live.objects.push(other.clone());
            documents.push(other.clone());
        }
        assert_eq!(notes(fleet.plan(&documents)), want, "{budget:?}");
    }
}

#[test]
fn a_clusters_budget_that_lets_fewer_go_than_a_step_takes_is_named() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(4, 1, (0, 3))]);
    let mut narrow = cluster("v1.33.2", 1);
    narrow["spec"]["disruption"] = json!({"maxUnavailable": 2});
    assert_eq!(
        notes(fleet.plan(&[narrow, pool(4, 2, (0, 3))])),
        [
            "web: the disruption budget of Cluster a lets no more than 2 of the 3 machines of a step be out of service at once"
        ]
    );
}

#[test]
fn a_missing_image_blocks_the_upgrade_and_what_cannot_be_made_is_named() {
    let mut fleet = Fleet::default();
    let start = [cluster("v1.33.2", 1), pool(1, 1, (1, 0))];
    fleet.settle(&start);
    let upgrade = [cluster("v1.35.0", 1), pool(1, 1, (1, 0))];
    let (_, images) = fleet.foretell(&upgrade);
    let versions: BTreeSet<&str> = images.iter().map(|i| i.version.as_str()).collect();
    assert_eq!(versions, BTreeSet::from(["v1.34.0", "v1.35.0"]));
    assert_eq!(fleet.foretell(&start).1, BTreeSet::new());

    let missing = images.iter().filter(|i| i.version == "v1.35.0");
    fleet.live.missing_images = missing
        .map(|i| (i.clone(), "build it".to_owned()))
        .collect();
    let (plan, _) = fleet.foretell(&upgrade);
    assert_eq!(lines(&plan), [""; 0], "nothing of it moves");
    assert_eq!(
        notes(plan),
        [
            "a: stays at v1.33.2 on the way to v1.35.0: v1.35.0 for the control plane: build it",
            "web: waits for the control plane to take its further steps to v1.35.0",
        ]
    );

    // Machines of a pool that is new, or is of other settings.
    let other = [cluster("v1.33.2", 1), pool(1, 2, (1, 0))];
    let (_, images) = fleet.foretell(&other);
    assert_eq!(images.len(), 1);
    let why = |i: &Image| (i.clone(), "no image of size 2".to_owned());
    fleet.live.missing_images = images.iter().map(why).collect();
    assert_eq!(
        notes(fleet.plan(&other)),
        ["web: machines cannot be made: no image of size 2"]
    );
}
