use serde_json::json;

use crate::load::{
    Loaded,
    tests::{CLUSTER, run},
};
use fleetwright_api::fleet::Allow;

const HEAD: &str = "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\n";
const BASE: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
base: true
metadata:
  labels: {team: shop, tier: front}
spec:
  replicas: 3
  template:
    spec:
      taints:
      - {key: shop, value: a, effect: NoSchedule}
      - {key: spare, value: b, effect: NoSchedule}
      providerConfig:
        apiVersion: sim/v1
        kind: M
        account: sim-eu
        size: 2
";
const WEB: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
bases: [../base/pool.yaml]
metadata:
  name: web
  labels: {tier: null, site: eu}
spec:
  clusterName: alpha
  template:
    spec:
      taints:
      - {key: spare, value: c, effect: NoSchedule}
      - {key: own, effect: NoExecute}
      providerConfig: {size: 4}
";

fn loaded(files: &[(&str, &str)]) -> Loaded {
    let with = [("cluster.yaml", CLUSTER)].iter().chain(files);
    run(&with.copied().collect::<Vec<_>>(), Allow::default())
}

fn errors(files: &[(&str, &str)]) -> Vec<String> {
    let errors = loaded(files).errors;
    errors.iter().map(ToString::to_string).collect()
}

fn pool(files: &[(&str, &str)]) -> serde_json::Value {
    let loaded = loaded(files);
    assert_eq!(loaded.errors, []);
    loaded.objects[1].document.clone()
}

#[test]
fn a_document_is_laid_over_its_base() {
    let loaded = loaded(&[("base/pool.yaml", BASE), ("eu/web.yaml", WEB)]);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.objects.len(), 2);
    let web = &loaded.objects[1];
    assert_eq!((web.file.as_str(), web.line), ("eu/web.yaml", 1));
    assert_eq!(
        web.document,
        json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment",
            "metadata": {"name": "web", "namespace": "default", "labels": {"team": "shop", "site": "eu"}},
            "spec": {"clusterName": "alpha", "replicas": 3, "template": {"spec": {
                "taints": [
                    {"key": "shop", "value": "a", "effect": "NoSchedule"},
                    {"key": "spare", "value": "c", "effect": "NoSchedule"},
                    {"key": "own", "effect": "NoExecute"},
                ],
                "providerConfig": {"apiVersion": "sim/v1", "kind": "M", "account": "sim-eu", "size": 4},
            }}},
        })
    );
    let origin = |path: &str| {
        let path: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
        let origin = web.origins.of(&path).unwrap();
        format!("{origin}:{}", origin.column)
    };
    for (path, place) in [
        ("spec.replicas", "base/pool.yaml:7:13"),
        ("spec.clusterName", "eu/web.yaml:8:16"),
        ("spec.template.spec.taints.1.value", "eu/web.yaml:12:29"),
        ("spec.template.spec.taints.0.value", "base/pool.yaml:11:28"),
        (
            "spec.template.spec.providerConfig.account",
            "base/pool.yaml:16:18",
        ),
        (
            "spec.template.spec.providerConfig.size",
            "eu/web.yaml:14:30",
        ),
    ] {
        assert_eq!(origin(path), place, "{path}");
    }
}

#[test]
fn bases_are_merged_from_left_to_right_each_once_and_what_they_are_built_on_first() {
    let base =
        |bases: &str, spec: &str| format!("{HEAD}base: true\nbases: [{bases}]\nspec: {{{spec}}}\n");
    let (root, left, right) = (
        base(
            "",
            "replicas: 1, revisionHistoryLimit: 1, clusterName: none",
        ),
        base("root.yaml", "replicas: 2, clusterName: alpha"),
        base("root.yaml", "revisionHistoryLimit: 3"),
    );
    let config = "template: {spec: {providerConfig: {apiVersion: sim/v1, kind: M, account: a}}}";
    let own = format!(
        "{HEAD}bases: [left.yaml, right.yaml]\nmetadata: {{name: web}}\nspec: {{{config}}}\n"
    );
    let merged = pool(&[
        ("root.yaml", &root),
        ("left.yaml", &left),
        ("right.yaml", &right),
        ("web.yaml", &own),
    ]);
    // What left says of root's values stands, though right is built on root as well.
    assert_eq!(merged["spec"]["replicas"], 2);
    assert_eq!(merged["spec"]["revisionHistoryLimit"], 3);
    assert_eq!(merged["spec"]["clusterName"], "alpha");
}

