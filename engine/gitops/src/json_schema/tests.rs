use std::path::Path;

use jsonschema::Validator;

use super::*;
use crate::{
    source::{Filter, read_directory},
    yaml,
};

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::default();
    for schema in fleetwright_provider_sim::config::schemas() {
        catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
    }
    catalogue
}

fn validators() -> [Validator; 3] {
    let catalogue = catalogue();
    let kind = |kind| of_kind(kind, &catalogue).unwrap();
    [
        of_all(&catalogue),
        kind("Cluster"),
        kind("MachineDeployment"),
    ]
    .map(|schema| jsonschema::draft7::new(&schema).unwrap())
}

fn faults(validator: &Validator, document: &Value) -> Vec<String> {
    let all = validator.iter_errors(document);
    all.map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn the_schemas_are_schemas_of_draft_07_and_tell_what_fields_are() {
    let catalogue = catalogue();
    for schema in KINDS
        .map(|kind| of_kind(kind, &catalogue).unwrap())
        .iter()
        .chain([&of_all(&catalogue)])
    {
        assert!(jsonschema::meta::is_valid(schema));
        assert!(!schema.to_string().contains("x-kubernetes"));
    }
    let pool = of_kind("MachineDeployment", &catalogue).unwrap();
    let described = pool.pointer("/properties/spec/properties/replicas/description");
    assert!(described.is_some_and(Value::is_string), "{described:?}");
    let config = pool
        .pointer("/properties/spec/properties/template/properties/spec/properties/providerConfig");
    let types = config.and_then(|c| c.pointer("/allOf/1/then/properties/instanceType/enum"));
    assert!(
        types.is_some_and(|t| t.to_string().contains("sim.large")),
        "{types:?}"
    );
    assert_eq!(of_kind("ConfigMap", &catalogue), None);
}

#[test]
fn every_document_of_the_examples_fits() {
    let [all, cluster, pool] = validators();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples-repo");
    let files = read_directory(&examples, "", &Filter::default())
        .unwrap()
        .files;
    let mut seen = 0;
    for file in files {
        let text = String::from_utf8(file.content.unwrap()).unwrap();
        for document in yaml::parse(&text).unwrap() {
            let document = document.to_value();
            let own = match document["kind"].as_str() {
                Some("Cluster") => faults(&cluster, &document),
                Some("MachineDeployment") => faults(&pool, &document),
                _ => Vec::new(),
            };
            assert_eq!(own, [""; 0], "{}", file.path);
            assert_eq!(faults(&all, &document), [""; 0], "{}", file.path);
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

const POOL: &str = "apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
metadata: {name: web, labels: {team: shop}}
spec:
  clusterName: eu
  replicas: 3
  rollout: {strategy: {rollingUpdate: {maxSurge: 50%, maxUnavailable: 0}}}
  template:
    spec:
      taints: [{key: a, effect: NoSchedule}]
      providerConfig:
        apiVersion: sim.fleetwright.dev/v1alpha1
        kind: SimMachineConfig
        account: sim-eu
        instanceType: sim.large
        tags: {cost: shop}
";

#[test]
fn what_loading_refuses_is_refused_and_what_it_takes_is_taken() {
    let [all, cluster, pool] = validators();
    let read = |text: &str| yaml::parse(text).unwrap().remove(0).to_value();
    let change = |from: &str, to: &str| {
        assert!(POOL.contains(from), "{from}");
        POOL.replace(from, to)
    };
    let head = "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\n";
    let spec = "spec:\n  template: {spec: {providerConfig: {instanceType: sim.small}}}\n";
    for (what, good) in [
        ("a pool", POOL.to_owned()),
        ("nulls", change("replicas: 3", "replicas: null")),
        ("no replicas", change("  replicas: 3\n", "")),
        (
            "a document with bases leaves out",
            format!("{head}bases: [../base.yaml]\nmetadata: {{name: web}}\n{spec}"),
        ),
        (
            "and needs no spec",
            format!("{head}bases: ['base.yaml#a']\nmetadata: {{name: web}}\n"),
        ),
        ("a base has no name", format!("{head}base: true\n{spec}")),
    ] {
        let document = read(&good);
        assert_eq!(faults(&pool, &document), [""; 0], "{what}");
        assert_eq!(faults(&all, &document), [""; 0], "{what}");
        assert!(!cluster.is_valid(&document), "{what}");
    }
    for (what, bad) in [
        ("an unknown field", change("replicas: 3", "replcas: 3")),
        ("a wrong type", change("replicas: 3", "replicas: three")),
        ("out of bounds", change("replicas: 3", "replicas: -1")),
        ("no cluster", change("  clusterName: eu\n", "")),
        ("no name", change("name: web, ", "")),
        ("a bad name", change("name: web", "name: Web")),
        ("an unknown label", change("team: shop", "team: 7")),
        ("a uid", change("name: web", "uid: x, name: web")),
        ("a status", format!("{POOL}status: {{}}\n")),
        (
            "no effect of a taint",
            change("key: a, effect: NoSchedule", "key: a"),
        ),
        (
            "another effect",
            change("effect: NoSchedule", "effect: Never"),
        ),
        (
            "an unknown setting",
            change("instanceType: sim.large", "instanceTyp: sim.large"),
        ),
        ("an impossible setting", change("sim.large", "sim.gigantic")),
        (
            "an unknown provider",
            change("kind: SimMachineConfig", "kind: Other"),
        ),
        ("no account", change("        account: sim-eu\n", "")),
        (
            "bases that are no list",
            format!("{head}bases: base.yaml\nmetadata: {{name: web}}\n"),
        ),
        (
            "an unknown setting over a base",
            format!("{head}bases: [b.yaml]\nmetadata: {{name: web}}\nspec:\n  replica: 1\n"),
        ),
        (
            "a base that is no truth",
            format!("{head}base: 'yes'\n{spec}"),
        ),
    ] {
        let document = read(&bad);
        assert!(!pool.is_valid(&document), "{what}");
        assert!(!all.is_valid(&document), "{what}");
    }
    for (what, fits) in [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n",
            true,
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", false),
    ] {
        assert_eq!(all.is_valid(&read(what)), fits, "{what}");
    }
}
