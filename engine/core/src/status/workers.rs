//! What a Cluster's status says of its pools, and of how many machines there are.

use fleetwright_api::{
    MachineDeployment,
    cluster::MachineCounts,
    condition::{self, Status, kind, reason},
};

use super::{Conditions, all_have, few, refused};

pub(super) fn workers(pools: &[MachineDeployment]) -> MachineCounts {
    let mut sum = MachineCounts::default();
    for pool in pools {
        sum.desired_replicas += pool.spec.replicas.unwrap_or(1);
        if let Some(status) = &pool.status {
            sum.replicas += status.replicas;
            sum.ready_replicas += status.ready_replicas;
            sum.available_replicas += status.available_replicas;
            sum.up_to_date_replicas += status.up_to_date_replicas;
        }
    }
    sum
}

pub(super) fn pools_conditions(out: &mut Conditions<'_>, pools: &[MachineDeployment]) {
    let all = || {
        pools.iter().map(|p| {
            (
                p.metadata.name.as_deref().unwrap_or_default(),
                p.status
                    .as_ref()
                    .map_or(&[][..], |s| s.conditions.as_slice()),
            )
        })
    };
    for (to, of, good, none) in [
        (
            kind::WORKERS_AVAILABLE,
            kind::AVAILABLE,
            reason::AVAILABLE,
            reason::NO_WORKERS,
        ),
        (
            kind::WORKER_MACHINES_READY,
            kind::MACHINES_READY,
            reason::READY,
            reason::NO_REPLICAS,
        ),
        (
            kind::WORKER_MACHINES_UP_TO_DATE,
            kind::MACHINES_UP_TO_DATE,
            reason::UP_TO_DATE,
            reason::NO_REPLICAS,
        ),
    ] {
        all_have(out, to, of, (good, none), all());
    }
}

/// ScalingUp and ScalingDown: the control plane or a pool has fewer or more machines than wanted. Where the provider refuses machines of
/// the control plane, that is the reason.
pub(super) fn scaling(
    out: &mut Conditions<'_>,
    counts: Option<&MachineCounts>,
    pools: &[MachineDeployment],
    refusal: Option<(&str, String)>,
) {
    let control_plane = |wrong: fn(&i32, &i32) -> bool| {
        counts
            .filter(|c| wrong(&c.replicas, &c.desired_replicas))
            .map(|c| {
                format!(
                    "the control plane from {} to {} machines",
                    c.replicas, c.desired_replicas
                )
            })
    };
    for (kind, word, wrong) in [
        (kind::SCALING_UP, "up", i32::lt as fn(&i32, &i32) -> bool),
        (kind::SCALING_DOWN, "down", i32::gt),
    ] {
        let up = kind == kind::SCALING_UP;
        let is = |p: &&MachineDeployment| {
            p.status
                .as_ref()
                .is_some_and(|s| condition::is_true(&s.conditions, kind))
        };
        let named = |p: &MachineDeployment| {
            let name = p.metadata.name.as_deref().unwrap_or_default();
            let why = p.status.as_ref().and_then(|s| refused(&s.conditions));
            match why.filter(|_| up) {
                Some(why) => format!("pool {name} ({why})"),
                None => format!("pool {name}"),
            }
        };
        let mut what: Vec<String> = control_plane(wrong).into_iter().collect();
        what.extend(pools.iter().filter(is).map(named));
        if let Some((reason, text)) = refusal.as_ref().filter(|_| up) {
            what.insert(0, format!("the control plane ({text})"));
            let text = format!("scaling {word} {}", few(&what));
            out.set(kind, Status::True, reason, text);
            continue;
        }
        out.flag(
            kind,
            !what.is_empty(),
            format!("scaling {word} {}", few(&what)),
        );
    }
}
