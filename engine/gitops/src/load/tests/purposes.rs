//! Kinds of `providerConfig` in their places, and what pools that a provider runs cannot say.

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
