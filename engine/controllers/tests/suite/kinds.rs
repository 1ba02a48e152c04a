//! The schemas of our kinds, as a real API server holds them: defaults, what is refused and in which words, what cannot change,
//! columns, short names and subresources.

use std::sync::Arc;

use fleetwright_api::{crds, random::SeededRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_store::Store;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::kit::{config, merge};

pub(crate) async fn client() -> Client {
    let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let ours: Vec<Value> = crds::all()
        .iter()
        .map(|c| serde_json::to_value(c).unwrap())
        .collect();
    server.install_crds(&ours).await.unwrap();
    server.client("default")
}

fn definition(kind: &str) -> CustomResourceDefinition {
    let all = crds::all();
    all.into_iter().find(|c| c.spec.names.kind == kind).unwrap()
}

pub(crate) fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let crd = definition(kind);
    let gvk = GroupVersionKind::gvk("fleetwright.dev", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &crd.spec.names.plural);
    if crd.spec.scope == "Namespaced" {
        Api::namespaced_with(client.clone(), "default", &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

/// A good object of each kind, as short as it may be.
fn good(kind: &str) -> Value {
    let template = json!({"spec": {"providerConfig": config("sim.small")}});
    let spec = match kind {
        "Cluster" => {
            json!({"version": "v1.33.2", "controlPlane": {"machines": {"template": template}}})
        }
        "MachineDeployment" | "MachineSet" => json!({"clusterName": "c", "template": template}),
        "Machine" => json!({"clusterName": "c", "providerConfig": config("sim.small")}),
        "MachineDrainRule" => json!({"drain": {"behavior": "Skip"}}),
        "MachineHealthCheck" => {
            json!({"clusterName": "c", "selector": {"matchLabels": {"pool": "web"}}})
        }
        "ProviderAccount" => json!({"provider": "sim", "region": "eu"}),
        "ExternalInstance" => json!({
            "account": "metal", "installation": "test", "clusterName": "c", "clusterKey": "k", "machine": "x",
            "instanceKey": "0123", "providerID": "external://default/x", "version": "v1.33.2",
            "providerConfig": config("sim.small"),
        }),
        "Fleet" => json!({"source": {"url": "https://git.example.com/fleet.git"}}),
        "CommitStatus" => json!({
            "fleet": "f", "repository": "o/n", "sha": "0".repeat(40), "context": "c",
            "wanted": {"state": "pending"},
        }),
        other => panic!("{other}"),
    };
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn object(kind: &str, change: Value) -> DynamicObject {
    let mut value = good(kind);
    merge(&mut value, change);
    // What is changed to null is left out.
    fn prune(value: &mut Value) {
        if let Value::Object(map) = value {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(prune);
        }
    }
    prune(&mut value);
    serde_json::from_value(value).unwrap()
}

const KINDS: [&str; 10] = [
    "Cluster",
    "CommitStatus",
    "ExternalInstance",
    "Fleet",
    "Machine",
    "MachineDeployment",
    "MachineDrainRule",
    "MachineHealthCheck",
    "MachineSet",
    "ProviderAccount",
];

#[tokio::test]
async fn short_objects_are_good_and_get_their_defaults() {
    let client = client().await;
    for (kind, change, at, want) in [
        (
            "Cluster",
            json!({}),
            "/spec/controlPlane/machines/replicas",
            json!(1),
        ),
        (
            "Cluster",
            json!({"spec": {"upgrade": {}}}),
            "/spec/upgrade/maxSurge",
            json!(1),
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": {"replicas": null}}}}),
            "/spec/controlPlane/machines/replicas",
            json!(1),
        ),
        ("MachineDeployment", json!({}), "/spec/replicas", json!(1)),
        (
            "MachineDeployment",
            json!({}),
            "/spec/revisionHistoryLimit",
            json!(10),
        ),
        (
            "MachineDeployment",
            json!({"spec": {"deletion": {}}}),
            "/spec/deletion/order",
            json!("Random"),
        ),
        (
            "MachineDeployment",
            json!({"spec": {"rollout": {"strategy": {}}}}),
            "/spec/rollout/strategy/type",
            json!("RollingUpdate"),
        ),
        (
            "MachineDeployment",
            json!({"spec": {"rollout": {"strategy": {"rollingUpdate": {}}}}}),
            "/spec/rollout/strategy/rollingUpdate",
            json!({"maxSurge": 1, "maxUnavailable": 0}),
        ),
        (
            "MachineDeployment",
            json!({"spec": {"template": {"spec": {"deletion": {}}}}}),
            "/spec/template/spec/deletion",
            json!({"nodeDrainTimeoutSeconds": 1800, "nodeVolumeDetachTimeoutSeconds": 600, "nodeDeletionTimeoutSeconds": 60}),
        ),
        ("MachineSet", json!({}), "/spec/replicas", json!(1)),
        ("Machine", json!({}), "/spec/clusterName", json!("c")),
        ("ProviderAccount", json!({}), "/spec/region", json!("eu")),
        (
            "Fleet",
            json!({}),
            "/spec/source/intervalSeconds",
            json!(60),
        ),
        (
            "Fleet",
            json!({}),
            "/spec/progressDeadlineSeconds",
            json!(1800),
        ),
        (
            "Fleet",
            json!({"spec": {"prune": {}}}),
            "/spec/prune/maxMachines",
            json!(10),
        ),
        (
            "Fleet",
            json!({"spec": {"drift": {}}}),
            "/spec/drift/policy",
            json!("report"),
        ),
        ("CommitStatus", json!({}), "/spec/forge", json!("github")),
        // A provider's own fields are kept, whatever they are, and none of its defaults is stored.
        (
            "Machine",
            json!({"spec": {"providerConfig": {"own": {"deep": [1, {"x": null}]}}}}),
            "/spec/providerConfig/own",
            json!({"deep": [1, {"x": null}]}),
        ),
    ] {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let made = api(&client, kind)
            .create(&params, &object(kind, change.clone()))
            .await;
        let made = made.unwrap_or_else(|e| panic!("{kind} {change}: {e}"));
        let value = serde_json::to_value(made).unwrap();
        assert_eq!(value.pointer(at), Some(&want), "{kind} {change}");
    }
}

#[tokio::test]
async fn bad_objects_are_refused_in_words_that_say_what_to_do() {
    let client = client().await;
    let config = || config("sim.small");
    let rolling = |surge: Value, unavailable: Value| json!({"spec": {"rollout": {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}});
    for (kind, change, words) in [
        (
            "Cluster",
            json!({"spec": {"version": "1.33"}}),
            "spec.version: Invalid value",
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": null}}}),
            "set exactly one of machines, managed and external",
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"managed": {"providerConfig": config()}}}}),
            "set exactly one of machines, managed and external",
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": {"replicas": 2}}}}),
            "set 1, 3, 5, 7 or 9",
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": {"replicas": 0}}}}),
            "greater than or equal to 1",
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": {"template": {"spec": {"version": "v1.33.2"}}}}}}),
            "the control plane's version is the cluster's: leave it out here",
        ),
        (
            "Cluster",
            json!({"spec": {"upgrade": {"maxSurge": 2}}}),
            "less than or equal to 1",
        ),
        (
            "Cluster",
            json!({"spec": {"clusterNetwork": {"pods": {"cidrBlocks": []}}}}),
            "at least 1 items",
        ),
        (
            "Cluster",
            json!({"spec": {"bootstrapManifests": [{}]}}),
            "set exactly one of path and configMap",
        ),
        (
            "Cluster",
            json!({"metadata": {"name": "c".repeat(64)}}),
            "at most 63 characters: choose a shorter one",
        ),
        (
            "MachineDeployment",
            json!({"metadata": {"name": "c".repeat(64)}}),
            "at most 63 characters",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"clusterName": null}}),
            "spec.clusterName: Required value",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"replicas": -1}}),
            "greater than or equal to 0",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"template": {"spec": {"providerConfig": {"account": null}}}}}),
            "account: Required value",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"template": {"spec": {"version": "latest"}}}}),
            "spec.template.spec.version",
        ),
        (
            "MachineDeployment",
            rolling(json!(0), json!(0)),
            "cannot both be 0: set one of them to 1 or more",
        ),
        (
            "MachineDeployment",
            rolling(json!(0), Value::Null),
            "cannot both be 0",
        ),
        (
            "MachineDeployment",
            rolling(json!("5"), json!(0)),
            "or a percentage such as \"25%\"",
        ),
        (
            "MachineDeployment",
            rolling(json!(1), json!("many")),
            "or a percentage such as \"25%\"",
        ),
        (
            "MachineDeployment",
            rolling(json!(-1), json!(1)),
            "write a number of machines",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"rollout": {"strategy": {"type": "Recreate"}}}}),
            "supported values: \"RollingUpdate\", \"OnDelete\"",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"template": {"spec": {"taints": [
                {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"},
            ]}}}}),
            "Duplicate value",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 0}}}}}),
            "greater than or equal to 1",
        ),
        (
            "Machine",
            json!({"spec": {"instanceKey": "short"}}),
            "spec.instanceKey",
        ),
        (
            "Fleet",
            json!({"metadata": {"name": "f".repeat(51)}}),
            "at most 50 characters: choose a shorter one",
        ),
        (
            "Fleet",
            json!({"spec": {"source": {"directory": "/x"}}}),
            "set exactly one of url and directory",
        ),
        (
            "Fleet",
            json!({"spec": {"source": {"url": null}}}),
            "set exactly one of url and directory",
        ),
        (
            "Fleet",
            json!({"spec": {"source": {"url": "http://x/y"}}}),
            "url must begin with https://, ssh:// or file://",
        ),
        (
            "Fleet",
            json!({"spec": {"source": {"ref": {"branch": "a", "tag": "b"}}}}),
            "set at most one of branch, tag, semver and commit",
        ),
        (
            "Fleet",
            json!({"spec": {"allow": {"kinds": ["Cluster", "Cluster"]}}}),
            "Duplicate value",
        ),
        (
            "ProviderAccount",
            json!({"spec": {"provider": null}}),
            "spec.provider: Required value",
        ),
        (
            "CommitStatus",
            json!({"spec": {"wanted": {"state": "green"}}}),
            "supported values",
        ),
    ] {
        let made = api(&client, kind)
            .create(&PostParams::default(), &object(kind, change.clone()))
            .await;
        match made {
            Err(kube::Error::Api(status)) => {
                assert_eq!(status.code, 422, "{kind} {change}: {status:?}");
                assert!(
                    status.message.contains(words),
                    "{kind} {change}: {}",
                    status.message
                );
            }
            other => panic!("{kind} {change} should be refused with {words:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_may_never_change_does_not() {
    let client = client().await;
    let key = "0".repeat(32);
    let managed = json!({"providerConfig": config("sim.small")});
    let selector = json!({"matchLabels": {"fleetwright.dev/a": "b"}});
    for (kind, first, change, words) in [
        (
            "Cluster",
            json!({}),
            json!({"spec": {"controlPlane": {"machines": null, "managed": managed}}}),
            "the form of the control plane is immutable: make another cluster",
        ),
        (
            "MachineDeployment",
            json!({}),
            json!({"spec": {"clusterName": "d"}}),
            "clusterName is immutable: make another pool",
        ),
        (
            "MachineSet",
            json!({}),
            json!({"spec": {"clusterName": "d"}}),
            "clusterName is immutable: make another set",
        ),
        (
            "Machine",
            json!({}),
            json!({"spec": {"clusterName": "d"}}),
            "clusterName is immutable: make another machine",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"selector": selector}}),
            json!({"spec": {"selector": {"matchLabels": {"fleetwright.dev/a": "c"}}}}),
            "selector is immutable: leave it",
        ),
        (
            "MachineDeployment",
            json!({"spec": {"selector": selector}}),
            json!({"spec": {"selector": null}}),
            "selector is immutable: leave it",
        ),
        (
            "MachineDeployment",
            json!({}),
            json!({"spec": {"selector": selector}}),
            "selector is immutable: leave it",
        ),
        (
            "Machine",
            json!({"spec": {"instanceKey": key}}),
            json!({"spec": {"instanceKey": "1".repeat(32)}}),
            "instanceKey is immutable",
        ),
        (
            "Machine",
            json!({"spec": {"instanceKey": key}}),
            json!({"spec": {"instanceKey": null}}),
            "instanceKey is immutable",
        ),
        (
            "ProviderAccount",
            json!({}),
            json!({"spec": {"region": "us"}}),
            "region is immutable: make another ProviderAccount",
        ),
        (
            "ProviderAccount",
            json!({}),
            json!({"spec": {"region": null}}),
            "region is immutable: make another ProviderAccount",
        ),
    ] {
        let api = api(&client, kind);
        api.create(&PostParams::default(), &object(kind, first))
            .await
            .unwrap();
        let changed = api
            .patch("x", &PatchParams::default(), &Patch::Merge(&change))
            .await;
        match changed {
            Err(kube::Error::Api(status)) => {
                assert!(
                    status.message.contains(words),
                    "{kind} {change}: {}",
                    status.message
                );
            }
            other => panic!("{kind} {change} should be refused with {words:?}: {other:?}"),
        }
        api.delete("x", &Default::default()).await.unwrap();
    }
    // What may change: a key is drawn once, a lower version is accepted, and any form of a control plane is good from the start.
    for (kind, first, change) in [
        ("Machine", json!({}), json!({"spec": {"instanceKey": key}})),
        (
            "Cluster",
            json!({}),
            json!({"spec": {"version": "v1.20.0"}}),
        ),
        (
            "Cluster",
            json!({"spec": {"controlPlane": {"machines": null, "external": {"kubeconfigSecretRef": {"name": "s"}}}}}),
            json!({"spec": {"controlPlane": {"external": {"kubeconfigSecretRef": {"name": "t"}}}}}),
        ),
        (
            "MachineDeployment",
            json!({}),
            json!({"spec": {"replicas": 0, "template": {"spec": {"version": "v1.32.0"}}}}),
        ),
    ] {
        let api = api(&client, kind);
        api.create(&PostParams::default(), &object(kind, first))
            .await
            .unwrap();
        let changed = api
            .patch("x", &PatchParams::default(), &Patch::Merge(&change))
            .await;
        changed.unwrap_or_else(|e| panic!("{kind} {change}: {e}"));
        api.delete("x", &Default::default()).await.unwrap();
    }
}

