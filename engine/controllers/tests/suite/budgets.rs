//! Disruption budgets over everything that takes machines away.

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineSet, condition::kind, meta, names,
};
use kube::{ResourceExt, api::PostParams};
use serde_json::{Value, json};

use crate::kit::{Kit, World, condition_line, config, is_available, of_pool};

/// Machines of these pools that are out of service, by the words of the budget: those that leave, or those that are missing.
fn out(w: &World, pools: &[&str]) -> usize {
    pools
        .iter()
        .map(|pool| {
            let workers = w.workers(pool);
            let leaves = |m: &&&Machine| m.metadata.deletion_timestamp.is_some();
            let serves = |m: &&&Machine| is_available(m) && !leaves(m);
            let wanted = w
                .pools
                .get(*pool)
                .and_then(|p| p.spec.replicas)
                .unwrap_or(0);
            let missing = usize::try_from(wanted)
                .unwrap()
                .saturating_sub(workers.iter().filter(serves).count());
            missing.max(workers.iter().filter(leaves).count())
        })
        .sum()
}

fn at_most(kit: &mut Kit, limit: usize, pools: &'static [&'static str]) {
    kit.always(move |w| match out(w, pools) {
        n if n > limit => Err(format!("{n} machines of {pools:?} are out of service")),
        _ => Ok(()),
    });
}

fn bigger() -> Value {
    json!({"spec": {"template": {"spec": {"providerConfig": config("sim.medium")}}}})
}

