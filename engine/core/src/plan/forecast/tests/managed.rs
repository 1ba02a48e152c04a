//! Plans of what providers run: in which steps, and with how many nodes.

use super::*;
use crate::{catalogue::Catalogue, plan::PlanEffect};

fn catalogue() -> Catalogue {
    let mut out = Catalogue::default();
    for (kind, purpose) in [("Plane", "ControlPlane"), ("Group", "Pool")] {
        let schema = json!({"type": "object", "x-fleetwright-for": purpose, "properties": {
            "size": {"type": "integer", "x-fleetwright-change": "in-place"},
            "zone": {"type": "string", "x-fleetwright-change": "replace"},
        }});
        out.insert("x/v1", kind, schema);
    }
    out
}

fn config(kind: &str, size: u32) -> Value {
    json!({"apiVersion": "x/v1", "kind": kind, "account": "x", "size": size})
}

fn plane(version: &str, size: u32) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"version": version, "controlPlane": {"managed": {"providerConfig": config("Plane", size)}}}})
}

fn group(replicas: u32, size: u32) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "MachineDeployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterName": "a", "replicas": replicas, "template": {"spec": {"providerConfig": config("Group", size)}}}})
}

/// The object as it is applied, with what controllers say of it.
fn live(document: Value, version: &str, replicas: u32) -> Value {
    let mut out = document;
    out["metadata"]["uid"] = json!("u-1");
    out["status"] = json!({"version": version, "replicas": replicas});
    if out["kind"] == "MachineDeployment" {
        out["metadata"]["finalizers"] = json!([meta::FINALIZER_POOL]);
    }
    out
}

fn foretold(documents: &[Value], objects: Vec<Value>) -> Plan {
    asking(documents, objects).0
}

/// The plan, and what the provider is asked for beforehand.
fn asking(documents: &[Value], objects: Vec<Value>) -> (Plan, Images) {
    let desired: Vec<Desired> = documents
        .iter()
        .map(|d| Desired {
            document: d.clone(),
            source: "a.yaml:1".into(),
            origins: Origins::default(),
        })
        .collect();
    let live = Live {
        objects,
        ..Live::default()
    };
    let mut out = plan(&desired, None, &live, &policy(), &catalogue());
    let images = forecast(&mut out, &live, &policy(), &catalogue(), now());
    (out, images)
}

