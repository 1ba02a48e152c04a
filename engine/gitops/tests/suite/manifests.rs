//! Bootstrap manifests of clusters: from the files of a real repository to the ConfigMaps beside the Cluster, and what of them the
//! commit's status waits for.

use fleetwright_api::{commit_status::CommitState, names};
use fleetwright_core::manifests::{contents, documents};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::{
    commits::Scene,
    kit::{World, cluster},
};
use CommitState::{Failure, Pending, Success};

const CNI: &str = "fleet/base/cni.yaml";

fn cni(image: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cni}}\ndata: {{image: {image}}}\n")
}

fn with_manifests(entries: &str) -> String {
    format!(
        "{}  bootstrapManifests: {entries}\n",
        cluster("a", "v1.33.2")
    )
}

fn kept() -> String {
    names::bootstrap_manifest("a", "base/cni.yaml")
}

/// What the ConfigMap of the manifest holds.
async fn held(world: &World) -> Option<Value> {
    let map = world.get("ConfigMap", &kept()).await?;
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    let mut read = documents(&contents(map).unwrap()).unwrap();
    assert_eq!(read.len(), 1);
    Some(read.remove(0).value)
}

/// The cluster is where its spec says, and its manifests are so far.
async fn stand(world: &World, reason: &str, message: &str) {
    let generation = world.field("Cluster", "a", "/metadata/generation").await;
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let applied = match reason {
        "Applied" => "True",
        _ => "False",
    };
    let status = json!({"observedGeneration": generation, "version": "v1.33.2", "conditions": [
        condition("Available", "True", "R", ""),
        condition("RollingOut", "False", "R", ""),
        condition("BootstrapManifestsApplied", applied, reason, message),
    ]});
    world.status("Cluster", "a", status).await;
}

#[tokio::test]
async fn a_manifest_is_kept_changed_and_pruned_as_any_object() {
    let mut scene = Scene::new().await;
    scene.commit(CNI, "# not named yet\n").await;
    scene.commit(CNI, &cni("one")).await;
    assert_eq!(
        scene.world.names("ConfigMap").await,
        ["cni"],
        "nobody names it: it is the Fleet's own"
    );
    let file = "fleet/a.yaml";
    let first = scene
        .commit(file, &with_manifests("[{path: base/cni.yaml}]"))
        .await;
    assert_eq!(scene.world.names("ConfigMap").await, [kept()]);
    assert_eq!(held(&scene.world).await.unwrap()["data"]["image"], "one");
    let manager = scene
        .world
        .field("ConfigMap", &kept(), "/metadata/managedFields/0/manager")
        .await;
    assert_eq!(manager, "fleetwright/default.repo");
    let label = "/metadata/labels/fleetwright.dev~1cluster-name";
    assert_eq!(scene.world.field("ConfigMap", &kept(), label).await, "a");
    let hash = "/spec/bootstrapManifests/0/contentHash";
    let before = scene.world.field("Cluster", "a", hash).await;
    let annotation = "/metadata/annotations/fleetwright.dev~1content-hash";
    assert_eq!(
        scene.world.field("ConfigMap", &kept(), annotation).await,
        before
    );

    // The commit waits for the cluster to have them, fails where it refuses them, and ends well when it has them.
    stand(&scene.world, "Applying", "no answer").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.wanted(&first).await.0, Pending);
    let (_, words) = scene.fleet.ready();
    assert!(
        words.contains("bootstrap manifests are not applied: no answer"),
        "{words}"
    );
    stand(&scene.world, "Refused", "ConfigMap cni: no").await;
    scene.fleet.settle(&scene.world).await;
    let (state, words) = scene.wanted(&first).await;
    assert_eq!(state, Failure);
    assert!(words.contains("ConfigMap cni: no"), "{words}");
    stand(&scene.world, "Applied", "").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.wanted(&first).await.0, Success);

    // Looking again, here and after a start, writes nothing.
    let versions = scene.world.versions().await;
    scene.fleet.look(&scene.world).await;
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.world.versions().await, versions);

    // A changed manifest is a change of the cluster, which is waited for as any.
    let second = scene.commit(CNI, &cni("two")).await;
    assert_eq!(held(&scene.world).await.unwrap()["data"]["image"], "two");
    assert_ne!(scene.world.field("Cluster", "a", hash).await, before);
    assert_eq!(scene.wanted(&second).await.0, Pending);
    stand(&scene.world, "Applied", "").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.wanted(&second).await.0, Success);

    // What nobody names any more goes, though its file stays: that is the Fleet's own again.
    scene.commit(file, &cluster("a", "v1.33.2")).await;
    assert_eq!(scene.world.names("ConfigMap").await, ["cni"]);
    assert!(held(&scene.world).await.is_none());
}

#[tokio::test]
async fn what_cannot_be_read_changes_nothing_and_takes_nothing_away() {
    let mut scene = Scene::new().await;
    scene.commit(CNI, &cni("one")).await;
    let file = "fleet/a.yaml";
    scene
        .commit(file, &with_manifests("[{path: base/cni.yaml}]"))
        .await;
    let versions = scene.world.versions().await;

    let target = scene.fleet.folder.join(CNI);
    std::fs::remove_file(&target).unwrap();
    std::os::unix::fs::symlink("../../elsewhere.yaml", &target).unwrap();
    scene.commit("elsewhere.yaml", &cni("two")).await;
    let (reason, message) = scene.fleet.ready();
    assert_eq!(reason, "LoadFailed");
    assert!(
        message.starts_with("base/cni.yaml:1:1: a symbolic link is not read"),
        "{message}"
    );
    std::fs::remove_file(&target).unwrap();
    scene.commit("other.txt", "").await;
    let (_, message) = scene.fleet.ready();
    assert!(
        message.starts_with("a.yaml:7:31: there is no base/cni.yaml"),
        "{message}"
    );
    scene.commit(CNI, "apiVersion: [").await;
    let (_, message) = scene.fleet.ready();
    assert!(message.starts_with("base/cni.yaml:"), "{message}");
    let sha = scene.commit(CNI, "kind: A\n").await;
    let (state, message) = scene.wanted(&sha).await;
    assert_eq!(state, Failure);
    assert!(
        message.starts_with("base/cni.yaml:1:1: apiVersion is missing"),
        "{message}"
    );
    assert_eq!(scene.world.versions().await, versions);
    // As it was: nothing need be written.
    scene.commit(CNI, &cni("one")).await;
    assert_eq!(scene.world.versions().await, versions);
}
