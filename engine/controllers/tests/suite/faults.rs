//! Clouds that refuse, and answers that are lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fleetwright_api::{Cluster, MachineDeployment, condition::kind};
use kube::{Client, ResourceExt, client::Body};
use serde_json::json;

use crate::kit::{Kit, World, of_machine, of_pool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_no_second_instance() {
    let mut kit = Kit::start().await;
    let lost = [
        kit.fault(json!({"effect": "answerLost", "verb": "create", "count": 3})),
        kit.fault(json!({"effect": "answerLost", "verb": "delete", "count": 1})),
    ];
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 3, json!({})).await;
    kit.until_settled("eu").await;
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until_settled("eu").await;
    assert_eq!(
        lost.map(|id| kit.fired(id)),
        [3, 1],
        "the faults have fired"
    );
    assert_eq!(kit.made().len(), 4, "one instance for each machine");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_show_in_conditions_and_pass() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    for (effect, text) in [
        ("noCapacity", "no capacity: no machine of this type is free"),
        ("throttled", "the provider throttles; next try in 500 ms"),
        ("requestLost", "no answer: the connection was cut"),
    ] {
        let fault = kit.fault(json!({"effect": effect, "verb": "create", "count": 2}));
        let pool = format!("eu-{}", effect.to_lowercase());
        kit.pool(&pool, "eu", 1, json!({})).await;
        let of = pool.clone();
        let line = kit
            .until("the refusal is in the machine's condition", move |w| {
                let line = of_machine(w.workers(&of).first()?, kind::INFRASTRUCTURE_READY);
                line.contains("provider").then_some(line)
            })
            .await;
        assert!(
            line.starts_with("False ") && line.contains(text),
            "{effect}: {line}"
        );
        kit.until_settled("eu").await;
        assert_eq!(kit.fired(fault), 2);
        let machine = of_machine(kit.world.workers(&pool)[0], kind::INFRASTRUCTURE_READY);
        assert_eq!(machine, "True Ready: ");
    }
    kit.stop().await;
}

/// The message of the cluster that has this in it.
fn told(world: &World, text: &str) -> Option<String> {
    let conditions = &world.clusters.get("eu")?.status.as_ref()?.conditions;
    let mut messages = conditions.iter().map(|c| c.message.clone());
    messages.find(|message| message.contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_and_when_it_comes_all_goes_on() {
    let mut kit = Kit::start().await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    let line = kit
        .until("the pool says that its cluster is missing", |w| {
            let line = of_pool(w.pools.get("eu-web")?, kind::AVAILABLE);
            line.contains("Cluster").then_some(line)
        })
        .await;
    assert!(
        line.ends_with(
            "there is no Cluster eu in this namespace: make it, or a pool for another one"
        ),
        "{line}"
    );
    let elsewhere = json!({"controlPlane": {"machines": {"template": {"spec": {"providerConfig": {"account": "sim-us"}}}}}});
    kit.cluster("eu", "v1.33.2", 1, elsewhere).await;
    let line = kit
        .until("the cluster says that its account is missing", |w| {
            told(w, "ProviderAccount")
        })
        .await;
    assert!(
        line.contains(
            "there is no ProviderAccount sim-us: make it, or name another in providerConfig.account"
        ),
        "{line}"
    );
    // It comes, but does not answer at first.
    let fault = kit
        .fault(json!({"effect": "requestLost", "verb": "list", "account": "sim-us", "count": 2}));
    kit.account("sim-us", "us", BTreeMap::new()).await;
    let line = kit
        .until("the cluster says that its account does not answer", |w| {
            told(w, "no answer")
        })
        .await;
    assert!(
        line.contains(
            "the instances of account sim-us cannot be listed: no answer: the connection was cut"
        ),
        "{line}"
    );
    kit.until_settled("eu").await;
    assert_eq!(kit.fired(fault), 2);
    kit.stop().await;
}

/// Calls of one verb so far.
fn calls(kit: &Kit, verb: &str) -> usize {
    kit.journal().iter().filter(|e| e["verb"] == verb).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_leaves_an_instance_out_lets_no_machine_go() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    // The usual way costs no call more.
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until_settled("eu").await;
    assert_eq!(calls(&kit, "get"), 0);
    // Its instance has an id: the provider is asked for it, and it is deleted although no list shows it.
    let before = calls(&kit, "delete");
    kit.ward.hide("eu-web");
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 0}}))
        .await;
    kit.until_settled("eu").await;
    assert_eq!(calls(&kit, "delete"), before + 1, "the instance went");
    // Of this one no id was ever told: the answer to its create got lost, and the lists are behind.
    kit.ward.hide("eu-web");
    let lost = kit.fault(json!({"effect": "answerLost", "verb": "create", "count": 1000}));
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    let machine = kit
        .until("no answer to its create", |w| {
            let machine = w.workers("eu-web").first().copied()?;
            let line = of_machine(machine, kind::INFRASTRUCTURE_READY);
            line.contains("no answer").then(|| machine.name_any())
        })
        .await;
    assert!(kit.fired(lost) > 0);
    let before = calls(&kit, "delete");
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 0}}))
        .await;
    kit.until("it waits for a list that cannot be behind", move |w| {
        let line = of_machine(w.machines.get(&machine)?, kind::DELETING);
        line.contains("waiting for the provider to say whether the instance is gone")
            .then_some(())
    })
    .await;
    kit.ward.show_again("eu-web");
    kit.until_settled("eu").await;
    assert_eq!(calls(&kit, "delete"), before + 1, "the instance went");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_a_pool_back_until_there_is_room() {
    let mut kit = Kit::with_quotas(BTreeMap::from([("instances".to_owned(), 3)])).await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    kit.pool("eu-db", "eu", 1, json!({})).await;
    let line = kit
        .until("the pool says why its machine is not ready", |w| {
            let line = of_pool(w.pools.get("eu-db")?, kind::MACHINES_READY);
            line.contains("quota").then_some(line)
        })
        .await;
    let machine = kit.world.workers("eu-db")[0].name_any();
    assert!(
        line.contains(&machine) && line.contains("may use 3 instances, uses 3"),
        "{line}"
    );
    // Room, and the same machine gets its instance.
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 1}}))
        .await;
    kit.until_settled("eu").await;
    assert!(kit.world.machines.contains_key(&machine));
    kit.stop().await;
}

