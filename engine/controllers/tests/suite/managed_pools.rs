//! Pools whose nodes their provider makes, replaces and scales.

use fleetwright_api::{Cluster, Fleet, MachineDeployment, condition::kind, meta, names};
use fleetwright_providers::ProviderError;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::kit::{Kit, of_cluster, of_pool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_made_follows_the_cluster_in_steps_and_goes() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.30.0").await;
    kit.group("eu-web", "eu", 2).await;
    kit.always(|w| {
        let machines = w.sets.len() + w.machines.len();
        (machines == 0)
            .then_some(())
            .ok_or_else(|| "such a pool has sets or Machines".into())
    });
    kit.until_converged("eu").await;
    let pool = &kit.world.pools["eu-web"];
    let status = pool.status.as_ref().unwrap();
    let counts = [
        status.replicas,
        status.ready_replicas,
        status.available_replicas,
        status.up_to_date_replicas,
    ];
    assert_eq!(
        (counts, status.version.as_deref()),
        ([2; 4], Some("v1.30.0"))
    );
    assert_eq!(pool.finalizers(), [meta::FINALIZER_POOL]);
    let workers = kit.world.clusters["eu"]
        .status
        .as_ref()
        .unwrap()
        .workers
        .clone()
        .unwrap();
    assert_eq!(workers.available_replicas, 2);

    // Lost answers and patience on the way.
    let message = || "the test says so".to_owned();
    kit.estate.fail(
        "ensurePool",
        ProviderError::Ambiguous { message: message() },
        true,
    );
    kit.estate.fail(
        "ensurePool",
        ProviderError::Throttled { after_ms: 20 },
        false,
    );
    let made = kit.estate.journal().len();
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.0"}}))
        .await;
    kit.until_converged("eu").await;
    let told = |line: &str| {
        let order = ["default/eu", "eu-web"].map(|name| format!("update {name} to "));
        order.iter().any(|o| line.starts_with(o))
    };
    let journal = kit.estate.journal();
    let steps: Vec<&String> = journal[made..].iter().filter(|line| told(line)).collect();
    assert_eq!(
        steps,
        [
            "update default/eu to v1.31.0",
            "update default/eu to v1.32.0",
            "update default/eu to v1.33.0",
            "update eu-web to v1.33.0",
            "update default/eu to v1.34.0",
            "update eu-web to v1.34.0",
        ]
    );
    let api = kit.api::<MachineDeployment>();
    api.delete("eu-web", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("the pool is gone", |w| w.pools.is_empty().then_some(()))
        .await;
    let journal = kit.estate.journal();
    assert_eq!(
        journal[journal.len() - 2..],
        ["delete eu-web", "eu-web is gone"]
    );
    kit.until_converged("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_number_is_the_pools_or_the_autoscalers() {
    let mut kit = Kit::start().await;
    let key = kit.managed_cluster("eu", "v1.33.0").await;
    kit.group("eu-web", "eu", 2).await;
    kit.until_converged("eu").await;
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 3}}))
        .await;
    kit.until_converged("eu").await;
    assert_eq!(kit.estate.replicas(&key, "eu-web"), 3);
    let bounds = json!({"metadata": {"annotations": {
        meta::ANNOTATION_AUTOSCALER_MIN: "1", meta::ANNOTATION_AUTOSCALER_MAX: "9",
    }}});
    kit.estate.scale(&key, "eu-web", 5);
    kit.patch::<MachineDeployment>("eu-web", bounds).await;
    kit.until("the pool follows", |w| {
        (w.pools["eu-web"].spec.replicas == Some(5)).then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    let journal = kit.estate.journal();
    assert!(
        !journal.iter().any(|line| line == "scale eu-web to 5"),
        "{journal:?}"
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_somebody_changed_is_told_or_written_back() {
    let mut kit = Kit::start().await;
    let key = kit.managed_cluster("eu", "v1.33.0").await;
    kit.group("eu-web", "eu", 2).await;
    kit.until_converged("eu").await;
    kit.estate.scale(&key, "eu-web", 4);
    // Looks are seldom: another process looks at once.
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.until("it is told", |w| {
        let line = of_pool(&w.pools["eu-web"], kind::IN_SYNC);
        (line == "False Drifted: the group wants 4 nodes: somebody else changed their number")
            .then_some(())
    })
    .await;
    assert_eq!(
        kit.estate.replicas(&key, "eu-web"),
        4,
        "nobody says that it is written back"
    );
    // Nor is it because something else of the pool changes.
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.0"}}))
        .await;
    kit.until("the nodes have moved", |w| {
        let status = w.pools["eu-web"].status.as_ref()?;
        (status.version.as_deref() == Some("v1.34.0")).then_some(())
    })
    .await;
    assert_eq!(kit.estate.replicas(&key, "eu-web"), 4);
    let fleet: Fleet = serde_json::from_value(json!({
        "metadata": {"name": "all"},
        "spec": {"source": {"url": "https://x.test/y"}, "drift": {"policy": "correct"}},
    }))
    .unwrap();
    kit.api::<Fleet>()
        .create(&PostParams::default(), &fleet)
        .await
        .unwrap();
    let label =
        json!({"metadata": {"labels": {meta::LABEL_FLEET: names::fleet_hash("default", "all")}}});
    kit.patch::<Cluster>("eu", label).await;
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.until("it is written back, and nothing differs", |w| {
        (of_pool(&w.pools["eu-web"], kind::IN_SYNC) == "none").then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    assert_eq!(kit.estate.replicas(&key, "eu-web"), 2);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_needs_a_control_plane_that_the_provider_runs() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.group("eu-web", "eu", 1).await;
    kit.until("it says so", |w| {
        let line = of_pool(w.pools.get("eu-web")?, kind::AVAILABLE);
        line.contains("eu has none: use a kind of providerConfig for machines")
            .then_some(())
    })
    .await;
    kit.until("the Cluster says so", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::WORKERS_AVAILABLE);
        line.contains("eu has none").then_some(())
    })
    .await;
    assert_eq!(kit.estate.all_calls(), 0);
    let api = kit.api::<MachineDeployment>();
    api.delete("eu-web", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("the pool is gone", |w| w.pools.is_empty().then_some(()))
        .await;
    kit.stop().await;
}
