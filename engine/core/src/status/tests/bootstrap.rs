//! Condition BootstrapManifestsApplied, and what waits for it.

use fleetwright_api::{Cluster, condition::kind};
use serde_json::{Value, json};

use super::{
    at,
    cluster::{reached, served, settled, whole_pool},
    line, read,
};
use crate::{
    manifests::{Standing, sources, whole},
    status::{
        ClusterFacts, cluster, has_converged, manifests_refused, pool_unconverged, unconverged,
    },
};

const GOOD: &str = "Available=True,Ready=True,UpToDate=True";
const KIND: &str = kind::BOOTSTRAP_MANIFESTS_APPLIED;

fn wanting(manifests: Value) -> Cluster {
    read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"version": "v1.33.0", "bootstrapManifests": manifests,
            "controlPlane": {"machines": {"replicas": 1, "template": {"spec": {"providerConfig": {}}}}}},
    }))
}

/// The cluster with the status that it gets where its manifests stand like this.
fn after(mut c: Cluster, manifests: Option<Standing>) -> Cluster {
    let facts = ClusterFacts {
        manifests,
        ..reached()
    };
    let machines = [served("m", "v1.33.0", GOOD)];
    let pools = [whole_pool("web")];
    c.status = Some(cluster(&c, &machines, &pools, &facts, &settled(), at(0)));
    c
}

fn said(c: &Cluster, kind: &str) -> String {
    line(&c.status.as_ref().unwrap().conditions, kind)
}

#[test]
fn nothing_counts_before_the_manifests_are_applied_once() {
    let pool = whole_pool("web");
    let one = json!([{"path": "cni.yaml", "contentHash": "1"}]);
    let new = wanting(one.clone());
    let booting = cluster(&new, &[], &[], &reached(), &settled(), at(0));
    assert_eq!(
        line(&booting.conditions, KIND),
        "False Applying: waiting for the control plane's first machine"
    );
    let c = after(new, Some(Standing::Waiting("no answer".into())));
    assert_eq!(said(&c, KIND), "False Applying: no answer");
    assert_eq!(
        said(&c, kind::AVAILABLE),
        "False NotAvailable: BootstrapManifestsApplied: no answer"
    );
    let words = "cluster c: its bootstrap manifests are not applied: no answer";
    assert_eq!(unconverged(&c, [&pool]).as_deref(), Some(words));
    assert_eq!(manifests_refused(&c), None);
    assert_eq!(
        pool_unconverged(Some(&c), &pool).as_deref(),
        Some("pool web waits for the bootstrap manifests of its cluster to be applied")
    );
    let refused = after(c, Some(Standing::Refused("bad".into())));
    assert_eq!(said(&refused, KIND), "False Refused: bad");
    assert_eq!(
        manifests_refused(&refused).as_deref(),
        Some("cluster c: its bootstrap manifests are not applied: bad")
    );
    let mut changed = refused.clone();
    changed.metadata.generation = Some(3);
    assert_eq!(manifests_refused(&changed), None, "that was before");

    let hash = whole(&sources(&refused).unwrap()).unwrap();
    let done = after(refused, Some(Standing::Applied(hash.clone())));
    assert_eq!(said(&done, KIND), "True Applied");
    assert_eq!(said(&done, kind::AVAILABLE), "True Available");
    assert!(has_converged(&done, std::slice::from_ref(&pool)));
    let status = done.status.clone().unwrap();
    assert_eq!(status.bootstrap_manifests_hash.as_ref(), Some(&hash));

    // Nobody need look again, and nothing is written.
    let same = after(done.clone(), None);
    assert_eq!(same.status, done.status);

    // Changed ones are waited for; what is available already stays so.
    let mut changed = done;
    changed.spec.bootstrap_manifests[0].content_hash = Some("2".into());
    let changed = after(changed, None);
    assert_eq!(said(&changed, KIND), "False Applying: not applied yet");
    assert_eq!(said(&changed, kind::AVAILABLE), "True Available");
    assert!(unconverged(&changed, [&pool]).is_some());
    assert_eq!(pool_unconverged(Some(&changed), &pool), None);

    // What was tried and refused may be there in part: those of before are applied anew, should they be wanted again.
    let mut back = after(changed.clone(), Some(Standing::Refused("bad".into())));
    back.spec.bootstrap_manifests[0].content_hash = Some("1".into());
    assert_eq!(
        said(&after(back, None), KIND),
        "False Applying: not applied yet"
    );

    // Given up ones leave nothing behind but the milestone.
    let mut none = changed;
    none.spec.bootstrap_manifests.clear();
    let none = after(none, None);
    let status = none.status.clone().unwrap();
    assert_eq!(
        (said(&none, KIND), status.bootstrap_manifests_hash),
        ("none".into(), None)
    );
    assert!(has_converged(&none, &[pool]));
}

#[test]
fn a_cluster_without_manifests_is_not_held_up_by_its_first() {
    let plain = after(wanting(json!([])), None);
    assert_eq!(said(&plain, KIND), "none");
    let mut first = plain;
    first.spec.bootstrap_manifests = read(json!([{"configMap": "m"}]));
    let first = after(first, None);
    assert_eq!(said(&first, KIND), "False Applying: not applied yet");
    assert_eq!(said(&first, kind::AVAILABLE), "True Available");
}