/// A client that loses the answers to the first `lost` creates of machines and hears nothing of machines while `deaf`.
fn hard_of_hearing(inner: Client, lost: Arc<AtomicUsize>, deaf: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, lost, deaf) = (inner.clone(), Arc::clone(&lost), Arc::clone(&deaf));
        async move {
            let broken = || tower::BoxError::from(std::io::Error::other("the connection broke"));
            let machines = request.uri().path().ends_with("/machines");
            let watches = request.uri().query().is_some_and(|q| q.contains("watch="));
            if machines && watches && deaf.load(Ordering::SeqCst) {
                return Err(broken());
            }
            let makes = machines && request.method() == http::Method::POST;
            let answer = inner.send(request).await.map_err(tower::BoxError::from)?;
            let less = |n: usize| n.checked_sub(1);
            if makes
                && lost
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .is_ok()
            {
                return Err(broken());
            }
            Ok(answer)
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_no_answer_came_of_is_counted() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let (lost, deaf) = (
        Arc::new(AtomicUsize::new(2)),
        Arc::new(AtomicBool::new(true)),
    );
    let client = hard_of_hearing(kit.client.clone(), Arc::clone(&lost), Arc::clone(&deaf));
    kit.restart_over(client).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until("the set has counted its machines", |w| {
        let counted = |s: &fleetwright_api::MachineSet| s.status.as_ref().map_or(0, |s| s.replicas);
        w.sets.values().any(|s| counted(s) >= 2).then_some(())
    })
    .await;
    // Each lost answer could have brought machines more.
    kit.always(|w| match w.workers("eu-web").len() {
        0..=2 => Ok(()),
        many => Err(format!("the pool has {many} machines of 2")),
    });
    deaf.store(false, Ordering::SeqCst);
    kit.until_settled("eu").await;
    assert_eq!(lost.load(Ordering::SeqCst), 0, "the answers were lost");
    kit.stop().await;
}

/// A client that does not let the next `lost` MachineSets be made.
fn without_sets(inner: Client, lost: Arc<AtomicUsize>) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, lost) = (inner.clone(), Arc::clone(&lost));
        async move {
            let makes = request.method() == http::Method::POST
                && request.uri().path().ends_with("/machinesets");
            let less = |n: usize| n.checked_sub(1);
            if makes
                && lost
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .is_ok()
            {
                return Err(tower::BoxError::from(std::io::Error::other(
                    "the connection broke",
                )));
            }
            inner.send(request).await.map_err(tower::BoxError::from)
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_workers_whose_set_could_not_be_made_is_taken_again() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.31.4", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let lost = Arc::new(AtomicUsize::new(1));
    let client = without_sets(kit.client.clone(), Arc::clone(&lost));
    kit.restart_over(client).await;
    // At v1.34.0 the workers must follow before the control plane goes on.
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.35.0"}}))
        .await;
    kit.until_settled("eu").await;
    assert_eq!(lost.load(Ordering::SeqCst), 0, "a set could not be made");
    let workers = kit.world.workers("eu-web");
    let versions: Vec<_> = workers
        .iter()
        .map(|m| m.spec.content.version.as_deref())
        .collect();
    assert_eq!(versions, [Some("v1.35.0")]);
    kit.stop().await;
}
