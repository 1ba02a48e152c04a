//! The rights that `fleetwright install` gives an engine: they suffice for all that it does, and none is for nothing.
//!
//! On the cluster of `FLEETWRIGHT_TEST_KUBECONFIG` the engine runs as the installed ServiceAccount, and the cluster decides.
//! Elsewhere each of its requests is held against the rules that are printed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use fleetwright_api::{Cluster, Fleet, ProviderAccount};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, ServiceAccount},
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    config::Kubeconfig,
    runtime::{conditions, wait::await_condition},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    forge::{Forge, commit, deliver, git},
    kit::{PATIENCE, Process, fleet, fleetwright},
    stock::{Kubernetes, NAMESPACE},
};

const SECRET: &str = "of webhooks";
/// Granted, and not used by one short run: a status is deleted when there are very many, a set where no garbage collector
/// was faster, `finalizers` is asked for by servers that guard owner references, the run's repository holds neither
/// health checks nor drain rules, none of its machines drifts, no list was behind what was made meanwhile, and nothing is ordered of others.
const RARE: &[&str] = &[
    "machinesets get",
    "machines get",
    "provideraccounts get",
    "commitstatuses delete",
    "machinesets delete",
    "machinehealthchecks get",
    "machinehealthchecks create",
    "machinehealthchecks patch",
    "machinehealthchecks delete",
    "machinehealthchecks/status patch",
    "machinedrainrules get",
    "machinedrainrules create",
    "machinedrainrules patch",
    "machinedrainrules delete",
    "clusters/finalizers update",
    "machinedeployments/finalizers update",
    "machinesets/finalizers update",
    "fleets/finalizers update",
    "events create",
    "externalinstances get",
    "externalinstances create",
    "externalinstances patch",
    "externalinstances delete",
    "secrets delete",
];

/// What a request asks for.
#[derive(Debug)]
struct Attributes {
    verb: &'static str,
    group: String,
    /// With its subresource.
    resource: String,
    namespace: String,
    name: String,
}

