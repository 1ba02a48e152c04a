//! Whole decisions on real objects.

use std::collections::BTreeMap;

use fleetwright_api::{
    MachineDeployment, MachineSet, ProviderConfig,
    machine::{MachineTemplate, MachineTemplateSpec},
    machine_deployment::{
        MachineDeploymentSpec, RollingUpdate, Rollout, RolloutStrategy, StrategyType,
    },
    machine_set::{MachineSetSpec, MachineSetStatus},
    meta,
    time::k8s_time,
    version::Version,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString};
use serde_json::json;

use crate::{
    catalogue::Catalogue,
    pool_version::{PoolVersion, VersionReason},
    rollout::{NewSet, RolloutDecision, RolloutWait, decide},
};

pub(super) fn pool(
    replicas: i32,
    surge: IntOrString,
    unavailable: IntOrString,
) -> MachineDeployment {
    MachineDeployment {
        metadata: ObjectMeta {
            name: Some("web".into()),
            ..ObjectMeta::default()
        },
        spec: MachineDeploymentSpec {
            cluster_name: "c".into(),
            replicas: Some(replicas),
            template: MachineTemplate {
                spec: MachineTemplateSpec {
                    provider_config: config(json!({"image": "a"})),
                    ..MachineTemplateSpec::default()
                },
                ..MachineTemplate::default()
            },
            rollout: Some(Rollout {
                strategy: Some(RolloutStrategy {
                    rolling_update: Some(RollingUpdate {
                        max_surge: Some(surge),
                        max_unavailable: Some(unavailable),
                    }),
                    ..RolloutStrategy::default()
                }),
                after: None,
            }),
            ..MachineDeploymentSpec::default()
        },
        status: None,
    }
}

pub(super) fn config(more: serde_json::Value) -> ProviderConfig {
    let mut map = serde_json::Map::from_iter([
        (
            "apiVersion".to_owned(),
            json!("sim.fleetwright.dev/v1alpha1"),
        ),
        ("kind".to_owned(), json!("SimMachineConfig")),
        ("account".to_owned(), json!("sim-eu")),
    ]);
    map.extend(more.as_object().cloned().unwrap_or_default());
    map.into()
}

fn catalogue(default_disk: i64) -> Catalogue {
    let mut all = Catalogue::default();
    all.insert(
        "sim.fleetwright.dev/v1alpha1",
        "SimMachineConfig",
        json!({"properties": {
            "image": {"type": "string"},
            "disk": {"type": "integer", "default": default_disk},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}, "x-fleetwright-change": "in-place"},
            "note": {"type": "string", "x-fleetwright-change": "none"},
        }}),
    );
    all
}

