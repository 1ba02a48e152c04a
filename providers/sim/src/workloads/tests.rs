//! What is done about pods and budgets, row by row.

use serde_json::{Value, json};

use super::*;

fn workload(replicas: usize, min_available: Option<i32>) -> Workload {
    Workload {
        name: "shop".into(),
        namespace: "s".into(),
        replicas,
        min_available,
        start_seconds: 0.5,
        termination_seconds: 1.0,
        kind: Kind::Deployment,
        labels: BTreeMap::new(),
        empty_dir: false,
        complete_seconds: None,
        volume_detach_seconds: None,
    }
}

fn node(name: &str, ready: bool, spec: Value) -> Node {
    let ready = if ready { "True" } else { "Unknown" };
    let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status}))
        .unwrap()
}

fn pod(name: &str, node: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "metadata": {
            "name": name, "namespace": "s", "labels": {WORKLOAD: "shop"},
            "annotations": {READY_AT: "1970-01-01T00:00:10Z"},
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn decided(
    wanted: &[Workload],
    nodes: &[Node],
    pods: &[Value],
    second: i64,
) -> (String, Option<i64>) {
    let pods: Vec<Pod> = pods
        .iter()
        .map(|p| serde_json::from_value(p.clone()).unwrap())
        .collect();
    let seen = Seen {
        nodes,
        pods: &pods,
        budgets: &[],
        daemon_sets: &[],
    };
    let now = Timestamp::from_second(second).unwrap();
    let (steps, again) = decide(wanted, &seen, now);
    let text = |step: &Step<'_>| match step {
        Step::Budget(_) => "budget".to_owned(),
        Step::DropBudget { name, .. } => format!("drop {name}"),
        Step::Make { node, .. } => format!("make on {node}"),
        Step::Ready { name, .. } => format!("ready {name}"),
        Step::Complete { name, .. } => format!("complete {name}"),
        Step::BudgetStatus { .. } => "budget status".to_owned(),
        Step::DropDaemonSet { name, .. } => format!("drop {name}"),
        Step::End {
            name,
            at_once: false,
            ..
        } => format!("end {name}"),
        Step::End {
            name,
            at_once: true,
            ..
        } => format!("gone {name}"),
    };
    let steps: Vec<_> = steps.iter().map(text).collect();
    (steps.join(", "), again.map(|a| a.as_second()))
}

/// Name, replicas, nodes, pods, second; steps, second of the next look.
type Row<'a> = (
    &'a str,
    usize,
    &'a [Node],
    Vec<Value>,
    i64,
    &'a str,
    Option<i64>,
);

#[test]
fn what_is_done_about_pods() {
    let (a, b) = (node("a", true, json!({})), node("b", true, json!({})));
    let nodes = [a.clone(), b.clone()];
    let with = |mut pod: Value, field: &str, value: Value| {
        pod["metadata"][field] = value;
        pod
    };
    let deleting = |pod: Value| with(pod, "deletionTimestamp", json!("1970-01-01T00:00:20Z"));
    let two = [pod("p1", "a", true), pod("p2", "b", true)];
    let rows: &[Row<'_>] = &[
        (
            "missing ones are spread",
            3,
            &nodes,
            vec![],
            0,
            "make on a, make on b, make on a",
            None,
        ),
        ("all there", 2, &nodes, two.to_vec(), 0, "", None),
        (
            "one more, where fewer are",
            2,
            &nodes,
            vec![pod("p1", "a", true)],
            0,
            "make on b",
            None,
        ),
        ("no node yet", 2, &[], vec![], 0, "", None),
        (
            "starts later",
            1,
            &nodes,
            vec![pod("p1", "a", false)],
            9,
            "",
            Some(10),
        ),
        (
            "has started",
            1,
            &nodes,
            vec![pod("p1", "a", false)],
            10,
            "ready p1",
            None,
        ),
        (
            "one ends: its place is taken",
            2,
            &nodes,
            vec![two[0].clone(), deleting(two[1].clone())],
            0,
            "make on b",
            Some(20),
        ),
        (
            "its time is over",
            1,
            &nodes,
            vec![two[0].clone(), deleting(two[1].clone())],
            20,
            "gone p2",
            None,
        ),
        ("too many", 1, &nodes, two.to_vec(), 0, "end p2", None),
        (
            "too many: the one not ready first",
            1,
            &nodes,
            vec![pod("p1", "a", false), two[1].clone()],
            0,
            "end p1",
            Some(10),
        ),
        (
            "none wanted",
            0,
            &nodes,
            two.to_vec(),
            0,
            "end p1, end p2",
            None,
        ),
        (
            "its node is gone",
            2,
            std::slice::from_ref(&a),
            two.to_vec(),
            0,
            "gone p2, make on a",
            None,
        ),
    ];
    for (what, replicas, nodes, pods, second, steps, again) in rows {
        let wanted = [workload(*replicas, None)];
        let got = decided(&wanted, nodes, pods, *second);
        assert_eq!(got, ((*steps).to_owned(), *again), "{what}");
    }
    let got = decided(&[], &nodes, &two, 0);
    assert_eq!(got.0, "end p1, end p2", "nobody declares it any more");
    let mut at_once = workload(1, None);
    at_once.termination_seconds = 0.0;
    let got = decided(
        &[at_once],
        &nodes,
        &[two[0].clone(), deleting(two[1].clone())],
        0,
    );
    assert_eq!(got.0, "gone p2", "it ends without delay");
}

