//! Commits that reach the clusters of a Fleet wave by wave.

use std::time::Duration;

use fleetwright_api::{
    commit_status::CommitState, fleet::FleetSpec, meta::ANNOTATION_ALLOW_DELETE, waves::Window,
};
use serde_json::json;

use crate::{
    commits::Scene,
    kit::{Following, World, cluster, config_map, pool},
};

/// Cluster a is the canary, b is what the rest of the fleet is.
async fn scene() -> (World, Following) {
    let world = World::new().await;
    let fleet = world.directory("repo").await;
    let waves = json!([
        {"name": "canary", "clusters": {"matchLabels": {"tier": "canary"}}, "soakSeconds": 600},
        {"name": "prod", "clusters": {"matchLabels": {"tier": "prod"}}},
    ]);
    fleet
        .change(|spec: &mut FleetSpec| spec.waves = serde_json::from_value(waves).unwrap())
        .await;
    (world, fleet)
}

fn tiered(name: &str, tier: &str, version: &str) -> String {
    let labels = format!("{{name: {name}, labels: {{tier: {tier}}}}}");
    cluster(name, version).replace(&format!("{{name: {name}}}"), &labels)
}

impl Following {
    fn declare(&self, version: &str) {
        self.write("a.yaml", &tiered("a", "canary", version));
        self.write("b.yaml", &tiered("b", "prod", version));
    }
}

impl World {
    async fn version(&self, name: &str) -> Option<String> {
        let cluster = self.get("Cluster", name).await?;
        cluster["spec"]["version"].as_str().map(str::to_owned)
    }

    fn later(&self, seconds: i64) {
        self.clock.advance_millis(seconds * 1000);
    }
}

/// Both clusters run a version, and all waves have passed.
async fn running(version: &str) -> (World, Following) {
    let (world, mut fleet) = scene().await;
    fleet.declare(version);
    fleet.look(&world).await;
    world.converge("a").await;
    fleet.settle(&world).await;
    world.later(600);
    fleet.settle(&world).await;
    fleet.look(&world).await;
    world.converge("b").await;
    assert_eq!(fleet.settle(&world).await.0, "Converged");
    (world, fleet)
}

#[tokio::test]
async fn the_next_wave_begins_when_the_one_before_has_soaked_and_deletions_come_last() {
    let (world, mut fleet) = scene().await;
    fleet.declare("v1.33.2");
    fleet.write("c.yaml", &config_map("c", "one"));
    assert_eq!(fleet.look(&world).await.0, "Converging");
    // What belongs to no cluster is there at once.
    assert!(world.get("ConfigMap", "c").await.is_some());
    assert_eq!(world.names("Cluster").await, ["a"]);
    fleet.settle(&world).await;
    assert!(!fleet.follower.wants_look(), "nothing has passed");
    world.converge("a").await;
    let (reason, message) = fleet.settle(&world).await;
    assert_eq!(reason, "Waiting");
    assert_eq!(message, "wave prod waits: wave canary comes first");
    assert_eq!(fleet.follower.due(), Some(Duration::from_secs(600)));
    // A look in between makes nothing, and says until when it waits.
    let (_, message) = fleet.look(&world).await;
    assert!(
        message.starts_with("wave prod waits: wave canary soaks until "),
        "{message}"
    );
    world.later(599);
    fleet.settle(&world).await;
    assert!(!fleet.follower.wants_look());
    world.later(1);
    fleet.settle(&world).await;
    assert!(fleet.follower.wants_look());
    assert_eq!(fleet.look(&world).await.0, "Converging");
    assert_eq!(world.names("Cluster").await, ["a", "b"]);
    world.converge("b").await;
    let (reason, message) = fleet.settle(&world).await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("Converged", "3 objects converged")
    );

    fleet.declare("v1.34.1");
    fleet.remove("c.yaml");
    for name in ["a", "b"] {
        fleet.look(&world).await;
        assert!(world.get("ConfigMap", "c").await.is_some(), "before {name}");
        world.converge(name).await;
        fleet.settle(&world).await;
        world.later(600);
        fleet.settle(&world).await;
        assert!(fleet.follower.wants_look(), "after {name}");
    }
    assert_eq!(fleet.look(&world).await.0, "Converged");
    assert!(world.get("ConfigMap", "c").await.is_none());
    // The API has it so, and not only who wrote it.
    let waves = world.field("Fleet", "repo", "/status/waves").await;
    assert_eq!(waves, json!([]));
}

