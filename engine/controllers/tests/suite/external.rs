//! Clusters that somebody else runs: followed by their kubeconfigs, over TLS.

use std::collections::BTreeSet;

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition::kind};
use fleetwright_tests::workload::{TOKEN, Workload, base64};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Node, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::kit::{Kit, World, is_available, of_cluster, of_machine, of_pool};

impl Kit {
    /// Somebody else's cluster and its Cluster, which says that it is of `version`.
    async fn external(&self, name: &str, version: &str) -> Workload {
        let workload = Workload::start().await;
        self.ward.boot(name);
        let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(format!("{name}-access")),
                ..ObjectMeta::default()
            },
            data: Some([("value".to_owned(), ByteString(kubeconfig.into_bytes()))].into()),
            ..Secret::default()
        };
        let secrets = self.api::<Secret>();
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
        let access = json!({"kubeconfigSecretRef": {"name": format!("{name}-access")}});
        let more = json!({"controlPlane": {"machines": null, "external": access}});
        self.cluster(name, version, 1, more).await;
        workload
    }

    /// What the machines' kubelets would do: nodes for those that have an instance and none yet.
    async fn register(&self, workload: &Workload) {
        for machine in self.world.machines.values() {
            if let Some(id) = &machine.spec.provider_id
                && machine.metadata.deletion_timestamp.is_none()
            {
                let version = machine.spec.content.version.as_deref();
                node(
                    workload,
                    &machine.name_any(),
                    id,
                    version.unwrap_or_default(),
                )
                .await;
            }
        }
    }

    /// Follows every change, with nodes for what boots, until `done` says so.
    async fn until_with_nodes(
        &mut self,
        workload: &Workload,
        what: &str,
        done: impl Fn(&World) -> bool,
    ) {
        loop {
            self.register(workload).await;
            let nodes = names(workload).await;
            let news = |w: &World| {
                let boots = |m: &Machine| {
                    m.spec.provider_id.is_some()
                        && m.metadata.deletion_timestamp.is_none()
                        && !nodes.contains(&m.name_any())
                };
                (done(w) || w.machines.values().any(boots)).then(|| done(w))
            };
            if self.until(what, news).await {
                return;
            }
        }
    }
}

/// A node of the cluster that is ready.
async fn node(workload: &Workload, name: &str, id: &str, version: &str) {
    let api = Api::<Node>::all(workload.client());
    if api.get_opt(name).await.unwrap().is_some() {
        return;
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"providerID": id},
    });
    let node = serde_json::from_value(node).unwrap();
    api.create(&PostParams::default(), &node).await.unwrap();
    let ready =
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = json!({"status": {"conditions": ready, "nodeInfo": {
        "kubeletVersion": version, "osImage": "", "architecture": "", "bootID": "", "containerRuntimeVersion": "",
        "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": "",
    }}});
    let patch = Patch::Merge(status);
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn names(workload: &Workload) -> BTreeSet<String> {
    let api = Api::<Node>::all(workload.client());
    let all = api.list(&ListParams::default()).await.unwrap();
    all.items.iter().map(ResourceExt::name_any).collect()
}

fn version_of(world: &World, cluster: &str) -> Option<String> {
    world.clusters[cluster].status.as_ref()?.version.clone()
}

fn unmanaged(world: &World, cluster: &str) -> Option<i32> {
    let cluster = world.clusters.get(cluster)?;
    cluster.status.as_ref()?.unmanaged_nodes
}

