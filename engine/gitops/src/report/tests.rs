use fleetwright_core::{
    plan::{BlockerKind, Drift, FieldDiff, FilePlace, Kept, Refusal, Written},
    waves::Hold,
};
use serde_json::json;

use super::*;

fn key(kind: &str, name: &str) -> Key {
    Key {
        api_version: "fleetwright.dev/v1alpha1".into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn change(kind: &str, name: &str, effect: PlanEffect) -> Change {
    Change {
        key: key(kind, name),
        source: "a.yaml:3".into(),
        before: None,
        after: None,
        fields: Vec::new(),
        origins: Vec::new(),
        handover: Vec::new(),
        adopted_from: Vec::new(),
        effect,
        wave: None,
    }
}

#[test]
fn says_what_differs_why_and_in_which_steps() {
    let mut pool = change(
        "MachineDeployment",
        "web",
        PlanEffect::RollingReplacement {
            reason: "spec.providerConfig.size: 1 -> 2".into(),
        },
    );
    let spec = |size: u32| json!({"metadata": {"name": "web"}, "spec": {"a": 1, "b": 2, "c": 3, "size": size, "z": "yes"}});
    (pool.before, pool.after) = (Some(spec(1)), Some(spec(2)));
    pool.fields.push(FieldDiff {
        path: vec!["spec".into(), "size".into()],
        from: Some(json!(1)),
        to: Some(json!(2)),
        held_by: vec!["kubectl-edit".into()],
    });
    pool.origins.push(Written {
        path: vec!["spec".into(), "size".into()],
        file: "base/pool.yaml".into(),
        line: 12,
        column: 3,
    });
    pool.handover.push(Kept {
        path: vec!["spec".into(), "replicas".into()],
        value: json!(10),
    });
    let step = |step, create: &[&str], delete: &[&str]| Step {
        provider: None,
        step,
        wave: None,
        create: create.iter().map(|n| (*n).into()).collect(),
        version: Some("v1.34.1".into()),
        delete: delete.iter().map(|n| (*n).into()).collect(),
    };
    let plan = Plan {
        creates: vec![change("Cluster", "new", PlanEffect::None)],
        changes: vec![pool],
        deletes: vec![Change {
            source: String::new(),
            ..change(
                "MachineDeployment",
                "old",
                PlanEffect::Removal {
                    steps: vec![Removal {
                        nodes: BTreeMap::new(),
                        what: Removed::Workers,
                        machines: vec!["old-0".into()],
                    }],
                },
            )
        }],
        refused: vec![Refusal {
            key: key("Cluster", "b"),
            reason: "b.yaml:1: it belongs to another Fleet".into(),
            wave: None,
        }],
        drift: vec![Drift {
            key: key("MachineDeployment", "web"),
            field: ".spec.replicas".into(),
            managers: vec!["kubectl".into()],
            wanted: None,
            found: None,
            since: None,
        }],
        rollouts: vec![Rollout {
            owner: key("MachineDeployment", "web"),
            because: vec!["spec.providerConfig.size: 1 -> 2".into()],
            in_place: Vec::new(),
            steps: vec![step(1, &["web-1"], &[]), step(2, &[], &["web-0"])],
            path: None,
            images: vec![BootImage {
                version: "v1.34.1".into(),
                image: Some("ami-1".into()),
            }],
            expected_seconds: Some(540),
            expected_from: Some(History {
                of: HistoryOf::Own,
                machines: 3,
                seconds: 240,
            }),
            note: None,
        }],
        expected_seconds: Some(5400),
        blockers: vec![
            PlanBlocker {
                kind: BlockerKind::Budget,
                object: Some(key("MachineDeployment", "web")),
                wave: None,
                reason: "it lets none go".into(),
                mistake: None,
                until: None,
            },
            PlanBlocker {
                kind: BlockerKind::MissingImage,
                object: Some(key("MachineDeployment", "web")),
                wave: None,
                reason: "there is no image ami-2 here".into(),
                mistake: Some(Mistake {
                    object: key("MachineDeployment", "web"),
                    field: "spec.template.spec.providerConfig.image".into(),
                    place: Some(FilePlace {
                        file: "a.yaml".into(),
                        line: 9,
                        column: 12,
                    }),
                }),
                until: None,
            },
            PlanBlocker {
                kind: BlockerKind::Wave,
                object: None,
                wave: Some("prod".into()),
                reason: "wave prod waits: wave canary comes first".into(),
                mistake: None,
                until: None,
            },
        ],
        waves: vec![PlannedWave {
            name: Some("prod".into()),
            changes: 2,
            soak_seconds: 60,
            hold: Some(Hold {
                wave: Some("prod".into()),
                kind: BlockerKind::Wave,
                because: "wave canary comes first".into(),
                until: None,
            }),
        }],
    };
    let wanted = "\
+ Cluster default/new (a.yaml:3)
~ MachineDeployment default/web (a.yaml:3)
      b: 2
      c: 3
  -   size: 1
  +   size: 2  # from base/pool.yaml:12
      z: \"yes\"
    spec.replicas: no longer declared; 10 stays
    spec.size is taken from kubectl-edit
    replaces machines: spec.providerConfig.size: 1 -> 2
- MachineDeployment default/old
       1. delete workers, 1 machine: old-0
= MachineDeployment default/web: .spec.replicas is held by kubectl and stays
! Cluster default/b: b.yaml:1: it belongs to another Fleet

In this order:
  wave prod: 2 objects, watched for 60 s, waits
Machines, if nothing else happens:
  pool default/web replaces 1 machine because spec.providerConfig.size: 1 -> 2
    image: ami-1
       1. create web-1 (v1.34.1)
       2. drain and delete web-0
    takes about 9 min, drains not counted: 3 machines of its own took 4 min (median) to be ready
All of it takes about 1 h 30 min, drains not counted.
In the way:
  Budget: pool default/web: it lets none go
  MissingImage: pool default/web (a.yaml:9:12): there is no image ami-2 here
  Wave: wave prod waits: wave canary comes first

Plan: 1 to create, 1 to change, 1 to delete, 1 refused; 1 machine made, 2 deleted.
";
    assert_eq!(text(&plan), wanted);
    assert_eq!(
        mistakes(&plan),
        [
            "a.yaml:9:12: pool default/web: spec.template.spec.providerConfig.image: there is no image ami-2 here"
        ]
    );
    assert_eq!(text(&Plan::default()), "No changes.\n");
}

#[test]
fn machines_of_a_pool_that_goes_with_its_cluster_are_counted_once() {
    let removal = |kind, namespace: &str, names: &[&str]| {
        let step = Removal {
            nodes: BTreeMap::new(),
            what: Removed::Workers,
            machines: names.iter().map(|n| (*n).to_owned()).collect(),
        };
        let mut delete = change(kind, "a", PlanEffect::Removal { steps: vec![step] });
        delete.key.namespace = namespace.into();
        delete
    };
    let plan = Plan {
        deletes: vec![
            removal("MachineDeployment", "default", &["web-0", "web-1"]),
            removal("MachineDeployment", "other", &["web-0"]),
            removal("Cluster", "default", &["web-0", "web-1", "a-0"]),
        ],
        ..Plan::default()
    };
    assert!(
        summary(&plan).ends_with("0 machines made, 4 deleted."),
        "{}",
        summary(&plan)
    );
}

#[test]
fn long_rollouts_are_cut_and_counted() {
    let names = |n: usize| (0..n).map(|i| format!("m-{i}")).collect::<Vec<_>>();
    let steps = (0..100).map(|at| Step {
        provider: None,
        step: at + 1,
        wave: None,
        create: names(20),
        version: None,
        delete: Vec::new(),
    });
    let plan = Plan {
        rollouts: vec![Rollout {
            owner: key("Cluster", "a"),
            because: Vec::new(),
            in_place: names(9),
            steps: steps.collect(),
            path: None,
            images: Vec::new(),
            expected_seconds: None,
            expected_from: None,
            note: Some("stays at v1.34.1".into()),
        }],
        ..Plan::default()
    };
    let text = text(&plan);
    assert!(text.lines().count() < STEPS + 10, "{text}");
    assert!(
        text.contains("m-7 and 12 more") && text.contains("m-7 and 1 more"),
        "{text}"
    );
    assert!(
        text.contains("... 76 more steps: 1520 made, 0 deleted"),
        "{text}"
    );
}

#[test]
fn images_are_told_each_once() {
    let of = |version: &str, image: Option<&str>| BootImage {
        version: version.into(),
        image: image.map(str::to_owned),
    };
    for (all, want) in [
        (vec![], ""),
        (vec![of("v1.34.0", Some("ami-1"))], "    image: ami-1"),
        (vec![of("v1.34.0", None)], "    image: unknown"),
        (
            vec![of("v1.34.0", Some("ami-1")), of("v1.35.0", Some("ami-1"))],
            "    image: ami-1",
        ),
        (
            vec![of("v1.34.0", Some("ami-1")), of("v1.35.0", None)],
            "    images: ami-1 (v1.34.0), unknown (v1.35.0)",
        ),
    ] {
        assert_eq!(images(&all), want);
    }
}
