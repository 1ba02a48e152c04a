use proptest::prelude::*;

use super::*;

pub(super) const POOL: Declares<'_> = Declares {
    kind: "MachineDeployment",
    namespace: "default",
    name: "web",
};

const FILE: &str = r#"# Everything of the shop.
apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata: {name: web}
---
apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
metadata:
  name: web # the front
spec:
  clusterName: eu
  replicas: 3
  template:
    spec:
      version: v1.33.2   # pinned, ask Ann
      providerConfig:
        apiVersion: sim.fleetwright.dev/v1alpha1
        kind: SimMachineConfig
        # Large is too dear.
        instanceType: "large"
        image: 'ubuntu'
        disks:
        - size: 20
        tags: {team: shop, "cost centre": 7}

  # How many at once.
  rollout: {strategy: {rollingUpdate: {maxSurge: 1}}}
"#;

fn document(text: &str) -> Value {
    let documents = yaml::parse(text).unwrap();
    documents.iter().find(|d| POOL.is(d)).unwrap().to_value()
}

/// The lines that `change` takes away and brings, and nothing around them.
fn lines(text: &str, change: impl FnOnce(&mut Value)) -> Option<Vec<String>> {
    let mut wanted = document(text);
    change(&mut wanted);
    let new = edit(text, POOL, &wanted).ok()?;
    assert_eq!(document(&new), wanted);
    let diff = TextDiff::from_lines(text, new.as_str());
    let lines = diff
        .iter_all_changes()
        .filter(|c| c.tag() != similar::ChangeTag::Equal);
    Some(
        lines
            .map(|c| format!("{}{}", c.tag(), c.value().trim_end()))
            .collect(),
    )
}

fn config(wanted: &mut Value) -> &mut Map<String, Value> {
    wanted["spec"]["template"]["spec"]["providerConfig"]
        .as_object_mut()
        .unwrap()
}

#[test]
fn values_change_and_everything_else_stays() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &[&str]); 11] = [
        (
            "in its quotes, with its comment",
            |w| {
                config(w).insert("instanceType".into(), "medium".into());
            },
            &[
                "-        instanceType: \"large\"",
                "+        instanceType: \"medium\"",
            ],
        ),
        (
            "in other quotes",
            |w| {
                config(w).insert("image".into(), "flatcar".into());
            },
            &["-        image: 'ubuntu'", "+        image: 'flatcar'"],
        ),
        (
            "plain, before a comment",
            |w| w["spec"]["template"]["spec"]["version"] = "v1.34.0".into(),
            &[
                "-      version: v1.33.2   # pinned, ask Ann",
                "+      version: v1.34.0   # pinned, ask Ann",
            ],
        ),
        (
            "a number becomes a text",
            |w| {
                config(w).insert("instanceType".into(), "7".into());
            },
            &[
                "-        instanceType: \"large\"",
                "+        instanceType: \"7\"",
            ],
        ),
        (
            "removed from a block",
            |w| {
                config(w).remove("image");
            },
            &["-        image: 'ubuntu'"],
        ),
        (
            "a list at its key's height is removed",
            |w| {
                config(w).remove("disks");
            },
            &["-        disks:", "-        - size: 20"],
        ),
        (
            "added to a block",
            |w| {
                config(w).insert("zone".into(), "a".into());
            },
            &["+        zone: a"],
        ),
        (
            "added as a block",
            |w| {
                config(w).insert("net".into(), json!({"mtu": 1500}));
            },
            &["+        net:", "+          mtu: 1500"],
        ),
        (
            "changed in a flow map",
            |w| {
                config(w)["tags"]["team"] = "till, two".into();
            },
            &[
                "-        tags: {team: shop, \"cost centre\": 7}",
                "+        tags: {team: \"till, two\", \"cost centre\": 7}",
            ],
        ),
        (
            "removed from a flow map and added to it",
            |w| {
                let tags = config(w)["tags"].as_object_mut().unwrap();
                tags.remove("cost centre");
                tags.insert("owner".into(), json!({"name": "Ann"}));
            },
            &[
                "-        tags: {team: shop, \"cost centre\": 7}",
                "+        tags: {team: shop, owner: {name: Ann}}",
            ],
        ),
        (
            "a list is another one",
            |w| config(w)["disks"] = json!([{"size": 40}, {"size": 1}]),
            &[
                "-        - size: 20",
                "+        - size: 40",
                "+        - size: 1",
            ],
        ),
    ];
    for (name, change, want) in cases {
        let got = lines(FILE, change).unwrap_or_else(|| panic!("{name}: no edit"));
        let bare = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect()
        };
        let want: Vec<String> = want.iter().map(|l| (*l).to_owned()).collect();
        if name.contains("list is another") {
            // How the writer indents a list is its own affair.
            assert_eq!(bare(&got).last(), bare(&want).last(), "{name}");
        } else {
            assert_eq!(got, want, "{name}");
        }
    }
}

#[test]
fn a_change_of_several_values_is_a_patch_that_git_takes() {
    let mut wanted = document(FILE);
    config(&mut wanted).insert("instanceType".into(), "medium".into());
    wanted["spec"]["template"]["spec"]
        .as_object_mut()
        .unwrap()
        .remove("version");
    wanted["spec"]["template"]["spec"]["failureDomain"] = "b".into();
    let new = edit(FILE, POOL, &wanted).unwrap();
    let patch = patch("pools/web.yaml", FILE, &new);
    assert!(
        patch.starts_with("diff --git a/pools/web.yaml b/pools/web.yaml\n--- a/pools/web.yaml\n+++ b/pools/web.yaml\n@@ "),
        "{patch}"
    );
    let signs = |sign: char| patch.lines().filter(|l| l.starts_with(sign)).count() - 1;
    assert_eq!((signs('-'), signs('+')), (2, 2), "{patch}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pools")).unwrap();
    std::fs::write(dir.path().join("pools/web.yaml"), FILE).unwrap();
    let diff = git2::Diff::from_buffer(patch.as_bytes()).unwrap();
    let repository = git2::Repository::init(dir.path()).unwrap();
    repository
        .apply(&diff, git2::ApplyLocation::WorkDir, None)
        .unwrap();
    let applied = std::fs::read_to_string(dir.path().join("pools/web.yaml")).unwrap();
    assert_eq!(applied, new);
}

