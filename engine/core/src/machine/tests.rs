//! The order of a machine's life and end.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster,
    machine::{InstanceView, MachineStatus, NodeRef},
};

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn facts() -> MachineFacts {
    MachineFacts {
        instance: Instance::Missing,
        node: NodeState::Missing,
        may_start: true,
        cluster_deleting: false,
        cluster_paused: false,
        control_plane_stays: true,
        bootstrap_kept: false,
        drained: None,
        volumes_attached: None,
    }
}

#[test]
fn a_machine_comes_up_in_order_and_is_never_made_twice() {
    let mut m = Machine::default();
    let mut f = facts();
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::AddFinalizer);
    m.metadata.finalizers = Some(vec![meta::FINALIZER_MACHINE.into()]);
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::SetInstanceKey);
    m.spec.instance_key = Some("0".repeat(32));
    f.may_start = false;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::WaitControlPlane);
    f.may_start = true;
    f.instance = Instance::Unknown;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::WaitProvider);
    f.instance = Instance::Missing;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::CreateInstance);
    f.instance = Instance::Pending;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::WaitInstance);
    f.instance = Instance::Running {
        provider_id: "sim://1".into(),
    };
    assert_eq!(
        next_step(&m, &f, at(0)),
        MachineStep::SetProviderId("sim://1".into())
    );
    m.spec.provider_id = Some("sim://1".into());
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::WaitNode);
    f.node = NodeState::Present {
        name: "n".into(),
        unreachable: false,
    };
    assert_eq!(
        next_step(&m, &f, at(0)),
        MachineStep::Running { node: "n".into() }
    );
    f.instance = Instance::Missing;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::InstanceLost);
    f.instance = Instance::Failed;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::InstanceFailed);
    m.spec.provider_id = None;
    assert_eq!(next_step(&m, &f, at(0)), MachineStep::InstanceFailed);
}

#[test]
fn an_instance_that_lists_do_not_show_is_given_up_when_that_is_proved() {
    use Proof::{AskFor, Given, ListAt};
    let lag = SignedDuration::from_secs(30);
    let listed = |since, latest| Absent::Listed {
        since: at(since),
        latest: at(latest),
    };
    let id = || AskFor("i-1".into());
    for (key, instance, lost, absent, want) in [
        (true, true, false, Absent::Sure, Given),
        (true, true, false, listed(0, 5), id()),
        (true, true, false, listed(0, 900), id()),
        (true, true, true, listed(0, 5), Given),
        (true, false, false, Absent::Sure, Given),
        (true, false, false, listed(0, 0), ListAt(at(30))),
        (true, false, false, listed(10, 39), ListAt(at(40))),
        (true, false, false, listed(10, 40), Given),
        (false, false, false, listed(10, 10), Given),
    ] {
        let mut m = Machine::default();
        m.spec.instance_key = key.then(|| "0".repeat(32));
        let mut status = MachineStatus::default();
        if instance {
            status.instance = Some(InstanceView {
                id: "i-1".into(),
                state: "Running".into(),
                ..InstanceView::default()
            });
        }
        if lost {
            status.conditions.push(condition::Condition {
                type_: condition::kind::HEALTH_CHECK_SUCCEEDED.into(),
                status: "False".into(),
                reason: condition::reason::INSTANCE_LOST.into(),
                message: String::new(),
                last_transition_time: k8s_time(at(0)),
                observed_generation: None,
            });
        }
        m.status = Some(status);
        let row = format!("{key} {instance} {lost} {absent:?}");
        assert_eq!(proof(&m, absent, lag), want, "{row}");
    }
}

fn leaving() -> (Machine, MachineFacts) {
    let mut m = Machine::default();
    m.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    m.status = Some(MachineStatus {
        node_ref: Some(NodeRef { name: "n".into() }),
        ..MachineStatus::default()
    });
    let f = MachineFacts {
        instance: Instance::Running {
            provider_id: "sim://1".into(),
        },
        node: NodeState::Present {
            name: "n".into(),
            unreachable: false,
        },
        ..facts()
    };
    (m, f)
}