/// As a server reads it; `None` for what everybody may read: versions and discovery.
fn attributes(method: &Method, uri: &Uri) -> Option<Attributes> {
    let mut parts = uri.path().trim_matches('/').split('/');
    let group = match parts.next()? {
        "api" => String::new(),
        "apis" => parts.next()?.to_owned(),
        _ => return None,
    };
    parts.next()?;
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", namespace, resource @ ..] if !resource.is_empty() => (*namespace, resource),
        all => ("", all),
    };
    let resource = match rest {
        [] => return None,
        [resource, _, sub] => format!("{resource}/{sub}"),
        [resource, ..] => (*resource).to_owned(),
    };
    let query = uri.query().unwrap_or_default();
    let mut name = rest.get(1).copied().unwrap_or_default();
    let one = !name.is_empty();
    for part in query.split('&') {
        let chosen = part.strip_prefix("fieldSelector=metadata.name%3D");
        name = chosen.unwrap_or(name);
    }
    let watches = query.split('&').any(|part| part == "watch=true");
    let verb = match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if one => "delete",
        "DELETE" => "deletecollection",
        _ if watches => "watch",
        _ if one => "get",
        _ => "list",
    };
    Some(Attributes {
        verb,
        group,
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// The rules that are printed, and what became of them.
struct Rights {
    admin: Client,
    everywhere: Vec<PolicyRule>,
    at_home: Vec<PolicyRule>,
    used: Mutex<BTreeSet<String>>,
    denied: Mutex<Vec<String>>,
}

impl Rights {
    fn allows(&self, asked: &Attributes) -> bool {
        let has =
            |all: Option<&[String]>, one: &str| all.is_some_and(|a| a.iter().any(|x| x == one));
        let rule = |r: &&PolicyRule| {
            has(Some(&r.verbs), asked.verb)
                && has(r.api_groups.as_deref(), &asked.group)
                && has(r.resources.as_deref(), &asked.resource)
                && r.resource_names
                    .as_ref()
                    .is_none_or(|n| n.contains(&asked.name))
        };
        let home = asked.namespace == NAMESPACE && self.at_home.iter().any(|r| rule(&r));
        home || self.everywhere.iter().any(|r| rule(&r))
    }

    /// Writes down that a right is used; `false` where it is not granted.
    fn uses(&self, asked: &Attributes) -> bool {
        let allowed = self.allows(asked);
        if allowed {
            let words = format!("{} {}", asked.resource, asked.verb);
            self.used.lock().insert(words);
        } else {
            self.denied.lock().push(format!("{asked:?}"));
        }
        allowed
    }

    /// All of them, as `resource verb`.
    fn granted(&self) -> BTreeSet<String> {
        let all = self.everywhere.iter().chain(&self.at_home);
        all.flat_map(|rule| {
            let resources = rule.resources.iter().flatten();
            resources.flat_map(|r| rule.verbs.iter().map(move |v| format!("{r} {v}")))
        })
        .collect()
    }
}

async fn authorize(State(rights): State<Arc<Rights>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut asked = attributes(&parts.method, &parts.uri);
    if asked.as_ref().is_some_and(|asked| !rights.uses(asked)) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "code": 403, "message": format!("{asked:?}")});
        return (StatusCode::FORBIDDEN, axum::Json(status)).into_response();
    }
    let applies = parts.method == Method::PATCH;
    let body = axum::body::to_bytes(body, 8 << 20).await.unwrap();
    let mut forwarded = axum::http::Request::from_parts(parts, kube::client::Body::from(body));
    forwarded.headers_mut().remove("host");
    match rights.admin.send(forwarded).await {
        Ok(answer) => {
            // Who makes an object by applying it needs both rights.
            if let Some(asked) = asked.as_mut()
                && applies
                && answer.status() == StatusCode::CREATED
            {
                asked.verb = "create";
                rights.uses(asked);
            }
            answer.map(Body::new)
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A kubeconfig with the installed rights, and the rights where they are held against each request here.
async fn installed(
    kubernetes: &Kubernetes,
    dir: &Path,
    tasks: &mut JoinSet<()>,
) -> (PathBuf, Option<Arc<Rights>>) {
    let image = ["--image", "example.org/fleetwright:1"];
    let file = dir.join("engine.kubeconfig");
    if kubernetes.stock.is_some() {
        let args = [
            &["install", "--kubeconfig", &kubernetes.kubeconfig],
            &image[..],
        ]
        .concat();
        assert!(fleetwright(&args).status().await.unwrap().success());
        let accounts = Api::<ServiceAccount>::namespaced(kubernetes.client.clone(), NAMESPACE);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let made = accounts.create_token_request("fleetwright", &params, &request);
        let token = made.await.unwrap().status.unwrap().token;
        let admin = Kubeconfig::read_from(&kubernetes.kubeconfig).unwrap();
        let mut config = serde_json::to_value(&admin).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        std::fs::write(&file, config.to_string()).unwrap();
        return (file, None);
    }
    let args = [&["install", "--print"], &image[..]].concat();
    let out = fleetwright(&args).output().await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kind = |kind: &str| all.iter().find(|o| o["kind"] == kind).unwrap().clone();
    let everywhere: ClusterRole = serde_json::from_value(of_kind("ClusterRole")).unwrap();
    let at_home: Role = serde_json::from_value(of_kind("Role")).unwrap();
    let rights = Arc::new(Rights {
        admin: kubernetes.client.clone(),
        everywhere: everywhere.rules.unwrap(),
        at_home: at_home.rules.unwrap(),
        used: Mutex::default(),
        denied: Mutex::default(),
    });
    let router = Router::new()
        .fallback(authorize)
        .with_state(Arc::clone(&rights));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    (file, Some(rights))
}

/// What an administrator prepares: accounts, secrets and the Fleet.
async fn administer(client: &Client, url: &str, forge: &str) {
    for account in [
        json!({"metadata": {"name": "sim-eu"}, "spec": {"provider": "sim", "region": "eu"}}),
        json!({"metadata": {"name": "others"}, "spec": {"provider": "external"}}),
    ] {
        apply::<ProviderAccount>(&Api::all(client.clone()), account).await;
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), "default");
    for (name, key, value) in [("forge", "token", "t0ken"), ("webhooks", "secret", SECRET)] {
        apply(
            &secrets,
            json!({"metadata": {"name": name}, "stringData": {key: value}}),
        )
        .await;
    }
    let fleet = json!({"metadata": {"name": "default"}, "spec": {
        "source": {"url": url, "ref": {"branch": "main"}, "intervalSeconds": 3600},
        "forge": {"type": "github", "apiURL": forge, "repository": "acme/fleet",
            "secretRef": {"name": "forge"}, "webhookSecretRef": {"name": "webhooks"}},
    }});
    apply::<Fleet>(&Api::namespaced(client.clone(), "default"), fleet).await;
}

async fn apply<K>(api: &Api<K>, mut object: Value)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("fleetwright-tests").force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_installed_rights_suffice_and_none_is_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = Kubernetes::start(dir.path()).await;
    let mut tasks = JoinSet::new();
    let (kubeconfig, rights) = installed(&kubernetes, dir.path(), &mut tasks).await;
    let client = kubernetes.client.clone();
    let work = dir.path().join("work");
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    let forge = Forge::default();
    let forge_url = forge.start(&mut tasks).await;
    let url = format!("file://{}/fleet.git", dir.path().display());
    administer(&client, &url, &forge_url).await;

    // Namespaces of this run: one that Git declares, and one that is only named. A server without its controllers never
    // ends one, so they are new each time.
    let run = format!("{:08x}", rand::random::<u32>());
    let extra = |data: &str| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: said-{run}}}
