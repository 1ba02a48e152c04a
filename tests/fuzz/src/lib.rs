//! An API server in this process, with one object of each sort, and requests written as text.

pub mod seeds;

use std::{cell::OnceCell, sync::Arc};

use axum::body::HttpBody;
use fleetwright_api::{crds, random::SeededRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Options, User};
use fleetwright_store::Store;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// The kinds of the recorded exchanges.
const RECORDED_KINDS: &str = include_str!("../../conformance/crds.json");

/// The objects that are there: collection and content. Each is called `a`.
pub fn objects() -> Vec<(&'static str, Value)> {
    let gadget = json!({"replicas": 1, "template": {"image": "i"}, "ports": [{"name": "p", "port": 1}],
        "tags": ["t"], "steps": ["s"], "limits": {"cpu": "1"}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "ports": [{"containerPort": 80}], "env": [{"name": "e", "value": "v"}]}]}});
    let machine = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"version": "v1.36.0", "providerConfig": {
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": "a", "list": [{"x": 1}]}}});
    vec![
        (
            "/apis/conformance.example.com/v1/namespaces/default/gadgets",
            json!({"apiVersion": "conformance.example.com/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": gadget}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}),
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": template["spec"]}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a"},
                "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            "/api/v1/nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
                "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        ),
        (
            "/apis/fleetwright.dev/v1alpha1/namespaces/default/machinedeployments",
            json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": "a"},
                "spec": {"clusterName": "c", "replicas": 1, "template": machine}}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            serde_json::from_str::<Value>(RECORDED_KINDS).expect("the recorded kinds are JSON")[0]
                .clone(),
        ),
    ]
}

/// What an input is played against.
pub struct Subject {
    runtime: tokio::runtime::Runtime,
    server: ApiServer,
}

thread_local! {
    static SUBJECT: OnceCell<Subject> = const { OnceCell::new() };
}

/// Runs `act` with this thread's server, which is made at the first call.
pub fn with<T>(act: impl FnOnce(&Subject) -> T) -> T {
    SUBJECT.with(|cell| act(cell.get_or_init(Subject::new)))
}

/// An answer that was not a stream.
pub struct Answer {
    /// Its code.
    pub status: u16,
    /// Its body; null when it is no JSON.
    pub body: Value,
}

impl Subject {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let server = ApiServer::new(Store::memory(), options).expect("an empty store");
        let mut kinds: Vec<Value> =
            serde_json::from_str(RECORDED_KINDS).expect("the recorded kinds are JSON");
        for kind in crds::all() {
            kinds.push(serde_json::to_value(kind).expect("our kinds are JSON"));
        }
        runtime
            .block_on(server.install_crds(&kinds))
            .expect("the kinds are valid");
        let subject = Self { runtime, server };
        for (collection, object) in objects() {
            let body = object.to_string();
            let answer = subject.ask("POST", collection, "application/json", body.as_bytes());
            let there = answer.status == 409 && object["kind"] == "CustomResourceDefinition";
            assert!(
                answer.status == 201 || there,
                "{collection}: {}",
                answer.body
            );
        }
        subject
    }

    /// Sends a request that is known to be one, and reads the answer.
    pub fn ask(&self, method: &str, uri: &str, content_type: &str, body: &[u8]) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .body(Full::new(body.to_vec().into()))
            .expect("a request");
        self.answer(request)
    }

    /// Answers a request, and checks what holds for every answer: no failure of the server's own, and a refusal is a
    /// `Status` of its code. A watch's events are not awaited.
    pub fn answer(&self, request: Request<Full<axum::body::Bytes>>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let (head, body) = self
            .runtime
            .block_on(self.server.handle(User::admin(), request))
            .into_parts();
        let status = head.status.as_u16();
        // What has no length is a stream, such as a watch: however the request spelled it, its end is not awaited.
        let body = if body.size_hint().exact().is_none() {
            Value::Null
        } else {
            let bytes = self
                .runtime
                .block_on(body.collect())
                .expect("a whole answer")
                .to_bytes();
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        assert!(status < 500, "{what}: {status} {body}");
        // What is not served at all is answered in plain text.
        if status >= 400 && status != 404 {
            assert_eq!(body["kind"], "Status", "{what}: {status} {body}");
            assert_eq!(body["code"], status, "{what}: {status} {body}");
        }
        Answer { status, body }
    }
}
