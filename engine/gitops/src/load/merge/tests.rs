use proptest::prelude::*;
use serde_json::{Map, Value, json};

use fleetwright_api::fleet::Allow;
use fleetwright_core::plan::schema_of;
use fleetwright_schema::{Schema, typed};

use super::*;
use crate::{
    load::{
        SourceFile,
        tests::{CLUSTER, run},
    },
    yaml,
};

fn with<T>(run: impl FnOnce(&mut Merger<'_, '_>) -> T) -> T {
    let settings = json!({"type": "object", "properties": {
        "disks": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        "zones": {"type": "array", "items": {"type": "string"}},
    }});
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|version, _| (version == "sim/v1").then_some(&settings),
        allow: &allow,
    };
    run(&mut Merger::new(&context))
}

fn schema() -> Schema {
    Schema::from_openapi(&json!({"type": "object", "properties": {
        "one": {"type": "string"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "list": {"type": "array", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "a": {"type": "integer"}, "b": {"type": "integer"}}}},
        "below": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
    }}))
    .unwrap()
}

fn node(value: &Value) -> Node {
    let text = serde_json::to_string(value).unwrap();
    yaml::parse(&text).unwrap().pop().unwrap_or_default()
}

#[test]
fn values_merge_as_an_apply_merges_them() {
    let schema = schema();
    for (what, under, over, merged) in [
        (
            "a scalar is replaced",
            json!({"one": "a"}),
            json!({"one": "b"}),
            json!({"one": "b"}),
        ),
        (
            "maps merge",
            json!({"map": {"a": 1, "b": 1}}),
            json!({"map": {"b": 2, "c": 2}}),
            json!({"map": {"a": 1, "b": 2, "c": 2}}),
        ),
        (
            "but not atomic ones",
            json!({"whole": {"a": 1}}),
            json!({"whole": {"b": 2}}),
            json!({"whole": {"b": 2}}),
        ),
        (
            "sets are united",
            json!({"set": ["a", "b"]}),
            json!({"set": ["b", "c"]}),
            json!({"set": ["a", "b", "c"]}),
        ),
        (
            "lists are replaced",
            json!({"list": ["a"]}),
            json!({"list": ["b"]}),
            json!({"list": ["b"]}),
        ),
        (
            "items merge by their keys",
            json!({"keyed": [{"name": "x", "a": 1}, {"name": "y"}]}),
            json!({"keyed": [{"name": "x", "b": 2}]}),
            json!({"keyed": [{"name": "x", "a": 1, "b": 2}, {"name": "y"}]}),
        ),
        (
            "null takes away",
            json!({"map": {"a": 1, "b": 1}, "set": ["a"], "one": "x"}),
            json!({"map": {"a": null}, "set": null}),
            json!({"map": {"b": 1}, "one": "x"}),
        ),
        (
            "also a field of an item",
            json!({"keyed": [{"name": "x", "a": 1, "b": 1}]}),
            json!({"keyed": [{"name": "x", "a": null}]}),
            json!({"keyed": [{"name": "x", "b": 1}]}),
        ),
        (
            "a value of another shape replaces",
            json!({"map": {"a": 1}}),
            json!({"map": "none"}),
            json!({"map": "none"}),
        ),
    ] {
        let mut got = with(|m| m.merge(schema.root(), node(&under), node(&over)));
        drop_nulls(schema.root(), &mut got);
        assert_eq!(got.to_value(), merged, "{what}");
    }
}

