//! Cluster API's filters of pods in a drain (TestGetPodsForEviction), those of MachineDrainRule excepted.

use serde_json::{Value, json};

use super::*;

fn pod(more: Value) -> Pod {
    let mut value = json!({"metadata": {"namespace": "ns", "name": "p"}});
    fn merge(to: &mut Value, from: Value) {
        match (to, from) {
            (Value::Object(to), Value::Object(from)) => {
                for (k, v) in from {
                    merge(to.entry(k).or_insert(Value::Null), v);
                }
            }
            (to, from) => *to = from,
        }
    }
    merge(&mut value, more);
    serde_json::from_value(value).unwrap()
}

fn owned(kind: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}])
}

fn one(pod: &Pod, facts: &DrainFacts) -> String {
    let now = Timestamp::from_second(1_000).unwrap();
    let plan = classify(std::slice::from_ref(pod), facts, now);
    let mut text = if let Some((_, reason)) = plan.skipped.first() {
        format!("skip {reason:?}")
    } else if !plan.waiting.is_empty() {
        "wait".to_owned()
    } else if !plan.terminating.is_empty() {
        "terminating".to_owned()
    } else {
        "evict".to_owned()
    };
    for (_, warning) in &plan.warnings {
        text.push_str(&format!(" {warning:?}"));
    }
    text
}

#[test]
fn pods_are_sorted_as_the_table_says() {
    let there = DrainFacts {
        daemon_sets: BTreeSet::from([PodKey {
            namespace: "ns".into(),
            name: "o".into(),
        }]),
        unreachable: false,
    };
    let unreachable = DrainFacts {
        unreachable: true,
        ..DrainFacts::default()
    };
    let none = DrainFacts::default();
    let set = owned("ReplicaSet");
    let old =
        json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:01Z", "ownerReferences": set}});
    let empty = |phase: &str| json!({"metadata": {"ownerReferences": set}, "status": {"phase": phase}, "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}});
    for (more, facts, want) in [
        (old.clone(), &unreachable, "skip Unreachable"),
        (old, &none, "terminating"),
        (
            json!({"metadata": {"ownerReferences": set}}),
            &none,
            "evict",
        ),
        (
            json!({"metadata": {"ownerReferences": owned("DaemonSet")}, "status": {"phase": "Succeeded"}}),
            &there,
            "evict",
        ),
        (
            json!({"metadata": {"ownerReferences": owned("DaemonSet")}}),
            &none,
            "evict DaemonSetGone",
        ),
        (
            json!({"metadata": {"ownerReferences": owned("DaemonSet")}}),
            &there,
            "skip DaemonSet",
        ),
        (
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": ""}}}),
            &none,
            "skip Mirror",
        ),
        (empty("Succeeded"), &none, "evict"),
        (empty("Running"), &none, "evict EmptyDir"),
        (json!({"status": {"phase": "Succeeded"}}), &none, "evict"),
        (
            json!({"status": {"phase": "Running"}}),
            &none,
            "evict NoController",
        ),
        (
            json!({"metadata": {"labels": {LABEL_DRAIN: "SKIP"}}}),
            &none,
            "skip Label",
        ),
        (
            json!({"metadata": {"labels": {LABEL_DRAIN: "Wait-Completed"}}}),
            &none,
            "wait",
        ),
        (
            json!({"metadata": {"labels": {LABEL_DRAIN: "wait-completed"}}, "status": {"phase": "Succeeded"}}),
            &none,
            "skip Completed",
        ),
        (
            json!({"metadata": {"labels": {LABEL_DRAIN: "huh"}, "ownerReferences": set}}),
            &none,
            "evict",
        ),
    ] {
        assert_eq!(one(&pod(more.clone()), facts), want, "{more}");
    }
}

#[test]
fn progress_names_the_pod_and_its_budget() {
    let key = PodKey {
        namespace: "db".into(),
        name: "db-0".into(),
    };
    let progress = DrainProgress {
        started: None,
        plan: DrainPlan::default(),
        evictions: BTreeMap::from([(
            key,
            Eviction::Budget("the disruption budget db needs 1 healthy pods".into()),
        )]),
    };
    assert_eq!(
        progress.to_string(),
        "draining: pod db/db-0 is protected by a budget (the disruption budget db needs 1 healthy pods)"
    );
}