#[test]
fn a_document_of_several_is_named_and_need_be_no_base() {
    let config = "clusterName: alpha, template: {spec: {providerConfig: {apiVersion: sim/v1, kind: M, account: a}}}";
    let two = format!(
        "{HEAD}metadata: {{name: a}}\nspec: {{replicas: 1, {config}}}\n---\n{HEAD}metadata: {{name: b}}\nspec: {{replicas: 2, {config}}}\n---\n{HEAD}bases: ['#a']\nmetadata: {{name: c}}\n"
    );
    let own = |text: &str| format!("{HEAD}bases: [{text}]\nmetadata: {{name: web}}\n");
    let found = loaded(&[("two.yaml", &two), ("web.yaml", &own("two.yaml#b"))]);
    assert_eq!(found.errors, []);
    let replicas: Vec<_> = found.objects[1..]
        .iter()
        .map(|o| {
            (
                o.key.name.as_str(),
                o.document["spec"]["replicas"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(replicas, [("a", 1), ("b", 2), ("c", 1), ("web", 2)]);
    assert_eq!(
        errors(&[("two.yaml", &two), ("web.yaml", &own("two.yaml"))]),
        [
            "web.yaml:3:9: two.yaml has several documents of kind MachineDeployment: add the name of one, such as #a"
        ]
    );
}

#[test]
fn settings_of_another_provider_take_the_place_of_those_of_a_base() {
    let own = format!(
        "{HEAD}bases: [base.yaml]\nmetadata: {{name: web}}\nspec: {{clusterName: alpha, template: {{spec: {{providerConfig: {{apiVersion: other/v1, kind: Other, account: x}}}}}}}}\n"
    );
    let found = loaded(&[("base.yaml", BASE), ("web.yaml", &own)]);
    let shown: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["web.yaml:5:91: no provider knows Other of other/v1"]
    );
    let config = &found.objects[1].document["spec"]["template"]["spec"]["providerConfig"];
    assert_eq!(
        *config,
        json!({"apiVersion": "other/v1", "kind": "Other", "account": "x"})
    );
}

#[test]
fn mistakes_stand_where_the_value_was_written_and_name_who_uses_it() {
    let change = |from: &str, to: &str| BASE.replace(from, to);
    let other = WEB.replace("name: web", "name: more");
    for (base, wanted) in [
        (
            change("size: 2", "sise: 2"),
            "base/pool.yaml:17:9: unknown field providerConfig.sise: did you mean size? (used by MachineDeployment default/web, eu/web.yaml:1 and 1 more)",
        ),
        (
            change("replicas: 3", "replicas: three"),
            "base/pool.yaml:7:13: spec.replicas must be a whole number (used by MachineDeployment default/web, eu/web.yaml:1 and 1 more)",
        ),
        (
            change("  replicas: 3", "  replicas: 3\n  clusterNam: x"),
            "base/pool.yaml:8:3: unknown field spec.clusterNam: did you mean clusterName? (used by MachineDeployment default/web, eu/web.yaml:1 and 1 more)",
        ),
        (
            format!("{BASE}status: {{}}\n"),
            "base/pool.yaml:18:1: status is written by controllers: remove it here (used by MachineDeployment default/web, eu/web.yaml:1 and 1 more)",
        ),
    ] {
        let files = [
            ("base/pool.yaml", base.as_str()),
            ("eu/web.yaml", WEB),
            ("us/web.yaml", &other),
        ];
        assert_eq!(errors(&files), [wanted]);
    }
    // Nobody is built on it: its mistakes are told all the same, and what it lacks is none.
    let alone = BASE.replace("replicas: 3", "replicas: three");
    assert_eq!(
        errors(&[("base/pool.yaml", &alone)]),
        ["base/pool.yaml:7:13: spec.replicas must be a whole number"]
    );
    // What a document and its bases all lack is missing in the document.
    let lacks = WEB.replace("  clusterName: alpha\n", "");
    assert_eq!(
        errors(&[("base/pool.yaml", BASE), ("eu/web.yaml", &lacks)]),
        ["eu/web.yaml:8:3: spec.clusterName is missing"]
    );
    // A cluster that is not there is the fault of whoever names it.
    let names = change("  replicas: 3", "  replicas: 3\n  clusterName: beta");
    let built = WEB.replace("  clusterName: alpha\n", "");
    assert_eq!(
        errors(&[("base/pool.yaml", &names), ("eu/web.yaml", &built)]),
        [
            "base/pool.yaml:8:16: there is no Cluster default/beta: declare it or correct clusterName (used by MachineDeployment default/web, eu/web.yaml:1)"
        ]
    );
}

#[test]
fn a_list_of_bases_that_leads_nowhere_is_a_mistake_with_its_place() {
    let own = |bases: &str| {
        format!("{HEAD}bases: {bases}\nmetadata: {{name: web}}\nspec: {{clusterName: alpha}}\n")
    };
    for (bases, wanted) in [
        (
            "[../../etc/pool.yaml]",
            "eu/web.yaml:3:9: ../../etc/pool.yaml leaves what is followed",
        ),
        (
            "[/etc/passwd]",
            "eu/web.yaml:3:9: /etc/passwd: the path of a base begins at the folder of this file",
        ),
        (
            "['https://example.org/pool.yaml']",
            "eu/web.yaml:3:9: https://example.org/pool.yaml: nothing is fetched for a base",
        ),
        (
            "[../pool.yaml, ../nothing.yaml]",
            "eu/web.yaml:3:23: there is no file nothing.yaml",
        ),
        (
            "[../cluster.yaml]",
            "eu/web.yaml:3:9: cluster.yaml has no MachineDeployment to be",
        ),
        (
            "['../pool.yaml#api']",
            "eu/web.yaml:3:9: pool.yaml has no MachineDeployment named api",
        ),
        (
            "[../broken.yaml]",
            "eu/web.yaml:3:9: broken.yaml cannot be read: see its own mistake",
        ),
        (
            "../pool.yaml",
            "eu/web.yaml:3:8: bases must be a list of files",
        ),
        ("[7]", "eu/web.yaml:3:9: a base is a text"),
        (
            "[web.yaml]",
            "eu/web.yaml:3:9: bases go round in a circle: eu/web.yaml:1 -> eu/web.yaml:1",
        ),
    ] {
        let text = own(bases);
        let found = errors(&[
            ("eu/web.yaml", &text),
            ("pool.yaml", BASE),
            ("broken.yaml", "a: ["),
        ]);
        let wanted = wanted.replace(" to be", "");
        assert!(
            found.iter().any(|e| e.starts_with(&wanted)),
            "wanted {wanted}, got {found:#?}"
        );
        assert!(
            found
                .iter()
                .all(|e| e.starts_with("eu/web.yaml") || e.starts_with("broken.yaml")),
            "{found:#?}"
        );
    }
    let circle = |to: &str| format!("{HEAD}base: true\nbases: [{to}]\n");
    let found = errors(&[
        ("a.yaml", &circle("b.yaml")),
        ("b.yaml", &circle("a.yaml")),
        ("web.yaml", &own("[a.yaml]")),
    ]);
    assert_eq!(
        found,
        [
            "a.yaml:4:9: bases go round in a circle: b.yaml:1 -> a.yaml:1 -> b.yaml:1 (used by the base at b.yaml:1)",
            "b.yaml:4:9: bases go round in a circle: a.yaml:1 -> b.yaml:1 -> a.yaml:1 (used by the base at a.yaml:1 and 1 more)",
        ]
    );
    for (base, wanted) in [
        ("yes please", "a.yaml:3:7: base must be true or false"),
        ("null", "a.yaml:3:7: base must be true or false"),
    ] {
        assert_eq!(
            errors(&[(
                "a.yaml",
                &format!("{HEAD}base: {base}\nmetadata: {{name: a}}\n")
            )]),
            [wanted]
        );
    }
    let placed = BASE.replace("metadata:\n", "metadata:\n  namespace: shop\n");
    assert_eq!(
        errors(&[("a.yaml", &placed)]),
        ["a.yaml:5:3: a base has no namespace: what is built on it says its own"]
    );
}

#[test]
fn bases_are_bounded_in_depth_and_number() {
    let chain = |n: usize| -> Vec<(String, String)> {
        (0..n)
            .map(|i| {
                (
                    format!("b{i}.yaml"),
                    format!(
                        "{HEAD}base: true\nbases: [b{}.yaml]\nspec: {{replicas: {i}}}\n",
                        i + 1
                    ),
                )
            })
            .collect()
    };
    let last = |n: usize| {
        (
            format!("b{n}.yaml"),
            format!("{HEAD}base: true\nspec: {{revisionHistoryLimit: 7}}\n"),
        )
    };
    for (n, fits) in [(9, true), (10, false)] {
        let mut files = chain(n);
        files.push(last(n));
        files.push((
            "web.yaml".into(),
            WEB.replace("../base/pool.yaml", "b0.yaml")
                .replace("{size: 4}", "{apiVersion: sim/v1, kind: M, account: a}"),
        ));
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        let found = errors(&files);
        match fits {
            true => {
                assert_eq!(found, [""; 0]);
                assert_eq!(pool(&files)["spec"]["revisionHistoryLimit"], 7);
            }
            false => assert!(found.iter().any(|e| e.starts_with("b9.yaml:4:9: bases of bases go deeper than 10 (used by MachineDeployment default/web, web.yaml:1")), "{found:?}"),
        }
    }
    let many: String = (0..1_001)
        .map(|i| format!("{HEAD}base: true\nmetadata: {{name: b{i}}}\n---\n"))
        .collect();
    let names: Vec<String> = (0..1_001).map(|i| format!("many.yaml#b{i}")).collect();
    let web = WEB.replace("../base/pool.yaml", &names.join(", "));
    let found = errors(&[("many.yaml", &many), ("web.yaml", &web)]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with("this is built on more than 1000 documents"),
        "{found:?}"
    );
}

/// Documents that use one large base: what is merged is counted, not only what is written.
#[test]
fn cve_2022_24878_merging_without_end_is_one_mistake() {
    let labels: String = (0..5_000).map(|i| format!("    l{i}: x\n")).collect();
    let base = format!("{HEAD}base: true\nmetadata:\n  labels:\n{labels}");
    let users: String = (0..100)
        .map(|i| format!("{HEAD}bases: [base.yaml]\nmetadata: {{name: u{i}}}\n---\n"))
        .collect();
    let found = errors(&[("base.yaml", &base), ("users.yaml", &users)]);
    let mine: Vec<_> = found
        .iter()
        .filter(|e| e.contains("more than 100000 values"))
        .collect();
    assert_eq!(mine.len(), 1, "{mine:?}");
    assert!(mine[0].starts_with("users.yaml:"), "{mine:?}");
}

/// What a commit to a base changes is what is built on it, and nothing else.
#[test]
fn a_changed_base_changes_exactly_the_documents_that_use_it() {
    let other = WEB
        .replace("name: web", "name: other")
        .replace("bases: [../base/pool.yaml]\n", "")
        .replace("{size: 4}", "{apiVersion: sim/v1, kind: M, account: a}")
        .replace("tier: null, ", "");
    let second = WEB
        .replace("name: web", "name: api")
        .replace("spec:\n  cl", "spec:\n  replicas: 1\n  cl");
    let with = |base: &str| {
        loaded(&[
            ("base/pool.yaml", base),
            ("eu/other.yaml", &other),
            ("eu/web.yaml", WEB),
            ("eu/api.yaml", &second),
        ])
    };
    let (before, after) = (
        with(BASE),
        with(&BASE.replace("replicas: 3", "replicas: 5")),
    );
    assert_eq!(after.errors, []);
    let pairs = before.objects.iter().zip(&after.objects);
    let changed: Vec<String> = pairs
        .filter(|(a, b)| a.document != b.document)
        .map(|(a, _)| a.key.to_string())
        .collect();
    assert_eq!(changed, ["MachineDeployment default/web"]);
    let text = crate::render(&after.objects[3]);
    assert!(
        text.contains("  replicas: 5  # base/pool.yaml:7\n"),
        "{text}"
    );
    assert!(text.starts_with("---\n# eu/web.yaml:1\n"), "{text}");
    let read = crate::yaml::parse(&text).unwrap();
    assert_eq!(read[0].to_value(), after.objects[3].document);
}
