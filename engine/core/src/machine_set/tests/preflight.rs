//! Cluster API's table of checks before a set makes machines (TestMachineSetReconciler_runPreflightChecks), in our form: its rows on
//! kubeadm's templates are left out, for there are none, and a control plane that upgrades holds up only what needs the upgrade.

use fleetwright_api::{Cluster, MachineDeployment, MachineSet, meta};
use serde_json::{Value, json};

use crate::machine_set::preflight;

fn cluster(status: Value) -> Cluster {
    serde_json::from_value(json!({
        "metadata": {"name": "c"},
        "spec": {"version": "v1.27.2", "controlPlane": {"machines": {"template": {"spec": {"providerConfig": {}}}}}},
        "status": status,
    }))
    .unwrap()
}

fn set(version: Option<&str>) -> MachineSet {
    serde_json::from_value(json!({
        "metadata": {"name": "s"},
        "spec": {"clusterName": "c", "template": {"spec": {"version": version, "providerConfig": {}}}},
    }))
    .unwrap()
}

fn run(status: Value, version: Option<&str>) -> Vec<String> {
    let failures = preflight(&set(version), None, &cluster(status));
    failures.iter().map(ToString::to_string).collect()
}

#[test]
fn checks_fail_as_the_table_says() {
    let newer = "version v1.27.0 is higher than the control plane's v1.26.2 (\"KubernetesVersionSkew\" preflight check failed)";
    let runs = |version: &str| json!({"version": version});
    for (name, status, version, want) in [
        (
            "the control plane has not served",
            json!({}),
            Some("v1.26.2"),
            vec![
                "the control plane of c is provisioning (\"ControlPlaneIsStable\" preflight check failed)",
            ],
        ),
        (
            "its version is none",
            runs("latest"),
            Some("v1.26.2"),
            vec![
                "\"latest\" is no Kubernetes version: write it like v1.33.2 (\"KubernetesVersionSkew\" preflight check failed)",
            ],
        ),
        ("the set has no version", runs("v1.26.2"), None, vec![]),
        (
            "the set's version is none",
            runs("v1.27.0"),
            Some("v1.27.0.0"),
            vec![
                "\"v1.27.0.0\" is no Kubernetes version: write it like v1.33.2 (\"KubernetesVersionSkew\" preflight check failed)",
            ],
        ),
        (
            "higher than the control plane's",
            runs("v1.26.2"),
            Some("v1.27.0"),
            vec![newer],
        ),
        (
            "more than three minors behind",
            runs("v1.28.0"),
            Some("v1.24.0"),
            vec![
                "version v1.24.0 is more than 3 minor versions older than the control plane's v1.28.0 (\"KubernetesVersionSkew\" preflight check failed)",
            ],
        ),
        ("one minor behind", runs("v1.26.2"), Some("v1.25.0"), vec![]),
        ("another patch", runs("v1.26.2"), Some("v1.26.0"), vec![]),
        ("a higher patch", runs("v1.26.2"), Some("v1.26.9"), vec![]),
        (
            "the control plane upgrades, and the set is the current one",
            json!({"version": "v1.26.2", "upgradingTo": "v1.27.2"}),
            Some("v1.26.2"),
            vec![],
        ),
        (
            "it upgrades, and the set needs that",
            json!({"version": "v1.26.2", "upgradingTo": "v1.27.2"}),
            Some("v1.27.0"),
            vec![
                "the control plane of c is upgrading from v1.26.2 to v1.27.2 (\"ControlPlaneIsStable\" preflight check failed)",
                newer,
            ],
        ),
        (
            "it upgrades away from the set",
            json!({"version": "v1.26.2", "upgradingTo": "v1.27.2"}),
            Some("v1.23.9"),
            vec![
                "version v1.23.9 is more than 3 minor versions older than the control plane's v1.27.2 (\"KubernetesVersionSkew\" preflight check failed)",
            ],
        ),
    ] {
        assert_eq!(run(status, version), want, "{name}");
    }
    let mut foreign = cluster(json!({}));
    foreign.spec.control_plane.machines = None;
    let external = json!({"kubeconfigSecretRef": {"name": "x"}});
    foreign.spec.control_plane.external = serde_json::from_value(external).unwrap();
    let failures = preflight(&set(Some("v1.27.0")), None, &foreign);
    let checks: Vec<&str> = failures.iter().map(|f| f.check()).collect();
    assert_eq!(checks, ["ControlPlaneIsStable"], "nobody knows its version");
}

/// TestMachineSetReconciler_shouldRunPreflightCheck.
#[test]
fn checks_are_skipped_by_annotation_on_the_set_or_its_pool() {
    let upgrading = cluster(json!({"version": "v1.26.2", "upgradingTo": "v1.27.2"}));
    let annotated = |text: &str| {
        Some(
            [(
                meta::ANNOTATION_SKIP_PREFLIGHT_CHECKS.to_owned(),
                text.to_owned(),
            )]
            .into(),
        )
    };
    for (list, left) in [
        ("", vec!["ControlPlaneIsStable", "KubernetesVersionSkew"]),
        ("ControlPlaneIsStable", vec!["KubernetesVersionSkew"]),
        ("KubernetesVersionSkew", vec!["ControlPlaneIsStable"]),
        ("ControlPlaneIsStable, KubernetesVersionSkew", vec![]),
        ("All", vec![]),
        (
            "Other",
            vec!["ControlPlaneIsStable", "KubernetesVersionSkew"],
        ),
    ] {
        let mut own = set(Some("v1.27.0"));
        own.metadata.annotations = annotated(list);
        let plain = set(Some("v1.27.0"));
        let mut pool = MachineDeployment::default();
        pool.metadata.annotations = annotated(list);
        for failures in [
            preflight(&own, None, &upgrading),
            preflight(&plain, Some(&pool), &upgrading),
        ] {
            let checks: Vec<&str> = failures.iter().map(|f| f.check()).collect();
            assert_eq!(checks, left, "{list}");
        }
    }
}
