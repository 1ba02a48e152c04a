//! What a change of a pool does to its machines: nothing, something in place, or a rollout.

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition::kind, meta};
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::kit::{Kit, config, is_available, of_cluster, of_pool};

fn template(metadata: Value, taints: Value) -> Value {
    json!({"spec": {"template": {"metadata": metadata, "spec": {"taints": taints}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_annotations_and_taints_reach_nodes_and_are_taken_away_again() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let made = kit.made();

    let change = template(
        json!({
            "labels": {"node.fleetwright.dev/site": "a", "team": "web"},
            "annotations": {"node.fleetwright.dev/rack": "7", "note": "x"},
        }),
        json!([{"key": "dedicated", "value": "web", "effect": "NoSchedule"}]),
    );
    kit.patch::<MachineDeployment>("eu-web", change).await;
    let carries = |n: &Node| {
        let taints = n
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        let taint = taints
            .iter()
            .any(|t| t.key == "dedicated" && t.value.as_deref() == Some("web"));
        (
            n.labels()
                .get("node.fleetwright.dev/site")
                .is_some_and(|v| v == "a"),
            n.annotations()
                .get("node.fleetwright.dev/rack")
                .is_some_and(|v| v == "7"),
            taint,
        )
    };
    let worker = |n: &&Node| n.name_any().starts_with("eu-web");
    kit.until_nodes(
        "eu",
        "label, annotation and taint are on both nodes",
        |nodes| {
            nodes
                .iter()
                .filter(worker)
                .filter(|n| carries(n) == (true, true, true))
                .count()
                == 2
        },
    )
    .await;
    // What is no concern of nodes stays on the machines.
    kit.until("the machines have their labels", |w| {
        let workers = w.workers("eu-web");
        let has = |m: &&&Machine| {
            m.labels().get("team").is_some_and(|v| v == "web")
                && m.annotations().contains_key("note")
        };
        (workers.iter().filter(has).count() == 2).then_some(())
    })
    .await;
    assert!(
        kit.nodes("eu")
            .await
            .iter()
            .all(|n| !n.labels().contains_key("team"))
    );

    // Somebody else's label stays when ours go.
    let change = template(json!({"labels": null, "annotations": null}), Value::Null);
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until_nodes("eu", "all of it is gone again", |nodes| {
        nodes
            .iter()
            .filter(worker)
            .all(|n| carries(n) == (false, false, false))
    })
    .await;
    kit.until("the machines' labels are gone", |w| {
        let has =
            |m: &&Machine| m.labels().contains_key("team") || m.annotations().contains_key("note");
        (!w.workers("eu-web").iter().any(has)).then_some(())
    })
    .await;
    kit.until_settled("eu").await;
    assert_eq!(kit.made(), made, "nothing was replaced");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_provider_config_rolls_within_the_bounds() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 3, json!({})).await;
    kit.until_settled("eu").await;
    let before: Vec<String> = kit
        .world
        .workers("eu-web")
        .iter()
        .map(|m| m.name_any())
        .collect();
    kit.always(|w| {
        let workers = w.workers("eu-web");
        let available = workers.iter().filter(|m| is_available(m)).count();
        let all = workers.len();
        if all > 4 || available < 3 {
            return Err(format!("{all} machines, {available} available"));
        }
        Ok(())
    });
    let change = json!({"spec": {"template": {"spec": {"providerConfig": config("sim.large")}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until_settled("eu").await;
    let after = kit.world.workers("eu-web");
    assert_eq!(after.len(), 3);
    for machine in after {
        assert!(!before.contains(&machine.name_any()));
        let shown = machine.status.as_ref().and_then(|s| s.instance.as_ref());
        assert_eq!(shown.map(|i| i.instance_type.as_str()), Some("sim.large"));
    }
    assert_eq!(kit.made().len(), 1 + 3 + 3, "each was replaced once");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_and_a_config_together_roll_a_pool_once() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    // As one commit is applied: the cluster before what belongs to it.
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    let change = json!({"spec": {"template": {"spec": {"providerConfig": config("sim.large")}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    let waits = kit
        .until("the pool says what it waits for", |w| {
            let line = of_pool(&w.pools["eu-web"], kind::ROLLING_OUT);
            line.contains("waits for").then_some(line)
        })
        .await;
    assert!(
        waits.starts_with("True RollingOut: ") && waits.contains("control plane to run v1.34.1"),
        "{waits}"
    );
    kit.until_settled("eu").await;
    for machine in kit.world.workers("eu-web") {
        let content = &machine.spec.content;
        assert_eq!(content.version.as_deref(), Some("v1.34.1"));
        assert_eq!(
            content.provider_config.settings()["instanceType"],
            "sim.large"
        );
    }
    assert_eq!(kit.made().len(), 3 + 3, "each machine was replaced once");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_pool_scales_but_rolls_only_when_it_is_resumed() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let pause =
        |value: Value| json!({"metadata": {"annotations": {meta::ANNOTATION_PAUSED: value}}});
    kit.patch::<MachineDeployment>("eu-web", pause(json!("")))
        .await;
    let change = json!({"spec": {"replicas": 2, "template": {"spec": {"providerConfig": config("sim.large")}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until("two workers, and the pool says that it is paused", |w| {
        let pool = &w.pools["eu-web"];
        let status = pool.status.as_ref()?;
        let seen = status.observed_generation == pool.metadata.generation;
        (seen
            && status.available_replicas == 2
            && of_pool(pool, kind::PAUSED).starts_with("True Paused"))
        .then_some(())
    })
    .await;
    let kinds = |kit: &Kit| -> Vec<Value> {
        let workers = kit.world.workers("eu-web");
        workers
            .iter()
            .map(|m| m.spec.content.provider_config.settings()["instanceType"].clone())
            .collect()
    };
    assert_eq!(kinds(&kit), ["sim.small", "sim.small"], "it did not roll");
    assert!(
        of_pool(&kit.world.pools["eu-web"], kind::ROLLING_OUT).contains("paused"),
        "and says why"
    );
    kit.patch::<MachineDeployment>("eu-web", pause(Value::Null))
        .await;
    kit.until_settled("eu").await;
    assert_eq!(kinds(&kit), ["sim.large", "sim.large"]);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_keeps_its_control_plane_and_goes_on_when_it_is_resumed() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let made = kit.made();
    let pause =
        |value: Value| json!({"metadata": {"annotations": {meta::ANNOTATION_PAUSED: value}}});
    kit.patch::<Cluster>("eu", pause(json!(""))).await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until("the cluster has seen the change and is paused", |w| {
        let cluster = &w.clusters["eu"];
        let seen = cluster.status.as_ref()?.observed_generation == cluster.metadata.generation;
        (seen && of_cluster(cluster, kind::PAUSED).starts_with("True Paused")).then_some(())
    })
    .await;
    assert_eq!(kit.made(), made);
    assert!(
        of_cluster(&kit.world.clusters["eu"], kind::ROLLING_OUT).starts_with("True RollingOut")
    );
    kit.patch::<Cluster>("eu", pause(Value::Null)).await;
    kit.until_settled("eu").await;
    assert_eq!(kit.made().len(), 2);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_own_in_place_settings_reach_the_instances_once() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let made = kit.made();
    let told = |m: &Machine| -> Option<String> {
        Some(m.status.as_ref()?.instance.as_ref()?.config_digest.clone())
    };
    let before = told(kit.world.workers("eu-web")[0]);
    assert!(before.is_some());
    let change =
        json!({"spec": {"template": {"spec": {"providerConfig": {"tags": {"team": "web"}}}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until("both instances were told", |w| {
        let workers = w.workers("eu-web");
        let new = |m: &&&Machine| told(m).is_some() && told(m) != before;
        (workers.iter().filter(new).count() == 2).then_some(())
    })
    .await;
    for machine in kit.world.workers("eu-web") {
        let shown = machine
            .status
            .as_ref()
            .and_then(|s| s.instance.clone())
            .unwrap();
        let tags = kit.cloud.tags(&shown.id);
        assert_eq!(tags, Some(json!({"team": "web"})));
    }
    kit.until_settled("eu").await;
    let updates = kit
        .journal()
        .iter()
        .filter(|e| e["verb"] == "update")
        .count();
    assert_eq!((kit.made(), updates), (made, 2));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revert_in_the_middle_keeps_the_machines_that_are_there() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 3, json!({})).await;
    kit.until_settled("eu").await;
    let before: Vec<String> = kit
        .world
        .workers("eu-web")
        .iter()
        .map(|m| m.name_any())
        .collect();
    let roll = |kind: &str, boot: f64| {
        let mut config = config(kind);
        config["bootSeconds"] = json!(boot);
        json!({"spec": {"template": {"spec": {"providerConfig": config}}}})
    };
    // The new machine does not come up: the rollout stands in its middle.
    kit.patch::<MachineDeployment>("eu-web", roll("sim.large", 900.0))
        .await;
    kit.until("the first new machine is asked for", |w| {
        let asked = |m: &&&Machine| m.status.as_ref().is_some_and(|s| s.instance.is_some());
        (w.workers("eu-web").iter().filter(asked).count() == 4).then_some(())
    })
    .await;
    kit.patch::<MachineDeployment>("eu-web", roll("sim.small", 0.2))
        .await;
    kit.until_settled("eu").await;
    let after: Vec<String> = kit
        .world
        .workers("eu-web")
        .iter()
        .map(|m| m.name_any())
        .collect();
    assert_eq!(after, before);
    assert_eq!(
        kit.made().len(),
        1 + 3 + 1,
        "only the one that did not come up was made for nothing"
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_in_the_middle_of_a_rollout_goes_to_the_new_machines() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let change = json!({"spec": {"template": {"spec": {"providerConfig": config("sim.large")}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until("the rollout has begun", |w| {
        (w.workers("eu-web").len() == 3).then_some(())
    })
    .await;
    // As `kubectl scale` does it.
    let api = kit.api::<MachineDeployment>();
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let scaled = api
        .patch_scale("eu-web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    assert_eq!(scaled.spec.and_then(|s| s.replicas), Some(5));
    kit.until("five new ones and nothing else", |w| {
        let workers = w.workers("eu-web");
        let new = |m: &&&Machine| {
            m.spec.content.provider_config.settings()["instanceType"] == "sim.large"
        };
        (workers.len() == 5 && workers.iter().filter(new).count() == 5 && w.settled("eu"))
            .then_some(())
    })
    .await;
    let scale = api.get_scale("eu-web").await.unwrap();
    let status = scale.status.unwrap();
    assert_eq!(
        (status.replicas, status.selector.as_deref()),
        (5, Some("fleetwright.dev/deployment-name=eu-web"))
    );
    kit.stop().await;
}

/// What is newer when a pool grows is not what its set was made of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_stands_for_what_it_stood_for_when_the_set_was_made() {
    let mut kit = Kit::start().await;
    kit.ward.newest("ubuntu-a");
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    let alias = json!({"template": {"spec": {"providerConfig": {"image": "newest"}}}});
    kit.pool("eu-web", "eu", 1, alias).await;
    kit.until_settled("eu").await;
    kit.ward.newest("ubuntu-b");
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 3}}))
        .await;
    kit.until("there are three and nothing moves", |w| {
        (w.workers("eu-web").len() == 3 && w.settled("eu")).then_some(())
    })
    .await;
    for machine in kit.world.workers("eu-web") {
        let shown = machine.status.as_ref().and_then(|s| s.instance.as_ref());
        assert_eq!(shown.map(|i| i.image.as_str()), Some("ubuntu-a"));
    }
    // Another set is made of what is newest by then.
    let change =
        json!({"spec": {"template": {"spec": {"providerConfig": {"instanceType": "sim.large"}}}}});
    kit.patch::<MachineDeployment>("eu-web", change).await;
    kit.until_settled("eu").await;
    for machine in kit.world.workers("eu-web") {
        let shown = machine.status.as_ref().and_then(|s| s.instance.as_ref());
        assert_eq!(shown.map(|i| i.image.as_str()), Some("ubuntu-b"));
    }
    assert_eq!(kit.made().len(), 1 + 3 + 3);
    kit.stop().await;
}
