//! The loop itself: what wakes it, and what it does by itself.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{
    CommitStatus, Fleet,
    commit_status::CommitState,
    condition,
    fleet::{FleetReference, FleetSource, FleetSpec},
    meta::ANNOTATION_REQUESTED_AT,
    time::SystemClock,
};
use fleetwright_gitops::sync::Sync;
use futures::StreamExt as _;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{
        wait::{Condition, await_condition},
        watcher,
    },
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    commits::{push, repository, spec},
    kit::{World, cluster, config_map, write},
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running loop, ended with the test.
pub(crate) struct Running {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Running {
    pub(crate) fn start(world: &World) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Sync::new(world.context.clone()).run(stop.clone()));
        Self { tasks, stop }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await;
        ended.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn until(
    world: &World,
    kind: &str,
    name: &str,
    done: impl Condition<DynamicObject>,
) {
    let wait = await_condition(world.api(kind), name, done);
    let done = tokio::time::timeout(PATIENCE, wait).await;
    done.unwrap_or_else(|_| panic!("{kind} {name}")).unwrap();
}

pub(crate) fn data(value: &'static str) -> impl Condition<DynamicObject> {
    move |o: Option<&DynamicObject>| o.is_some_and(|o| o.data["data"]["key"] == value)
}

#[tokio::test]
async fn a_request_wakes_it_and_an_interval_is_not_waited_for() {
    let world = World::new().await;
    let work = repository(world.dir.path());
    write(&work, "fleet/c.yaml", &config_map("c", "one"));
    push(&work);
    let mut slow = spec(world.dir.path());
    slow.source.interval_seconds = Some(86_400);
    let fleet = world.fleet("repo", slow, work.clone()).await;
    let running = Running::start(&world);
    until(&world, "ConfigMap", "c", data("one")).await;

    write(&work, "fleet/c.yaml", &config_map("c", "two"));
    let sha = push(&work);
    let now = json!({"metadata": {"annotations": {ANNOTATION_REQUESTED_AT: "now"}}});
    let ask = Patch::Merge(now);
    fleet
        .fleets
        .patch("repo", &PatchParams::default(), &ask)
        .await
        .unwrap();
    until(&world, "ConfigMap", "c", data("two")).await;
    let settled = move |f: Option<&Fleet>| {
        let status = f.and_then(|f| f.status.as_ref());
        status
            .and_then(|s| s.settled.as_ref())
            .is_some_and(|r| r.revision == sha)
    };
    let wait = await_condition(fleet.fleets.clone(), "repo", settled);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();

    // Without its Fleet nothing is followed.
    fleet
        .fleets
        .delete("repo", &Default::default())
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn fleets_that_share_a_repository_share_its_cache() {
    let world = World::new().await;
    let work = repository(world.dir.path());
    let folders = ["one", "two", "three", "four"];
    for folder in folders {
        write(
            &work,
            &format!("{folder}/c.yaml"),
            &config_map(folder, "one"),
        );
    }
    push(&work);
    for folder in folders {
        let mut spec = spec(world.dir.path());
        spec.source.path = Some(folder.into());
        spec.source.interval_seconds = Some(1);
        world.fleet(folder, spec, work.clone()).await;
    }
    let running = Running::start(&world);
    for value in ["two", "three"] {
        for folder in folders {
            write(
                &work,
                &format!("{folder}/c.yaml"),
                &config_map(folder, value),
            );
        }
        push(&work);
        for folder in folders {
            until(&world, "ConfigMap", folder, data(value)).await;
        }
    }
    let caches = std::fs::read_dir(world.context.cache.folder()).unwrap();
    let folders = caches.filter(|c| c.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn an_interval_finds_a_commit_that_nobody_told_of() {
    let world = World::new().await;
    let work = repository(world.dir.path());
    write(&work, "fleet/c.yaml", &config_map("c", "one"));
    push(&work);
    let mut fast = spec(world.dir.path());
    fast.source.interval_seconds = Some(1);
    world.fleet("repo", fast, work.clone()).await;
    let running = Running::start(&world);
    until(&world, "ConfigMap", "c", data("one")).await;
    write(&work, "fleet/c.yaml", &config_map("c", "two"));
    push(&work);
    until(&world, "ConfigMap", "c", data("two")).await;
    running.stop().await;
}

#[tokio::test]
async fn an_edit_of_a_directory_is_applied_and_convergence_is_told_when_it_comes() {
    let world = World::new().await;
    let fleet = world.directory("repo").await;
    fleet
        .change(|spec| spec.source.interval_seconds = Some(86_400))
        .await;
    fleet.write("c.yaml", &config_map("c", "one"));
    let running = Running::start(&world);
    until(&world, "ConfigMap", "c", data("one")).await;
    fleet.write("c.yaml", &config_map("c", "two"));
    until(&world, "ConfigMap", "c", data("two")).await;
    // In a folder that is new.
    fleet.write("below/deeper/d.yaml", &config_map("d", "one"));
    until(&world, "ConfigMap", "d", data("one")).await;
    running.stop().await;
}

#[tokio::test]
async fn the_progress_deadline_needs_no_event() {
    let mut world = World::new().await;
    world.context.clock = Arc::new(SystemClock);
    let work = repository(world.dir.path());
    write(&work, "fleet/a.yaml", &cluster("a", "v1.33.2"));
    push(&work);
    let mut slow = spec(world.dir.path());
    slow.source.interval_seconds = Some(86_400);
    slow.progress_deadline_seconds = Some(1);
    world.fleet("repo", slow, work).await;
    let running = Running::start(&world);
    let statuses = Api::<CommitStatus>::namespaced(world.client(), "default");
    let wait = async {
        let mut events = watcher::watcher(statuses, watcher::Config::default()).boxed();
        while let Some(event) = events.next().await {
            if let watcher::Event::Apply(status) | watcher::Event::InitApply(status) =
                event.unwrap()
                && status.spec.wanted.state == CommitState::Failure
            {
                return status.spec.wanted.description;
            }
        }
        unreachable!("the watch ended")
    };
    let why = tokio::time::timeout(PATIENCE, wait).await.unwrap();
    assert!(why.starts_with("nothing moved for"), "{why}");
    running.stop().await;
}

#[tokio::test]
async fn what_the_api_did_not_take_is_tried_again_before_the_interval() {
    let world = World::new().await;
    let fleet = world.directory("repo").await;
    let slow = 86_400;
    fleet
        .change(|spec| spec.source.interval_seconds = Some(slow))
        .await;
    fleet.write("c.yaml", &config_map("c", "one"));
    *world.away.lock() = Some("PATCH /api/v1/namespaces/default/configmaps/");
    let running = Running::start(&world);
    let failed = |f: Option<&Fleet>| {
        let conditions = f.and_then(|f| Some(f.status.as_ref()?.conditions.as_slice()));
        let ready = conditions.and_then(|c| condition::get(c, condition::kind::READY));
        ready.is_some_and(|r| r.reason == "ApplyFailed")
    };
    let wait = await_condition(fleet.fleets.clone(), "repo", failed);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    *world.away.lock() = None;
    until(&world, "ConfigMap", "c", data("one")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_fleet_waits_for_another_and_is_woken_by_it() {
    let world = World::new().await;
    let spec = |name: &str, on: &[&str]| {
        let folder = world.dir.path().join(name);
        write(&folder, "c.yaml", &config_map(name, "one"));
        let reference = |name: &&str| FleetReference {
            name: (*name).to_owned(),
            ..FleetReference::default()
        };
        FleetSpec {
            source: FleetSource {
                directory: Some(folder.to_str().unwrap().into()),
                interval_seconds: Some(86_400),
                ..FleetSource::default()
            },
            depends_on: on.iter().map(reference).collect(),
            ..FleetSpec::default()
        }
    };
    let folder = world.dir.path().to_owned();
    world
        .fleet("apps", spec("apps", &["infra"]), folder.clone())
        .await;
    let running = Running::start(&world);
    until(&world, "Fleet", "apps", |fleet: Option<&DynamicObject>| {
        let conditions = fleet.and_then(|f| f.data["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|c| {
            c["reason"] == "DependencyNotReady"
                && c["message"] == "waits for Fleet default/infra, which is not there"
        })
    })
    .await;
    assert!(world.get("ConfigMap", "apps").await.is_none());
    world.fleet("infra", spec("infra", &[]), folder).await;
    until(&world, "ConfigMap", "infra", data("one")).await;
    until(&world, "ConfigMap", "apps", data("one")).await;
    running.stop().await;
}
