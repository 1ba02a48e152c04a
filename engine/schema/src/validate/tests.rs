use super::*;
use serde_json::json;

const NOT_CHECKED_LINE: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// The schema of the recorded conformance kind `Gadget`, by hand, so that the crate builds alone.
fn gadget() -> Schema {
    Schema::from_openapi(&json!({"type":"object","required":["spec"],"properties":{
        "apiVersion":{"type":"string"},"kind":{"type":"string"},"metadata":{"type":"object"},
        "spec":{"type":"object","required":["template"],
            "x-kubernetes-validations":[{"rule":"self.replicas <= 50 || self.size == 'large'","message":"more than 50 replicas need size large"}],
            "properties":{
                "replicas":{"type":"integer","format":"int32","minimum":0,"maximum":100,"default":1},
                "size":{"type":"string","enum":["small","medium","large"],"default":"small"},
                "zone":{"type":"string","maxLength":12,"x-kubernetes-validations":[{"rule":"self == oldSelf","message":"zone is immutable"}]},
                "alias":{"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":10},
                "ratio":{"type":"number","minimum":0,"exclusiveMinimum":true},
                "enabled":{"type":"boolean","default":true},
                "surge":{"x-kubernetes-int-or-string":true},
                "tags":{"type":"array","x-kubernetes-list-type":"set","maxItems":4,"items":{"type":"string"}},
                "ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],
                    "items":{"type":"object","required":["name","port"],"properties":{"name":{"type":"string"},"port":{"type":"integer"},"protocol":{"type":"string","default":"TCP"}}}},
                "limits":{"type":"object","additionalProperties":{"type":"string"}},
                "note":{"type":"string","nullable":true},
                "template":{"type":"object","required":["image"],"properties":{"image":{"type":"string"}}}}},
        "status":{"type":"object","properties":{
            "replicas":{"type":"integer"},
            "conditions":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["type"],
                "items":{"type":"object","required":["type","status"],"properties":{"type":{"type":"string"},"status":{"type":"string","enum":["True","False","Unknown"]}}}}}}
    }}))
    .unwrap()
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn created(spec: Value) -> Vec<String> {
    let mut value = json!({"apiVersion":"conformance.example.com/v1","kind":"Gadget","metadata":{"name":"a"},"spec":spec});
    if value["spec"].is_null() {
        value.as_object_mut().unwrap().remove("spec");
    }
    let schema = gadget();
    crate::default::apply(&schema, &mut value);
    lines(&validate(&schema, &value, None))
}

