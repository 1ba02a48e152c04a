//! Objects between Fleets: who they belong to when Fleets are renamed, removed or want the same; and Fleets that go with their objects.

use fleetwright_api::{
    condition::kind,
    fleet::{Allow, DeletionPolicy},
    meta::{ANNOTATION_ALLOW_DELETE, FINALIZER_FLEET, LABEL_FLEET, MANAGER_HANDOVER},
    names::fleet_hash,
};
use fleetwright_core::plan::{Desired, Key, Origins, plan};
use fleetwright_gitops::{
    apply::{ApplyError, Settings, apply},
    gather::{gather, policy_of},
};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::{
    kit::{Following, World, cluster, config_map, pool},
    looping::{Running, data, until},
};

const LABEL: &str = "/metadata/labels/fleetwright.dev~1fleet";

/// What a Fleet named `old` made, and a Fleet named `new` of the same files.
async fn renamed() -> (World, Following, Following) {
    let world = World::new().await;
    let (mut old, new) = (world.directory("old").await, world.directory("new").await);
    for fleet in [&old, &new] {
        fleet.write("a.yaml", &cluster("a", "v1.33.2"));
        fleet.write("web.yaml", &pool("web", "replicas: 10"));
        fleet.write("c.yaml", &config_map("c", "one"));
    }
    old.look(&world).await;
    (world, old, new)
}

async fn delete(fleet: &Following) {
    let name = fleet.follower.fleet.name_any();
    let gone = fleet.fleets.delete(&name, &DeleteParams::default()).await;
    gone.unwrap();
}

