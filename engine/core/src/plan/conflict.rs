//! Fields that others hold, as the API names them (`.spec.taints[key="a"].value`): which are taken from them, and where
//! they stand in documents.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    fleet::{DriftAction, DriftPolicy, DriftRule},
    meta::{ANNOTATION_REVISION, LABEL_FLEET, MANAGER_HANDOVER},
};
use fleetwright_schema::managed;
use jiff::Timestamp;
use serde_json::Value;

use super::Key;

/// What a Fleet may take from other managers.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    /// The policy.
    pub drift: &'a DriftPolicy,
    /// The documents that it declared before; `None` when they are not known: then no change is seen.
    pub previous: Option<&'a BTreeMap<Key, Value>>,
}

impl Taking<'_> {
    /// What is done about `field`, which the `managers` hold. It is taken from them (`Correct`) where only the handover does,
    /// the field is a mark of the inventory or this revision changed it; else the policy says.
    #[must_use]
    pub fn action(
        &self,
        key: &Key,
        document: &Value,
        field: &str,
        managers: &BTreeSet<String>,
    ) -> DriftAction {
        let mark = field.ends_with(ANNOTATION_REVISION) || field.ends_with(LABEL_FLEET);
        let changed = |previous: &BTreeMap<Key, Value>| {
            let before = previous.get(key).and_then(|old| value(old, field));
            before != value(document, field)
        };
        let others = || managers.iter().filter(|m| *m != MANAGER_HANDOVER);
        if mark || others().next().is_none() || self.previous.is_some_and(changed) {
            return DriftAction::Correct;
        }
        let fits = |rule: &&DriftRule| {
            let kind = rule.kinds.is_empty() || rule.kinds.contains(&key.kind);
            let holders = rule.managers.is_empty() || others().all(|m| rule.managers.contains(m));
            let mut paths = rule.paths.iter();
            let path = rule.paths.is_empty() || paths.any(|path| covers(document, path, field));
            kind && holders && path
        };
        let rule = self.drift.rules.iter().find(fits);
        rule.map_or_else(|| self.drift.policy.unwrap_or_default(), |r| r.policy)
    }
}

/// Whether `field` is what a rule's `path` names, or below it.
fn covers(document: &Value, path: &str, field: &str) -> bool {
    let path = format!(".{}", path.trim_start_matches('.'));
    match (steps(document, &path), steps(document, field)) {
        (Some(path), Some(field)) => field.starts_with(&path),
        _ => false,
    }
}

#[derive(PartialEq)]
enum Step {
    Key(String),
    Item(usize),
}

/// Finds a field, as the API writes its path (`.spec.taints[key="a"].value`), in a document. Keys may hold
/// dots: the longest key of the document that fits is taken.
fn steps(document: &Value, field: &str) -> Option<Vec<Step>> {
    let mut out = Vec::new();
    let (mut at, mut rest) = (document, field);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let map = at.as_object()?;
            let ends = |tail: &str| tail.is_empty() || tail.starts_with(['.', '[']);
            let key = map
                .keys()
                .filter(|k| after.strip_prefix(k.as_str()).is_some_and(ends))
                .max_by_key(|k| k.len())?;
            at = map.get(key)?;
            rest = after.strip_prefix(key.as_str())?;
            out.push(Step::Key(key.clone()));
        } else {
            let after = rest.strip_prefix('[')?;
            let end = closing(after)?;
            let (inner, tail) = (&after[..end], &after[end + 1..]);
            let items = at.as_array()?;
            let index = items.iter().position(|item| fits(item, inner))?;
            at = items.get(index)?;
            rest = tail;
            out.push(Step::Item(index));
        }
    }
    Some(out)
}

