//! The pods of a control plane: found by their labels, as kubeadm makes them, and reached through the API's port-forward.

use std::time::Duration;

use fleetwright_providers::ConnectionError;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, Portforwarder},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::connections::broken;

/// Where they are.
pub(crate) const NAMESPACE: &str = "kube-system";
/// More pods of one kind than this are no control plane.
const MOST: u32 = 32;
/// Longest time for the answer of one of them, and for the list.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Those with these labels; `whose` is in the sentence that says why they cannot be listed.
pub(crate) async fn list(
    client: &Client,
    labels: &str,
    whose: &str,
) -> Result<(Api<Pod>, Vec<Pod>), ConnectionError> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let params = ListParams::default().labels(labels).limit(MOST);
    let cannot = |why: &str| broken(format!("{whose} pods cannot be listed: {why}"));
    match timeout(ANSWER, api.list(&params)).await {
        Ok(Ok(pods)) => Ok((api, pods.items)),
        Ok(Err(error)) => Err(cannot(&error.to_string())),
        Err(_) => Err(cannot("no answer")),
    }
}

/// A port-forward, which goes on by itself until this is dropped.
pub(crate) struct Forwarded(Portforwarder);

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The way to a port of a pod.
///
/// # Errors
/// There is none.
pub(crate) async fn forward(
    api: &Api<Pod>,
    pod: &str,
    port: u16,
) -> Result<
    (
        Forwarded,
        impl AsyncRead + AsyncWrite + Unpin + Send + use<>,
    ),
    String,
> {
    let forwarded = api.portforward(pod, &[port]).await;
    let mut forwarded = Forwarded(forwarded.map_err(|e| format!("no way to its port: {e}"))?);
    let stream = forwarded.0.take_stream(port).ok_or("no way to its port")?;
    Ok((forwarded, stream))
}
