//! What the commit that settled last tells of its clusters' health.

use fleetwright_api::{
    ProviderAccount,
    commit_status::CommitState::{self, Failure, Success},
};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{commits::Scene, kit::cluster};

const FILE: &str = "fleet/a.yaml";

async fn health(scene: &Scene, sha: &str) -> Option<(CommitState, String)> {
    let all = scene.statuses().await.into_iter();
    let context = "fleetwright/test/default.repo/health";
    let mut found = all.filter(|s| s.spec.sha == sha && s.spec.context == context);
    let wanted = found.next()?.spec.wanted;
    Some((wanted.state, wanted.description))
}

/// Cluster a as its controller would report it.
async fn reports(scene: &Scene, available: &str, in_sync: &str, message: &str) {
    let world = &scene.world;
    let generation = world.field("Cluster", "a", "/metadata/generation").await;
    let version = world.field("Cluster", "a", "/spec/version").await;
    let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "R", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"observedGeneration": generation, "version": version, "conditions": [
        condition("Available", available, ""),
        condition("RollingOut", "False", ""),
        condition("InSync", in_sync, message),
    ]});
    world.status("Cluster", "a", status).await;
}

#[tokio::test]
async fn the_settled_commit_tells_of_ill_health_once_a_minute_at_most_and_where_it_was_asked_for() {
    let mut scene = Scene::new().await;
    let account = json!({"metadata": {"name": "sim-eu"}, "spec": {"provider": "sim"}});
    let account: ProviderAccount = serde_json::from_value(account).unwrap();
    let accounts = Api::all(scene.world.client());
    let params = PostParams::default();
    accounts.create(&params, &account).await.unwrap();
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    reports(&scene, "True", "True", "").await;
    scene.fleet.settle(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.wanted(&sha).await.0, Success);
    assert_eq!(health(&scene, &sha).await, None, "nobody asked for it");

    let ask = |spec: &mut fleetwright_api::fleet::FleetSpec| {
        if let Some(forge) = &mut spec.forge {
            forge.health = true;
        }
    };
    scene.fleet.change(ask).await;
    scene.fleet.look(&scene.world).await;
    let well = Some((Success, "1 cluster available and in sync".to_owned()));
    assert_eq!(health(&scene, &sha).await, well);
    reports(&scene, "True", "False", "1 of 4 machines drifted").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(health(&scene, &sha).await, well, "too soon");
    scene.world.clock.advance_millis(60_000);
    scene.fleet.settle(&scene.world).await;
    let ill = Some((Failure, "cluster a: 1 of 4 machines drifted".to_owned()));
    assert_eq!(health(&scene, &sha).await, ill);
    // Not known is neither.
    scene.world.clock.advance_millis(60_000);
    reports(&scene, "True", "Unknown", "cannot be read").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(health(&scene, &sha).await, ill);
    reports(&scene, "True", "True", "").await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(health(&scene, &sha).await, well);
    assert_eq!(
        scene.wanted(&sha).await.0,
        Success,
        "the commit's own word stays"
    );
}
