//! What is no drift: a document is compared with what lives, not with what a server makes of it.

use fleetwright_api::{condition::kind, fleet::DriftAction};
use serde_json::{Value, json};

use crate::kit::{Following, World, cluster, config_map, pool};

const TAINTS: &str =
    "taints: [{key: b, effect: NoSchedule}, {key: a, value: x, effect: NoExecute}]";

async fn scene() -> (World, Following) {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    let rollout = "replicas: 3\n  rollout: {strategy: {rollingUpdate: {maxSurge: 2}}}";
    let web = pool("web", rollout).replace(
        "{spec: {providerConfig",
        &format!("{{spec: {{{TAINTS}, providerConfig"),
    );
    assert!(web.contains(TAINTS), "{web}");
    fleet.write("web.yaml", &web);
    fleet.write("c.yaml", &config_map("c", "one"));
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: x}}\n";
    fleet.write("shop.yaml", namespace);
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Converging", "{message}");
    (world, fleet)
}

/// Whatever the policy is, nothing is found and nothing is written.
async fn in_sync(world: &World, fleet: &mut Following, what: &str) {
    for policy in [DriftAction::Report, DriftAction::Correct] {
        fleet.drift(policy).await;
        let before = world.versions().await;
        fleet.look(world).await;
        // As a new process sees it, which knows no commit of before.
        fleet.restart(world).await;
        fleet.look(world).await;
        assert_eq!(
            fleet.condition(kind::IN_SYNC).0,
            "InSync",
            "{what} {policy:?}"
        );
        assert_eq!(world.versions().await, before, "{what} {policy:?}");
    }
}

#[tokio::test]
async fn defaults_of_the_server_are_no_drift() {
    let (world, mut fleet) = scene().await;
    let strategy = "/spec/rollout/strategy";
    let filled = world.field("MachineDeployment", "web", strategy).await;
    assert_eq!(filled["rollingUpdate"]["maxSurge"], 2);
    let created = world.field("Namespace", "shop", "/metadata/labels").await;
    let own = &created["kubernetes.io/metadata.name"];
    assert_eq!(own, "shop", "the server has put something in");
    in_sync(&world, &mut fleet, "defaults").await;
    // A default that somebody writes out is still none of Git's.
    let explicit = json!({"spec": {"rollout": {"strategy": {"type": "RollingUpdate"}}}});
    world.edit("MachineDeployment", "web", explicit).await;
    in_sync(&world, &mut fleet, "a default written out").await;
}

#[tokio::test]
async fn what_servers_and_others_put_beside_is_no_drift() {
    let (world, mut fleet) = scene().await;
    let marks = json!({"metadata": {
        "labels": {"injected": "yes"}, "annotations": {"example.org/by": "webhook"}, "finalizers": ["example.org/hold"],
    }});
    for (kind, name) in [
        ("Cluster", "a"),
        ("MachineDeployment", "web"),
        ("ConfigMap", "c"),
        ("Namespace", "shop"),
    ] {
        world.edit(kind, name, marks.clone()).await;
    }
    let deletion = json!({"nodeDrainTimeoutSeconds": 60});
    let template =
        json!({"spec": {"template": {"spec": {"deletion": deletion, "failureDomain": "eu-b"}}}});
    world.edit("MachineDeployment", "web", template).await;
    world
        .edit("ConfigMap", "c", json!({"data": {"more": "x"}}))
        .await;
    world.converge("a").await;
    in_sync(&world, &mut fleet, "what others put beside").await;
    let kept = world.field("ConfigMap", "c", "/data/more").await;
    assert_eq!(kept, "x", "and it stays");
}

#[tokio::test]
async fn the_order_of_lists_is_no_drift() {
    let (world, mut fleet) = scene().await;
    let path = "/spec/template/spec/taints";
    let Value::Array(mut taints) = world.field("MachineDeployment", "web", path).await else {
        panic!("no taints");
    };
    taints.reverse();
    let turned = json!({"spec": {"template": {"spec": {"taints": taints}}}});
    world.edit("MachineDeployment", "web", turned).await;
    assert_eq!(
        world.field("MachineDeployment", "web", path).await,
        json!(taints)
    );
    // The next look puts them in Git's order again, as an apply does, and tells nothing.
    fleet.look(&world).await;
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");
    taints.reverse();
    assert_eq!(
        world.field("MachineDeployment", "web", path).await,
        json!(taints)
    );
    in_sync(&world, &mut fleet, "another order").await;
    // Another's item beside ours is another's; one of ours that is changed is drift.
    taints.push(json!({"key": "c", "effect": "NoSchedule"}));
    let more = json!({"spec": {"template": {"spec": {"taints": taints}}}});
    world.edit("MachineDeployment", "web", more).await;
    in_sync(&world, &mut fleet, "one item more").await;
    for taint in taints.iter_mut().filter(|t| t["key"] == "a") {
        taint["value"] = json!("y");
    }
    let changed = json!({"spec": {"template": {"spec": {"taints": taints}}}});
    world.edit("MachineDeployment", "web", changed).await;
    fleet.drift(DriftAction::Report).await;
    fleet.look(&world).await;
    let (reason, message) = fleet.condition(kind::IN_SYNC);
    assert_eq!(reason, "Drifted");
    assert!(message.contains("\"y\", where Git says \"x\""), "{message}");
}
