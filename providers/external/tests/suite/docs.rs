//! docs/providers/external.md names everything that can be said.

use std::collections::BTreeSet;

use fleetwright_provider_external::schemas;
use serde_json::Value;

const PAGE: &str = include_str!("../../../../docs/providers/external.md");

/// All field names of a schema, at any depth.
fn fields(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert!(field["description"].is_string(), "{name} is not described");
        names.insert(name.clone());
        fields(field, names);
    }
}

#[test]
fn the_page_names_every_field() {
    let mut names = BTreeSet::new();
    for schema in schemas() {
        names.insert(schema.kind);
        fields(&schema.schema, &mut names);
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|n| !PAGE.contains(&format!("`{n}`")))
        .collect();
    assert!(names.len() > 10 && missing.is_empty(), "{missing:?}");
}
