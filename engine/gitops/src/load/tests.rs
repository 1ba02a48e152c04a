use serde_json::json;

use super::*;
use crate::yaml;

mod limits;
mod purposes;
mod refused;

pub(super) const CLUSTER: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata:
  name: alpha
spec:
  version: v1.33.2
  controlPlane:
    machines:
      replicas: 3
      template:
        spec:
          providerConfig: {apiVersion: sim/v1, kind: M, account: sim-eu, size: 2}
";
pub(super) const POOL: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
metadata:
  name: web
spec:
  clusterName: alpha
  replicas: 3
  template:
    spec:
      providerConfig: {apiVersion: sim/v1, kind: M, account: sim-eu}
";

pub(super) fn run(files: &[(&str, &str)], allow: Allow) -> Loaded {
    let schema =
        json!({"type": "object", "properties": {"size": {"type": "integer", "maximum": 8}}});
    let files: Vec<SourceFile> = files
        .iter()
        .map(|(path, text)| SourceFile {
            path: (*path).into(),
            content: Ok(text.as_bytes().to_vec()),
        })
        .collect();
    let mut loaded = load(
        &files,
        &LoadContext {
            provider_schema: &|version, kind| {
                (version == "sim/v1" && kind == "M").then_some(&schema)
            },
            allow: &allow,
        },
    );
    let dangling = dangling(&loaded.outside, &BTreeSet::new());
    loaded.errors.extend(dangling);
    loaded
}

#[test]
fn good_files_load_and_others_are_ignored() {
    let both = format!("{CLUSTER}---\n---\n{POOL}");
    let loaded = run(
        &[
            ("a.yaml", &both),
            ("README.md", "# hi: ["),
            (".fleetwright.yaml", "x"),
            (".git/a.yaml", "x"),
        ],
        Allow::default(),
    );
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.objects.len(), 2);
    assert_eq!(
        loaded.objects[1].document["metadata"]["namespace"],
        "default"
    );
    assert_eq!(loaded.objects[1].line, 15);
}

#[test]
fn every_mistake_names_its_place() {
    let change = |from: &str, to: &str| CLUSTER.replace(from, to);
    let rows: Vec<(String, &str)> = vec![
        (change("kind: Cluster\n", ""), "a.yaml:1:1: kind is missing"),
        (
            change("kind: Cluster", "kind: Fleet"),
            "a.yaml:2:7: Fleet is refused in Git",
        ),
        (
            change("kind: Cluster", "kind: Deployment"),
            "a.yaml:2:7: unknown kind Deployment",
        ),
        (
            change("name: alpha", "name: Alpha"),
            "a.yaml:4:9: metadata.name \"Alpha\" must consist",
        ),
        (
            change("replicas: 3", "replicas: three"),
            "a.yaml:9:17: spec.controlPlane.machines.replicas must be a whole number",
        ),
        (
            change("replicas: 3", "replicas: 11"),
            "a.yaml:9:17: spec.controlPlane.machines.replicas must be at most 9",
        ),
        (
            change("replicas: 3", "replcas: 3"),
            "a.yaml:9:7: unknown field spec.controlPlane.machines.replcas: did you mean replicas?",
        ),
        (
            change("version: v1.33.2", "version: 1.33"),
            "a.yaml:6:12: spec.version must be a text",
        ),
        (
            change("  version: v1.33.2\n", ""),
            "spec.version is missing",
        ),
        (
            change("name: alpha", "name: alpha\n  labels: {a: b, c: yes}"),
            "a.yaml:5:21: metadata.labels.c must be a text: put it in quotes",
        ),
        (
            change("name: alpha", "name: alpha\n  annotations: x"),
            "a.yaml:5:16: metadata.annotations must be an object",
        ),
        (
            change("size: 2", "size: 9"),
            "providerConfig.size must be at most 8",
        ),
        (
            change("size: 2", "sise: 9"),
            "unknown field providerConfig.sise: did you mean size?",
        ),
        (
            change("kind: M,", "kind: X,"),
            "no provider knows X of sim/v1",
        ),
        (
            change(
                "apiVersion: sim/v1,",
                "apiVersion: cloud.fleetwright.dev/v1,",
            ),
            "built without (cargo build --features aws)",
        ),
        (
            change("name: alpha", "name: alpha\n  name: beta"),
            "a.yaml:5:3: duplicate mapping key `name` is not allowed here",
        ),
        (change("spec:\n", "spec: [\n"), "a.yaml:"),
        (
            format!("{CLUSTER}status: {{}}\n"),
            "a.yaml:13:1: status is written by controllers",
        ),
        (format!("{CLUSTER}---\n{CLUSTER}"), "a.yaml:17:"),
        (
            POOL.to_owned(),
            "a.yaml:6:16: there is no Cluster default/alpha",
        ),
    ];
    for (text, wanted) in rows {
        let loaded = run(&[("a.yaml", &text)], Allow::default());
        let shown: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(
            shown.iter().any(|e| e.contains(wanted)),
            "wanted {wanted}, got {shown:?}"
        );
    }
}

