//! Cluster API's TestPatchNode, TestGetManagedLabels and Test_propagateMachineTaintsToNode, in our own domain.

use fleetwright_api::machine::{MachineSpec, NodeInfo, TaintEffect};
use fleetwright_core::status::NodeHealth;

use super::*;

fn node() -> NodeView {
    NodeView {
        provider_id: String::new(),
        conditions: Vec::new(),
        name: "n".into(),
        resource_version: Some("7".into()),
        labels: LiteMap::new(),
        annotations: LiteMap::new(),
        taints: Vec::new(),
        unschedulable: false,
        health: NodeHealth::Healthy,
        info: NodeInfo::default(),
    }
}

fn machine(labels: &[(&str, &str)], taints: &[&str]) -> Machine {
    let mut m = Machine::new("m", MachineSpec::default());
    m.labels_mut().extend(
        labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    );
    m.spec.content.taints = taints
        .iter()
        .map(|k| MachineTaint {
            key: (*k).into(),
            value: None,
            effect: TaintEffect::NoSchedule,
            propagation: None,
        })
        .collect();
    m
}

/// Applies a patch of ours to the view, as the API would.
fn apply(node: &mut NodeView, patch: &Value) {
    for (field, map) in [
        ("labels", &mut node.labels),
        ("annotations", &mut node.annotations),
    ] {
        for (k, v) in patch["metadata"][field].as_object().into_iter().flatten() {
            match v.as_str() {
                Some(text) => map.insert(k.clone(), text.into()),
                None => map.remove(k),
            };
        }
    }
    if let Some(taints) = patch["spec"].get("taints") {
        node.taints = serde_json::from_value(taints.clone()).unwrap();
    }
}

/// TestGetManagedLabels.
#[test]
fn only_certain_domains_reach_the_node() {
    for (key, want) in [
        ("node-role.kubernetes.io/web", true),
        ("sub.node-role.kubernetes.io/web", false),
        ("a.node-restriction.kubernetes.io/x", true),
        ("xnode-restriction.kubernetes.io/x", false),
        ("node.fleetwright.dev/site", true),
        ("fleetwright.dev/set-name", false),
        ("plain", false),
    ] {
        assert_eq!(is_synced(key), want, "{key}");
    }
}

#[test]
fn what_is_no_longer_asked_for_goes_and_what_others_put_stays() {
    let mut n = node();
    n.taints.push(Taint {
        key: "theirs".into(),
        effect: "NoExecute".into(),
        ..Taint::default()
    });
    n.labels
        .insert("node-role.kubernetes.io/theirs".into(), String::new());
    n.annotations
        .insert("node.fleetwright.dev/theirs".into(), "x".into());
    let mut first = machine(&[("node-role.kubernetes.io/web", "")], &["ours"]);
    first.annotations_mut().extend([
        ("node.fleetwright.dev/rack".to_owned(), "7".to_owned()),
        ("note".to_owned(), "y".to_owned()),
    ]);
    let change = patch(&first, "c", &n, false).unwrap();
    apply(&mut n, &change);
    assert_eq!(patch(&first, "c", &n, false), None, "a fixed point");
    assert_eq!((n.labels.len(), n.taints.len()), (2, 2));
    let annotation = |n: &NodeView, key: &str| n.annotations.get(key).cloned();
    assert_eq!(
        annotation(&n, "node.fleetwright.dev/rack").as_deref(),
        Some("7")
    );
    assert_eq!(annotation(&n, "note"), None);
    let second = machine(&[], &[]);
    let change = patch(&second, "c", &n, false).unwrap();
    apply(&mut n, &change);
    assert_eq!(patch(&second, "c", &n, false), None);
    assert_eq!(
        n.taints.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(),
        ["theirs"]
    );
    assert_eq!(
        n.labels.keys().collect::<Vec<_>>(),
        ["node-role.kubernetes.io/theirs"]
    );
    assert_eq!(annotation(&n, "node.fleetwright.dev/rack"), None);
    assert_eq!(
        annotation(&n, "node.fleetwright.dev/theirs").as_deref(),
        Some("x")
    );
    assert_eq!(annotation(&n, meta::NODE_ANNOTATION_ANNOTATIONS), None);
}

fn taint(key: &str, value: Option<&str>, effect: &str) -> Taint {
    Taint {
        key: key.into(),
        value: value.map(Into::into),
        effect: effect.into(),
        ..Taint::default()
    }
}

fn shown(n: &NodeView) -> String {
    let all: Vec<String> = n
        .taints
        .iter()
        .map(|t| {
            format!(
                "{}={}:{}",
                t.key,
                t.value.as_deref().unwrap_or_default(),
                t.effect
            )
        })
        .collect();
    all.join(" ")
}

