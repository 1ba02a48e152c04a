//! Cluster API's tables of a drain: which pods are evicted, in which order, what is said of it, and which volumes are waited for.

use fleetwright_api::{
    Cluster, Machine, MachineDrainRule,
    machine_drain_rule::{DrainRule, DrainRulePods},
};
use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::VolumeAttachment};
use serde_json::{Value, json};

use super::*;

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

fn pod(more: Value) -> Pod {
    let mut value = json!({"metadata": {"namespace": "ns", "name": "p"}});
    merge(&mut value, more);
    serde_json::from_value(value).unwrap()
}

fn owned(kind: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}])
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000).unwrap()
}

fn one(pod: &Pod, facts: &DrainFacts) -> String {
    let plan = classify(std::slice::from_ref(pod), facts, now());
    let mut text = if let Some((_, reason)) = plan.skipped.first() {
        format!("skip {reason:?}")
    } else if !plan.waiting.is_empty() {
        "wait".to_owned()
    } else if !plan.terminating.is_empty() {
        "terminating".to_owned()
    } else if let Some(why) = plan.undecided.values().next() {
        why.clone()
    } else {
        "evict".to_owned()
    };
    for (_, warning) in &plan.warnings {
        text.push_str(&format!(" {warning:?}"));
    }
    text
}

/// TestGetPodsForEviction, filters without rules.
#[test]
fn pods_are_sorted_as_the_table_says() {
    let there = DrainFacts {
        daemon_sets: BTreeSet::from([PodKey::new("ns", "o")]),
        ..DrainFacts::default()
    };
    let unreachable = DrainFacts {
        unreachable: true,
        ..DrainFacts::default()
    };
    let none = DrainFacts::default();
    let set = owned("ReplicaSet");
    let deleted = |at: &str| json!({"metadata": {"deletionTimestamp": at, "ownerReferences": set}});
    let old = deleted("1970-01-01T00:00:01Z");
    let empty = |phase: &str| json!({"metadata": {"ownerReferences": set}, "status": {"phase": phase}, "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}});
    for (more, facts, want) in [
        (old.clone(), &unreachable, "skip Unreachable"),
        (deleted("1970-01-01T00:16:40Z"), &unreachable, "terminating"),
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
        (
            json!({"metadata": {"ownerReferences": set}, "spec": {"containers": [], "volumes": [{"name": "v", "configMap": {}}]}}),
            &none,
            "evict",
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
            json!({"status": {"phase": "Running"}, "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}}),
            &none,
            "evict EmptyDir NoController",
        ),
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "SKIP"}}}),
            &none,
            "skip Label",
        ),
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "skip"}}}),
            &none,
            "skip Label",
        ),
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "Wait-Completed"}}}),
            &none,
            "wait",
        ),
        // Cluster API would wait for the object to go.
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "wait-completed"}}, "status": {"phase": "Succeeded"}}),
            &none,
            "skip Completed",
        ),
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "wait-completed"}}, "status": {"phase": "Failed"}}),
            &none,
            "skip Completed",
        ),
        (
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "huh"}, "ownerReferences": set}}),
            &none,
            "evict",
        ),
    ] {
        assert_eq!(one(&pod(more.clone()), facts), want, "{more}");
    }
}

fn rule(name: &str, spec: Value) -> MachineDrainRule {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}))
        .unwrap()
}

fn machine(labels: Value, cluster: Value) -> (Machine, Cluster) {
    let machine = json!({
        "metadata": {"name": "m", "namespace": "ns", "labels": labels},
        "spec": {"clusterName": "c", "providerConfig": {}},
    });
    let cluster = json!({
        "metadata": {"name": "c", "namespace": "ns", "labels": cluster},
        "spec": {"version": "v1.33.0", "controlPlane": {}},
    });
    (
        serde_json::from_value(machine).unwrap(),
        serde_json::from_value(cluster).unwrap(),
    )
}

