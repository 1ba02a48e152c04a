//! Field conflicts of a server-side apply that the API refused.

use std::collections::{BTreeMap, BTreeSet};

/// The fields of a refused apply that others hold, with who; empty when it was refused for another reason.
pub(super) fn held(error: &kube::Error) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let kube::Error::Api(status) = error else {
        return out;
    };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    for cause in causes.filter(|c| c.reason == "FieldManagerConflict") {
        // conflict with "NAME" using VERSION
        let manager = cause.message.split('"').nth(1).unwrap_or(&cause.message);
        out.entry(cause.field.clone())
            .or_default()
            .insert(manager.to_owned());
    }
    out
}
