//! Impossible specs are refused, each with the path of the field.

use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::{
    kinds::{api, client},
    kit::{config, merge},
};

fn object(kind: &str, change: Value) -> DynamicObject {
    let template = json!({"spec": {"providerConfig": config("sim.small")}});
    let spec = match kind {
        "Cluster" => {
            json!({"version": "v1.33.2", "controlPlane": {"machines": {"template": template}}})
        }
        "Machine" => json!({"clusterName": "c", "providerConfig": config("sim.small")}),
        "MachineDrainRule" => json!({"drain": {"behavior": "Skip"}}),
        _ => json!({"clusterName": "c", "template": template}),
    };
    let mut value = json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec,
    });
    merge(&mut value["spec"], change);
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn impossible_specs_are_refused_with_the_fields_path() {
    let client = client().await;
    let rolling = |surge: Value, unavailable: Value| json!({"rollout": {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
    let machine = |content: Value| json!({"template": {"spec": content}});
    let labels = |selector: Value, labels: Value| json!({"selector": selector, "template": {"metadata": {"labels": labels}}});
    let like = json!([{"key": "a", "operator": "Like", "values": ["b"]}]);
    for (kind, change, path, words) in [
        (
            "MachineDeployment",
            json!({"replicas": -1}),
            "spec.replicas",
            "greater than or equal to 0",
        ),
        (
            "MachineSet",
            json!({"replicas": -1}),
            "spec.replicas",
            "greater than or equal to 0",
        ),
        (
            "MachineDeployment",
            json!({"revisionHistoryLimit": -1}),
            "spec.revisionHistoryLimit",
            "greater than or equal to 0",
        ),
        (
            "MachineDeployment",
            machine(json!({"minReadySeconds": -1})),
            "spec.template.spec.minReadySeconds",
            "greater than or equal to 0",
        ),
        (
            "Machine",
            json!({"deletion": {"nodeVolumeDetachTimeoutSeconds": -1}}),
            "spec.deletion.nodeVolumeDetachTimeoutSeconds",
            "greater than or equal to 1",
        ),
        (
            "Machine",
            json!({"deletion": {"nodeDeletionTimeoutSeconds": 0}}),
            "spec.deletion.nodeDeletionTimeoutSeconds",
            "greater than or equal to 1",
        ),
        (
            "MachineDeployment",
            rolling(json!(-1), json!(1)),
            "spec.rollout.strategy.rollingUpdate.maxSurge",
            "write a number of machines",
        ),
        (
            "MachineDeployment",
            rolling(json!(1), json!("-5%")),
            "spec.rollout.strategy.rollingUpdate.maxUnavailable",
            "write a number of machines",
        ),
        (
            "MachineDeployment",
            rolling(json!(0), json!(0)),
            "spec.rollout.strategy.rollingUpdate",
            "cannot both be 0",
        ),
        (
            "MachineDeployment",
            rolling(json!("0%"), json!("0%")),
            "spec.rollout.strategy.rollingUpdate",
            "cannot both be 0",
        ),
        (
            "MachineDeployment",
            rolling(json!("00%"), json!(0)),
            "spec.rollout.strategy.rollingUpdate",
            "cannot both be 0",
        ),
        (
            "MachineDeployment",
            json!({"remediation": {"maxInFlight": -1}}),
            "spec.remediation.maxInFlight",
            "write a number of machines",
        ),
        (
            "Cluster",
            json!({"version": "v1.33"}),
            "spec.version",
            "Invalid value",
        ),
        (
            "Cluster",
            json!({"version": "latest"}),
            "spec.version",
            "Invalid value",
        ),
        (
            "Cluster",
            json!({"version": "v1.033.2"}),
            "spec.version",
            "Invalid value",
        ),
        (
            "MachineDeployment",
            machine(json!({"version": "1.33"})),
            "spec.template.spec.version",
            "Invalid value",
        ),
        (
            "MachineDeployment",
            labels(json!({"matchLabels": {"a": "b"}}), json!({"a": "c"})),
            "spec.selector",
            "does not match the template's labels",
        ),
        (
            "MachineDeployment",
            labels(json!({"matchLabels": {"a": "b"}}), json!({})),
            "spec.selector",
            "does not match the template's labels",
        ),
        (
            "MachineSet",
            labels(json!({"matchLabels": {"a": "b"}}), json!({"a": "c"})),
            "spec.selector",
            "does not match the template's labels",
        ),
        (
            "MachineDeployment",
            machine(json!({"taints": [{"key": "a", "effect": "Never"}]})),
            "spec.template.spec.taints[0].effect",
            "supported values",
        ),
        (
            "MachineDrainRule",
            json!({"drain": {"behavior": "Stop"}}),
            "spec.drain.behavior",
            "supported values",
        ),
        (
            "MachineDrainRule",
            json!({"drain": {"behavior": "Skip", "order": 1}}),
            "spec.drain",
            "order is for behavior Drain alone",
        ),
        (
            "MachineDrainRule",
            json!({"pods": [{}]}),
            "spec.pods[0]",
            "at least 1 properties",
        ),
        (
            "MachineDrainRule",
            json!({"machines": [{}]}),
            "spec.machines[0]",
            "at least 1 properties",
        ),
        (
            "MachineDrainRule",
            json!({"pods": [{"selector": {}}, {"selector": {}}]}),
            "spec.pods",
            "must be unique",
        ),
        (
            "MachineDrainRule",
            json!({"machines": [{"clusterSelector": {"matchExpressions": like}}]}),
            "spec.machines[0].clusterSelector",
            "none of In, NotIn",
        ),
    ] {
        let made = api(&client, kind)
            .create(&PostParams::default(), &object(kind, change.clone()))
            .await;
        let Err(kube::Error::Api(status)) = made else {
            panic!("{kind} {change} should be refused: {made:?}");
        };
        assert_eq!(status.code, 422, "{kind} {change}: {}", status.message);
        let causes = status.details.iter().flat_map(|d| &d.causes);
        let hit = causes
            .clone()
            .any(|c| c.field == path && c.message.contains(words));
        let all: Vec<_> = causes
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        assert!(
            hit,
            "{kind} {change} should name {path} and say {words:?}: {all:?}"
        );
    }
    let template = json!({"a": "b", "c": "d"});
    for (kind, change) in [
        (
            "MachineDeployment",
            labels(json!({"matchLabels": {"a": "b"}}), template),
        ),
        (
            "MachineDeployment",
            labels(
                json!({"matchLabels": {"fleetwright.dev/deployment-name": "x"}}),
                json!({}),
            ),
        ),
        ("MachineDeployment", rolling(json!("0%"), json!(1))),
        (
            "MachineDrainRule",
            json!({"drain": {"behavior": "Drain", "order": -5}, "pods": [{"selector": {"matchLabels": {"a": "b"}}}]}),
        ),
    ] {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let made = api(&client, kind)
            .create(&params, &object(kind, change.clone()))
            .await;
        made.unwrap_or_else(|e| panic!("{kind} {change}: {e}"));
    }
}