/// Without spare machines, so that each step takes one out of service.
fn eager() -> Value {
    json!({"rollout": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_cluster_holds_over_two_pools_that_roll_at_once() {
    let mut kit = Kit::start().await;
    let budget = json!({"disruption": {"maxUnavailable": 1}});
    kit.cluster("eu", "v1.33.2", 1, budget).await;
    kit.pool("eu-web", "eu", 2, eager()).await;
    kit.pool("eu-db", "eu", 2, eager()).await;
    kit.until_settled("eu").await;
    at_most(&mut kit, 1, &["eu-web", "eu-db"]);
    let patch = bigger();
    kit.patch::<MachineDeployment>("eu-web", patch.clone())
        .await;
    kit.patch::<MachineDeployment>("eu-db", patch).await;
    kit.until("a pool says what holds it", |w| {
        ["eu-web", "eu-db"].iter().find_map(|pool| {
            let line = of_pool(w.pools.get(*pool)?, kind::ROLLING_OUT);
            let held = "held by the disruption budget of Cluster eu: 1 of at most 1 machines are out of service";
            line.contains(held).then_some(())
        })
    })
    .await;
    kit.until("both have rolled", |w| {
        let new = |m: &&Machine| {
            let config = m.spec.content.provider_config.to_value();
            config["instanceType"] == "sim.medium"
        };
        let rolled = |pool| w.workers(pool).iter().all(new);
        (w.settled("eu") && rolled("eu-web") && rolled("eu-db")).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_fleet_holds_over_two_clusters() {
    let mut kit = Kit::start().await;
    let fleet: Fleet = serde_json::from_value(json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "all"},
        "spec": {"source": {"directory": "/nowhere"}, "disruption": {"maxUnavailable": "30%"}},
    }))
    .unwrap();
    let api = kit.api::<Fleet>();
    api.create(&PostParams::default(), &fleet).await.unwrap();
    let label =
        json!({"metadata": {"labels": {meta::LABEL_FLEET: names::fleet_hash("default", "all")}}});
    for cluster in ["eu", "us"] {
        kit.cluster(cluster, "v1.33.2", 1, json!({})).await;
        kit.patch::<Cluster>(cluster, label.clone()).await;
        kit.pool(&format!("{cluster}-web"), cluster, 2, eager())
            .await;
    }
    kit.until_settled("eu").await;
    kit.until_settled("us").await;
    // 30 % of six machines is one.
    at_most(&mut kit, 1, &["eu-web", "us-web"]);
    for pool in ["eu-web", "us-web"] {
        let patch = bigger();
        kit.patch::<MachineDeployment>(pool, patch).await;
    }
    kit.until("both have rolled", |w| {
        let new = |m: &&Machine| {
            let config = m.spec.content.provider_config.to_value();
            config["instanceType"] == "sim.medium"
        };
        let done = |cluster: &str| {
            w.settled(cluster) && w.workers(&format!("{cluster}-web")).iter().all(new)
        };
        (done("eu") && done("us")).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_down_goes_as_the_budget_of_the_pool_lets_it() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool(
        "eu-web",
        "eu",
        4,
        json!({"disruption": {"maxUnavailable": 1}}),
    )
    .await;
    kit.until_settled("eu").await;
    at_most(&mut kit, 1, &["eu-web"]);
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until("one is left", |w| {
        (w.settled("eu") && w.workers("eu-web").len() == 1).then_some(())
    })
    .await;
    // A budget that lets nothing go says so, until somebody changes it.
    let none = json!({"spec": {"disruption": {"maxUnavailable": "0%"}, "replicas": 0}});
    kit.patch::<MachineDeployment>("eu-web", none).await;
    kit.until("the pool says what holds it", |w| {
        let line = of_pool(w.pools.get("eu-web")?, kind::SCALING_DOWN);
        let held = "True DisruptionBudget: scaling down from 1 to 0 machines; held by the disruption budget of pool eu-web: \
                    it lets no machine be taken out of service";
        (line == held).then_some(())
    })
    .await;
    assert_eq!(kit.world.workers("eu-web").len(), 1);
    let some = json!({"spec": {"disruption": {"maxUnavailable": 1}}});
    kit.patch::<MachineDeployment>("eu-web", some).await;
    kit.until("none is left", |w| {
        w.workers("eu-web").is_empty().then_some(())
    })
    .await;
    kit.until("the pool says that nothing is left to do", |w| {
        let line = of_pool(w.pools.get("eu-web")?, kind::SCALING_DOWN);
        (line == "False NotScalingDown: ").then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_holds_neither_broken_machines_nor_a_cluster_that_goes() {
    let mut kit = Kit::start().await;
    let budget = json!({"disruption": {"maxUnavailable": "0%"}});
    kit.cluster("eu", "v1.33.2", 1, budget).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    // A healthy machine whose replacement somebody asks for stays.
    let ask = json!({"metadata": {"annotations": {meta::ANNOTATION_REMEDIATE_MACHINE: ""}}});
    let asked = kit.world.workers("eu-web")[0].name_any();
    kit.patch::<Machine>(&asked, ask).await;
    let name = asked.clone();
    kit.until("the machine says what holds it", move |w| {
        let line = crate::kit::of_machine(w.machines.get(&name)?, kind::OWNER_REMEDIATED);
        line.starts_with("False RemediationDeferred: held by the disruption budget of Cluster eu")
            .then_some(())
    })
    .await;
    // A failed instance is out of service: it costs nothing.
    let failed = kit.world.workers("eu-web")[1].name_any();
    kit.ward.fail(&failed);
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.until("the broken one goes", move |w| {
        (!w.machines.contains_key(&failed)).then_some(())
    })
    .await;
    assert!(kit.world.machines.contains_key(&asked));
    // Taking the cluster apart asks no budget.
    kit.api::<Cluster>()
        .delete("eu", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    kit.until("all is gone", |w| {
        (w.clusters.is_empty() && w.machines.is_empty()).then_some(())
    })
    .await;
    kit.stop().await;
}

/// A rollout, a scale-down and a set without a pool that scales down, beside a machine that broke: all spend of one budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_budget_holds_over_a_rollout_a_scale_down_a_lone_set_and_a_broken_machine() {
    let mut kit = Kit::start().await;
    let budget = json!({"disruption": {"maxUnavailable": 2}});
    kit.cluster("eu", "v1.33.2", 1, budget).await;
    // What is broken stays for now: of the two one is spent until somebody lets it go.
    let mut app = eager();
    app["remediation"] = json!({"maxInFlight": 0});
    kit.pool("eu-app", "eu", 1, app).await;
    kit.pool("eu-web", "eu", 2, eager()).await;
    kit.pool("eu-db", "eu", 3, eager()).await;
    kit.until_settled("eu").await;
    kit.check("eu-app", "eu", 1, json!({})).await;
    let lone: MachineSet = serde_json::from_value(json!({
        "metadata": {"name": "lone"},
        "spec": {"clusterName": "eu", "replicas": 3, "template": {"spec": {"version": "v1.33.2", "providerConfig": config("sim.small")}}},
    }))
    .unwrap();
    kit.api::<MachineSet>()
        .create(&PostParams::default(), &lone)
        .await
        .unwrap();
    kit.until("the lone set is up", |w| {
        let own = of_set(w);
        (own.len() == 3 && own.iter().all(|m| is_available(m))).then_some(())
    })
    .await;
    let sick = kit.world.workers("eu-app")[0].name_any();
    kit.node_is("eu", &sick, "False").await;
    kit.until_marked(&sick).await;
    kit.until("it is out of service", |w| {
        (out(w, &["eu-app"]) == 1).then_some(())
    })
    .await;
    kit.always(|w| {
        let own = of_set(w);
        let leaves = |m: &&&Machine| m.metadata.deletion_timestamp.is_some();
        let wanted = w.sets.get("lone").and_then(|s| s.spec.replicas);
        let serve = own.iter().filter(|m| is_available(m) && !leaves(m)).count();
        let missing = usize::try_from(wanted.unwrap_or(0))
            .unwrap()
            .saturating_sub(serve);
        let lone = missing.max(own.iter().filter(leaves).count());
        match out(w, &["eu-app", "eu-web", "eu-db"]) + lone {
            n if n > 2 => Err(format!(
                "{n} machines are out of service, {lone} of the lone set"
            )),
            _ => Ok(()),
        }
    });
    kit.patch::<MachineDeployment>("eu-web", bigger()).await;
    kit.patch::<MachineDeployment>("eu-db", json!({"spec": {"replicas": 1}}))
        .await;
    kit.patch::<MachineSet>("lone", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until("the lone set says what holds it", |w| {
        let conditions = &w.sets.get("lone")?.status.as_ref()?.conditions;
        let line = condition_line(conditions, kind::SCALING_DOWN);
        line.contains("held by the disruption budget of Cluster eu")
            .then_some(())
    })
    .await;
    kit.until("all but the broken one is done", |w| {
        let new = |m: &&Machine| {
            let config = m.spec.content.provider_config.to_value();
            is_available(m) && config["instanceType"] == "sim.medium"
        };
        let web = w.workers("eu-web");
        let rolled = web.len() == 2 && web.iter().all(new);
        (rolled && w.workers("eu-db").len() == 1 && of_set(w).len() == 1).then_some(())
    })
    .await;
    let free = json!({"spec": {"remediation": null}});
    kit.patch::<MachineDeployment>("eu-app", free).await;
    kit.until("the broken one is replaced", move |w| {
        let app = w.workers("eu-app");
        let well = app.len() == 1 && is_available(app[0]);
        (well && !w.machines.contains_key(&sick)).then_some(())
    })
    .await;
    kit.stop().await;
}

/// The machines of the set that has no pool.
fn of_set(w: &World) -> Vec<&Machine> {
    let of = |m: &&Machine| meta::controller_of(*m).is_some_and(|o| o.name == "lone");
    w.machines.values().filter(of).collect()
}