#[test]
fn a_machine_goes_in_order() {
    let (mut m, mut f) = leaving();
    let hook = |p: &str| format!("{p}x");
    m.metadata.annotations = Some(BTreeMap::from([
        (hook(meta::PREFIX_PRE_DRAIN_HOOK), String::new()),
        (hook(meta::PREFIX_PRE_TERMINATE_HOOK), String::new()),
    ]));
    let reasons = |m: &Machine, f: &MachineFacts, s| deletion_step(m, f, at(s)).reason();
    assert_eq!(reasons(&m, &f, 0), "WaitingForPreDrainHook");
    m.metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(&hook(meta::PREFIX_PRE_DRAIN_HOOK));
    let drain = deletion_step(&m, &f, at(0));
    assert_eq!(drain.reason(), "DrainingNode");
    let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
    assert!(drain.record_start(status, at(0)) && !drain.record_start(status, at(5)));
    assert_eq!(reasons(&m, &f, 1_799), "DrainingNode");
    assert_eq!(
        reasons(&m, &f, 1_800),
        "WaitingForVolumeDetach",
        "the time-out is finite"
    );
    f.drained = Some(true);
    assert_eq!(reasons(&m, &f, 1), "WaitingForVolumeDetach");
    f.volumes_attached = Some(vec![]);
    assert_eq!(reasons(&m, &f, 1), "WaitingForPreTerminateHook");
    m.metadata.annotations = None;
    assert_eq!(deletion_step(&m, &f, at(1)), DeletionStep::DeleteInstance);
    f.instance = Instance::Unknown;
    assert_eq!(
        deletion_step(&m, &f, at(1)),
        DeletionStep::WaitProvider,
        "an error is no answer"
    );
    f.instance = Instance::Stopping;
    assert_eq!(deletion_step(&m, &f, at(1)), DeletionStep::WaitInstanceGone);
    f.instance = Instance::Missing;
    f.bootstrap_kept = true;
    assert_eq!(reasons(&m, &f, 1), "WaitingForBootstrapDeletion");
    f.bootstrap_kept = false;
    let step = deletion_step(&m, &f, at(1));
    assert_eq!(step.reason(), "DeletingNode");
    let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
    step.record_start(status, at(1));
    f.bootstrap_kept = true;
    assert_eq!(
        reasons(&m, &f, 2),
        "DeletingNode",
        "it was removed before, and is not each time"
    );
    f.node = NodeState::Missing;
    assert_eq!(deletion_step(&m, &f, at(1)), DeletionStep::RemoveFinalizer);
}

#[test]
fn with_its_cluster_or_as_the_last_of_the_control_plane_nothing_is_drained() {
    for (cluster_deleting, control_plane_stays) in [(true, true), (false, false)] {
        let (m, f) = leaving();
        let mut f = MachineFacts {
            cluster_deleting,
            control_plane_stays,
            ..f
        };
        assert_eq!(deletion_step(&m, &f, at(0)), DeletionStep::DeleteInstance);
        f.instance = Instance::Missing;
        f.bootstrap_kept = true;
        assert_eq!(deletion_step(&m, &f, at(0)), DeletionStep::DeleteBootstrap);
        f.bootstrap_kept = false;
        assert_eq!(deletion_step(&m, &f, at(0)), DeletionStep::RemoveFinalizer);
    }
}

fn annotate(m: &mut Machine, key: &str) {
    let annotations = m.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), String::new());
}

#[test]
fn hooks_hold_back_what_follows_them_whatever_became_of_the_instance() {
    let drain = format!("{}x", meta::PREFIX_PRE_DRAIN_HOOK);
    let terminate = format!("{}x", meta::PREFIX_PRE_TERMINATE_HOOK);
    type Change = fn(&mut Machine, &mut MachineFacts);
    let cases: [(&str, Change, &str, &str); 5] = [
        (
            "it runs",
            |_, _| {},
            "WaitingForPreDrainHook",
            "DrainingNode",
        ),
        (
            "its instance is gone",
            |_, f| f.instance = Instance::Missing,
            "WaitingForPreDrainHook",
            "WaitingForPreTerminateHook",
        ),
        (
            "its cluster goes: nothing is drained",
            |_, f| f.cluster_deleting = true,
            "WaitingForPreTerminateHook",
            "WaitingForPreTerminateHook",
        ),
        (
            "its control plane goes with it",
            |_, f| f.control_plane_stays = false,
            "WaitingForPreTerminateHook",
            "WaitingForPreTerminateHook",
        ),
        (
            "it has no node",
            |m, f| {
                m.status = None;
                f.node = NodeState::Missing;
            },
            "WaitingForPreTerminateHook",
            "WaitingForPreTerminateHook",
        ),
    ];
    for (name, change, both, last) in cases {
        let (mut m, mut f) = leaving();
        change(&mut m, &mut f);
        annotate(&mut m, &terminate);
        assert_eq!(deletion_step(&m, &f, at(0)).reason(), last, "{name}");
        annotate(&mut m, &drain);
        assert_eq!(deletion_step(&m, &f, at(0)).reason(), both, "{name}");
    }
}

