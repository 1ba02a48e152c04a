//! How long a plan takes, from machines that came before.

use fleetwright_api::time::k8s_time;
use jiff::SignedDuration;

use super::*;

/// Machines of a fleet that was made `seconds` before each of them was ready, one after the other.
fn took(fleet: &mut Fleet, seconds: &[i64]) {
    let machines = fleet.live.machines.iter_mut();
    for (machine, seconds) in machines.zip(seconds.iter().cycle()) {
        machine.metadata.creation_timestamp = Some(k8s_time(now()));
        let ready = now() + SignedDuration::from_secs(*seconds);
        for condition in &mut machine.status.as_mut().unwrap().conditions {
            condition.last_transition_time = k8s_time(ready);
        }
    }
}

/// Seconds, and whose machines, how many and which median they are taken from.
type Told = (Option<i64>, Option<(HistoryOf, usize, i64)>);

fn times(plan: &Plan) -> Vec<Told> {
    let of = |r: &Rollout| {
        let from = r.expected_from.map(|h| (h.of, h.machines, h.seconds));
        (r.expected_seconds, from)
    };
    plan.rollouts.iter().map(of).collect()
}

#[test]
fn steps_take_as_long_as_machines_of_the_pool_took_else_of_the_cluster_else_of_others() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))]);
    // The control plane's machine first, then the pool's.
    took(&mut fleet, &[1000, 100, 300, 200]);
    let mut rolled = pool(3, 2, (1, 0));
    rolled["spec"]["template"]["spec"]["minReadySeconds"] = json!(30);
    let plan = fleet.plan(&[cluster("v1.33.2", 1), rolled.clone()]);
    assert_eq!(
        times(&plan),
        [(Some(3 * 230), Some((HistoryOf::Own, 3, 200)))]
    );
    assert_eq!(plan.expected_seconds, Some(690));

    // A second pool has no machines of its own; it comes beside the other's first step.
    let mut other = rolled.clone();
    other["metadata"]["name"] = json!("other");
    let plan = fleet.plan(&[cluster("v1.33.2", 1), rolled, other]);
    let of_cluster = (Some(280), Some((HistoryOf::Cluster, 4, 250)));
    assert_eq!(times(&plan)[0], of_cluster);
    assert_eq!(plan.expected_seconds, Some(280 + 2 * 230));

    // What only goes, or changes in place, takes drains alone.
    let plan = fleet.plan(&[cluster("v1.33.2", 1), pool(2, 1, (1, 0))]);
    assert_eq!(
        (times(&plan), plan.expected_seconds),
        (vec![(None, None)], None)
    );

    // A new cluster is told by others.
    let mut new = cluster("v1.33.2", 3);
    new["metadata"]["name"] = json!("new");
    let documents = [cluster("v1.33.2", 1), pool(3, 1, (1, 0)), new.clone()];
    let plan = fleet.plan(&documents);
    assert_eq!(
        times(&plan),
        [(Some(3 * 250), Some((HistoryOf::All, 4, 250)))]
    );
    assert_eq!(Fleet::default().plan(&[new]).expected_seconds, None);
}

#[test]
fn machines_that_do_not_tell_are_left_out() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))]);
    took(&mut fleet, &[100, 100, -5, 24 * 3600 + 1]);
    let bad = json!({"type": "Ready", "bad": false, "seconds": 5, "since": "2026-01-01T00:00:00Z"});
    let bad = serde_json::from_value(bad).unwrap();
    fleet.live.machines[0]
        .status
        .as_mut()
        .unwrap()
        .bad_conditions = vec![bad];
    let plan = fleet.plan(&[cluster("v1.33.2", 1), pool(3, 2, (1, 0))]);
    assert_eq!(times(&plan)[0].1, Some((HistoryOf::Own, 1, 100)));
}

#[test]
fn waves_take_their_soak_times_where_something_comes_after_them() {
    let mut fleet = Fleet::default();
    let labelled = |size| {
        let mut pool = pool(1, size, (1, 0));
        pool["metadata"]["labels"] = json!({"tier": "web"});
        pool
    };
    fleet.settle(&[cluster("v1.33.2", 1), labelled(1)]);
    took(&mut fleet, &[100]);
    let first = Wave {
        name: "web".into(),
        pools: Some(serde_json::from_value(json!({"matchLabels": {"tier": "web"}})).unwrap()),
        soak_seconds: Some(600),
        ..Wave::default()
    };
    fleet.waves = vec![first];
    let alone = fleet.plan(&[labelled(2)]);
    assert_eq!(alone.expected_seconds, Some(100));
    let mut taller = cluster("v1.33.2", 1);
    taller["spec"]["controlPlane"]["machines"]["template"]["spec"]["providerConfig"]["size"] =
        json!(9);
    let both = fleet.plan(&[taller, labelled(2)]);
    assert_eq!(
        both.expected_seconds,
        Some(100 + 600 + 100),
        "{:?}",
        both.rollouts
    );
}
