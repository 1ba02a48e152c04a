//! What is in the way of a plan: budgets, quotas, versions, images, pauses, waves.

use fleetwright_api::{
    ProviderAccount,
    waves::{WaveState, WaveStatus, Window},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::{
    images::Missing,
    plan::{BlockerKind, Removed},
};

#[test]
fn a_version_below_the_running_one_holds_the_control_plane_and_moves_workers_back() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.34.1", 1), pool(1, 1, (1, 0))]);
    let plan = fleet.plan(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    assert_eq!(lines(&plan), ["1: +web-1", "2: -web-0"]);
    assert_eq!(
        notes(plan),
        [
            "a: VersionHeld: stays at v1.34.1: a control plane never goes back to an older minor version (v1.33.2); set version to v1.34.1 or newer"
        ]
    );
}

#[test]
fn a_paused_pool_waits_and_a_bad_bound_is_refused() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(1, 1, (1, 0))]);
    let mut paused = pool(1, 2, (1, 0));
    paused["metadata"]["annotations"] = json!({"fleetwright.dev/paused": ""});
    let plan = fleet.plan(&[cluster("v1.33.2", 1), paused]);
    assert_eq!(
        notes(plan),
        [
            "web: Paused: paused, and its machines are not replaced: `fleetwright rollout resume machinedeployment/web --namespace default` lets it go on"
        ]
    );
    let mut bad = pool(1, 2, (1, 0));
    bad["spec"]["rollout"]["strategy"]["rollingUpdate"]["maxSurge"] = json!("half");
    let plan = fleet.plan(&[cluster("v1.33.2", 1), bad]);
    assert!(plan.refused[0].reason.contains("maxSurge"), "{plan:?}");
}

#[test]
fn nothing_of_a_paused_cluster_moves_and_what_would_is_told() {
    let paused = |mut cluster: Value| {
        cluster["metadata"]["annotations"] = json!({"fleetwright.dev/paused": ""});
        cluster
    };
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(2, 1, (1, 0))]);
    let rolled = fleet.plan(&[paused(cluster("v1.33.2", 1)), pool(3, 2, (1, 0))]);
    assert_eq!(lines(&rolled), [""; 0]);
    assert_eq!(
        rolled.rollouts[0].because,
        ["spec.providerConfig.size: 1 -> 2"]
    );
    let upgraded = fleet.plan(&[paused(cluster("v1.34.1", 1)), pool(2, 1, (1, 0))]);
    assert_eq!(lines(&upgraded), [""; 0]);
    let waits = "a: Paused: paused, and nothing of it is changed: `fleetwright rollout resume cluster/a --namespace default` lets it go on";
    assert_eq!(
        (notes(rolled), notes(upgraded)),
        (vec![waits.to_owned()], vec![waits.to_owned()])
    );
    // Nothing waits where nothing is to be done, and what is resumed goes on.
    let calm = fleet.plan(&[paused(cluster("v1.33.2", 1)), pool(2, 1, (1, 0))]);
    assert_eq!((&calm.rollouts, &calm.blockers), (&vec![], &vec![]));
    fleet.live.objects[0]["metadata"]["annotations"] = json!({"fleetwright.dev/paused": ""});
    let held = fleet.plan(&[cluster("v1.33.2", 1), pool(3, 1, (1, 0))]);
    assert_eq!(notes(held), [waits]);
}

#[test]
fn a_budget_that_lets_nothing_go_is_named_beforehand() {
    let mut fleet = Fleet::default();
    let budget = |mut object: Value, text: &str| {
        object["spec"]["disruption"] = json!({"maxUnavailable": text});
        object
    };
    fleet.settle(&[cluster("v1.33.2", 1), pool(2, 1, (1, 0))]);
    let of_pool = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(2, 2, (1, 0)), "0%")]));
    assert_eq!(
        of_pool,
        [
            "web: Budget: held by the disruption budget of pool web: it lets no machine be taken out of service; raise its maxUnavailable"
        ]
    );
    let of_cluster = notes(fleet.plan(&[budget(cluster("v1.33.2", 1), "0%"), pool(2, 2, (1, 0))]));
    assert_eq!(
        of_cluster,
        [
            "web: Budget: held by the disruption budget of Cluster a: it lets no machine be taken out of service; raise its maxUnavailable"
        ]
    );
    // One that lets one go lets all go in the end; and what only comes is not held.
    let one = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(2, 2, (1, 0)), "1%")]));
    let more = notes(fleet.plan(&[cluster("v1.33.2", 1), budget(pool(3, 1, (1, 0)), "0%")]));
    assert_eq!((one.len(), more.len()), (0, 0));
}