/// Steps of all rollouts, in their order.
fn steps(plan: &Plan) -> Vec<String> {
    let mut all: Vec<(usize, String)> = plan
        .rollouts
        .iter()
        .flat_map(|r| r.steps.iter().map(|s| (r.owner.name.as_str(), s)))
        .map(|(owner, step)| {
            let does = step.provider.as_ref().map(ToString::to_string);
            let version = step.version.clone().unwrap_or_default();
            let text = format!(
                "{}. {owner}: {} {version}",
                step.step,
                does.unwrap_or_default()
            );
            (step.step, text.trim_end().to_owned())
        })
        .collect();
    all.sort();
    all.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn what_is_made_is_said_with_its_number() {
    let plan = foretold(&[plane("v1.33.0", 1), group(3, 1)], Vec::new());
    assert_eq!(
        steps(&plan),
        [
            "1. a: the provider makes the control plane v1.33.0",
            "2. web: the provider makes 3 nodes v1.33.0",
        ]
    );
    assert_eq!(
        plan.expected_seconds, None,
        "nobody knows how long it takes"
    );
}

#[test]
fn an_upgrade_shows_each_minor_and_when_nodes_roll() {
    let objects = vec![
        live(plane("v1.30.0", 1), "v1.30.0", 0),
        live(group(5, 1), "v1.30.0", 5),
    ];
    let plan = foretold(&[plane("v1.34.0", 1), group(5, 1)], objects);
    assert_eq!(
        steps(&plan),
        [
            "1. a: the provider changes the control plane v1.31.0",
            "2. a: the provider changes the control plane v1.32.0",
            "3. a: the provider changes the control plane v1.33.0",
            "4. web: the provider replaces 5 nodes v1.33.0",
            "5. a: the provider changes the control plane v1.34.0",
            "6. web: the provider replaces 5 nodes v1.34.0",
        ]
    );
    let path = plan.rollouts.iter().find_map(|r| r.path.clone()).unwrap();
    assert_eq!(
        path,
        "v1.30.0 -> v1.31.0 -> v1.32.0 -> v1.33.0 -> v1.34.0; workers at v1.33.0, then v1.34.0"
    );
    let effect = &plan
        .changes
        .iter()
        .find(|c| c.key.kind == "Cluster")
        .unwrap()
        .effect;
    let reason = "spec.version: v1.30.0 -> v1.34.0".to_owned();
    assert_eq!(
        *effect,
        PlanEffect::ByProvider {
            reason,
            nodes: None
        }
    );
}

#[test]
fn a_provider_is_asked_for_what_new_nodes_are_made_from() {
    let objects = |version: &str| {
        vec![
            live(plane(version, 1), version, 0),
            live(group(2, 1), version, 2),
        ]
    };
    // (the pool, what there is already, versions that are asked for)
    for (pool, there, versions) in [
        (group(2, 1), vec![], vec!["v1.33.0"]),
        (group(2, 1), objects("v1.32.0"), vec!["v1.33.0"]),
        (group(4, 1), objects("v1.33.0"), vec![]),
        (group(2, 2), objects("v1.33.0"), vec![]),
    ] {
        let (_, images) = asking(&[plane("v1.33.0", 1), pool.clone()], there);
        let asked: Vec<(&str, &str)> = images
            .iter()
            .flat_map(|(key, images)| images.iter().map(|i| (key.name.as_str(), i)))
            .map(|(name, image)| (name, image.version.as_str()))
            .collect();
        let wanted: Vec<(&str, &str)> = versions.into_iter().map(|v| ("web", v)).collect();
        assert_eq!(asked, wanted, "{pool}");
    }
}

#[test]
fn settings_change_by_what_their_schema_says() {
    let objects = || {
        vec![
            live(plane("v1.33.0", 1), "v1.33.0", 0),
            live(group(2, 1), "v1.33.0", 2),
        ]
    };
    let effect = |documents: &[Value]| {
        let plan = foretold(documents, objects());
        let of_spec = |f: &crate::plan::FieldDiff| f.path.first().is_some_and(|p| p == "spec");
        let changed = plan.changes.iter().filter(|c| c.fields.iter().any(of_spec));
        let changed: Vec<PlanEffect> = changed.map(|c| c.effect.clone()).collect();
        let refused: Vec<String> = plan.refused.iter().map(|r| r.reason.clone()).collect();
        (changed, refused, steps(&plan))
    };
    let mut zoned = plane("v1.33.0", 1);
    zoned["spec"]["controlPlane"]["managed"]["providerConfig"]["zone"] = json!("b");
    let mut own = group(2, 1);
    own["spec"]["template"]["spec"]["providerConfig"]["kind"] = json!("Machine");
    let in_place = "spec.providerConfig.size: 1 -> 2".to_owned();
    for (what, documents, changed, refused, all) in [
        (
            "the control plane's size",
            [plane("v1.33.0", 2), group(2, 1)],
            vec![PlanEffect::ByProvider {
                reason: in_place.clone(),
                nodes: None,
            }],
            "",
            vec!["1. a: the provider changes the control plane"],
        ),
        (
            "the pool's size",
            [plane("v1.33.0", 1), group(2, 2)],
            vec![PlanEffect::InPlace {
                reason: in_place.clone(),
            }],
            "",
            vec![],
        ),
        (
            "more nodes",
            [plane("v1.33.0", 1), group(4, 1)],
            vec![PlanEffect::None],
            "",
            vec!["1. web: the provider goes from 2 to 4 nodes v1.33.0"],
        ),
        (
            "another zone",
            [zoned, group(2, 1)],
            vec![],
            "a.yaml:1: the provider cannot change spec.providerConfig.zone: (unset) -> b: make another cluster, and delete this one",
            vec![],
        ),
        (
            "machines",
            [plane("v1.33.0", 1), own],
            vec![],
            "make another pool, and delete this one",
            vec![],
        ),
    ] {
        let found = effect(&documents);
        assert_eq!(found.0, changed, "{what}");
        assert!(
            found.1.join(" ").ends_with(refused),
            "{what}: {:?}",
            found.1
        );
        assert_eq!(
            found.1.is_empty(),
            refused.is_empty(),
            "{what}: {:?}",
            found.1
        );
        assert_eq!(found.2, all, "{what}");
    }
}