#[test]
fn words_are_those_of_the_recorded_answers() {
    let image = json!({"image":"img:1"});
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (
            json!({"replicas":"x","template":image}),
            vec![
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
                NOT_CHECKED_LINE,
            ],
        ),
        (
            json!({"alias":"A","ratio":0,"replicas":-1,"size":"huge","template":image}),
            vec![
                "spec.alias: Invalid value: \"A\": spec.alias in body should be at least 2 chars long",
                "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0",
                "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
                "spec.size: Unsupported value: \"huge\": supported values: \"small\", \"medium\", \"large\"",
                NOT_CHECKED_LINE,
            ],
        ),
        (
            json!({"alias":"abcdefghijk","tags":["1","2","3","4","5"],"template":image}),
            vec![
                "spec.alias: Too long: may not be more than 10 bytes",
                "spec.tags: Too many: 5: must have at most 4 items",
                NOT_CHECKED_LINE,
            ],
        ),
        (Value::Null, vec!["spec: Required value", NOT_CHECKED_LINE]),
        (
            json!({}),
            vec!["spec.template: Required value", NOT_CHECKED_LINE],
        ),
        (
            json!({"surge":3,"template":null}),
            vec!["spec.template: Required value", NOT_CHECKED_LINE],
        ),
        (
            json!({"enabled":"yes","limits":{"cpu":1},"ports":[{"name":"p"}],"surge":true,"template":image}),
            vec![
                "spec.enabled: Invalid value: \"string\": spec.enabled in body must be of type boolean: \"string\"",
                "spec.limits.cpu: Invalid value: \"integer\": spec.limits.cpu in body must be of type string: \"integer\"",
                "spec.ports[0].port: Required value",
                "spec.surge: Invalid value: \"boolean\": spec.surge in body must be of type integer,string: \"boolean\"",
                NOT_CHECKED_LINE,
            ],
        ),
        (
            json!({"note":null,"ratio":1.5,"surge":"25%","template":image}),
            vec![],
        ),
        (
            json!({"tags":["x","x"],"template":image}),
            vec!["spec.tags[1]: Duplicate value: \"x\""],
        ),
        (
            json!({"ports":[{"name":"p","port":1},{"name":"p","port":2}],"template":image}),
            vec!["spec.ports[1]: Duplicate value: {\"name\":\"p\"}"],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(created(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_status_is_named_relative_to_itself() {
    let schema = gadget();
    let value =
        json!({"status":{"replicas":"many","conditions":[{"type":"Ready","status":"Maybe"}]}});
    assert_eq!(
        lines(&status_values(&schema, &value, None)),
        [
            "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\"",
            "status.replicas: Invalid value: \"string\": replicas in body must be of type integer: \"string\"",
        ]
    );
}

#[test]
fn rules_of_the_recorded_kind() {
    let schema = gadget();
    let object = |spec: Value| json!({"metadata":{"name":"a"},"spec":spec});
    let check = |spec: Value, old: Option<Value>| {
        lines(&validate(&schema, &object(spec), old.map(object).as_ref()))
    };
    let spec = |replicas: u32, size: &str, zone: &str| json!({"replicas":replicas,"size":size,"zone":zone,"template":{"image":"i"}});
    assert_eq!(
        check(json!({"template":{"image":"img:1"}}), None),
        [
            "spec: Invalid value: \"object\": no such key: replicas evaluating rule: more than 50 replicas need size large"
        ]
    );
    assert_eq!(
        check(spec(60, "small", "a"), None),
        ["spec: Invalid value: more than 50 replicas need size large"]
    );
    assert_eq!(check(spec(60, "large", "a"), None), Vec::<String>::new());
    assert_eq!(
        check(spec(1, "small", "b"), Some(spec(1, "small", "a"))),
        ["spec.zone: Invalid value: \"b\": zone is immutable"]
    );
}

/// One property `x` with a schema and a value; the errors.
fn property(schema: Value, value: Value) -> Vec<String> {
    let schema = Schema::from_openapi(&json!({"type":"object","properties":{"x":schema}})).unwrap();
    lines(&validate(&schema, &json!({ "x": value }), None))
}

#[test]
fn values_of_one_field() {
    let string = |extra: Value| {
        let mut s = json!({"type":"string"});
        s.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        s
    };
    let cases: Vec<(Value, Value, Vec<&str>)> = vec![
        (
            json!({"type":"integer"}),
            json!(1.5),
            vec![
                "x: Invalid value: \"number\": x in body must be of type integer: \"number\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in x",
            ],
        ),
        (json!({"type":"integer"}), json!(2.0), vec![]),
        (json!({"type":"number"}), json!(2), vec![]),
        (
            json!({"type":"integer","format":"int32"}),
            json!(true),
            vec!["x: Invalid value: \"\": x in body must be of type int32: \"\""],
        ),
        (
            json!({"type":"integer","format":"int32"}),
            json!(3_000_000_000_u64),
            vec![
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in x",
            ],
        ),
        (
            json!({"type":"string"}),
            Value::Null,
            vec!["x: Invalid value: \"null\": x in body must be of type string: \"null\""],
        ),
        (
            json!({"type":"string","nullable":true}),
            Value::Null,
            vec![],
        ),
        (
            string(json!({"pattern":"^a+$"})),
            json!("b"),
            vec!["x: Invalid value: \"b\": x in body should match '^a+$'"],
        ),
        (
            string(json!({"format":"date-time"})),
            json!("today"),
            vec!["x: Invalid value: \"today\": x in body must be of type date-time: \"today\""],
        ),
        (
            string(json!({"format":"date-time"})),
            json!("2026-11-24T01:02:03.5Z"),
            vec![],
        ),
        (
            string(json!({"format":"date-time"})),
            json!("2026-11-24T01:02:03+02:00"),
            vec![],
        ),
        (
            string(json!({"format":"date-time"})),
            json!(5),
            vec!["x: Invalid value: \"int64\": x in body must be of type date-time: \"int64\""],
        ),
        (string(json!({"format":"byte"})), json!("aGk="), vec![]),
        (
            string(json!({"format":"byte"})),
            json!("a-"),
            vec!["x: Invalid value: \"a-\": x in body must be of type byte: \"a-\""],
        ),
        (
            string(json!({"format":"cidr"})),
            json!("10.0.0.0/8"),
            vec![],
        ),
        (
            string(json!({"format":"cidr"})),
            json!("10.0.0.0/33"),
            vec![
                "x: Invalid value: \"10.0.0.0/33\": x in body must be of type cidr: \"10.0.0.0/33\"",
            ],
        ),
        (
            string(json!({"format":"ipv4"})),
            json!("1.2.3"),
            vec!["x: Invalid value: \"1.2.3\": x in body must be of type ipv4: \"1.2.3\""],
        ),
        (string(json!({"format":"duration"})), json!("1h30m"), vec![]),
        (
            string(json!({"format":"of-no-meaning"})),
            json!("?"),
            vec![],
        ),
        (
            json!({"type":"integer","maximum":10}),
            json!(11),
            vec!["x: Invalid value: 11: x in body should be less than or equal to 10"],
        ),
        (
            json!({"type":"integer","maximum":1_000_000}),
            json!(2_000_000),
            vec!["x: Invalid value: 2000000: x in body should be less than or equal to 1000000"],
        ),
        (
            json!({"type":"number","maximum":1_000_000}),
            json!(1_500_000.5),
            vec![
                "x: Invalid value: 1.5000005e+06: x in body should be less than or equal to 1e+06",
            ],
        ),
        (
            json!({"type":"integer","multipleOf":3}),
            json!(4),
            vec!["x: Invalid value: 4: x in body should be a multiple of 3"],
        ),
        (
            json!({"type":"number","multipleOf":0.1}),
            json!(0.3),
            vec![],
        ),
        (
            json!({"type":"array","items":{"type":"integer"},"minItems":2}),
            json!([1]),
            vec!["x: Invalid value: 1: x in body should have at least 2 items"],
        ),
        (
            json!({"type":"array","items":{"type":"integer"}}),
            json!([1, "b"]),
            vec![
                "x[1]: Invalid value: \"string\": x[1] in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"type":"object","additionalProperties":{"type":"integer"},"minProperties":1}),
            json!({}),
            vec!["x: Invalid value: 0: x in body should have at least 1 properties"],
        ),
        (
            json!({"type":"object","additionalProperties":{"type":"integer"},"maxProperties":1}),
            json!({"a":1,"b":2}),
            vec!["x: Too many: 2: must have at most 1 items"],
        ),
        (
            json!({"type":"integer","enum":[1,2]}),
            json!(3),
            vec!["x: Unsupported value: 3: supported values: \"1\", \"2\""],
        ),
        (
            json!({"type":"integer","anyOf":[{"minimum":5},{"maximum":1}]}),
            json!(3),
            vec![
                "<nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)",
                "x: Invalid value: 3: x in body should be greater than or equal to 5",
            ],
        ),
        (
            json!({"type":"integer","oneOf":[{"minimum":5},{"minimum":6}]}),
            json!(7),
            vec![
                "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"type":"integer","allOf":[{"minimum":5},{"maximum":9}]}),
            json!(3),
            vec![
                "x: Invalid value: 3: x in body should be greater than or equal to 5",
                "<nil>: Invalid value: \"\": \"x\" must validate all the schemas (allOf)",
            ],
        ),
        (
            json!({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"not":{"required":["a","b"]}}),
            json!({"a":"","b":""}),
            vec!["<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)"],
        ),
        (
            json!({"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}),
            json!({"kind":""}),
            vec![
                "x.apiVersion: Required value",
                "x.kind: Invalid value: \"\": must not be empty",
            ],
        ),
        (
            json!({"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["a","b"],"items":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}}}}),
            json!([{"a":"1","b":"1"},{"a":"1","b":"2"},{"b":"1","a":"1"},{"b":"1","a":"1"}]),
            vec!["x[2]: Duplicate value: {\"a\":\"1\",\"b\":\"1\"}"],
        ),
    ];
    for (schema, value, expected) in cases {
        assert_eq!(
            property(schema.clone(), value.clone()),
            expected,
            "{schema} {value}"
        );
    }
}

#[test]
fn what_is_wrong_but_unchanged_is_let_through_on_an_update() {
    let schema = gadget();
    let object = |alias: &str, tag: &str| {
        json!({"spec":{"replicas":1,"size":"small","alias":alias,"template":{"image":"i"},
            "ports":[{"name":tag,"port":"http"},{"name":"z","port":1}]}})
    };
    let old = object("TOO-LONG-AND-WRONG", "a");
    assert_eq!(validate(&schema, &old, Some(&old)), []);
    let mut moved = old.clone();
    moved["spec"]["ports"].as_array_mut().unwrap().reverse();
    moved["spec"]["size"] = json!("medium");
    assert_eq!(validate(&schema, &moved, Some(&old)), []);
    let changed = object("ALSO WRONG", "b");
    assert_eq!(
        lines(&validate(&schema, &changed, Some(&old))),
        [
            "spec.alias: Invalid value: \"ALSO WRONG\": spec.alias in body should match '^[a-z]+$'",
            "spec.ports[0].port: Invalid value: \"string\": spec.ports[0].port in body must be of type integer: \"string\"",
            NOT_CHECKED_LINE,
        ]
    );
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zé0-9\"%]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("name"),
            Just("port"),
            Just("type"),
            Just("image"),
            Just("cpu"),
            Just("x"),
            Just("status")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn no_value_breaks_validation(
        fields in proptest::collection::btree_map(
            proptest::sample::select(vec!["replicas","size","zone","alias","ratio","enabled","surge","tags","ports","limits","note","template"]),
            any_json(),
            0..6,
        ),
        old in any_json(),
        status in any_json(),
    ) {
        let schema = gadget();
        let spec: serde_json::Map<String, Value> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let value = json!({"spec": spec, "status": status});
        let errors = validate(&schema, &value, Some(&json!({"spec": old})));
        // An update that changes nothing is let through, but for rules that cannot be evaluated at all.
        let again = validate(&schema, &value, Some(&value));
        proptest::prop_assert!(again.iter().all(|e| e.message.contains(" rule: ")), "{again:?} {errors:?}");
        drop(status_values(&schema, &value, None));
    }
}
