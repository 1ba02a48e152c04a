//! What drifts and what does not, row by row.

use fleetwright_api::condition;
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn machine() -> Machine {
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web-1"},
        "spec": {"clusterName": "a", "version": "v1.33.2", "providerID": "sim:///1", "providerConfig": {}},
        "status": {"instance": {"id": "i-1", "state": "Running", "instanceType": "m", "image": "img", "configDigest": "d"}},
    }))
    .unwrap()
}

fn instance() -> InstanceFacts {
    let view = machine().status.unwrap().instance.unwrap();
    InstanceFacts {
        view,
        machine: "web-1".into(),
        cluster: "default/a".into(),
        settings: Arc::new(settings(
            "net",
            &["a", "b"],
            &[("team", "x"), ("cost", "7")],
        )),
        wanted: Some(settings(
            "net",
            &["b", "a"],
            &[("cost", "7"), ("team", "x")],
        )),
    }
}

fn settings(network: &str, groups: &[&str], tags: &[(&str, &str)]) -> InstanceSettings {
    InstanceSettings {
        network: Some(network.into()),
        security_groups: Some(groups.iter().map(|g| (*g).to_owned()).collect()),
        tags: tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

fn facts() -> MachineFacts {
    MachineFacts {
        instance: Shown::There(instance()),
        node: Shown::There(NodeFacts {
            kubelet: Some("v1.33.2".into()),
            unsynced: Vec::new(),
        }),
    }
}

/// What is read of the machine, each thing as `Kind what: wanted -> found`.
fn read(machine: &Machine, facts: &MachineFacts) -> (Vec<String>, bool) {
    let reading = of_machine(machine, facts, at(100));
    let line = |d: &MachineDrift| {
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "none".into());
        let (wanted, found) = (text(&d.wanted), text(&d.found));
        format!("{} {}: {wanted} -> {found}", d.kind.as_str(), d.what)
    };
    (reading.found.iter().map(line).collect(), reading.whole)
}

#[test]
fn an_instance_drifts_from_what_it_was_made() {
    let change = |change: &dyn Fn(&mut InstanceFacts)| {
        let mut instance = instance();
        change(&mut instance);
        Shown::There(instance)
    };
    let none: &[&str] = &[];
    let rows = [
        ("as made", change(&|_| {}), none),
        (
            "gone",
            Shown::Missing,
            &["InstanceMissing instance: i-1 -> none"],
        ),
        (
            "stopped",
            change(&|i| i.view.state = "Stopped".into()),
            &["InstanceChanged state: Running -> Stopped"],
        ),
        // It comes up, or fails: that is no drift.
        (
            "pending",
            change(&|i| i.view.state = "Pending".into()),
            none,
        ),
        ("failed", change(&|i| i.view.state = "Failed".into()), none),
        (
            "another type and image",
            change(&|i| {
                i.view.instance_type = "xl".into();
                i.view.image = "other".into();
            }),
            &[
                "InstanceChanged instanceType: m -> xl",
                "InstanceChanged image: img -> other",
            ],
        ),
        // We gave it other settings ourselves: type and image may follow.
        (
            "updated",
            change(&|i| {
                i.view.instance_type = "xl".into();
                i.view.config_digest = "e".into();
            }),
            none,
        ),
        (
            "another instance",
            change(&|i| {
                i.view.instance_type = "xl".into();
                i.view.id = "i-2".into();
            }),
            none,
        ),
        (
            "not shown yet",
            change(&|i| i.view.image = String::new()),
            none,
        ),
        (
            "tags",
            change(&|i| i.machine = "db-7".into()),
            &["InstanceChanged tags: default/a web-1 -> default/a db-7"],
        ),
        (
            "another network, other groups, a tag changed and one gone",
            change(&|i| i.settings = Arc::new(settings("office", &["c", "a"], &[("team", "y")]))),
            &[
                "InstanceChanged network: net -> office",
                "InstanceChanged securityGroups: a, b -> a, c",
                "InstanceChanged tags.cost: 7 -> none",
                "InstanceChanged tags.team: x -> y",
            ],
        ),
        (
            "no groups any more",
            change(&|i| {
                i.settings = Arc::new(settings("net", &[], &[("team", "x"), ("cost", "7")]));
            }),
            &["InstanceChanged securityGroups: a, b -> none"],
        ),
        // What others and the provider put on beside is theirs.
        (
            "more tags",
            change(&|i| {
                let tags = [("team", "x"), ("cost", "7"), ("aws:created", "now")];
                i.settings = Arc::new(settings("net", &["a", "b"], &tags));
            }),
            none,
        ),
        // The settings do not say which network, and no groups: the provider chose.
        (
            "left out",
            change(&|i| {
                i.settings = Arc::new(settings("office", &["z"], &[]));
                i.wanted = Some(InstanceSettings::default());
            }),
            none,
        ),
        (
            "not shown",
            change(&|i| {
                i.settings = Arc::default();
                i.wanted = Some(settings("net", &["a"], &[]));
            }),
            none,
        ),
        // Settings of ours are on their way: what it shows is of before.
        (
            "told soon",
            change(&|i| {
                i.settings = Arc::new(settings("office", &["z"], &[]));
                i.wanted = None;
            }),
            none,
        ),
    ];
    for (name, instance, wanted) in rows {
        let facts = MachineFacts {
            instance,
            ..facts()
        };
        let (found, whole) = read(&machine(), &facts);
        assert_eq!(found, wanted, "{name}");
        assert!(whole, "{name}");
    }
}

#[test]
fn a_node_drifts_from_its_machine() {
    let unsynced = vec![
        Unsynced {
            kind: DriftKind::Label,
            key: "node.fleetwright.dev/x".into(),
            wanted: Some("1".into()),
            found: None,
        },
        Unsynced {
            kind: DriftKind::Taint,
            key: "gpu:NoSchedule".into(),
            wanted: None,
            found: Some("yes".into()),
        },
    ];
    // (kubelet, version, what the node lacks, what is found)
    let none: &[&str] = &[];
    let rows = [
        (Some("v1.33.2"), Some("v1.33.2"), vec![], none),
        (Some("v1.33.2-eks-1a2b"), Some("1.33.2"), vec![], none),
        (Some("what"), Some("v1.33.2"), vec![], none),
        (None, Some("v1.33.2"), vec![], none),
        (Some("v1.33.2"), None, vec![], none),
        (
            Some("v1.33.3"),
            Some("v1.33.2"),
            vec![],
            &["Kubelet kubelet: v1.33.2 -> v1.33.3"],
        ),
        (
            Some("v1.33.2"),
            Some("v1.33.2"),
            unsynced,
            &[
                "Label node.fleetwright.dev/x: 1 -> none",
                "Taint gpu:NoSchedule: none -> yes",
            ],
        ),
    ];
    for (kubelet, version, unsynced, wanted) in rows {
        let mut machine = machine();
        machine.spec.content.version = version.map(Into::into);
        let facts = MachineFacts {
            node: Shown::There(NodeFacts {
                kubelet: kubelet.map(Into::into),
                unsynced,
            }),
            ..facts()
        };
        assert_eq!(read(&machine, &facts).0, wanted, "{kubelet:?} {version:?}");
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_what_goes_or_comes_does_not_drift() {
    let mut blind = facts();
    blind.instance = Shown::Unknown;
    assert_eq!(read(&machine(), &blind), (vec![], false));
    blind = facts();
    blind.node = Shown::Unknown;
    assert_eq!(read(&machine(), &blind), (vec![], false));
    let mut gone = facts();
    (gone.instance, gone.node) = (Shown::Missing, Shown::Missing);
    let mut new = machine();
    new.spec.provider_id = None;
    new.status = None;
    assert_eq!(read(&new, &gone), (vec![], true));
    let mut leaving = machine();
    leaving.metadata.deletion_timestamp = Some(k8s_time(at(1)));
    assert_eq!(read(&leaving, &gone), (vec![], true));
}

#[test]
fn the_time_of_what_lasts_stays_and_lists_are_bounded() {
    let mut machine = machine();
    let mut facts = facts();
    let stop = |facts: &mut MachineFacts, state: &str| {
        if let Shown::There(instance) = &mut facts.instance {
            instance.view.state = state.into();
        }
    };
    stop(&mut facts, "Stopped");
    let first = of_machine(&machine, &facts, at(100));
    machine.status.as_mut().unwrap().drift = first.found.clone();
    assert_eq!(of_machine(&machine, &facts, at(200)), first);
    let many = (0..100).map(|n| Unsynced {
        kind: DriftKind::Label,
        key: n.to_string(),
        wanted: None,
        found: Some(String::new()),
    });
    facts.node = Shown::There(NodeFacts {
        kubelet: None,
        unsynced: many.collect(),
    });
    assert_eq!(of_machine(&machine, &facts, at(300)).found.len(), MOST);
}

#[test]
fn what_was_never_otherwise_is_as_old_as_the_machine() {
    let mut machine = machine();
    machine.metadata.creation_timestamp = Some(k8s_time(at(10)));
    let mut facts = facts();
    if let Shown::There(instance) = &mut facts.instance {
        instance.settings = Arc::new(settings("office", &["a", "b"], &[]));
        instance.view.image = "other".into();
    }
    if let Shown::There(node) = &mut facts.node {
        node.kubelet = Some("v1.33.9".into());
    }
    let since = |machine: &Machine| -> Vec<(String, i64)> {
        let found = of_machine(machine, &facts, at(100)).found;
        let since = found.into_iter().map(|d| (d.what, d.since.0.as_second()));
        since
            .filter(|(what, _)| !what.starts_with("tags"))
            .collect()
    };
    let told = |image: i64, network: i64, kubelet: i64| {
        let rows = [("image", image), ("network", network), ("kubelet", kubelet)];
        rows.map(|(what, at)| (what.to_owned(), at)).to_vec()
    };
    assert_eq!(since(&machine), told(100, 100, 10), "no node was seen yet");
    let status = machine.status.as_mut().unwrap();
    status.node_ref = Some(fleetwright_api::machine::NodeRef::default());
    assert_eq!(since(&machine), told(100, 100, 100));
    let status = machine.status.as_mut().unwrap();
    status.instance.as_mut().unwrap().state = "Pending".into();
    assert_eq!(since(&machine), told(100, 10, 100));
    // Once it is known, its time stays.
    let found = of_machine(&machine, &facts, at(100)).found;
    let status = machine.status.as_mut().unwrap();
    status.instance.as_mut().unwrap().state = "Running".into();
    status.drift = found;
    assert_eq!(since(&machine), told(100, 10, 100));
}

#[test]
fn texts_of_others_are_kept_short_and_stay_the_same_thing() {
    let mut machine = machine();
    let mut facts = facts();
    if let Shown::There(instance) = &mut facts.instance {
        let long = "ü".repeat(10_000);
        instance.settings = Arc::new(settings(
            &long,
            &["a", "b"],
            &[("team", "x"), ("cost", "7")],
        ));
    }
    let first = of_machine(&machine, &facts, at(100));
    let network = first.found[0].found.as_ref().unwrap();
    assert_eq!(network.chars().count(), KEPT);
    machine.status.as_mut().unwrap().drift = first.found.clone();
    assert_eq!(of_machine(&machine, &facts, at(200)), first);
}

#[test]
fn findings_say_what_and_what_to_do() {
    let mut machine = machine();
    machine.status.as_mut().unwrap().drift = of_machine(
        &machine,
        &MachineFacts {
            instance: Shown::Missing,
            ..facts()
        },
        at(0),
    )
    .found;
    let cluster: Cluster = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "a"},
        "spec": {"version": "v1.33.2", "controlPlane": {"external": {"kubeconfigSecretRef": {"name": "s"}}}},
        "status": {"version": "v1.34.0", "unmanagedInstances": ["i-8"], "duplicateInstances": ["i-9"]},
    }))
    .unwrap();
    let field = Drift {
        key: Key {
            kind: "Cluster".into(),
            namespace: "default".into(),
            name: "a".into(),
            ..Key::default()
        },
        field: ".spec.version".into(),
        managers: vec!["kubectl".into()],
        wanted: Some(json!("v1.33.2")),
        found: Some(json!("ü".repeat(200))),
        since: Some(at(0)),
    };
    let all = findings_of_machine(&machine)
        .into_iter()
        .chain(findings_of_cluster(&cluster))
        .chain([of_field(&field)]);
    let told: Vec<String> = all
        .inspect(|finding| assert!(!finding.hint.is_empty()))
        .map(|finding| finding.to_string())
        .collect();
    let long = format!("\"{}…", "ü".repeat(79));
    assert_eq!(
        told,
        [
            "Machine default/web-1: the provider shows instance i-1 no more".to_owned(),
            "Cluster default/a: instance i-8 carries the cluster's key, and no Machine has it"
                .into(),
            "Cluster default/a: instance i-9 carries the key of a Machine that another one has too"
                .into(),
            "Cluster default/a: the control plane runs v1.34.0, declared is v1.33.2".into(),
            format!(
                "Cluster default/a: .spec.version is held by kubectl since 1970-01-01T00:00:00Z: {long}, where Git says \"v1.33.2\""
            ),
        ]
    );
}

#[test]
fn machines_are_counted_by_what_they_say() {
    let with = |name: &str, status: Option<&str>| {
        let mut machine = machine();
        machine.metadata.name = Some(name.into());
        let conditions = &mut machine.status.as_mut().unwrap().conditions;
        if let Some(status) = status {
            conditions.push(condition::Condition {
                type_: kind::IN_SYNC.into(),
                status: status.into(),
                reason: "X".into(),
                message: format!("{name} differs"),
                last_transition_time: k8s_time(at(0)),
                observed_generation: None,
            });
        }
        machine
    };
    let machines = [
        with("c", Some("False")),
        with("b", Some("False")),
        with("a", None),
        with("d", Some("Unknown")),
    ];
    let wanted = MachinesInSync {
        machines: 4,
        drifted: 2,
        unknown: 1,
        first: Some("b: b differs".into()),
    };
    assert_eq!(MachinesInSync::of(&machines), wanted);
}
