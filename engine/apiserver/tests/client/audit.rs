//! The audit log of a server over HTTPS: it names the user.

use std::path::Path;

use fleetwright_apiserver::Audit;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::config::{AuthInfo, Kubeconfig};

use super::*;

const TOKENS: &str = "t-ann,ann,u-1,\"system:masters\"\nt-bob,bob,,\"fleetwright:read-only\"\n";

/// A server over TLS with an audit log, until its parts are dropped.
struct Served {
    url: String,
    authority: String,
    server: ApiServer,
    _tasks: JoinSet<()>,
}

async fn serve(dir: &Path) -> Served {
    let tokens = dir.join("tokens");
    std::fs::write(&tokens, TOKENS).unwrap();
    let start = jiff::Timestamp::from_second(1_790_000_000).unwrap();
    let (clock, random) = (
        Arc::new(ManualClock::new(start)),
        Arc::new(SeededRandom::new(1)),
    );
    let mut options = Options::new(clock.clone(), random.clone());
    let audit = Audit::open(&dir.join("audit.log"), clock, random).unwrap();
    options.audit = Some(Arc::new(audit));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let tls = Tls::open(&dir.join("pki")).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let authority = tls.authority().to_owned();
    let auth = Auth::from_file(&tokens).unwrap();
    let mut tasks = JoinSet::new();
    let (serving, never) = (server.clone(), CancellationToken::new());
    tasks.spawn(async move { serving.serve(listener, tls, auth, never).await.unwrap() });
    Served {
        url,
        authority,
        server,
        _tasks: tasks,
    }
}

impl Served {
    async fn client(&self, dir: &Path, token: &str, impersonate: Option<&str>) -> Client {
        let file = dir.join("kubeconfig");
        write_kubeconfig(&file, &self.url, &self.authority, token).unwrap();
        let mut config = Kubeconfig::read_from(&file).unwrap();
        let auth: &mut AuthInfo = config.auth_infos[0].auth_info.as_mut().unwrap();
        auth.impersonate = impersonate.map(str::to_owned);
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        Client::try_from(config.unwrap()).unwrap()
    }
}

/// What a line says: verb, path, user, resource and name, code, decision.
fn row(event: &Value) -> String {
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
    };
    let who = match event.pointer("/impersonatedUser/username") {
        Some(other) => format!("{} as {}", text("/user/username"), other.as_str().unwrap()),
        None => text("/user/username").to_owned(),
    };
    format!(
        "{who} {} {}/{} {} {}",
        text("/verb"),
        text("/objectRef/resource"),
        text("/objectRef/name"),
        event["responseStatus"]["code"],
        text("/annotations/authorization.k8s.io~1decision"),
    )
}

#[tokio::test]
async fn each_write_and_each_refusal_is_written_down_with_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let post = PostParams::default();
    let ann = served.client(dir.path(), "t-ann", None).await;
    let maps: Api<ConfigMap> = Api::namespaced(ann.clone(), "default");
    maps.create(&post, &map("a", json!({"data": {"k": "of-the-body"}})))
        .await
        .unwrap();
    let generated =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
    let generated = maps
        .create(&post, &serde_json::from_value(generated).unwrap())
        .await
        .unwrap();
    maps.create(&post, &map("a", json!({}))).await.unwrap_err();
    maps.get("a").await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(ann, "default");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hidden-value"}});
    secrets
        .create(&post, &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    secrets.get("s").await.unwrap();
    let bob = served.client(dir.path(), "t-bob", None).await;
    let maps: Api<ConfigMap> = Api::namespaced(bob.clone(), "default");
    maps.get("a").await.unwrap();
    maps.delete("a", &DeleteParams::default())
        .await
        .unwrap_err();
    let eve = served.client(dir.path(), "t-eve", None).await;
    let maps: Api<ConfigMap> = Api::namespaced(eve, "default");
    maps.get("a").await.unwrap_err();
    let carol = served.client(dir.path(), "t-ann", Some("carol")).await;
    let maps: Api<ConfigMap> = Api::namespaced(carol, "default");
    maps.delete("a", &DeleteParams::default())
        .await
        .unwrap_err();
    // The engine itself: its writes alone.
    let maps: Api<ConfigMap> = Api::namespaced(served.server.client("default"), "default");
    maps.get("a").await.unwrap();
    let patch = json!({"data": {"k": "w"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();

    // Its end writes what waits.
    drop((served, maps));
    let file = dir.path().join("audit.log");
    let text = loop {
        let text = std::fs::read_to_string(&file).unwrap();
        if text.contains("system:fleetwright") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    assert!(
        !text.contains("of-the-body") && !text.contains("hidden-value"),
        "{text}"
    );
    assert!(!text.contains("t-ann") && !text.contains("t-eve"), "{text}");
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let rows: Vec<String> = events.iter().map(row).collect();
    let name = generated.name_any();
    assert_eq!(
        rows,
        [
            "ann create configmaps/a 201 allow".to_owned(),
            format!("ann create configmaps/{name} 201 allow"),
            "ann create configmaps/a 409 allow".to_owned(),
            "ann create secrets/s 201 allow".to_owned(),
            "ann get secrets/s 200 allow".to_owned(),
            "bob delete configmaps/a 403 forbid".to_owned(),
            "- get configmaps/a 401 -".to_owned(),
            "ann as carol delete configmaps/a 403 forbid".to_owned(),
            "system:fleetwright patch configmaps/a 200 -".to_owned(),
        ]
    );
    let first = &events[0];
    assert_eq!(
        first["user"],
        json!({"username": "ann", "uid": "u-1", "groups": ["system:masters", "system:authenticated"]})
    );
    assert_eq!(first["sourceIPs"], json!(["127.0.0.1"]));
    for (field, value) in [
        ("apiVersion", "audit.k8s.io/v1"),
        ("kind", "Event"),
        ("level", "Metadata"),
        ("stage", "ResponseComplete"),
        ("requestReceivedTimestamp", "2026-09-21T14:13:20.000000Z"),
        ("stageTimestamp", "2026-09-21T14:13:20.000000Z"),
    ] {
        assert_eq!(first[field], value);
    }
    let uri = first["requestURI"].as_str().unwrap();
    assert!(
        uri.starts_with("/api/v1/namespaces/default/configmaps?"),
        "{uri}"
    );
    let ids: std::collections::BTreeSet<_> =
        events.iter().map(|e| e["auditID"].to_string()).collect();
    assert_eq!(ids.len(), events.len());
}
