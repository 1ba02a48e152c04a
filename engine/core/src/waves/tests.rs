use serde_json::json;

use super::*;

fn cluster(name: &str, tier: &str) -> Value {
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster",
        "metadata": {"name": name, "namespace": "default", "labels": {"tier": tier}}})
}

fn of_cluster(kind: &str, name: &str, cluster: &str, labels: Value) -> Value {
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {"clusterName": cluster}})
}

fn waves(text: Value) -> Vec<Wave> {
    serde_json::from_value(text).unwrap()
}

fn three() -> Vec<Wave> {
    waves(json!([
        {"name": "canary", "clusters": {"matchLabels": {"tier": "canary"}}, "soakSeconds": 600},
        {"name": "gpu", "pools": {"matchLabels": {"gpu": "yes"}}},
        {"name": "prod", "clusters": {"matchLabels": {"tier": "prod"}}, "windows": [{"start": "22:00", "durationSeconds": 3600}]},
    ]))
}

fn now(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-30T12:00:00Z";
const NIGHT: &str = "2026-11-30T22:30:00Z";

#[test]
fn an_object_is_in_the_first_wave_that_selects_it() {
    let waves = three();
    let waves = Waves::new(&waves, &[]);
    let desired: Vec<Desired> = [
        cluster("a", "canary"),
        cluster("b", "prod"),
        cluster("c", "lab"),
        of_cluster("MachineDeployment", "a-gpu", "a", json!({"gpu": "yes"})),
        of_cluster("MachineDeployment", "b-gpu", "b", json!({"gpu": "yes"})),
        of_cluster("MachineDeployment", "c-gpu", "c", json!({"gpu": "yes"})),
        of_cluster("MachineDeployment", "b-web", "b", json!({})),
        of_cluster("MachineDeployment", "live-web", "live", json!({})),
        of_cluster("MachineHealthCheck", "b-check", "b", json!({"gpu": "yes"})),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default", "labels": {"tier": "prod"}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b-manifest", "namespace": "default", "labels": {"fleetwright.dev/cluster-name": "b"}}}),
    ]
    .into_iter()
    .map(|document| Desired { document, source: String::new(), origins: Default::default() })
    .collect();
    // What Git says of labels counts, not what is there.
    let live = [
        cluster("a", "prod"),
        cluster("b", "prod"),
        cluster("live", "prod"),
    ];
    let places = waves.places(&desired, &live);
    let place = |name: &str| {
        let mut found = places.0.iter().filter(|(key, _)| key.name == name);
        waves.name(*found.next().unwrap().1)
    };
    for (name, want) in [
        ("a", Some("canary")),
        ("b", Some("prod")),
        ("c", Some(REST)),
        ("a-gpu", Some("canary")),
        ("b-gpu", Some("gpu")),
        // Its cluster is not there yet, and comes last.
        ("c-gpu", Some(REST)),
        ("b-web", Some("prod")),
        ("live-web", Some("prod")),
        ("b-check", Some("prod")),
        ("cm", None),
        // A cluster's bootstrap manifests come with it.
        ("b-manifest", Some("prod")),
    ] {
        assert_eq!(place(name), want, "{name}");
    }
    assert_eq!(places.at(Place(3)).count(), 6);
}

/// What waits, by the names of waves, `-` for the deletions.
fn waiting(planned: &[usize], states: &[WaveStatus], at: &str) -> Vec<(String, String)> {
    let list = three();
    let waves = Waves::new(&list, &[]);
    let stage = waves.stage(planned.iter().map(|at| Place(*at)), states, now(at));
    let mut out = Vec::new();
    for (place, name) in waves.named() {
        if let Some(hold) = stage.hold(place) {
            out.push((name.to_owned(), hold.because.clone()));
        }
    }
    assert_eq!(stage.hold(Place::FIRST), None);
    out.extend(
        stage
            .deletes()
            .map(|hold| ("-".to_owned(), hold.because.clone())),
    );
    out
}

fn names(waiting: &[(String, String)]) -> Vec<&str> {
    waiting.iter().map(|(name, _)| name.as_str()).collect()
}

fn state(name: &str, state: WaveState, since: &str) -> WaveStatus {
    WaveStatus {
        name: name.into(),
        state,
        since: k8s_time(now(since)),
    }
}

