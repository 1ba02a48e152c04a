//! docs/simulated-cloud.md names everything that can be said to the cloud.

use std::collections::BTreeSet;

use fleetwright_provider_sim::{Entry, Fault, FaultEffect, Latency, config, faults, quota};
use serde_json::{Value, json};

pub(crate) const PAGE: &str = include_str!("../../../../docs/simulated-cloud.md");

/// All field names of a schema, at any depth.
fn fields(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        names.insert(name.clone());
        fields(field, names);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], names);
    }
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_page_names_every_field() {
    let mut names = BTreeSet::new();
    for schema in config::schemas() {
        names.insert(schema.kind);
        fields(&schema.schema, &mut names);
    }
    names.extend(config::INSTANCE_TYPES.iter().map(|t| t.name.to_owned()));
    names.extend(quota::QUOTAS.iter().map(|q| q.0.to_owned()));
    names.extend(faults::VERBS.iter().map(|v| (*v).to_owned()));
    names.extend(keys(&serde_json::to_value(Entry::default()).unwrap()));
    names.extend(keys(&serde_json::to_value(Latency::default()).unwrap()));
    for effect in [
        FaultEffect::RequestLost,
        FaultEffect::AnswerLost,
        FaultEffect::Throttled,
        FaultEffect::NoCapacity,
        FaultEffect::NeverJoins,
        FaultEffect::Stale,
    ] {
        let fault: Fault = serde_json::from_value(json!({"effect": effect})).unwrap();
        names.extend(keys(&serde_json::to_value(&fault).unwrap()));
        names.insert(json!(effect).as_str().unwrap().to_owned());
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|n| !PAGE.contains(&format!("`{n}`")))
        .collect();
    assert!(names.len() > 40 && missing.is_empty(), "{missing:?}");
}

#[test]
fn the_page_tells_the_types_as_they_are() {
    for kind in config::INSTANCE_TYPES {
        let row = format!("| `{}` | {} | {} |", kind.name, kind.cpus, kind.memory_gib);
        assert!(PAGE.contains(&row), "{row}");
    }
}
