use super::*;
use crate::structural::Schema;
use crate::validate::validate;
use serde_json::json;
use std::time::{Duration, Instant};

fn lines(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Schema::from_openapi(schema).unwrap_or_else(|e| panic!("{e:?}"));
    validate(&schema, value, old)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A field `x` of this schema with one rule, and the errors of a value in it.
fn field(schema: &Value, rule: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let mut x = schema.clone();
    x["x-kubernetes-validations"] = json!([rule]);
    let schema = json!({"type":"object","properties":{"x":x}});
    lines(
        &schema,
        &json!({ "x": value }),
        old.map(|o| json!({ "x": o })).as_ref(),
    )
}

#[test]
fn values_seen_by_rules() {
    let any = json!({"type":"object","properties":{
        "i":{"type":"integer"},"n":{"type":"number"},"s":{"type":"string"},"t":{"type":"string","format":"date-time"},
        "d":{"type":"string","format":"duration"},"b":{"type":"string","format":"byte"},"e":{"type":"string"},"f":{"type":"string"},
        "ios":{"x-kubernetes-int-or-string":true},"l":{"type":"array","items":{"type":"string"}},
        "o":{"type":"array","items":{"type":"object","properties":{"k":{"type":"string"},"v":{"type":"integer"}}}},
        "m":{"type":"object","additionalProperties":{"type":"integer"}},"namespace":{"type":"string"},"a-b":{"type":"string"},"c__d":{"type":"string"},
        "q":{"type":"string"},"z":{"type":"string","nullable":true}}});
    let value = json!({"i":3,"n":2,"s":"abc","t":"2026-11-24T00:00:00Z","d":"1h","b":"aGk=","ios":"25%","l":["a","b"],
        "o":[{"k":"x","v":1},{"k":"y"}],"m":{"a-b":1,"c":2},"namespace":"ns","a-b":"dash","c__d":"u","q":"1500m","z":null});
    let holds = [
        "self.i == 3",
        "self.i % 2 == 1",
        "self.i > 2.5",
        "self.n == 2.0",
        "self.n / 4.0 == 0.5",
        "self.s == 'abc'",
        "self.s.size() == 3",
        "size(self.s) == 3",
        "self.s.startsWith('a')",
        "self.s.matches('^[a-c]+$')",
        "self.s.contains('b')",
        "self.t > timestamp('2026-11-23T00:00:00Z')",
        "self.t.getFullYear() == 2026",
        "self.d == duration('60m')",
        "self.b == b'hi'",
        "!has(self.e)",
        "has(self.s)",
        "type(self.ios) == string ? self.ios.endsWith('%') : self.ios > 0",
        "type(self.i) == int",
        "self.l.all(x, x in ['a','b','c'])",
        "'a' in self.l",
        "self.l.exists(x, x == 'b')",
        "self.l.exists_one(x, x == 'b')",
        "self.l.map(x, x + '!') == ['a!','b!']",
        "self.l.filter(x, x > 'a').size() == 1",
        "self.o.exists(x, has(x.v) && x.v == 1)",
        "self.o.exists(x, x.v == 1)",
        "self.m['a-b'] == 1",
        "self.m.all(k, self.m[k] > 0)",
        "'c' in self.m",
        "self.__namespace__ == 'ns'",
        "self.a__dash__b == 'dash'",
        "self.c__underscores__d == 'u'",
        "quantity(self.q).isLessThan(quantity('2'))",
        "isQuantity('1Gi')",
        "isIP('10.0.0.1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "isURL('https://a.b/c')",
        "url('https://a.b/c').getHost() == 'a.b'",
        "self.s.upperAscii() == 'ABC'",
        "'a,b'.split(',') == ['a','b']",
        "self.l.join('-') == 'a-b'",
        "'abc'.replace('b','x') == 'axc'",
        "self.s.find('[b-c]+') == 'bc'",
        "self.l.isSorted()",
        "[1,2].sum() == 3",
        "self.l.indexOf('b') == 1",
        "self.z == null",
        "[true, false].filter(x, x).size() == 1",
        "math.greatest(1, 2) == 2",
        "self.?e.orValue('none') == 'none'",
        "self.?s.orValue('none') == 'abc'",
        "dyn(self.i) == 3",
        "string(self.i) == '3'",
        "int('4') == 4",
        "'%s-%d'.format(['a', 1]) == 'a-1'",
        "self.o.map(x, x.k) == ['x','y']",
        "!(self.i == 4)",
        "self.i < 0 || self.i > 2",
        "self.e == 'a' || true",
        "true || self.e == 'a'",
        "sets.contains(self.l, ['a'])",
        "semver('1.2.3').major() == 1",
        "self == self",
    ];
    for rule in holds {
        assert_eq!(
            field(&any, json!({"rule":rule}), value.clone(), None),
            Vec::<String>::new(),
            "{rule}"
        );
    }
    let fails = [
        ("self.i == 4", "failed rule: self.i == 4"),
        ("  self.i == 4 ", "failed rule: self.i == 4"),
        (
            "self.e == 'a'",
            "no such key: e evaluating rule: self.e == 'a'",
        ),
        (
            "self.e == 'a' || self.f == 'b'",
            "no such key: e evaluating rule: self.e == 'a' || self.f == 'b'",
        ),
        (
            "self.o.all(x, x.v == 1)",
            "no such key: v evaluating rule: self.o.all(x, x.v == 1)",
        ),
        (
            "self.i / 0 == 1",
            "division by zero evaluating rule: self.i / 0 == 1",
        ),
        (
            "self.s > 1",
            "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self.s > 1",
        ),
    ];
    for (rule, message) in fails {
        assert_eq!(
            field(&any, json!({"rule":rule}), value.clone(), None),
            [if message.starts_with("failed rule") {
                format!("x: Invalid value: {message}")
            } else {
                format!("x: Invalid value: \"object\": {message}")
            }],
            "{rule}"
        );
    }
}

#[test]
fn messages_reasons_and_paths() {
    let schema = json!({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"m":{"type":"object","additionalProperties":{"type":"integer"}}}});
    let cases = [
        (
            json!({"message":" too much "}),
            "x: Invalid value: too much",
        ),
        (
            json!({"messageExpression":"'a is ' + string(self.a)"}),
            "x: Invalid value: a is 5",
        ),
        (
            json!({"messageExpression":"self.b","message":"fallback"}),
            "x: Invalid value: fallback",
        ),
        (
            json!({"messageExpression":"' '"}),
            "x: Invalid value: failed rule: self.a < 5",
        ),
        (
            json!({"message":"no","reason":"FieldValueForbidden","fieldPath":".a"}),
            "x.a: Forbidden: no",
        ),
        (
            json!({"message":"no","reason":"FieldValueRequired","fieldPath":".m['k']"}),
            "x.m[k]: Required value: no",
        ),
        (
            json!({"message":"no","reason":"FieldValueDuplicate"}),
            "x: Duplicate value",
        ),
        (
            json!({"message":"no","reason":"FieldValueInvalid"}),
            "x: Invalid value: no",
        ),
    ];
    for (mut rule, expected) in cases {
        rule["rule"] = json!("self.a < 5");
        assert_eq!(
            field(&schema, rule.clone(), json!({"a":5}), None),
            [expected],
            "{rule}"
        );
    }
}

