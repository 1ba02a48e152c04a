//! Bootstrap manifests: a commit brings a cluster with a manifest, the next one changes the manifest.

use fleetwright_api::{Cluster, Fleet, condition, meta::LABEL_CLUSTER_NAME};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Secret},
};
use kube::{Api, api::ListParams};

use crate::{
    forge::{commit, git},
    kit::{Engine, client, fleet, fleetwright},
};

fn cni(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: cni, namespace: kube-cni}}
spec:
  selector: {{matchLabels: {{app: cni}}}}
  template:
    metadata: {{labels: {{app: cni}}}}
    spec: {{containers: [{{name: cni, image: \"{image}\"}}]}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: kube-cni}}
"
    )
}

/// Waits until a commit has settled.
async fn until_settled(engine: &Engine, sha: &str) {
    engine
        .until(
            "default",
            "the commit has settled",
            |fleet: Option<&Fleet>| {
                let status = fleet.and_then(|fleet| fleet.status.as_ref());
                let settled = status.and_then(|status| status.settled.as_ref());
                settled.is_some_and(|settled| settled.revision == sha)
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_brings_a_cluster_its_manifests_and_the_next_one_changes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (work, data) = (dir.path().join("work"), dir.path().join("data"));
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    std::fs::create_dir(work.join("base")).unwrap();
    let write = |image: &str| std::fs::write(work.join("base/cni.yaml"), cni(image)).unwrap();
    let text = fleet("v1.33.2", Some(1)).replacen(
        "  version: v1.33.2\n",
        "  version: v1.33.2\n  bootstrapManifests: [{path: base/cni.yaml}]\n",
        1,
    );
    write("example.org/cni:v1");
    let first = commit(&work, &text);
    let valid = fleetwright(&["validate", work.to_str().unwrap()])
        .output()
        .await
        .unwrap();
    assert_eq!(valid.status.code(), Some(0), "{valid:?}");

    let url = format!("file://{}/fleet.git", dir.path().display());
    let engine = Engine::up(&url, &data, &["--branch", "main", "--interval", "1"]).await;
    until_settled(&engine, &first).await;
    let secrets = Api::<Secret>::namespaced(engine.client.clone(), "default");
    let secret = secrets.get("a-kubeconfig").await.unwrap();
    let kubeconfig = dir.path().join("a.kubeconfig");
    std::fs::write(&kubeconfig, &secret.data.unwrap()["value"].0).unwrap();
    let sets = Api::<DaemonSet>::namespaced(client(&kubeconfig).await, "kube-cni");
    let image = async || {
        let set = sets.get("cni").await.unwrap();
        let containers = set.spec.unwrap().template.spec.unwrap().containers;
        containers[0].image.clone().unwrap()
    };
    assert_eq!(image().await, "example.org/cni:v1");

    write("example.org/cni:v2");
    // What a merge would do is told beforehand, and that machines stay.
    let connection = engine.connection();
    let args = ["plan", work.to_str().unwrap(), connection[0], connection[1]];
    let plan = fleetwright(&args).output().await.unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("~ ConfigMap default/a-manifest-"), "{plan}");
    assert!(plan.contains("(base/cni.yaml:1)"), "{plan}");
    assert!(plan.contains("~ Cluster default/a"), "{plan}");
    assert!(plan.contains("0 machines made, 0 deleted"), "{plan}");
    let before = engine.journal();
    let second = commit(&work, &text);
    until_settled(&engine, &second).await;
    assert_eq!(image().await, "example.org/cni:v2");
    assert_eq!(engine.journal(), before, "no machine came or went");
    let clusters = Api::<Cluster>::namespaced(engine.client.clone(), "default");
    let conditions = clusters.get("a").await.unwrap().status.unwrap().conditions;
    let kind = condition::kind::BOOTSTRAP_MANIFESTS_APPLIED;
    assert!(condition::is_true(&conditions, kind), "{conditions:?}");

    // Nobody names it any more: what was kept for the cluster goes, what the cluster has stays.
    std::fs::remove_file(work.join("base/cni.yaml")).unwrap();
    let third = commit(&work, &fleet("v1.33.2", Some(1)));
    until_settled(&engine, &third).await;
    let maps = Api::<ConfigMap>::namespaced(engine.client.clone(), "default");
    let ours = ListParams::default().labels(LABEL_CLUSTER_NAME);
    let kept = maps.list(&ours);
    assert_eq!(kept.await.unwrap().items, []);
    assert_eq!(image().await, "example.org/cni:v2");
}