#[test]
fn a_pause_of_the_machine_or_its_cluster_holds_everything() {
    for leaves in [false, true] {
        let (mut m, mut f) = leaving();
        if !leaves {
            m.metadata.deletion_timestamp = None;
        }
        f.cluster_paused = true;
        assert_eq!(next_step(&m, &f, at(0)), MachineStep::Paused);
        f.cluster_paused = false;
        assert_ne!(next_step(&m, &f, at(0)), MachineStep::Paused);
        annotate(&mut m, meta::ANNOTATION_PAUSED);
        assert_eq!(next_step(&m, &f, at(0)), MachineStep::Paused);
    }
}

#[test]
fn volumes_are_waited_for_unless() {
    type Change = fn(&mut Machine, &mut MachineFacts);
    let waited = |m: &mut Machine, seconds: i64| {
        let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
        status.wait_for_node_volume_detach_start_time = Some(k8s_time(at(-seconds)));
    };
    let cases: [(&str, Change, bool); 7] = [
        ("some are attached", |_, _| {}, true),
        ("nobody looked yet", |_, f| f.volumes_attached = None, true),
        (
            "none is attached",
            |_, f| f.volumes_attached = Some(vec![]),
            false,
        ),
        (
            "the node does not answer",
            |_, f| {
                f.node = NodeState::Present {
                    name: "n".into(),
                    unreachable: true,
                }
            },
            false,
        ),
        (
            "it is excluded",
            |m, _| annotate(m, meta::ANNOTATION_EXCLUDE_WAIT_FOR_VOLUME_DETACH),
            false,
        ),
        (
            "the wait before the end has begun",
            |m, _| {
                let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
                status.wait_for_pre_terminate_hook_start_time = Some(k8s_time(at(0)));
            },
            false,
        ),
        (
            "the instance goes",
            |_, f| f.instance = Instance::Stopping,
            false,
        ),
    ];
    for (name, change, want) in cases {
        let (mut m, mut f) = leaving();
        f.drained = Some(true);
        f.volumes_attached = Some(vec!["pv-1".into()]);
        change(&mut m, &mut f);
        let step = deletion_step(&m, &f, at(0));
        let waits = matches!(step, DeletionStep::WaitVolumes { .. });
        assert_eq!(waits, want, "{name}: {step:?}");
    }
    for (limit, since, want) in [
        (None, 599, true),
        (None, 600, false),
        (Some(60), 59, true),
        (Some(60), 60, false),
    ] {
        let (mut m, mut f) = leaving();
        f.volumes_attached = Some(vec!["pv-1".into()]);
        waited(&mut m, since);
        let deletion = m.spec.content.deletion.get_or_insert_default();
        deletion.node_volume_detach_timeout_seconds = limit;
        let step = deletion_step(&m, &f, at(0));
        let waits = matches!(step, DeletionStep::WaitVolumes { .. });
        assert_eq!(waits, want, "{limit:?} {since}: the drain is over for good");
    }
}

/// The time-out counts from when the Node object is first asked to go, not from the machine's deletion.
#[test]
fn the_node_has_a_time_out_of_its_own() {
    let (mut m, mut f) = leaving();
    f.instance = Instance::Missing;
    let late = at(5_000);
    let step = deletion_step(&m, &f, late);
    assert_eq!(step.until(), Some(at(5_060)), "{step:?}");
    let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
    assert!(step.record_start(status, late));
    assert_eq!(deletion_step(&m, &f, at(5_059)).reason(), "DeletingNode");
    assert_eq!(
        deletion_step(&m, &f, at(5_060)),
        DeletionStep::RemoveFinalizer
    );
    f.node = NodeState::Unknown;
    assert_eq!(deletion_step(&m, &f, at(5_059)).reason(), "DeletingNode");
}