/// Where the bracket closes, quoted texts passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether a list item is the one of `key="value",…`, or equals the value `="value"`.
fn fits(item: &Value, inner: &str) -> bool {
    if let Some(value) = inner.strip_prefix('=') {
        return serde_json::from_str::<Value>(value).is_ok_and(|v| v == *item);
    }
    let mut rest = inner;
    while let Some((key, after)) = rest.split_once('=') {
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            return false;
        };
        if item.get(key) != Some(&value) {
            return false;
        }
        rest = after
            .get(values.byte_offset()..)
            .unwrap_or_default()
            .trim_start_matches(',');
    }
    true
}

/// The value at `field`.
#[must_use]
pub fn value<'a>(document: &'a Value, field: &str) -> Option<&'a Value> {
    steps(document, field)?
        .iter()
        .try_fold(document, |at, step| match step {
            Step::Key(key) => at.get(key),
            Step::Item(index) => at.get(index),
        })
}

/// When one of the `managers` last wrote an entry of theirs that holds `field`.
#[must_use]
pub(super) fn written(live: &Value, field: &str, managers: &BTreeSet<String>) -> Option<Timestamp> {
    let held = managed::held(live, |manager| managers.contains(manager));
    let holding = held.iter();
    let holding = holding.filter(|h| h.fields.paths().iter().any(|path| path == field));
    holding.filter_map(|h| h.time.as_ref()?.parse().ok()).max()
}

/// Takes `field` out, with what became empty by that.
pub fn remove(document: &mut Value, field: &str) {
    if let Some(steps) = steps(document, field) {
        take(document, &steps);
    }
}

fn take(at: &mut Value, steps: &[Step]) {
    let Some((first, rest)) = steps.split_first() else {
        return;
    };
    match (first, at) {
        (Step::Key(key), Value::Object(map)) => {
            let mut gone = rest.is_empty();
            if let Some(child) = map.get_mut(key).filter(|_| !gone) {
                take(child, rest);
                gone = child.as_object().is_some_and(serde_json::Map::is_empty);
            }
            if gone {
                map.remove(key);
            }
        }
        (Step::Item(index), Value::Array(items)) if *index < items.len() => {
            if rest.is_empty() {
                items.remove(*index);
            } else {
                take(&mut items[*index], rest);
            }
        }
        _ => {}
    }
}

