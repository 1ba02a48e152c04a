//! What a difference between two contents does to running machines: one table for plan and controllers.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    catalogue::{Catalogue, Effect},
    content::Content,
};

/// Fields outside `providerConfig` and what their change does. Kept sorted.
pub const FIELDS: &[(&str, Effect)] = &[
    ("deletion", Effect::InPlace),
    ("failureDomain", Effect::Replace),
    ("minReadySeconds", Effect::InPlace),
    ("readinessGates", Effect::InPlace),
    ("taints", Effect::InPlace),
    ("version", Effect::Replace),
];

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Where, from the template: `spec.version`, `metadata.labels.team`, `spec.providerConfig.image`.
    pub path: String,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// A value as people read it.
fn text(value: &Option<Value>) -> String {
    match value {
        None => "(unset)".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
    }
}

impl FieldChange {
    /// The change as part of a sentence: `providerConfig.image changed from a to b`.
    pub fn clause(&self) -> String {
        let path = self.path.strip_prefix("spec.").unwrap_or(&self.path);
        let (from, to) = (text(&self.from), text(&self.to));
        format!("{path} changed from {from} to {to}")
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (text(&self.from), text(&self.to));
        write!(f, "{}: {from} -> {to}", self.path)
    }
}

/// All fields that differ, by effect.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Difference {
    /// Changes that replace machines.
    pub replace: Vec<FieldChange>,
    /// Changes that reach running machines.
    pub in_place: Vec<FieldChange>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.replace.is_empty() && self.in_place.is_empty()
    }

    fn add(&mut self, effect: Effect, path: String, from: Option<&Value>, to: Option<&Value>) {
        let change = FieldChange {
            path,
            from: from.cloned(),
            to: to.cloned(),
        };
        match effect {
            Effect::Replace => self.replace.push(change),
            Effect::InPlace => self.in_place.push(change),
            Effect::None => {}
        }
    }
}

/// Compares what is wanted with what is there. A field of `providerConfig` counts as equal when it is written
/// the same or has the same effective value, so that a new default of a provider replaces nothing and neither
/// does writing a default out. Defaults that are written out elsewhere (a missing `minReadySeconds`) are not
/// known here: such a difference is at most in place.
pub fn compare(want: &Content, have: &Content, catalogue: &Catalogue) -> Difference {
    let mut out = Difference::default();
    strings(
        "labels",
        &want.metadata.labels,
        &have.metadata.labels,
        &mut out,
    );
    strings(
        "annotations",
        &want.metadata.annotations,
        &have.metadata.annotations,
        &mut out,
    );
    // Most often nothing differs: that costs no comparison field by field.
    if want.spec == have.spec {
        return out;
    }
    let (wanted, there) = (fields(want), fields(have));
    for (name, effect) in FIELDS {
        let (to, from) = (wanted.get(*name), there.get(*name));
        let same = to == from
            || (*name == "version" && want.version().is_some() && want.version() == have.version());
        if !same {
            out.add(*effect, format!("spec.{name}"), from, to);
        }
    }
    let config = &want.spec.provider_config;
    let old = &have.spec.provider_config;
    if (config.api_version(), config.kind()) == (old.api_version(), old.kind()) {
        Configs {
            want,
            have,
            catalogue,
        }
        .walk(
            Some(want.spec.provider_config.settings()),
            Some(have.spec.provider_config.settings()),
            &mut Vec::new(),
            &mut out,
        );
    } else {
        out.add(
            Effect::Replace,
            "spec.providerConfig".to_owned(),
            Some(&old.to_value()),
            Some(&config.to_value()),
        );
    }
    out
}

fn strings(
    what: &str,
    want: &BTreeMap<String, String>,
    have: &BTreeMap<String, String>,
    out: &mut Difference,
) {
    let mut keys: Vec<&String> = want.keys().chain(have.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        if key.starts_with("fleetwright.dev/") || want.get(key) == have.get(key) {
            continue;
        }
        let value = |m: &BTreeMap<String, String>| m.get(key).cloned().map(Value::String);
        out.in_place.push(FieldChange {
            path: format!("metadata.{what}.{key}"),
            from: value(have),
            to: value(want),
        });
    }
}

/// The fields of [`FIELDS`], as values; empty lists and objects count as absent.
fn fields(content: &Content) -> Map<String, Value> {
    let mut map = match serde_json::to_value(&content.spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.retain(|k, v| {
        k != "providerConfig"
            && !v.is_null()
            && !v.as_object().is_some_and(Map::is_empty)
            && !v.as_array().is_some_and(Vec::is_empty)
    });
    map
}

struct Configs<'a> {
    want: &'a Content,
    have: &'a Content,
    catalogue: &'a Catalogue,
}

impl<'a> Configs<'a> {
    fn walk(
        &self,
        want: Option<&'a Map<String, Value>>,
        have: Option<&'a Map<String, Value>>,
        path: &mut Vec<&'a str>,
        out: &mut Difference,
    ) {
        let mut keys: Vec<&'a String> = [want, have]
            .into_iter()
            .flatten()
            .flat_map(Map::keys)
            .collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            path.push(key);
            let (to, from) = (want.and_then(|m| m.get(key)), have.and_then(|m| m.get(key)));
            match (to, from) {
                _ if to == from => {}
                (Some(Value::Object(w)), Some(Value::Object(h))) => {
                    self.walk(Some(w), Some(h), path, out);
                }
                #[cfg(feature = "seeded-bugs")]
                _ if fleetwright_api::bugs::on("i12-defaults-roll") => {
                    self.differ(path, from, to, out);
                }
                _ if at(self.want.written.settings(), path)
                    == at(self.have.written.settings(), path) => {}
                _ => self.differ(path, from, to, out),
            }
            path.pop();
        }
    }

    fn differ(
        &self,
        path: &[&str],
        from: Option<&Value>,
        to: Option<&Value>,
        out: &mut Difference,
    ) {
        let config = &self.want.spec.provider_config;
        let effect = self
            .catalogue
            .change_of(config.api_version(), config.kind(), path);
        let field = format!("spec.providerConfig.{}", path.join("."));
        out.add(effect, field, from, to);
    }
}

fn at<'a>(map: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(map.get(*first)?, |node, part| node.get(part))
}
