//! What an apply does to the API: idempotence, field ownership, conflicts, namespaces, the revision's annotation.

use fleetwright_api::{
    condition::kind,
    fleet::{Allow, DriftAction, DriftRule},
    meta::{ANNOTATION_AUTOSCALER_MAX, ANNOTATION_AUTOSCALER_MIN, MANAGER_HANDOVER},
};
use kube::api::PostParams;
use serde_json::json;

use crate::kit::{Following, World, cluster, config_map, pool};

const REVISION: &str = "/metadata/annotations/fleetwright.dev~1revision";
const OURS: &str = "fleetwright/default.repo";

async fn scene() -> (World, Following) {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("web.yaml", &pool("web", "replicas: 10"));
    fleet.write("c.yaml", &config_map("c", "one"));
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Converging", "{message}");
    (world, fleet)
}

#[tokio::test]
async fn applying_again_changes_nothing() {
    let (world, mut fleet) = scene().await;
    let before = world.versions().await;
    fleet.look(&world).await;
    fleet.restart(&world).await;
    fleet.look(&world).await;
    // A comment is another revision, but the same content.
    fleet.write(
        "web.yaml",
        &format!("# ten\n{}", pool("web", "replicas: 10")),
    );
    fleet.look(&world).await;
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn the_revision_stays_until_the_content_changes_and_a_revert_is_one_more_change() {
    let (world, mut fleet) = scene().await;
    let revision = async |name| world.field("MachineDeployment", name, REVISION).await;
    let first = revision("web").await;
    fleet.write("a.yaml", &cluster("a", "v1.34.1"));
    fleet.look(&world).await;
    let second = world.field("Cluster", "a", REVISION).await;
    assert_ne!(second, first);
    assert_eq!(revision("web").await, first);
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.look(&world).await;
    assert_eq!(world.field("Cluster", "a", REVISION).await, first);
    assert_eq!(
        world.field("Cluster", "a", "/spec/version").await,
        "v1.33.2"
    );
    assert_eq!(world.field("Cluster", "a", "/metadata/generation").await, 3);
}

#[tokio::test]
async fn ten_replicas_that_git_gives_up_stay_ten_until_it_declares_them_again() {
    let (world, mut fleet) = scene().await;
    let replicas = async || {
        world
            .field("MachineDeployment", "web", "/spec/replicas")
            .await
    };
    let holders = async || {
        world
            .holders("MachineDeployment", "web", "f:replicas")
            .await
    };
    assert_eq!(holders().await, [OURS]);
    fleet.write("web.yaml", &pool("web", ""));
    fleet.look(&world).await;
    assert_eq!(replicas().await, 10);
    assert_eq!(holders().await, [MANAGER_HANDOVER]);
    // From here on it is everybody's.
    world
        .edit(
            "MachineDeployment",
            "web",
            json!({"spec": {"replicas": 12}}),
        )
        .await;
    let before = world.versions().await;
    fleet.look(&world).await;
    assert_eq!(
        (replicas().await, world.versions().await),
        (12.into(), before)
    );
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");

    fleet.write("web.yaml", &pool("web", "replicas: 4"));
    fleet.look(&world).await;
    assert_eq!(replicas().await, 4);
    assert_eq!(holders().await, [OURS]);
}

#[tokio::test]
async fn a_path_that_only_the_handover_holds_is_taken_back_without_knowing_what_was_before() {
    let (world, mut fleet) = scene().await;
    fleet.write("web.yaml", &pool("web", ""));
    fleet.look(&world).await;
    fleet.restart(&world).await;
    fleet.write("web.yaml", &pool("web", "replicas: 4"));
    fleet.look(&world).await;
    let replicas = world
        .field("MachineDeployment", "web", "/spec/replicas")
        .await;
    assert_eq!(replicas, 4);
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");
}

#[tokio::test]
async fn a_foreign_edit_is_reported_ignored_or_corrected_and_a_commit_that_declares_anew_wins() {
    let (world, mut fleet) = scene().await;
    let replicas = async || {
        world
            .field("MachineDeployment", "web", "/spec/replicas")
            .await
    };
    world
        .edit("MachineDeployment", "web", json!({"spec": {"replicas": 5}}))
        .await;

    // Reported: the field stays, everything else is applied.
    let with_label = |n| {
        pool("web", &format!("replicas: {n}")).replace("{name: web}", "{name: web, labels: {x: z}}")
    };
    fleet.write("web.yaml", &with_label(10));
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Converging", "{message}");
    assert_eq!(replicas().await, 5);
    assert_eq!(
        world
            .field("MachineDeployment", "web", "/metadata/labels/x")
            .await,
        "z"
    );
    let (reason, message) = fleet.condition(kind::IN_SYNC);
    assert_eq!(reason, "Drifted");
    assert!(
        message.contains("web: .spec.replicas is held by kubectl-edit"),
        "{message}"
    );
    let before = world.versions().await;
    fleet.look(&world).await;
    assert_eq!(
        world.versions().await,
        before,
        "a known drift is no reason to write"
    );

    // Ignored: nothing is recorded.
    fleet.drift(DriftAction::Ignore).await;
    fleet.look(&world).await;
    assert_eq!(replicas().await, 5);
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");

    // A commit that changes the path is somebody's newer word.
    fleet.write("web.yaml", &with_label(7));
    fleet.look(&world).await;
    assert_eq!(replicas().await, 7);

    // Corrected: taken back at the next look.
    world
        .edit("MachineDeployment", "web", json!({"spec": {"replicas": 5}}))
        .await;
    fleet.drift(DriftAction::Correct).await;
    fleet.look(&world).await;
    assert_eq!(replicas().await, 7);
    assert_eq!(
        world
            .holders("MachineDeployment", "web", "f:replicas")
            .await,
        [OURS]
    );
}

#[tokio::test]
async fn rules_say_for_each_field_and_manager_what_is_done() {
    let (world, mut fleet) = scene().await;
    let at = async |path: &str| world.field("MachineDeployment", "web", path).await;
    let labelled =
        pool("web", "replicas: 10").replace("{name: web}", "{name: web, labels: {a: git, b: git}}");
    fleet.write("web.yaml", &labelled);
    fleet.look(&world).await;
    let edit = json!({"metadata": {"labels": {"a": "hand", "b": "hand"}}, "spec": {"replicas": 5}});
    world.edit("MachineDeployment", "web", edit.clone()).await;
    let rule = |paths: &[&str], managers: &[&str], policy| DriftRule {
        kinds: vec!["MachineDeployment".into()],
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        managers: managers.iter().map(|m| (*m).to_owned()).collect(),
        policy,
    };
    let rules = vec![
        rule(
            &["metadata.labels.b"],
            &["somebody-else"],
            DriftAction::Ignore,
        ),
        rule(
            &["metadata.labels.b"],
            &["kubectl-edit"],
            DriftAction::Correct,
        ),
        rule(&["spec.replicas"], &[], DriftAction::Ignore),
    ];
    fleet.drift_rules(DriftAction::Report, rules.clone()).await;
    fleet.look(&world).await;
    let found = async || {
        (
            at("/metadata/labels/a").await,
            at("/metadata/labels/b").await,
            at("/spec/replicas").await,
        )
    };
    assert_eq!(found().await, (json!("hand"), json!("git"), json!(5)));
    let (reason, message) = fleet.condition(kind::IN_SYNC);
    assert_eq!(reason, "Drifted");
    assert!(
        message.contains(".metadata.labels.a is held by kubectl-edit since "),
        "{message}"
    );
    assert!(
        message.contains("\"hand\", where Git says \"git\""),
        "{message}"
    );
    assert!(
        !message.contains("labels.b") && !message.contains("replicas"),
        "{message}"
    );
    let before = world.versions().await;
    fleet.look(&world).await;
    assert_eq!(
        world.versions().await,
        before,
        "what is known is not written"
    );

    // The rest corrected, one field left alone.
    fleet.drift_rules(DriftAction::Correct, rules).await;
    fleet.look(&world).await;
    assert_eq!(found().await, (json!("git"), json!("git"), json!(5)));
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");
}

#[tokio::test]
async fn a_field_that_git_gives_up_is_removed_and_the_default_follows() {
    let (world, mut fleet) = scene().await;
    fleet.write(
        "web.yaml",
        &pool(
            "web",
            "replicas: 10\n  rollout: {strategy: {rollingUpdate: {maxSurge: 3}}}",
        ),
    );
    fleet.look(&world).await;
    let surge = "/spec/rollout/strategy/rollingUpdate/maxSurge";
    assert_eq!(world.field("MachineDeployment", "web", surge).await, 3);
    fleet.write("web.yaml", &pool("web", "replicas: 10"));
    fleet.look(&world).await;
    assert_ne!(world.field("MachineDeployment", "web", surge).await, 3);
}

#[tokio::test]
async fn an_object_of_another_fleet_is_refused_and_left_alone() {
    let (world, mut first) = scene().await;
    let mut second = world.directory("other").await;
    second.write("x.yaml", &cluster("a", "v1.34.1"));
    second.write("d.yaml", &config_map("d", "mine"));
    let (reason, message) = second.look(&world).await;
    assert_eq!(reason, "Refused");
    assert!(
        message
            .contains("x.yaml:1: it belongs to Fleet default/repo, which declares it as of dir:"),
        "{message}"
    );
    assert_eq!(
        world.field("Cluster", "a", "/spec/version").await,
        "v1.33.2"
    );
    assert_eq!(world.field("ConfigMap", "d", "/data/key").await, "mine");
    let before = world.versions().await;
    first.look(&world).await;
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn what_was_there_before_is_adopted_and_its_values_are_nobodys_to_overwrite_unasked() {
    let world = World::new().await;
    let there = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": "zero"}});
    let there = serde_json::from_value(there).unwrap();
    let maps = world.api("ConfigMap");
    maps.create(&PostParams::default(), &there).await.unwrap();
    let mut fleet = world.directory("repo").await;
    fleet.write("c.yaml", &config_map("c", "one"));
    fleet.look(&world).await;
    assert_eq!(world.field("ConfigMap", "c", "/data/key").await, "zero");
    // Adopted all the same: it is in the inventory, and another look finds nothing to write.
    let label = world
        .field("ConfigMap", "c", "/metadata/labels/fleetwright.dev~1fleet")
        .await;
    assert!(label.is_string(), "{label}");
    let before = world.versions().await;
    fleet.look(&world).await;
    assert_eq!(world.versions().await, before);
    let (reason, message) = fleet.condition(kind::IN_SYNC);
    assert_eq!(reason, "Drifted");
    assert!(message.contains(".data.key"), "{message}");
    fleet.write("c.yaml", &config_map("c", "two"));
    fleet.look(&world).await;
    assert_eq!(world.field("ConfigMap", "c", "/data/key").await, "two");
    // It is ours now: it goes when Git gives it up.
    fleet.remove("c.yaml");
    fleet.look(&world).await;
    assert!(world.get("ConfigMap", "c").await.is_none());
}

#[tokio::test]
async fn a_missing_namespace_is_made_unless_the_fleet_may_not() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    let elsewhere = |n: &str| {
        config_map("c", "one").replace("{name: c}", &format!("{{name: c, namespace: {n}}}"))
    };
    fleet.write("c.yaml", &elsewhere("shop"));
    fleet.write("d.yaml", &config_map("d", "one"));
    fleet
        .allow(Allow {
            kinds: vec!["ConfigMap".into()],
            ..Allow::default()
        })
        .await;
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Refused");
    assert!(
        message.contains("c.yaml:1") && message.contains("namespace shop"),
        "{message}"
    );
    assert!(world.get("Namespace", "shop").await.is_none());
    assert!(
        world.get("ConfigMap", "d").await.is_some(),
        "the others are applied"
    );

    fleet.allow(Allow::default()).await;
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Converged", "{message}");
    assert!(world.get("Namespace", "shop").await.is_some());

    // A declared one carries what Git says, and stays when Git gives it up.
    fleet.write(
        "n.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {owner: x}}\n",
    );
    fleet.write("c.yaml", &elsewhere("team"));
    fleet.look(&world).await;
    assert_eq!(
        world
            .field("Namespace", "team", "/metadata/labels/owner")
            .await,
        "x"
    );
    fleet.remove("n.yaml");
    fleet.look(&world).await;
    assert!(world.get("Namespace", "team").await.is_some());
}

#[tokio::test]
async fn the_autoscaler_scales_between_its_bounds_whatever_git_says() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    let bounds = format!(
        "annotations: {{{ANNOTATION_AUTOSCALER_MIN}: \"2\", {ANNOTATION_AUTOSCALER_MAX}: \"9\"}}"
    );
    let scaled =
        |more: &str| pool("web", more).replace("{name: web}", &format!("{{name: web, {bounds}}}"));
    fleet.write("web.yaml", &scaled("replicas: 5"));
    fleet.look(&world).await;
    let replicas = async || {
        world
            .field("MachineDeployment", "web", "/spec/replicas")
            .await
    };
    assert_eq!(replicas().await, 2, "it begins at the lower bound");
    assert_eq!(
        world
            .holders("MachineDeployment", "web", "f:replicas")
            .await,
        [MANAGER_HANDOVER]
    );
    world
        .edit("MachineDeployment", "web", json!({"spec": {"replicas": 7}}))
        .await;
    let before = world.versions().await;
    fleet.look(&world).await;
    assert_eq!(world.versions().await, before);
    fleet.write("web.yaml", &scaled("replicas: 3\n  minReadySeconds: 1"));
    fleet.look(&world).await;
    assert_eq!(replicas().await, 7);
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "InSync");
}

#[tokio::test]
async fn a_refusal_of_one_object_stops_no_other() {
    let (world, mut fleet) = scene().await;
    // The API refuses what no schema on this side can see: an immutable field.
    fleet.write(
        "web.yaml",
        &pool("web", "replicas: 10").replace("clusterName: a", "clusterName: b"),
    );
    fleet.write("b.yaml", &cluster("b", "v1.33.2"));
    fleet.write("c.yaml", &config_map("c", "two"));
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Refused", "{message}");
    assert!(
        message.contains("web") && message.contains("web.yaml:1"),
        "{message}"
    );
    assert_eq!(world.field("ConfigMap", "c", "/data/key").await, "two");
    assert!(world.get("Cluster", "b").await.is_some());
}
