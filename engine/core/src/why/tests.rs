//! The chain from commit to wait, in sentences, from objects as the API shows them.

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineHealthCheck, MachineSet};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Record, Scene, cluster_waits, pool_waits, short, span, worker_goes};
use crate::machine_set::Because;

const COMMIT: &str = "3fa2c1d8e5b7a9f0c1d2e3f4a5b6c7d8e9f0a1b2";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, seconds: i64) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(seconds).to_string()})
}

fn owner(kind: &str, name: &str) -> Value {
    json!([{"apiVersion": "fleetwright.dev/v1alpha1", "kind": kind, "name": name, "uid": name, "controller": true}])
}

fn change() -> Value {
    json!({"path": "spec.providerConfig.instanceType", "from": "m", "to": "l"})
}

fn cluster(annotations: Value, conditions: Value) -> Cluster {
    read(json!({
        "metadata": {"name": "eu", "namespace": "prod", "uid": "eu", "generation": 1, "annotations": annotations},
        "spec": {"version": "v1.34.1", "controlPlane": {"machines": {"replicas": 1, "template": {"spec": {"providerConfig": {}}}}}},
        "status": {"observedGeneration": 1, "version": "v1.34.1", "conditions": conditions},
    }))
}

fn pool(revision: u32, conditions: Value) -> MachineDeployment {
    read(json!({
        "metadata": {"name": "web", "namespace": "prod", "uid": "web", "generation": 2, "annotations": {
            "machinedeployment.fleetwright.dev/revision": revision.to_string(), "fleetwright.dev/revision": COMMIT,
        }},
        "spec": {"clusterName": "eu", "replicas": 3, "template": {"spec": {"providerConfig": {}}}},
        "status": {"observedGeneration": 2, "conditions": conditions},
    }))
}

fn set(name: &str, revision: u32, record: Value) -> MachineSet {
    read(json!({
        "metadata": {"name": name, "namespace": "prod", "uid": name, "ownerReferences": owner("MachineDeployment", "web"), "annotations": {
            "machinedeployment.fleetwright.dev/revision": revision.to_string(), "fleetwright.dev/made-because": record.to_string(),
        }},
        "spec": {"clusterName": "eu", "replicas": 3, "template": {"spec": {"providerConfig": {}}}},
    }))
}

fn machine(name: &str, set: &str, status: Value) -> Machine {
    read(json!({
        "metadata": {"name": name, "namespace": "prod", "uid": name, "ownerReferences": owner("MachineSet", set)},
        "spec": {"clusterName": "eu", "providerConfig": {}, "providerID": "sim:///x"},
        "status": status,
    }))
}

fn rolling() -> MachineDeployment {
    pool(
        2,
        json!([
            condition(
                "MachinesReady",
                "False",
                "NotReady",
                "web-a-3: draining node n3",
                -100
            ),
            condition(
                "RollingOut",
                "True",
                "RollingOut",
                "rolling out 1 not up-to-date machines",
                -600
            ),
        ]),
    )
}

fn sets() -> [MachineSet; 2] {
    [
        set("web-a", 1, json!({"note": "it is the first of its pool"})),
        set("web-b", 2, json!({"commit": COMMIT, "changes": [change()]})),
    ]
}

fn draining() -> Machine {
    let mut machine = machine(
        "web-a-3",
        "web-a",
        json!({
            "deletion": {"because": "replaced because providerConfig.instanceType changed from m to l in 3fa2c1d", "nodeDrainStartTime": at(-250).to_string()},
            "conditions": [condition("Deleting", "True", "DrainingNode", "draining: pod db-0 is protected by budget db, 0 disruptions allowed", -400)],
        }),
    );
    machine.metadata.deletion_timestamp = Some(fleetwright_api::time::k8s_time(at(-400)));
    machine
}