#[test]
fn a_fleets_budget_counts_all_its_clusters_and_one_that_is_spent_or_slower_is_named() {
    let of = |count: i32| {
        Some(DisruptionBudget {
            max_unavailable: IntOrString::Int(count),
        })
    };
    let mut fleet = Fleet::default();
    let start = [cluster("v1.33.2", 1), pool(4, 1, (0, 3))];
    fleet.settle(&start);
    // Applied objects carry the Fleet's label.
    for object in &mut fleet.live.objects {
        object["metadata"]["labels"][LABEL_FLEET] = json!(fleet_hash("default", "default"));
    }
    let mut other = cluster("v1.33.2", 1);
    other["metadata"]["name"] = json!("b");
    other["metadata"]["labels"] = json!({LABEL_FLEET: fleet_hash("default", "default")});
    let next = [cluster("v1.33.2", 1), pool(4, 2, (0, 3))];
    for (budget, other_cluster, want) in [
        (None, false, &[][..]),
        (
            of(0),
            false,
            &[
                "web: Budget: held by the disruption budget of Fleet default: it lets no machine be taken out of service; raise its maxUnavailable",
            ],
        ),
        (
            of(1),
            false,
            &[
                "web: Budget: the disruption budget of Fleet default lets no more than 1 of the 3 machines of a step be out of service at once; raise its maxUnavailable, or the step takes longer",
            ],
        ),
        (of(3), false, &[]),
        // A cluster of the same Fleet is on its way up: it spends.
        (
            of(1),
            true,
            &[
                "web: Budget: held by the disruption budget of Fleet default: 1 of at most 1 machines are out of service now; it goes on when some are back, or with a higher maxUnavailable",
            ],
        ),
    ] {
        let mut fleet = Fleet {
            live: fleet.live.clone(),
            budget: budget.clone(),
            ..Fleet::default()
        };
        let mut documents = next.to_vec();
        if other_cluster {
            fleet.live.objects.push(other.clone());
            documents.push(other.clone());
        }
        assert_eq!(notes(fleet.plan(&documents)), want, "{budget:?}");
    }
}

#[test]
fn a_clusters_budget_that_lets_fewer_go_than_a_step_takes_is_named() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(4, 1, (0, 3))]);
    let mut narrow = cluster("v1.33.2", 1);
    narrow["spec"]["disruption"] = json!({"maxUnavailable": 2});
    assert_eq!(
        notes(fleet.plan(&[narrow, pool(4, 2, (0, 3))])),
        [
            "web: Budget: the disruption budget of Cluster a lets no more than 2 of the 3 machines of a step be out of service at once; raise its maxUnavailable, or the step takes longer"
        ]
    );
}

/// What is held up by a mistake, whose field that is, and which.
fn mistakes(plan: &Plan) -> Vec<String> {
    let line = |blocker: &PlanBlocker| {
        let mistake = blocker.mistake.as_ref()?;
        let held = &blocker.object.as_ref()?.name;
        let (of, field) = (&mistake.object.name, &mistake.field);
        Some(format!("{held}: {of} {field}"))
    };
    plan.blockers.iter().filter_map(line).collect()
}

