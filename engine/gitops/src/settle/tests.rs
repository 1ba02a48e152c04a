use super::*;
use fleetwright_api::{
    cluster::ClusterStatus,
    condition::{Status, set},
    machine_deployment::MachineDeploymentStatus,
};
use serde_json::json;

fn a_cluster(version: &str, running: Option<&str>, rolling: bool, available: bool) -> Cluster {
    let config = json!({"apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": "a"});
    let mut cluster: Cluster = serde_json::from_value(json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster",
        "metadata": {"name": "eu", "namespace": "default", "generation": 2},
        "spec": {"version": version, "controlPlane": {"machines": {"template": {"spec": {"providerConfig": config}}}}}}))
    .unwrap();
    let mut conditions = Vec::new();
    let now = Timestamp::UNIX_EPOCH;
    set(
        &mut conditions,
        kind::ROLLING_OUT,
        Status::from(rolling),
        "R",
        "replacing eu-cp-1",
        Some(2),
        now,
    );
    set(
        &mut conditions,
        kind::AVAILABLE,
        Status::from(available),
        "R",
        "eu-cp-1 is not ready",
        Some(2),
        now,
    );
    cluster.status = Some(ClusterStatus {
        observed_generation: Some(2),
        version: running.map(Into::into),
        conditions,
        ..ClusterStatus::default()
    });
    cluster
}

fn a_pool(version: &str, up_to_date: i32) -> MachineDeployment {
    let config = json!({"apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": "a"});
    let mut pool: MachineDeployment = serde_json::from_value(json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment",
        "metadata": {"name": "web", "namespace": "default", "generation": 1},
        "spec": {"clusterName": "eu", "replicas": 3, "template": {"spec": {"providerConfig": config}}}}))
    .unwrap();
    pool.status = Some(MachineDeploymentStatus {
        observed_generation: Some(1),
        replicas: 3,
        ready_replicas: 3,
        available_replicas: 3,
        up_to_date_replicas: up_to_date,
        version: Some(version.into()),
        ..MachineDeploymentStatus::default()
    });
    pool
}