#[test]
fn a_drain_ends_though_nodes_are_not_seen() {
    let (mut m, mut f) = leaving();
    f.node = NodeState::Unknown;
    assert_eq!(deletion_step(&m, &f, at(0)).reason(), "DrainingNode");
    f.drained = Some(true);
    let step = deletion_step(&m, &f, at(0));
    assert_eq!(step.reason(), "WaitingForVolumeDetach");
    let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
    step.record_start(status, at(0));
    f.drained = None;
    assert_eq!(
        deletion_step(&m, &f, at(1)).reason(),
        "WaitingForVolumeDetach"
    );
    f.volumes_attached = Some(vec![]);
    assert_eq!(deletion_step(&m, &f, at(1)), DeletionStep::DeleteInstance);
}

#[test]
fn steps_say_since_when_they_wait_and_until_when() {
    let (m, mut f) = leaving();
    assert_eq!(
        deletion_step(&m, &f, at(0)).to_string(),
        "draining node n since 1970-01-12T13:46:40Z (until 1970-01-12T14:16:40Z at most)"
    );
    f.drained = Some(true);
    f.volumes_attached = Some((1..=7).map(|n| format!("pv-{n}")).collect());
    assert_eq!(
        deletion_step(&m, &f, at(0)).to_string(),
        "waiting for volumes to be detached from node n since 1970-01-12T13:46:40Z (until 1970-01-12T13:56:40Z at most): \
         pv-1, pv-2, pv-3, pv-4, pv-5, ... (2 more)"
    );
}

/// Cluster API's TestIsNodeDrainedAllowed; a time-out of 0 or none is 30 minutes or a second here, never for ever.
#[test]
fn a_node_is_drained_unless() {
    use DeletionStep::Drain;
    type Change = fn(&mut Machine, &mut MachineFacts);
    let begun = |m: &mut Machine, seconds: i64| {
        let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
        status.node_drain_start_time = Some(k8s_time(at(-seconds)));
    };
    let timeout = |m: &mut Machine, seconds: i32| {
        let deletion = m.spec.content.deletion.get_or_insert_default();
        deletion.node_drain_timeout_seconds = Some(seconds);
    };
    let cases: [(&str, Change, bool); 8] = [
        ("nothing speaks against it", |_, _| {}, true),
        (
            "it is excluded",
            |m, _| {
                let key = meta::ANNOTATION_EXCLUDE_NODE_DRAINING.to_owned();
                m.metadata.annotations = Some(BTreeMap::from([(key, String::new())]));
            },
            false,
        ),
        (
            "there is no instance any more",
            |_, f| f.instance = Instance::Missing,
            false,
        ),
        (
            "the instance is being deleted",
            |_, f| f.instance = Instance::Stopping,
            false,
        ),
        (
            "the wait before the end has begun",
            |m, _| {
                let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
                status.wait_for_pre_terminate_hook_start_time = Some(k8s_time(at(0)));
            },
            false,
        ),
        (
            "there is no node",
            |_, f| f.node = NodeState::Missing,
            false,
        ),
        ("the cluster goes", |_, f| f.cluster_deleting = true, false),
        (
            "the cluster cannot be asked: the time-out runs",
            |_, f| f.node = NodeState::Unknown,
            true,
        ),
    ];
    for (name, change, want) in cases {
        let (mut m, mut f) = leaving();
        change(&mut m, &mut f);
        let step = deletion_step(&m, &f, at(0));
        assert_eq!(matches!(step, Drain { .. }), want, "{name}: {step:?}");
    }
    for (name, limit, since, want) in [
        ("60 s, begun 70 s ago", Some(60), 70, false),
        ("60 s, begun 30 s ago", Some(60), 30, true),
        ("no time-out, begun 1,000 s ago", None, 1_000, true),
        ("no time-out, begun 1,800 s ago", None, 1_800, false),
        ("0 s, begun 1,000 s ago", Some(0), 1_000, false),
    ] {
        let (mut m, f) = leaving();
        begun(&mut m, since);
        if let Some(limit) = limit {
            timeout(&mut m, limit);
        }
        let step = deletion_step(&m, &f, at(0));
        assert_eq!(matches!(step, Drain { .. }), want, "{name}: {step:?}");
    }
}