/// Rules of a provider are told like all else of its settings, once what they are about has its shape and its defaults.
#[test]
fn what_breaks_a_rule_of_a_provider_is_told_at_its_place() {
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "account": {"type": "string"},
            "type": {"type": "string", "default": "small"}, "disk": {"type": "integer"}, "key": {"type": "string"},
        },
        "x-kubernetes-validations": [
            {"rule": "has(self.key)", "message": "name one", "fieldPath": ".key", "reason": "FieldValueRequired"},
            {"rule": "self.type != 'small' || !has(self.disk)", "message": "small ones have no disk", "fieldPath": ".disk"},
        ],
    });
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|_, kind| (kind == "M").then_some(&schema),
        allow: &allow,
    };
    let found = |files: &[(&str, String)]| -> Vec<String> {
        let files = files.iter().map(|(path, text)| SourceFile {
            path: (*path).into(),
            content: Ok(text.as_bytes().to_vec()),
        });
        let loaded = load(&files.collect::<Vec<_>>(), &context);
        loaded.errors.iter().map(ToString::to_string).collect()
    };
    let with = |more: &str| POOL.replace("sim-eu}", &format!("sim-eu{more}}}"));
    let missing = "providerConfig.key: Required value: name one";
    let disk = "providerConfig.disk: Invalid value: small ones have no disk";
    for (more, want) in [
        (", key: a", vec![]),
        (", key: a, type: large, disk: 9", vec![]),
        ("", vec![format!("a.yaml:10:23: {missing}")]),
        (", key: null", vec![format!("a.yaml:10:75: {missing}")]),
        (", key: a, disk: 9", vec![format!("a.yaml:10:84: {disk}")]),
        (
            ", disk: 9",
            vec![
                format!("a.yaml:10:23: {missing}"),
                format!("a.yaml:10:76: {disk}"),
            ],
        ),
        // What has not its shape is told alone.
        (
            ", disk: much",
            vec!["a.yaml:10:76: providerConfig.disk must be a whole number".into()],
        ),
    ] {
        assert_eq!(found(&[("a.yaml", with(more))]), want, "{more}");
    }
    // In a base it is told there, and only of what is built on it.
    let base = with(", disk: 9").replace("metadata:\n  name: web\n", "base: true\n");
    assert_eq!(found(&[("base.yaml", base.clone())]), [""; 0]);
    let web = "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\nbases: [base.yaml]\nmetadata: {name: web}\nspec: {template: {spec: {providerConfig: {key: a}}}}\n";
    let found = found(&[("base.yaml", base), ("web.yaml", web.into())]);
    assert_eq!(
        found,
        [format!(
            "base.yaml:9:76: {disk} (used by MachineDeployment default/web, web.yaml:1)"
        )]
    );
}