fn key(kind: &str, name: &str) -> Key {
    Key {
        api_version: "fleetwright.dev/v1alpha1".into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn seen(cluster: Option<Cluster>, pool: Option<MachineDeployment>) -> Seen {
    let name = |n: &str| ("default".to_owned(), n.to_owned());
    Seen {
        clusters: cluster.into_iter().map(|c| (name("eu"), c)).collect(),
        pools: pool.into_iter().map(|p| (name("web"), p)).collect(),
        ..Seen::default()
    }
}

#[test]
fn a_cluster_converges_with_its_pools() {
    let cases: [(Cluster, MachineDeployment, &str); 6] = [
        (
            a_cluster("v1.34.1", Some("v1.33.2"), true, true),
            a_pool("v1.33.2", 3),
            "runs v1.33.2, not yet v1.34.1",
        ),
        (
            a_cluster("v1.34.1", Some("v1.34.1"), true, true),
            a_pool("v1.34.1", 1),
            "RollingOut",
        ),
        (
            a_cluster("v1.34.1", Some("v1.34.1"), false, true),
            a_pool("v1.33.2", 3),
            "at v1.33.2, follows the cluster to v1.34.1",
        ),
        (
            a_cluster("v1.34.1", Some("v1.34.1"), false, true),
            a_pool("v1.34.1", 1),
            "1 of 3 machines are up to date",
        ),
        (
            a_cluster("v1.34.1", Some("v1.34.1"), false, false),
            a_pool("v1.34.1", 3),
            "eu-cp-1 is not ready",
        ),
        (
            a_cluster("v1.34.1", Some("v1.34.1"), false, true),
            a_pool("v1.34.1", 3),
            "",
        ),
    ];
    for (cluster, pool, want) in cases {
        match seen(Some(cluster), Some(pool))
            .standings()
            .of(&key("Cluster", "eu"))
        {
            Standing::Converged => assert_eq!(want, ""),
            Standing::Converging(text) => {
                assert!(!want.is_empty() && text.contains(want), "{text} / {want}");
            }
            Standing::Blocked(text) | Standing::Stuck(text) => panic!("{text}"),
        }
    }
    let mut unseen = a_cluster("v1.34.1", Some("v1.34.1"), false, true);
    unseen.metadata.generation = Some(3);
    assert!(matches!(
        seen(Some(unseen), None)
            .standings()
            .of(&key("Cluster", "eu")),
        Standing::Converging(_)
    ));
}

#[test]
fn what_was_deleted_is_waited_for_until_it_is_gone() {
    let now = Timestamp::UNIX_EPOCH;
    let ours = |meta: &mut kube::api::ObjectMeta| {
        let label = (LABEL_FLEET.to_owned(), "f".to_owned());
        meta.labels = Some([label].into());
    };
    let (mut eu, mut web) = (
        a_cluster("v1.34.1", Some("v1.34.1"), false, true),
        a_pool("v1.34.1", 3),
    );
    let by_hand = web.clone();
    ours(&mut eu.metadata);
    ours(&mut web.metadata);
    let mut pending = Pending::default();
    let deleted = [key("Cluster", "eu"), key("MachineDeployment", "web")];
    pending.add(deleted.map(|key| (key, None)), now);
    // As they were before the deletion was seen, complete and available.
    let outcome = pending.look(&seen(Some(eu), Some(web.clone())), now, 1800);
    assert!(matches!(outcome, Outcome::Pending(2, _)), "{outcome:?}");
    let outcome = pending.look(&seen(None, Some(web)), now, 1800);
    let words = "MachineDeployment default/web is being deleted: 3 machines are left";
    assert_eq!(outcome, Outcome::Pending(1, words.into()));
    // Somebody made one of the same name since.
    let outcome = pending.look(&seen(None, Some(by_hand)), now, 1800);
    assert_eq!(outcome, Outcome::Success(2));
}

#[test]
fn success_is_sticky_and_a_deadline_fails_until_it_converges() {
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    let mut pending = Pending::default();
    assert_eq!(
        pending.look(&Seen::default(), at(0), 10),
        Outcome::Success(0)
    );
    pending.add(
        [
            (key("Cluster", "eu"), Some(2)),
            (key("MachineDeployment", "web"), Some(1)),
        ],
        at(0),
    );
    assert!(
        matches!(pending.look(&Seen::default(), at(0), 10), Outcome::Pending(2, words) if words.contains("not seen yet"))
    );
    let done = seen(
        Some(a_cluster("v1.34.1", Some("v1.34.1"), false, true)),
        Some(a_pool("v1.34.1", 3)),
    );
    let half = seen(
        Some(a_cluster("v1.34.1", Some("v1.34.1"), false, true)),
        Some(a_pool("v1.34.1", 2)),
    );
    assert!(matches!(
        pending.look(&half, at(1), 10),
        Outcome::Pending(2, _)
    ));
    assert!(matches!(
        pending.look(&half, at(10), 10),
        Outcome::Pending(2, _)
    ));
    assert!(
        matches!(pending.look(&half, at(12), 10), Outcome::Failure(why) if why.contains("nothing moved for 11 s"))
    );
    assert_eq!(pending.look(&done, at(13), 10), Outcome::Success(2));
    // What converged once stays so.
    assert_eq!(pending.look(&half, at(14), 10), Outcome::Success(2));
}

#[test]
fn a_held_version_fails_with_its_remedy() {
    let mut held = a_cluster("v1.33.2", Some("v1.34.1"), false, true);
    let status = held.status.as_mut().unwrap();
    set(
        &mut status.conditions,
        kind::VERSION_HELD,
        Status::True,
        "R",
        "v1.34.1 runs: set version to it",
        Some(2),
        Timestamp::UNIX_EPOCH,
    );
    let mut pending = Pending::default();
    pending.add([(key("Cluster", "eu"), Some(2))], Timestamp::UNIX_EPOCH);
    let outcome = pending.look(
        &seen(Some(held), Some(a_pool("v1.33.2", 3))),
        Timestamp::UNIX_EPOCH,
        10,
    );
    assert_eq!(
        outcome,
        Outcome::Failure("cluster eu: v1.34.1 runs: set version to it".into())
    );
}

#[test]
fn what_is_gone_has_converged() {
    assert_eq!(
        Seen::default().standings().of(&key("Cluster", "eu")),
        Standing::Converged
    );
    assert_eq!(
        Seen::default().standings().of(&key("Namespace", "x")),
        Standing::Converged
    );
}

/// A pool, one of whose machines the provider refuses for this reason.
fn refused(reason: &str, observed: i64) -> MachineDeployment {
    let mut pool = a_pool("v1.34.1", 1);
    let status = pool.status.as_mut().unwrap();
    status.observed_generation = Some(observed);
    set(
        &mut status.conditions,
        kind::SCALING_UP,
        Status::True,
        reason,
        "web-1: instanceType: no such type",
        Some(observed),
        Timestamp::UNIX_EPOCH,
    );
    pool
}

#[test]
fn what_a_provider_refuses_for_good_fails_at_once_and_may_turn() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let cluster = || a_cluster("v1.34.1", Some("v1.34.1"), false, true);
    let why = "pool web: web-1: instanceType: no such type";
    for (of, name) in [("MachineDeployment", "web"), ("Cluster", "eu")] {
        let mut pending = Pending::default();
        pending.add([(key(of, name), Some(1))], at(0));
        // What was seen before the change, and what may pass, says nothing.
        for pool in [refused("Terminal", 0), refused("QuotaExceeded", 1)] {
            let outcome = pending.look(&seen(Some(cluster()), Some(pool)), at(1), 1800);
            assert!(matches!(outcome, Outcome::Pending(1, _)), "{outcome:?}");
        }
        for reason in ["Terminal", "CredentialsRefused"] {
            let now = seen(Some(cluster()), Some(refused(reason, 1)));
            let outcome = pending.look(&now, at(2), 1800);
            assert_eq!(outcome, Outcome::Failure(why.into()), "{of} {reason}");
        }
        let mended = seen(Some(cluster()), Some(a_pool("v1.34.1", 3)));
        assert_eq!(pending.look(&mended, at(3), 1800), Outcome::Success(1));
    }
    // A control plane's own machine.
    let mut cluster = a_cluster("v1.34.1", Some("v1.34.1"), false, false);
    let conditions = &mut cluster.status.as_mut().unwrap().conditions;
    let text = "scaling up the control plane (eu-cp-1: no such type)";
    let (kind, now) = (kind::SCALING_UP, Timestamp::UNIX_EPOCH);
    set(
        conditions,
        kind,
        Status::True,
        "Terminal",
        text,
        Some(2),
        now,
    );
    let mut pending = Pending::default();
    pending.add([(key("Cluster", "eu"), Some(2))], at(0));
    let outcome = pending.look(&seen(Some(cluster), None), at(1), 1800);
    assert_eq!(outcome, Outcome::Failure(format!("cluster eu: {text}")));
}

#[test]
fn a_blocked_upgrade_fails_with_its_remedy_before_anything_converges() {
    let mut blocked = a_cluster("v1.36.0", Some("v1.33.2"), false, true);
    let status = blocked.status.as_mut().unwrap();
    set(
        &mut status.conditions,
        kind::UPGRADE_BLOCKED,
        Status::True,
        "R",
        "the Fleet allows no v1.34: add one",
        Some(2),
        Timestamp::UNIX_EPOCH,
    );
    let mut pending = Pending::default();
    pending.add([(key("Cluster", "eu"), Some(2))], Timestamp::UNIX_EPOCH);
    let outcome = pending.look(&seen(Some(blocked), None), Timestamp::UNIX_EPOCH, 10);
    assert_eq!(
        outcome,
        Outcome::Failure("cluster eu: the Fleet allows no v1.34: add one".into())
    );
}