/// Whether the plan's path lies at or below `field`, or `field` below it.
#[must_use]
pub(super) fn is_below(path: &[String], field: &str) -> bool {
    let path = format!(".{}", path.join("."));
    let within = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '[']))
    };
    within(field, &path) || (field.contains('[') && within(&path, field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_with_dots_in_keys_and_items_by_their_keys() {
        let document = json!({
            "metadata": {"annotations": {"a.dev/x": "1", "a": "2"}},
            "spec": {"replicas": 3, "taints": [{"key": "a", "effect": "NoSchedule", "value": "v"}, {"key": "b]\"", "effect": "x"}], "set": ["p", "q"]},
        });
        let cases = [
            (".spec.replicas", json!(3)),
            (".metadata.annotations.a.dev/x", json!("1")),
            (".metadata.annotations.a", json!("2")),
            (
                ".spec.taints[key=\"a\",effect=\"NoSchedule\"].value",
                json!("v"),
            ),
            (".spec.taints[key=\"b]\\\"\"].effect", json!("x")),
            (".spec.set[=\"q\"]", json!("q")),
        ];
        for (field, wanted) in cases {
            assert_eq!(value(&document, field), Some(&wanted), "{field}");
            let mut without = document.clone();
            remove(&mut without, field);
            assert_eq!(value(&without, field), None, "{field}");
        }
        for field in [
            ".spec.nothing",
            ".spec.taints[key=\"z\"]",
            "[",
            ".spec[",
            ".spec.set[key",
        ] {
            assert_eq!(value(&document, field), None, "{field}");
        }
        let mut document = json!({"spec": {"strategy": {"type": "x"}, "a": 1}});
        remove(&mut document, ".spec.strategy.type");
        assert_eq!(document, json!({"spec": {"a": 1}}));
    }

    #[test]
    fn the_first_rule_that_fits_a_field_counts() {
        use DriftAction::{Correct, Ignore, Report};
        let document = json!({
            "kind": "MachineDeployment",
            "metadata": {"name": "web", "labels": {"app": "x", "app.kubernetes.io/name": "y"}},
            "spec": {"replicas": 3, "taints": [{"key": "a", "value": "v"}]},
        });
        let rule = |kinds: &[&str], paths: &[&str], managers: &[&str], policy| {
            let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
            DriftRule {
                kinds: texts(kinds),
                paths: texts(paths),
                managers: texts(managers),
                policy,
            }
        };
        // (rules, policy, field, managers, what is done)
        let rows = [
            (vec![], None, ".spec.replicas", vec!["kubectl"], Report),
            (
                vec![],
                Some(Correct),
                ".spec.replicas",
                vec!["kubectl"],
                Correct,
            ),
            (
                vec![rule(&[], &["spec.replicas"], &[], Ignore)],
                Some(Correct),
                ".spec.replicas",
                vec!["kubectl"],
                Ignore,
            ),
            (
                vec![rule(&["Cluster"], &[], &[], Ignore)],
                None,
                ".spec.replicas",
                vec!["kubectl"],
                Report,
            ),
            (
                vec![
                    rule(&["MachineDeployment"], &["metadata.labels"], &[], Correct),
                    rule(&[], &["metadata"], &[], Ignore),
                ],
                None,
                ".metadata.labels.app",
                vec!["kubectl"],
                Correct,
            ),
            // A dot in a key is no step.
            (
                vec![rule(&[], &["metadata.labels.app"], &[], Ignore)],
                None,
                ".metadata.labels.app.kubernetes.io/name",
                vec!["kubectl"],
                Report,
            ),
            (
                vec![rule(&[], &[".spec.taints"], &[], Ignore)],
                None,
                ".spec.taints[key=\"a\"].value",
                vec!["kubectl"],
                Ignore,
            ),
            // All that hold it must be named; the handover is nobody.
            (
                vec![rule(&[], &[], &["scaler"], Ignore)],
                None,
                ".spec.replicas",
                vec!["scaler", MANAGER_HANDOVER],
                Ignore,
            ),
            (
                vec![rule(&[], &[], &["scaler"], Ignore)],
                None,
                ".spec.replicas",
                vec!["kubectl", "scaler"],
                Report,
            ),
            (
                vec![rule(&[], &[], &[], Ignore)],
                None,
                ".spec.replicas",
                vec![MANAGER_HANDOVER],
                Correct,
            ),
            (
                vec![rule(&[], &[], &[], Ignore)],
                None,
                ".metadata.labels.fleetwright.dev/fleet",
                vec!["kubectl"],
                Correct,
            ),
        ];
        let key = Key::of(&document);
        for (rules, policy, field, managers, wanted) in rows {
            let drift = DriftPolicy { policy, rules };
            let managers = managers.into_iter().map(str::to_owned).collect();
            let mut taking = Taking {
                drift: &drift,
                previous: None,
            };
            let action = taking.action(&key, &document, field, &managers);
            assert_eq!(action, wanted, "{field} {drift:?}");
            // What a commit changes is somebody's newer word, whatever the rules say.
            let before = BTreeMap::new();
            taking.previous = Some(&before);
            let action = taking.action(&key, &document, field, &managers);
            let declared = value(&document, field).is_some();
            assert_eq!(action, if declared { Correct } else { wanted }, "{field}");
        }
    }

    #[test]
    fn a_plan_path_is_matched_with_the_api_path() {
        let path = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_below(&path("spec replicas"), ".spec.replicas"));
        assert!(is_below(&path("spec strategy type"), ".spec.strategy"));
        assert!(is_below(
            &path("spec taints"),
            ".spec.taints[key=\"a\"].value"
        ));
        assert!(!is_below(&path("spec replicas"), ".spec.replicasX"));
        assert!(!is_below(&path("spec"), ".spec.replicas"));
    }
}