#[test]
fn rules_about_change() {
    let rule = json!({"rule":"self == oldSelf","message":"x is immutable"});
    let string = json!({"type":"string"});
    let immutable = ["x: Invalid value: \"b\": x is immutable"];
    assert_eq!(
        field(&string, rule.clone(), json!("b"), None),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&string, rule.clone(), json!("b"), Some(json!("b"))),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&string, rule.clone(), json!("b"), Some(json!("a"))),
        immutable
    );
    let optional = json!({"rule":"oldSelf.hasValue() || self == 'first'","optionalOldSelf":true,"message":"starts with first"});
    assert_eq!(
        field(&string, optional.clone(), json!("first"), None),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&string, optional.clone(), json!("other"), None),
        ["x: Invalid value: \"other\": starts with first"]
    );
    assert_eq!(
        field(&string, optional, json!("other"), Some(json!("first"))),
        Vec::<String>::new()
    );
    // The order of a set, and of a map list, makes no difference.
    let set = json!({"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}});
    assert_eq!(
        field(
            &set,
            rule.clone(),
            json!(["b", "a"]),
            Some(json!(["a", "b"]))
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        field(
            &set,
            rule.clone(),
            json!(["b", "c"]),
            Some(json!(["a", "b"]))
        )
        .len(),
        1
    );
    let atomic = json!({"type":"array","items":{"type":"string"}});
    assert_eq!(
        field(&atomic, rule, json!(["b", "a"]), Some(json!(["a", "b"]))).len(),
        1
    );
}

#[test]
fn stored_values_are_found_by_key() {
    let item = json!({"type":"object","properties":{"k":{"type":"string"},"v":{"type":"integer","x-kubernetes-validations":[{"rule":"self >= oldSelf","message":"must not shrink"}]}}});
    let mut map_list = json!({"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":item});
    let schema = |list: &Value| {
        json!({"type":"object","properties":{"l":list,
        "m":{"type":"object","additionalProperties":item["properties"]["v"]}}})
    };
    let old = json!({"l":[{"k":"a","v":5},{"k":"b","v":1}],"m":{"p":3}});
    let new = json!({"l":[{"k":"b","v":2},{"k":"c","v":0},{"k":"a","v":4}],"m":{"p":2,"q":1}});
    assert_eq!(
        lines(&schema(&map_list), &new, Some(&old)),
        [
            "l[2].v: Invalid value: 4: must not shrink",
            "m[p]: Invalid value: 2: must not shrink",
        ]
    );
    map_list["x-kubernetes-list-type"] = json!("atomic");
    let errors = Schema::from_openapi(&schema(&map_list)).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].to_string().starts_with("openAPIV3Schema.properties[l].items.properties[v].x-kubernetes-validations[0]: rule: Invalid value: oldSelf cannot be used"),
        "{errors:?}"
    );
}