/// TestMachineDrainRulesFilter and those of machineDrainRuleAppliesToMachine and machineDrainRuleAppliesToPod.
#[test]
fn the_first_rule_by_name_that_matches_decides() {
    let label = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    let (m, c) = machine(json!({"tier": "db"}), json!({"site": "eu"}));
    let facts = |rules: &[MachineDrainRule]| DrainFacts {
        rules: rules_of(&m, &c, rules),
        namespaces: BTreeMap::from([(
            "ns".to_owned(),
            BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        )]),
        ..DrainFacts::default()
    };
    let skip = |more: Value| {
        let mut spec = json!({"drain": {"behavior": "Skip"}});
        merge(&mut spec, more);
        spec
    };
    let ours =
        json!({"metadata": {"labels": {"app": "x"}, "ownerReferences": owned("ReplicaSet")}});
    for (name, spec, want) in [
        (
            "Drain",
            json!({"drain": {"behavior": "Drain", "order": 11}}),
            "evict",
        ),
        ("Skip", skip(json!({})), "skip Rule"),
        (
            "WaitCompleted",
            json!({"drain": {"behavior": "WaitCompleted"}}),
            "wait",
        ),
        (
            "the pod's labels match",
            skip(json!({"pods": [{"selector": label("app", "x")}]})),
            "skip Rule",
        ),
        (
            "they do not",
            skip(json!({"pods": [{"selector": label("app", "y")}]})),
            "evict",
        ),
        (
            "one entry matches",
            skip(
                json!({"pods": [{"selector": label("app", "y")}, {"namespaceSelector": label("team", "a")}]}),
            ),
            "skip Rule",
        ),
        (
            "the namespace does not",
            skip(
                json!({"pods": [{"selector": label("app", "x"), "namespaceSelector": label("team", "b")}]}),
            ),
            "evict",
        ),
        (
            "the machine's labels match",
            skip(json!({"machines": [{"selector": label("tier", "db")}]})),
            "skip Rule",
        ),
        (
            "they do not",
            skip(json!({"machines": [{"selector": label("tier", "web")}]})),
            "evict",
        ),
        (
            "its cluster's do, one entry is enough",
            skip(
                json!({"machines": [{"selector": label("tier", "web")}, {"clusterSelector": label("site", "eu")}]}),
            ),
            "skip Rule",
        ),
        (
            "all of an entry must match",
            skip(
                json!({"machines": [{"selector": label("tier", "db"), "clusterSelector": label("site", "us")}]}),
            ),
            "evict",
        ),
    ] {
        let facts = facts(&[rule("a", spec)]);
        assert_eq!(one(&pod(ours.clone()), &facts), want, "{name}");
    }
    let wait = rule("b", json!({"drain": {"behavior": "WaitCompleted"}}));
    let both = [wait.clone(), rule("a", skip(json!({})))];
    assert_eq!(
        one(&pod(ours.clone()), &facts(&both)),
        "skip Rule",
        "the first by name"
    );
    let finished = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(
        one(&pod(finished), &facts(std::slice::from_ref(&wait))),
        "skip Completed"
    );
    let labelled = json!({"metadata": {"labels": {POD_LABEL_DRAIN: "skip"}}});
    assert_eq!(
        one(&pod(labelled), &facts(std::slice::from_ref(&wait))),
        "skip Label",
        "a pod's own label comes first"
    );
    let mut elsewhere = wait;
    elsewhere.metadata.namespace = Some("other".into());
    assert_eq!(one(&pod(ours), &facts(&[elsewhere])), "evict");
    // A rule that cannot be decided holds the pod, and says why.
    let facts = facts(&[rule(
        "a",
        skip(json!({"pods": [{"namespaceSelector": label("team", "a")}]})),
    )]);
    let lost = pod(json!({"metadata": {"namespace": "gone"}}));
    assert_eq!(one(&lost, &facts), "there is no namespace gone");
    assert!(!classify(&[lost], &facts, now()).is_done());
    let unknown = json!({"behavior": "Stop"});
    assert!(serde_json::from_value::<DrainRule>(unknown).is_err());
}