#[test]
fn settings_of_a_provider_merge_by_its_own_schema() {
    let pool = |config: Value| json!({"spec": {"template": {"spec": {"providerConfig": config}}}});
    let head = |more: Value| {
        let mut config = json!({"apiVersion": "sim/v1", "kind": "M"});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let disks =
        |names: &[&str]| json!(names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>());
    let schema = schema_of("MachineDeployment");
    for (under, over, merged) in [
        (
            head(json!({"disks": disks(&["a"]), "zones": ["a"], "tags": {"x": 1}})),
            json!({"disks": disks(&["b"]), "zones": ["b"], "tags": {"y": 2}}),
            head(json!({"disks": disks(&["a", "b"]), "zones": ["b"], "tags": {"x": 1, "y": 2}})),
        ),
        (
            head(json!({"size": 1})),
            json!({"apiVersion": "sim/v1", "kind": "Other", "big": true}),
            json!({"apiVersion": "sim/v1", "kind": "Other", "big": true}),
        ),
        (
            json!({"apiVersion": "unknown/v1", "kind": "M", "disks": disks(&["a"])}),
            json!({"disks": disks(&["b"])}),
            json!({"apiVersion": "unknown/v1", "kind": "M", "disks": disks(&["b"])}),
        ),
    ] {
        let (under, over) = (node(&pool(under)), node(&pool(over)));
        let got = with(|m| m.merge(schema.root(), under, over));
        assert_eq!(got.to_value(), pool(merged));
    }
}

/// Values that fit the schema above.
fn fitting() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let number = 0..3_i64;
    let map = prop::collection::btree_map(name.clone(), number.clone(), 0..3);
    let map = map.prop_map(|m| json!(m));
    let names = prop::collection::vec(name.clone(), 0..3);
    let set = prop::collection::btree_set(name.clone(), 0..3).prop_map(|s| json!(s));
    let item = (prop::option::of(number.clone()), prop::option::of(number));
    let item = item.prop_map(|(a, b)| json!({"a": a, "b": b}));
    let keyed = prop::collection::btree_map(name.clone(), item, 0..3).prop_map(|items| {
        let item = |(name, mut item): (&str, Value)| {
            item["name"] = name.into();
            item.as_object_mut().unwrap().retain(|_, v| !v.is_null());
            item
        };
        Value::Array(items.into_iter().map(item).collect())
    });
    let field = |value: BoxedStrategy<Value>| prop::option::of(value);
    (
        field(name.prop_map(Value::from).boxed()),
        field(map.clone().boxed()),
        field(map.boxed()),
        field(set.boxed()),
        field(names.prop_map(|n| json!(n)).boxed()),
        field(keyed.boxed()),
    )
        .prop_map(|(one, map, whole, set, list, keyed)| {
            let fields = [
                ("one", one),
                ("map", map),
                ("whole", whole),
                ("set", set),
                ("list", list),
                ("keyed", keyed),
            ];
            let there = fields
                .into_iter()
                .filter_map(|(k, v)| Some((k.to_owned(), v?)));
            Value::Object(there.collect::<Map<_, _>>())
        })
}

/// Lists that merge have an order that people read, and no meaning in it.
fn sorted(mut value: Value) -> Value {
    for field in ["set", "keyed"] {
        if let Some(Value::Array(items)) = value.get_mut(field) {
            items.sort_by_key(ToString::to_string);
        }
    }
    value
}

/// Any values at all, with the names of fields that mean something.
fn wild() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "bases",
        "base",
        "metadata",
        "spec",
        "template",
        "taints",
        "key",
        "effect",
        "providerConfig",
        "apiVersion",
        "kind",
        "labels",
        "status",
    ]);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(128))]

    /// The same as a server-side apply of one to the other.
    #[test]
    fn merges_are_those_of_an_apply(under in fitting(), over in fitting()) {
        let schema = schema();
        let got = with(|m| m.merge(schema.root(), node(&under), node(&over)));
        prop_assert_eq!(got.to_value(), typed::merge(schema.root(), &under, &over));
    }

    #[test]
    fn it_does_not_matter_which_are_merged_first(a in fitting(), b in fitting(), c in fitting()) {
        let schema = schema();
        let (first, last) = with(|m| {
            let [a, b, c] = [&a, &b, &c].map(node);
            let left = m.merge(schema.root(), a.clone(), b.clone());
            let left = m.merge(schema.root(), left, c.clone());
            let right = m.merge(schema.root(), b, c);
            (left.to_value(), m.merge(schema.root(), a, right).to_value())
        });
        prop_assert_eq!(sorted(first), sorted(last));
    }

    #[test]
    fn a_document_over_itself_is_itself(a in fitting(), other in wild()) {
        let schema = schema();
        let same = with(|m| m.merge(schema.root(), node(&a), node(&a)));
        prop_assert_eq!(same.to_value(), a);
        let kind = schema_of("MachineDeployment").root();
        let both = node(&other);
        let merged = with(|m| m.merge(kind, both.clone(), both));
        // What repeats an item of a list with keys is refused later; here it only must not break.
        prop_assert!(merged.count() <= 2 * node(&other).count());
    }

}