/// Impossible values, as far as a schema can tell; what rules of our kinds tell is refused by the API server.
#[test]
fn impossible_values_name_their_field() {
    let pool = |from: &str, to: &str| format!("{CLUSTER}---\n{}", POOL.replace(from, to));
    let spec = "    spec:\n";
    let content = |more: &str| pool(spec, &format!("{spec}      {more}\n"));
    let rule = |drain: &str, more: &str| {
        format!(
            "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDrainRule\nmetadata:\n  name: r\nspec:\n  drain: {drain}\n{more}"
        )
    };
    for (text, wanted) in [
        (
            pool("replicas: 3", "replicas: -1"),
            "spec.replicas must be at least 0",
        ),
        (
            pool("replicas: 3", "revisionHistoryLimit: -2"),
            "spec.revisionHistoryLimit must be at least 0",
        ),
        (
            content("minReadySeconds: -1"),
            "spec.template.spec.minReadySeconds must be at least 0",
        ),
        (
            content("deletion: {nodeDrainTimeoutSeconds: 0}"),
            "spec.template.spec.deletion.nodeDrainTimeoutSeconds must be at least 1",
        ),
        (
            content("deletion: {nodeDrainTimeout: 5}"),
            "unknown field spec.template.spec.deletion.nodeDrainTimeout",
        ),
        (
            content("version: latest"),
            "spec.template.spec.version is \"latest\": it must match",
        ),
        (
            content("version: v1.33"),
            "spec.template.spec.version is \"v1.33\": it must match ^v?(0|[1-9]\\d*)\\.(0|[1-9]\\d*)\\.(0|[1-9]\\d*)([-+].+)?$ (Kubernetes version such as v1.33.2)",
        ),
        (
            content("taints: [{key: a, effect: Never}]"),
            "spec.template.spec.taints[0].effect is \"Never\": it must be one of",
        ),
        (
            rule("{behavior: Stop}", ""),
            "spec.drain.behavior is \"Stop\": it must be one of",
        ),
        (
            rule("{behavior: Drain, order: first}", ""),
            "spec.drain.order must be a whole number",
        ),
        (
            rule("{behavior: Skip}", "  pods: [{selectr: {}}]\n"),
            "unknown field spec.pods[0].selectr: did you mean selector?",
        ),
    ] {
        let loaded = run(&[("a.yaml", &text)], Allow::default());
        let shown: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(
            shown.iter().any(|e| e.contains(wanted)),
            "wanted {wanted}, got {shown:?}"
        );
    }
    let good = rule("{behavior: Drain, order: -5}", "");
    assert_eq!(run(&[("a.yaml", &good)], Allow::default()).errors, []);
}

#[test]
fn all_files_are_checked_at_once() {
    let loaded = run(
        &[("a.yaml", "a: ["), ("b.yaml", CLUSTER), ("c.yaml", CLUSTER)],
        Allow::default(),
    );
    let shown: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("a.yaml:"));
    assert!(
        shown
            .iter()
            .any(|e| e.contains("already declared at b.yaml:4:"))
    );
}

