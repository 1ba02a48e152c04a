//! Control planes that a provider runs: made, brought up minor by minor, reached, and taken away.

use fleetwright_api::{Cluster, Machine, ProviderAccount, cluster::ClusterPhase, condition::kind};
use fleetwright_providers::ProviderError;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    estate::TOKEN_SECONDS,
    kit::{Kit, of_cluster, of_pool},
};

fn to(version: &str) -> Value {
    json!({"spec": {"version": version}})
}

/// The kubeconfig that is stored for a cluster.
async fn kubeconfig(kit: &Kit, cluster: &str) -> Value {
    let secret = kit
        .api::<Secret>()
        .get(&format!("{cluster}-kubeconfig"))
        .await
        .unwrap();
    let data = secret.data.unwrap();
    serde_json::from_slice(&data["value"].0).unwrap()
}

fn token(kubeconfig: &Value) -> &str {
    kubeconfig["users"][0]["user"]["token"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_made_goes_up_by_minors_is_held_and_rests() {
    let mut kit = Kit::start().await;
    let key = kit.managed_cluster("eu", "v1.31.0").await;
    kit.until("it is being made", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::CONTROL_PLANE_AVAILABLE);
        (line == "False NotAvailable: the provider makes it").then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    let status = kit.world.clusters["eu"].status.clone().unwrap();
    assert_eq!(status.phase, Some(ClusterPhase::Provisioned));
    assert_eq!(status.version.as_deref(), Some("v1.31.0"));
    let endpoint = status.control_plane_endpoint.unwrap();
    assert_eq!(
        (endpoint.host.as_str(), endpoint.port),
        ("plane.test", 6443)
    );
    let config = kubeconfig(&kit, "eu").await;
    assert_eq!(token(&config), "token-1");
    let server = &config["clusters"][0]["cluster"];
    assert_eq!(server["server"], "https://plane.test:6443");
    assert_eq!(server["certificate-authority-data"], "UEVN");

    kit.patch::<Cluster>("eu", to("v1.34.0")).await;
    kit.until("the status tells of the step first", |w| {
        let status = w.clusters["eu"].status.as_ref()?;
        (status.upgrading_to.as_deref() == Some("v1.32.0")).then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    let mut steps = vec![
        "create default/eu v1.31.0".to_owned(),
        "default/eu runs v1.31.0".to_owned(),
    ];
    for minor in 32..35 {
        steps.push(format!("update default/eu to v1.{minor}.0"));
        steps.push(format!("default/eu runs v1.{minor}.0"));
    }
    assert_eq!(kit.estate.journal(), steps);
    assert_eq!(
        kit.world.clusters["eu"]
            .status
            .as_ref()
            .unwrap()
            .upgrading_to,
        None
    );

    kit.patch::<Cluster>("eu", to("v1.33.0")).await;
    let line = kit
        .until("the older version is held", |w| {
            let line = of_cluster(&w.clusters["eu"], kind::VERSION_HELD);
            line.starts_with("True").then_some(line)
        })
        .await;
    assert_eq!(
        line,
        "True VersionBelowRunning: stays at v1.34.0: a control plane never goes back to an older minor version (v1.33.0); set version to v1.34.0 or newer"
    );
    kit.patch::<Cluster>("eu", to("v1.34.0")).await;
    kit.until("nothing is held", |w| {
        of_cluster(&w.clusters["eu"], kind::VERSION_HELD)
            .starts_with("False")
            .then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    assert_eq!(kit.estate.journal(), steps, "nothing of it went back");

    // Whatever wakes it: nothing is asked and nothing is written.
    let note = json!({"metadata": {"annotations": {"note": "a"}}});
    kit.patch::<Cluster>("eu", note).await;
    let (version, calls) = (
        kit.world.clusters["eu"].resource_version(),
        kit.estate.calls_for(&key),
    );
    kit.managed_cluster("us", "v1.33.0").await;
    kit.until_converged("us").await;
    assert_eq!(kit.estate.calls_for(&key), calls);
    assert_eq!(kit.world.clusters["eu"].resource_version(), version);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nobody_remembers_is_looked_at_before_it_is_ordered() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.31.0").await;
    kit.until_converged("eu").await;
    kit.stop_controllers().await;
    let forgotten = Patch::Merge(json!({"status": null}));
    let api = kit.api::<Cluster>();
    api.patch_status("eu", &PatchParams::default(), &forgotten)
        .await
        .unwrap();
    kit.patch::<Cluster>("eu", to("v1.33.0")).await;
    let made = kit.estate.journal().len();
    kit.start_controllers();
    kit.until("it has come up", |w| {
        let status = w.clusters["eu"].status.as_ref()?;
        (status.version.as_deref() == Some("v1.33.0")).then_some(())
    })
    .await;
    let steps = kit.estate.journal().split_off(made);
    assert_eq!(
        steps,
        [
            "update default/eu to v1.32.0",
            "default/eu runs v1.32.0",
            "update default/eu to v1.33.0",
            "default/eu runs v1.33.0",
        ]
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_changes_in_place_and_one_that_cannot_is_told() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.33.0").await;
    kit.until_converged("eu").await;
    let set = |name: &str, value: Value| json!({"spec": {"controlPlane": {"managed": {"providerConfig": {name: value}}}}});
    kit.patch::<Cluster>("eu", set("size", json!(2))).await;
    kit.until("it changes", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::ROLLING_OUT);
        line.contains("the provider changes the control plane")
            .then_some(())
    })
    .await;
    kit.until_converged("eu").await;
    kit.patch::<Cluster>("eu", set("network", json!("b"))).await;
    kit.until("it says what cannot be", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::INFRASTRUCTURE_READY);
        (line == "False Terminal: the provider call failed: network cannot change").then_some(())
    })
    .await;
    let calls = kit.estate.calls("ensure");
    for n in 0..3 {
        let note = json!({"metadata": {"annotations": {"note": n.to_string()}}});
        kit.patch::<Cluster>("eu", note).await;
    }
    kit.patch::<Cluster>("eu", set("network", Value::Null))
        .await;
    kit.until_converged("eu").await;
    assert!(
        kit.estate.calls("ensure") <= calls + 1,
        "what is refused is not asked again"
    );
    let account =
        json!({"spec": {"controlPlane": {"managed": {"providerConfig": {"account": "another"}}}}});
    let api = kit.api::<Cluster>();
    let refused = api
        .patch("eu", &PatchParams::default(), &Patch::Merge(account))
        .await;
    assert!(refused.unwrap_err().to_string().contains("are immutable"));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_patience_and_refused_credentials_end_with_their_cause() {
    let mut kit = Kit::start().await;
    kit.estate.lock_out(true);
    kit.managed_cluster("eu", "v1.33.0").await;
    let line = kit
        .until("the credentials are refused", |w| {
            let line = of_cluster(w.clusters.get("eu")?, kind::INFRASTRUCTURE_READY);
            line.starts_with("False CredentialsRefused").then_some(line)
        })
        .await;
    assert!(
        line.ends_with("credentials refused: the key is unknown"),
        "{line}"
    );
    for n in 0..3 {
        let note = json!({"metadata": {"annotations": {"note": n.to_string()}}});
        kit.patch::<Cluster>("eu", note).await;
    }
    assert_eq!(
        (kit.estate.calls("get"), kit.estate.calls("ensure")),
        (1, 0)
    );
    kit.estate.lock_out(false);
    let message = || "the test says so".to_owned();
    kit.estate
        .fail("ensure", ProviderError::Throttled { after_ms: 50 }, false);
    kit.estate.fail(
        "ensure",
        ProviderError::Ambiguous { message: message() },
        true,
    );
    kit.estate
        .fail("access", ProviderError::Throttled { after_ms: 50 }, false);
    // Another account is another order.
    let accounts = Api::<ProviderAccount>::all(kit.client.clone());
    let change = Patch::Merge(json!({"spec": {"quotas": {"instances": 5}}}));
    accounts
        .patch("estate", &PatchParams::default(), &change)
        .await
        .unwrap();
    kit.until_converged("eu").await;
    assert_eq!(
        kit.estate.journal(),
        ["create default/eu v1.33.0", "default/eu runs v1.33.0"]
    );
    kit.until("nothing is wrong any more", |w| {
        (of_cluster(&w.clusters["eu"], kind::INFRASTRUCTURE_READY) == "True Ready: ").then_some(())
    })
    .await;
    assert_eq!(token(&kubeconfig(&kit, "eu").await), "token-1");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_at_half_of_its_life() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.33.0").await;
    kit.until_converged("eu").await;
    kit.ward.ahead(TOKEN_SECONDS / 2 - 60);
    kit.pass("eu").await;
    assert_eq!(token(&kubeconfig(&kit, "eu").await), "token-1");
    kit.ward.ahead(TOKEN_SECONDS / 2 + 60);
    let before = kit.estate.calls("ensure");
    kit.pass("eu").await;
    let renewed = kubeconfig(&kit, "eu").await;
    assert_ne!(token(&renewed), "token-1");
    assert!(
        kit.estate.calls("ensure") > before,
        "the other cluster was made"
    );
    // A process that did not write it does not know how long it holds.
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.pass("eu").await;
    assert_ne!(token(&kubeconfig(&kit, "eu").await), token(&renewed));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_after_its_pools_and_nothing_of_others_does() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.33.0").await;
    kit.group("eu-web", "eu", 2).await;
    let theirs = kit.managed_cluster("us", "v1.33.0").await;
    kit.until_converged("eu").await;
    kit.until_converged("us").await;
    let made = kit.estate.journal().len();
    let clusters = kit.api::<Cluster>();
    clusters
        .delete("eu", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("it waits for its control plane", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::DELETING);
        (line == "True WaitingForControlPlaneDeletion: waiting for the provider to delete the control plane").then_some(())
    })
    .await;
    kit.until("it is gone", |w| {
        (!w.clusters.contains_key("eu")).then_some(())
    })
    .await;
    assert_eq!(
        kit.estate.journal()[made..],
        [
            "delete eu-web",
            "eu-web is gone",
            "delete default/eu",
            "default/eu is gone"
        ]
    );
    assert!(kit.world.pools.is_empty());
    // What is somebody else's by now is left alone, and says so.
    kit.estate.belongs_to_others(&theirs);
    clusters
        .delete("us", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("it cannot go", |w| {
        let line = of_cluster(w.clusters.get("us")?, kind::DELETING);
        line.contains("is not of installation test").then_some(())
    })
    .await;
    assert_eq!(kit.estate.journal().len(), made + 4);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_of_machines_follow_a_control_plane_that_the_provider_runs() {
    let mut kit = Kit::start().await;
    kit.managed_cluster("eu", "v1.32.0").await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until("it waits for the control plane", |w| {
        let line = of_pool(w.pools.get("eu-web")?, kind::AVAILABLE);
        line.contains("waits for the control plane to run v1.32.0")
            .then_some(())
    })
    .await;
    // The simulated cloud's machines run in its own clusters alone: that they are made, and of which version, is seen all the same.
    for version in ["v1.32.0", "v1.33.0"] {
        kit.patch::<Cluster>("eu", to(version)).await;
        let what = format!("a machine of {version}");
        kit.until(&what, |w| {
            let of = |m: &&Machine| m.spec.content.version.as_deref() == Some(version);
            let workers = w.workers("eu-web");
            let made = workers.iter().any(of);
            made.then_some(())
        })
        .await;
    }
    kit.stop().await;
}