#[tokio::test]
async fn a_cluster_has_not_converged_while_a_deletion_of_it_waits() {
    let mut scene = Scene::new().await;
    let waves = json!([{"name": "canary", "clusters": {"matchLabels": {"tier": "canary"}}, "soakSeconds": 600}]);
    let waves = |spec: &mut FleetSpec| spec.waves = serde_json::from_value(waves).unwrap();
    scene.fleet.change(waves).await;
    let canary = |version: &str| tiered("a", "canary", version);
    scene.commit("fleet/a.yaml", &canary("v1.33.2")).await;
    scene.commit("fleet/web.yaml", &pool("web", "")).await;
    scene.world.converge("a").await;
    let available = json!([{"type": "Available", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let complete = |version: &str| {
        json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "upToDateReplicas": 1, "version": version, "conditions": available})
    };
    let pool = "MachineDeployment";
    scene.world.status(pool, "web", complete("v1.33.2")).await;
    scene.fleet.settle(&scene.world).await;
    scene.remove("fleet/web.yaml");
    let sha = scene.commit("fleet/a.yaml", &canary("v1.33.4")).await;
    scene.world.converge("a").await;
    scene.world.status(pool, "web", complete("v1.33.4")).await;
    scene.fleet.settle(&scene.world).await;
    assert!(scene.world.get(pool, "web").await.is_some());
    let told = scene.of_cluster(&sha, "a").await.unwrap().0;
    assert_eq!(told, CommitState::Pending);
    scene.world.later(600);
    scene.fleet.settle(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert!(scene.world.get(pool, "web").await.is_none());
    scene.fleet.settle(&scene.world).await;
    let told = scene.of_cluster(&sha, "a").await.unwrap().0;
    assert_eq!(told, CommitState::Success);
}

#[tokio::test]
async fn a_cluster_that_cannot_converge_may_go() {
    let (world, mut fleet) = running("v1.34.1").await;
    // Taken back: the canary has served the newer version, and stays at it.
    let uid = world.field("Cluster", "a", "/metadata/uid").await;
    let consent = format!("{{name: a, annotations: {{{ANNOTATION_ALLOW_DELETE}: {uid}}},");
    let taken_back = tiered("a", "canary", "v1.33.2").replace("{name: a,", &consent);
    fleet.write("a.yaml", &taken_back);
    fleet.look(&world).await;
    let held = json!([
        {"type": "Available", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "VersionHeld", "status": "True", "reason": "R", "message": "stays at v1.34.1", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]);
    let status = json!({"observedGeneration": 2, "version": "v1.34.1", "conditions": held});
    world.status("Cluster", "a", status).await;
    assert_eq!(fleet.settle(&world).await.0, "NotConverging");
    // Nobody wants it any more.
    fleet.remove("a.yaml");
    fleet.look(&world).await;
    fleet.settle(&world).await;
    world.later(600);
    fleet.settle(&world).await;
    fleet.look(&world).await;
    assert!(world.get("Cluster", "a").await.is_none());
}

#[tokio::test]
async fn a_process_that_ends_in_between_takes_no_wave_for_passed() {
    let (world, mut fleet) = running("v1.33.2").await;
    fleet.declare("v1.34.1");
    // The answer to the write is lost, and the process with it.
    *world.away.lock() =
        Some("lost PATCH /apis/fleetwright.dev/v1alpha1/namespaces/default/clusters/a");
    fleet.try_look(&world).await.ok();
    *world.away.lock() = None;
    assert_eq!(world.version("a").await.as_deref(), Some("v1.34.1"));
    fleet.restart(&world).await;
    for _ in 0..3 {
        fleet.look(&world).await;
        assert_eq!(world.version("b").await.as_deref(), Some("v1.33.2"));
    }
    // In the middle of the soak as well.
    world.converge("a").await;
    fleet.settle(&world).await;
    world.later(300);
    fleet.restart(&world).await;
    fleet.look(&world).await;
    assert_eq!(world.version("b").await.as_deref(), Some("v1.33.2"));
    assert_eq!(fleet.follower.due(), Some(Duration::from_secs(300)));
    world.later(300);
    fleet.settle(&world).await;
    assert!(fleet.follower.wants_look());
    fleet.look(&world).await;
    assert_eq!(world.version("b").await.as_deref(), Some("v1.34.1"));
}

#[tokio::test]
async fn a_wave_that_fails_halts_the_rest_until_it_is_put_right() {
    let (world, mut fleet) = running("v1.33.2").await;
    fleet
        .change(|spec| spec.progress_deadline_seconds = Some(60))
        .await;
    fleet.declare("v1.34.1");
    fleet.look(&world).await;
    fleet.settle(&world).await;
    world.later(3600);
    let (reason, message) = fleet.settle(&world).await;
    assert_eq!(reason, "NotConverging");
    assert!(message.starts_with("nothing moved for 3600 s"), "{message}");
    assert!(
        message.ends_with("; wave prod waits: wave canary comes first"),
        "{message}"
    );
    fleet.look(&world).await;
    assert_eq!(world.version("b").await.as_deref(), Some("v1.33.2"));
    // The next commit does not go past it either.
    fleet.write("b.yaml", &tiered("b", "prod", "v1.33.3"));
    fleet.look(&world).await;
    assert_eq!(world.version("b").await.as_deref(), Some("v1.33.2"));
    world.converge("a").await;
    fleet.settle(&world).await;
    world.later(600);
    fleet.settle(&world).await;
    fleet.look(&world).await;
    assert_eq!(world.version("b").await.as_deref(), Some("v1.33.3"));
}

#[tokio::test]
async fn a_cluster_that_falls_ill_while_its_wave_soaks_begins_the_soak_anew() {
    let (world, mut fleet) = running("v1.33.2").await;
    fleet.declare("v1.34.1");
    fleet.look(&world).await;
    world.converge("a").await;
    fleet.settle(&world).await;
    world.later(500);
    world.status("Cluster", "a", json!({"conditions": [{"type": "Available", "status": "False", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})).await;
    fleet.settle(&world).await;
    world.converge("a").await;
    world.later(100);
    fleet.settle(&world).await;
    assert!(!fleet.follower.wants_look());
    assert_eq!(fleet.follower.due(), Some(Duration::from_secs(600)));
}

#[tokio::test]
async fn what_is_refused_in_a_wave_keeps_the_next_ones_waiting() {
    let (world, mut fleet) = running("v1.33.2").await;
    fleet.write(
        "a.yaml",
        &tiered("a", "canary", "v1.33.2").replace("machines: {", "machines: {replicas: 2, "),
    );
    fleet.write("b.yaml", &tiered("b", "prod", "v1.34.1"));
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Refused", "{message}");
    assert_eq!(world.version("b").await.as_deref(), Some("v1.33.2"));
}

#[tokio::test]
async fn nothing_begins_outside_the_windows() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    // It is 1970-01-12T13:46:40Z.
    let window = Window {
        start: "14:00".into(),
        duration_seconds: 3600,
        ..Window::default()
    };
    fleet.change(|spec| spec.windows = vec![window]).await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("Waiting", "its window opens at 1970-01-12T14:00:00Z")
    );
    assert!(world.names("Cluster").await.is_empty());
    assert_eq!(fleet.follower.due(), Some(Duration::from_secs(800)));
    world.later(800);
    fleet.settle(&world).await;
    assert!(fleet.follower.wants_look());
    assert_eq!(fleet.look(&world).await.0, "Converging");
    assert_eq!(world.names("Cluster").await, ["a"]);
}