#[test]
fn names_categories_subresources_and_columns() {
    let columns = |kind: &str, wide: bool| -> String {
        let version = definition(kind).spec.versions.remove(0);
        let all = version.additional_printer_columns.unwrap_or_default();
        all.iter()
            .filter(|c| (c.priority.unwrap_or(0) > 0) == wide)
            .map(|c| c.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (kind, short, scale) in [
        ("Cluster", "cl", false),
        ("MachineDeployment", "md", true),
        ("MachineSet", "ms", true),
        ("Machine", "ma", false),
    ] {
        let crd = definition(kind);
        assert_eq!(crd.spec.names.short_names, Some(vec![short.to_owned()]));
        let sub = crd.spec.versions[0].subresources.clone().unwrap();
        assert_eq!(sub.scale.is_some(), scale, "{kind}");
        if let Some(scale) = sub.scale {
            assert_eq!(scale.spec_replicas_path, ".spec.replicas");
            assert_eq!(scale.status_replicas_path, ".status.replicas");
            assert_eq!(
                scale.label_selector_path.as_deref(),
                Some(".status.selector")
            );
        }
    }
    for kind in KINDS {
        let crd = definition(kind);
        assert_eq!(
            crd.spec.names.categories,
            Some(vec!["fleetwright".to_owned()])
        );
        // A drain rule is only read.
        let sub = crd.spec.versions[0].subresources.clone();
        let status = sub.is_some_and(|s| s.status.is_some());
        assert_eq!(status, kind != "MachineDrainRule", "{kind}");
        assert_eq!(
            crd.spec.scope,
            if kind == "ProviderAccount" {
                "Cluster"
            } else {
                "Namespaced"
            }
        );
        assert_eq!(
            crd.name_any(),
            format!("{}.fleetwright.dev", crd.spec.names.plural)
        );
    }
    assert_eq!(crds::all().len(), KINDS.len());
    assert_eq!(
        columns("Cluster", false),
        "Available, CP Desired, CP Available, CP Up-To-Date, W Desired, W Available, W Up-To-Date, Phase, Age, Version"
    );
    assert_eq!(
        columns("Cluster", true),
        "CP Current, CP Ready, W Current, W Ready, Paused, Running"
    );
    assert_eq!(
        columns("MachineDeployment", false),
        "Cluster, Available, Desired, Current, Ready, Available, Up-To-Date, Phase, Age, Version"
    );
    assert_eq!(columns("MachineDeployment", true), "Paused");
    assert_eq!(
        columns("MachineSet", false),
        "Cluster, Desired, Current, Ready, Available, Up-To-Date, Age, Version"
    );
    assert_eq!(
        columns("Machine", false),
        "Cluster, Node Name, Failure Domain, Ready, Available, Up-To-Date, Phase, Age, Version"
    );
    assert_eq!(
        columns("Machine", true),
        "Provider ID, Internal-IP, External-IP, OS-Image, Paused"
    );
    assert_eq!(
        columns("Fleet", false),
        "Ready, Observed, Settled, Objects, Age"
    );
    assert_eq!(
        columns("ProviderAccount", false),
        "Provider, Region, Ready, Age"
    );
    assert_eq!(
        columns("ExternalInstance", false),
        "Cluster, Machine, Version, Image, State, To Release, Age"
    );
    assert_eq!(
        columns("CommitStatus", false),
        "Repository, Commit, Wanted, Posted, Age"
    );
}
