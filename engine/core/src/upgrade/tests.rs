//! Ways of upgrades, row by row.

use super::*;

fn v(text: &str) -> Version {
    text.parse().unwrap()
}

fn of(from: &str, to: &str, allowed: &[&str], workers: Option<&str>) -> String {
    let allowed: Vec<Version> = allowed.iter().map(|a| v(a)).collect();
    match path(&v(from), &v(to), &allowed, workers.map(v).as_ref()) {
        Ok(path) => path.to_string(),
        Err(blocker) => blocker.to_string(),
    }
}

/// Cluster API's TestGetUpgradePlanFromClusterClassVersions.
#[test]
fn the_control_plane_takes_the_last_listed_version_of_each_minor() {
    let many = &[
        "1.31.0", "1.31.1", "1.32.0", "1.32.2", "1.32.3", "1.33.0", "1.33.1",
    ];
    for (name, allowed, from, to, want) in [
        (
            "nothing to do",
            &["1.31.0"][..],
            "1.31.0",
            "1.31.0",
            "v1.31.0",
        ),
        (
            "the next minor, exactly what is asked for",
            &["1.31.0", "1.32.0", "1.32.1"],
            "1.31.0",
            "1.32.0",
            "v1.31.0 -> v1.32.0",
        ),
        (
            "patches are jumped over",
            &["1.35.1", "1.35.2", "1.35.3"],
            "1.35.1",
            "1.35.3",
            "v1.35.1 -> v1.35.3",
        ),
        (
            "two minors",
            &["1.31.0", "1.32.0", "1.33.0"],
            "1.31.0",
            "1.33.0",
            "v1.31.0 -> v1.32.0 -> v1.33.0",
        ),
        (
            "the last of the minor in between",
            many,
            "1.31.0",
            "1.33.1",
            "v1.31.0 -> v1.32.3 -> v1.33.1",
        ),
        (
            "from a later patch too",
            many,
            "1.31.1",
            "1.33.0",
            "v1.31.1 -> v1.32.3 -> v1.33.0",
        ),
        (
            "the last in the order of the list, pre-releases",
            &[
                "1.31.0",
                "1.32.0-beta.1",
                "1.32.0-alpha.1",
                "1.32.0-alpha.2",
                "1.33.0",
            ],
            "1.31.0",
            "1.33.0",
            "v1.31.0 -> v1.32.0-alpha.2 -> v1.33.0",
        ),
        (
            "the last in the order of the list, builds",
            &[
                "1.31.0",
                "1.32.0+foo.2-bar.1",
                "1.32.0+foo.1-bar.1",
                "1.32.0+foo.2-bar.2",
                "1.33.0",
            ],
            "1.31.0",
            "1.33.0",
            "v1.31.0 -> v1.32.0+foo.2-bar.2 -> v1.33.0",
        ),
        (
            "whatever the build of the wanted one is",
            &[
                "1.31.0+a", "1.31.0+b", "1.32.0+b", "1.32.0+c", "1.33.0+a", "1.33.0+b",
            ],
            "1.31.0+b",
            "1.33.0+b",
            "v1.31.0+b -> v1.32.0+c -> v1.33.0+b",
        ),
        (
            "what runs is not in the list",
            &["1.31.0", "1.32.0", "1.33.0"],
            "1.31.5",
            "1.33.0",
            "v1.31.5 -> v1.32.0 -> v1.33.0",
        ),
        (
            "what runs is older than the first of its minor",
            &["1.31.3", "1.32.0", "1.33.0"],
            "1.31.1",
            "1.33.0",
            "v1.31.1 -> v1.32.0 -> v1.33.0",
        ),
        (
            "what runs is newer than all of its minor",
            &["1.31.3", "1.32.0", "1.33.0"],
            "1.31.9",
            "1.32.0",
            "v1.31.9 -> v1.32.0",
        ),
        (
            "a gap",
            &["1.31.0", "1.33.0"],
            "1.31.0",
            "1.33.0",
            "v1.33.0 cannot be reached: the Fleet allows no v1.32; add one to spec.versions of the Fleet",
        ),
        (
            "without a list the first of each minor",
            &[],
            "1.31.4",
            "1.34.2",
            "v1.31.4 -> v1.32.0 -> v1.33.0 -> v1.34.2",
        ),
        (
            "the wanted one must be listed",
            &["1.31.0", "1.32.0"],
            "1.31.0",
            "1.32.5",
            "the Fleet does not allow v1.32.5: add it to spec.versions of the Fleet, or set a version that is there",
        ),
        (
            "but not when it runs already",
            &["1.33.0"],
            "1.31.0",
            "1.31.0",
            "v1.31.0",
        ),
        (
            "patches go back",
            &[],
            "1.33.4",
            "1.33.1",
            "v1.33.4 -> v1.33.1",
        ),
        ("minors do not", &[], "1.33.4", "1.32.9", "v1.33.4"),
        (
            "another major",
            &[],
            "1.33.4",
            "2.0.0",
            "there is no way from v1.33.4 to v2.0.0",
        ),
    ] {
        assert_eq!(of(from, to, allowed, None), want, "{name}");
    }
}

