//! Kinds of `providerConfig` in their places, what pools that a provider runs cannot say, and what a Cluster has to say for its machines.

use std::collections::BTreeMap;

use super::*;

/// The mistakes of one document, where control planes and groups have kinds of their own.
fn mistakes(text: &str) -> Vec<String> {
    let schema =
        |purpose: &str| json!({"type": "object", "x-fleetwright-for": purpose, "properties": {}});
    let schemas: BTreeMap<&str, Value> = [
        ("Plane", schema("ControlPlane")),
        ("Group", schema("Pool")),
        ("Machine", json!({"type": "object"})),
        (
            "Node",
            json!({"type": "object", "x-fleetwright-cluster": {"kind": "Net", "oneOf": ["balancer", "endpoint"]}}),
        ),
        ("Rack", json!({"type": "object", "x-fleetwright-cluster": {"kind": "Net"}})),
        ("Net", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
    ]
    .into();
    let file = SourceFile {
        path: "a.yaml".into(),
        content: Ok(text.as_bytes().to_vec()),
    };
    let context = LoadContext {
        provider_schema: &|version, kind| schemas.get(kind).filter(|_| version == "x/v1"),
        allow: &Allow::default(),
    };
    let loaded = load(&[file], &context);
    loaded.errors.iter().map(ToString::to_string).collect()
}

fn cluster(form: &str) -> String {
    format!(
        "apiVersion: fleetwright.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: eu}}\nspec:\n  version: v1.33.2\n  controlPlane:\n    {form}\n"
    )
}

fn pool(kind: &str, more: &str) -> String {
    format!(
        "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\nmetadata: {{name: web}}\nspec:\n  clusterName: eu\n  template:\n    spec:\n      providerConfig: {{apiVersion: x/v1, kind: {kind}, account: a}}\n{more}"
    )
}

#[test]
fn a_kind_is_for_its_place() {
    let config =
        |kind: &str| format!("providerConfig: {{apiVersion: x/v1, kind: {kind}, account: a}}");
    let managed = |kind: &str| cluster(&format!("managed: {{{}}}", config(kind)));
    let machines = |kind: &str| {
        cluster(&format!(
            "machines: {{template: {{spec: {{{}}}}}}}",
            config(kind)
        ))
    };
    for (text, want) in [
        (managed("Plane"), None),
        (
            managed("Group"),
            Some("Group is not for a control plane that a provider runs"),
        ),
        (
            managed("Machine"),
            Some("Machine is not for a control plane that a provider runs"),
        ),
        (machines("Machine"), None),
        (machines("Plane"), Some("Plane is not for machines")),
        (pool("Machine", ""), None),
        (pool("Group", ""), None),
        (pool("Plane", ""), Some("Plane is not for pools")),
    ] {
        let found = mistakes(&text);
        match want {
            None => assert_eq!(found, [""; 0], "{text}"),
            Some(want) => assert!(found.len() == 1 && found[0].contains(want), "{found:?}"),
        }
    }
}

#[test]
fn what_holds_for_machines_alone_is_refused_in_its_place() {
    let rollout = "  rollout:\n    strategy: {type: OnDelete}\n  revisionHistoryLimit: 3\n";
    assert_eq!(mistakes(&pool("Machine", rollout)), [""; 0]);
    assert_eq!(
        mistakes(&pool("Group", rollout)),
        [
            "a.yaml:9:3: spec.rollout does not hold for Group: leave it out; the provider rolls these nodes by bounds in providerConfig",
            "a.yaml:11:3: spec.revisionHistoryLimit does not hold for Group: leave it out; such a pool has no sets",
        ]
    );
    let own = "      failureDomain: a\n";
    let found = mistakes(&pool("Group", own));
    assert!(
        found.len() == 1 && found[0].starts_with("a.yaml:9:7: spec.template.spec.failureDomain"),
        "{found:?}"
    );
}

#[test]
fn a_cluster_says_what_the_machines_of_its_control_plane_need() {
    let machines = |kind: &str, own: &str| {
        let config = format!("providerConfig: {{apiVersion: x/v1, kind: {kind}, account: a}}");
        format!(
            "{}{own}",
            cluster(&format!("machines: {{template: {{spec: {{{config}}}}}}}"))
        )
    };
    let own = |kind: &str, more: &str| {
        format!("  providerConfig: {{apiVersion: x/v1, kind: {kind}, account: a{more}}}\n")
    };
    for (text, want) in [
        (machines("Machine", ""), None),
        (machines("Node", &own("Net", ", balancer: {}")), None),
        (machines("Node", &own("Net", ", endpoint: {host: b}")), None),
        (machines("Rack", &own("Net", "")), None),
        (
            machines("Node", ""),
            Some(
                "a.yaml:5:3: spec.providerConfig is missing: a control plane of Node needs Net with balancer or endpoint there",
            ),
        ),
        (
            machines("Rack", ""),
            Some(
                "a.yaml:5:3: spec.providerConfig is missing: a control plane of Rack needs Net there",
            ),
        ),
        (
            machines("Node", &own("Machine", "")),
            Some("a.yaml:8:44: a control plane of Node needs Net as spec.providerConfig"),
        ),
        (
            machines("Node", &own("Net", ", balancer: null")),
            Some(
                "a.yaml:8:19: spec.providerConfig sets none of balancer or endpoint: the API of a control plane of Node is reached by one of them",
            ),
        ),
        // A base may be completed by what is built on it.
        (
            machines("Node", "").replace("metadata: {name: eu}", "base: true"),
            None,
        ),
        // Pools of such machines join what somebody else made.
        (pool("Node", ""), None),
    ] {
        let found = mistakes(&text);
        assert_eq!(found, Vec::from_iter(want), "{text}");
    }
}
