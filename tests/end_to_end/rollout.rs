//! A rollout watched from outside: bounds, order, a scale and a revert in the middle.

use std::{collections::BTreeMap, path::Path};

use fleetwright_api::{Machine, MachineDeployment, condition, meta::LABEL_DEPLOYMENT_NAME};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::watcher::{self, Event},
};
use serde_json::json;

use crate::kit::{Engine, fleet};

async fn start(dir: &Path, replicas: u32) -> Engine {
    let repo = dir.join("repo");
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(replicas))).unwrap();
    let engine = Engine::up(repo.to_str().unwrap(), &dir.join("data"), &[]).await;
    engine.until_at("v1.33.2").await;
    engine
}

/// Follows the pool's machines; gives the most that there were and the fewest that were available.
async fn extremes(
    client: Client,
    first: tokio::sync::oneshot::Sender<()>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> (usize, usize) {
    let config = watcher::Config::default().labels(&format!("{LABEL_DEPLOYMENT_NAME}=a-web"));
    let mut events =
        watcher::watcher(Api::<Machine>::namespaced(client, "default"), config).boxed();
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    let (mut most, mut fewest, mut first) = (0, usize::MAX, Some(first));
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stop => return (most, fewest),
            event = events.next() => event.unwrap().unwrap(),
        };
        match event {
            Event::Init => continue,
            Event::InitApply(m) => {
                machines.insert(m.name_any(), m);
                continue;
            }
            Event::InitDone => drop(first.take().map(|f| f.send(()))),
            Event::Apply(m) => drop(machines.insert(m.name_any(), m)),
            Event::Delete(m) => drop(machines.remove(&m.name_any())),
        }
        let stays = || {
            machines
                .values()
                .filter(|m| m.metadata.deletion_timestamp.is_none())
        };
        let available = |m: &&Machine| {
            let conditions = m
                .status
                .as_ref()
                .map(|s| s.conditions.as_slice())
                .unwrap_or_default();
            condition::is_true(conditions, condition::kind::AVAILABLE)
        };
        most = most.max(stays().count());
        fewest = fewest.min(stays().filter(available).count());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_keeps_the_bounds_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), 3).await;
    let ((ready, is_ready), (end, ended)) = (
        tokio::sync::oneshot::channel(),
        tokio::sync::oneshot::channel(),
    );
    let upgrade = async {
        is_ready.await.unwrap();
        std::fs::write(dir.path().join("repo/a.yaml"), fleet("v1.34.1", Some(3))).unwrap();
        engine.until_at("v1.34.1").await;
        end.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(extremes(engine.client.clone(), ready, ended), upgrade);
    assert_eq!(seen, (4, 3), "one more, none fewer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_and_a_revert_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), 4).await;
    let file = dir.path().join("repo/a.yaml");
    // Git leaves the number of machines to others from here on.
    std::fs::write(&file, fleet("v1.33.4", None)).unwrap();
    let some_new = |p: Option<&MachineDeployment>| {
        p.and_then(|p| Some(p.status.as_ref()?.up_to_date_replicas))
            .is_some_and(|n| (1..4).contains(&n))
    };
    engine
        .until("a-web", "the middle of the rollout", some_new)
        .await;
    let pools = Api::<MachineDeployment>::namespaced(engine.client.clone(), "default");
    let scale = Patch::Merge(json!({"spec": {"replicas": 6}}));
    pools
        .patch_scale("a-web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    engine.until_at("v1.33.4").await;
    assert_eq!(engine.pool().await.status.unwrap().available_replicas, 6);

    std::fs::write(&file, fleet("v1.33.5", None)).unwrap();
    engine
        .until("a-web", "the middle of the rollout", some_new)
        .await;
    std::fs::write(&file, fleet("v1.33.4", None)).unwrap();
    engine.until_at("v1.33.4").await;
    assert_eq!(engine.pool().await.status.unwrap().available_replicas, 6);
}
