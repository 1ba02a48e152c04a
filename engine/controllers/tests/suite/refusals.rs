//! What cannot help is not tried again, and says so everywhere; a paused Cluster pauses all that belongs to it.

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition::kind, meta};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::kit::{Kit, condition_line, of_cluster, of_machine, of_pool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_error_is_asked_once_shows_everywhere_and_ends_with_its_cause() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kind_of = |instance_type: &str| json!({"template": {"spec": {"providerConfig": {"instanceType": instance_type}}}});
    kit.pool("eu-web", "eu", 1, kind_of("sim.huge")).await;
    let line = kit
        .until("the machine says why", |w| {
            let line = of_machine(w.workers("eu-web").first()?, kind::INFRASTRUCTURE_READY);
            line.contains("instanceType").then_some(line)
        })
        .await;
    assert!(
        line.starts_with("False Terminal: the provider call failed: instanceType"),
        "{line}"
    );
    assert!(
        line.ends_with("when the machine or its account changes, or after 600 s"),
        "{line}"
    );
    let name = kit.world.workers("eu-web")[0].name_any();
    for what in ["set", "pool", "cluster"] {
        let of = name.clone();
        kit.until(&format!("the {what} says why"), move |w| {
            let line = match what {
                "set" => {
                    let set = w.sets.values().next()?;
                    let status = set.status.as_ref();
                    condition_line(status.map_or(&[], |s| &s.conditions), kind::SCALING_UP)
                }
                "pool" => of_pool(w.pools.get("eu-web")?, kind::SCALING_UP),
                _ => of_cluster(w.clusters.get("eu")?, kind::SCALING_UP),
            };
            let words = if what == "cluster" {
                "True ScalingUp: "
            } else {
                "True Terminal: "
            };
            (line.starts_with(words) && line.contains(&of) && line.contains("instanceType"))
                .then_some(())
        })
        .await;
    }
    // Whatever wakes the machine: the same call is not made again.
    for n in 0..3 {
        let note = json!({"metadata": {"annotations": {"note": n.to_string()}}});
        kit.patch::<Machine>(&name, note).await;
    }
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 2}}))
        .await;
    kit.until("the other one is refused too", |w| {
        let workers = w.workers("eu-web");
        let said = |m: &&&Machine| of_machine(m, kind::INFRASTRUCTURE_READY).contains("Terminal");
        (workers.iter().filter(said).count() == 2).then_some(())
    })
    .await;
    let journal = kit.journal();
    let calls = journal
        .iter()
        .filter(|e| e["verb"] == "create" && e["machine"] == name.as_str());
    assert_eq!(calls.count(), 1);
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": kind_of("sim.small")}))
        .await;
    kit.until_settled("eu").await;
    kit.until("nobody complains any more", |w| {
        (of_pool(&w.pools["eu-web"], kind::SCALING_UP) == "False NotScalingUp: "
            && of_cluster(&w.clusters["eu"], kind::SCALING_UP) == "False NotScalingUp: ")
            .then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_pauses_its_pools_sets_and_machines() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let pause = |v: Value| json!({"metadata": {"annotations": {meta::ANNOTATION_PAUSED: v}}});
    kit.patch::<Cluster>("eu", pause(json!(""))).await;
    let before: Vec<String> = kit.world.machines.keys().cloned().collect();
    kit.until("all below it say so", |w| {
        let pools = w.pools.values().map(|p| of_pool(p, kind::PAUSED));
        let machines = w.machines.values().map(|m| of_machine(m, kind::PAUSED));
        let sets = w.sets.values().map(|s| {
            let status = s.status.as_ref();
            condition_line(status.map_or(&[], |s| &s.conditions), kind::PAUSED)
        });
        let mut all = pools.chain(machines).chain(sets);
        all.all(|line| line.starts_with("True Paused"))
            .then_some(())
    })
    .await;
    let doomed = kit.world.workers("eu-web")[0].name_any();
    let known = before.clone();
    kit.always(move |w| {
        let now: Vec<&String> = w.machines.keys().collect();
        (now == known.iter().collect::<Vec<_>>() || !meta::is_paused(&w.clusters["eu"]))
            .then_some(())
            .ok_or_else(|| format!("machines come or go while their cluster is paused: {now:?}"))
    });
    let roll = json!({"spec": {"replicas": 3, "template": {"spec": {"failureDomain": "eu-b"}}}});
    kit.patch::<MachineDeployment>("eu-web", roll).await;
    let api = kit.api::<Machine>();
    api.delete(&doomed, &DeleteParams::default()).await.unwrap();
    kit.until(
        "the pool has seen its change, and the machine its deletion",
        |w| {
            let pool = &w.pools["eu-web"];
            let status = pool.status.as_ref()?;
            let leaving = of_machine(&w.machines[&doomed], kind::DELETING).starts_with("True");
            (status.observed_generation == pool.metadata.generation && leaving).then_some(())
        },
    )
    .await;
    assert_eq!(kit.world.sets.len(), 1, "no new set either");
    kit.patch::<Cluster>("eu", pause(Value::Null)).await;
    kit.until_settled("eu").await;
    assert_eq!(kit.world.workers("eu-web").len(), 3);
    kit.stop().await;
}
