//! Does what [`crate::workloads`] decides, through the cluster's own API.

use fleetwright_api::{random::Random, time::rfc3339_seconds};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::Error,
    workloads::{READY_AT, Seen, Step, WORKLOAD, Workload, decide},
};

/// Label of the pods of a workload that budgets select.
const APP: &str = "app";
/// The one container of each pod.
const CONTAINER: &str = "main";
const IMAGE: &str = "sim/app";
/// Field manager of what the cloud applies.
const BY: &str = "fleetwright-sim";

/// Brings pods and budgets in line with the workloads; gives the time at which to look again although nothing changed.
pub(crate) async fn keep(
    client: &Client,
    wanted: &[Workload],
    now: Timestamp,
    random: &dyn Random,
) -> Result<Option<Timestamp>, Error> {
    let ours = ListParams::default().labels(WORKLOAD);
    let pods = Api::<Pod>::all(client.clone()).list(&ours).await?.items;
    let budgets = Api::<PodDisruptionBudget>::all(client.clone());
    let budgets = budgets.list(&ours).await?.items;
    if wanted.is_empty() && pods.is_empty() && budgets.is_empty() {
        return Ok(None);
    }
    let nodes = Api::<Node>::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let seen = Seen {
        nodes: &nodes,
        pods: &pods,
        budgets: &budgets,
    };
    let (steps, again) = decide(wanted, &seen, now);
    for step in &steps {
        act(client, step, now, random).await?;
    }
    Ok(again)
}

async fn act(
    client: &Client,
    step: &Step<'_>,
    now: Timestamp,
    random: &dyn Random,
) -> Result<(), Error> {
    let pods = |namespace: &str| Api::<Pod>::namespaced(client.clone(), namespace);
    match step {
        Step::Budget(workload) => {
            make_namespace(client, &workload.namespace).await?;
            let budget = json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": workload.name, "labels": {WORKLOAD: workload.name}},
                "spec": {
                    "minAvailable": workload.min_available,
                    "selector": {"matchLabels": {APP: workload.name}},
                },
            });
            let params = PatchParams::apply(BY).force();
            Api::<PodDisruptionBudget>::namespaced(client.clone(), &workload.namespace)
                .patch(&workload.name, &params, &Patch::Apply(budget))
                .await?;
        }
        Step::DropBudget { namespace, name } => {
            let api = Api::<PodDisruptionBudget>::namespaced(client.clone(), namespace);
            let gone = api.delete(name, &DeleteParams::default()).await;
            unless(404, gone.map(drop))?;
        }
        Step::Make { workload, node } => {
            make_namespace(client, &workload.namespace).await?;
            let pod = pod_of(workload, node, now, random);
            pods(&workload.namespace)
                .create(&PostParams::default(), &serde_json::from_value(pod)?)
                .await?;
        }
        Step::Ready { namespace, name } => {
            let time = rfc3339_seconds(now);
            let status = json!({"status": {
                "phase": "Running",
                "startTime": time,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": time}],
                "containerStatuses": [{
                    "name": CONTAINER, "image": IMAGE, "imageID": IMAGE, "ready": true, "started": true,
                    "restartCount": 0, "state": {"running": {"startedAt": time}},
                }],
            }});
            let patched = pods(namespace)
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await;
            unless(404, patched.map(drop))?;
        }
        Step::End {
            namespace,
            name,
            at_once,
        } => {
            let mut params = DeleteParams::default();
            if *at_once {
                params = params.grace_period(0);
            }
            let gone = pods(namespace).delete(name, &params).await;
            unless(404, gone.map(drop))?;
        }
    }
    Ok(())
}

/// The result, with this refusal taken for success.
pub(crate) fn unless(code: u16, result: kube::Result<()>) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(refusal)) if refusal.code == code => Ok(()),
        other => Ok(other?),
    }
}

async fn make_namespace(client: &Client, name: &str) -> Result<(), Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    if namespaces.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    let made = namespaces.create(&PostParams::default(), &namespace).await;
    unless(409, made.map(drop))
}

fn pod_of(
    workload: &Workload,
    node: &str,
    now: Timestamp,
    random: &dyn Random,
) -> serde_json::Value {
    let suffix: String = random.key128().chars().take(5).collect();
    let start = SignedDuration::from_secs_f64(workload.start_seconds);
    // Without an owner: there is no object for the workload, and pods of an owner that is not there are collected.
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{}-{suffix}", workload.name),
            "namespace": workload.namespace,
            "labels": {APP: workload.name, WORKLOAD: workload.name},
            "annotations": {READY_AT: now.checked_add(start).unwrap_or(now).to_string()},
        },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": workload.termination_seconds.ceil() as i64,
            "containers": [{"name": CONTAINER, "image": IMAGE}],
        },
    })
}
