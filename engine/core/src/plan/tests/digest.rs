//! What makes another digest, and what does not.

use fleetwright_api::{
    disruption::DisruptionBudget,
    fleet::DriftRule,
    waves::{Wave, Window},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::waves::Hold;

/// A plan that rolls a pool, with a forecast and what a forecast may say beside.
fn planned(touch: impl Fn(&mut Value)) -> Plan {
    let mut want = pool();
    want["spec"]["template"]["spec"]["providerConfig"]["size"] = json!(2);
    let mut live = owned(pool(), false);
    touch(&mut live);
    let mut out = run(&[want, cluster()], vec![owned(cluster(), false), live], 0);
    out.rollouts.push(Rollout {
        owner: Key::of(&pool()),
        because: vec!["size".into()],
        in_place: Vec::new(),
        steps: vec![Step {
            provider: None,
            step: 1,
            wave: None,
            create: vec!["web-3".into()],
            version: Some("v1.33.2".into()),
            delete: vec!["web-0".into()],
        }],
        path: None,
        images: Vec::new(),
        expected_seconds: Some(60),
        expected_from: Some(History {
            of: HistoryOf::Own,
            machines: 1,
            seconds: 60,
        }),
        note: None,
    });
    out
}

#[test]
fn the_digest_follows_decisions_and_not_what_led_to_them() {
    let digest = |live: &dyn Fn(&mut Value), plan: &dyn Fn(&mut Plan)| {
        let mut out = planned(live);
        plan(&mut out);
        out.digest("t", &policy())
    };
    let same = digest(&|_| {}, &|_| {});
    assert_eq!(same.len(), 64);
    type Live<'a> = &'a dyn Fn(&mut Value);
    type Made<'a> = &'a dyn Fn(&mut Plan);
    let hold = || Hold {
        wave: Some("a".into()),
        kind: BlockerKind::Wave,
        because: "b".into(),
        until: Some(Timestamp::UNIX_EPOCH),
    };
    // (what differs, of the live object, of the plan, whether the digest stays)
    let rows: &[(&str, Live<'_>, Made<'_>, bool)] = &[
        (
            "version of the object",
            &|o| o["metadata"]["resourceVersion"] = json!("99"),
            &|_| {},
            true,
        ),
        (
            "status",
            &|o| o["status"] = json!({"replicas": 2}),
            &|_| {},
            true,
        ),
        (
            "expected times",
            &|_| {},
            &|p| {
                p.expected_seconds = Some(1);
                p.rollouts[0].expected_seconds = None;
                p.rollouts[0].expected_from = None;
            },
            true,
        ),
        (
            "holds",
            &|_| {},
            &|p| {
                p.blockers.push(PlanBlocker::held(&hold()));
                p.waves.push(PlannedWave {
                    name: Some("a".into()),
                    changes: 1,
                    soak_seconds: 0,
                    hold: Some(hold()),
                });
            },
            true,
        ),
        (
            "drift that stays",
            &|_| {},
            &|p| {
                p.drift.push(Drift {
                    key: Key::of(&pool()),
                    field: ".spec.x".into(),
                    managers: Vec::new(),
                    wanted: None,
                    found: None,
                    since: None,
                });
            },
            true,
        ),
        (
            "value to come",
            &|_| {},
            &|p| p.changes[0].fields[0].to = Some(json!(3)),
            false,
        ),
        (
            "wave",
            &|_| {},
            &|p| p.changes[0].wave = Some("b".into()),
            false,
        ),
        (
            "effect",
            &|_| {},
            &|p| p.changes[0].effect = PlanEffect::None,
            false,
        ),
        (
            "machine",
            &|_| {},
            &|p| p.rollouts[0].steps[0].delete = vec!["web-1".into()],
            false,
        ),
        (
            "order",
            &|_| {},
            &|p| p.rollouts[0].steps[0].step = 2,
            false,
        ),
        ("reason", &|_| {}, &|p| p.rollouts[0].because.clear(), false),
        (
            "refusal",
            &|_| {},
            &|p| {
                p.refused.push(Refusal {
                    key: Key::default(),
                    reason: "no".into(),
                    wave: None,
                });
            },
            false,
        ),
        (
            "create for change",
            &|_| {},
            &|p| p.creates = std::mem::take(&mut p.changes),
            false,
        ),
    ];
    for (what, live, made, stays) in rows {
        assert_eq!(digest(*live, *made) == same, *stays, "{what}");
    }
}

#[test]
fn the_digest_covers_the_tree_and_all_of_the_policy() {
    let out = planned(|_| {});
    let same = out.digest("t", &policy());
    assert_ne!(out.digest("u", &policy()), same);
    let budget = DisruptionBudget {
        max_unavailable: IntOrString::Int(1),
    };
    let rule = DriftRule {
        kinds: Vec::new(),
        paths: Vec::new(),
        managers: Vec::new(),
        policy: DriftAction::Ignore,
    };
    let changed = [
        Policy {
            namespace: "x".into(),
            ..policy()
        },
        Policy {
            fleet: "x".into(),
            ..policy()
        },
        Policy {
            max_machines: 9,
            ..policy()
        },
        Policy {
            drift: DriftPolicy {
                policy: Some(DriftAction::Correct),
                rules: Vec::new(),
            },
            ..policy()
        },
        Policy {
            drift: DriftPolicy {
                policy: None,
                rules: vec![rule],
            },
            ..policy()
        },
        Policy {
            versions: vec!["v1.33.2".parse().unwrap()],
            ..policy()
        },
        Policy {
            versions: vec!["v1.33.2".parse().unwrap(), "v1.34.0".parse().unwrap()],
            ..policy()
        },
        Policy {
            disruption: Some(budget),
            ..policy()
        },
        Policy {
            waves: vec![Wave::default()],
            ..policy()
        },
        Policy {
            windows: vec![Window::default()],
            ..policy()
        },
    ];
    let digests: BTreeSet<String> = changed.iter().map(|p| out.digest("t", p)).collect();
    assert_eq!(digests.len(), changed.len());
    assert!(!digests.contains(&same));
}
