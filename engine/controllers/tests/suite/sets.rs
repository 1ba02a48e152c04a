//! Sets: which machines are theirs, what must hold before they make some, and what becomes known of those that go.

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet,
    condition::kind,
    meta,
    time::{Clock as _, SystemClock},
};
use kube::{ResourceExt, api::PostParams};
use serde_json::json;

use crate::kit::{Kit, World, condition_line, config, is_available};

fn controlled(machine: &Machine) -> bool {
    meta::controller_of(machine).is_some()
}

/// Why machines go, as their statuses say.
fn reasons(world: &World) -> Vec<String> {
    let because = |m: &Machine| m.status.as_ref()?.deletion.as_ref()?.because.clone();
    world.machines.values().filter_map(because).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_leaves_the_selector_is_let_go_and_taken_in_again() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let first = kit.world.workers("eu-web")[0].clone();
    let (name, hash) = (
        first.name_any(),
        first.labels()[meta::LABEL_TEMPLATE_HASH].clone(),
    );

    let without = json!({"metadata": {"labels": {meta::LABEL_TEMPLATE_HASH: null}}});
    kit.patch::<Machine>(&name, without).await;
    kit.until("it is nobody's, and another is in its place", |w| {
        let workers = w.workers("eu-web");
        let free = !controlled(w.machines.get(&name)?);
        let own = workers
            .iter()
            .filter(|m| controlled(m) && is_available(m))
            .count();
        (free && own == 2 && workers.len() == 3).then_some(())
    })
    .await;
    let free = &kit.world.machines[&name];
    assert!(!free.labels().contains_key(meta::LABEL_SET_NAME));
    assert!(is_available(free) && free.spec.instance_key == first.spec.instance_key);

    // It comes back: then there is one too many, and one goes, whichever.
    let with = json!({"metadata": {"labels": {meta::LABEL_TEMPLATE_HASH: hash}}});
    kit.patch::<Machine>(&name, with).await;
    let because = kit.until("one goes", |w| reasons(w).first().cloned()).await;
    assert_eq!(because, "removed because pool eu-web wants 2 machines");
    kit.until_settled("eu").await;
    assert!(kit.world.workers("eu-web").iter().all(|m| controlled(m)));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_above_the_control_planes_version_makes_no_machine_until_that_has_come() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let set: MachineSet = serde_json::from_value(json!({
        "metadata": {"name": "lone"},
        "spec": {"clusterName": "eu", "replicas": 1, "template": {"spec": {"version": "v1.34.1", "providerConfig": config("sim.small")}}},
    }))
    .unwrap();
    kit.api::<MachineSet>()
        .create(&PostParams::default(), &set)
        .await
        .unwrap();
    let line = "True ScalingUp: scaling up from 0 to 1 machines, but version v1.34.1 is higher than the control plane's v1.33.2 (\"KubernetesVersionSkew\" preflight check failed)";
    kit.until("the set says why", |w| {
        let status = w.sets.get("lone")?.status.as_ref()?;
        (condition_line(&status.conditions, kind::SCALING_UP) == line).then_some(())
    })
    .await;
    kit.always(|w| {
        let at = |c: &Cluster| c.status.as_ref().and_then(|s| s.version.clone());
        let early = w.machines.contains_key("lone-0")
            && w.clusters.get("eu").and_then(at).as_deref() == Some("v1.33.2");
        // Kinds are seen by watches of their own: the machine may be seen before the Cluster that let it be made.
        let upgraded = w
            .machines
            .values()
            .any(|m| m.name_any() == "eu-cp-1" && is_available(m));
        if early && !upgraded {
            Err("a machine too early".into())
        } else {
            Ok(())
        }
    });
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until("its machine is there", |w| {
        w.machines
            .get("lone-0")
            .filter(|m| is_available(m))
            .map(|_| ())
    })
    .await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_ahead_rolls_by_itself_and_what_goes_says_why() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let first = kit.world.workers("eu-web")[0].name_any();
    let revision = json!({"metadata": {"annotations": {meta::ANNOTATION_REVISION: "dir:abc"}}});
    kit.patch::<MachineDeployment>("eu-web", revision).await;
    // Nothing happens until then, and nobody wakes the pool.
    let soon = jiff::Timestamp::from_second(SystemClock.now().as_second() + 4).unwrap();
    kit.patch::<MachineDeployment>(
        "eu-web",
        json!({"spec": {"rollout": {"after": soon.to_string()}}}),
    )
    .await;
    let because = kit
        .until("the old one goes", |w| reasons(w).first().cloned())
        .await;
    assert_eq!(
        because,
        format!("replaced because machines made before {soon} are replaced")
    );
    kit.until_settled("eu").await;
    let second = kit.world.workers("eu-web")[0].name_any();
    assert_ne!(second, first);

    kit.patch::<MachineDeployment>(
        "eu-web",
        json!({"spec": {"template": {"spec": {"providerConfig": {"instanceType": "sim.large"}}}}}),
    )
    .await;
    let because = kit
        .until("the second goes", |w| reasons(w).first().cloned())
        .await;
    assert_eq!(
        because,
        "replaced because providerConfig.instanceType changed from sim.small to sim.large in dir:abc"
    );
    kit.until_settled("eu").await;
    let third = kit.world.workers("eu-web")[0].name_any();
    kit.api::<Machine>()
        .delete(&third, &Default::default())
        .await
        .unwrap();
    let because = kit
        .until("the third goes", |w| reasons(w).first().cloned())
        .await;
    assert_eq!(
        because,
        "deleted by somebody else: no decision of Fleetwright is known"
    );
    kit.stop().await;
}
