//! Objects between Fleets, and Fleets that go.

use fleetwright_api::meta::{ANNOTATION_REVISION, MANAGER_HANDOVER};

use super::*;

const OLD: &str = "fleetwright/default.old";

/// The object as a Fleet named `old` left it.
fn of_old(object: &Value) -> Value {
    let mut object = applied(object, None, OLD);
    object["metadata"]["labels"][LABEL_FLEET] = fleet_hash("default", "old").into();
    object["metadata"]["annotations"] = json!({ANNOTATION_REVISION: "3fa2c1d"});
    object
}

fn fleets(names: &[&str]) -> Option<belonging::Fleets> {
    let named = names
        .iter()
        .map(|name| (fleet_hash("default", name), format!("default/{name}")));
    Some(named.collect())
}

fn plan_of(desired: Value, live: Value, fleets: Option<belonging::Fleets>) -> Plan {
    let desired = [Desired {
        document: desired,
        source: "a.yaml:1".into(),
        origins: Origins::default(),
    }];
    let live = Live {
        objects: vec![live],
        fleets,
        ..Live::default()
    };
    plan(&desired, None, &live, &policy(), &Catalogue::default())
}

#[test]
fn an_object_belongs_to_the_living_fleet_that_its_label_names() {
    let named = "a.yaml:1: it belongs to Fleet default/old, which declares it as of 3fa2c1d";
    let unknown = "a.yaml:1: it belongs to another Fleet, which declares it as of 3fa2c1d";
    for (there, refusal) in [
        (None, Some(unknown)),
        (fleets(&["default", "old"]), Some(named)),
        (fleets(&["default"]), None),
        (fleets(&[]), None),
    ] {
        let out = plan_of(pool(), of_old(&pool()), there.clone());
        match refusal {
            Some(words) => {
                assert!(
                    out.refused[0].reason.starts_with(words),
                    "{there:?}: {out:?}"
                );
                assert!(out.changes.is_empty(), "{there:?}");
            }
            None => {
                assert_eq!(out.refused, [], "{there:?}");
                assert_eq!(out.changes[0].adopted_from, [OLD], "{there:?}");
            }
        }
    }
}

#[test]
fn a_renamed_fleet_changes_nothing_but_to_whom_its_objects_belong() {
    let out = plan_of(pool(), of_old(&pool()), fleets(&["default"]));
    let change = &out.changes[0];
    assert_eq!((&change.fields, &change.handover), (&vec![], &vec![]));
    assert_eq!(change.effect, PlanEffect::None);
    let after = applied(
        &pool(),
        Some(&of_old(&pool())),
        "fleetwright/default.default",
    );
    assert_eq!(
        after["metadata"]["labels"][LABEL_FLEET],
        fleet_hash("default", "default")
    );
    assert_eq!(
        belonging::former(&after, "nobody"),
        ["fleetwright/default.default".to_owned()].into()
    );
    assert!(plan_of(pool(), after, fleets(&["default"])).is_empty());
}

#[test]
fn what_a_fleet_that_is_gone_alone_declared_goes_with_it_or_is_kept_by_the_handover() {
    let mut before = pool();
    before["spec"]["revisionHistoryLimit"] = json!(3);
    let mut wanted = pool();
    wanted["spec"].as_object_mut().unwrap().remove("replicas");
    wanted["spec"]["template"]["spec"]["providerConfig"]["size"] = json!(2);
    let out = plan_of(wanted.clone(), of_old(&before), fleets(&["default"]));
    let change = &out.changes[0];
    let fields: Vec<String> = change.fields.iter().map(|f| f.path.join(".")).collect();
    assert_eq!(
        fields,
        [
            "spec.revisionHistoryLimit",
            "spec.template.spec.providerConfig.size"
        ]
    );
    assert_eq!(
        (&change.fields[0].from, &change.fields[0].to),
        (&Some(json!(3)), &Some(json!(10)))
    );
    // Nobody is left to take it from.
    assert_eq!(change.fields[1].held_by, Vec::<String>::new());
    assert_eq!(change.handover[0].value, json!(3));
    assert_eq!(out.drift, []);
    let after = applied(
        &wanted,
        Some(&of_old(&before)),
        "fleetwright/default.default",
    );
    assert_eq!(after["spec"]["replicas"], json!(3));
    let entries = after["metadata"]["managedFields"].as_array().unwrap();
    let managers: BTreeSet<_> = entries
        .iter()
        .map(|e| e["manager"].as_str().unwrap())
        .collect();
    assert_eq!(
        managers,
        ["fleetwright/default.default", MANAGER_HANDOVER].into()
    );
}

