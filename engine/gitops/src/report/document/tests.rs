use std::path::Path;

use fleetwright_core::plan::{
    BlockerKind, BootImage, ByProvider, Change, FieldDiff, FilePlace, History, HistoryOf, Kept,
    Key, Mistake, PlanBlocker, PlanEffect, PlannedWave, Refusal, Removal, Removed, Rollout, Step,
    Written,
};
use serde_json::json;

use super::*;

fn key(kind: &str) -> Key {
    Key {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn change(effect: PlanEffect) -> Change {
    Change {
        key: key("MachineDeployment"),
        source: "a.yaml:1".into(),
        before: Some(json!({"spec": {"replicas": 1}})),
        after: Some(json!({"spec": {"replicas": 2}})),
        fields: vec![FieldDiff {
            path: vec!["spec".into(), "replicas".into()],
            from: None,
            to: Some(json!(2)),
            held_by: vec!["kubectl".into()],
        }],
        origins: vec![Written {
            path: vec!["spec".into()],
            file: "base.yaml".into(),
            line: 1,
            column: 2,
        }],
        adopted_from: vec!["fleetwright-fleet-0123456789abcdef".into()],
        handover: vec![Kept {
            path: vec!["spec".into()],
            value: json!(1),
        }],
        effect,
        wave: Some("canary".into()),
    }
}

/// A plan that has something of everything.
fn full() -> Plan {
    let reason = || "because".to_owned();
    Plan {
        creates: vec![change(PlanEffect::None)],
        changes: vec![
            change(PlanEffect::InPlace { reason: reason() }),
            change(PlanEffect::RollingReplacement { reason: reason() }),
            change(PlanEffect::ByProvider {
                reason: reason(),
                nodes: Some(3),
            }),
        ],
        deletes: vec![change(PlanEffect::Removal {
            steps: vec![Removal {
                nodes: [("web".to_owned(), 3)].into(),
                what: Removed::ControlPlane,
                machines: vec!["web-0".into()],
            }],
        })],
        refused: vec![Refusal {
            key: key("Cluster"),
            reason: reason(),
            wave: None,
        }],
        drift: vec![fleetwright_core::plan::Drift {
            key: key("Cluster"),
            field: ".spec.version".into(),
            managers: vec!["kubectl".into()],
            wanted: Some(json!("a")),
            found: None,
            since: Some(jiff::Timestamp::UNIX_EPOCH),
        }],
        rollouts: vec![Rollout {
            owner: key("MachineDeployment"),
            because: vec![reason()],
            in_place: vec!["web-1".into()],
            steps: vec![Step {
                provider: Some(ByProvider::NodesRolled { nodes: 3 }),
                step: 1,
                wave: None,
                create: vec!["web-2".into(), "web-3".into()],
                version: Some("v1.33.2".into()),
                delete: vec!["web-1".into()],
            }],
            path: None,
            images: vec![BootImage {
                version: "v1.33.2".into(),
                image: Some("ami-1".into()),
            }],
            expected_seconds: Some(60),
            expected_from: Some(History {
                of: HistoryOf::Cluster,
                machines: 3,
                seconds: 60,
            }),
            note: Some(reason()),
        }],
        expected_seconds: Some(60),
        blockers: vec![PlanBlocker {
            kind: BlockerKind::Window,
            object: None,
            wave: Some("canary".into()),
            reason: reason(),
            mistake: Some(Mistake {
                object: key("MachineDeployment"),
                field: "spec.size".into(),
                place: Some(FilePlace {
                    file: "a.yaml".into(),
                    line: 7,
                    column: 9,
                }),
            }),
            until: Some(jiff::Timestamp::UNIX_EPOCH),
        }],
        waves: vec![PlannedWave {
            name: Some("canary".into()),
            changes: 1,
            soak_seconds: 60,
            hold: None,
        }],
    }
}

#[test]
fn a_document_fits_its_schema_and_is_read_back_as_it_was() {
    let policy = Policy {
        namespace: "default".into(),
        fleet: "prod".into(),
        ..Policy::default()
    };
    let made = Made {
        revision: "abc",
        tree: "def",
        policy: &policy,
    };
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for plan in [Plan::default(), full()] {
        let document = Document::of(made, plan);
        let value = serde_json::to_value(&document).unwrap();
        let faults: Vec<String> = schema
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert_eq!(faults, [""; 0], "{value}");
        let back: Document = serde_json::from_value(value).unwrap();
        assert_eq!(back, document);
    }
    let mut wrong = serde_json::to_value(Document::of(made, full())).unwrap();
    wrong["blockers"][0]["kind"] = json!("Weather");
    assert!(!schema.is_valid(&wrong));
    let Summary {
        machines_made,
        machines_deleted,
        blockers,
        ..
    } = Document::of(made, full()).summary;
    assert_eq!((machines_made, machines_deleted, blockers), (2, 2, 1));
}

/// `UPDATE_DOCS=1` writes the file anew.
#[test]
fn the_schema_of_plans_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plan.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "docs/plan.schema.json is out of date: run `make docs`"
    );
}
