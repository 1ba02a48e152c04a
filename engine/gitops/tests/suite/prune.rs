//! What is deleted because Git gave it up, and everything that stands in the way of that.

use fleetwright_api::{
    condition::kind,
    meta::{ANNOTATION_ALLOW_DELETE, LABEL_CLUSTER_NAME, LABEL_DEPLOYMENT_NAME},
};
use fleetwright_gitops::load::MAX_FILE_BYTES;
use kube::api::PostParams;
use serde_json::json;

use crate::kit::{Following, World, cluster, config_map, pool};

/// A cluster with two pools and a ConfigMap, one file each.
async fn scene() -> (World, Following) {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("web.yaml", &pool("web", "replicas: 3"));
    fleet.write("db.yaml", &pool("db", "replicas: 3"));
    fleet.write("c.yaml", &config_map("c", "one"));
    fleet.look(&world).await;
    (world, fleet)
}

/// Machines as controllers would have made them.
async fn machines(world: &World, pool: &str, count: usize) {
    for n in 0..count {
        let name = format!("{pool}-{n}");
        let machine = json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "Machine",
            "metadata": {"name": name, "labels": {LABEL_CLUSTER_NAME: "a", LABEL_DEPLOYMENT_NAME: pool}},
            "spec": {"clusterName": "a", "instanceKey": format!("{n:032x}"), "providerConfig": {"apiVersion": "x/v1", "kind": "X", "account": "x"}}});
        let machine = serde_json::from_value(machine).unwrap();
        world
            .api("Machine")
            .create(&PostParams::default(), &machine)
            .await
            .unwrap();
    }
}

async fn all(world: &World) -> Vec<String> {
    let mut all = world.names("Cluster").await;
    all.extend(world.names("MachineDeployment").await);
    all.extend(world.names("ConfigMap").await);
    all
}

#[tokio::test]
async fn what_git_gives_up_goes_and_only_that() {
    let (world, mut fleet) = scene().await;
    let others = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "others"}});
    let others = serde_json::from_value(others).unwrap();
    world
        .api("ConfigMap")
        .create(&PostParams::default(), &others)
        .await
        .unwrap();
    machines(&world, "web", 3).await;
    fleet.remove("web.yaml");
    fleet.remove("c.yaml");
    let (reason, message) = fleet.look(&world).await;
    assert_ne!(reason, "Refused", "{message}");
    assert_eq!(all(&world).await, ["a", "db", "others"]);
    // Roots only: the rest is the controllers' to end, in their order.
    assert_eq!(world.names("Machine").await.len(), 3);
}

#[tokio::test]
async fn a_moved_file_is_no_deletion() {
    let (world, mut fleet) = scene().await;
    let before = world.versions().await;
    for file in ["a.yaml", "web.yaml", "c.yaml"] {
        let text = std::fs::read_to_string(fleet.folder.join(file)).unwrap();
        fleet.remove(file);
        fleet.write(&format!("below/{file}"), &text);
    }
    fleet.look(&world).await;
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn an_emptied_path_deletes_nothing() {
    let (world, mut fleet) = scene().await;
    let before = world.versions().await;
    for file in ["a.yaml", "web.yaml", "db.yaml", "c.yaml"] {
        fleet.remove(file);
    }
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Refused");
    assert!(message.contains(ANNOTATION_ALLOW_DELETE), "{message}");
    assert_eq!(world.versions().await, before);
    // Nor does a directory that is gone.
    std::fs::remove_dir_all(&fleet.folder).unwrap();
    fleet.try_look(&world).await.unwrap_err();
    assert_eq!(fleet.ready().0, "SourceFailed");
    assert_eq!(fleet.condition(kind::IN_SYNC).0, "Unreadable");
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn an_incomplete_load_deletes_and_changes_nothing() {
    let (world, mut fleet) = scene().await;
    let before = world.versions().await;
    fleet.remove("web.yaml");
    fleet.write("c.yaml", &config_map("c", "two"));
    let path = fleet.folder.join("db.yaml");
    let breakages: [(&str, &dyn Fn()); 4] = [
        ("db.yaml:2:", &|| {
            std::fs::write(&path, "a: 1\nb: c: d").unwrap();
        }),
        ("db.yaml:1:1: a symbolic link", &|| {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/etc/hosts", &path).unwrap();
        }),
        ("db.yaml:1:1: too large", &|| {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
        }),
        ("db.yaml:1:1: not UTF-8", &|| {
            std::fs::write(&path, b"a: \xff").unwrap();
        }),
    ];
    for (wanted, break_it) in breakages {
        break_it();
        let (reason, message) = fleet.look(&world).await;
        assert_eq!(reason, "LoadFailed", "{wanted}: {message}");
        assert!(message.contains(wanted), "{wanted}: {message}");
        assert_eq!(world.versions().await, before, "{wanted}");
    }
}

#[tokio::test]
async fn an_unreadable_api_deletes_nothing() {
    let (world, mut fleet) = scene().await;
    machines(&world, "web", 3).await;
    let before = world.versions().await;
    fleet.remove("web.yaml");
    for away in [
        "/clusters?",
        "/machinedeployments?",
        "/configmaps?",
        "/machines?",
    ] {
        *world.away.lock() = Some(away);
        fleet.try_look(&world).await.unwrap_err();
        *world.away.lock() = None;
        assert_eq!(fleet.ready().0, "Error", "{away}");
        assert_eq!(world.versions().await, before, "{away}");
    }
    fleet.look(&world).await;
    assert_eq!(world.names("MachineDeployment").await, ["db"]);
}

#[tokio::test]
async fn an_object_that_failed_stops_all_deletes_until_it_succeeds() {
    let (world, mut fleet) = scene().await;
    fleet.remove("web.yaml");
    fleet.write("c.yaml", &config_map("c", "two"));
    *world.away.lock() = Some("PATCH /api/v1/namespaces/default/configmaps/c");
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "ApplyFailed");
    assert!(
        message.contains("cannot apply ConfigMap default/c (c.yaml:1)"),
        "{message}"
    );
    assert_eq!(all(&world).await, ["a", "db", "web", "c"]);
    *world.away.lock() = None;
    fleet.look(&world).await;
    assert_eq!(all(&world).await, ["a", "db", "c"]);
}

#[tokio::test]
async fn a_failed_delete_is_tried_again() {
    let (world, mut fleet) = scene().await;
    fleet.remove("web.yaml");
    *world.away.lock() = Some("DELETE ");
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "ApplyFailed");
    assert!(
        message.contains("cannot delete MachineDeployment default/web"),
        "{message}"
    );
    *world.away.lock() = None;
    fleet.look(&world).await;
    assert_eq!(all(&world).await, ["a", "db", "c"]);
}

