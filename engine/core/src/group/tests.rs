use serde_json::{Value, json};

use super::*;

fn catalogue() -> Catalogue {
    let mut out = Catalogue::default();
    let schema = json!({"type": "object", "x-fleetwright-for": "Pool", "properties": {"disk": {"type": "integer", "default": 20}}});
    out.insert("x/v1", "Group", schema);
    out.insert("x/v1", "Machine", json!({"type": "object"}));
    out
}

fn config(kind: &str) -> Value {
    json!({"apiVersion": "x/v1", "kind": kind, "account": "a"})
}

fn pool(more: Value) -> MachineDeployment {
    let mut value = json!({
        "metadata": {"name": "web"},
        "spec": {"clusterName": "c", "replicas": 3, "template": {"spec": {"providerConfig": config("Group")}}},
    });
    merge(&mut value, more);
    serde_json::from_value(value).unwrap()
}

fn cluster(more: Value) -> Cluster {
    let mut value = json!({
        "metadata": {"name": "c"},
        "spec": {"version": "v1.33.2", "controlPlane": {"managed": {"providerConfig": config("ControlPlane")}}},
        "status": {"version": "v1.33.2"},
    });
    merge(&mut value, more);
    serde_json::from_value(value).unwrap()
}

fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from,
    }
}

#[test]
fn a_group_is_ordered_at_the_version_that_the_control_plane_lets_it_have() {
    let autoscaled = json!({"metadata": {"annotations": {
        "fleetwright.dev/cluster-api-autoscaler-node-group-min-size": "1",
        "fleetwright.dev/cluster-api-autoscaler-node-group-max-size": "5",
    }}});
    let own = |version: &str| json!({"spec": {"template": {"spec": {"version": version}}}});
    let paused = json!({"metadata": {"annotations": {"fleetwright.dev/paused": ""}}});
    let goes = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let other = json!({"spec": {"template": {"spec": {"providerConfig": {"account": "b"}}}}});
    let machines = json!({"spec": {"controlPlane": {"managed": null, "machines": {"template": {"spec": {"providerConfig": {}}}}}}});
    let status = |version: Value| json!({"status": {"version": version}});
    let none = || json!({});
    let rows = [
        ("follows", none(), none(), "v1.33.2 Some(3)", ""),
        ("autoscaled", autoscaled.clone(), none(), "v1.33.2 None", ""),
        ("its own", own("v1.32.0"), none(), "v1.32.0 Some(3)", ""),
        (
            "ahead",
            own("v1.34.0"),
            none(),
            "",
            "waits for the control plane to run v1.34.0 (it runs v1.33.2)",
        ),
        (
            "nothing serves",
            none(),
            status(Value::Null),
            "",
            "waits for the control plane to run v1.33.2",
        ),
        (
            "a new one on the way",
            none(),
            status(json!("v1.31.0")),
            "v1.31.0 Some(3)",
            "waits for the control plane to run v1.33.2 (it runs v1.31.0)",
        ),
        (
            "became machines",
            json!({"spec": {"template": {"spec": {"providerConfig": {"kind": "Machine"}}}}}),
            none(),
            "",
            "the provider runs the pool's nodes, which cannot become Machine: make another pool, and delete this one",
        ),
        ("paused", paused.clone(), none(), "", "paused"),
        ("a paused Cluster", none(), paused, "", "paused"),
        ("leaves", goes, none(), "", "the pool is on its way out"),
        (
            "another account",
            other,
            none(),
            "",
            "the control plane is in account a, and a group of its nodes cannot be in b: set providerConfig.account to a",
        ),
        (
            "machines",
            none(),
            machines,
            "",
            "Group is a group of nodes of a control plane that the provider runs, and c has none: use a kind of providerConfig for machines",
        ),
    ];
    for (what, pool_is, cluster_is, order, waits) in rows {
        let (pool, cluster) = (pool(pool_is), cluster(cluster_is));
        let decided = decide(&pool, Some(&cluster), false, &catalogue());
        let ordered = decided
            .order
            .map(|o| format!("{} {:?}", o.version, o.replicas));
        assert_eq!(ordered.unwrap_or_default(), order, "{what}");
        let why = decided.waits.map(|wait| wait.to_string());
        assert_eq!(why.unwrap_or_default(), waits, "{what}");
    }
    let bounds = |change: Value| {
        let decided = decide(&pool(change), Some(&cluster(none())), false, &catalogue());
        decided.order.and_then(|order| order.bounds)
    };
    assert_eq!(bounds(none()), None);
    assert_eq!(bounds(autoscaled.clone()), Some((1, 5)));
    for max in ["0", "many"] {
        let mut wrong = autoscaled.clone();
        wrong["metadata"]["annotations"][meta::ANNOTATION_AUTOSCALER_MAX] = json!(max);
        assert_eq!(bounds(wrong), None, "{max}");
    }
    let (pool, cluster) = (pool(none()), cluster(none()));
    let sets = decide(&pool, Some(&cluster), true, &catalogue());
    let kind = "Group".to_owned();
    assert_eq!(sets, GroupDecision::waits(GroupWait::HasSets(kind)));
    let alone = decide(&pool, None, false, &catalogue());
    assert_eq!(
        alone,
        GroupDecision::waits(GroupWait::NoCluster("c".into()))
    );
    let full = decide(&pool, Some(&cluster), false, &catalogue());
    assert_eq!(full.order.unwrap().config.settings()["disk"], 20);
}