#[test]
fn rules_inside_all_of() {
    let schema = json!({"type":"object","properties":{"x":{"type":"object","properties":{"a":{"type":"integer"},"n":{"type":"number"}},
        "allOf":[{"x-kubernetes-validations":[{"rule":"self.n < 2.5","message":"n"}]},
            {"properties":{"a":{"x-kubernetes-validations":[{"rule":"self > 0","message":"a"}]}}}]}}});
    assert_eq!(
        lines(&schema, &json!({"x":{"a":1,"n":2}}), None),
        Vec::<String>::new()
    );
    assert_eq!(
        lines(&schema, &json!({"x":{"a":0,"n":3}}), None),
        ["x: Invalid value: n", "x.a: Invalid value: 0: a"]
    );
}

#[test]
fn long_lists_take_no_long_time() {
    let item = json!({"type":"object","properties":{"k":{"type":"integer"},"v":{"type":"integer","maximum":1,"x-kubernetes-validations":[{"rule":"self < 2"}]}}});
    let map = json!({"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":item,
        "x-kubernetes-validations":[{"rule":"self == oldSelf || size(self) > 1"}]});
    let atomic = json!({"type":"array","items":item});
    let list = |n: u32| (0..n).map(|k| json!({"k":k,"v":2})).collect::<Vec<_>>();
    let schema = json!({"type":"object","properties":{"m":map,"l":atomic}});
    let (old, mut new) = (
        json!({"m":list(15_000),"l":list(15_000)}),
        json!({"m":list(15_000),"l":list(15_000)}),
    );
    new["m"].as_array_mut().unwrap().reverse();
    let started = Instant::now();
    lines(&schema, &new, Some(&old));
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_was_wrong_before_is_let_through() {
    let rule = json!({"rule":"self < 5"});
    let number = json!({"type":"integer"});
    assert_eq!(
        field(&number, rule.clone(), json!(7), Some(json!(7))),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&number, rule.clone(), json!(8), Some(json!(7))),
        ["x: Invalid value: 8: failed rule: self < 5"]
    );
    // An item of an atomic list has no stored value of its own; the list as a whole has.
    let list = json!({"type":"array","items":{"type":"integer","x-kubernetes-validations":[rule]}});
    let schema = json!({"type":"object","properties":{"l":list}});
    let old = json!({"l":[7]});
    assert_eq!(lines(&schema, &old, Some(&old)), Vec::<String>::new());
    assert_eq!(
        lines(&schema, &json!({"l":[7,1]}), Some(&old)),
        ["l[0]: Invalid value: 7: failed rule: self < 5"]
    );
}