#[test]
fn a_machine_on_its_way_out_tells_commit_field_rule_and_wait() {
    let (pools, sets) = ([rolling()], sets());
    let scene = Scene {
        pools: &pools,
        sets: &sets,
        ..Scene::default()
    };
    let want = "\
Machine prod/web-a-3: replaced because providerConfig.instanceType changed from m to l in 3fa2c1d; draining: pod db-0 is protected by budget db, 0 disruptions allowed, since 4 m
  MachineDeployment web: at revision 2 because providerConfig.instanceType changed from m to l in 3fa2c1d; it may have 1 machines more and 0 fewer available than 3 while it rolls; rolling out 1 not up-to-date machines; web-a-3: draining node n3, since 10 m
";
    assert_eq!(scene.machine(&draining()).text(at(0)), want);
    let value = serde_json::to_value(scene.machine(&draining())).unwrap();
    assert_eq!(value["says"][1]["since"], json!(at(-250)));
    assert_eq!(value["because"][0]["kind"], "MachineDeployment");
}

#[test]
fn machines_tell_what_they_wait_for() {
    let (pools, sets) = ([rolling()], sets());
    let cluster = cluster(
        json!({}),
        json!([condition("Available", "True", "Available", "", 0)]),
    );
    let scene = Scene {
        cluster: Some(&cluster),
        pools: &pools,
        sets: &sets,
        machines: &[],
    };
    let good = |kind: &str| condition(kind, "True", kind, "", -3_600 * 5);
    let first = |machine: &Machine| {
        let text = scene.machine(machine).text(at(0));
        let line = text.lines().next().unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    for (name, set, status, want) in [
        (
            "nobody saw it",
            "web-b",
            json!({}),
            "made because providerConfig.instanceType changed from m to l in 3fa2c1d; nobody looked at it yet",
        ),
        (
            "it is to be replaced",
            "web-a",
            json!({"nodeRef": {"name": "n"}, "conditions": [
                good("Available"), good("Ready"), condition("UpToDate", "False", "NotUpToDate", "spec.providerConfig.instanceType: m -> l", -60),
            ]}),
            "to be replaced because providerConfig.instanceType changed from m to l in 3fa2c1d, since 60 s; runs as node n and waits for nothing, since 5 h",
        ),
        (
            "its instance",
            "web-b",
            json!({"conditions": [
                condition("InfrastructureReady", "False", "NotReady", "quota of account sim-eu is used up", -200),
                condition("NodeHealthy", "False", "NodeDoesNotExist", "waiting for the instance to run", -200), good("UpToDate"),
            ]}),
            "made because providerConfig.instanceType changed from m to l in 3fa2c1d; quota of account sim-eu is used up, since 3 m",
        ),
        (
            "its owner",
            "web-a",
            json!({"conditions": [
                condition("HealthCheckSucceeded", "False", "UnhealthyNode", "Ready is False for 5 m", -200), good("UpToDate"),
                condition("OwnerRemediated", "False", "RemediationDeferred", "too many at once", -100),
            ]}),
            "made because it is the first of its pool; too many at once, since 100 s",
        ),
        (
            "its minReadySeconds",
            "web-b",
            json!({"conditions": [
                good("Ready"), good("UpToDate"), condition("Available", "False", "WaitingForMinReadySeconds", "ready, and available from then on", -10),
            ]}),
            "made because providerConfig.instanceType changed from m to l in 3fa2c1d; ready, and available from then on, since 10 s",
        ),
        (
            "a pause",
            "web-a",
            json!({"conditions": [good("Paused")]}),
            "made because it is the first of its pool; paused, since 5 h",
        ),
    ] {
        assert_eq!(first(&machine("m", set, status)), want, "{name}");
    }
    // Before the pool has a set for it, the pool's own commit is named.
    let mut behind = rolling();
    behind.metadata.annotations.as_mut().unwrap().insert(
        "machinedeployment.fleetwright.dev/revision".into(),
        "1".into(),
    );
    let pools = [behind];
    let scene = Scene {
        pools: &pools,
        sets: &sets[..1],
        ..Scene::default()
    };
    let outdated = machine(
        "m",
        "web-a",
        json!({"conditions": [condition("UpToDate", "False", "NotUpToDate", "spec.version: a -> b", -60)]}),
    );
    let text = scene.machine(&outdated).text(at(0));
    assert!(
        text.contains("to be replaced because spec.version: a -> b in 3fa2c1d"),
        "{text}"
    );
}

#[test]
fn sets_pools_and_clusters_name_the_machines_that_hold_them_up() {
    let (pools, sets) = ([rolling()], sets());
    let machines = [
        machine(
            "web-b-4",
            "web-b",
            json!({"conditions": [condition("InfrastructureReady", "False", "NotReady", "waiting for the instance to run", -30)]}),
        ),
        draining(),
        machine(
            "web-b-5",
            "web-b",
            json!({"conditions": [condition("Ready", "True", "Ready", "", 0)]}),
        ),
    ];
    let annotations = json!({"fleetwright.dev/revision": COMMIT});
    let cluster = cluster(
        annotations,
        json!([condition(
            "RollingOut",
            "True",
            "RollingOut",
            "rolling out pool web",
            -700
        )]),
    );
    let scene = Scene {
        cluster: Some(&cluster),
        pools: &pools,
        sets: &sets,
        machines: &machines,
    };
    let names = |text: &str| -> Vec<String> {
        let line = |l: &str| l.split(": ").next().unwrap().trim().to_owned();
        text.lines().map(line).collect()
    };
    let text = scene.pool(&pools[0]).text(at(0));
    assert_eq!(
        names(&text),
        [
            "MachineDeployment prod/web",
            "Machine web-a-3",
            "Machine web-b-4"
        ]
    );
    let text = scene.set(&sets[1]).text(at(0));
    assert_eq!(
        names(&text),
        [
            "MachineSet prod/web-b",
            "Machine web-b-4",
            "MachineDeployment web"
        ]
    );
    assert!(text.starts_with("MachineSet prod/web-b: revision 2, made because providerConfig.instanceType changed from m to l in 3fa2c1d; the current set of pool web; has the 3 machines"), "{text}");
    let text = scene.whole(&cluster).text(at(0));
    assert_eq!(names(&text), ["Cluster prod/eu", "MachineDeployment web"]);
    assert!(
        text.starts_with(
            "Cluster prod/eu: runs v1.34.1, as 3fa2c1d says; rolling out pool web, since 11 m"
        ),
        "{text}"
    );
    // Many are counted.
    let many: Vec<Machine> = (0..9)
        .map(|n| machine(&format!("m{n}"), "web-b", json!({})))
        .collect();
    let scene = Scene {
        machines: &many,
        ..scene
    };
    let why = scene.pool(&pools[0]);
    assert_eq!(why.because.len(), 5);
    assert_eq!(
        why.says.last().unwrap().text,
        "4 more machines like those below"
    );
}

#[test]
fn what_is_as_it_says_waits_for_nothing_and_what_lacks_its_manifests_for_those() {
    let good = json!([
        condition("Available", "True", "Available", "", 0),
        condition("RollingOut", "False", "NotRollingOut", "", 0)
    ]);
    assert_eq!(pool_waits(&pool(1, good.clone())), None);
    assert_eq!(cluster_waits(&cluster(json!({}), good)), None);
    let refused = json!([
        condition("Available", "True", "Available", "", 0),
        condition(
            "BootstrapManifestsApplied",
            "False",
            "Refused",
            "ConfigMap cni: no",
            -300
        )
    ]);
    assert_eq!(
        cluster_waits(&cluster(json!({}), refused))
            .unwrap()
            .sentence(at(0)),
        "bootstrap manifests: ConfigMap cni: no, since 5 m"
    );
    let mut unseen = pool(1, json!([]));
    unseen.metadata.generation = Some(3);
    assert_eq!(
        pool_waits(&unseen).unwrap().text,
        "its latest change is not looked at yet"
    );
}

#[test]
fn a_health_check_tells_whether_it_lets_machines_be_replaced_and_which_are_broken() {
    let storm = "6 of all 9 machines of image X broke within 10 m, in several clusters: replacing them would not help";
    let held = json!({"conditions": [
        condition("HealthCheckSucceeded", "False", "UnhealthyNode", "its node is not ready", -300),
        condition("OwnerRemediated", "False", "RemediationDeferred", storm, -200),
    ]});
    let machines = [
        machine("web-a-1", "web-a", held),
        machine("web-a-2", "web-a", json!({})),
    ];
    let scene = Scene {
        machines: &machines,
        ..Scene::default()
    };
    let head = "MachineHealthCheck prod/web-check: ";
    let says = |broken: &[&str], (status, reason, message): (&str, &str, &str)| {
        let check: MachineHealthCheck = read(json!({
            "metadata": {"name": "web-check", "namespace": "prod", "generation": 1},
            "spec": {"clusterName": "eu", "selector": {}},
            "status": {
                "observedGeneration": 1, "expectedMachines": 2, "currentHealthy": 2 - broken.len(), "unhealthy": broken,
                "conditions": [condition("RemediationAllowed", status, reason, message, -200)],
            },
        }));
        scene.health_check(&check).text(at(0))
    };
    for (broken, condition, want) in [
        (
            &["web-a-1"][..],
            ("False", "RemediationStorm", storm),
            format!(
                "looks at 2 machines of Cluster eu; 1 of them is broken; not all broken machines may be replaced: {storm}, since 3 m\n  \
                 Machine web-a-1: {storm}, since 3 m\n"
            ),
        ),
        (
            &[],
            ("False", "Paused", "the health check is paused"),
            "looks at 2 machines of Cluster eu; none of them is broken; not all broken machines may be replaced: \
             the health check is paused, since 3 m\n"
                .into(),
        ),
        (
            &[],
            ("True", "RemediationAllowed", ""),
            "looks at 2 machines of Cluster eu; none of them is broken; broken machines may be replaced, since 3 m\n".into(),
        ),
    ] {
        assert_eq!(says(broken, condition), format!("{head}{want}"));
    }
    let new: MachineHealthCheck = read(json!({
        "metadata": {"name": "web-check", "namespace": "prod", "generation": 1},
        "spec": {"clusterName": "eu", "selector": {}},
    }));
    let text = scene.health_check(&new).text(at(0));
    assert_eq!(
        text,
        format!("{head}its latest change is not looked at yet\n")
    );
}

#[test]
fn a_pool_tells_the_first_thing_that_it_waits_for() {
    let on = |kind: &str, text: &str| condition(kind, "True", kind, text, -300);
    for (conditions, want) in [
        (
            json!([
                on(
                    "ScalingDown",
                    "scaling down from 4 to 3 machines (m: draining)"
                ),
                condition("MachinesReady", "False", "NotReady", "m: draining", 0)
            ]),
            "scaling down from 4 to 3 machines (m: draining), since 5 m",
        ),
        (
            json!([
                on(
                    "ScalingUp",
                    "scaling up from 1 to 3 machines, but the quota"
                ),
                on("Paused", "")
            ]),
            "scaling up from 1 to 3 machines, but the quota; paused, since 5 m",
        ),
        (
            json!([
                condition(
                    "Available",
                    "False",
                    "NotAvailable",
                    "2 available replicas",
                    -300
                ),
                condition("MachinesReady", "False", "NotReady", "m: no node", 0)
            ]),
            "2 available replicas; m: no node, since 5 m",
        ),
        (
            json!([on("Deleting", ""), on("RollingOut", "x")]),
            "Deleting, since 5 m",
        ),
    ] {
        assert_eq!(
            pool_waits(&pool(1, conditions)).unwrap().sentence(at(0)),
            want
        );
    }
}

#[test]
fn a_machine_that_nobody_noted_a_reason_for_is_told_from_its_owners() {
    let doomed = machine("m", "web-a", json!({}));
    let sets = sets();
    let goes = |leaves: bool, pool: bool, set: Option<bool>| {
        let leave = |meta: &mut ObjectMeta, on: bool| {
            meta.deletion_timestamp = on.then(|| fleetwright_api::time::k8s_time(at(0)));
        };
        let mut eu = cluster(json!({}), json!([]));
        leave(&mut eu.metadata, leaves);
        let mut pools = [rolling()];
        leave(&mut pools[0].metadata, pool);
        let mut sets: Vec<MachineSet> = sets.to_vec();
        leave(&mut sets[0].metadata, set == Some(true));
        if set.is_none() {
            sets.remove(0);
        }
        let scene = Scene {
            cluster: Some(&eu),
            pools: &pools,
            sets: &sets,
            machines: &[],
        };
        scene.goes(&doomed)
    };
    assert_eq!(
        goes(true, true, Some(true)),
        "removed because Cluster eu is on its way out"
    );
    assert_eq!(
        goes(false, true, Some(true)),
        "removed because pool web is on its way out"
    );
    assert_eq!(
        goes(false, false, Some(true)),
        "removed because set web-a is on its way out"
    );
    assert_eq!(goes(false, false, None), "removed because its set is gone");
    assert_eq!(
        goes(false, false, Some(false)),
        "deleted by somebody else: no decision of Fleetwright is known"
    );
}

#[test]
fn the_reason_of_a_deletion_is_what_made_the_new_set_or_the_number() {
    let [old, new] = sets();
    let pool = rolling();
    let replaced = "replaced because providerConfig.instanceType changed from m to l in 3fa2c1d";
    for (because, current, want) in [
        (Because::Order, Some(&new), replaced.to_owned()),
        (
            Because::Unhealthy,
            Some(&new),
            format!("{replaced}; this one because it is not healthy"),
        ),
        (
            Because::Marked,
            Some(&old),
            "removed because pool web wants 3 machines; this one because it is marked to go first"
                .to_owned(),
        ),
        (
            Because::Order,
            None,
            "removed because pool web wants 3 machines".to_owned(),
        ),
    ] {
        assert_eq!(worker_goes(because, &old, Some(&pool), current), want);
    }
    assert_eq!(
        worker_goes(Because::Order, &old, None, None),
        "removed because set web-a wants 3 machines"
    );
}

#[test]
fn a_record_is_read_as_it_was_written_and_revisions_are_short() {
    let record: Record = read(json!({"commit": COMMIT, "changes": [change()], "note": "n"}));
    assert_eq!(Record::read(&record.write()), Some(record));
    assert_eq!(Record::read("no record"), None);
    for (revision, want) in [
        (COMMIT, "3fa2c1d"),
        (&format!("dir:{COMMIT}"), "dir:3fa2c1d"),
        ("v1", "v1"),
    ] {
        assert_eq!(short(revision), want);
    }
    for (seconds, want) in [
        (-3, "0 s"),
        (119, "119 s"),
        (120, "2 m"),
        (7_200, "2 h"),
        (172_800, "2 d"),
    ] {
        assert_eq!(span(at(0), at(seconds)), want);
    }
}

#[test]
fn the_reason_of_a_control_plane_machines_end() {
    use super::{broken_goes, control_plane_goes};
    use crate::control_plane::{DeleteReason, Trigger};
    let plain = cluster(json!({"fleetwright.dev/revision": COMMIT}), json!([]));
    let changes = [Trigger::Field(read(change()))];
    let restarted = [Trigger::Restarted(at(0))];
    for (reason, because, want) in [
        (
            DeleteReason::Outdated,
            &changes[..],
            "replaced because providerConfig.instanceType changed from m to l in 3fa2c1d",
        ),
        (
            DeleteReason::Outdated,
            &restarted,
            "replaced because machines made before 1970-01-12T13:46:40Z are replaced",
        ),
        (DeleteReason::Broken, &[], "replaced because it is broken"),
        (
            DeleteReason::ScaleDown,
            &[],
            "removed because of this: more machines than wanted",
        ),
    ] {
        let machine = Machine::default();
        assert_eq!(control_plane_goes(&machine, reason, because, &plain), want);
    }
    let marked = |reason: &str| -> Machine {
        read(json!({
            "metadata": {"name": "m"}, "spec": {"clusterName": "c", "providerConfig": {}},
            "status": {"conditions": [{"type": "HealthCheckSucceeded", "status": "False", "reason": reason, "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
    };
    for (reason, want) in [
        ("Drifted", "replaced because why"),
        ("UnhealthyNode", "replaced because it is broken: why"),
    ] {
        assert_eq!(broken_goes(&marked(reason)), want);
        let goes = control_plane_goes(&marked(reason), DeleteReason::Broken, &[], &plain);
        assert_eq!(goes, want);
    }
}