#[test]
fn a_missing_image_blocks_the_upgrade_and_what_cannot_be_made_is_named() {
    let mut fleet = Fleet::default();
    let start = [cluster("v1.33.2", 1), pool(1, 1, (1, 0))];
    fleet.settle(&start);
    let upgrade = [cluster("v1.35.0", 1), pool(1, 1, (1, 0))];
    let (_, images) = fleet.foretell(&upgrade);
    let versions: BTreeSet<&str> = images.iter().map(|i| i.version.as_str()).collect();
    assert_eq!(versions, BTreeSet::from(["v1.34.0", "v1.35.0"]));
    assert_eq!(fleet.foretell(&start).1, BTreeSet::new());

    let none = |why: &str| Missing {
        field: Some("image".into()),
        why: why.into(),
    };
    let missing = images.iter().filter(|i| i.version == "v1.35.0");
    fleet.live.missing_images = missing.map(|i| (i.clone(), none("build it"))).collect();
    let (plan, _) = fleet.foretell(&upgrade);
    assert_eq!(
        mistakes(&plan),
        ["a: a spec.controlPlane.machines.template.spec.providerConfig.image"],
        "what waits for it makes none of its own"
    );
    assert_eq!(lines(&plan), [""; 0], "nothing of it moves");
    assert_eq!(
        notes(plan),
        [
            "a: MissingImage: stays at v1.33.2 on the way to v1.35.0: v1.35.0 for the control plane: build it",
            "web: ControlPlane: waits for the control plane to take its further steps to v1.35.0",
        ]
    );

    // Machines of a pool that is new, or is of other settings.
    let other = [cluster("v1.33.2", 1), pool(1, 2, (1, 0))];
    let (_, images) = fleet.foretell(&other);
    assert_eq!(images.len(), 1);
    // (what the provider says, whose field is at fault)
    let field = "web: web spec.template.spec.providerConfig.image";
    let unsaid = Missing {
        field: None,
        why: "no image of size 2".into(),
    };
    for (missing, at_fault) in [(none("no image of size 2"), vec![field]), (unsaid, vec![])] {
        let missing = |i: &Image| (i.clone(), missing.clone());
        fleet.live.missing_images = images.iter().map(missing).collect();
        let plan = fleet.plan(&other);
        assert_eq!(mistakes(&plan), at_fault);
        assert_eq!(
            notes(plan),
            ["web: MissingImage: machines cannot be made: no image of size 2"]
        );
    }
}

#[test]
fn versions_on_the_way_that_are_missing_or_leave_a_pool_behind_are_named() {
    let mut fleet = Fleet::default();
    let pinned = |version: &str| {
        let mut pool = pool(1, 1, (1, 0));
        pool["spec"]["template"]["spec"]["version"] = json!(version);
        pool
    };
    fleet.settle(&[cluster("v1.33.2", 1), pinned("v1.31.0")]);
    // (wanted version, versions that the Fleet allows, what is in the way, part of the reason)
    let rows = [
        (
            "v1.34.1",
            &["v1.33.2"][..],
            BlockerKind::MissingVersion,
            "does not allow v1.34.1",
        ),
        (
            "v1.35.0",
            &["v1.33.2", "v1.35.0"],
            BlockerKind::MissingVersion,
            "allows no v1.34",
        ),
        (
            "v2.0.0",
            &[],
            BlockerKind::MissingVersion,
            "no way from v1.33.2",
        ),
        ("v1.35.0", &[], BlockerKind::Skew, "pool web pins v1.31.0"),
    ];
    for (wanted, versions, kind, part) in rows {
        let versions = versions.iter().map(|v| v.parse().unwrap()).collect();
        let policy = Policy {
            versions,
            ..policy()
        };
        let documents = [cluster(wanted, 1), pinned("v1.31.0")];
        let desired = documents.map(|document| Desired {
            document,
            source: "a.yaml:1".into(),
            origins: Origins::default(),
        });
        let catalogue = Catalogue::default();
        let mut out = plan(&desired, None, &fleet.live, &policy, &catalogue);
        forecast(&mut out, &fleet.live, &policy, &catalogue, now());
        let found = &out.blockers[0];
        assert_eq!(
            (found.kind, out.blockers.len()),
            (kind, 1),
            "{wanted}: {out:?}"
        );
        assert!(found.reason.contains(part), "{found:?}");
    }
    // A pool's own version that its control plane has left behind.
    let old = fleet.plan(&[cluster("v1.33.2", 1), pinned("v1.29.0")]);
    assert_eq!(old.blockers[0].kind, BlockerKind::Skew, "{old:?}");
}

