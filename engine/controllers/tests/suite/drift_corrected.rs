//! What is done about what others change of machines, as their Fleet wants it.

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, condition::kind, meta, names, time::Clock,
};
use fleetwright_core::health::is_broken;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    drift::{by_hand, events_on, list_again, until_event, until_in_sync},
    kit::{Kit, World, config, is_available, of_cluster, of_machine},
};

/// Cluster `eu` of Fleet `all`, with pool `eu-web`, settled; what differs from now on was not so from the start.
async fn scene(kit: &mut Kit, replicas: i32, cluster: Value, fleet: Value) {
    let mut spec = json!({"source": {"directory": "/nowhere"}});
    crate::kit::merge(&mut spec, fleet);
    let fleet: Fleet = serde_json::from_value(json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "all"}, "spec": spec,
    }))
    .unwrap();
    let api = kit.api::<Fleet>();
    api.create(&PostParams::default(), &fleet).await.unwrap();
    kit.cluster("eu", "v1.33.2", 1, cluster).await;
    let hash = names::fleet_hash("default", "all");
    let label = json!({"metadata": {"labels": {meta::LABEL_FLEET: hash}}});
    kit.patch::<Cluster>("eu", label).await;
    let mut settings = config("sim.small");
    settings["tags"] = json!({"team": "x", "cost": "7"});
    settings["securityGroups"] = json!(["web", "ssh"]);
    let template = json!({"template": {"spec": {"providerConfig": settings}}});
    kit.pool("eu-web", "eu", replicas, template).await;
    kit.until_settled("eu").await;
    kit.ward.ahead(60);
}

/// The policy of the Fleet from now on.
async fn policy(kit: &mut Kit, drift: Value) {
    kit.patch::<Fleet>("all", json!({"spec": {"drift": drift}}))
        .await;
}

/// Waits until exactly these things of a machine are told.
async fn until_told(kit: &mut Kit, machine: &str, what: &[&str]) {
    let wanted: Vec<String> = what.iter().map(|w| (*w).to_owned()).collect();
    let name = machine.to_owned();
    kit.until(&format!("{machine} tells {what:?}"), move |w| {
        let drift = &w.machines.get(&name)?.status.as_ref()?.drift;
        let told: Vec<String> = drift.iter().map(|d| d.what.clone()).collect();
        (told == wanted).then_some(())
    })
    .await;
}

/// How often a machine's instance was updated.
fn updates(kit: &Kit, machine: &str) -> usize {
    let journal = kit.journal();
    let of = |line: &&Value| line["verb"] == "update" && line["machine"] == machine;
    journal.iter().filter(of).count()
}

/// Waits until a change of the pool's template has come to a machine: its set and the machine itself were looked at since.
async fn until_looked_at(kit: &mut Kit, machine: &str) {
    let label = "node.fleetwright.dev/looked-at";
    let template = json!({"metadata": {"labels": {label: "yes"}}});
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"template": template}}))
        .await;
    kit.until_nodes("eu", "the label is on the node", |nodes| {
        let mut of = nodes.iter().filter(|n| n.name_any() == machine);
        of.any(|n| n.labels().contains_key(label))
    })
    .await;
    let name = machine.to_owned();
    kit.until("the machine is seen so", move |w| {
        let machine = w.machines.get(&name)?;
        machine.labels().contains_key(label).then_some(())
    })
    .await;
}

fn id_of(kit: &Kit, machine: &str) -> String {
    let status = kit.world.machines[machine].status.as_ref();
    status.unwrap().instance.as_ref().unwrap().id.clone()
}