---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: named-{run}}}\ndata: {{a: {data}}}\n"
        )
    };
    let first = commit(&work, &(fleet("v1.33.2", Some(2)) + &extra("one")));

    let sim = dir.path().join("sim");
    let cloud = Process::start(&["simcloud", "--data", sim.to_str().unwrap()], "journal").await;
    let cloud_url = cloud.told("simcloud");
    let start = async |name: &str| {
        let data = dir.path().join(name);
        let args = [
            "up",
            "--data",
            data.to_str().unwrap(),
            "--simcloud",
            &cloud_url,
            "--kubeconfig",
        ];
        let args = [&args[..], &[kubeconfig.to_str().unwrap()]].concat();
        Process::start(&args, "try").await
    };
    let engine = start("first").await;
    forge.until(&first, "success").await;
    let second = start("second").await;
    // The one that waits takes webhooks too.
    let push = async |text: String| {
        let sha = commit(&work, &text);
        let (status, body) = deliver(&second, &sha, SECRET).await;
        assert!(status.contains(" 20"), "{status} {body}");
        forge.until(&sha, "success").await;
    };

    // An upgrade, with consent to delete the cluster.
    let clusters = Api::<Cluster>::namespaced(client.clone(), "default");
    let uid = clusters.get("a").await.unwrap().metadata.uid.unwrap();
    let consent =
        format!("  name: a\n  annotations: {{fleetwright.dev/allow-delete: {uid}}}\nspec:");
    let upgraded = fleet("v1.34.1", Some(1)).replacen("  name: a\nspec:", &consent, 1);
    push(upgraded + &extra("two")).await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &format!("named-{run}"));
    assert_eq!(maps.get("c").await.unwrap().data.unwrap()["a"], "two");

    // The end of all of it, by the other one.
    assert_eq!(engine.interrupt().await, Some(0));
    let said = extra("").split("---\n").nth(1).unwrap().to_owned();
    push(said).await;
    let gone = await_condition(clusters, "a", conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(maps.get_opt("c").await.unwrap().is_none());
    assert_eq!(second.interrupt().await, Some(0));

    if let Some(rights) = rights {
        assert!(
            rights.denied.lock().is_empty(),
            "{:#?}",
            rights.denied.lock()
        );
        let rare: BTreeSet<String> = RARE.iter().map(ToString::to_string).collect();
        let used = &*rights.used.lock() | &rare;
        assert_eq!(used, rights.granted());
    }
}