#[test]
fn the_lowest_version_is_that_of_groups_with_nodes() {
    let of = |kind: &str, replicas: i32, there: i32, version: &str| {
        pool(json!({
            "spec": {"replicas": replicas, "template": {"spec": {"providerConfig": config(kind)}}},
            "status": {"replicas": there, "version": version},
        }))
    };
    let pools = [
        of("Machine", 1, 1, "v1.28.0"),
        of("Group", 0, 0, "v1.29.0"),
        of("Group", 0, 1, "v1.31.0"),
        of("Group", 1, 0, "v1.32.0"),
    ];
    let found = lowest_version(&pools, &catalogue());
    assert_eq!(found, Some("v1.31.0".parse().unwrap()));
}

#[test]
fn replicas_follow_only_where_an_autoscaler_decides() {
    let mut pool = pool(json!({}));
    assert_eq!(replicas_follow(&pool, 5), None);
    let bounds = [
        meta::ANNOTATION_AUTOSCALER_MIN,
        meta::ANNOTATION_AUTOSCALER_MAX,
    ];
    let all = bounds.map(|key| (key.to_owned(), "1".to_owned()));
    pool.metadata.annotations = Some(all.into());
    assert_eq!(replicas_follow(&pool, 5), Some(5));
    assert_eq!(replicas_follow(&pool, 3), None);
}

#[test]
fn a_changed_number_is_written_back_where_the_fleet_says_so() {
    let fleet = |spec: Value| -> FleetSpec { serde_json::from_value(spec).unwrap() };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let rule = |kinds: Value, paths: Value| json!({"drift": {"rules": [{"kinds": kinds, "paths": paths, "policy": "correct"}]}});
    let all = json!({"drift": {"policy": "correct"}});
    let mut suspended = all.clone();
    suspended["suspend"] = json!(true);
    for (spec, corrects) in [
        (json!({}), false),
        (all, true),
        (suspended, false),
        (rule(json!(["Machine"]), json!([])), false),
        (rule(json!(["MachineDeployment"]), json!([])), true),
        (rule(json!([]), json!(["spec.replicas"])), true),
        (rule(json!([]), json!(["spec.template"])), false),
    ] {
        let mut whole = json!({"source": {"git": {"url": "https://x/y"}}});
        merge(&mut whole, spec.clone());
        let action = drift_action(Some(&fleet(whole)), now);
        assert_eq!(action == DriftAction::Correct, corrects, "{spec}");
    }
    assert_eq!(drift_action(None, now), DriftAction::Report);
}