#[test]
fn a_wave_waits_for_those_before_it() {
    // Nothing is planned and all have passed.
    assert!(waiting(&[], &[], NOON).is_empty());
    // What belongs to no cluster holds nobody up.
    assert!(waiting(&[0, 0], &[], NOON).is_empty());
    let first = waiting(&[1, 2, 4], &[], NOON);
    assert_eq!(names(&first), ["gpu", "prod", "rest", "-"]);
    assert_eq!(first[0].1, "wave canary comes first");
    assert_eq!(first[3].1, "deletions wait: wave canary comes first");
    // The canary was applied and rolls.
    let rolling = [state("canary", WaveState::Rolling, NOON)];
    let then = waiting(&[2, 4], &rolling, NOON);
    assert_eq!(names(&then), ["gpu", "prod", "rest", "-"]);
    assert_eq!(then[0].1, "wave canary has not converged");
    // It soaks; after that the next begins.
    let soaking = [state("canary", WaveState::Soaking, NOON)];
    let then = waiting(&[2, 4], &soaking, "2026-11-30T12:09:59Z");
    assert_eq!(then[0].1, "wave canary soaks until 2026-11-30T12:10:00Z");
    let then = waiting(&[2, 4], &soaking, "2026-11-30T12:10:00Z");
    assert_eq!(names(&then), ["prod", "rest", "-"]);
}

#[test]
fn a_closed_window_holds_a_wave_and_all_after_it() {
    let closed = waiting(&[3, 4], &[], NOON);
    assert_eq!(names(&closed), ["prod", "rest", "-"]);
    assert_eq!(closed[0].1, "its window opens at 2026-11-30T22:00:00Z");
    assert_eq!(
        closed[1].1,
        "wave prod comes first, and waits: its window opens at 2026-11-30T22:00:00Z"
    );
    assert_eq!(names(&waiting(&[3, 4], &[], NIGHT)), ["rest", "-"]);
    // Nothing is to be made in it: its window does not matter.
    assert!(names(&waiting(&[4], &[], NOON)) == ["-"]);
}

#[test]
fn the_fleets_windows_hold_everything() {
    let windows = [Window {
        start: "22:00".into(),
        duration_seconds: 3600,
        ..Window::default()
    }];
    let waves = Waves::new(&[], &windows);
    let both = [Place::FIRST, waves.rest()];
    let stage = waves.stage(both, &[], now(NOON));
    let until = Some(now("2026-11-30T22:00:00Z"));
    for hold in both
        .iter()
        .map(|place| stage.hold(*place))
        .chain([stage.deletes()])
    {
        assert_eq!(
            hold.map(|hold| (hold.until, &hold.wave)),
            Some((until, &None))
        );
    }
    assert_eq!(
        waves.stage(both, &[], now(NIGHT)),
        Stage {
            holds: vec![None, None],
            deletes: None
        }
    );
    // Deletions wait for a window that nothing else waits for.
    assert!(waves.stage([], &[], now(NOON)).deletes().is_some());
}

#[test]
fn a_wave_passes_when_all_of_it_stayed_converged() {
    let list = three();
    let waves = Waves::new(&list, &[]);
    let canary = Place(1);
    let rolling = Waves::rolling("canary", now(NOON));
    let at = |text: &str| now(text);
    assert_eq!(
        waves.advance(canary, &rolling, false, at("2026-11-30T13:00:00Z")),
        Some(rolling.clone())
    );
    let soaking = waves
        .advance(canary, &rolling, true, at("2026-11-30T13:00:00Z"))
        .unwrap();
    assert_eq!(
        soaking,
        state("canary", WaveState::Soaking, "2026-11-30T13:00:00Z")
    );
    assert_eq!(
        waves.advance(canary, &soaking, true, at("2026-11-30T13:09:59Z")),
        Some(soaking.clone())
    );
    assert_eq!(
        waves.advance(canary, &soaking, true, at("2026-11-30T13:10:00Z")),
        None
    );
    // Ill while it soaks: it begins anew.
    let again = waves
        .advance(canary, &soaking, false, at("2026-11-30T13:05:00Z"))
        .unwrap();
    assert_eq!(
        again,
        state("canary", WaveState::Rolling, "2026-11-30T13:05:00Z")
    );
    // Without a soak time it passes at once.
    let gpu = Waves::rolling("gpu", now(NOON));
    assert_eq!(waves.advance(Place(2), &gpu, true, now(NOON)), None);
}