/// A cluster whose control plane is of this form.
fn of(form: &str, deleting: bool) -> Cluster {
    let external = serde_json::json!({"kubeconfigSecretRef": {"name": "access"}});
    let mut cluster = Cluster::default();
    let control_plane = &mut cluster.spec.control_plane;
    match form {
        "machines" => control_plane.machines = Some(Default::default()),
        "managed" => {
            let managed = serde_json::json!({"providerConfig": {}});
            control_plane.managed = Some(serde_json::from_value(managed).unwrap());
        }
        _ => control_plane.external = Some(serde_json::from_value(external).unwrap()),
    }
    cluster.metadata.deletion_timestamp = deleting.then(|| k8s_time(at(0)));
    cluster
}

/// A machine of this name, of the control plane where that begins with `cp`; on its way out where it ends with `!`.
fn called(name: &str) -> Machine {
    let mut m = Machine::new(name.trim_end_matches('!'), Default::default());
    if name.starts_with("cp") {
        let label = (meta::LABEL_CONTROL_PLANE.to_owned(), String::new());
        m.metadata.labels = Some([label].into());
    }
    m.metadata.deletion_timestamp = name.ends_with('!').then(|| k8s_time(at(0)));
    m
}

/// Cluster API's TestIsDeleteNodeAllowed. Its object of the control plane is our Cluster, and one that is managed elsewhere is one that a
/// provider runs; of somebody else's cluster nodes are deleted though our Cluster goes.
#[test]
fn a_node_is_deleted_unless() {
    struct Row<'a>(
        &'a str,
        Cluster,
        /// The machine, and the others of its cluster.
        &'a str,
        &'a [&'a str],
        /// The name in its status, and its node by the instance's id.
        (bool, bool),
        bool,
    );
    let known = (true, true);
    for Row(name, cluster, machine, others, (in_status, found), want) in [
        Row(
            "no node is known",
            of("machines", false),
            "w!",
            &["cp-0"],
            (false, false),
            false,
        ),
        Row(
            "the control plane has no machines",
            of("machines", false),
            "w!",
            &["x"],
            known,
            false,
        ),
        Row(
            "only one that goes is left",
            of("machines", false),
            "w!",
            &["cp-0!"],
            known,
            false,
        ),
        Row(
            "it is the one that is left",
            of("machines", false),
            "cp-0!",
            &["w"],
            known,
            false,
        ),
        Row(
            "another one stays",
            of("machines", false),
            "cp-0!",
            &["cp-1", "cp-2!"],
            known,
            true,
        ),
        Row(
            "the cluster goes",
            of("machines", true),
            "w!",
            &["cp-0"],
            known,
            false,
        ),
        Row(
            "a provider runs the control plane",
            of("managed", false),
            "w!",
            &[],
            known,
            true,
        ),
        Row(
            "the control plane goes that a provider runs",
            of("managed", true),
            "w!",
            &[],
            known,
            false,
        ),
        Row(
            "the control plane is somebody else's",
            of("external", false),
            "w!",
            &[],
            known,
            true,
        ),
        Row(
            "the Cluster goes of somebody else's cluster",
            of("external", true),
            "w!",
            &[],
            known,
            true,
        ),
        Row(
            "no node is known, but one has the instance's id",
            of("machines", false),
            "w!",
            &["cp-0"],
            (false, true),
            true,
        ),
    ] {
        let (mut m, mut f) = leaving();
        let all: Vec<Machine> = [machine].iter().chain(others).map(|n| called(n)).collect();
        m.metadata = all[0].metadata.clone();
        f.instance = Instance::Missing;
        f.cluster_deleting = cluster_goes(Some(&cluster));
        f.control_plane_stays =
            control_plane_stays(&m, Some(&cluster), |other| all.iter().any(other));
        if !in_status {
            m.status = None;
        }
        if !found {
            f.node = NodeState::Missing;
        }
        let step = deletion_step(&m, &f, at(0));
        let deletes = matches!(step, DeletionStep::DeleteNode { .. });
        assert_eq!(deletes, want, "{name}: {step:?}");
    }
    assert!(cluster_goes(None), "nothing is left of it");
    let stays = control_plane_stays(&called("w"), None, |_| panic!("nobody asked"));
    assert!(stays, "it does not go itself");
}