#[test]
fn the_root_sees_little_of_its_metadata() {
    let schema = |rule: &str| {
        json!({"type":"object","x-kubernetes-validations":[{"rule":rule,"message":"no"}],"properties":{
        "kind":{"type":"string"},"metadata":{"type":"object"},"spec":{"type":"object","properties":{"a":{"type":"string"}}}}})
    };
    let value = json!({"kind":"K","metadata":{"name":"n","labels":{"a":"b"}},"spec":{"a":"b"}});
    for rule in [
        "self.metadata.name == 'n'",
        "self.kind == 'K'",
        "!has(self.metadata.labels)",
    ] {
        assert_eq!(
            lines(&schema(rule), &value, None),
            Vec::<String>::new(),
            "{rule}"
        );
    }
    assert_eq!(
        lines(&schema("self.spec.a == 'c'"), &value, None),
        ["<nil>: Invalid value: no"]
    );
}

#[test]
fn null_is_not_looked_at() {
    let schema = json!({"type":"string","nullable":true});
    assert_eq!(
        field(&schema, json!({"rule":"self == 'a'"}), Value::Null, None),
        Vec::<String>::new()
    );
}

#[test]
fn entries_that_cannot_be_compiled() {
    let cases = [
        (json!({}), "rule: Required value"),
        (json!({"rule":" "}), "rule: Required value"),
        (json!({"rule":7}), "rule: Invalid value: must be a string"),
        (
            json!({"rule":"self +"}),
            "rule: Invalid value: compilation failed: ERROR: <input>:1:",
        ),
        (
            json!({"rule":"other == 1"}),
            "undeclared reference to 'other'",
        ),
        (
            json!({"rule":"self.all(x, x == y)"}),
            "undeclared reference to 'y'",
        ),
        (
            json!({"rule":"self.frobnicate()"}),
            "undeclared reference to 'frobnicate'",
        ),
        (json!({"rule":"Some{a: 1} == 1"}), "compilation failed"),
        (
            json!({"rule":"true","messageExpression":"nope"}),
            "messageExpression: Invalid value: compilation failed",
        ),
        (
            json!({"rule":"true","reason":"Because"}),
            "reason: Unsupported value: \"Because\"",
        ),
        (
            json!({"rule":"true","message":"a\nb"}),
            "message: Invalid value: must not contain line breaks",
        ),
        (
            json!({"rule":"true","optionalOldSelf":"yes"}),
            "optionalOldSelf: Invalid value: must be a boolean",
        ),
        (json!({"rule":"1+".repeat(9000) + "1"}), "rule: Too long"),
        (json!({"rule":"1+".repeat(4000) + "1 == 1"}), "operators"),
        (json!({"rule":"(".repeat(4000) + "1"}), "operators"),
        (json!({"rule":"!".repeat(900) + "true"}), ""),
        (json!({"rule":"-".repeat(900) + "1 == 1"}), ""),
        (
            json!({"rule":"(".repeat(450) + "1" + &")".repeat(450) + " == 1"}),
            "compilation failed",
        ),
        (
            json!({"rule":"self.all(a, self.all(b, self.all(c, self.all(d, self.all(e, self.all(f, self.all(g, self.all(h, self.all(i, true)))))))))"}),
            "loops are nested deeper",
        ),
    ];
    for (entry, expected) in cases {
        match Rule::compile(&entry) {
            Err(error) => assert!(error.to_string().contains(expected), "{entry}: {error}"),
            Ok(_) => assert!(expected.is_empty(), "{entry} compiled"),
        }
    }
}