#[test]
fn which_nodes_take_pods() {
    let taint = |effect: &str| json!({"taints": [{"key": "k", "effect": effect}]});
    let rows = [
        (node("n", true, json!({})), true),
        (node("n", false, json!({})), false),
        (node("n", true, json!({"unschedulable": true})), false),
        (node("n", true, taint("NoSchedule")), false),
        (node("n", true, taint("NoExecute")), false),
        (node("n", true, taint("PreferNoSchedule")), true),
    ];
    for (node, expected) in rows {
        assert_eq!(takes_pods(&node), expected, "{node:?}");
    }
}

#[test]
fn budgets_follow_what_is_declared() {
    let budget = |min: i32| -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "shop", "namespace": "s"}, "spec": {"minAvailable": min}}),
        )
        .unwrap()
    };
    let drop = || Step::DropBudget {
        namespace: "s".into(),
        name: "shop".into(),
    };
    let (two, none) = ([workload(0, Some(2))], [workload(0, None)]);
    let rows: [(&[Workload], Vec<PodDisruptionBudget>, Vec<Step<'_>>); 6] = [
        (&two, vec![], vec![Step::Budget(&two[0])]),
        (&two, vec![budget(2)], vec![]),
        (&two, vec![budget(1)], vec![Step::Budget(&two[0])]),
        (&none, vec![budget(2)], vec![drop()]),
        (&[], vec![budget(2)], vec![drop()]),
        (&none, vec![], vec![]),
    ];
    for (wanted, there, expected) in rows {
        assert_eq!(budgets(wanted, &there), expected, "{wanted:?} {there:?}");
    }
}

#[test]
fn pods_on_each_node_and_pods_that_end_by_themselves() {
    let (a, b) = (
        node("a", true, json!({"unschedulable": true})),
        node("b", false, json!({})),
    );
    let nodes = [a, b];
    for kind in [Kind::DaemonSet, Kind::StaticPod] {
        let each = Workload {
            kind,
            ..workload(1, None)
        };
        let there = [pod("p1", "a", true)];
        assert_eq!(
            decided(std::slice::from_ref(&each), &nodes, &[], 0).0,
            "make on a"
        );
        assert_eq!(
            decided(std::slice::from_ref(&each), &nodes, &there, 0).0,
            ""
        );
    }
    let job = Workload {
        complete_seconds: Some(5.0),
        ..workload(1, None)
    };
    let mut done = pod("p1", "a", false);
    done["status"]["phase"] = json!("Succeeded");
    for (pod, second, want) in [
        (pod("p1", "a", false), 9, ("", Some(10))),
        (pod("p1", "a", true), 14, ("", Some(15))),
        (pod("p1", "a", true), 15, ("complete p1", None)),
        (done, 99, ("", None)),
    ] {
        let got = decided(std::slice::from_ref(&job), &nodes, &[pod], second);
        assert_eq!((got.0.as_str(), got.1), want);
    }
}

#[test]
fn a_budget_says_what_it_allows() {
    let guarded = workload(2, Some(1));
    let pods: Vec<Pod> = [
        pod("p1", "a", true),
        pod("p2", "a", true),
        pod("p3", "a", false),
    ]
    .iter()
    .map(|p| serde_json::from_value(p.clone()).unwrap())
    .collect();
    let pods: Vec<&Pod> = pods.iter().collect();
    let budget = |status: Value| -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": "shop", "namespace": "s"}, "spec": {}, "status": status,
        }))
        .unwrap()
    };
    let status = BudgetStatus {
        expected: 2,
        healthy: 2,
        desired: 1,
    };
    assert_eq!(status.allowed(), 1);
    let step = Step::BudgetStatus {
        workload: &guarded,
        status,
    };
    let old = json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 2});
    let new = json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    for (there, want) in [
        (vec![], None),
        (vec![budget(Value::Null)], Some(step.clone())),
        (vec![budget(old)], Some(step)),
        (vec![budget(new)], None),
    ] {
        assert_eq!(tell_budget(&guarded, &pods, &there), want);
    }
}
