//! Fleets that wait for others: a pure function of all that there are.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Fleet,
    condition::{self, Status, kind},
    fleet::FleetReference,
};
use kube::ResourceExt;

use crate::tell::CONVERGED;

/// Namespace and name of a Fleet.
pub type FleetName = (String, String);

/// All Fleets that there are.
pub type Fleets = BTreeMap<FleetName, Fleet>;

/// What a Fleet waits for: the first in `spec.dependsOn` whose newest revision has not converged. `None` when it waits for none.
#[must_use]
pub fn waits_for(fleet: &Fleet, all: &Fleets) -> Option<String> {
    if let Some(circle) = circle(fleet, all) {
        return Some(format!(
            "it depends on itself ({circle}): take one of them out of spec.dependsOn"
        ));
    }
    fleet.spec.depends_on.iter().find_map(|reference| {
        let name = name_of(reference, fleet);
        let words = format!("waits for Fleet {}/{}", name.0, name.1);
        match all.get(&name) {
            None => Some(format!("{words}, which is not there")),
            Some(other) => unsettled(other).map(|why| format!("{words}: {why}")),
        }
    })
}

fn name_of(reference: &FleetReference, of: &Fleet) -> FleetName {
    let own = || of.namespace().unwrap_or_default();
    let namespace = reference.namespace.clone().unwrap_or_else(own);
    (namespace, reference.name.clone())
}

/// Why a Fleet's newest revision has not converged.
fn unsettled(fleet: &Fleet) -> Option<String> {
    let nothing = || Some("it has not been looked at yet".to_owned());
    let Some(status) = &fleet.status else {
        return nothing();
    };
    let ready = condition::get(&status.conditions, kind::READY);
    let Some(ready) = ready.filter(|_| status.observed_generation == fleet.metadata.generation)
    else {
        return nothing();
    };
    let revision = |at: &Option<fleetwright_api::fleet::RevisionRef>| {
        at.as_ref().map(|at| at.revision.clone())
    };
    let newest = revision(&status.settled) == revision(&status.observed);
    let well = ready.status == Status::True.as_str() && ready.reason == CONVERGED;
    match newest && well {
        true => None,
        false => Some(ready.message.clone()),
    }
}

/// The way from a Fleet back to itself.
fn circle(fleet: &Fleet, all: &Fleets) -> Option<String> {
    let start = (fleet.namespace().unwrap_or_default(), fleet.name_any());
    let mut seen = BTreeSet::new();
    let mut open = vec![vec![start.clone()]];
    while let Some(way) = open.pop() {
        let at = way.last()?;
        let here = if *at == start {
            Some(fleet)
        } else {
            all.get(at)
        };
        let Some(here) = here else {
            continue;
        };
        for reference in &here.spec.depends_on {
            let next = name_of(reference, here);
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == start {
                let names = longer.iter().map(|(_, name)| name.as_str());
                return Some(names.collect::<Vec<_>>().join(" → "));
            }
            if seen.insert(next) {
                open.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use fleetwright_api::fleet::{FleetStatus, RevisionRef};
    use jiff::Timestamp;

    use super::*;

    fn fleet(name: &str, on: &[&str]) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.metadata.name = Some(name.into());
        fleet.metadata.namespace = Some("default".into());
        fleet.metadata.generation = Some(1);
        let reference = |name: &&str| FleetReference {
            namespace: None,
            name: (*name).into(),
        };
        fleet.spec.depends_on = on.iter().map(reference).collect();
        fleet
    }

    /// Revision that is observed, revision that has settled, and why it is Ready.
    fn at(mut fleet: Fleet, observed: &str, settled: &str, ready: (Status, &str)) -> Fleet {
        let revision = |revision: &str| {
            Some(RevisionRef {
                revision: revision.into(),
                ..RevisionRef::default()
            })
        };
        let mut status = FleetStatus {
            observed_generation: Some(1),
            observed: revision(observed),
            settled: revision(settled),
            ..FleetStatus::default()
        };
        let (is, reason) = ready;
        let now = Timestamp::UNIX_EPOCH;
        condition::set(
            &mut status.conditions,
            kind::READY,
            is,
            reason,
            "the message",
            Some(1),
            now,
        );
        fleet.status = Some(status);
        fleet
    }

    fn waits(fleet: &Fleet, others: &[Fleet]) -> Option<String> {
        let name = |f: &Fleet| ("default".to_owned(), f.name_any());
        waits_for(
            fleet,
            &others.iter().map(|f| (name(f), f.clone())).collect(),
        )
    }

    #[test]
    fn the_newest_revision_of_each_must_have_converged() {
        let apps = fleet("apps", &["infra"]);
        let infra = || fleet("infra", &[]);
        let well = (Status::True, CONVERGED);
        let waiting = "waits for Fleet default/infra";
        assert_eq!(waits(&fleet("apps", &[]), &[]), None);
        for (others, want) in [
            (vec![], Some(format!("{waiting}, which is not there"))),
            (
                vec![infra()],
                Some(format!("{waiting}: it has not been looked at yet")),
            ),
            (vec![at(infra(), "2", "2", well)], None),
            (
                vec![at(infra(), "2", "1", well)],
                Some(format!("{waiting}: the message")),
            ),
            (
                vec![at(infra(), "2", "2", (Status::False, "NotConverging"))],
                Some(format!("{waiting}: the message")),
            ),
            (
                vec![at(infra(), "2", "2", (Status::True, "Converging"))],
                Some(format!("{waiting}: the message")),
            ),
        ] {
            assert_eq!(waits(&apps, &others), want, "{others:?}");
        }
        let mut changed = at(infra(), "2", "2", well);
        changed.metadata.generation = Some(2);
        assert!(
            waits(&apps, &[changed]).is_some(),
            "its spec was not looked at yet"
        );
    }

    #[test]
    fn a_circle_is_named() {
        let (a, b, c) = (
            fleet("a", &["b"]),
            fleet("b", &["c"]),
            fleet("c", &["a", "b"]),
        );
        let words = waits(&a, &[a.clone(), b.clone(), c.clone()]).unwrap();
        assert!(words.contains("a → b → c → a"), "{words}");
        let own = waits(&fleet("d", &["d"]), &[]).unwrap();
        assert!(own.contains("d → d"), "{own}");
        // One that others make is not theirs who only wait for it.
        let d = fleet("d", &["a"]);
        let words = waits(&d, &[a, b, c]).unwrap();
        assert!(words.starts_with("waits for Fleet default/a"), "{words}");
    }
}
