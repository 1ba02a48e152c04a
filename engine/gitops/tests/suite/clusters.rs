//! Statuses that a commit has for single clusters, beside the one for all.

use fleetwright_api::commit_status::CommitState::{Pending, Success};
use serde_json::json;

use crate::{
    commits::Scene,
    kit::{cluster, pool},
};

const BOTH: &str = "fleet/all.yaml";

fn both(version: &str) -> String {
    format!("{}---\n{}", cluster("a", version), cluster("b", version))
}

#[tokio::test]
async fn each_cluster_ends_by_itself() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(BOTH, &both("v1.33.2")).await;
    for name in ["a", "b"] {
        assert_eq!(
            scene.of_cluster(&sha, name).await.unwrap().0,
            Pending,
            "{name}"
        );
    }
    scene.world.converge("a").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(
        scene.of_cluster(&sha, "a").await,
        Some((Success, "converged".into()))
    );
    assert_eq!(scene.of_cluster(&sha, "b").await.unwrap().0, Pending);
    assert_eq!(scene.wanted(&sha).await.0, Pending);
    scene.world.converge("b").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(
        scene.of_cluster(&sha, "b").await,
        Some((Success, "converged".into()))
    );
    assert_eq!(scene.wanted(&sha).await.0, Success);
    // A commit of a pool alone is one of its cluster.
    let sha = scene
        .commit("fleet/web.yaml", &pool("web", "replicas: 2"))
        .await;
    assert_eq!(scene.of_cluster(&sha, "a").await.unwrap().0, Pending);
    assert_eq!(scene.of_cluster(&sha, "b").await, None);
}

#[tokio::test]
async fn a_newer_commit_and_a_new_process_leave_none_pending() {
    let mut scene = Scene::new().await;
    let first = scene.commit(BOTH, &both("v1.33.2")).await;
    let second = scene.commit(BOTH, &both("v1.33.3")).await;
    for name in ["a", "b"] {
        let (state, words) = scene.of_cluster(&first, name).await.unwrap();
        assert_eq!(
            (state, words),
            (Success, format!("superseded by {second}")),
            "{name}"
        );
    }
    // What the new process does not choose to tell of ends all the same.
    scene
        .fleet
        .change(|spec| {
            if let Some(forge) = &mut spec.forge {
                forge.cluster_statuses = Some(0);
            }
        })
        .await;
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.of_cluster(&second, "a").await.unwrap().0, Pending);
    for name in ["a", "b"] {
        scene.world.converge(name).await;
    }
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.wanted(&second).await.0, Success);
    for name in ["a", "b"] {
        assert_eq!(
            scene.of_cluster(&second, name).await.unwrap().0,
            Success,
            "{name}"
        );
    }
}

#[tokio::test]
async fn no_more_clusters_than_asked_for_are_told_of() {
    let mut scene = Scene::new().await;
    scene
        .fleet
        .change(|spec| {
            if let Some(forge) = &mut spec.forge {
                forge.cluster_statuses = Some(1);
            }
        })
        .await;
    let sha = scene.commit(BOTH, &both("v1.33.2")).await;
    assert!(scene.of_cluster(&sha, "a").await.is_some());
    assert!(scene.of_cluster(&sha, "b").await.is_none());
}

#[tokio::test]
async fn progress_is_told_in_machines() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(BOTH, &both("v1.33.2")).await;
    assert_eq!(scene.wanted(&sha).await.1, "applied, converging");
    let rolling = |done: i32| json!({"observedGeneration": 1, "controlPlane": {"desiredReplicas": 20, "upToDateReplicas": done}});
    for (done, want) in [
        (4, "rolling out a and 1 more: 4/20 machines"),
        // Not worth another status.
        (5, "rolling out a and 1 more: 4/20 machines"),
        (6, "rolling out a and 1 more: 6/20 machines"),
    ] {
        scene.world.status("Cluster", "a", rolling(done)).await;
        scene.fleet.settle(&scene.world).await;
        assert_eq!(scene.wanted(&sha).await, (Pending, want.into()), "{done}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_has_no_clusters() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(BOTH, "kind: {").await;
    assert_eq!(scene.statuses().await.len(), 1);
    assert!(scene.of_cluster(&sha, "a").await.is_none());
}

#[tokio::test]
async fn a_cluster_that_may_have_been_changed_is_not_called_converged() {
    let mut scene = Scene::new().await;
    scene.commit(BOTH, &both("v1.33.2")).await;
    for name in ["a", "b"] {
        scene.world.converge(name).await;
    }
    scene.fleet.settle(&scene.world).await;
    // The write is done, and its answer lost.
    *scene.world.away.lock() =
        Some("lost PATCH /apis/fleetwright.dev/v1alpha1/namespaces/default/clusters/a");
    let sha = scene.commit(BOTH, &both("v1.33.3")).await;
    *scene.world.away.lock() = None;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.of_cluster(&sha, "a").await, None);
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.of_cluster(&sha, "a").await.unwrap().0, Pending);
}
