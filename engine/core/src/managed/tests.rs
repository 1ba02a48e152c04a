use super::*;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn shown(phase: Phase) -> Known {
    Known {
        shown: Some(Shown {
            phase,
            version: Some(version("v1.32.0")),
        }),
        ..Known::default()
    }
}

fn troubled(lasting: bool, after: Option<u64>) -> Known {
    Known {
        trouble: Some(Trouble {
            reason: "Unavailable",
            message: "no".into(),
            lasting,
            retry_after: after.map(Duration::from_secs),
        }),
        ..shown(Phase::Creating)
    }
}

#[test]
fn looks_are_as_frequent_as_something_moves() {
    for (known, pauses) in [
        (Known::default(), [60, 60, 60, 60]),
        (shown(Phase::Active), [60, 60, 60, 60]),
        (shown(Phase::Failed("no room".into())), [60, 60, 60, 60]),
        (shown(Phase::Creating), [1, 2, 8, 15]),
        (shown(Phase::Updating(None)), [1, 2, 8, 15]),
        (shown(Phase::Deleting), [1, 2, 8, 15]),
        (troubled(false, None), [1, 2, 8, 60]),
        (troubled(false, Some(7)), [7, 7, 7, 7]),
        (troubled(true, None), [60, 60, 60, 60]),
    ] {
        let alike = [0, 1, 3, 200];
        let found = alike.map(|n| known.pause(n).as_secs());
        assert_eq!(found, pauses, "{known:?}");
    }
}

#[test]
fn only_what_serves_has_a_version_and_a_step_that_began_counts() {
    let runs = |known: Known| known.runs().map(|(low, high)| format!("{low} {high}"));
    let updating = |to: &str| shown(Phase::Updating(Some(version(to))));
    for (known, want) in [
        (Known::default(), None),
        (shown(Phase::Creating), None),
        (shown(Phase::Deleting), None),
        (shown(Phase::Failed(String::new())), None),
        (shown(Phase::Active), Some("v1.32.0 v1.32.0")),
        (shown(Phase::Updating(None)), Some("v1.32.0 v1.32.0")),
        (updating("v1.33.0"), Some("v1.32.0 v1.33.0")),
    ] {
        assert_eq!(runs(known.clone()).as_deref(), want, "{known:?}");
    }
}

#[test]
fn a_token_is_renewed_at_half_of_its_life() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    for (issued, expires, renewed) in [(0, 900, 450), (100, 100, 100), (100, 50, 75)] {
        assert_eq!(renew_at(at(issued), at(expires)), at(renewed));
    }
}
