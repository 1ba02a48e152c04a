//! Revisions of a pool's sets, which set is the current one, and what is kept of old ones.

use std::collections::BTreeMap;

use fleetwright_api::{MachineSet, meta, time::k8s_time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::decide::{World, at, config, pool};

fn world() -> World {
    World::new(pool(2, IntOrString::Int(1), IntOrString::Int(0)))
}

/// Sets of these images and revisions (none: `0`), as a controller would have made them, oldest first.
fn with_sets(sets: &[(&str, u64)]) -> World {
    let mut w = world();
    for (image, revision) in sets {
        w.clock += 1;
        w.pool.spec.template.spec.provider_config = config(json!({"image": image}));
        let decision = w.decide();
        w.apply(decision, usize::MAX);
        let set = w.sets.last_mut().unwrap();
        let all = set.metadata.annotations.get_or_insert_default();
        all.remove(meta::ANNOTATION_ROLLOUT_REVISION);
        if *revision > 0 {
            let key = meta::ANNOTATION_ROLLOUT_REVISION.to_owned();
            all.insert(key, revision.to_string());
        }
    }
    w
}

/// Cluster API's TestComputeRevisionAnnotations; it also keeps the former numbers of a set, which we do not: Git has them.
#[test]
fn a_revision_rises_above_all_others_and_never_goes_down() {
    for (name, old, new, want) in [
        ("no set", vec![], None, 1),
        ("one before", vec![("a", 1)], None, 2),
        ("the only one has it already", vec![], Some(1), 1),
        (
            "an old set is current again",
            vec![("a", 1), ("b", 2)],
            Some(1),
            3,
        ),
        (
            "the current one is the highest already",
            vec![("a", 1), ("b", 2)],
            Some(4),
            4,
        ),
        (
            "an old set is current a second time",
            vec![("a", 3), ("b", 4)],
            Some(2),
            5,
        ),
        ("the current one has none yet", vec![("a", 3)], Some(0), 4),
    ] {
        let mut all = old;
        all.extend(new.map(|revision| ("current", revision)));
        let mut w = with_sets(&all);
        w.pool.spec.template.spec.provider_config = config(json!({"image": "current"}));
        let d = w.decide();
        assert_eq!(d.revision, want, "{name}");
        let written = match &d.create {
            Some(new) => new
                .annotations
                .get(meta::ANNOTATION_ROLLOUT_REVISION)
                .cloned(),
            None => d
                .updates
                .iter()
                .find(|u| Some(&u.name) == d.current.as_ref())
                .and_then(|u| {
                    u.annotations
                        .get(meta::ANNOTATION_ROLLOUT_REVISION)
                        .cloned()
                })
                .flatten()
                .or_else(|| new.map(|n: u64| n.to_string())),
        };
        assert_eq!(written, Some(want.to_string()), "{name}");
    }
}

/// Cluster API's TestFindNewAndOldMachineSets: of several sets of the wanted content the largest, then the oldest, then the first
/// by name is the current one.
#[test]
fn of_equal_sets_the_largest_then_the_oldest_then_the_first_by_name_is_current() {
    let twin = |w: &World, name: &str, replicas: i32, age: i64| {
        let mut set: MachineSet = w.sets[0].clone();
        set.metadata.name = Some(name.to_owned());
        set.metadata.creation_timestamp = Some(k8s_time(at(-age)));
        set.spec.replicas = Some(replicas);
        set
    };
    for (name, sets, want) in [
        ("largest", vec![("x", 1, 5), ("y", 2, 1)], "y"),
        ("oldest", vec![("x", 1, 1), ("y", 1, 5)], "y"),
        ("name", vec![("y", 1, 1), ("x", 1, 1)], "x"),
    ] {
        let mut w = with_sets(&[("a", 1)]);
        w.sets = sets
            .into_iter()
            .map(|(n, r, age)| twin(&w, n, r, age))
            .collect();
        assert_eq!(w.decide().current.as_deref(), Some(want), "{name}");
    }
}

/// Cluster API's TestMachineTemplateUpToDate, for the fields that we have: what makes another set, and what does not.
#[test]
fn what_makes_another_set() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, bool); 10] = [
        ("nothing", |_| {}, false),
        (
            "image",
            |w| w.pool.spec.template.spec.provider_config = config(json!({"image": "z"})),
            true,
        ),
        (
            "failure domain",
            |w| w.pool.spec.template.spec.failure_domain = Some("x".into()),
            true,
        ),
        (
            "version",
            |w| w.version = super::decide::own("v1.34.0"),
            true,
        ),
        (
            "tags",
            |w| {
                w.pool.spec.template.spec.provider_config =
                    config(json!({"image": "a", "tags": {"x": "y"}}));
            },
            false,
        ),
        (
            "label",
            |w| {
                drop(
                    w.pool
                        .spec
                        .template
                        .metadata
                        .labels
                        .insert("x".into(), "y".into()),
                );
            },
            false,
        ),
        (
            "annotation",
            |w| {
                drop(
                    w.pool
                        .spec
                        .template
                        .metadata
                        .annotations
                        .insert("x".into(), "y".into()),
                );
            },
            false,
        ),
        (
            "minReadySeconds",
            |w| w.pool.spec.template.spec.min_ready_seconds = Some(3),
            false,
        ),
        (
            "deletion",
            |w| w.pool.spec.template.spec.deletion = Some(Default::default()),
            false,
        ),
        ("replicas", |w| w.pool.spec.replicas = Some(5), false),
    ];
    for (name, change, rolls) in cases {
        let mut w = with_sets(&[("a", 1)]);
        change(&mut w);
        assert_eq!(w.decide().create.is_some(), rolls, "{name}");
    }
}

/// A set's annotations: what it was made of, how large the pool was, its revision; none of the pool's own.
#[test]
fn sets_carry_the_size_of_the_pool_and_none_of_its_annotations() {
    let mut w = world();
    w.pool.metadata.annotations = Some(BTreeMap::from([("team".to_owned(), "a".to_owned())]));
    let new = w.decide().create.unwrap();
    let get = |key: &str| new.annotations.get(key).map(String::as_str);
    assert_eq!(get(meta::ANNOTATION_DESIRED_REPLICAS), Some("2"));
    assert_eq!(get(meta::ANNOTATION_MAX_REPLICAS), Some("3"));
    assert_eq!(get(meta::ANNOTATION_ROLLOUT_REVISION), Some("1"));
    assert_eq!(get("team"), None);
}
