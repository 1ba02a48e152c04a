//! What `install` makes of a cluster: definitions that keep what is stored, and that live beside Cluster API's.

use fleetwright_api::{Machine, meta::LABEL_CLUSTER_NAME};
use k8s_openapi::{
    api::core::v1::Secret,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

use crate::{
    kit::{PATIENCE, fleetwright},
    leader::Scene,
    stock::Kubernetes,
};

const DEFINITION: &str = "provideraccounts.fleetwright.dev";

/// Installs; gives what was said. The embedded API server has our kinds, and no roles: there it goes as far as these.
async fn install(kubernetes: &Kubernetes) -> (bool, String) {
    let args = [
        "install",
        "--image",
        "example.org/fleetwright:1",
        "--kubeconfig",
    ];
    let args = [&args[..], &[&kubernetes.kubeconfig]].concat();
    let out = fleetwright(&args).output().await.unwrap();
    let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    let roles = kubernetes.stock.is_some();
    assert_eq!(out.status.success(), roles, "{said}");
    (roles, said)
}

async fn versions(api: &Api<CustomResourceDefinition>) -> (Vec<String>, Vec<String>) {
    let crd = api.get(DEFINITION).await.unwrap();
    let stored = crd.status.unwrap().stored_versions.unwrap();
    (
        crd.spec.versions.into_iter().map(|v| v.name).collect(),
        stored,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_goes_only_when_nothing_is_stored_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = Kubernetes::start(dir.path()).await;
    let api = Api::<CustomResourceDefinition>::all(kubernetes.client.clone());
    let (roles, said) = install(&kubernetes).await;
    assert!(
        said.contains(&format!("applied    {DEFINITION}\n")),
        "{said}"
    );
    if !roles {
        assert!(
            said.contains("cannot apply ClusterRole fleetwright"),
            "{said}"
        );
    }

    // A release before had another version, in which things are stored.
    let params = PatchParams::default();
    let edit = async |change: Value| {
        let change = Patch::Json::<()>(serde_json::from_value(change).unwrap());
        api.patch(DEFINITION, &params, &change).await.unwrap()
    };
    let mut old =
        serde_json::to_value(api.get(DEFINITION).await.unwrap()).unwrap()["spec"]["versions"][0]
            .take();
    old["name"] = "v1alpha0".into();
    edit(json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "add", "path": "/spec/versions/-", "value": old},
    ]))
    .await;
    let both = |stored: &[String]| stored == ["v1alpha1", "v1alpha0"];
    assert!(both(&versions(&api).await.1));
    // The version that is stored now is not one of this release: nothing is written.
    let args = [
        "install",
        "--image",
        "i",
        "--kubeconfig",
        &kubernetes.kubeconfig,
    ];
    let out = fleetwright(&args).output().await.unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("stored as v1alpha0, which this release does not know"),
        "{said}"
    );

    edit(json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": true},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": false},
    ]))
    .await;
    install(&kubernetes).await;
    let (kept, stored) = versions(&api).await;
    assert_eq!(kept, ["v1alpha1", "v1alpha0"]);
    assert!(both(&stored));

    // Who has moved all objects says so, and then it may go.
    let moved = Patch::Merge(json!({"status": {"storedVersions": ["v1alpha1"]}}));
    api.patch_status(DEFINITION, &params, &moved).await.unwrap();
    install(&kubernetes).await;
    assert_eq!(versions(&api).await.0, ["v1alpha1"]);

    // A later release's definition stays as it is.
    let later =
        Patch::Merge(json!({"metadata": {"annotations": {"fleetwright.dev/release": "99.0.0"}}}));
    let before = api.patch(DEFINITION, &params, &later).await.unwrap();
    let (_, said) = install(&kubernetes).await;
    assert!(
        said.contains(&format!("kept       {DEFINITION}, of release 99.0.0")),
        "{said}"
    );
    let after = api.get(DEFINITION).await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    let ours =
        Patch::Merge(json!({"metadata": {"annotations": {"fleetwright.dev/release": null}}}));
    api.patch(DEFINITION, &params, &ours).await.unwrap();
}

/// Kinds of Cluster API: kind, plural, short name, and an object of it with a name that ours have too.
const OTHERS: [(&str, &str, &str, &str); 4] = [
    ("Cluster", "clusters", "cl", "a"),
    ("MachineDeployment", "machinedeployments", "md", "a-web"),
    ("MachineSet", "machinesets", "ms", "a-web-x"),
    ("Machine", "machines", "ma", "a-cp-0"),
];

fn theirs(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", kind);
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&kind))
}

/// Definitions with the names of Cluster API's, and an object of each.
async fn bring_others(client: &Client) {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let params = PatchParams::apply("others").force();
    for (kind, plural, short, name) in OTHERS {
        let definition = format!("{plural}.cluster.x-k8s.io");
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {
                "name": definition,
                // As a server asks of this group's definitions.
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
            },
            "spec": {
                "group": "cluster.x-k8s.io", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "shortNames": [short]},
                "versions": [{"name": "v1beta2", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        });
        definitions
            .patch(&definition, &params, &Patch::Apply(&crd))
            .await
            .unwrap();
        let served = await_condition(
            definitions.clone(),
            &definition,
            conditions::is_crd_established(),
        );
        tokio::time::timeout(PATIENCE, served)
            .await
            .unwrap()
            .unwrap();
        let object = json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name},
            "spec": {"clusterName": "a", "theirs": true}});
        theirs(client, kind)
            .patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-kubeconfig"},
        "type": "cluster.x-k8s.io/secret", "stringData": {"value": "theirs"}});
    let secrets = Api::<Secret>::namespaced(client.clone(), "default");
    secrets
        .patch("a-kubeconfig", &params, &Patch::Apply(&secret))
        .await
        .unwrap();
}

/// What they are now, to the last write.
async fn others(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for (kind, ..) in OTHERS {
        let list = theirs(client, kind)
            .list(&ListParams::default())
            .await
            .unwrap();
        all.extend(
            list.iter()
                .map(|o| format!("{kind} {} {:?}", o.name_any(), o.resource_version())),
        );
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), "default");
    let secret = secrets.get("a-kubeconfig").await.unwrap();
    all.push(format!("{:?}", secret.metadata.resource_version));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lives_beside_cluster_api() {
    let scene = Scene::start(2).await;
    let client = scene.client.clone();
    bring_others(&client).await;
    let before = others(&client).await;
    let engine = scene.engine("first", &scene.cloud_url).await;
    scene.until_at("v1.33.2").await;
    scene.write("v1.34.1", 2);
    scene.until_at("v1.34.1").await;
    assert_eq!(
        others(&client).await,
        before,
        "what is theirs is not touched"
    );
    let machines = Api::<Machine>::namespaced(client.clone(), "default");
    let of_a = ListParams::default().labels(&format!("{LABEL_CLUSTER_NAME}=a"));
    assert_eq!(machines.list(&of_a).await.unwrap().items.len(), 3);
    let args = ["status", "--kubeconfig", &scene.kubernetes.kubeconfig];
    let out = fleetwright(&args).output().await.unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        said.contains("default/a ") && said.contains("a-web 2/2"),
        "{said}"
    );
    assert_eq!(engine.interrupt().await, Some(0));

    // As it was: the next test may be here.
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for (_, plural, ..) in OTHERS {
        let name = format!("{plural}.cluster.x-k8s.io");
        definitions
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
    }
    let secrets = Api::<Secret>::namespaced(client, "default");
    secrets
        .delete("a-kubeconfig", &DeleteParams::default())
        .await
        .unwrap();
}
