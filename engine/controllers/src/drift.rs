//! What drifted, as this process last read it: counted as news of it comes in, so that a scrape costs nothing. Its start and end on a
//! machine are told as Events, and so is what was put right in place.

use std::collections::BTreeMap;

use fleetwright_api::{Machine, condition, drift::DriftKind, names::short_hash, time::k8s_time};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;

use crate::{cache::name_of, metrics::Metrics, queue::Key, reconcile::Shared};

/// Longest note of an Event, in characters.
const NOTE: usize = 1_000;
/// How long the same thing of a machine is not put right again: who puts it back each time must not be answered each time.
const PUT_RIGHT: SignedDuration = SignedDuration::from_mins(10);

/// What differs, by Machine and Cluster; those that are in sync are not in it.
#[derive(Default)]
pub(crate) struct Drifts {
    known: Mutex<BTreeMap<Key, Vec<DriftKind>>>,
    /// What was put right in place of late, in words, and until when it is not again.
    put_right: Mutex<BTreeMap<Key, (Vec<String>, Timestamp)>>,
}

impl Drifts {
    /// Takes in what differs of an object now.
    pub(crate) fn told(&self, metrics: &Metrics, key: Key, kinds: Vec<DriftKind>) {
        let mut known = self.known.lock();
        for kind in &kinds {
            metrics.drifted(*kind, 1);
        }
        let before = match kinds.is_empty() {
            true => known.remove(&key),
            false => known.insert(key, kinds),
        };
        for kind in before.into_iter().flatten() {
            metrics.drifted(kind, -1);
        }
    }

    /// When the same may be put right again, where that was done a short while ago.
    pub(crate) fn put_right_before(
        &self,
        machine: &Key,
        what: &[String],
        now: Timestamp,
    ) -> Option<Timestamp> {
        if what.is_empty() {
            return None;
        }
        let all = self.put_right.lock();
        let (before, until) = all.get(machine)?;
        let same = what.iter().all(|one| before.contains(one));
        (same && *until > now).then_some(*until)
    }

    /// Remembers what was put right of a machine.
    pub(crate) fn put_right(&self, machine: Key, what: Vec<String>, now: Timestamp) {
        let mut all = self.put_right.lock();
        all.retain(|_, (_, until)| *until > now);
        let until = now.checked_add(PUT_RIGHT).unwrap_or(Timestamp::MAX);
        all.insert(machine, (what, until));
    }
}

/// Tells by an Event that a machine began or ceased to differ, where `now` says something else than `before`.
pub(crate) async fn tell(
    shared: &Shared,
    machine: &Machine,
    before: &[condition::Condition],
    now: &[condition::Condition],
) {
    let of = |list| condition::get(list, condition::kind::IN_SYNC);
    match (of(before), of(now)) {
        (None, Some(new)) => {
            let reason = condition::reason::DRIFTED;
            write(shared, machine, ("Warning", reason), &new.message).await;
        }
        (Some(_), None) => {
            let note = "nothing differs any more";
            let reason = condition::reason::IN_SYNC;
            write(shared, machine, ("Normal", reason), note).await;
        }
        _ => {}
    }
}

/// Tells by an Event what was put right in place.
pub(crate) async fn tell_put_right(shared: &Shared, machine: &Machine, what: &[String]) {
    let note = format!("put right: {}", what.join("; "));
    write(shared, machine, ("Normal", "Corrected"), &note).await;
}

/// Writes an Event. One that cannot be written is lost.
async fn write(shared: &Shared, machine: &Machine, (kind, reason): (&str, &str), note: &str) {
    let (namespace, name) = name_of(machine);
    let uid = machine.uid().unwrap_or_default();
    let at = shared.now();
    let time = at.to_string();
    let hash = short_hash([uid.as_str(), reason, &time], 16);
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{hash}")),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some("Compare".into()),
        event_time: Some(MicroTime(k8s_time(at).0)),
        note: Some(note.chars().take(NOTE).collect()),
        reason: Some(reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(Machine::api_version(&()).into_owned()),
            kind: Some(Machine::kind(&()).into_owned()),
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("fleetwright.dev/machine".into()),
        reporting_instance: Some(shared.context.installation.clone()),
        type_: Some(kind.to_owned()),
        ..Event::default()
    };
    let events = Api::<Event>::namespaced(shared.context.client.clone(), &namespace);
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::warn!(%namespace, machine = %name, reason, %error, "an Event cannot be written");
    }
}