#[test]
fn long_rules_are_refused_or_evaluate_within_the_stack() {
    let mut allowed = 0;
    for n in [10, 40, 80, 90, 95, 97, 120, 300, 900] {
        for rule in [
            "(".repeat(n) + "1" + &")".repeat(n) + " == self",
            "!".repeat(n) + "true",
            "! ".repeat(n) + "true",
            "- ".repeat(n) + "1 == 2",
            "1 + ".repeat(n) + "1 == self",
            "self".to_owned() + &".a".repeat(n),
            "self == 1 && ".repeat(n) + "true",
            "true ? 1 : ".repeat(n) + "1",
            "(false || (true && ".repeat(n / 2) + "true" + &"))".repeat(n / 2),
            "[1].all(x, ".repeat(n / 8) + "true" + &")".repeat(n / 8),
            "[".repeat(n) + "1" + &"]".repeat(n) + " == []",
            "dyn(".repeat(n) + "1" + &")".repeat(n) + " == []",
        ] {
            if Rule::compile(&json!({ "rule": rule })).is_ok() {
                allowed += 1;
                field(
                    &json!({"type":"integer"}),
                    json!({ "rule": rule }),
                    json!(1),
                    None,
                );
            }
        }
    }
    assert!(allowed > 20, "{allowed}");
}