/// TestEvictPods, order.
#[test]
fn only_the_lowest_order_goes_now() {
    let by_order = |order: i32| PodRule {
        drain: DrainRule {
            behavior: DrainBehavior::Drain,
            order: Some(order),
        },
        pods: vec![DrainRulePods {
            selector: Some(
                serde_json::from_value(json!({"matchLabels": {"order": order.to_string()}}))
                    .unwrap(),
            ),
            namespace_selector: None,
        }],
    };
    let facts = DrainFacts {
        rules: [-5, 5, 6].map(by_order).into(),
        ..DrainFacts::default()
    };
    let named = |name: &str, more: Value| {
        let mut value = json!({"metadata": {"name": name, "ownerReferences": owned("ReplicaSet")}});
        merge(&mut value, more);
        pod(value)
    };
    let of =
        |name: &str, order: &str| named(name, json!({"metadata": {"labels": {"order": order}}}));
    let wait = || {
        named(
            "w",
            json!({"metadata": {"labels": {POD_LABEL_DRAIN: "wait-completed"}}}),
        )
    };
    let ending = |name: &str, order: &str| {
        named(
            name,
            json!({"metadata": {"labels": {"order": order}, "deletionTimestamp": "1970-01-01T00:16:00Z"}}),
        )
    };
    let names = |keys: &[PodKey]| {
        let all: Vec<_> = keys.iter().map(|k| k.name.clone()).collect();
        all.join(" ")
    };
    for (what, pods, want) in [
        (
            "5 before 6",
            vec![of("a", "6"), of("b", "5")],
            ["b", "", "", "a"],
        ),
        (
            "a pod that still ends holds the next ones",
            vec![of("a", "6"), ending("b", "5")],
            ["", "b", "", "a"],
        ),
        (
            "none of order 5 is left",
            vec![of("a", "6"), ending("b", "6")],
            ["a", "b", "", ""],
        ),
        (
            "what completes has order 0",
            vec![of("a", "5"), wait()],
            ["", "", "w", "a"],
        ),
        (
            "and waits while pods of order -5 are there",
            vec![of("a", "-5"), wait(), of("z", "0")],
            ["a", "", "", "w z"],
        ),
    ] {
        let plan = classify(&pods, &facts, now());
        let got = [&plan.evict, &plan.terminating, &plan.waiting, &plan.later].map(|k| names(k));
        assert_eq!(got, want.map(ToOwned::to_owned), "{what}");
        assert!(!plan.is_done());
    }
    assert!(classify(&[], &facts, now()).is_done());
}

fn progress(plan: DrainPlan, evictions: &[(&str, Eviction)]) -> DrainProgress {
    DrainProgress {
        started: Timestamp::from_second(1_000).unwrap(),
        until: Timestamp::from_second(2_800).unwrap(),
        unreachable: false,
        plan,
        evictions: evictions
            .iter()
            .map(|(n, e)| (PodKey::new("ns", *n), e.clone()))
            .collect(),
    }
}

fn budget(name: &str) -> Eviction {
    Eviction::Budget {
        budget: Some((name.into(), 0)),
        cause: String::new(),
    }
}

/// TestEvictionResult_ConditionMessage, in one line.
#[test]
fn progress_says_what_it_waits_for_since_when_and_what_follows() {
    let since = "draining since 1970-01-01T00:16:40Z (until 1970-01-01T00:46:40Z at most)";
    let keys =
        |names: &[&str]| -> Vec<PodKey> { names.iter().map(|n| PodKey::new("ns", *n)).collect() };
    let none = DrainPlan::default;
    let failed = |n: &str| Eviction::Failed(format!("error {n}"));
    for (plan, evictions, want) in [
        (none(), vec![], String::new()),
        (
            none(),
            vec![("db-0", budget("db"))],
            ": pod ns/db-0 is protected by budget db, 0 disruptions allowed".into(),
        ),
        (
            none(),
            vec![(
                "db-0",
                Eviction::Budget {
                    budget: None,
                    cause: "The disruption budget db needs 1 healthy pods and has 1 currently".into(),
                },
            )],
            ": pod ns/db-0 is protected by a budget (The disruption budget db needs 1 healthy pods and has 1 currently)".into(),
        ),
        (
            none(),
            ["a", "b", "c", "d", "e"].map(|n| (n, budget("db"))).into(),
            ": pods ns/a, ns/b, ns/c, ... (2 more) are protected by budget db, 0 disruptions allowed".into(),
        ),
        (
            none(),
            ["1", "2", "3", "4", "5", "6", "7"].map(|n| (n, failed(n))).into(),
            ": pod ns/1 is not evicted: error 1; pod ns/2 is not evicted: error 2; pod ns/3 is not evicted: error 3; \
             pod ns/4 is not evicted: error 4; pod ns/5 is not evicted: error 5; ... (2 more reasons)".into(),
        ),
        (
            DrainPlan { terminating: keys(&["b"]), later: keys(&["y", "z"]), waiting: keys(&["job"]), ..none() },
            vec![("a", Eviction::Accepted), ("c", Eviction::Gone), ("d", Eviction::NamespaceTerminating)],
            ": pod ns/d is in a namespace that is being deleted, and goes with it; pods ns/a, ns/b are ending; \
             pod ns/job is to complete without eviction; pods ns/y, ns/z are next after these".into(),
        ),
        (
            DrainPlan {
                warnings: vec![
                    (PodKey::new("ns", "a"), Warning::EmptyDir),
                    (PodKey::new("ns", "b"), Warning::NoController),
                    (PodKey::new("ns", "b"), Warning::EmptyDir),
                    (PodKey::new("ns", "c"), Warning::DaemonSetGone),
                ],
                ..none()
            },
            vec![("a", Eviction::Accepted)],
            ": pod ns/a is ending; pod ns/b: no controller makes it again; pod ns/c: its DaemonSet is gone; \
             pods ns/a, ns/b: what is in emptyDir volumes is lost".into(),
        ),
        (
            DrainPlan { undecided: BTreeMap::from([(PodKey::new("x", "p"), "there is no namespace x".into())]), ..none() },
            vec![],
            ": pod x/p is undecided: there is no namespace x".into(),
        ),
    ] {
        let text = progress(plan, &evictions).to_string();
        assert_eq!(text, format!("{since}{want}"));
    }
    let mut unreachable = progress(none(), &[("db-0", budget("db"))]);
    unreachable.unreachable = true;
    assert!(
        unreachable
            .to_string()
            .ends_with("is forced at 1970-01-01T00:46:40Z with the instance"),
        "{unreachable}"
    );
}