/// What a workload cluster shows at one moment, and how long it takes until somebody looks again.
#[derive(Clone, Debug)]
struct Moment {
    node: NodeState,
    drained: Option<bool>,
    volumes: Option<Vec<String>>,
    provider_answers: bool,
    discards: bool,
    seconds: i64,
}

fn moment() -> impl Strategy<Value = Moment> {
    let node = prop_oneof![
        1 => Just(NodeState::Unknown),
        8 => any::<bool>().prop_map(|unreachable| NodeState::Present { name: "n".into(), unreachable }),
    ];
    let drained = prop_oneof![1 => Just(Some(true)), 20 => Just(Some(false)), 2 => Just(None)];
    let volumes = prop_oneof![1 => Just(Some(vec![])), 20 => Just(Some(vec!["v".to_owned()])), 2 => Just(None)];
    let answers = (any::<bool>(), any::<bool>());
    (node, drained, volumes, answers, 1..60_i64).prop_map(
        |(node, drained, volumes, (provider_answers, discards), seconds)| Moment {
            node,
            drained,
            volumes,
            provider_answers,
            discards,
            seconds,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the cluster shows: steps come in their order and never back, the instance is deleted after the drain or its time-out
    /// alone, and all of it ends within the sum of the time-outs.
    #[test]
    fn a_machine_goes_in_order_and_in_finite_time(moments in proptest::collection::vec(moment(), 400)) {
        let (mut m, mut f) = leaving();
        let (mut now, mut last, mut done, mut drained) = (at(0), 0, false, false);
        for moment in &moments {
            f.node = moment.node.clone();
            f.drained = moment.drained;
            f.volumes_attached = moment.volumes.clone();
            // What was removed is not remembered until the node is being deleted.
            f.bootstrap_kept = true;
            let mut step = deletion_step(&m, &f, now);
            if step == DeletionStep::DeleteBootstrap && moment.discards {
                f.bootstrap_kept = false;
                step = deletion_step(&m, &f, now);
            }
            drained |= matches!(step, DeletionStep::Drain { .. }) && f.drained == Some(true);
            let rank = match &step {
                DeletionStep::WaitPreDrainHook { .. } => 0,
                DeletionStep::Drain { .. } => 1,
                DeletionStep::WaitVolumes { .. } => 2,
                DeletionStep::WaitPreTerminateHook { .. } => 3,
                DeletionStep::DeleteInstance | DeletionStep::WaitInstanceGone | DeletionStep::WaitProvider => 4,
                DeletionStep::DeleteBootstrap => 5,
                DeletionStep::DeleteNode { .. } => 6,
                DeletionStep::RemoveFinalizer => 7,
            };
            prop_assert!(rank >= last, "{step:?} after {last}");
            prop_assert!(rank <= 5 || !f.bootstrap_kept || last == 6, "{step:?} before it is removed");
            last = rank;
            if step == DeletionStep::DeleteInstance {
                let begun = m.status.as_ref().and_then(|s| s.deletion.as_ref()?.node_drain_start_time.clone());
                let over = begun.is_some_and(|b| now.duration_since(b.0).as_secs() >= 1_800);
                prop_assert!(over || f.drained == Some(true) || drained || last > 1);
                if moment.provider_answers {
                    f.instance = Instance::Missing;
                }
            }
            if step == DeletionStep::RemoveFinalizer {
                done = true;
                break;
            }
            let status = m.status.as_mut().unwrap().deletion.get_or_insert_default();
            step.record_start(status, now);
            now = now.checked_add(jiff::SignedDuration::from_secs(moment.seconds)).unwrap();
        }
        prop_assert!(done, "it has not ended after {now}");
        // The provider answers every other time on average: that is not ours to bound.
        prop_assert!(now.duration_since(at(0)).as_secs() <= 1_800 + 600 + 60 + 60 * 60);
    }
}