#[test]
fn a_rule_that_could_take_too_long_is_not_started() {
    let list = json!({"type":"array","items":{"type":"integer"}});
    let many: Vec<u32> = (0..1000).collect();
    let started = Instant::now();
    for rule in [
        "self.all(x, self.all(y, self.all(z, x + y + z >= 0)))",
        "self.map(x, self.map(y, self.map(z, x + y + z))).size() > 0",
        "self.all(x, self.all(y, x >= 0 && y >= 0))",
    ] {
        let errors = field(&list, json!({ "rule": rule }), json!(many), None);
        assert_eq!(
            errors,
            [format!(
                "x: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            )]
        );
    }
    assert_eq!(
        field(
            &list,
            json!({"rule":"self.all(x, x >= 0)"}),
            json!(many),
            None
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        field(
            &list,
            json!({"rule":"self.all(x, self.exists_one(y, x == y))"}),
            json!(many[..100]),
            None
        ),
        Vec::<String>::new()
    );
    // Literals alone can be as bad.
    let literal = format!("[{}]", vec!["1"; 60].join(","));
    let rule = format!(
        "{literal}.all(a, {literal}.all(b, {literal}.all(c, {literal}.all(d, a + b + c + d > 0))))"
    );
    assert_eq!(
        field(&list, json!({ "rule": rule }), json!([]), None).len(),
        1
    );
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn all_rules_of_an_object_share_one_budget() {
    let rule = json!({"rule":"self.all(x, self.exists(y, x == y))"});
    let inner =
        json!({"type":"array","items":{"type":"integer"},"x-kubernetes-validations":[rule]});
    let schema = json!({"type":"object","properties":{"l":{"type":"array","items":inner}}});
    let row: Vec<u32> = (0..150).collect();
    let errors = lines(&schema, &json!({"l": vec![row; 100]}), None);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].ends_with("validation failed due to running out of cost budget, no further validation rules will be run"), "{errors:?}");
}

#[test]
fn fields_that_the_schema_does_not_have() {
    let schema = |rule: &str| {
        json!({"type":"object","x-kubernetes-validations":[{"rule":rule}],"properties":{
            "metadata":{"type":"object"},
            "a-b":{"type":"string"},
            "spec":{"type":"object","properties":{"a":{"type":"string"}}},
            "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"string"}}},
            "l":{"type":"array","items":{"type":"object","properties":{"k":{"type":"string"}}}},
            "m":{"type":"object","additionalProperties":{"type":"object","properties":{"v":{"type":"string"}}}}}})
    };
    for rule in [
        "self.spec.a == '' && has(self.spec.a)",
        "self.a__dash__b == ''",
        "self.metadata.name == ''",
        "self.kind == ''",
        "self.free.b == ''",
        "self.l[0].k == ''",
        "self.l.all(x, x.k == '')",
        "self.m['x'].v == ''",
        "self.m.x.v == ''",
        "self.m.all(k, self.m[k].v == '')",
        "self.?spec.?a.hasValue()",
    ] {
        assert!(Schema::from_openapi(&schema(rule)).is_ok(), "{rule}");
    }
    for (rule, field) in [
        ("self.spec.b == ''", "b"),
        ("has(self.sepc)", "sepc"),
        ("oldSelf.spec.c == ''", "c"),
        ("self.l[0].q == ''", "q"),
        ("self.l.all(x, x.q == '')", "q"),
        ("self.l.filter(x, x.q == '').size() == 0", "q"),
        ("self.m['x'].w == ''", "w"),
        ("self.m.all(k, self.m[k].w == '')", "w"),
        ("self.?sepc.hasValue()", "sepc"),
        ("[self.no].size() == 1", "no"),
    ] {
        let errors = Schema::from_openapi(&schema(rule)).unwrap_err();
        assert_eq!(errors.len(), 1, "{rule}");
        assert_eq!(
            errors[0].to_string(),
            format!(
                "openAPIV3Schema.x-kubernetes-validations[0]: rule: Invalid value: compilation failed: undefined field '{field}'"
            ),
            "{rule}"
        );
    }
}

#[test]
fn rules_of_our_kinds() {
    let source = json!({"type":"object","properties":{"machines":{"type":"object"},"managed":{"type":"object"},"external":{"type":"object"},"replicas":{"type":"integer"}}});
    let one = json!({"rule":"[has(self.machines), has(self.managed), has(self.external)].filter(x, x).size() == 1","message":"one"});
    assert_eq!(
        field(&source, one.clone(), json!({"managed":{}}), None),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&source, one.clone(), json!({}), None),
        ["x: Invalid value: one"]
    );
    assert_eq!(
        field(&source, one, json!({"managed":{},"machines":{}}), None),
        ["x: Invalid value: one"]
    );
    let kept = json!({"rule":"has(self.machines) == has(oldSelf.machines) && has(self.managed) == has(oldSelf.managed)","message":"kept"});
    assert_eq!(
        field(
            &source,
            kept.clone(),
            json!({"managed":{}}),
            Some(json!({"managed":{"a":1}}))
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        field(
            &source,
            kept,
            json!({"managed":{}}),
            Some(json!({"machines":{}}))
        ),
        ["x: Invalid value: kept"]
    );
    let rollout = json!({"type":"object","properties":{"maxSurge":{"x-kubernetes-int-or-string":true},"maxUnavailable":{"x-kubernetes-int-or-string":true}}});
    let stuck = json!({"rule":"!(has(self.maxSurge) && has(self.maxUnavailable) && type(self.maxSurge) == int && type(self.maxUnavailable) == int && int(self.maxSurge) == 0 && int(self.maxUnavailable) == 0)","message":"stuck"});
    for (value, count) in [
        (json!({"maxSurge":0,"maxUnavailable":0}), 1),
        (json!({"maxSurge":"0%","maxUnavailable":0}), 0),
        (json!({"maxSurge":1,"maxUnavailable":0}), 0),
        (json!({}), 0),
    ] {
        assert_eq!(
            field(&rollout, stuck.clone(), value.clone(), None).len(),
            count,
            "{value}"
        );
    }
    let odd = json!({"rule":"self % 2 == 1","message":"odd"});
    assert_eq!(
        field(&json!({"type":"integer"}), odd.clone(), json!(3), None),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&json!({"type":"integer"}), odd, json!(4), None),
        ["x: Invalid value: 4: odd"]
    );
    let unique =
        json!({"rule":"self.all(x, self.exists_one(y, x.name == y.name))","message":"unique"});
    let list =
        json!({"type":"array","items":{"type":"object","properties":{"name":{"type":"string"}}}});
    assert_eq!(
        field(
            &list,
            unique.clone(),
            json!([{"name":"a"},{"name":"b"}]),
            None
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        field(&list, unique, json!([{"name":"a"},{"name":"a"}]), None),
        ["x: Invalid value: unique"]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_compiler(source in "(self|oldSelf|[a-z]|[0-9]|'|\"|\\.|\\?|:|\\[|\\]|\\(|\\)|\\{|\\}|&&|\\|\\||==|!|-|,| |all|has|map|é){0,24}") {
        if let Ok(rule) = Rule::compile(&json!({"rule": source})) {
            let schema = json!({"type":"object","properties":{"x":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"x-kubernetes-validations":[{"rule":rule.source}]}}});
            lines(&schema, &json!({"x":{"a":[1,"b",{"c":null}],"b":1.5}}), None);
        }
    }
}
