use fleetwright_api::fleet::Allow;
use serde_json::Value;

use super::super::tests::{CLUSTER, run};
use crate::load::{Loaded, MAX_FILE_BYTES};

const CNI: &str = "apiVersion: v1
kind: Namespace
metadata: {name: cni}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cni, namespace: cni}
";

/// The cluster `alpha` with these entries of bootstrapManifests.
fn cluster(entries: &str) -> String {
    format!("{CLUSTER}  bootstrapManifests: {entries}\n")
}

fn load(files: &[(&str, &str)]) -> Loaded {
    run(files, Allow::default())
}

fn mistakes(files: &[(&str, &str)]) -> Vec<String> {
    let errors = load(files).errors;
    errors.iter().map(ToString::to_string).collect()
}

fn hashes(loaded: &Loaded, name: &str) -> Vec<Option<String>> {
    let mut objects = loaded.objects.iter();
    let found = objects.find(|o| o.key.kind == "Cluster" && o.key.name == name);
    let list = found.unwrap().document["spec"]["bootstrapManifests"].as_array();
    let hash = |entry: &Value| entry["contentHash"].as_str().map(str::to_owned);
    list.unwrap().iter().map(hash).collect()
}

#[test]
fn a_named_file_is_kept_in_a_config_map_and_is_nothing_else() {
    let files = [
        (
            "clusters/a.yaml",
            &*cluster("[{path: ./base//cni.yaml}, {path: more.json}]"),
        ),
        ("base/cni.yaml", CNI),
        (
            "more.json",
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}"#,
        ),
    ];
    let loaded = load(&files);
    assert_eq!(loaded.errors, []);
    let shown: Vec<String> = loaded
        .objects
        .iter()
        .map(|o| format!("{} {}:{}", o.key, o.file, o.line))
        .collect();
    let [cni, more] = ["base/cni.yaml", "more.json"]
        .map(|path| fleetwright_api::names::bootstrap_manifest("alpha", path));
    let mut want = vec![
        "Cluster default/alpha clusters/a.yaml:1".to_owned(),
        format!("ConfigMap default/{cni} base/cni.yaml:1"),
        format!("ConfigMap default/{more} more.json:1"),
    ];
    want.sort();
    let mut sorted = shown.clone();
    sorted.sort();
    assert_eq!(sorted, want);
    let map = loaded.objects.iter().find(|o| o.key.name == cni).unwrap();
    let annotations = &map.document["metadata"]["annotations"];
    let first = hashes(&loaded, "alpha");
    assert_eq!(
        annotations["fleetwright.dev/content-hash"].as_str(),
        first[0].as_deref()
    );
    assert_eq!(
        annotations["fleetwright.dev/manifest-path"],
        "base/cni.yaml"
    );

    // A changed manifest is a changed Cluster; nothing else of it changes.
    let changed = CNI.replace("namespace: cni", "namespace: cni, labels: {a: b}");
    let again = load(&[files[0], ("base/cni.yaml", &changed), files[2]]);
    let second = hashes(&again, "alpha");
    assert_ne!(first[0], second[0]);
    assert_eq!(first[1], second[1]);
    assert!(first.iter().all(Option::is_some));
}

#[test]
fn clusters_may_share_a_manifest_and_have_it_from_their_base() {
    let base = cluster("[{path: cni.yaml}]").replace("metadata:\n  name: alpha\n", "base: true\n");
    let built = |name: &str| {
        format!(
            "apiVersion: fleetwright.dev/v1alpha1\nkind: Cluster\nbases: [base/cluster.yaml]\nmetadata: {{name: {name}}}\n"
        )
    };
    let loaded = load(&[
        ("base/cluster.yaml", &base),
        ("a.yaml", &built("a")),
        ("b.yaml", &built("b")),
        ("cni.yaml", CNI),
    ]);
    assert_eq!(loaded.errors, []);
    assert_eq!(
        loaded.objects.len(),
        4,
        "two clusters, and a ConfigMap for each"
    );
    assert_eq!(hashes(&loaded, "a"), hashes(&loaded, "b"));
    let shared = mistakes(&[
        ("base/cluster.yaml", &base.replace("cni.yaml", "cnj.yaml")),
        ("a.yaml", &built("a")),
        ("b.yaml", &built("b")),
    ]);
    let [one] = &shared[..] else {
        panic!("{shared:#?}");
    };
    assert!(
        one.starts_with("base/cluster.yaml:12:31: there is no cnj.yaml"),
        "{one}"
    );
    assert!(one.contains("used by Cluster default/a"), "{one}");
}

