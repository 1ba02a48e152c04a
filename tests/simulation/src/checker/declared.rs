//! At the end: every field that the repository says is what the live object has.

use fleetwright_api::meta;
use serde_json::Value;

use super::Checker;

/// Kinds of the repository, and their plurals.
const KINDS: [(&str, &str); 4] = [
    ("Cluster", "clusters"),
    ("MachineDeployment", "machinedeployments"),
    ("MachineHealthCheck", "machinehealthchecks"),
    ("MachineDrainRule", "machinedrainrules"),
];
/// What nobody else writes and no default fills in: what the repository does not say there is not there.
const WHOLE: [&str; 12] = [
    "/spec/disruption",
    "/spec/providerConfig",
    "/spec/remediation/maxInFlight",
    "/spec/rollout/after",
    "/spec/template/metadata",
    "/spec/template/spec/providerConfig",
    "/spec/template/spec/taints",
    "/spec/template/spec/version",
    "/spec/controlPlane/machines/rollout/after",
    "/spec/controlPlane/machines/template/metadata",
    "/spec/controlPlane/machines/template/spec/providerConfig",
    "/spec/controlPlane/machines/template/spec/taints",
];

impl Checker {
    /// What the repository says and the live objects have otherwise, or have though it does not say it.
    pub(super) fn declared_unconverged<'a>(
        &self,
        documents: impl Iterator<Item = &'a Value>,
        all: &mut Vec<String>,
    ) {
        let documents: Vec<&Value> = documents.collect();
        let of = |kind: &str, name: &str| {
            let mut same = documents.iter().copied();
            same.find(|d| d["kind"] == kind && d["metadata"]["name"] == name)
        };
        for (kind, plural) in KINDS {
            let live = self.live(plural);
            for document in documents.iter().filter(|d| d["kind"] == kind) {
                let name = document["metadata"]["name"].as_str().unwrap_or_default();
                let mut wanted = (*document).clone();
                // What somebody scaled stays so until a commit says something else than before.
                let declared = wanted["spec"]["replicas"].as_i64();
                if kind == "MachineDeployment" && self.scaled.get(name) == Some(&declared) {
                    wanted["spec"]["replicas"] = Value::Null;
                }
                let live = live.get(name).unwrap_or(&Value::Null);
                let mut fields = Vec::new();
                differing("", &wanted, live, &mut fields);
                let part = |of: &Value, at: &str| said(of.pointer(at).unwrap_or(&Value::Null));
                let more = |at: &&str| part(&wanted, at) != part(live, at);
                fields.extend(WHOLE.into_iter().filter(more).map(ToOwned::to_owned));
                if !fields.is_empty() {
                    let fields = fields.join(", ");
                    all.push(format!("{kind} {name} is not what is declared: {fields}"));
                }
            }
            for (name, object) in live {
                let ours = object["metadata"]["labels"][meta::LABEL_FLEET].is_string();
                if ours && of(kind, &name).is_none() {
                    all.push(format!("{kind} {name} is still there"));
                }
            }
        }
    }
}

/// Paths of what is said in `wanted` and is otherwise in `live`.
fn differing(at: &str, wanted: &Value, live: &Value, out: &mut Vec<String>) {
    match (wanted, live) {
        (Value::Null, _) => {}
        (Value::Object(fields), _) => {
            for (key, value) in fields {
                differing(&format!("{at}/{key}"), value, &live[key], out);
            }
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (n, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                differing(&format!("{at}/{n}"), wanted, live, out);
            }
        }
        _ if wanted == live => {}
        _ => out.push(format!("{at} ({wanted}, and it has {live})")),
    }
}

/// A value without what is empty: that says nothing.
pub(super) fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(k, v)| (k.clone(), said(v)));
            let fields: serde_json::Map<_, _> = fields.filter(|(_, v)| !v.is_null()).collect();
            match fields.is_empty() {
                true => Value::Null,
                false => Value::Object(fields),
            }
        }
        Value::Array(items) if items.is_empty() => Value::Null,
        other => other.clone(),
    }
}