#[test]
fn the_fleet_narrows_what_files_may_hold() {
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let accounts = |names| Allow {
        accounts: list(names),
        ..Allow::default()
    };
    let kinds = |names| Allow {
        kinds: list(names),
        ..Allow::default()
    };
    let namespaces = |names| Allow {
        namespaces: list(names),
        ..Allow::default()
    };
    let base = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
base: true
metadata: {name: small}
spec:
  template:
    spec:
      providerConfig: {apiVersion: sim/v1, kind: M, account: sim-eu}
";
    let built = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
bases: [base.yaml]
metadata: {name: web}
spec: {clusterName: alpha}
";
    let elsewhere = POOL.replace("account: sim-eu", "account: other");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-b}\n";
    // What is allowed, the files, and what is wrong with them.
    type Row<'a> = (Allow, Vec<(&'a str, &'a str)>, Vec<&'a str>);
    let rows: [Row<'_>; 8] = [
        (accounts(&["sim-eu"]), vec![("p.yaml", POOL)], vec![]),
        (
            accounts(&["sim-eu"]),
            vec![("p.yaml", &elsewhere)],
            vec!["p.yaml:10:62: the Fleet does not allow ProviderAccount other"],
        ),
        (
            accounts(&["other"]),
            vec![("base.yaml", base), ("web.yaml", built)],
            vec![
                "base.yaml:8:62: the Fleet does not allow ProviderAccount sim-eu (used by MachineDeployment default/web, web.yaml:1)",
                "cluster.yaml:12:66: the Fleet does not allow ProviderAccount sim-eu",
            ],
        ),
        (
            kinds(&["Cluster"]),
            vec![("p.yaml", POOL)],
            vec!["p.yaml:2:7: the Fleet does not allow kind MachineDeployment"],
        ),
        (
            kinds(&["Cluster", "MachineDeployment"]),
            vec![("p.yaml", POOL)],
            vec![],
        ),
        (
            namespaces(&["default"]),
            vec![("n.yaml", namespace)],
            vec!["n.yaml:3:11: the Fleet does not allow namespace team-b"],
        ),
        (
            namespaces(&["default", "team-b"]),
            vec![("n.yaml", namespace)],
            vec![],
        ),
        (
            namespaces(&["team-b"]),
            vec![],
            vec!["cluster.yaml:4:3: the Fleet does not allow namespace default"],
        ),
    ];
    for (allow, files, wanted) in rows {
        let files = [("cluster.yaml", CLUSTER)].into_iter().chain(files);
        let loaded = run(&files.collect::<Vec<_>>(), allow.clone());
        let shown: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown, wanted, "{allow:?}");
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let row = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    assert_eq!(run(&[("a.yaml", &text)], Allow::default()).errors.len(), 1);
}

#[test]
fn hostile_text_is_a_mistake_with_its_place_and_nothing_worse() {
    let deep = |open: &str, close: &str, n: usize| {
        format!("a: 1\nb: {}{}", open.repeat(n), close.repeat(n))
    };
    let indented = (0..2_000).fold(String::new(), |text, n| {
        format!("{text}{}a:\n", " ".repeat(n.min(1_000)))
    });
    let rows: Vec<(&str, String)> = vec![
        ("lists in lists", deep("[", "]", 100_000)),
        ("maps in maps", deep("{a: ", "}", 100_000)),
        ("lists that never end", deep("[", "", 100_000)),
        ("maps by indentation", indented),
        ("dashes in dashes", "- ".repeat(100_000)),
        ("many documents", "---\na: 1\n".repeat(3_000)),
        ("an anchor in itself", "a: &a [*a]".into()),
        ("an unknown alias", "a: 1\nb: *nothing".into()),
        ("a key that is a map", "? {a: 1}\n: 2".into()),
        ("a tag", "a: !!python/object/apply:os.system [ls]".into()),
        ("merge keys", "a: &a {x: 1}\nb: {<<: *a, <<: *a}".into()),
        ("control characters", "a: \u{0}\u{7}".into()),
        ("a byte order mark inside", "a: 1\n\u{feff}b: 2".into()),
        ("numbers without end", format!("a: {}", "9".repeat(100_000))),
        ("no number", "a: .nan".into()),
        ("a directive", "%YAML 9.9\n---\na: 1".into()),
        ("JSON cut off", "{\"apiVersion\": \"v1\", \"kind\": ".into()),
        (
            "many keys",
            (0..200_000).map(|n| format!("k{n}: 1\n")).collect(),
        ),
    ];
    for (what, text) in rows {
        let loaded = run(&[("a.yaml", &text)], Allow::default());
        assert!(loaded.objects.is_empty(), "{what}");
        assert!(!loaded.errors.is_empty(), "{what}");
        for error in &loaded.errors {
            assert!(error.line >= 1 && error.column >= 1, "{what}: {error}");
            assert!(error.to_string().len() < 2_000, "{what}");
        }
    }
}
