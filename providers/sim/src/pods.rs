//! Does what [`crate::workloads`] decides, through the cluster's own API.

use fleetwright_api::{random::Random, time::rfc3339_seconds};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{AttachedVolume, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::VolumeAttachment,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::Error,
    volumes::{self, DETACH_AT},
    workloads::{Kind, READY_AT, Seen, Step, WORKLOAD, Workload, decide},
};

/// Label of the pods of a workload that budgets select.
const APP: &str = "app";
/// The one container of each pod.
const CONTAINER: &str = "main";
const IMAGE: &str = "sim/app";
/// Annotation of a static pod's mirror.
const MIRROR: &str = "kubernetes.io/config.mirror";
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
    let daemon_sets = Api::<DaemonSet>::all(client.clone());
    let daemon_sets = daemon_sets.list(&ours).await?.items;
    let seen = Seen {
        nodes: &nodes,
        pods: &pods,
        budgets: &budgets,
        daemon_sets: &daemon_sets,
    };
    let (steps, again) = decide(wanted, &seen, now);
    for step in &steps {
        act(client, step, now, random).await?;
    }
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    let attachments = attachments.list(&ours).await?.items;
    let (steps, later) = volumes::decide(wanted, &pods, &nodes, &attachments, now);
    for step in &steps {
        move_volume(client, step).await?;
    }
    Ok(again.into_iter().chain(later).min())
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
        Step::BudgetStatus { workload, status } => {
            let patch = Patch::Merge(json!({"status": {
                "currentHealthy": status.healthy, "desiredHealthy": status.desired,
                "expectedPods": status.expected, "disruptionsAllowed": status.allowed(),
            }}));
            let told = Api::<PodDisruptionBudget>::namespaced(client.clone(), &workload.namespace)
                .patch_status(&workload.name, &PatchParams::default(), &patch)
                .await;
            unless(404, told.map(drop))?;
        }
        Step::DropDaemonSet { namespace, name } => {
            let api = Api::<DaemonSet>::namespaced(client.clone(), namespace);
            let gone = api.delete(name, &DeleteParams::default()).await;
            unless(404, gone.map(drop))?;
        }
        Step::Complete { namespace, name } => {
            let status = json!({"status": {
                "phase": "Succeeded",
                "conditions": [{
                    "type": "Ready", "status": "False", "reason": "PodCompleted",
                    "lastTransitionTime": rfc3339_seconds(now),
                }],
            }});
            let patched = pods(namespace)
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await;
            unless(404, patched.map(drop))?;
        }
        Step::Make { workload, node } => {
            make_namespace(client, &workload.namespace).await?;
            let mut pod = pod_of(workload, node, now, random);
            match workload.kind {
                Kind::Deployment => {}
                Kind::DaemonSet => {
                    let owner = daemon_set(client, workload).await?;
                    pod["metadata"]["ownerReferences"] = json!([owner]);
                }
                Kind::StaticPod => {
                    pod["metadata"]["annotations"][MIRROR] = json!("static");
                }
            }
            if workload.empty_dir {
                let scratch = json!({"name": "scratch", "emptyDir": {}});
                pod["spec"]["volumes"] = json!([scratch]);
            }
            if workload.volume_detach_seconds.is_some() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                claim(client, workload, name).await?;
                let data = json!({"name": "data", "persistentVolumeClaim": {"claimName": name}});
                match pod["spec"]["volumes"].as_array_mut() {
                    Some(list) => list.push(data),
                    None => pod["spec"]["volumes"] = json!([data]),
                }
            }
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

/// The reference to a workload's DaemonSet, which is made where it is not there.
async fn daemon_set(client: &Client, workload: &Workload) -> Result<Option<OwnerReference>, Error> {
    let api = Api::<DaemonSet>::namespaced(client.clone(), &workload.namespace);
    let labels = json!({APP: workload.name, WORKLOAD: workload.name});
    let set = serde_json::from_value(json!({
        "metadata": {"name": workload.name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {APP: workload.name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": CONTAINER, "image": IMAGE}]},
            },
        },
    }))?;
    let made = api.create(&PostParams::default(), &set).await;
    unless(409, made.map(drop))?;
    let set = api.get(&workload.name).await?;
    Ok(set.controller_owner_ref(&()))
}