fn leaves(machine: &Machine) -> bool {
    machine.metadata.deletion_timestamp.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_told_put_right_left_or_replaced_as_the_fleet_says() {
    let mut kit = Kit::start().await;
    scene(&mut kit, 2, json!({}), json!({})).await;
    let [name, other] = kit.names("eu-web").try_into().unwrap();
    // Another order, and what others put on beside, is nothing.
    let groups = json!({"securityGroups": ["ssh", "web"], "tags": {"by": "hand"}});
    by_hand(&mut kit, &other, groups).await;
    let change = json!({"network": "office", "tags": {"team": "y", "cost": null}});
    by_hand(&mut kit, &name, change).await;
    let line = until_in_sync(&mut kit, &name, "False Drifted").await;
    let told = "False Drifted: the instance's network is office, wanted is default; the instance's tag cost is none, wanted is 7; \
                the instance's tag team is y, wanted is x";
    assert_eq!(line, told);
    assert_eq!(
        of_machine(&kit.world.machines[&other], kind::IN_SYNC),
        "none"
    );

    // Rules for one of them; the others are told still.
    let rules = json!([
        {"kinds": ["Machine"], "paths": ["instance.tags.cost"], "policy": "ignore"},
        {"kinds": ["Machine"], "paths": ["instance.tags"], "policy": "correct"},
    ]);
    policy(&mut kit, json!({"rules": [rules[0]]})).await;
    until_told(&mut kit, &name, &["network", "tags.team"]).await;
    policy(&mut kit, json!({"rules": rules})).await;
    until_told(&mut kit, &name, &["network"]).await;
    let id = id_of(&kit, &name);
    // What is written is written whole.
    assert_eq!(
        kit.cloud.tags(&id).unwrap(),
        json!({"team": "x", "cost": "7"})
    );
    assert_eq!(updates(&kit, &name), 1);
    let mut events = events_on(&kit, &name).await;
    events.sort();
    assert_eq!(events, ["Corrected", "Drifted"]);

    policy(&mut kit, json!({"policy": "ignore", "rules": null})).await;
    until_told(&mut kit, &name, &[]).await;
    kit.until("the cluster is in sync", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::IN_SYNC);
        line.starts_with("True InSync").then_some(())
    })
    .await;
    assert!(!is_broken(&kit.world.machines[&name]));

    policy(&mut kit, json!({"policy": "correct"})).await;
    let mark = kit.until_marked(&name).await;
    assert_eq!(
        mark,
        "False Drifted: it drifted: the instance's network is office, wanted is default"
    );
    kit.until_replaced("eu", &name).await;
    assert!(
        kit.world.machines.contains_key(&other),
        "no other was touched"
    );
    // Then all is as it should be: another start writes nothing.
    kit.until("the cluster is in sync", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::IN_SYNC);
        line.starts_with("True InSync").then_some(())
    })
    .await;
    kit.stop_controllers().await;
    let (before, journal) = (kit.versions().await, kit.journal().len());
    kit.start_controllers();
    kit.cluster("us", "v1.33.2", 1, json!({})).await;
    kit.until_settled("us").await;
    kit.stop_controllers().await;
    let after = kit.versions().await;
    for one in &before {
        assert!(after.contains(one), "{one:?} was written again");
    }
    let calls = kit.journal().split_off(journal);
    let of_us = |line: &&Value| {
        !line["machine"]
            .as_str()
            .unwrap_or_default()
            .starts_with("us")
    };
    let calls: Vec<_> = calls
        .iter()
        .filter(of_us)
        .map(|l| l["verb"].clone())
        .collect();
    assert!(calls.iter().all(|verb| verb == "list"), "{calls:?}");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_back_each_time_is_put_right_once() {
    let mut kit = Kit::start().await;
    let correct = json!({"drift": {"policy": "correct"}});
    scene(&mut kit, 1, json!({}), correct).await;
    let [name] = kit.names("eu-web").try_into().unwrap();
    let id = id_of(&kit, &name);
    let team = |kit: &Kit| kit.cloud.tags(&id).unwrap()["team"].clone();
    let change = json!({"tags": {"team": "y"}});
    by_hand(&mut kit, &name, change.clone()).await;
    until_event(&kit, &name, "Corrected").await;
    // What was told of it on the way is over, and seen.
    let seen = json!({"metadata": {"annotations": {"seen": "yes"}}});
    kit.patch::<Machine>(&name, seen).await;
    until_told(&mut kit, &name, &[]).await;
    assert_eq!((team(&kit), updates(&kit, &name)), (json!("x"), 1));
    // Without a start in between: what was put right is known in the process alone.
    kit.cloud
        .alter(&id, change.as_object().unwrap())
        .await
        .unwrap();
    // Where something moves, lists are frequent.
    kit.pool("eu-more", "eu", 1, json!({})).await;
    until_in_sync(
        &mut kit,
        &name,
        "False Drifted: the instance's tag team is y",
    )
    .await;
    assert_eq!((team(&kit), updates(&kit, &name)), (json!("y"), 1));
    // Later it is.
    kit.ward.ahead(3600);
    until_looked_at(&mut kit, &name).await;
    until_told(&mut kit, &name, &[]).await;
    assert_eq!((team(&kit), updates(&kit, &name)), (json!("x"), 2));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_holds_a_correction_and_what_cannot_be_read_is_left_alone() {
    let mut kit = Kit::start().await;
    let budget = json!({"disruption": {"maxUnavailable": "0%"}});
    let correct = json!({"drift": {"policy": "correct"}});
    scene(&mut kit, 2, budget, correct).await;
    let [name, _] = kit.names("eu-web").try_into().unwrap();
    let drifts = name.clone();
    kit.always(move |w: &World| match w.machines.get(&drifts) {
        Some(machine) if !leaves(machine) && !is_available(machine) => {
            Err("a machine that drifted serves no more".into())
        }
        _ => Ok(()),
    });
    by_hand(&mut kit, &name, json!({"image": "other"})).await;
    let says = kit.until_says(&name, "held by the disruption budget").await;
    assert!(
        says.starts_with(
            "False RemediationDeferred: held by the disruption budget of Cluster eu: "
        ),
        "{says}"
    );
    // Its provider cannot be read: what was seen before takes no machine away.
    kit.ward.unlist(true);
    list_again(&mut kit).await;
    until_in_sync(&mut kit, &name, "Unknown Unreadable").await;
    kit.until_says(&name, "nothing is replaced that cannot be seen")
        .await;
    let open = json!({"spec": {"disruption": {"maxUnavailable": 1}}});
    kit.patch::<Cluster>("eu", open).await;
    until_looked_at(&mut kit, &name).await;
    assert!(!leaves(&kit.world.machines[&name]));
    kit.ward.unlist(false);
    kit.until_replaced("eu", &name).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correction_begins_in_a_window_alone() {
    let mut kit = Kit::start().await;
    // Two hours from now, whatever the time is.
    let later = kit.ward.now() + SignedDuration::from_hours(2);
    let start = later.to_string()[11..16].to_owned();
    let fleet = json!({
        "drift": {"policy": "correct"}, "windows": [{"start": start, "durationSeconds": 3600}],
    });
    scene(&mut kit, 1, json!({}), fleet).await;
    let [name] = kit.names("eu-web").try_into().unwrap();
    let change = json!({"network": "office", "tags": {"team": "y"}});
    by_hand(&mut kit, &name, change).await;
    until_told(&mut kit, &name, &["network", "tags.team"]).await;
    // It is told, and nothing is done: not even marked, so that it counts as healthy.
    until_looked_at(&mut kit, &name).await;
    let machine = &kit.world.machines[&name];
    assert!(!leaves(machine) && !is_broken(machine) && is_available(machine));
    assert_eq!(updates(&kit, &name), 0);
    kit.patch::<Fleet>("all", json!({"spec": {"windows": null}}))
        .await;
    kit.until_replaced("eu", &name).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_drift_together_are_a_storm() {
    let mut kit = Kit::start().await;
    let correct = json!({"drift": {"rules": [{"kinds": ["Machine"], "paths": ["node.kubelet"], "policy": "correct"}]}});
    scene(&mut kit, 3, json!({}), correct).await;
    let storm = json!({"remediation": {"storm": {"machines": 3, "windowSeconds": 600}}});
    kit.check("eu-web", "eu", 600, storm).await;
    kit.until("the check counts", |w| {
        let status = w.checks.get("eu-web-check")?.status.as_ref()?;
        (status.current_healthy == 3).then_some(())
    })
    .await;
    let names = kit.names("eu-web");
    // Held, so that all of them can drift before the first goes.
    kit.patch::<Cluster>("eu", json!({"spec": {"disruption": {"maxUnavailable": 0}}}))
        .await;
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    let kubelet = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.33.9"}}});
    for name in &names {
        let patch = Patch::Merge(&kubelet);
        let params = PatchParams::default();
        nodes.patch_status(name, &params, &patch).await.unwrap();
    }
    kit.until_says(&names[0], "3 machines broke within 10 m, all of")
        .await;
    kit.patch::<Cluster>("eu", json!({"spec": {"disruption": null}}))
        .await;
    // The storm holds on where the budget does not.
    until_looked_at(&mut kit, &names[0]).await;
    for name in &names {
        let machine = &kit.world.machines[name];
        assert!(!leaves(machine) && is_available(machine), "{name}");
    }
    // It passes.
    kit.ward.ahead(1000);
    list_again(&mut kit).await;
    for name in &names {
        kit.until_replaced("eu", name).await;
    }
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_machine_that_drifted_goes_after_another_has_joined() {
    let mut kit = Kit::start().await;
    let correct = json!({"drift": {"policy": "correct"}});
    scene(&mut kit, 1, json!({}), correct).await;
    let name = kit.world.control_plane("eu")[0].name_any();
    kit.always(|w: &World| {
        let serves = |m: &&Machine| is_available(m) && !leaves(m);
        match w.control_plane("eu").iter().any(serves) {
            true => Ok(()),
            false => Err("no control-plane machine serves".into()),
        }
    });
    by_hand(&mut kit, &name, json!({"instanceType": "sim.large"})).await;
    let goes = name.clone();
    let because = kit
        .until("it goes", move |w| {
            let deletion = w.machines.get(&goes)?.status.as_ref()?.deletion.as_ref()?;
            deletion.because.clone()
        })
        .await;
    assert_eq!(
        because,
        "replaced because it drifted: the instance's instanceType is sim.large, it was sim.small"
    );
    kit.until_replaced("eu", &name).await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_no_machine_and_those_that_are_there_twice_are_left_under_every_policy() {
    let mut kit = Kit::start().await;
    let correct = json!({"drift": {"policy": "correct"}});
    scene(&mut kit, 1, json!({}), correct).await;
    let [name] = kit.names("eu-web").try_into().unwrap();
    let twin = kit.cloud.duplicate(&id_of(&kit, &name)).await.unwrap();
    list_again(&mut kit).await;
    let told = "False Drifted: instances that share the key of a Machine: 2, first: ";
    kit.until("the cluster tells of it", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::IN_SYNC);
        line.starts_with(told).then_some(())
    })
    .await;
    until_looked_at(&mut kit, &name).await;
    assert!(!leaves(&kit.world.machines[&name]));
    assert!(kit.cloud.instances().iter().any(|i| i.id == twin));
    let journal = kit.journal();
    assert!(journal.iter().all(|line| line["verb"] != "delete"));
    kit.stop().await;
}