fn account(name: &str, own: Option<i64>, theirs: Option<i64>) -> ProviderAccount {
    let quotas = |limit: Option<i64>| match limit {
        None => json!({}),
        Some(limit) => json!({"instances": limit, "cpus": 1}),
    };
    serde_json::from_value(
        json!({"apiVersion": API_VERSION, "kind": "ProviderAccount", "metadata": {"name": name},
        "spec": {"provider": "sim", "quotas": quotas(own)}, "status": {"quotas": quotas(theirs)}}),
    )
    .unwrap()
}

#[test]
fn a_quota_is_held_against_the_most_machines_that_there_are_at_any_moment() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 1), pool(4, 1, (2, 0))]);
    // 5 machines; a rollout has 2 more for a while, growth by 3 has 3 more for good.
    let rolled = [cluster("v1.33.2", 1), pool(4, 2, (2, 0))];
    let grown = [cluster("v1.33.2", 1), pool(7, 1, (2, 0))];
    let fewer = [cluster("v1.33.2", 1), pool(1, 1, (2, 0))];
    // (account, spec's limit, status' limit, documents, how many are needed of how many)
    let rows = [
        (
            "x",
            Some(6),
            None,
            &rolled,
            Some("needs 7 instances at once, 5 are there, and spec.quotas.instances of it is 6"),
        ),
        ("x", Some(7), None, &rolled, None),
        (
            "x",
            Some(9),
            Some(6),
            &rolled,
            Some("needs 7 instances at once, 5 are there, and the provider allows 6"),
        ),
        ("x", None, None, &rolled, None),
        ("y", Some(1), None, &rolled, None),
        ("x", Some(7), None, &grown, Some("needs 8 instances")),
        ("x", Some(8), None, &grown, None),
        // There are too many already: fewer are no fault of this plan.
        ("x", Some(2), None, &fewer, None),
    ];
    for (name, own, theirs, documents, want) in rows {
        fleet.live.accounts = vec![account(name, own, theirs)];
        let found = fleet.plan(documents).blockers;
        assert_eq!(
            found.len(),
            usize::from(want.is_some()),
            "{own:?} {theirs:?}: {found:?}"
        );
        for blocker in found {
            assert_eq!(blocker.kind, BlockerKind::Quota);
            assert!(blocker.reason.contains(want.unwrap()), "{}", blocker.reason);
        }
    }
}

/// The same for a cluster b with pool bweb.
fn copied<T: serde::Serialize + serde::de::DeserializeOwned>(all: &[T]) -> Vec<T> {
    let text = serde_json::to_string(all).unwrap();
    let text = text.replace("\"a\"", "\"b\"").replace("\"a-", "\"b-");
    serde_json::from_str(&text.replace("\"web", "\"bweb")).unwrap()
}

#[test]
fn clusters_of_one_wave_need_their_machines_together_and_waves_one_after_the_other() {
    let documents = |size: u32| {
        let mut cluster = cluster("v1.33.2", 1);
        cluster["metadata"]["labels"] = json!({"name": "a"});
        [cluster, pool(2, size, (1, 0))]
    };
    let mut fleet = Fleet::default();
    fleet.settle(&documents(1));
    let other = copied(&fleet.live.objects);
    fleet.live.objects.extend(other);
    let other = copied(&fleet.live.sets);
    fleet.live.sets.extend(other);
    let other = copied(&fleet.live.machines);
    fleet.live.machines.extend(other);
    let next = [documents(2).to_vec(), copied(&documents(2))].concat();
    fleet.live.accounts = vec![account("x", Some(7), None)];
    let needs = |fleet: &Fleet| -> Vec<String> {
        let plan = fleet.plan(&next);
        assert_eq!(plan.rollouts.len(), 2, "{plan:?}");
        plan.blockers.into_iter().map(|b| b.reason).collect()
    };
    let together = needs(&fleet);
    assert!(
        together[0].starts_with("the plan needs 8 instances at once, 6 are there"),
        "{together:?}"
    );
    let first = Wave {
        name: "first".into(),
        clusters: Some(serde_json::from_value(json!({"matchLabels": {"name": "a"}})).unwrap()),
        ..Wave::default()
    };
    fleet.waves = vec![first];
    assert_eq!(needs(&fleet), [""; 0]);
}

