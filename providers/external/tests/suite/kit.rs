//! An API server in this process, whose answers can be lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fleetwright_api::{
    ExternalInstance, crds, random::SeededRandom, secret::SecretText, time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_provider_external::External;
use fleetwright_providers::{Account, CreateInstance, Ownership, conformance::Trouble};
use fleetwright_store::Store;
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    client::Body,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::BoxError;

/// What goes wrong once, by method and machine, and how often it has.
#[derive(Default)]
pub(crate) struct Troubles {
    waiting: BTreeMap<(Method, String), Trouble>,
    happened: BTreeMap<String, u64>,
}

/// The provider and the API that it works over.
pub(crate) struct Place {
    pub(crate) external: External,
    /// Another way to the same API, on which nothing goes wrong.
    pub(crate) client: Client,
    pub(crate) troubles: Arc<Mutex<Troubles>>,
    next: AtomicU64,
}

fn throttled() -> http::Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429,
        "message": "later", "details": {"retryAfterSeconds": 2},
    });
    let mut answer = http::Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
    answer
}

/// A client on which what was ordered goes wrong with calls that speak of one machine's order.
fn troubled(inner: Client, troubles: Arc<Mutex<Troubles>>) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, troubles) = (inner.clone(), Arc::clone(&troubles));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            let said = format!("{} {}", parts.uri.path(), String::from_utf8_lossy(&bytes));
            let trouble = parts.uri.path().contains("/externalinstances").then(|| {
                let mut troubles = troubles.lock();
                let mut all = troubles.waiting.keys();
                let found =
                    all.find(|(method, machine)| *method == parts.method && said.contains(machine));
                let found = found.cloned()?;
                *troubles.happened.entry(found.1.clone()).or_default() += 1;
                troubles.waiting.remove(&found)
            });
            let lost = || BoxError::from(std::io::Error::other("cut off"));
            let trouble = trouble.flatten();
            match trouble {
                Some(Trouble::RequestLost) => return Err(lost()),
                Some(Trouble::Throttled) => return Ok(throttled()),
                _ => {}
            }
            let request = http::Request::from_parts(parts, Body::from(bytes));
            let answer = inner.send(request).await?;
            match trouble {
                Some(_) => Err(lost()),
                None => Ok(answer),
            }
        }
    });
    Client::new(service, "default")
}

impl Place {
    pub(crate) async fn new() -> Self {
        let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let server = ApiServer::new(Store::memory(), options).unwrap();
        let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
        server.install_crds(&ours.unwrap()).await.unwrap();
        let client = server.client("default");
        let troubles = Arc::new(Mutex::new(Troubles::default()));
        Self {
            external: External::new("test", troubled(client.clone(), Arc::clone(&troubles))),
            client,
            troubles,
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn account(&self) -> Account {
        Account {
            name: "metal".into(),
            provider: "external".into(),
            ..Account::default()
        }
    }

    pub(crate) fn order(&self, cluster_key: &str) -> CreateInstance {
        // Of the same length: one is no part of another.
        let n = 1000 + self.next.fetch_add(1, Ordering::Relaxed);
        CreateInstance {
            owner: Ownership {
                installation: "test".into(),
                cluster_key: cluster_key.into(),
                cluster: "default/eu".into(),
                pool: "web".into(),
                set: "web-1".into(),
                machine: format!("m-{n}"),
                instance_key: format!("{n:032x}"),
            },
            version: "v1.34.1".into(),
            config: json!({
                "apiVersion": "external.fleetwright.dev/v1alpha1", "kind": "ExternalMachineConfig", "account": "metal",
                "hosts": {"memory": "64"}, "image": "noble", "tags": {"owner": "a", "cost": "7"},
            }),
            config_digest: "digest".into(),
            labels: [("role".to_owned(), "web".to_owned())].into(),
            user_data: Some(SecretText::new("#cloud-config\nhush")),
            ..CreateInstance::default()
        }
    }

    pub(crate) fn trouble(&self, trouble: Trouble, method: Method, machine: &str) {
        let key = (method, machine.to_owned());
        self.troubles.lock().waiting.insert(key, trouble);
    }

    pub(crate) fn happened(&self, machine: &str) -> u64 {
        let troubles = self.troubles.lock();
        troubles.happened.get(machine).copied().unwrap_or_default()
    }

    pub(crate) fn orders(&self) -> Api<ExternalInstance> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// The order with this id as the API has it.
    pub(crate) async fn at(&self, id: &str) -> Option<ExternalInstance> {
        let name = id.split_once('/').unwrap().1;
        self.orders().get_opt(name).await.unwrap()
    }

    /// What whoever makes machines writes.
    pub(crate) async fn say(&self, id: &str, status: Value) {
        let (name, patch) = (
            id.split_once('/').unwrap().1,
            Patch::Merge(json!({"status": status})),
        );
        let params = PatchParams::default();
        let said = self.orders().patch_status(name, &params, &patch).await;
        said.unwrap();
    }
}
