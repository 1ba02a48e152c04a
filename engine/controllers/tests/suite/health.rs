//! Machines that break, and what is done about them.

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineHealthCheck, MachineSet, condition,
    condition::kind,
    meta,
    time::{Clock, SystemClock, rfc3339_seconds},
};
use fleetwright_core::health::is_broken;
use fleetwright_providers::Provider;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::kit::{
    Kit, World, account, condition_line, config, is_available, merge, of_cluster, of_machine,
    of_pool,
};

impl Kit {
    /// A health check of all machines of a pool: a node that is not ready breaks its machine after `seconds`.
    pub(crate) async fn check(&self, pool: &str, cluster: &str, seconds: i32, more: Value) {
        let bad =
            |status: &str| json!({"type": "Ready", "status": status, "timeoutSeconds": seconds});
        let mut spec = json!({
            "clusterName": cluster,
            "selector": {"matchLabels": {meta::LABEL_DEPLOYMENT_NAME: pool}},
            "checks": {"unhealthyNodeConditions": [bad("False"), bad("Unknown")]},
        });
        merge(&mut spec, more);
        let check = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineHealthCheck",
            "metadata": {"name": format!("{pool}-check")}, "spec": spec,
        }))
        .unwrap();
        let api = self.api::<MachineHealthCheck>();
        api.create(&PostParams::default(), &check).await.unwrap();
    }

    /// What the kubelet says of itself.
    pub(crate) async fn node_is(&self, cluster: &str, node: &str, ready: &str) {
        let patch = json!({"status": {"conditions": [{
            "type": "Ready", "status": ready, "reason": "Tried", "message": "",
            "lastTransitionTime": rfc3339_seconds(SystemClock.now()),
        }]}});
        Api::<Node>::all(self.workload(cluster).await)
            .patch_status(node, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .unwrap();
    }

    /// Takes a machine's instance away behind the controllers' back.
    async fn destroy(&self, machine: &str) {
        let machine = &self.world.machines[machine];
        let shown = machine.status.as_ref().unwrap().instance.as_ref().unwrap();
        let id = shown.id.as_str();
        let key = machine.spec.instance_key.as_deref().unwrap();
        self.cloud.delete(&account(), id, key).await.unwrap();
    }

    /// Everything of cluster `eu`, with the version of its last write.
    pub(crate) async fn versions(&self) -> Vec<(String, Option<String>)> {
        let all = ListParams::default();
        let mut found = Vec::new();
        for pool in self.api::<MachineDeployment>().list(&all).await.unwrap() {
            found.push((pool.name_any(), pool.resource_version()));
        }
        for set in self.api::<MachineSet>().list(&all).await.unwrap() {
            found.push((set.name_any(), set.resource_version()));
        }
        for machine in self.api::<Machine>().list(&all).await.unwrap() {
            found.push((machine.name_any(), machine.resource_version()));
        }
        for check in self.api::<MachineHealthCheck>().list(&all).await.unwrap() {
            found.push((check.name_any(), check.resource_version()));
        }
        for cluster in self.api::<Cluster>().list(&all).await.unwrap() {
            found.push((
                format!("Cluster {}", cluster.name_any()),
                cluster.resource_version(),
            ));
        }
        found
    }

    pub(crate) fn names(&self, pool: &str) -> Vec<String> {
        let all = self.world.workers(pool);
        all.iter().map(|m| m.name_any()).collect()
    }

    /// Waits until the machine is marked; gives the mark.
    pub(crate) async fn until_marked(&mut self, machine: &str) -> String {
        let name = machine.to_owned();
        self.until("the machine is marked", move |w| {
            let machine = w.machines.get(&name)?;
            is_broken(machine).then(|| of_machine(machine, kind::HEALTH_CHECK_SUCCEEDED))
        })
        .await
    }

    pub(crate) async fn until_says(&mut self, machine: &str, text: &str) -> String {
        let (name, part) = (machine.to_owned(), text.to_owned());
        self.until(text, move |w| {
            let line = of_machine(w.machines.get(&name)?, kind::OWNER_REMEDIATED);
            line.contains(&part).then_some(line)
        })
        .await
    }

    pub(crate) async fn until_replaced(&mut self, cluster: &str, machine: &str) {
        let (cluster, name) = (cluster.to_owned(), machine.to_owned());
        self.until("the machine is replaced", move |w| {
            (!w.machines.contains_key(&name) && w.settled(&cluster)).then_some(())
        })
        .await;
    }
}