#[tokio::test]
async fn more_machines_than_the_ceiling_are_deleted_only_when_it_is_raised() {
    let (world, mut fleet) = scene().await;
    machines(&world, "web", 6).await;
    machines(&world, "db", 5).await;
    fleet.remove("web.yaml");
    fleet.remove("db.yaml");
    fleet.remove("c.yaml");
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Refused");
    assert!(
        message.contains("11 machines") && message.contains("prune.maxMachines = 10"),
        "{message}"
    );
    assert_eq!(
        all(&world).await,
        ["a", "db", "web", "c"],
        "one refusal stops them all"
    );
    fleet.max_machines(11).await;
    fleet.look(&world).await;
    assert_eq!(all(&world).await, ["a"]);
}

#[tokio::test]
async fn a_cluster_goes_only_with_consent_that_came_through_git() {
    let (world, mut fleet) = scene().await;
    let uid = world.field("Cluster", "a", "/metadata/uid").await;
    let annotated = |uid: &str| {
        let consent = format!("{{name: a, annotations: {{{ANNOTATION_ALLOW_DELETE}: {uid}}}}}");
        cluster("a", "v1.33.2").replace("{name: a}", &consent)
    };
    let gone = async |fleet: &mut Following| {
        for file in ["a.yaml", "web.yaml", "db.yaml"] {
            std::fs::remove_file(fleet.folder.join(file)).ok();
        }
        fleet.look(&world).await;
        world.get("Cluster", "a").await.is_none()
    };
    let back = async |fleet: &mut Following, text: &str| {
        fleet.write("a.yaml", text);
        fleet.write("web.yaml", &pool("web", "replicas: 3"));
        fleet.write("db.yaml", &pool("db", "replicas: 3"));
        fleet.look(&world).await;
    };
    assert!(!gone(&mut fleet).await, "without");
    back(&mut fleet, &cluster("a", "v1.33.2")).await;
    let by_hand = json!({"metadata": {"annotations": {ANNOTATION_ALLOW_DELETE: uid}}});
    world.edit("Cluster", "a", by_hand).await;
    assert!(!gone(&mut fleet).await, "by hand, past the review");
    let take_back = json!({"metadata": {"annotations": {ANNOTATION_ALLOW_DELETE: null}}});
    world.edit("Cluster", "a", take_back).await;
    back(&mut fleet, &annotated("another-uid")).await;
    assert!(!gone(&mut fleet).await, "for another cluster of that name");
    back(&mut fleet, &annotated(uid.as_str().unwrap())).await;
    assert!(gone(&mut fleet).await, "with consent");
    assert_eq!(all(&world).await, ["c"]);
}

#[tokio::test]
async fn an_object_that_was_made_anew_since_the_plan_is_not_deleted() {
    let (world, mut fleet) = scene().await;
    // Somebody else's object of the same name: no label, no entry of ours.
    world
        .api("ConfigMap")
        .delete("c", &Default::default())
        .await
        .unwrap();
    let new = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let new = serde_json::from_value(new).unwrap();
    world
        .api("ConfigMap")
        .create(&PostParams::default(), &new)
        .await
        .unwrap();
    fleet.remove("c.yaml");
    fleet.look(&world).await;
    assert!(world.get("ConfigMap", "c").await.is_some());
}