#[test]
fn pauses_grow_and_are_bounded() {
    let (mut at, mut pauses) = (0, Vec::new());
    let started = Timestamp::UNIX_EPOCH;
    while at < 100 {
        let pause = pause_seconds(started, Timestamp::from_second(at).unwrap());
        pauses.push(pause);
        at += i64::try_from(pause).unwrap();
    }
    assert_eq!(pauses, [2, 2, 2, 3, 4, 6, 9, 14, 20, 20, 20]);
}

/// TestShouldWaitForNodeVolumes.
#[test]
fn volumes_are_waited_for_unless_their_pods_stay() {
    let volume = |name: &str, claim: &str| -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"claimRef": {"namespace": "ns", "name": claim}, "csi": {"driver": "d", "volumeHandle": format!("h-{name}")}},
        }))
        .unwrap()
    };
    let attachment = |name: &str, node: &str, source: Value| -> VolumeAttachment {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"attacher": "d", "nodeName": node, "source": source},
        }))
        .unwrap()
    };
    let of = |pv: &str| json!({"persistentVolumeName": pv});
    let in_use = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|n| format!("kubernetes.io/csi/d^h-{n}"))
            .collect()
    };
    let volumes = [volume("pv1", "data"), volume("pv2", "logs-scratch")];
    let stays = |volumes: Value| {
        pod(json!({"metadata": {"name": "logs"}, "spec": {"containers": [], "volumes": volumes}}))
    };
    let claim = stays(json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]));
    let ephemeral = stays(json!([{"name": "scratch", "ephemeral": {}}]));
    for (what, in_use, attachments, staying, want) in [
        ("nothing is attached", vec![], vec![], vec![], vec![]),
        (
            "the node says so",
            in_use(&["pv1"]),
            vec![],
            vec![],
            vec!["pv1"],
        ),
        (
            "so does an attachment",
            vec![],
            vec![attachment("a", "n", of("pv1"))],
            vec![],
            vec!["pv1"],
        ),
        (
            "both: named once",
            in_use(&["pv1"]),
            vec![attachment("a", "n", of("pv1"))],
            vec![],
            vec!["pv1"],
        ),
        (
            "another node's",
            vec![],
            vec![attachment("a", "other", of("pv1"))],
            vec![],
            vec![],
        ),
        (
            "its pod stays",
            in_use(&["pv1"]),
            vec![attachment("a", "n", of("pv1"))],
            vec![claim.clone()],
            vec![],
        ),
        (
            "that of another pod does not",
            in_use(&["pv1", "pv2"]),
            vec![],
            vec![claim],
            vec!["pv2"],
        ),
        (
            "an ephemeral one's pod stays",
            in_use(&["pv2"]),
            vec![attachment("a", "n", of("pv2"))],
            vec![ephemeral],
            vec![],
        ),
        (
            "nobody knows the volume",
            in_use(&["pv9"]),
            vec![
                attachment("a", "n", of("pv8")),
                attachment("b", "n", json!({"inlineVolumeSpec": {}})),
            ],
            vec![],
            vec!["b", "kubernetes.io/csi/d^h-pv9", "pv8"],
        ),
    ] {
        let got = attached(AttachedVolumes {
            node: "n",
            in_use: &in_use,
            attachments: &attachments,
            volumes: &volumes,
            staying: &staying,
        });
        assert_eq!(got, want, "{what}");
    }
}
