//! Clusters as kubeadm leaves them: its configuration, kube-proxy and CoreDNS, and requests for certificates that wait for approval.

use std::sync::{Arc, Mutex};

use fleetwright_tests::kubeadm::certificate_requests;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, Uri};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    certificates::v1::CertificateSigningRequest,
    core::v1::ConfigMap,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::Body,
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kit::PATIENCE;

/// What kubeadm writes by default.
const COREFILE: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

/// The part of such a cluster that our API server does not know. Deployments are kept as DaemonSets, which have pods in the same place;
/// approvals are a request's status.
#[derive(Clone, Default)]
pub(crate) struct Kubeadm(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Patches, in order: what they change, and to what.
    changes: Vec<String>,
    /// Patches of paths that end so are refused, and how often that has happened.
    refused: Option<&'static str>,
    refusals: watch::Sender<usize>,
}

impl Kubeadm {
    /// What was patched so far.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.0.lock().unwrap().changes.clone()
    }

    /// From now on patches of paths that end so are refused.
    pub(crate) fn refuse(&self, end: Option<&'static str>) {
        self.0.lock().unwrap().refused = end;
    }

    /// How often one was.
    pub(crate) fn refusals(&self) -> watch::Receiver<usize> {
        self.0.lock().unwrap().refusals.subscribe()
    }

    /// The cluster that `inner` leads to, with what it lacks.
    pub(crate) fn over(&self, inner: Client) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (this, inner) = (this.clone(), inner.clone());
            async move { this.answer(&inner, request).await }
        });
        Client::new(service, "default")
    }

    async fn answer(
        &self,
        inner: &Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, tower::BoxError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let mut bytes = body.collect_bytes().await?.to_vec();
        if parts.method == Method::PATCH {
            let mut state = self.0.lock().unwrap();
            if state.refused.is_some_and(|end| path.ends_with(end)) {
                state.refusals.send_modify(|refusals| *refusals += 1);
                let mut answer = Response::new(Body::from(b"the test says so".to_vec()));
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(answer);
            }
            let body = serde_json::from_slice(&bytes)?;
            state.changes.extend(change(&path, &body));
        }
        let deployment = path.contains("/deployments");
        if deployment {
            bytes = renamed(&bytes, "Deployment", "DaemonSet");
        }
        let known = path.replace("/deployments", "/daemonsets");
        let known = match known.strip_suffix("/approval") {
            Some(request) => format!("{request}/status"),
            None => known,
        };
        let uri = parts.uri.to_string().replace(&path, &known);
        parts.uri = uri.parse::<Uri>()?;
        let request = Request::from_parts(parts, Body::from(bytes));
        let answer = inner.send(request).await?;
        if !deployment {
            return Ok(answer);
        }
        let (mut head, body) = answer.into_parts();
        head.headers.remove(http::header::CONTENT_LENGTH);
        let bytes = renamed(&body.collect_bytes().await?, "DaemonSet", "Deployment");
        Ok(Response::from_parts(head, Body::from(bytes)))
    }
}

fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let kind = |name: &str| format!("\"kind\":\"{name}\"");
    text.replace(&kind(from), &kind(to)).into_bytes()
}

/// What a patch changes, as far as it is an image or kubeadm's version.
fn change(path: &str, patch: &Value) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let image = &patch["spec"]["template"]["spec"]["containers"][0]["image"];
    let config = patch["data"]["ClusterConfiguration"].as_str();
    let version = config.and_then(|text| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix("kubernetesVersion: "))
    });
    let to = image.as_str().or(version)?;
    Some(format!("{name} {to}"))
}

fn pods(name: &str, image: &str) -> Value {
    let labels = json!({"k8s-app": name});
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": image}]},
            },
        },
    })
}

fn map(name: &str, key: &str, text: &str) -> ConfigMap {
    let map = json!({"metadata": {"name": name}, "data": {key: text}});
    serde_json::from_value(map).unwrap()
}

/// What kubeadm leaves in a cluster of this version.
pub(crate) async fn install(client: &Client, version: &str, coredns: &str) {
    let params = PostParams::default();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let config = format!("kind: ClusterConfiguration\nkubernetesVersion: {version}\n");
    for map in [
        map("kubeadm-config", "ClusterConfiguration", &config),
        map("kubelet-config", "kubelet", "cgroupDriver: systemd\n"),
        map("coredns", "Corefile", COREFILE),
    ] {
        maps.create(&params, &map).await.unwrap();
    }
    let image = format!("registry.k8s.io/kube-proxy:{version}");
    let proxy = serde_json::from_value(pods("kube-proxy", &image)).unwrap();
    let daemons = Api::<DaemonSet>::namespaced(client.clone(), "kube-system");
    daemons.create(&params, &proxy).await.unwrap();
    let image = format!("registry.k8s.io/coredns/coredns:{coredns}");
    let dns = serde_json::from_value(pods("coredns", &image)).unwrap();
    let deployments = Api::<Deployment>::namespaced(client.clone(), "kube-system");
    deployments.create(&params, &dns).await.unwrap();
}

/// What a person gives DaemonSet kube-proxy.
pub(crate) async fn pin_proxy(client: &Client, image: &str) {
    let containers = json!([{"name": "kube-proxy", "image": image}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let daemons = Api::<DaemonSet>::namespaced(client.clone(), "kube-system");
    let params = PatchParams::default();
    let patch = Patch::Strategic(patch);
    daemons.patch("kube-proxy", &params, &patch).await.unwrap();
}

/// Lets the cluster take requests for certificates.
pub(crate) async fn take_requests(client: &Client) {
    let definition = serde_json::to_vec(&certificate_requests()).unwrap();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(definition).unwrap();
    client.request::<Value>(request).await.unwrap();
}

/// A kubelet asks for a serving certificate.
pub(crate) async fn ask(client: &Client, name: &str, signer: &str, node: &str, hosts: &[&str]) {
    let user = format!("system:node:{node}");
    let pem = fleetwright_tests::pki::request(&user, hosts);
    let request = json!({
        "metadata": {"name": name},
        "spec": {
            "signerName": signer, "username": user, "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
            "request": fleetwright_tests::workload::base64(&pem),
        },
    });
    let request = serde_json::from_value(request).unwrap();
    let api = Api::<CertificateSigningRequest>::all(client.clone());
    api.create(&PostParams::default(), &request).await.unwrap();
}

/// What was decided of a request: the condition's type and message.
pub(crate) fn decided(request: &CertificateSigningRequest) -> Option<(String, String)> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    let first = conditions.first()?;
    Some((
        first.type_.clone(),
        first.message.clone().unwrap_or_default(),
    ))
}

/// Waits until a request is decided.
pub(crate) async fn until_decided(client: &Client, name: &str) -> (String, String) {
    let api = Api::<CertificateSigningRequest>::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher::watcher(api, only).boxed();
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::Apply(request) | Event::InitApply(request) = event.unwrap()
                && let Some(found) = decided(&request)
            {
                return found;
            }
        }
        panic!("the watch ended");
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("nobody decides on {name}"))
}