#[test]
fn every_mistake_has_its_place() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    let noise: String = (0u32..400_000)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let large = format!(
        "{CNI}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: \"{noise}\"}}\n"
    );
    assert!(large.len() < MAX_FILE_BYTES);
    let rows: Vec<(&str, &str, &str)> = vec![
        (
            "[{path: cnx.yaml}]",
            CNI,
            "a.yaml:13:31: there is no cnx.yaml in what is followed",
        ),
        (
            "[{path: ../cni.yaml}]",
            CNI,
            "a.yaml:13:31: ../cni.yaml: a manifest is a file inside",
        ),
        (
            "[{path: a/../../x.yaml}]",
            CNI,
            "a.yaml:13:31: a/../../x.yaml: a manifest is a file inside",
        ),
        (
            "[{path: /etc/cni.yaml}]",
            CNI,
            "a.yaml:13:31: /etc/cni.yaml: the path of a manifest begins",
        ),
        (
            "[{path: \"https://example.org/cni.yaml\"}]",
            CNI,
            "a.yaml:13:31: https://example.org/cni.yaml: nothing is fetched",
        ),
        (
            "[{path: cni.txt}]",
            CNI,
            "a.yaml:13:31: cni.txt is not read: the name of a manifest ends in",
        ),
        (
            "[{path: .cni.yaml}]",
            CNI,
            "a.yaml:13:31: .cni.yaml is not read",
        ),
        (
            "[{path: base}]",
            CNI,
            "a.yaml:13:31: base is a folder: name each of its files",
        ),
        (
            "[{path: cni.yaml}, {path: ./cni.yaml}]",
            CNI,
            "a.yaml:13:49: cni.yaml is kept in ConfigMap default/alpha-manifest-",
        ),
        (
            "[{path: cni.yaml, contentHash: abc}]",
            CNI,
            "a.yaml:13:41: contentHash is filled in from what the manifest holds",
        ),
        ("[{path: cni.yaml}]", "a: [", "cni.yaml:"),
        (
            "[{path: cni.yaml}]",
            "kind: A\n",
            "cni.yaml:1:1: apiVersion is missing",
        ),
        (
            "[{path: cni.yaml}]",
            &CNI[..CNI.len() - "metadata: {name: cni, namespace: cni}\n".len()],
            "cni.yaml:5:1: metadata.name is missing",
        ),
        (
            "[{path: cni.yaml}]",
            "- a\n",
            "cni.yaml:1:1: a document must be an object",
        ),
        (
            "[{path: cni.yaml}]",
            secret,
            "cni.yaml:2:7: Secret is refused in a bootstrap manifest",
        ),
        (
            "[{path: cni.yaml}]",
            CLUSTER,
            "cni.yaml:2:7: Cluster is refused in a bootstrap manifest: this is no object of a workload cluster",
        ),
        (
            "[{path: cni.yaml}]",
            &large,
            "cni.yaml:1:1: too large: it has ",
        ),
        (
            "[{configMap: own}]",
            CNI,
            "a.yaml:13:36: ConfigMap default/own, own.yaml:1, holds no manifest: a.yaml:1:1: kind is missing",
        ),
    ];
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own}\ndata: {a.yaml: \"apiVersion: v1\"}\n";
    for (entries, cni, want) in rows {
        // The file is a manifest whatever the entry says, so that its own mistakes are the only others.
        let rest = "---\n".to_owned()
            + &cluster("[{path: cni.yaml}, {path: base/x.yaml}]")
                .replace("name: alpha", "name: beta");
        let found = mistakes(&[
            ("a.yaml", &cluster(entries)),
            ("b.yaml", &rest),
            ("base/x.yaml", CNI),
            ("cni.yaml", cni),
            ("own.yaml", own),
        ]);
        assert!(!found.is_empty(), "{want}");
        assert!(found[0].starts_with(want), "{want}: {found:#?}");
        assert_eq!(found.len(), 1, "{want}: {found:#?}");
    }
    // A cluster's own file cannot be taken away by naming it.
    let found = mistakes(&[("a.yaml", &cluster("[{path: a.yaml}]"))]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("a.yaml:2:7: Cluster is refused"),
        "{found:#?}"
    );
}

#[test]
fn a_config_map_of_the_repository_is_followed_and_another_is_left_to_the_cluster() {
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own}\ndata: {a.yaml: \"{apiVersion: v1, kind: Namespace, metadata: {name: a}}\"}\n";
    let loaded = load(&[
        (
            "a.yaml",
            &cluster("[{configMap: own}, {configMap: theirs}]"),
        ),
        ("own.yaml", own),
    ]);
    assert_eq!(loaded.errors, []);
    let first = hashes(&loaded, "alpha");
    assert!(first[0].is_some() && first[1].is_none(), "{first:?}");
    let loaded = load(&[
        ("a.yaml", &cluster("[{configMap: own}]")),
        ("own.yaml", &own.replace("name: a}", "name: b}")),
    ]);
    assert_ne!(hashes(&loaded, "alpha")[0], first[0]);
}

#[test]
fn manifests_need_what_they_are_kept_in() {
    let files = [
        ("a.yaml", &*cluster("[{path: cni.yaml}]")),
        ("cni.yaml", CNI),
    ];
    let allow = Allow {
        kinds: vec!["Cluster".into()],
        ..Allow::default()
    };
    let found = run(&files, allow).errors;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].to_string().starts_with(
            "a.yaml:13:31: the Fleet does not allow kind ConfigMap, in which manifests are kept"
        ),
        "{found:#?}"
    );
}