proptest! {
    // Each case loads files, more than once.
    #![proptest_config(cases(48))]

    /// However bases refer to each other, what counts is their order.
    #[test]
    fn any_way_to_write_an_order_of_bases_gives_the_same(specs in prop::collection::vec((0..4_i64, 0..4_i64), 3)) {
        let head = "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\n";
        let base = |at: usize, bases: &str| {
            let (replicas, history) = specs[at];
            let replicas = if replicas == 3 { "null".to_owned() } else { replicas.to_string() };
            format!("{head}base: true\nbases: [{bases}]\nspec: {{replicas: {replicas}, revisionHistoryLimit: {history}}}\n")
        };
        let own = |bases: &str| format!("{head}bases: [{bases}]\nmetadata: {{name: w}}\nspec: {{clusterName: alpha, template: {{spec: {{providerConfig: {{apiVersion: sim/v1, kind: M, account: a}}}}}}}}\n");
        let flat = [base(0, ""), base(1, ""), base(2, ""), own("b0.yaml, b1.yaml, b2.yaml")];
        let chain = [base(0, ""), base(1, "b0.yaml"), base(2, "b1.yaml"), own("b2.yaml")];
        let mixed = [base(0, ""), base(1, "b0.yaml"), base(2, "b0.yaml"), own("b1.yaml, b2.yaml")];
        let documents: Vec<Value> = [flat, chain, mixed].iter().map(|texts| {
            let names = ["b0.yaml", "b1.yaml", "b2.yaml", "web.yaml"];
            let files: Vec<(&str, &str)> = names.into_iter().zip(texts.iter().map(String::as_str)).chain([("a.yaml", CLUSTER)]).collect();
            let loaded = run(&files, Allow::default());
            assert_eq!(loaded.errors, []);
            loaded.objects[1].document.clone()
        }).collect();
        prop_assert_eq!(&documents[0], &documents[1]);
        prop_assert_eq!(&documents[0], &documents[2]);
    }

    /// Loading ends, whatever stands in bases and in what is built on them.
    #[test]
    fn nothing_written_in_bases_breaks_loading(base in wild(), own in wild(), text in "\\PC{0,200}") {
        let document = |value: &Value, bases: Value, mark: bool| {
            let mut document = json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": "w"}});
            let map = document.as_object_mut().unwrap();
            map.extend(value.as_object().cloned().unwrap_or_default());
            map.insert("kind".into(), "MachineDeployment".into());
            map.insert("apiVersion".into(), "fleetwright.dev/v1alpha1".into());
            if mark {
                map.insert("base".into(), true.into());
            }
            map.entry("bases").or_insert(bases);
            map.entry("spec").or_insert(value.clone());
            document.to_string().into_bytes()
        };
        let files = [
            ("b.yaml", document(&base, json!([]), true)),
            ("d.yaml", document(&own, json!(["b.yaml", text]), false)),
            ("t.yaml", text.clone().into_bytes()),
        ];
        let files = files.map(|(path, bytes)| SourceFile { path: path.into(), content: Ok(bytes) });
        let allow = Allow::default();
        let context = LoadContext { provider_schema: &|_, _| None, allow: &allow };
        let loaded = crate::load::load(&files, &context);
        prop_assert!(loaded.errors.iter().all(|e| !e.file.is_empty() && e.line >= 1 && e.column >= 1), "{:?}", loaded.errors);
    }
}
