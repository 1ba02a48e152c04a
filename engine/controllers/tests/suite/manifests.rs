//! Bootstrap manifests: what a workload cluster gets of them, when, and what waits for that.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, condition::kind, names};
use fleetwright_core::{manifests::Packed, status, yaml};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::kit::{Kit, World, of_cluster};

const CNI: &str = "
apiVersion: example.org/v1
kind: Pool
metadata: {name: pods}
spec: {cidr: 10.0.0.0/16}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cni, namespace: cni}
spec:
  selector: {matchLabels: {app: cni}}
  template:
    metadata: {labels: {app: cni}}
    spec: {containers: [{name: cni, image: example.org/cni:v1}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: plain}
---
apiVersion: v1
kind: Namespace
metadata: {name: cni}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Pool, plural: pools, singular: pool, listKind: PoolList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {cidr: {type: string}}}}}}
";

const PATH: &str = "cni.yaml";

/// What the sync engine writes for cluster eu: the ConfigMap, and the entry of the Cluster's spec.
async fn keep(kit: &Kit, text: &str) -> Value {
    let packed = Packed::of(text.as_bytes()).unwrap();
    let map = packed.config_map("default", "eu", PATH);
    let params = PatchParams::apply("fleetwright/default.test").force();
    let name = names::bootstrap_manifest("eu", PATH);
    let maps = kit.api::<ConfigMap>();
    maps.patch(&name, &params, &Patch::Apply(map))
        .await
        .unwrap();
    json!({"bootstrapManifests": [{"path": PATH, "contentHash": packed.hash}]})
}

async fn own(kit: &Kit, text: &str) {
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "own"}, "data": {"a.yaml": text},
    }))
    .unwrap();
    let maps = kit.api::<ConfigMap>();
    maps.create(&PostParams::default(), &map).await.unwrap();
}

/// All objects of a kind in the workload cluster, with the versions of their last writes.
async fn there(
    kit: &Kit,
    api_version: &str,
    kind: &str,
    plural: &str,
) -> BTreeMap<String, DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api = Api::<DynamicObject>::all_with(kit.workload("eu").await, &resource);
    let list = api.list(&ListParams::default()).await.unwrap();
    let named = list.items.into_iter().map(|o| (o.name_any(), o));
    named.collect()
}

fn told(world: &World) -> String {
    world.clusters.get("eu").map_or_else(String::new, |c| {
        of_cluster(c, kind::BOOTSTRAP_MANIFESTS_APPLIED)
    })
}