#[test]
fn what_waits_for_waves_and_windows_is_told_once_each() {
    let fleet = Fleet::default();
    let wave = |name: &str, windows| Wave {
        name: name.into(),
        windows,
        soak_seconds: Some(60),
        ..Wave::default()
    };
    let at_ten = Window {
        start: "10:00".into(),
        duration_seconds: 3600,
        ..Window::default()
    };
    let status = |state| WaveStatus {
        name: "first".into(),
        state,
        since: fleetwright_api::time::k8s_time(now()),
    };
    let documents = [cluster("v1.33.2", 1)];
    // (windows, how far an earlier wave has come, what is in the way, whether its end is known)
    let rows = [
        (vec![], None, None, false),
        (vec![at_ten], None, Some(BlockerKind::Window), true),
        (
            vec![],
            Some(WaveState::Rolling),
            Some(BlockerKind::Wave),
            false,
        ),
        (
            vec![],
            Some(WaveState::Soaking),
            Some(BlockerKind::Wave),
            true,
        ),
    ];
    for (windows, state, want, ends) in rows {
        let mut first = wave("first", vec![]);
        first.pools = Some(Default::default());
        let policy = Policy {
            waves: vec![first, wave("second", windows)],
            ..policy()
        };
        let desired = documents.clone().map(|document| Desired {
            document,
            source: "a.yaml:1".into(),
            origins: Origins::default(),
        });
        let catalogue = Catalogue::default();
        let mut out = plan(&desired, None, &fleet.live, &policy, &catalogue);
        let states: Vec<_> = state.map(status).into_iter().collect();
        // 08:00 on some day.
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        for _ in 0..2 {
            out.stage(&policy, &states, at);
            forecast(&mut out, &fleet.live, &policy, &catalogue, at);
        }
        let found: Vec<_> = out
            .blockers
            .iter()
            .map(|b| (b.kind, b.until.is_some()))
            .collect();
        let want: Vec<_> = want.map(|kind| (kind, ends)).into_iter().collect();
        assert_eq!(found, want, "{out:?}");
        assert!(
            out.blockers
                .iter()
                .all(|b| b.wave.as_deref() == Some("second"))
        );
    }
}

#[test]
fn a_cluster_goes_in_the_order_of_its_deletion_and_a_pause_holds_it_back() {
    let mut fleet = Fleet::default();
    fleet.settle(&[cluster("v1.33.2", 3), pool(2, 1, (1, 0))]);
    for object in &mut fleet.live.objects {
        object["metadata"]["uid"] = json!("u-1");
        object["metadata"]["annotations"] = json!({"fleetwright.dev/allow-delete": "u-1"});
        object["metadata"]["managedFields"] = json!([{"manager": "fleetwright/default.default", "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:annotations": {"f:fleetwright.dev/allow-delete": {}}}}}]);
    }
    let out = fleet.plan(&[]);
    assert_eq!(out.refused, []);
    let steps = |plan: &Plan, at: usize| match &plan.deletes[at].effect {
        crate::plan::PlanEffect::Removal { steps } => {
            let each = steps.iter().map(|s| (s.what, s.machines.len()));
            each.collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(steps(&out, 0), [(Removed::Workers, 2)]);
    let all = [
        (Removed::Workers, 2),
        (Removed::ControlPlane, 3),
        (Removed::Cluster, 0),
    ];
    assert_eq!(steps(&out, 1), all);
    assert_eq!(out.blockers, []);
    fleet.live.objects[0]["metadata"]["annotations"]["fleetwright.dev/paused"] = json!("");
    let paused = fleet.plan(&[]);
    assert_eq!(steps(&paused, 1), all);
    assert_eq!(
        notes(paused),
        [
            "a: Paused: paused, and nothing of it is deleted: `fleetwright rollout resume cluster/a --namespace default` lets it go on"
        ]
    );
}