/// A volume for a pod and the claim that has it.
async fn claim(client: &Client, workload: &Workload, pod: &str) -> Result<(), Error> {
    let volume = volumes::volume_of(&workload.namespace, pod);
    let labels = json!({WORKLOAD: workload.name});
    let made = Api::<PersistentVolume>::all(client.clone())
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({
                "metadata": {"name": volume, "labels": labels},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "csi": {"driver": volumes::DRIVER, "volumeHandle": volume},
                    "claimRef": {"namespace": workload.namespace, "name": pod},
                },
            }))?,
        )
        .await;
    unless(409, made.map(drop))?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &workload.namespace);
    let claim = serde_json::from_value(json!({
        "metadata": {"name": pod, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }))?;
    let made = claims.create(&PostParams::default(), &claim).await;
    unless(409, made.map(drop))
}

async fn move_volume(client: &Client, step: &volumes::Step) -> Result<(), Error> {
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    match step {
        volumes::Step::Attach {
            workload,
            namespace,
            pod,
            node,
        } => {
            let volume = volumes::volume_of(namespace, pod);
            let attachment = serde_json::from_value(json!({
                "metadata": {"name": volume, "labels": {WORKLOAD: workload}},
                "spec": {
                    "attacher": volumes::DRIVER, "nodeName": node,
                    "source": {"persistentVolumeName": volume},
                },
            }))?;
            let made = attachments
                .create(&PostParams::default(), &attachment)
                .await;
            unless(409, made.map(drop))?;
            show_volume(client, node, &volume, true).await
        }
        volumes::Step::Mark { attachment, at } => {
            let patch = json!({"metadata": {"annotations": {DETACH_AT: at.to_string()}}});
            let marked = attachments
                .patch(attachment, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            unless(404, marked.map(drop))
        }
        volumes::Step::Detach { attachment, node } => {
            show_volume(client, node, attachment, false).await?;
            let at_once = DeleteParams::default();
            let gone = attachments.delete(attachment, &at_once).await;
            unless(404, gone.map(drop))?;
            let volumes = Api::<PersistentVolume>::all(client.clone());
            let Some(volume) = volumes.get_opt(attachment).await? else {
                return Ok(());
            };
            if let Some(claim) = volume.spec.and_then(|s| s.claim_ref) {
                let namespace = claim.namespace.unwrap_or_default();
                let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
                let gone = claims
                    .delete(&claim.name.unwrap_or_default(), &at_once)
                    .await;
                unless(404, gone.map(drop))?;
            }
            let gone = volumes.delete(attachment, &at_once).await;
            unless(404, gone.map(drop))
        }
    }
}

/// Puts a volume into what a node says is attached to it, or takes it out.
async fn show_volume(
    client: &Client,
    node: &str,
    volume: &str,
    attached: bool,
) -> Result<(), Error> {
    let nodes = Api::<Node>::all(client.clone());
    let Some(there) = nodes.get_opt(node).await? else {
        return Ok(());
    };
    let name = volumes::unique_name(volume);
    let mut list = there
        .status
        .and_then(|s| s.volumes_attached)
        .unwrap_or_default();
    list.retain(|v| v.name != name);
    if attached {
        list.push(AttachedVolume {
            name,
            device_path: String::new(),
        });
    }
    let patch = Patch::Merge(json!({"status": {"volumesAttached": list}}));
    let told = nodes
        .patch_status(node, &PatchParams::default(), &patch)
        .await;
    unless(404, told.map(drop))
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
    let mut labels = workload.labels.clone();
    for key in [APP, WORKLOAD] {
        labels.insert(key.to_owned(), workload.name.clone());
    }
    // A Deployment's has no owner: there is no object for it, and pods of an owner that is not there are collected.
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{}-{suffix}", workload.name),
            "namespace": workload.namespace,
            "labels": labels,
            "annotations": {READY_AT: now.checked_add(start).unwrap_or(now).to_string()},
        },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": workload.termination_seconds.ceil() as i64,
            "containers": [{"name": CONTAINER, "image": IMAGE}],
        },
    })
}