fn of_check(w: &World, name: &str) -> Option<String> {
    let status = w.checks.get(name)?.status.as_ref()?;
    Some(condition_line(
        &status.conditions,
        kind::REMEDIATION_ALLOWED,
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_ready_is_marked_and_its_machine_replaced() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.check("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.until("the check counts", |w| {
        let status = w.checks.get("eu-web-check")?.status.as_ref()?;
        (status.expected_machines == 2 && status.current_healthy == 2).then_some(())
    })
    .await;
    let [sick, well] = kit.names("eu-web").try_into().unwrap();
    let line = of_machine(&kit.world.machines[&well], kind::HEALTH_CHECK_SUCCEEDED);
    assert_eq!(line, "True HealthCheckSucceeded: ");
    kit.node_is("eu", &sick, "False").await;
    let mark = kit.until_marked(&sick).await;
    assert_eq!(
        mark,
        "False UnhealthyNode: condition Ready of the node has been False (Tried) for more than 1 s"
    );
    kit.until_replaced("eu", &sick).await;
    assert!(
        kit.world.machines.contains_key(&well),
        "no other was touched"
    );
    kit.until("the check counts again", |w| {
        let status = w.checks.get("eu-web-check")?.status.as_ref()?;
        (status.expected_machines == 2 && status.current_healthy == 2 && status.recent.len() == 1)
            .then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_first_makes_another_before_the_broken_one_goes() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    let first = json!({"remediation": {"strategy": "ReplaceFirst"}});
    kit.check("eu-web", "eu", 1, first).await;
    kit.until_settled("eu").await;
    let [sick, _] = kit.names("eu-web").try_into().unwrap();
    let name = sick.clone();
    kit.always(move |w| {
        let workers = w.workers("eu-web");
        if workers.len() > 3 {
            return Err("more than one machine beyond the wanted ones".into());
        }
        let leaves = w.machines.get(&name);
        let leaves = leaves.is_some_and(|m| m.metadata.deletion_timestamp.is_some());
        let others = workers.iter().filter(|m| is_available(m)).count();
        if leaves && others < 2 {
            return Err("the broken machine goes before another is available".into());
        }
        Ok(())
    });
    kit.node_is("eu", &sick, "False").await;
    kit.until_says(&sick, "another machine is made first").await;
    kit.until_replaced("eu", &sick).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_vanished_is_replaced_without_any_check() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let [lost, well] = kit.names("eu-web").try_into().unwrap();
    kit.destroy(&lost).await;
    let mark = kit.until_marked(&lost).await;
    assert_eq!(
        mark,
        "False InstanceLost: the instance is gone and was not deleted by us"
    );
    kit.until_replaced("eu", &lost).await;
    assert!(kit.world.machines.contains_key(&well));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_leaves_an_instance_out_loses_no_machine() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let before = kit.names("eu-web");
    kit.stop_controllers().await;
    kit.ward.hide(&before[0]);
    kit.start_controllers();
    // Whatever they make of it they have made once another pool is up.
    kit.pool("eu-db", "eu", 1, json!({})).await;
    kit.until("another pool is up", |w| {
        w.workers("eu-db")
            .iter()
            .any(|m| is_available(m))
            .then_some(())
    })
    .await;
    let asked = |kit: &Kit| kit.journal().iter().any(|e| e["verb"] == "get");
    assert!(
        asked(&kit),
        "the provider was asked for the instance itself"
    );
    assert_eq!(kit.names("eu-web"), before);
    let line = of_machine(&kit.world.machines[&before[0]], kind::READY);
    assert_eq!(line, "True Ready: ");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_the_provider_gives_up_is_replaced_without_any_check() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let first = |w: &World| w.workers("eu-web").first().map(|m| m.name_any());
    // It fails before it has ever run.
    kit.pool(
        "eu-web",
        "eu",
        1,
        json!({"template": {"spec": {"providerConfig": {"bootSeconds": 3}}}}),
    )
    .await;
    let failed = kit.until("there is a machine", first).await;
    kit.ward.fail(&failed);
    let mark = kit.until_marked(&failed).await;
    assert_eq!(
        mark,
        "False InstanceFailed: the provider gives the instance up"
    );
    let line = of_machine(&kit.world.machines[&failed], kind::INFRASTRUCTURE_READY);
    assert!(
        line.ends_with("; the provider says: no such disk"),
        "{line}"
    );
    kit.until_replaced("eu", &failed).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_never_joins_is_replaced_after_its_time() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    let slow = json!({"template": {"spec": {"providerConfig": {"bootSeconds": 3600}}}});
    kit.pool("eu-web", "eu", 1, slow).await;
    kit.check("eu-web", "eu", 1, json!({})).await;
    let late = kit
        .until("the machine boots", |w| {
            let machine = *w.workers("eu-web").first()?;
            let line = of_machine(machine, kind::INFRASTRUCTURE_READY);
            line.contains("waiting for the instance")
                .then(|| machine.name_any())
        })
        .await;
    assert!(!is_broken(&kit.world.machines[&late]));
    kit.stop_controllers().await;
    kit.ward.ahead(700);
    kit.start_controllers();
    let mark = kit.until_marked(&late).await;
    assert_eq!(
        mark,
        "False NodeStartupTimeout: no node appeared within 10 m"
    );
    let name = late.clone();
    kit.until("another is made", move |w| {
        let workers = w.workers("eu-web");
        (!workers.is_empty() && workers.iter().all(|m| m.name_any() != name)).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_stops_replacements_and_says_what_the_machines_share() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 3, json!({})).await;
    let storm = json!({"remediation": {"storm": {"machines": 3}, "triggerIf": {"unhealthyInRange": "[2-3]"}}});
    kit.check("eu-web", "eu", 1, storm).await;
    kit.until_settled("eu").await;
    let all = kit.names("eu-web");
    // One is too few for the range: marked, and left.
    kit.node_is("eu", &all[0], "False").await;
    kit.until_says(
        &all[0],
        "1 machines are broken, and unhealthyInRange is [2-3]",
    )
    .await;
    // The two others at once: a storm.
    kit.stop_controllers().await;
    kit.node_is("eu", &all[1], "False").await;
    kit.node_is("eu", &all[2], "False").await;
    kit.ward.ahead(10);
    kit.start_controllers();
    let line = kit
        .until("the check says that there is a storm", |w| {
            of_check(w, "eu-web-check").filter(|l| l.contains("RemediationStorm"))
        })
        .await;
    assert_eq!(
        line,
        "False RemediationStorm: 3 machines broke within 10 m, all of image ubuntu-24.04, instance type sim.small, \
         failure domain eu-a, account sim-eu: replacing them would not help"
    );
    kit.until("the pool says so", |w| {
        let line = of_pool(w.pools.get("eu-web")?, kind::REMEDIATING);
        line.contains("replacing them would not help").then_some(())
    })
    .await;
    // The content changes: other machines are made, and the broken ones go with the rollout.
    let patch = json!({"spec": {"template": {"spec": {"providerConfig": config("sim.medium")}}}});
    kit.patch::<MachineDeployment>("eu-web", patch).await;
    kit.until("all are replaced", move |w| {
        (w.settled("eu") && all.iter().all(|m| !w.machines.contains_key(m))).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_a_cluster_that_does_not_answer_say_so_and_wait_until_it_does() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    let startup = json!({"checks": {"nodeStartupTimeoutSeconds": 60}});
    kit.check("eu-web", "eu", 60, startup).await;
    kit.until_settled("eu").await;
    let before: Vec<String> = kit.world.machines.keys().cloned().collect();
    let known = before.clone();
    kit.always(move |w| {
        let leaves = |m: &Machine| m.metadata.deletion_timestamp.is_some() || is_broken(m);
        let ours = || w.machines.values().filter(|m| m.spec.cluster_name == "eu");
        match ours().find(|m| leaves(m)) {
            Some(machine) => Err(format!("{} is given up", machine.name_any())),
            None if !ours().map(ResourceExt::name_any).eq(known.iter().cloned()) => {
                Err("machines came or went".into())
            }
            None => Ok(()),
        }
    });
    kit.stop_controllers().await;
    kit.ward.cut_off("eu");
    for name in kit.names("eu-web") {
        kit.node_is("eu", &name, "Unknown").await;
    }
    kit.start_controllers();
    kit.until("the cluster says that it cannot be reached", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::REMOTE_CONNECTION_PROBE);
        line.starts_with("False ").then_some(())
    })
    .await;
    // Every time-out passes.
    kit.ward.ahead(7200);
    kit.until("all machines say that nobody knows their nodes", |w| {
        let down = "Unknown ConnectionDown: the cluster's API has not answered since 2";
        let says = |m: &Machine| {
            [kind::NODE_HEALTHY, kind::NODE_READY]
                .iter()
                .all(|kind| of_machine(m, kind).starts_with(down))
                && of_machine(m, kind::READY).starts_with("Unknown ")
        };
        w.machines.values().all(says).then_some(())
    })
    .await;
    // Another cluster comes up beside it: everything has been looked at.
    kit.cluster("us", "v1.33.2", 1, json!({})).await;
    kit.pool("us-web", "us", 1, json!({})).await;
    kit.until_settled("us").await;
    assert_eq!(
        kit.journal()
            .iter()
            .filter(|e| e["verb"] == "delete")
            .count(),
        0
    );
    for name in kit.names("eu-web") {
        kit.node_is("eu", &name, "True").await;
    }
    kit.ward.join("eu");
    kit.until_settled("eu").await;
    kit.until("all is as before", |w| {
        let probe = of_cluster(&w.clusters["eu"], kind::REMOTE_CONNECTION_PROBE);
        let well = |name: &String| {
            let machine = w.machines.get(name)?;
            let line = of_machine(machine, kind::NODE_HEALTHY);
            (line.starts_with("True ") && of_machine(machine, kind::READY) == "True Ready: ")
                .then_some(())
        };
        (probe.starts_with("True ") && before.iter().all(|m| well(m).is_some())).then_some(())
    })
    .await;
    assert_eq!(
        kit.journal()
            .iter()
            .filter(|e| e["verb"] == "delete")
            .count(),
        0
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cannot_be_reached_breaks_nothing() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.check("eu-web", "eu", 600, json!({})).await;
    kit.until_settled("eu").await;
    let before = kit.names("eu-web");
    kit.stop_controllers().await;
    kit.ward.cut_off("eu");
    kit.node_is("eu", &before[0], "False").await;
    kit.ward.ahead(7200);
    kit.start_controllers();
    // Another cluster comes up beside it: everything has been looked at.
    kit.cluster("us", "v1.33.2", 1, json!({})).await;
    kit.pool("us-web", "us", 1, json!({})).await;
    kit.until_settled("us").await;
    assert_eq!(kit.names("eu-web"), before);
    assert!(before.iter().all(|m| !is_broken(&kit.world.machines[m])));
    // Somebody asks for a replacement: marked at once, and done once the cluster is seen again.
    let ask = json!({"metadata": {"annotations": {meta::ANNOTATION_REMEDIATE_MACHINE: ""}}});
    kit.patch::<Machine>(&before[1], ask).await;
    kit.until_says(&before[1], "cluster eu cannot be reached")
        .await;
    let probe = |w: &World| of_cluster(&w.clusters["eu"], kind::REMOTE_CONNECTION_PROBE);
    kit.until("the Cluster says so", |w| {
        probe(w).starts_with("False").then_some(())
    })
    .await;
    // Seen again: the node has not been ready for two hours, and nobody could see that.
    kit.ward.ahead(7300);
    kit.ward.join("eu");
    let sick = before[0].clone();
    kit.until("the node is seen", move |w| {
        let line = of_machine(&w.machines[&sick], kind::NODE_HEALTHY);
        line.starts_with("False").then_some(())
    })
    .await;
    let gone = before[1].clone();
    kit.until("another machine serves", move |w| {
        let all = w.workers("eu-web");
        let serves = all.iter().filter(|m| is_available(m)).count() == 1;
        (serves && !w.machines.contains_key(&gone)).then_some(())
    })
    .await;
    let sick = &kit.world.machines[&before[0]];
    assert!(!is_broken(sick), "it has its ten minutes");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_max_in_flight_are_replaced_at_once_those_asked_for_first() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool(
        "eu-web",
        "eu",
        3,
        json!({"remediation": {"maxInFlight": "33%"}}),
    )
    .await;
    kit.check("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let all = kit.names("eu-web");
    kit.always(|w| {
        let leaves = |m: &&&Machine| m.metadata.deletion_timestamp.is_some();
        match w.workers("eu-web").iter().filter(leaves).count() {
            0 | 1 => Ok(()),
            n => Err(format!("{n} are replaced at once")),
        }
    });
    for machine in &all {
        let ask = json!({"metadata": {"annotations": {meta::ANNOTATION_REMEDIATE_MACHINE: ""}}});
        kit.patch::<Machine>(machine, ask).await;
    }
    kit.until("all are replaced", move |w| {
        (w.settled("eu") && all.iter().all(|m| !w.machines.contains_key(m))).then_some(())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_goes_when_the_machine_recovers_or_is_to_be_left_alone() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    let held = json!({"remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": 0}}});
    kit.check("eu-web", "eu", 1, held).await;
    kit.until_settled("eu").await;
    let [a, b] = kit.names("eu-web").try_into().unwrap();
    for machine in [&a, &b] {
        kit.node_is("eu", machine, "Unknown").await;
        kit.until_marked(machine).await;
        kit.until_says(machine, "unhealthyLessThanOrEqualTo is 0")
            .await;
    }
    kit.node_is("eu", &a, "True").await;
    let skip = json!({"metadata": {"annotations": {meta::ANNOTATION_SKIP_REMEDIATION: ""}}});
    kit.patch::<Machine>(&b, skip).await;
    let (one, other) = (a.clone(), b.clone());
    kit.until("the marks go", move |w| {
        let says = |m: &str, kind| of_machine(&w.machines[m], kind);
        let well = says(&one, kind::HEALTH_CHECK_SUCCEEDED).starts_with("True")
            && says(&one, kind::OWNER_REMEDIATED) == "none"
            && says(&other, kind::HEALTH_CHECK_SUCCEEDED) == "none";
        well.then_some(())
    })
    .await;
    let bad = &kit.world.machines[&a]
        .status
        .as_ref()
        .unwrap()
        .bad_conditions;
    assert_eq!(
        (bad.len(), bad[0].bad),
        (1, false),
        "what was is remembered"
    );
    assert_eq!(kit.names("eu-web"), [a, b]);
    let conditions = &kit.world.checks["eu-web-check"]
        .status
        .as_ref()
        .unwrap()
        .conditions;
    assert!(condition::get(conditions, kind::PAUSED).is_some());
    kit.stop().await;
}

/// Marks, gates and what they say are a fixed point: who looks again writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_marked_and_held_is_not_written_again() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    let held = json!({"remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": 0}}});
    kit.check("eu-web", "eu", 1, held).await;
    kit.until_settled("eu").await;
    let sick = kit.names("eu-web")[0].clone();
    kit.node_is("eu", &sick, "False").await;
    kit.until_says(&sick, "unhealthyLessThanOrEqualTo is 0")
        .await;
    kit.until("all say so", |w| {
        let pool = of_pool(w.pools.get("eu-web")?, kind::REMEDIATING);
        let check = of_check(w, "eu-web-check")?;
        let counted = w.checks["eu-web-check"].status.as_ref()?.unhealthy.len() == 1;
        let available = of_pool(w.pools.get("eu-web")?, kind::AVAILABLE);
        let cluster = w.clusters.get("eu")?.status.as_ref()?.workers.as_ref()?;
        let set = w
            .sets
            .values()
            .find(|s| s.name_any().starts_with("eu-web"))?;
        let set = condition_line(&set.status.as_ref()?.conditions, kind::REMEDIATING);
        let all = pool.contains("LessThanOrEqualTo is 0")
            && set.contains("LessThanOrEqualTo is 0")
            && check.contains("LessThanOrEqualTo is 0")
            && counted
            && available.starts_with("False")
            && cluster.available_replicas == 1;
        all.then_some(())
    })
    .await;
    kit.stop_controllers().await;
    let before = kit.versions().await;
    kit.start_controllers();
    kit.cluster("us", "v1.33.2", 1, json!({})).await;
    kit.until_settled("us").await;
    kit.stop_controllers().await;
    let after = kit.versions().await;
    for one in &before {
        assert!(after.contains(one), "{one:?} was written again");
    }
    kit.stop().await;
}