async fn until_told(kit: &mut Kit, want: &str) {
    kit.until(want, |w| told(w).starts_with(want).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_gets_its_manifests_before_it_counts_and_again_when_they_change() {
    let mut kit = Kit::start().await;
    kit.always(|w| {
        let Some(cluster) = w.clusters.get("eu") else {
            return Ok(());
        };
        let status = cluster.status.as_ref();
        let milestones = status.and_then(|s| s.initialization.as_ref());
        let had = milestones.is_some_and(|i| i.bootstrap_manifests_applied);
        match of_cluster(cluster, kind::AVAILABLE).starts_with("True") && !had {
            true => Err("available without its manifests".into()),
            false => Ok(()),
        }
    });
    let spec = keep(&kit, CNI).await;
    kit.cluster("eu", "v1.33.2", 1, spec).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    assert_eq!(told(&kit.world), "True Applied: ");
    // Whatever their order in the file: the kind came before its object, the namespace before what is in it.
    let pools = there(&kit, "example.org/v1", "Pool", "pools").await;
    assert_eq!(pools["pods"].data["spec"]["cidr"], "10.0.0.0/16");
    let sets = there(&kit, "apps/v1", "DaemonSet", "daemonsets").await;
    assert_eq!(sets["cni"].namespace().as_deref(), Some("cni"));
    let plain = there(&kit, "v1", "ServiceAccount", "serviceaccounts").await;
    assert_eq!(plain["plain"].namespace().as_deref(), Some("default"));
    let managers = pools["pods"].managed_fields().iter();
    let managers: Vec<_> = managers.filter_map(|m| m.manager.as_deref()).collect();
    assert_eq!(managers, ["fleetwright-bootstrap"]);

    // New controllers need not ask the cluster: nothing is written, here or there.
    let before = kit.world.clusters["eu"].resource_version();
    kit.stop_controllers().await;
    let (client, version) = (kit.client.clone(), plain["plain"].resource_version());
    kit.restart_over(client).await;
    kit.cluster("other", "v1.33.2", 1, json!({})).await;
    kit.until_settled("other").await;
    assert_eq!(kit.world.clusters["eu"].resource_version(), before);
    let plain = there(&kit, "v1", "ServiceAccount", "serviceaccounts").await;
    assert_eq!(plain["plain"].resource_version(), version);

    // A change reaches the cluster, and what is no longer said stays there.
    let from = CNI.find("apiVersion: v1\nkind: ServiceAccount").unwrap();
    let to = CNI.find("apiVersion: v1\nkind: Namespace").unwrap();
    let changed = format!("{}{}", &CNI[..from], &CNI[to..]).replace("10.0.0.0/16", "10.1.0.0/16");
    let spec = keep(&kit, &changed).await;
    let hash = |w: &World| {
        w.clusters["eu"]
            .status
            .as_ref()?
            .bootstrap_manifests_hash
            .clone()
    };
    let first = hash(&kit.world);
    kit.patch::<Cluster>("eu", json!({"spec": spec})).await;
    kit.until("the changed manifests", |w| {
        (hash(w) != first && w.settled("eu")).then_some(())
    })
    .await;
    let pools = there(&kit, "example.org/v1", "Pool", "pools").await;
    assert_eq!(pools["pods"].data["spec"]["cidr"], "10.1.0.0/16");
    let plain = there(&kit, "v1", "ServiceAccount", "serviceaccounts").await;
    assert_eq!(plain["plain"].resource_version(), version);

    // Given up, they stay as well, and nobody speaks of them.
    kit.patch::<Cluster>("eu", json!({"spec": {"bootstrapManifests": null}}))
        .await;
    kit.until("nothing is wanted", |w| {
        (told(w) == "none" && hash(w).is_none() && w.settled("eu")).then_some(())
    })
    .await;
    assert!(
        !there(&kit, "apps/v1", "DaemonSet", "daemonsets")
            .await
            .is_empty()
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_come_while_manifests_wait_and_a_refusal_says_what_to_change() {
    let mut kit = Kit::start().await;
    // The ConfigMap is not there yet.
    let spec = json!({"bootstrapManifests": [{"configMap": "own"}]});
    kit.cluster("eu", "v1.33.2", 1, spec).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    until_told(
        &mut kit,
        "False Applying: ConfigMap own: there is no ConfigMap own",
    )
    .await;
    kit.until("machines are made all the same", |w| {
        (w.workers("eu-web").len() == 1 && w.machines.values().all(crate::kit::is_available))
            .then_some(())
    })
    .await;
    let (cluster, pool) = (&kit.world.clusters["eu"], &kit.world.pools["eu-web"]);
    assert!(of_cluster(cluster, kind::AVAILABLE).starts_with("False"));
    assert!(status::pool_unconverged(Some(cluster), pool).is_some());
    // A name that no object can have: the cluster refuses it, and the others come all the same.
    own(
        &kit,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n",
    )
    .await;
    until_told(&mut kit, "False Refused: ConfigMap Not_A_Name: ").await;
    let refused = status::manifests_refused(&kit.world.clusters["eu"]).unwrap();
    assert!(refused.contains("Not_A_Name"), "{refused}");
    assert!(
        there(&kit, "v1", "ConfigMap", "configmaps")
            .await
            .contains_key("good")
    );

    // Others are another matter: a kind that nobody serves may come yet.
    let widget = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\n";
    let spec = keep(&kit, widget).await;
    kit.patch::<Cluster>("eu", json!({"spec": spec})).await;
    until_told(
        &mut kit,
        "False Applying: Widget w: kind Widget of example.org/v1 is not served yet",
    )
    .await;
    let definition = CNI[CNI.find("apiVersion: apiextensions").unwrap()..]
        .replace("Pool", "Widget")
        .replace("pool", "widget");
    let definition = yaml::parse(&definition).unwrap().remove(0).to_value();
    let crds = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crds =
        Api::<DynamicObject>::all_with(kit.workload("eu").await, &ApiResource::from_gvk(&crds));
    let definition = serde_json::from_value(definition).unwrap();
    crds.create(&PostParams::default(), &definition)
        .await
        .unwrap();
    until_told(&mut kit, "True Applied").await;
    kit.until_settled("eu").await;
    assert_eq!(
        there(&kit, "example.org/v1", "Widget", "widgets")
            .await
            .len(),
        1
    );

    // What Git does not hold yet is waited for, and not taken from what is there.
    let later = Packed::of(b"apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n").unwrap();
    let spec = json!({"bootstrapManifests": [{"path": PATH, "contentHash": later.hash}]});
    kit.patch::<Cluster>("eu", json!({"spec": spec})).await;
    until_told(&mut kit, "False Applying: cni.yaml: ConfigMap eu-manifest-").await;
    keep(
        &kit,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n",
    )
    .await;
    until_told(&mut kit, "True Applied").await;
    assert!(
        there(&kit, "v1", "Namespace", "namespaces")
            .await
            .contains_key("later")
    );
    kit.stop().await;
}