/// Test_propagateMachineTaintsToNode.
#[test]
fn taints_of_the_machine_reach_the_node_and_leave_it() {
    let always = |value: Option<&str>| MachineTaint {
        key: "a".into(),
        value: value.map(Into::into),
        effect: TaintEffect::NoSchedule,
        propagation: Some(TaintPropagation::Always),
    };
    let once = || MachineTaint {
        key: "o".into(),
        value: None,
        effect: TaintEffect::NoExecute,
        propagation: Some(TaintPropagation::OnInitialization),
    };
    let theirs = || taint("theirs", None, "NoSchedule");
    let a = |value| taint("a", value, "NoSchedule");
    let o = || taint("o", None, "NoExecute");
    for (what, on_node, tracked, wanted, want, remembers) in [
        ("nothing", vec![], None, vec![], "", ""),
        (
            "nothing of ours",
            vec![theirs()],
            None,
            vec![],
            "theirs=:NoSchedule",
            "",
        ),
        (
            "Always is put",
            vec![theirs()],
            None,
            vec![always(Some("1"))],
            "theirs=:NoSchedule a=1:NoSchedule",
            "a:NoSchedule",
        ),
        (
            "Always is put on a node that is initialized",
            vec![],
            Some(""),
            vec![always(None)],
            "a=:NoSchedule",
            "a:NoSchedule",
        ),
        (
            "OnInitialization is put once",
            vec![],
            None,
            vec![once()],
            "o=:NoExecute",
            "",
        ),
        (
            "both",
            vec![],
            None,
            vec![always(None), once()],
            "a=:NoSchedule o=:NoExecute",
            "a:NoSchedule",
        ),
        (
            "OnInitialization is not put again",
            vec![],
            Some(""),
            vec![once()],
            "",
            "",
        ),
        (
            "nor taken away",
            vec![o()],
            Some(""),
            vec![],
            "o=:NoExecute",
            "",
        ),
        (
            "the value follows",
            vec![a(Some("1"))],
            Some("a:NoSchedule"),
            vec![always(Some("2"))],
            "a=2:NoSchedule",
            "a:NoSchedule",
        ),
        (
            "somebody's value of ours is set right",
            vec![a(Some("x"))],
            Some(""),
            vec![always(None)],
            "a=:NoSchedule",
            "a:NoSchedule",
        ),
        (
            "what somebody took away comes back",
            vec![],
            Some("a:NoSchedule"),
            vec![always(None)],
            "a=:NoSchedule",
            "a:NoSchedule",
        ),
        (
            "what is no longer asked for goes",
            vec![theirs(), a(None)],
            Some("a:NoSchedule"),
            vec![],
            "theirs=:NoSchedule",
            "",
        ),
        (
            "one that was never ours stays",
            vec![a(None)],
            Some(""),
            vec![],
            "a=:NoSchedule",
            "",
        ),
        (
            "Always becomes OnInitialization: it goes",
            vec![o()],
            Some("o:NoExecute"),
            vec![once()],
            "",
            "",
        ),
    ] {
        let mut n = node();
        n.taints = on_node;
        if let Some(tracked) = tracked {
            n.annotations
                .insert(meta::NODE_ANNOTATION_TAINTS.into(), tracked.into());
        }
        let mut m = machine(&[], &[]);
        m.spec.content.taints = wanted;
        if let Some(change) = patch(&m, "c", &n, false) {
            assert_eq!(change["metadata"]["resourceVersion"], "7", "{what}");
            apply(&mut n, &change);
        }
        assert_eq!(shown(&n), want, "{what}");
        let kept = n.annotations.get(meta::NODE_ANNOTATION_TAINTS);
        assert_eq!(kept.map(String::as_str), Some(remembers), "{what}");
        assert_eq!(patch(&m, "c", &n, false), None, "{what}: a fixed point");
    }
}

/// TestPatchNode: the taints of our own domain.
#[test]
fn a_node_is_initialized_by_the_first_write_and_outdated_while_its_pool_has_a_newer_set() {
    let m = machine(&[("node-role.kubernetes.io/web", "")], &[]);
    let mut n = node();
    n.taints = registered(&m).iter().map(to_taint).collect();
    n.taints.push(taint("theirs", None, "NoSchedule"));
    assert!(shown(&n).starts_with("node.fleetwright.dev/uninitialized=:NoSchedule"));
    let change = patch(&m, "c", &n, false).unwrap();
    apply(&mut n, &change);
    assert_eq!(shown(&n), "theirs=:NoSchedule");
    let marked = "theirs=:NoSchedule node.fleetwright.dev/outdated-revision=:PreferNoSchedule";
    let change = patch(&m, "c", &n, true).unwrap();
    apply(&mut n, &change);
    assert_eq!(shown(&n), marked);
    assert_eq!(patch(&m, "c", &n, true), None);
    let change = patch(&m, "c", &n, false).unwrap();
    apply(&mut n, &change);
    assert_eq!(shown(&n), "theirs=:NoSchedule", "an undo takes it away");
}

#[test]
fn what_a_node_lacks_of_what_it_was_given_is_told() {
    let key = "node.fleetwright.dev/x";
    let machine = machine(&[(key, "1"), ("plain", "2")], &["gpu"]);
    let mut node = node();
    assert_eq!(unsynced(&machine, &node), [], "it was given nothing yet");
    let given = patch(&machine, "c", &node, false).unwrap();
    apply(&mut node, &given);
    assert_eq!(unsynced(&machine, &node), []);
    node.labels.insert(key.into(), "by hand".into());
    node.taints.clear();
    let told: Vec<_> = unsynced(&machine, &node)
        .into_iter()
        .map(|one| (one.key, one.wanted, one.found))
        .collect();
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(
        told,
        [
            (key.to_owned(), text("1"), text("by hand")),
            ("gpu:NoSchedule".to_owned(), text(""), None),
        ]
    );
}
