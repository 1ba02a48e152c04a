use serde_json::json;

use super::*;
use crate::compare::compare;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn config() -> Value {
    json!({"apiVersion": "x/v1", "kind": "X", "account": "a", "size": 2})
}

fn web() -> MachineDeployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"clusterName": "prod", "template": {"spec": {"providerConfig": config()}}},
    }))
    .unwrap()
}

fn prod() -> Cluster {
    serde_json::from_value(json!({
        "metadata": {"name": "prod", "namespace": "default", "uid": "u"},
        "spec": {"version": "v1.34.0", "controlPlane": {"machines": {"template": {"spec": {"providerConfig": config()}}}}},
    }))
    .unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn found(machine: &str, set: &str, version: &str, known: bool) -> Found {
    Found {
        machine: machine.into(),
        set: set.into(),
        instance_key: KEY.into(),
        provider_id: format!("x://{machine}"),
        version: version.parse().ok(),
        failure_domain: Some("a".into()),
        config: None,
        known,
        leaves: false,
    }
}

fn rebuilt(found: &[Found], there: &[&str], sets: &[MachineSet]) -> Rebuilt {
    let there = there.iter().map(|n| (*n).to_owned()).collect();
    let wanted = version("v1.34.0");
    pool(&web(), sets, &there, found, &wanted, &Catalogue::default())
}

#[test]
fn machines_come_back_with_their_names_keys_and_ids_and_the_counter_goes_on_above_them() {
    let found = [
        found("web-aa-7", "web-aa", "v1.34.0", true),
        found("web-aa-3", "web-aa", "v1.34.0", true),
    ];
    let out = rebuilt(&found, &[], &[]);
    assert_eq!(out.next_ordinal, 8);
    let [set] = out.sets.as_slice() else {
        panic!("{out:?}")
    };
    assert_eq!((set.name.as_str(), set.hash.as_str()), ("web-aa", "aa"));
    assert_eq!(set.replicas, 2);
    let names: Vec<_> = out
        .machines
        .iter()
        .map(|(s, m)| (s.as_str(), m.name.as_str()))
        .collect();
    assert_eq!(names, [("web-aa", "web-aa-7"), ("web-aa", "web-aa-3")]);
    let machine = &out.machines[0].1;
    assert_eq!(machine.spec.instance_key.as_deref(), Some(KEY));
    assert_eq!(machine.spec.provider_id.as_deref(), Some("x://web-aa-7"));
    assert_eq!(machine.labels[meta::LABEL_DEPLOYMENT_NAME], "web");
    assert_eq!(machine.labels[meta::LABEL_TEMPLATE_HASH], "aa");
    assert_eq!(machine.labels[meta::LABEL_SET_NAME], "web-aa");
    // What the set is made of is what the pool wants: nothing rolls.
    let set = set.to_set(&web());
    let want = Content::of_pool(&web(), &version("v1.34.0"), &Catalogue::default());
    assert!(compare(&want, &Content::of_set(&set), &Catalogue::default()).is_empty());
}

#[test]
fn nothing_is_made_of_what_is_there() {
    let found = [found("web-aa-0", "web-aa", "v1.34.0", true)];
    let first = rebuilt(&found, &[], &[]);
    let set = first.sets[0].to_set(&web());
    let again = rebuilt(&found, &["web-aa-0"], std::slice::from_ref(&set));
    assert_eq!((again.sets.len(), again.machines.len()), (0, 0));
    let half = rebuilt(&found, &[], &[set]);
    assert_eq!((half.sets.len(), half.machines.len()), (0, 1));
}

#[test]
fn what_leaves_or_is_another_pools_of_that_name_keeps_its_name_and_makes_nothing() {
    let mut going = found("web-aa-8", "web-aa", "v1.34.0", true);
    going.leaves = true;
    let out = rebuilt(std::slice::from_ref(&going), &[], &[]);
    assert_eq!((out.sets.len(), out.machines.len()), (0, 0));
    assert_eq!(out.next_ordinal, 9);
    // A pool that was deleted and made anew: the machines of the one before are on their way out.
    let before = found("web-bb-3", "web-bb", "v1.34.0", true);
    let lost = found("web-aa-2", "web-aa", "v1.34.0", true);
    let out = rebuilt(&[before, lost, going], &["web-bb-3"], &[]);
    let sets: Vec<_> = out
        .sets
        .iter()
        .map(|s| (s.name.as_str(), s.replicas))
        .collect();
    assert_eq!(sets, [("web-aa", 1)]);
    assert_eq!((out.machines.len(), out.next_ordinal), (1, 9));
    let of_control_plane = Found {
        leaves: true,
        ..found("prod-cp-4", "", "v1.33.1", true)
    };
    let out = control_plane(
        &prod(),
        &BTreeSet::new(),
        &[of_control_plane],
        &Catalogue::default(),
    );
    assert_eq!((out.machines.len(), out.next_ordinal), (0, 5));
}

#[test]
fn an_older_version_and_unknown_settings_are_replaced_in_the_ordinary_way() {
    let found = [
        found("web-new-5", "web-new", "v1.34.0", true),
        found("web-old-0", "web-old", "v1.33.0", true),
        found("web-lost-2", "web-lost", "v1.34.0", false),
    ];
    let out = rebuilt(&found, &[], &[]);
    let revision = |s: &NewSet| s.annotations[meta::ANNOTATION_ROLLOUT_REVISION].clone();
    let names: Vec<_> = out
        .sets
        .iter()
        .map(|s| (s.name.as_str(), revision(s)))
        .collect();
    assert_eq!(
        names,
        [
            ("web-lost", "1".to_owned()),
            ("web-old", "2".to_owned()),
            ("web-new", "3".to_owned())
        ]
    );
    let want = Content::of_pool(&web(), &version("v1.34.0"), &Catalogue::default());
    let paths = |set: &NewSet| {
        let have = Content::of_set(&set.to_set(&web()));
        let changes = compare(&want, &have, &Catalogue::default()).replace;
        changes.iter().map(|c| c.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&out.sets[0]), ["spec.providerConfig.lostWithState"]);
    assert_eq!(paths(&out.sets[1]), ["spec.version"]);
    assert_eq!(paths(&out.sets[2]), [""; 0]);
    let lost = &out.machines[0].1.spec.content.provider_config;
    assert_eq!(for_provider(lost.settings()), config());
}

#[test]
fn tags_that_cannot_be_a_machines_are_left_alone() {
    for (machine, set, key) in [
        ("", "web-aa", KEY),
        ("web-aa-x", "web-aa", KEY),
        ("Web-aa-1", "web-aa", KEY),
        ("../x-1", "web-aa", KEY),
        ("web-aa-1", "", KEY),
        ("web-aa-1", "web_aa", KEY),
        ("web-aa-1", "web-aa", "short"),
        ("web-aa-1", "web-aa", "0123456789ABCDEF0123456789abcdef"),
        (&format!("{}-1", "x".repeat(70)), "web-aa", KEY),
    ] {
        let mut one = found(machine, set, "v1.34.0", true);
        one.instance_key = key.into();
        let out = rebuilt(&[one], &[], &[]);
        assert_eq!(out.machines, [], "{machine} {set} {key}");
        assert_eq!(out.sets, [], "{machine} {set} {key}");
    }
}

#[test]
fn a_control_plane_comes_back_at_the_version_and_in_the_domain_that_it_has() {
    let found = [
        found("prod-cp-4", "", "v1.33.1", true),
        found("prod-cp-5", "", "", true),
        found("prod-cp-6", "", "v1.34.0", false),
    ];
    let there = BTreeSet::from(["prod-cp-9".to_owned()]);
    let out = control_plane(&prod(), &there, &found, &Catalogue::default());
    assert_eq!(out.next_ordinal, 7);
    let told: Vec<_> = out
        .machines
        .iter()
        .map(|(_, m)| {
            let content = &m.spec.content;
            let lost = content.provider_config.settings().contains_key(LOST);
            (m.name.as_str(), content.version.as_deref().unwrap(), lost)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("prod-cp-4", "v1.33.1", false),
            ("prod-cp-5", "v1.34.0", false),
            ("prod-cp-6", "v1.34.0", true)
        ]
    );
    let machine = &out.machines[0].1;
    assert_eq!(machine.spec.content.failure_domain.as_deref(), Some("a"));
    assert!(machine.labels.contains_key(meta::LABEL_CONTROL_PLANE));
    assert!(
        machine
            .annotations
            .contains_key(crate::control_plane::ETCD_HOOK)
    );
}

#[test]
fn an_owner_has_begun_once_it_has_a_counter() {
    let mut pool = web();
    assert!(!has_begun(pool.metadata.annotations.as_ref()));
    let counter = (meta::ANNOTATION_NEXT_ORDINAL.to_owned(), "0".to_owned());
    pool.metadata.annotations = Some([counter].into());
    assert!(has_begun(pool.metadata.annotations.as_ref()));
}
