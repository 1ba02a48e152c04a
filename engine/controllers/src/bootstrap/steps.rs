//! What kubeadm leaves to others at each step of an upgrade, done in the workload cluster.

use fleetwright_api::{Cluster, version::Version};
use fleetwright_bootstrap::step::{Change, Live, Object, after_step, before_step};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::ConfigMap,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use crate::{
    cache::name_of,
    reconcile::{Error, Shared},
};

const NAMESPACE: &str = "kube-system";

fn failed(error: kube::Error) -> Error {
    Error::Workload(Box::new(error))
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

async fn client(shared: &Shared, cluster: &Cluster) -> Result<kube::Client, Error> {
    let (namespace, name) = name_of(cluster);
    let reference = shared.cluster_ref(&namespace, &name);
    let client = shared.context.connections.client(&reference).await;
    client.map_err(|e| invalid(format!("cluster {name} cannot be reached: {e}")))
}

async fn kubeadm_config(client: &kube::Client) -> Result<Option<ConfigMap>, Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    api.get_opt("kubeadm-config").await.map_err(failed)
}

/// Before a machine of the control plane joins at `version`: kubeadm's own configuration says so.
pub(super) async fn before(
    shared: &Shared,
    cluster: &Cluster,
    version: &Version,
) -> Result<(), Error> {
    let client = client(shared, cluster).await?;
    let config = kubeadm_config(&client)
        .await?
        .ok_or_else(|| invalid("the cluster has no ConfigMap kube-system/kubeadm-config: nobody can join its control plane"))?;
    match before_step(&config, version).map_err(invalid)? {
        Some(change) => apply(&client, cluster, &change).await,
        None => Ok(()),
    }
}

/// Once all of the control plane runs this version: images of what kubeadm installed follow. Gives what was left alone, and why. Asked again
/// it changes nothing.
pub(super) async fn after(
    shared: &Shared,
    cluster: &Cluster,
    version: &Version,
) -> Result<Vec<String>, Error> {
    let client = client(shared, cluster).await?;
    let Some(kubeadm_config) = kubeadm_config(&client).await? else {
        return Ok(Vec::new());
    };
    let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let daemons = Api::<DaemonSet>::namespaced(client.clone(), NAMESPACE);
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    let live = Live {
        kubeadm_config,
        kubelet_config: maps.get_opt("kubelet-config").await.map_err(failed)?,
        kube_proxy: daemons.get_opt("kube-proxy").await.map_err(failed)?,
        coredns: deployments.get_opt("coredns").await.map_err(failed)?,
        coredns_config: maps.get_opt("coredns").await.map_err(failed)?,
    };
    let done = after_step(&live, version).map_err(invalid)?;
    for change in &done.changes {
        apply(&client, cluster, change).await?;
    }
    Ok(done.left)
}

async fn apply(client: &kube::Client, cluster: &Cluster, change: &Change) -> Result<(), Error> {
    tracing::info!(cluster = %name_of(cluster).1, object = ?change.object, "{}", change.because);
    let params = PatchParams {
        field_manager: Some("fleetwright-bootstrap".into()),
        ..PatchParams::default()
    };
    let patch = Patch::Strategic(&change.patch);
    let client = client.clone();
    let written = match change.object {
        Object::KubeadmConfig => Api::<ConfigMap>::namespaced(client, NAMESPACE)
            .patch("kubeadm-config", &params, &patch)
            .await
            .map(drop),
        Object::KubeProxy => Api::<DaemonSet>::namespaced(client, NAMESPACE)
            .patch("kube-proxy", &params, &patch)
            .await
            .map(drop),
        Object::CoreDns => Api::<Deployment>::namespaced(client, NAMESPACE)
            .patch("coredns", &params, &patch)
            .await
            .map(drop),
    };
    written.map_err(failed)
}
