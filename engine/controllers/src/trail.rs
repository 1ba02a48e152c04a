//! What controllers decide of machines and sets, for the audit trail.

use fleetwright_api::{
    decision::{Decision, Verdict},
    meta::ANNOTATION_REVISION,
    names::short_hash,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::reconcile::Shared;

/// What one reconcile does; written down as one decision when it ends, also where it is cut short.
pub(crate) struct Deeds<'a> {
    shared: &'a Shared,
    by: String,
    /// The revision that this one is of.
    revision: Option<String>,
    seen: String,
    actions: Vec<String>,
}

impl<'a> Deeds<'a> {
    /// Nothing done yet by an object of `kind`; `declared` is that one of Git's that it is there for.
    pub(crate) fn of(
        shared: &'a Shared,
        kind: &str,
        meta: &ObjectMeta,
        declared: Option<&ObjectMeta>,
    ) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let annotations = declared.and_then(|meta| meta.annotations.as_ref());
        Self {
            shared,
            by: format!("{kind} {}/{}", text(&meta.namespace), text(&meta.name)),
            revision: annotations.and_then(|all| all.get(ANNOTATION_REVISION).cloned()),
            seen: String::new(),
            actions: Vec::new(),
        }
    }

    /// Notes what is done; `seen` are the objects that were looked at, asked for once.
    pub(crate) fn did<'m, I>(&mut self, action: String, seen: impl FnOnce() -> I)
    where
        I: IntoIterator<Item = &'m ObjectMeta>,
    {
        if self.actions.is_empty() {
            self.seen = digest(seen());
        }
        self.actions.push(action);
    }
}

impl Drop for Deeds<'_> {
    fn drop(&mut self) {
        if self.actions.is_empty() {
            return;
        }
        let actions = std::mem::take(&mut self.actions);
        self.shared.context.trail.write(|| {
            let decision = Decision::new(self.shared.now(), self.by.clone(), Verdict::Applied)
                .doing(actions)
                .from("objects", self.seen.clone());
            match self.revision.take() {
                Some(revision) => decision.from("revision", revision),
                None => decision,
            }
        });
    }
}

/// SHA-256 of which objects there were and at which resource versions, whatever their order.
fn digest<'m>(objects: impl IntoIterator<Item = &'m ObjectMeta>) -> String {
    let version = |meta: &'m ObjectMeta| {
        let text = |text: &'m Option<String>| text.as_deref().unwrap_or_default();
        [text(&meta.uid), text(&meta.resource_version)]
    };
    let mut versions: Vec<[&str; 2]> = objects.into_iter().map(version).collect();
    versions.sort_unstable();
    short_hash(versions.into_iter().flatten(), 64)
}