#[test]
fn a_map_that_loses_its_last_key_stays_a_map() {
    for (text, want) in [
        ("  a:\n    b: 1\n  c: 2\n", "  a: {}\n  c: 2\n"),
        (
            "  a:   # why\n    # b\n    b:\n    - 1\n",
            "  a: {}   # why\n    # b\n",
        ),
        ("  \"a:b\" :\n    b: 1\n", "  \"a:b\" : {}\n"),
        ("  a: {b: 1}\n", "  a: {}\n"),
        ("  a:\n    b: 1", "  a: {}\n"),
    ] {
        let head = "kind: MachineDeployment\nmetadata:\n  name: web\nspec:\n";
        let first = "---\nkind: Cluster\nspec:\n  a:\n    b: 1\n---\n";
        let text = format!("{first}{head}{text}");
        let mut wanted = document(&text);
        for (_, value) in wanted["spec"].as_object_mut().unwrap() {
            if let Some(map) = value.as_object_mut() {
                map.clear();
            }
        }
        let new = edit(&text, POOL, &wanted).unwrap();
        assert_eq!(new, format!("{first}{head}{want}"));
        assert_eq!(document(&new), wanted);
    }
    // What is added first keeps the map from becoming empty.
    let text = "kind: MachineDeployment\nmetadata: {name: web}\nspec:\n  a:\n    b: 1\n";
    let mut wanted = document(text);
    wanted["spec"]["a"] = json!({"c": 2});
    let new = edit(text, POOL, &wanted).unwrap();
    assert_eq!(new, text.replace("b: 1", "c: 2"));
}

#[test]
fn without_a_line_break_at_the_end_and_in_json_too() {
    for text in [
        "kind: MachineDeployment\nmetadata: {name: web}\nspec:\n  a: 1",
        "{\"kind\": \"MachineDeployment\", \"metadata\": {\"name\": \"web\"}, \"spec\": {\"a\": 1}}",
    ] {
        for value in [json!({"a": 2}), json!({"a": 1, "b": "x"})] {
            let mut wanted = document(text);
            wanted["spec"] = value;
            let new = edit(text, POOL, &wanted).unwrap();
            assert_eq!(document(&new), wanted, "{new}");
        }
    }
}

#[test]
fn what_cannot_be_edited_is_left_alone() {
    // An anchor that another document's value would follow, and an object that is not there.
    let anchored =
        "kind: MachineDeployment\nmetadata: {name: web}\nspec: {a: &x {size: 1}, b: *x}\n";
    let mut wanted = document(anchored);
    wanted["spec"]["b"]["size"] = 2.into();
    let place = |line, column| Place {
        layer: 0,
        line,
        column,
    };
    let told = |text, object, wanted: &Value| {
        let found = edit(text, object, wanted).unwrap_err();
        (found.place, found.why)
    };
    let (at, why) = told(anchored, POOL, &wanted);
    assert_eq!((at.line, why), (3, Why::Form));
    // The other way round: the alias would change with it.
    let mut wanted = document(anchored);
    wanted["spec"]["a"]["size"] = 2.into();
    assert_eq!(told(anchored, POOL, &wanted), (place(3, 15), Why::Shared));
    let other = Declares { name: "db", ..POOL };
    let (_, why) = told(FILE, other, &json!({}));
    assert_eq!(why, Why::NotDeclared);
    // Aliases, merge keys and anchors of maps that become empty: each with its place.
    let merged = "kind: MachineDeployment\nmetadata: {name: web}\nspec:\n  a: &x\n    size: 1\n  b:\n    <<: *x\n    more: 2\n";
    let mut wanted = document(merged);
    wanted["spec"]["b"]["size"] = 2.into();
    let (at, why) = told(merged, POOL, &wanted);
    assert!(
        [5, 7].contains(&at.line) && why != Why::NotDeclared,
        "{at:?} {why:?}"
    );
    let mut wanted = document(merged);
    wanted["spec"]["a"] = json!({});
    assert_eq!(told(merged, POOL, &wanted), (place(5, 5), Why::Form));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-50..50_i32).prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]|[ -~]{1,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is to be changed, the text says it afterwards or there is no edit; and there is one most of the time.
    #[test]
    fn an_edit_says_what_was_wanted_or_is_none(have in value(), want in value(), flow in any::<bool>()) {
        let wrap = |spec: &Value| json!({"kind": "MachineDeployment", "metadata": {"name": "web"}, "spec": {"x": spec, "y": 1}});
        let text = if flow {
            format!("{}\n", flow_text(&wrap(&have)))
        } else {
            serde_saphyr::to_string(&wrap(&have)).unwrap()
        };
        let text = format!("# head\n---\nkind: Other\n---\n{text}---\nkind: Last\n");
        prop_assume!(yaml::parse(&text).is_ok_and(|d| d.get(1).is_some_and(|d| d.to_value() == wrap(&have))));
        if let Ok(new) = edit(&text, POOL, &wrap(&want)) {
            prop_assert_eq!(document(&new), wrap(&want));
            prop_assert!(new.starts_with("# head\n---\nkind: Other\n---\n") && new.ends_with("---\nkind: Last\n"));
        } else {
            prop_assert!(have != want);
        }
    }
}