/// The rows of Cluster API's TestComputeUpgradePlan in which nobody gives a plan of his own: workers move when skew demands it and
/// at the end, and after each step the rest is left.
#[test]
fn workers_move_where_skew_demands_it_and_at_the_end() {
    for (name, from, to, workers, want) in [
        ("all there", "1.33.0", "1.33.0", "1.33.0", "v1.33.0"),
        (
            "one minor",
            "1.33.0",
            "1.34.0",
            "1.33.0",
            "v1.33.0 -> v1.34.0; workers at v1.34.0",
        ),
        (
            "a patch",
            "1.33.0",
            "1.33.2",
            "1.33.0",
            "v1.33.0 -> v1.33.2; workers at v1.33.2",
        ),
        (
            "three minors, once at the end",
            "1.31.0",
            "1.34.0",
            "1.31.0",
            "v1.31.0 -> v1.32.0 -> v1.33.0 -> v1.34.0; workers at v1.34.0",
        ),
        (
            "four minors, once on the way",
            "1.30.0",
            "1.34.1",
            "1.30.0",
            "v1.30.0 -> v1.31.0 -> v1.32.0 -> v1.33.0 -> v1.34.1; workers at v1.33.0, then v1.34.1",
        ),
        (
            "after one step",
            "1.31.0",
            "1.34.1",
            "1.30.0",
            "v1.31.0 -> v1.32.0 -> v1.33.0 -> v1.34.1; workers at v1.33.0, then v1.34.1",
        ),
        (
            "after two",
            "1.32.0",
            "1.34.1",
            "1.30.0",
            "v1.32.0 -> v1.33.0 -> v1.34.1; workers at v1.33.0, then v1.34.1",
        ),
        (
            "workers come first now",
            "1.33.0",
            "1.34.1",
            "1.30.0",
            "v1.33.0 -> v1.34.1; workers at v1.33.0, then v1.34.1",
        ),
        (
            "they have moved",
            "1.33.0",
            "1.34.1",
            "1.33.0",
            "v1.33.0 -> v1.34.1; workers at v1.34.1",
        ),
        (
            "they alone are left",
            "1.34.1",
            "1.34.1",
            "1.33.0",
            "v1.34.1; workers at v1.34.1",
        ),
        (
            "a revert: they alone go back",
            "1.34.1",
            "1.33.0",
            "1.34.1",
            "v1.34.1; workers at v1.33.0",
        ),
    ] {
        assert_eq!(of(from, to, &[], Some(workers)), want, "{name}");
    }
    // In which order: workers of the step go before the control plane's next one.
    let path = path(&v("1.30.0"), &v("1.34.0"), &[], Some(&v("1.30.0"))).unwrap();
    assert_eq!(path.steps[3], Step::Workers(v("1.33.0")));
    assert_eq!(path.steps[4], Step::ControlPlane(v("1.34.0")));
    assert_eq!(path.steps.len(), 6);
}