async fn managers(world: &World, kind: &str, name: &str) -> Vec<String> {
    let entries = world.field(kind, name, "/metadata/managedFields").await;
    let applies = entries.as_array().unwrap().iter();
    let applies = applies.filter(|e| e["operation"] == "Apply");
    let mut names: Vec<String> = applies
        .map(|e| e["manager"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_renamed_fleet_takes_over_what_the_old_one_left_and_rolls_nothing() {
    let (world, old, mut new) = renamed().await;
    let before = world.versions().await;
    let (reason, message) = new.look(&world).await;
    assert_eq!(reason, "Refused", "{message}");
    for place in ["a.yaml:1", "web.yaml:1", "c.yaml:1"] {
        let words =
            format!("{place}: it belongs to Fleet default/old, which declares it as of dir:");
        assert!(message.contains(&words), "{message}");
    }
    assert_eq!(world.versions().await, before);

    delete(&old).await;
    let (reason, message) = new.look(&world).await;
    assert_eq!(reason, "Converging", "{message}");
    for (kind, name) in [
        ("Cluster", "a"),
        ("MachineDeployment", "web"),
        ("ConfigMap", "c"),
    ] {
        assert_eq!(
            world.field(kind, name, LABEL).await,
            fleet_hash("default", "new")
        );
        assert_eq!(
            managers(&world, kind, name).await,
            ["fleetwright/default.new"]
        );
    }
    // Controllers see no other spec.
    for (kind, name) in [("Cluster", "a"), ("MachineDeployment", "web")] {
        assert_eq!(
            world.field(kind, name, "/metadata/generation").await,
            1,
            "{kind}"
        );
    }
    let before = world.versions().await;
    new.look(&world).await;
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn fields_of_a_fleet_that_is_gone_do_not_stay_behind() {
    let (world, mut old, mut new) = renamed().await;
    old.write(
        "web.yaml",
        &pool("web", "replicas: 10\n  revisionHistoryLimit: 3"),
    );
    old.look(&world).await;
    new.write("web.yaml", &pool("web", ""));
    new.write("c.yaml", &config_map("c", "two"));
    delete(&old).await;
    // Cut off before the old manager's fields are let go.
    *world.away.lock() = Some("fieldManager=fleetwright%2Fdefault.old");
    let (reason, message) = new.look(&world).await;
    assert_eq!(reason, "ApplyFailed", "{message}");
    *world.away.lock() = None;
    new.restart(&world).await;
    new.look(&world).await;
    let field = async |path| world.field("MachineDeployment", "web", path).await;
    assert_eq!(field("/spec/revisionHistoryLimit").await, 10);
    // Ten replicas do not become one.
    assert_eq!(field("/spec/replicas").await, 10);
    let holders = world
        .holders("MachineDeployment", "web", "f:replicas")
        .await;
    assert_eq!(holders, [MANAGER_HANDOVER]);
    assert_eq!(world.field("ConfigMap", "c", "/data/key").await, "two");
    assert_eq!(
        managers(&world, "ConfigMap", "c").await,
        ["fleetwright/default.new"]
    );
}

#[tokio::test]
async fn a_fleet_that_cannot_be_read_is_not_gone() {
    let (world, old, mut new) = renamed().await;
    delete(&old).await;
    let before = world.versions().await;
    *world.away.lock() = Some("/fleets?");
    new.try_look(&world).await.unwrap_err();
    assert_eq!(new.ready().0, "Error");
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn an_object_is_left_to_another_fleet_by_taking_the_label_off_it() {
    let (world, mut old, mut new) = renamed().await;
    let without = json!({"metadata": {"labels": {LABEL_FLEET: null}}});
    world.edit("MachineDeployment", "web", without).await;
    old.remove("web.yaml");
    old.look(&world).await;
    for file in ["a.yaml", "c.yaml"] {
        new.remove(file);
    }
    let (reason, message) = new.look(&world).await;
    assert_eq!(reason, "Converging", "{message}");
    assert_eq!(
        managers(&world, "MachineDeployment", "web").await,
        ["fleetwright/default.new"]
    );
    old.look(&world).await;
    assert_eq!(
        world.field("MachineDeployment", "web", LABEL).await,
        fleet_hash("default", "new")
    );
}

#[tokio::test]
async fn of_two_fleets_that_make_one_object_at_once_one_has_it() {
    let world = World::new().await;
    let fleets = [world.directory("one").await, world.directory("two").await];
    let document = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": {"key": value}});
    let desired = ["one", "two"].map(|name| {
        [Desired {
            document: document(name),
            source: format!("{name}.yaml:1"),
            origins: Origins::default(),
        }]
    });
    let client = world.client();
    // Both plan while nothing is there.
    let mut made = Vec::new();
    for (fleet, desired) in fleets.iter().zip(&desired) {
        let policy = policy_of(&fleet.follower.fleet);
        let live = gather(&client, desired, &policy).await.unwrap();
        let plan = plan(desired, None, &live, &policy, &world.context.catalogue);
        assert_eq!(plan.creates.len(), 1);
        made.push((policy, live, plan));
    }
    let allow = Allow::default();
    let settings = Settings {
        revision: "r",
        allow: &allow,
        previous: None,
    };
    let run = |at: usize| {
        let (policy, live, plan) = &made[at];
        apply(&client, plan, &desired[at], live, policy, settings)
    };
    let (one, two) = tokio::join!(run(0), run(1));
    let (winner, loser, name) = match one.errors.is_empty() {
        true => (one, two, "one"),
        false => (two, one, "two"),
    };
    assert!(
        winner.errors.is_empty() && winner.written.len() == 1,
        "{winner:?}"
    );
    let [
        ApplyError::Barred {
            source_line, why, ..
        },
    ] = loser.errors.as_slice()
    else {
        panic!("{loser:?}");
    };
    assert_ne!(source_line, &format!("{name}.yaml:1"));
    assert!(
        why.starts_with(&format!("it belongs to Fleet default/{name}, ")),
        "{why}"
    );
    assert_eq!(world.field("ConfigMap", "c", "/data/key").await, name);
    let manager = format!("fleetwright/default.{name}");
    assert_eq!(managers(&world, "ConfigMap", "c").await, [manager]);
    assert_eq!(
        world.field("ConfigMap", "c", LABEL).await,
        fleet_hash("default", name)
    );
    assert!(winner.written.contains_key(&Key::of(&document(name))));
}

#[tokio::test]
async fn what_the_fleet_allows_when_it_is_applied_is_what_holds() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    // Changed after the look began: the follower has not seen it.
    let accounts = vec!["other".to_owned()];
    fleet
        .allow(Allow {
            accounts,
            ..Allow::default()
        })
        .await;
    let seen = world.seen().await;
    fleet.follower.look(&seen).await.unwrap();
    assert_eq!(world.get("Cluster", "a").await, None);
    assert!(fleet.follower.wants_look());
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "LoadFailed");
    assert!(
        message.contains("a.yaml:6:") && message.contains("does not allow ProviderAccount sim-eu"),
        "{message}"
    );
}

#[tokio::test]
async fn a_fleet_that_is_refused_goes_on_as_soon_as_the_other_is_gone() {
    let world = World::new().await;
    let (old, new) = (world.directory("old").await, world.directory("new").await);
    old.write("c.yaml", &config_map("c", "one"));
    new.write("c.yaml", &config_map("c", "two"));
    new.change(|spec| spec.suspend = Some(true)).await;
    let running = Running::start(&world);
    until(&world, "ConfigMap", "c", data("one")).await;
    new.change(|spec| {
        spec.suspend = None;
        spec.source.interval_seconds = Some(86_400);
    })
    .await;
    until(
        &world,
        "Fleet",
        "new",
        |f: Option<&kube::api::DynamicObject>| {
            f.is_some_and(|f| {
                f.data["status"]["conditions"]
                    .to_string()
                    .contains("Fleet default/old")
            })
        },
    )
    .await;
    delete(&old).await;
    until(&world, "ConfigMap", "c", data("two")).await;
    running.stop().await;
}

/// A Fleet with a cluster, a pool and a ConfigMap that go with it.
async fn departing() -> (World, Following) {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("web.yaml", &pool("web", "replicas: 3"));
    fleet.write("c.yaml", &config_map("c", "one"));
    policy(&fleet, DeletionPolicy::Delete).await;
    fleet.look(&world).await;
    (world, fleet)
}

async fn policy(fleet: &Following, policy: DeletionPolicy) {
    fleet
        .change(|spec| spec.deletion_policy = Some(policy))
        .await;
}

/// The Fleet's finalizers; `None` when it is gone.
async fn finalizers(fleet: &Following) -> Option<Vec<String>> {
    let name = fleet.follower.fleet.name_any();
    let found = fleet.fleets.get_opt(&name).await.unwrap();
    found.map(|f| f.finalizers().to_vec())
}

async fn consent(world: &World, fleet: &Following) {
    let uid = world.field("Cluster", "a", "/metadata/uid").await;
    let uid = uid.as_str().unwrap();
    let with = format!("{{name: a, annotations: {{{ANNOTATION_ALLOW_DELETE}: {uid}}}}}");
    fleet.write(
        "a.yaml",
        &cluster("a", "v1.33.2").replace("{name: a}", &with),
    );
}

async fn left(world: &World) -> usize {
    let mut left = 0;
    for kind in ["Cluster", "MachineDeployment", "ConfigMap"] {
        left += world.names(kind).await.len();
    }
    left
}

#[tokio::test]
async fn a_fleet_that_is_deleted_leaves_its_objects_unless_told_otherwise() {
    let (world, mut fleet) = departing().await;
    assert_eq!(finalizers(&fleet).await.unwrap(), [FINALIZER_FLEET]);
    policy(&fleet, DeletionPolicy::Retain).await;
    fleet.look(&world).await;
    assert_eq!(finalizers(&fleet).await.unwrap(), Vec::<String>::new());
    // No engine is needed for it.
    let before = world.versions().await;
    delete(&fleet).await;
    assert_eq!(finalizers(&fleet).await, None);
    assert_eq!(world.versions().await, before);
}

#[tokio::test]
async fn a_fleet_goes_with_its_objects_once_its_clusters_have_consent() {
    let (world, mut fleet) = departing().await;
    let before = world.versions().await;
    delete(&fleet).await;
    fleet.restart(&world).await;
    fleet.look(&world).await;
    let (reason, message) = fleet.condition(kind::DELETING);
    assert_eq!(reason, "WaitingForConsent");
    assert!(
        message.contains("Cluster default/a: its Fleet is deleted")
            && message.contains("deletionPolicy: Retain"),
        "{message}"
    );
    assert_eq!(world.versions().await, before, "nothing is forced");
    // As long as it is held it is followed: that is how consent comes.
    consent(&world, &fleet).await;
    fleet.look(&world).await;
    assert_eq!(left(&world).await, 3);
    // One delete fails; what is gone is not made again meanwhile.
    *world.away.lock() =
        Some("DELETE /apis/fleetwright.dev/v1alpha1/namespaces/default/clusters/a");
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "Deleting");
    assert!(
        message.contains("cannot delete Cluster default/a"),
        "{message}"
    );
    assert_eq!(left(&world).await, 1);
    fleet.restart(&world).await;
    fleet.look(&world).await;
    assert_eq!(left(&world).await, 1);
    *world.away.lock() = None;
    fleet.restart(&world).await;
    fleet.look(&world).await;
    assert_eq!(left(&world).await, 0);
    assert!(fleet.follower.wants_look() && fleet.follower.is_going());
    fleet.try_look(&world).await.unwrap();
    assert_eq!(finalizers(&fleet).await, None);
}

#[tokio::test]
async fn a_suspended_fleet_goes_with_its_objects_too_and_a_held_one_may_be_let_go_without() {
    let (world, mut fleet) = departing().await;
    fleet.change(|spec| spec.suspend = Some(true)).await;
    delete(&fleet).await;
    let (reason, _) = fleet.look(&world).await;
    assert_eq!(reason, "Suspended");
    assert_eq!(fleet.condition(kind::DELETING).0, "WaitingForConsent");
    assert_eq!(left(&world).await, 3);
    policy(&fleet, DeletionPolicy::Retain).await;
    fleet.try_look(&world).await.unwrap();
    assert_eq!((finalizers(&fleet).await, left(&world).await), (None, 3));

    let mut other = world.directory("maps").await;
    other.write("d.yaml", &config_map("d", "one"));
    policy(&other, DeletionPolicy::Delete).await;
    other.look(&world).await;
    other.change(|spec| spec.suspend = Some(true)).await;
    delete(&other).await;
    other.look(&world).await;
    other.try_look(&world).await.unwrap();
    assert_eq!((finalizers(&other).await, left(&world).await), (None, 3));
}

#[tokio::test]
async fn the_loop_lets_a_fleet_go_when_its_objects_are_gone() {
    let (world, mut fleet) = departing().await;
    consent(&world, &fleet).await;
    // Somebody holds the pool for a while, as controllers hold clusters.
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    world.edit("MachineDeployment", "web", hold).await;
    fleet.look(&world).await;
    fleet
        .change(|spec| spec.source.interval_seconds = Some(86_400))
        .await;
    delete(&fleet).await;
    let running = Running::start(&world);
    until(
        &world,
        "Fleet",
        "repo",
        |f: Option<&kube::api::DynamicObject>| {
            let told = f.map(|f| f.data["status"]["conditions"].to_string());
            told.is_some_and(|text| text.contains("MachineDeployment default/web is being deleted"))
        },
    )
    .await;
    until(
        &world,
        "Cluster",
        "a",
        |c: Option<&kube::api::DynamicObject>| c.is_none(),
    )
    .await;
    let free = json!({"metadata": {"finalizers": Value::Null}});
    world.edit("MachineDeployment", "web", free).await;
    until(
        &world,
        "Fleet",
        "repo",
        |f: Option<&kube::api::DynamicObject>| f.is_none(),
    )
    .await;
    assert_eq!(left(&world).await, 0);
    running.stop().await;
}