/// Whether the pool has so many machines, all of this version and available.
fn has(world: &World, pool: &str, count: usize, version: &str) -> bool {
    let machines = world.workers(pool);
    let right =
        |m: &&&Machine| is_available(m) && m.spec.content.version.as_deref() == Some(version);
    machines.len() == count && machines.iter().filter(right).count() == count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_followed_and_machines_join_it() {
    let mut kit = Kit::start().await;
    let workload = kit.external("theirs", "v1.33.2").await;
    node(&workload, "stranger", "other:///1", "v1.33.2").await;
    kit.pool("web", "theirs", 2, json!({})).await;
    kit.until_with_nodes(&workload, "the pool serves", |w| {
        has(w, "web", 2, "v1.33.2")
            && of_cluster(&w.clusters["theirs"], kind::AVAILABLE).starts_with("True")
    })
    .await;
    kit.until("its strangers are counted", |w| {
        (unmanaged(w, "theirs") == Some(1)).then_some(())
    })
    .await;
    let cluster = &kit.world.clusters["theirs"];
    for (kind, want) in [
        (kind::CONTROL_PLANE_INITIALIZED, "True Initialized: "),
        (kind::CONTROL_PLANE_AVAILABLE, "True Available: "),
        (kind::REMOTE_CONNECTION_PROBE, "True ProbeSucceeded: "),
        (kind::ETCD_CLUSTER_HEALTHY, "none"),
        (kind::CONTROL_PLANE_MACHINES_READY, "none"),
    ] {
        assert_eq!(of_cluster(cluster, kind), want, "{kind}");
    }
    assert_eq!(version_of(&kit.world, "theirs").as_deref(), Some("v1.33.2"));
    assert!(kit.world.control_plane("theirs").is_empty());

    // Another stranger comes, and goes.
    let nodes = Api::<Node>::all(workload.client());
    node(&workload, "another", "other:///2", "v1.33.2").await;
    kit.until("another is counted", |w| {
        (unmanaged(w, "theirs") == Some(2)).then_some(())
    })
    .await;
    nodes
        .delete("another", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("it is not counted any more", |w| {
        (unmanaged(w, "theirs") == Some(1)).then_some(())
    })
    .await;
    // Machines are written on their nodes, and nothing on others'.
    let stranger = nodes.get("stranger").await.unwrap();
    assert!(stranger.annotations().is_empty(), "{stranger:?}");

    // The Cluster goes with what is ours: its pools, drained, and their nodes.
    let clusters = kit.api::<Cluster>();
    clusters
        .delete("theirs", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("the Cluster is gone", |w| {
        (w.clusters.is_empty() && w.machines.is_empty() && w.pools.is_empty()).then_some(())
    })
    .await;
    assert_eq!(
        names(&workload).await,
        BTreeSet::from(["stranger".to_owned()])
    );
    let stranger = nodes.get("stranger").await.unwrap();
    assert!(stranger.annotations().is_empty(), "{stranger:?}");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_join_it_by_what_kubeadm_keeps_there() {
    let mut kit = Kit::start().await;
    kit.stop_controllers().await;
    kit.ward.give_boots();
    kit.start_controllers();
    let workload = kit.external("theirs", "v1.33.2").await;
    kit.pool("web", "theirs", 1, json!({})).await;
    let line = kit
        .until("the machine says what it lacks", |w| {
            let line = of_machine(w.workers("web").first()?, kind::INFRASTRUCTURE_READY);
            line.contains("cluster-info").then_some(line)
        })
        .await;
    assert!(
        line.contains("which kubeadm makes there: there is none"),
        "{line}"
    );
    let authority = &workload.authority.identity.certificate;
    let info = json!({
        "clusters": [{"name": "", "cluster": {
            "server": workload.url(), "certificate-authority-data": base64(authority),
        }}],
    });
    let info = ConfigMap {
        metadata: ObjectMeta {
            name: Some("cluster-info".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("kubeconfig".to_owned(), info.to_string())].into()),
        ..ConfigMap::default()
    };
    let maps = Api::<ConfigMap>::namespaced(workload.client(), "kube-public");
    maps.create(&PostParams::default(), &info).await.unwrap();
    let ward = kit.ward.clone();
    kit.until("it has an instance", |w| {
        w.workers("web").first()?.spec.provider_id.clone()
    })
    .await;
    let payload = ward.boots(|boots| boots.payload.clone());
    let server = workload.url();
    let host = server.trim_start_matches("https://");
    assert!(payload.contains(host), "{payload}");
    let hash = fleetwright_bootstrap::pki::hash(authority).unwrap();
    assert!(payload.contains(&hash), "{payload}");
    // The cluster knows the token that it shows, until it has joined.
    let secrets = Api::<Secret>::namespaced(workload.client(), "kube-system");
    let tokens = async || secrets.list(&ListParams::default()).await.unwrap().items;
    let token = tokens().await.remove(0).data.unwrap()["token-id"].clone();
    let token = String::from_utf8(token.0).unwrap();
    assert!(payload.contains(&token), "{payload}");
    kit.until_with_nodes(&workload, "the pool serves", |w| {
        has(w, "web", 1, "v1.33.2")
    })
    .await;
    assert_eq!(tokens().await.len(), 0);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_keep_within_what_it_really_runs() {
    let mut kit = Kit::start().await;
    // Its user says more than it runs.
    let mut workload = kit.external("theirs", "v1.34.0").await;
    kit.pool("web", "theirs", 1, json!({})).await;
    kit.until_with_nodes(&workload, "the pool serves at what runs", |w| {
        has(w, "web", 1, "v1.33.2")
    })
    .await;
    kit.until("that is said", |w| {
        let line = of_cluster(&w.clusters["theirs"], kind::IN_SYNC);
        line.contains("the control plane runs v1.33.2, declared is v1.34.0")
            .then_some(())
    })
    .await;
    // It is upgraded: until ten minutes have passed an old API server may be met.
    workload.be("v1.34.0-gke.7");
    workload.die().await;
    workload.come_back().await;
    kit.until("both are known", |w| {
        let status = w.clusters["theirs"].status.as_ref()?;
        let both = (status.version.as_deref(), status.upgrading_to.as_deref());
        (both == (Some("v1.33.2"), Some("v1.34.0"))).then_some(())
    })
    .await;
    assert!(has(&kit.world, "web", 1, "v1.33.2"));
    kit.ward.ahead(700);
    workload.die().await;
    workload.come_back().await;
    kit.until_with_nodes(&workload, "the pool follows", |w| {
        has(w, "web", 1, "v1.34.0")
    })
    .await;
    kit.until("nothing differs", |w| {
        let line = of_cluster(&w.clusters["theirs"], kind::IN_SYNC);
        line.starts_with("True").then_some(())
    })
    .await;
    // A pool of an own version that is too new waits.
    let newer = json!({"template": {"spec": {"version": "v1.35.0"}}});
    kit.pool("eager", "theirs", 1, newer).await;
    kit.until("it waits", |w| {
        let pool = w.pools.get("eager")?;
        let line = of_pool(pool, kind::AVAILABLE);
        line.contains("waits for the control plane to run v1.35.0 (it runs v1.34.0)")
            .then_some(())
    })
    .await;
    assert!(kit.world.workers("eager").is_empty());
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_nodes_are_those_of_the_cluster_that_its_secret_leads_to_now() {
    let mut kit = Kit::start().await;
    let before = kit.external("theirs", "v1.33.2").await;
    node(&before, "one", "other:///1", "v1.33.2").await;
    kit.until("its node is counted", |w| {
        (unmanaged(w, "theirs") == Some(1)).then_some(())
    })
    .await;
    let after = Workload::start().await;
    node(&after, "two", "other:///2", "v1.33.2").await;
    node(&after, "three", "other:///3", "v1.33.2").await;
    let kubeconfig = after.kubeconfig(&json!({"token": TOKEN}));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("elsewhere".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("value".to_owned(), ByteString(kubeconfig.into_bytes()))].into()),
        ..Secret::default()
    };
    let secrets = kit.api::<Secret>();
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let access = json!({"kubeconfigSecretRef": {"name": "elsewhere"}});
    let change = json!({"spec": {"controlPlane": {"external": access}}});
    kit.patch::<Cluster>("theirs", change).await;
    // The cluster of before still serves and says nothing new.
    kit.until("the other's are counted", |w| {
        (unmanaged(w, "theirs") == Some(2)).then_some(())
    })
    .await;
    kit.stop().await;
    drop(before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_while_it_is_down() {
    let mut kit = Kit::start().await;
    let mut workload = kit.external("theirs", "v1.33.2").await;
    kit.pool("web", "theirs", 3, json!({})).await;
    kit.check("web", "theirs", 60, json!({})).await;
    kit.until_with_nodes(&workload, "the pool serves", |w| {
        has(w, "web", 3, "v1.33.2")
    })
    .await;
    let before: Vec<String> = kit.world.machines.keys().cloned().collect();
    let known = before.clone();
    kit.always(move |w| {
        let leaves = |m: &Machine| m.metadata.deletion_timestamp.is_some();
        match known
            .iter()
            .find(|name| w.machines.get(*name).is_none_or(leaves))
        {
            Some(name) => Err(format!("{name} goes")),
            None => Ok(()),
        }
    });
    // Its watch is open when it dies, and three days pass.
    workload.die().await;
    kit.until("the Cluster says why", |w| {
        let line = of_cluster(&w.clusters["theirs"], kind::REMOTE_CONNECTION_PROBE);
        (line.starts_with("False ProbeFailed: the cluster's API does not answer: ")
            && line.contains("refused"))
        .then_some(())
    })
    .await;
    kit.ward.ahead(3 * 24 * 3600);
    // A commit changes the pool: another machine comes, and cannot join; those that serve stay.
    let change =
        json!({"spec": {"template": {"spec": {"providerConfig": {"instanceType": "sim.large"}}}}});
    kit.patch::<MachineDeployment>("web", change).await;
    kit.until("another machine is made", |w| {
        let made = |m: &&Machine| !before.contains(&m.name_any()) && m.spec.provider_id.is_some();
        w.workers("web").into_iter().find(made).map(drop)
    })
    .await;
    // Another cluster comes up beside it: everything has been looked at.
    kit.cluster("us", "v1.33.2", 1, json!({})).await;
    kit.pool("us-web", "us", 1, json!({})).await;
    kit.until_settled("us").await;
    let deleted = |kit: &Kit| {
        kit.journal()
            .iter()
            .filter(|e| e["verb"] == "delete")
            .count()
    };
    assert_eq!(deleted(&kit), 0);
    workload.come_back().await;
    kit.until("the Cluster is seen again", |w| {
        let line = of_cluster(&w.clusters["theirs"], kind::REMOTE_CONNECTION_PROBE);
        line.starts_with("True").then_some(())
    })
    .await;
    assert_eq!(deleted(&kit), 0);
    kit.stop().await;
}
