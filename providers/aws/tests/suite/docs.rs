//! docs/providers/aws.md names everything that can be said.

use std::collections::BTreeSet;

use fleetwright_provider_aws::schemas;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../../docs/providers/aws.md");
const EKS_PAGE: &str = include_str!("../../../../docs/providers/aws-eks.md");

/// All field names of a schema, at any depth.
fn fields(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert!(field["description"].is_string(), "{name} is not described");
        names.insert(name.clone());
        fields(field, names);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], names);
    }
}

#[test]
fn the_pages_name_every_field() {
    let mut names = BTreeSet::new();
    for schema in schemas() {
        names.insert(schema.kind);
        fields(&schema.schema, &mut names);
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|n| {
            [PAGE, EKS_PAGE]
                .iter()
                .all(|page| !page.contains(&format!("`{n}`")))
        })
        .collect();
    assert!(names.len() > 40 && missing.is_empty(), "{missing:?}");
}

/// What the code calls is what the policy allows, and no more.
#[test]
fn the_policy_allows_what_is_called() {
    let sources = [
        include_str!("../../src/bootstrap.rs"),
        include_str!("../../src/endpoint.rs"),
        include_str!("../../src/images.rs"),
        include_str!("../../src/instance.rs"),
        include_str!("../../src/provider.rs"),
        include_str!("../../src/spot.rs"),
        include_str!("../../src/update.rs"),
    ];
    let mut called = BTreeSet::new();
    for source in sources {
        for verb in ["reads(\"", "writes(\""] {
            let rest = source.split(verb).skip(1);
            called.extend(rest.map(|r| r.split('"').next().unwrap().to_owned()));
        }
    }
    let policy = PAGE
        .split("```json")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let actions = statements.flat_map(|s| s["Action"].as_array().unwrap());
    let allowed: BTreeSet<String> = actions
        .map(|a| a.as_str().unwrap().split_once(':').unwrap().1.to_owned())
        // What a call needs beside the right to it.
        .filter(|a| {
            !["PassRole", "AddTagsToResource", "CreateServiceLinkedRole"].contains(&a.as_str())
        })
        .collect();
    assert!(called.len() > 20);
    assert_eq!(called, allowed);
    // Groups that an instance is given carry no tags of ours.
    let statements = policy["Statement"].as_array().unwrap();
    assert!(statements.iter().any(|s| {
        s["Action"] == json!(["ec2:ModifyInstanceAttribute"])
            && s["Resource"].as_str().unwrap().contains("security-group/")
            && s["Condition"].is_null()
    }));
}
