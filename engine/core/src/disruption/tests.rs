use super::*;

fn budget(text: &str) -> DisruptionBudget {
    DisruptionBudget {
        max_unavailable: text
            .parse()
            .map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int),
    }
}

#[test]
fn a_share_rounds_down_but_to_no_less_than_one() {
    for (text, total, want) in [
        ("0", 10, Some(0)),
        ("2", 1, Some(2)),
        ("0%", 10, Some(0)),
        ("00%", 10, Some(0)),
        ("10%", 9, Some(1)),
        ("10%", 10, Some(1)),
        ("10%", 29, Some(2)),
        ("100%", 3, Some(3)),
        ("1%", 0, Some(1)),
        ("x", 10, None),
    ] {
        assert_eq!(limit(&budget(text), total), want, "{text} of {total}");
    }
}

#[test]
fn what_is_out_of_service() {
    for ((wanted, in_service, leaving), out) in [
        ((3, 3, 0), 0),
        // One more for a rollout, then one goes: the drain is a disruption although three serve.
        ((3, 4, 0), 0),
        ((3, 3, 1), 1),
        // No spare machine: the one that left is missing until the next serves, and counts once.
        ((3, 2, 1), 1),
        ((3, 2, 0), 1),
        // Scaled down by many: what leaves counts.
        ((3, 8, 2), 2),
        // One broken and one leaving.
        ((5, 3, 1), 2),
    ] {
        let usage = Usage {
            wanted,
            in_service,
            leaving,
        };
        assert_eq!(usage.out(), out, "{usage:?}");
    }
}

#[test]
fn every_budget_that_holds_is_asked() {
    let (one, two, none) = (budget("1"), budget("2"), budget("0%"));
    let holder = |whose: Whose, budget, others_out| Holder {
        whose,
        budget,
        others_wanted: 3,
        others_out,
    };
    let pool = |b| holder(Whose::Pool("web".into()), b, 0);
    let own = Usage {
        wanted: 3,
        in_service: 3,
        leaving: 0,
    };
    assert_eq!(may_take(own, &[]), Ok(()));
    assert_eq!(may_take(own, &[pool(&one)]), Ok(()));
    let busy = holder(Whose::Cluster("eu".into()), &two, 2);
    let blocked = may_take(own, &[pool(&one), busy]).unwrap_err();
    assert_eq!(
        blocked.to_string(),
        "held by the disruption budget of Cluster eu: 2 of at most 2 machines are out of service"
    );
    let never = holder(Whose::Fleet("default".into()), &none, 0);
    assert_eq!(
        may_take(own, &[never]).unwrap_err().to_string(),
        "held by the disruption budget of Fleet default: it lets no machine be taken out of service"
    );
    let spent = Usage {
        in_service: 2,
        leaving: 1,
        ..own
    };
    assert!(may_take(spent, &[pool(&one)]).is_err());
    assert!(may_take(spent, &[pool(&two)]).is_ok());
}

#[test]
fn what_is_marked_and_works_is_in_service_until_it_goes() {
    let machine = |reason: &str, healthy: &str, leaves: bool| -> Machine {
        let mut machine = serde_json::json!({
            "metadata": {"name": "m"}, "spec": {"clusterName": "c", "providerConfig": {}},
            "status": {"nodeRef": {"name": "n"}, "conditions": [
                {"type": "HealthCheckSucceeded", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "NodeHealthy", "status": healthy, "reason": "X", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]},
        });
        if leaves {
            machine["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(machine).unwrap()
    };
    for (reason, healthy, leaves, want) in [
        (reason::DRIFTED, "True", false, Service::In),
        (reason::DRIFTED, "True", true, Service::Leaving),
        (reason::DRIFTED, "False", false, Service::Out),
        (reason::HAS_REMEDIATE_ANNOTATION, "True", false, Service::In),
        (reason::INSTANCE_LOST, "True", false, Service::Out),
        (reason::INSTANCE_LOST, "True", true, Service::Out),
    ] {
        let service = Service::of(&machine(reason, healthy, leaves));
        assert_eq!(service, want, "{reason} {healthy} {leaves}");
    }
}
