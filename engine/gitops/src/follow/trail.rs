//! What a follower decides, for the audit trail.

use fleetwright_api::{
    decision::{Decision, Verdict},
    fleet::RevisionRef,
    meta::{ANNOTATION_ALLOW_DELETE, fleet_of},
    names::short_hash,
};
use fleetwright_core::plan::{Change, Live, Plan, Policy};
use kube::ResourceExt;

use super::Follower;
use crate::apply::Applied;

/// A plan, what it was made from, and what came of it.
pub(super) struct Done<'a> {
    pub(super) plan: &'a Plan,
    pub(super) policy: &'a Policy,
    pub(super) live: &'a Live,
    pub(super) applied: &'a Applied,
}

impl Follower {
    /// Writes down what was decided of the revision `at`, if it is more than the same again. `done` is there where it came to a plan.
    pub(super) fn decided(
        &mut self,
        at: Option<&RevisionRef>,
        verdict: Verdict,
        reason: &str,
        done: Option<&Done<'_>>,
    ) {
        let actions = done.map(actions).unwrap_or_default();
        if actions.is_empty() && verdict == Verdict::Applied {
            return;
        }
        let tree = at.and_then(|at| at.tree.clone()).unwrap_or_default();
        let revision = at.map(|at| at.revision.clone()).unwrap_or_default();
        // Looks come again and again, decisions do not.
        let generation = self.fleet.metadata.generation;
        let same = (verdict, generation, revision, reason.to_owned());
        if actions.is_empty() && self.decided.as_ref() == Some(&same) {
            return;
        }
        let (fleet, now) = (&self.fleet, self.context.clock.now());
        self.context.trail.write(|| {
            let (_, _, revision, reason) = &same;
            let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
            let mut decision = Decision::new(now, format!("Fleet {namespace}/{name}"), verdict)
                .because(reason)
                .doing(actions);
            if let Some(generation) = generation {
                decision = decision.from("generation", generation.to_string());
            }
            let texts = [("revision", revision.as_str()), ("tree", &tree)];
            for (input, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                decision = decision.from(input, text);
            }
            if let Some(done) = done {
                decision = decision
                    .from("plan", done.plan.digest(&tree, done.policy))
                    .from("policy", done.policy.digest())
                    .from("objects", objects(done.live));
            }
            decision
        });
        self.decided = Some(same);
    }
}

/// What was done of a plan, or may have been.
fn actions(done: &Done<'_>) -> Vec<String> {
    let (plan, applied) = (done.plan, done.applied);
    let named = |verb: &str, change: &Change| {
        let key = &change.key;
        let doubt = match applied.doubtful.contains(key) {
            true => ", without an answer",
            false => "",
        };
        let asked = applied.written.contains_key(key) || applied.deleted.contains(key);
        (asked || !doubt.is_empty()).then(|| format!("{verb} {key}{}{doubt}", more(change)))
    };
    let lists = [
        ("create", &plan.creates),
        ("change", &plan.changes),
        ("delete", &plan.deletes),
    ];
    let all = lists
        .iter()
        .flat_map(|(verb, list)| list.iter().map(move |change| (*verb, change)));
    all.filter_map(|(verb, change)| named(verb, change))
        .collect()
}

/// By whose consent, and from whom.
fn more(change: &Change) -> String {
    let annotation = |object: &serde_json::Value| {
        let annotations = object.pointer("/metadata/annotations")?;
        annotations
            .get(ANNOTATION_ALLOW_DELETE)?
            .as_str()
            .map(str::to_owned)
    };
    let gone = change.before.as_ref().filter(|_| change.after.is_none());
    if let Some(consent) = gone.and_then(annotation) {
        return format!(", with consent ({ANNOTATION_ALLOW_DELETE}: {consent})");
    }
    let names = change
        .adopted_from
        .iter()
        .filter_map(|manager| fleet_of(manager));
    let names: Vec<String> = names.map(|(ns, name)| format!("{ns}/{name}")).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(", taken over from Fleet {}", names.join(", ")),
    }
}

/// SHA-256 of which objects there were and at which resource versions.
fn objects(live: &Live) -> String {
    let text = |object: &'_ serde_json::Value, pointer: &str| {
        object
            .pointer(pointer)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let versions = live.objects.iter().flat_map(|object| {
        ["/metadata/uid", "/metadata/resourceVersion"].map(|pointer| text(object, pointer))
    });
    let versions: Vec<String> = versions.collect();
    short_hash(versions.iter().map(String::as_str), 64)
}