pub(super) fn own(version: &str) -> PoolVersion {
    PoolVersion {
        version: Some(version.parse().unwrap()),
        reason: VersionReason::Own,
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn plain() -> MachineDeployment {
    pool(3, IntOrString::Int(1), IntOrString::Int(0))
}

pub(super) struct World {
    pub(super) pool: MachineDeployment,
    pub(super) sets: Vec<MachineSet>,
    pub(super) catalogue: Catalogue,
    pub(super) version: PoolVersion,
    pub(super) clock: i64,
}

impl World {
    pub(super) fn new(pool: MachineDeployment) -> Self {
        Self {
            pool,
            sets: Vec::new(),
            catalogue: catalogue(20),
            version: own("v1.33.0"),
            clock: 0,
        }
    }

    pub(super) fn decide(&self) -> RolloutDecision {
        decide(
            &self.pool,
            &self.sets,
            &self.version,
            &self.catalogue,
            at(self.clock),
        )
        .unwrap()
    }

    fn create(&mut self, new: NewSet) {
        self.sets.push(MachineSet {
            metadata: ObjectMeta {
                name: Some(new.name),
                labels: Some(new.labels),
                annotations: Some(new.annotations),
                creation_timestamp: Some(k8s_time(at(self.clock))),
                ..ObjectMeta::default()
            },
            spec: MachineSetSpec {
                cluster_name: "c".into(),
                replicas: Some(new.replicas),
                template: new.template,
                written_version: new.written_version,
                deletion: new.deletion,
                selector: None,
            },
            status: Some(MachineSetStatus::default()),
        });
    }

    fn set(&mut self, name: &str) -> &mut MachineSet {
        self.sets
            .iter_mut()
            .find(|s| s.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    pub(super) fn act(&mut self) -> RolloutDecision {
        let decision = self.decide();
        self.apply(decision.clone(), usize::MAX);
        decision
    }

    /// Writes what was decided, in the controller's order; of the changes of size only the first `scales`.
    pub(super) fn apply(&mut self, mut next: RolloutDecision, scales: usize) {
        next.record(&self.pool, None);
        for update in next.updates {
            let set = self.set(&update.name);
            set.spec.template = update.template;
            set.spec.deletion = update.deletion;
            let all = set.metadata.annotations.get_or_insert_default();
            for (key, value) in update.annotations {
                match value {
                    Some(value) => all.insert(key, value),
                    None => all.remove(&key),
                };
            }
        }
        for scale in next.scale.into_iter().take(scales) {
            self.set(&scale.name).spec.replicas = Some(scale.to);
        }
        self.sets
            .retain(|s| !next.cleanup.contains(s.metadata.name.as_ref().unwrap()));
        if let Some(new) = next.create {
            self.create(new);
        }
    }

    fn follow(&mut self) {
        for set in &mut self.sets {
            let n = set.spec.replicas.unwrap();
            set.status = Some(MachineSetStatus {
                replicas: n,
                ready_replicas: n,
                available_replicas: n,
                ..MachineSetStatus::default()
            });
        }
        self.clock += 10;
    }

    pub(super) fn settle(&mut self) -> usize {
        for step in 0..100 {
            if self.act().is_settled() {
                return step;
            }
            self.follow();
        }
        panic!("does not settle");
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|s| s.spec.replicas.unwrap()).collect()
    }
}

fn label(pool: &mut MachineDeployment, key: &str, value: &str) {
    pool.spec
        .template
        .metadata
        .labels
        .insert(key.into(), value.into());
}

#[test]
fn a_changed_field_rolls_and_a_revert_goes_back_to_the_old_set() {
    let mut w = World::new(plain());
    w.settle();
    assert_eq!(w.sizes(), [3]);
    let first = w.sets[0].metadata.name.clone();
    w.pool.spec.template.spec.provider_config = config(json!({"image": "b"}));
    let d = w.decide();
    let new = d.create.as_ref().unwrap();
    assert_eq!(new.because.len(), 1);
    assert_eq!(
        new.because[0].to_string(),
        "spec.providerConfig.image: a -> b"
    );
    assert_eq!((new.replicas, d.revision), (1, 2));
    w.settle();
    assert_eq!(w.sizes(), [0, 3]);
    w.pool.spec.template.spec.provider_config = config(json!({"image": "a"}));
    w.settle();
    assert_eq!(w.sizes(), [3, 0]);
    let d = w.decide();
    assert_eq!((d.current, d.revision), (first, 3));
}

#[test]
fn labels_taints_and_in_place_fields_roll_nothing() {
    let mut w = World::new(plain());
    w.settle();
    label(&mut w.pool, "team", "a");
    w.pool.spec.template.spec.min_ready_seconds = Some(5);
    w.pool.spec.template.spec.provider_config =
        config(json!({"image": "a", "tags": {"x": "1"}, "note": "n"}));
    let d = w.act();
    assert!(d.create.is_none() && d.scale.is_empty());
    let paths: Vec<&str> = d.updates[0]
        .changes
        .iter()
        .map(|c| c.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "metadata.labels.team",
            "spec.minReadySeconds",
            "spec.providerConfig.tags"
        ]
    );
    assert!(w.decide().is_settled(), "{:?}", w.decide());
    // Taken away again.
    w.pool.spec.template.metadata.labels.clear();
    w.pool.spec.template.spec.provider_config = config(json!({"image": "a"}));
    assert_eq!(w.act().updates.len(), 1);
    assert!(w.decide().is_settled());
    assert!(w.sets[0].spec.template.metadata.labels.is_empty());
}

#[test]
fn a_new_release_with_another_default_rolls_nothing() {
    let mut w = World::new(plain());
    w.settle();
    w.catalogue = catalogue(40);
    assert!(w.decide().is_settled());
    // Writing out what the machines have rolls nothing either, whatever the default is now.
    w.pool.spec.template.spec.provider_config = config(json!({"image": "a", "disk": 20}));
    assert!(w.decide().create.is_none());
    w.pool.spec.template.spec.provider_config = config(json!({"image": "a", "disk": 40}));
    assert!(w.decide().create.is_some());
}

#[test]
fn a_changed_config_waits_for_the_pools_version_unless_told_to_roll_now() {
    let mut w = World::new(plain());
    w.settle();
    let target: Version = "v1.34.0".parse().unwrap();
    w.version = PoolVersion {
        version: Some("v1.33.0".parse().unwrap()),
        reason: VersionReason::WaitingForControlPlane {
            target,
            running: Some("v1.33.0".parse().unwrap()),
        },
    };
    w.pool.spec.template.spec.provider_config = config(json!({"image": "b"}));
    w.pool.spec.replicas = Some(5);
    w.settle();
    assert_eq!(w.sizes(), [5], "scaling is never frozen");
    assert!(matches!(w.decide().waiting, Some(RolloutWait::Version(_))));
    let mut now = w.decide();
    assert!(now.create.is_none());
    w.pool.metadata.annotations = Some(BTreeMap::from([(
        meta::ANNOTATION_ROLL_NOW.to_owned(),
        String::new(),
    )]));
    now = w.decide();
    assert!(now.create.is_some());
    // The version arrives: one roll for both.
    w.pool.metadata.annotations = None;
    w.version = own("v1.34.0");
    w.settle();
    assert_eq!(w.sizes(), [0, 5]);
}

#[test]
fn a_paused_pool_scales_but_does_not_roll() {
    let mut w = World::new(plain());
    w.settle();
    w.pool.metadata.annotations = Some(BTreeMap::from([(
        meta::ANNOTATION_PAUSED.to_owned(),
        String::new(),
    )]));
    w.pool.spec.template.spec.provider_config = config(json!({"image": "b"}));
    w.pool.spec.replicas = Some(6);
    w.settle();
    assert_eq!(w.sizes(), [6]);
    assert_eq!(w.decide().waiting, Some(RolloutWait::Paused));
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut w = World::new(plain());
    w.pool.spec.revision_history_limit = Some(2);
    for image in ["a", "b", "c", "d", "e"] {
        w.pool.spec.template.spec.provider_config = config(json!({"image": image}));
        w.settle();
    }
    assert_eq!(w.sizes(), [0, 0, 3]);
    assert_eq!(w.decide().revision, 5);
}

#[test]
fn a_restart_rolls_once_when_its_time_has_come() {
    let mut w = World::new(plain());
    w.settle();
    let when = at(w.clock + 1_000);
    w.pool.metadata.annotations = Some(BTreeMap::from([(
        meta::ANNOTATION_RESTARTED_AT.to_owned(),
        when.to_string(),
    )]));
    assert!(w.decide().is_settled());
    w.clock += 1_000;
    w.settle();
    assert_eq!(w.sizes(), [0, 3]);
    assert!(w.decide().is_settled());
    assert_ne!(w.sets[0].metadata.name, w.sets[1].metadata.name);
}

/// The last row of Cluster API's TestReconcileNewMachineSet: a set that made no more machines does so again as the current one.
#[test]
fn a_current_set_makes_machines_again_though_it_was_stopped() {
    let mut w = World::new(plain());
    w.settle();
    let annotations = w.sets[0].metadata.annotations.get_or_insert_default();
    annotations.insert(
        meta::ANNOTATION_DISABLE_MACHINE_CREATE.into(),
        "true".into(),
    );
    w.sets[0].spec.replicas = Some(1);
    w.follow();
    let d = w.act();
    let change = d.updates[0]
        .annotations
        .get(meta::ANNOTATION_DISABLE_MACHINE_CREATE);
    assert_eq!(change, Some(&None), "the annotation goes");
    assert_eq!(w.sizes(), [3]);
}

/// Cluster API's Test_OnDeleteSequences: the pool makes a machine of the new content for each that somebody deletes.
#[test]
fn with_on_delete_machines_are_replaced_as_people_delete_them() {
    let mut w = World::new(plain());
    w.settle();
    let strategy = w.pool.spec.rollout.as_mut().unwrap();
    strategy.strategy.as_mut().unwrap().kind = Some(StrategyType::OnDelete);
    w.pool.spec.template.spec.provider_config = config(json!({"image": "b"}));
    w.settle();
    assert_eq!(w.sizes(), [3, 0], "nothing goes by itself");
    let stopped = |w: &World| {
        let all = w.sets[0].metadata.annotations.as_ref().unwrap();
        all.contains_key(meta::ANNOTATION_DISABLE_MACHINE_CREATE)
    };
    assert!(stopped(&w), "the old set makes no more machines");
    let mut steps = Vec::new();
    for left in [2, 1, 0] {
        // Somebody deletes one; it is not made again where it was.
        let status = w.sets[0].status.as_mut().unwrap();
        status.replicas = left;
        status.available_replicas = left;
        drop(w.act());
        steps.push(w.sizes());
        w.settle();
        steps.push(w.sizes());
    }
    let want = [[2, 0], [2, 1], [1, 1], [1, 2], [0, 2], [0, 3]];
    assert_eq!(steps, want);
}