#[test]
fn what_is_left_of_a_take_over_that_was_cut_off_is_made_good() {
    let mut half = of_old(&pool());
    half["metadata"]["labels"][LABEL_FLEET] = fleet_hash("default", "default").into();
    let own = applied(&pool(), None, "fleetwright/default.default");
    let own = own["metadata"]["managedFields"][0].clone();
    half["metadata"]["managedFields"]
        .as_array_mut()
        .unwrap()
        .push(own);
    let out = plan_of(pool(), half, fleets(&["default", "old"]));
    assert_eq!(
        (out.changes.len(), out.changes[0].adopted_from[0].as_str()),
        (1, OLD)
    );
}

#[test]
fn what_nobody_declares_stays_when_its_fleet_is_gone() {
    let live = Live {
        objects: vec![of_old(&pool()), of_old(&cluster())],
        fleets: fleets(&["default"]),
        ..Live::default()
    };
    let out = plan(&[], None, &live, &policy(), &Catalogue::default());
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn nothing_is_deleted_that_the_fleet_may_not_hold() {
    let allow = |namespaces: &[&str], kinds: &[&str]| Allow {
        namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
        kinds: kinds.iter().map(|k| (*k).to_owned()).collect(),
        // Machines of an account that is no longer allowed may go.
        accounts: vec!["other".into()],
    };
    for (allow, refusal) in [
        (allow(&[], &[]), None),
        (allow(&["default"], &["MachineDeployment"]), None),
        (allow(&["other"], &[]), Some("namespace default")),
        (allow(&[], &["Cluster"]), Some("kind MachineDeployment")),
    ] {
        let live = Live {
            objects: vec![owned(pool(), false)],
            ..Live::default()
        };
        let policy = Policy {
            allow: allow.clone(),
            ..policy()
        };
        let out = plan(&[], None, &live, &policy, &Catalogue::default());
        match refusal {
            None => assert_eq!((out.deletes.len(), out.refused.len()), (1, 0), "{allow:?}"),
            Some(words) => {
                assert_eq!((out.deletes.len(), out.refused.len()), (0, 1), "{allow:?}");
                assert!(out.refused[0].reason.contains(words), "{out:?}");
            }
        }
    }
}

#[test]
fn a_fleet_goes_with_its_objects_by_the_guards_of_a_commit_that_removes_them() {
    let leaving = |mut object: Value| {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    };
    let namespace = applied(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        None,
        "fleetwright/default.default",
    );
    let (held, half, going, gone) = ("held", "held half-way", "going", "gone");
    // (live objects, machines, what it comes to)
    let rows = [
        (vec![], 0, gone),
        (vec![namespace], 0, gone),
        (vec![of_old(&cluster()), cluster()], 0, gone),
        (vec![owned(pool(), false)], 2, going),
        (vec![owned(pool(), false)], 3, held),
        (vec![owned(pool(), true)], 3, going),
        (vec![owned(cluster(), false), owned(pool(), false)], 0, held),
        (vec![owned(cluster(), true), owned(pool(), false)], 2, going),
        (
            vec![owned(cluster(), false), leaving(owned(pool(), false))],
            0,
            half,
        ),
        (vec![leaving(owned(cluster(), true))], 9, going),
    ];
    for (at, (objects, machines, wanted)) in rows.into_iter().enumerate() {
        let machines = (0..machines).map(|i| machine(&format!("web-{i}")));
        let live = Live {
            objects,
            machines: machines.collect(),
            ..Live::default()
        };
        let came = match depart(&live, &policy()) {
            Departure::Held { plan, begun } => {
                assert!(
                    plan.deletes.is_empty() && !plan.refused.is_empty(),
                    "row {at}"
                );
                if begun { half } else { held }
            }
            Departure::Going { plan, leaving } => {
                assert!(plan.refused.is_empty(), "row {at}");
                assert_eq!(
                    plan.deletes.len() + leaving.len(),
                    live.objects.len(),
                    "row {at}"
                );
                going
            }
            Departure::Gone => gone,
        };
        assert_eq!(came, wanted, "row {at}");
    }
}
