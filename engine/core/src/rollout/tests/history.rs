//! What a pool's sets tell of its past, and the way back.

use fleetwright_api::{meta, version::Version};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::decide::{World, at, config, own, pool};
use crate::{
    pool_version::{PoolVersion, VersionReason},
    rollout::{UndoError, history, undo},
    why::Record,
};

/// A pool that had these images, each rolled out as a controller does it.
fn world(images: &[&str]) -> World {
    let mut w = World::new(pool(3, IntOrString::Int(1), IntOrString::Int(0)));
    for (n, image) in images.iter().enumerate() {
        w.pool.spec.template.spec.provider_config = config(json!({"image": image}));
        let annotations = w.pool.metadata.annotations.get_or_insert_default();
        annotations.insert(meta::ANNOTATION_REVISION.to_owned(), format!("commit-{n}"));
        w.settle();
    }
    w
}

#[test]
fn revisions_tell_set_difference_and_cause() {
    let mut w = world(&["a", "b", "c"]);
    let lines = |w: &World| -> Vec<String> {
        let line = |r: &crate::rollout::Revision| {
            let changes: Vec<String> = r.changes.iter().map(ToString::to_string).collect();
            let clause = r.record.as_ref().map_or_else(String::new, Record::clause);
            format!(
                "{} {} {}/{} [{}] {clause}",
                r.revision,
                r.current,
                r.replicas,
                r.wanted,
                changes.join("; ")
            )
        };
        history(&w.sets, &w.catalogue).iter().map(line).collect()
    };
    assert_eq!(
        lines(&w),
        [
            "1 false 0/0 [] it is the first of its pool",
            "2 false 0/0 [spec.providerConfig.image: a -> b] providerConfig.image changed from a to b in commit-1",
            "3 true 3/3 [spec.providerConfig.image: b -> c] providerConfig.image changed from b to c in commit-2",
        ]
    );
    // A revert takes the old set again, as a new revision, for a new reason.
    w.pool.spec.template.spec.provider_config = config(json!({"image": "a"}));
    w.settle();
    assert_eq!(
        lines(&w),
        [
            "2 false 0/0 [] providerConfig.image changed from a to b in commit-1",
            "3 false 0/0 [spec.providerConfig.image: b -> c] providerConfig.image changed from b to c in commit-2",
            "4 true 3/3 [spec.providerConfig.image: c -> a] providerConfig.image changed from c to a in commit-2",
        ]
    );
    assert!(w.decide().turn.is_none() && w.decide().is_settled());
    // A restart makes a set of the same content.
    let when = at(w.clock).to_string();
    let annotations = w.pool.metadata.annotations.get_or_insert_default();
    annotations.insert(meta::ANNOTATION_RESTARTED_AT.to_owned(), when.clone());
    w.clock += 1;
    w.settle();
    let last = lines(&w).pop().unwrap();
    assert_eq!(
        last,
        format!("5 true 3/3 [] machines made before {when} are replaced")
    );
}

#[test]
fn the_way_back_is_what_the_pool_wrote_then_and_keeps_what_replaces_nothing() {
    let mut w = world(&["a", "b", "c"]);
    w.pool
        .spec
        .template
        .metadata
        .labels
        .insert("team".into(), "x".into());
    w.pool.spec.template.spec.min_ready_seconds = Some(7);
    w.pool.spec.template.spec.provider_config = config(json!({"image": "c", "tags": {"k": "v"}}));
    w.settle();
    let back = undo(&w.pool, &w.sets, None, &w.catalogue).unwrap();
    assert_eq!(
        (back.revision, back.commit.as_deref()),
        (2, Some("commit-2"))
    );
    let changes: Vec<String> = back.changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["spec.providerConfig.image: c -> b"]);
    // No default was written out, and what reaches machines in place is as it is now.
    let written = config(json!({"image": "b", "tags": {"k": "v"}}));
    assert_eq!(back.template.spec.provider_config, written);
    assert_eq!(back.template.metadata, w.pool.spec.template.metadata);
    assert_eq!(back.template.spec.min_ready_seconds, Some(7));
    w.pool.spec.template = back.template;
    w.settle();
    assert_eq!(
        history(&w.sets, &w.catalogue).last().unwrap().changes[0]
            .to
            .as_ref()
            .unwrap(),
        "b"
    );
    // Two revisions back: no single commit brought what is undone.
    let far = undo(&w.pool, &w.sets, Some(1), &w.catalogue).unwrap();
    assert_eq!((far.revision, far.commit), (1, None));
}

#[test]
fn where_there_is_no_way_back_it_says_why() {
    let w = world(&["a"]);
    let way = |w: &World, to| undo(&w.pool, &w.sets, to, &w.catalogue).map(|u| u.revision);
    assert_eq!(way(&w, None), Err(UndoError::NoEarlier));
    let missing = way(&w, Some(7)).unwrap_err();
    assert_eq!(missing.to_string(), "there is no revision 7: there are 1");
    assert_eq!(way(&w, Some(1)), Err(UndoError::Same(1)));
    // The pool follows its Cluster: the way back is there.
    let mut w = world(&["a"]);
    w.version = PoolVersion {
        version: Some("v1.34.0".parse::<Version>().unwrap()),
        reason: VersionReason::FollowsCluster,
    };
    w.settle();
    let why = way(&w, None).unwrap_err().to_string();
    assert_eq!(
        why,
        "revision 1 differs in the version alone, and the pool follows its Cluster's: set spec.version of Cluster c back to v1.33.0"
    );
    // A version of its own is its own to put back.
    let mut w = world(&[]);
    for version in ["v1.33.0", "v1.33.1"] {
        w.pool.spec.template.spec.version = Some(version.into());
        w.version = own(version);
        w.settle();
    }
    let back = undo(&w.pool, &w.sets, None, &w.catalogue).unwrap();
    assert_eq!(back.template.spec.version.as_deref(), Some("v1.33.0"));
}

#[test]
fn a_time_that_lies_ahead_is_when_to_look_again() {
    let mut w = world(&["a"]);
    assert_eq!(w.decide().next, None);
    let soon = at(w.clock + 500);
    let later = at(w.clock + 900);
    w.pool.spec.rollout.as_mut().unwrap().after = Some(fleetwright_api::time::k8s_time(later));
    let annotations = w.pool.metadata.annotations.get_or_insert_default();
    annotations.insert(meta::ANNOTATION_RESTARTED_AT.to_owned(), soon.to_string());
    assert_eq!(w.decide().next, Some(soon));
    w.clock += 500;
    let d = w.decide();
    assert_eq!((d.create.is_some(), d.next), (true, Some(later)));
    w.clock += 400;
    assert_eq!(w.decide().next, None);
}
