use std::time::Duration;

use fleetwright_api::time::k8s_time;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use serde_json::{Value, json};

use super::*;
use crate::yaml::{self, Place};

fn cluster(manifests: Value) -> Cluster {
    serde_json::from_value(json!({
        "metadata": {"name": "eu", "namespace": "default"},
        "spec": {"version": "v1.33.0", "controlPlane": {}, "bootstrapManifests": manifests},
    }))
    .unwrap()
}

fn with_status(manifests: Value, hash: Option<String>) -> Cluster {
    let mut cluster = cluster(manifests);
    cluster
        .status
        .get_or_insert_default()
        .bootstrap_manifests_hash = hash;
    cluster
}

fn kept(config_map: Value) -> Contents {
    contents(serde_json::from_value(config_map).unwrap()).unwrap()
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
    let name = |path: &str| {
        let wanted = json!([{"path": path, "contentHash": "1"}]);
        sources(&cluster(wanted)).unwrap().remove(0).config_map
    };
    for path in ["./base/cni.yaml", "base//cni.yaml", "base/./cni.yaml"] {
        assert_eq!(name(path), name("base/cni.yaml"), "{path}");
    }
}

#[test]
fn a_file_is_kept_whole_and_always_in_the_same_bytes() {
    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cni}\n".repeat(100);
    let packed = Packed::of(text.as_bytes()).unwrap();
    let map = packed.config_map("default", "eu", "base/cni.yaml");
    assert_eq!(map["metadata"]["name"], "eu-manifest-dae6d25234");
    assert_eq!(
        map["metadata"]["annotations"]["fleetwright.dev/content-hash"],
        packed.hash
    );
    let read = kept(map.clone());
    assert_eq!(read[0].1, text.as_bytes());
    assert_eq!(hash_of(&read), packed.hash);
    assert_eq!(
        packed.config_map("default", "eu", "base/cni.yaml"),
        map,
        "the same again"
    );
    // Another compressor would make every plan show changes that are none: say so here first.
    let small = Packed::of(b"kind: A\n").unwrap();
    assert_eq!(
        small.config_map("a", "b", "c")["binaryData"]["manifest.yaml.gz"],
        "H4sIAAAAAAAC/8vOzEuxUnDkAgBqHK0GCAAAAA=="
    );
    assert_ne!(small.hash, packed.hash);
    let varied: String = (0..2_000).map(|n| format!("a{}: {n}\n", n * n)).collect();
    let varied = Packed::of(varied.as_bytes()).unwrap();
    let map = varied.config_map("a", "b", "c");
    let bytes = map["binaryData"]["manifest.yaml.gz"].as_str().unwrap();
    assert_eq!(names::short_hash([bytes], 16), "35fceb66a298facf");
}

#[test]
fn what_no_config_map_can_hold_is_refused() {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(MAX_KEPT_BYTES + 100_000)
    .collect();
    let why = Packed::of(&noise).unwrap_err();
    assert!(why.contains("divide it into several files"), "{why}");
    let bomb = Packed::of(&vec![b' '; MAX_BYTES + 1]).unwrap();
    let map = bomb.config_map("default", "eu", "a.yaml");
    let why = contents(serde_json::from_value(map).unwrap()).unwrap_err();
    assert_eq!(why, "manifest.yaml.gz has more than 4194304 bytes");
    let plain = ConfigMap {
        binary_data: Some([("a.gz".to_owned(), ByteString(b"no".to_vec()))].into()),
        ..ConfigMap::default()
    };
    let why = contents(plain).unwrap_err();
    assert!(why.starts_with("a.gz is not compressed by gzip"), "{why}");
}

#[test]
fn documents_say_what_they_are_or_where_they_do_not() {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let rows = [
        ("[]", "1:1: a document must be an object"),
        ("kind: A", "1:1: apiVersion is missing"),
        ("apiVersion: v1\nkind: 1", "2:7: kind must be a text"),
        ("apiVersion: v1\nkind: A", "1:1: metadata.name is missing"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {}",
            "3:11: metadata.name is missing",
        ),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: 7}",
            "3:32: metadata.namespace must be a text",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: []",
            "2:7: List is refused",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}",
            "2:7: Secret is refused in a bootstrap manifest: plain Secrets",
        ),
        (
            "apiVersion: fleetwright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: a}",
            "2:7: Cluster is refused in a bootstrap manifest: this is no object of a workload cluster",
        ),
        ("a: [", "1:"),
    ];
    for (text, want) in rows {
        let all = format!("{object}---\n{text}\n");
        let lines = object.lines().count() + 1;
        let map = vec![("m.yaml".to_owned(), all.into_bytes())];
        let why = documents(&map).unwrap_err();
        let (line, rest) = want.split_once(':').unwrap();
        let line = line.parse::<usize>().unwrap() + lines;
        assert!(why.starts_with("m.yaml:"), "{why}");
        if !rest.is_empty() {
            assert!(why.starts_with(&format!("m.yaml:{line}:{rest}")), "{why}");
        }
    }
    let place = Place {
        line: 1,
        ..Place::START
    };
    let node = yaml::parse("kind: A").unwrap().remove(0);
    assert_eq!(document(&node).unwrap_err().0, place);
    let latin = vec![("m".to_owned(), vec![0xff])];
    assert_eq!(documents(&latin).unwrap_err(), "m is not UTF-8 text");
    // As deep as is allowed, and no deeper than a thread can bear.
    let deep = format!("{object}data: {}1{}\n", "[".repeat(90), "]".repeat(90));
    let deep = vec![("m".to_owned(), deep.into_bytes())];
    assert_eq!(documents(&deep).unwrap().len(), 1);
}

#[test]
fn kinds_come_before_namespaces_and_those_before_the_rest() {
    let one = |kind: &str, name: &str| {
        let text = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n---\n");
        text
    };
    let text = [
        one("DaemonSet", "a"),
        one("Namespace", "b"),
        one("Widget", "c"),
        one("CustomResourceDefinition", "d"),
        one("Namespace", "e"),
    ];
    let read = documents(&[("m".to_owned(), text.concat().into_bytes())]).unwrap();
    let names: Vec<String> = ordered(read).into_iter().map(|d| d.name).collect();
    assert_eq!(names, ["d", "b", "e", "a", "c"]);
}

#[test]
fn what_is_due() {
    let known =
        json!([{"path": "a.yaml", "contentHash": "1"}, {"configMap": "m", "contentHash": "2"}]);
    let foreign = json!([{"configMap": "m"}]);
    let whole_of = |list: &Value| whole(&sources(&cluster(list.clone())).unwrap());
    let hash = whole_of(&known);
    assert!(hash.is_some());
    assert_eq!(whole_of(&foreign), None);
    let look = |list: &Value| Step::Look(sources(&cluster(list.clone())).unwrap());
    let rows = [
        ("none are wanted", cluster(json!([])), true, Step::Rest),
        ("nothing serves", cluster(known.clone()), false, Step::Rest),
        ("new", cluster(known.clone()), true, look(&known)),
        (
            "applied",
            with_status(known.clone(), hash.clone()),
            true,
            Step::Rest,
        ),
        (
            "others were applied",
            with_status(known.clone(), Some("x".into())),
            true,
            look(&known),
        ),
        (
            "what is somebody else's is looked at",
            with_status(foreign.clone(), Some("x".into())),
            true,
            look(&foreign),
        ),
        (
            "a path that nobody read",
            cluster(json!([{"path": "a.yaml"}])),
            true,
            Step::Refuse("a.yaml is a path, and those are read in repositories alone: declare the Cluster in Git, or name a ConfigMap".into()),
        ),
    ];
    for (what, cluster, serves, want) in rows {
        assert_eq!(step(&cluster, serves, None), want, "{what}");
    }
    let mut leaving = cluster(known.clone());
    leaving.metadata.deletion_timestamp = Some(k8s_time(Timestamp::UNIX_EPOCH));
    assert_eq!(step(&leaving, true, None), Step::Rest);
    let mut paused = cluster(known.clone());
    paused.metadata.annotations =
        Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    assert_eq!(step(&paused, true, None), Step::Rest);

    // A try holds for its time, and only for what it was of.
    let fresh = cluster(known.clone());
    let wanted = sources(&fresh).unwrap();
    let seconds = Duration::from_secs;
    let waiting = || Standing::Waiting("w".into());
    let first = Attempt::after(None, wanted.clone(), waiting());
    assert_eq!(
        step(&fresh, true, Some((&first, seconds(0)))),
        Step::Pause(seconds(1))
    );
    assert_eq!(step(&fresh, true, Some((&first, seconds(1)))), look(&known));
    let others = json!([{"path": "a.yaml", "contentHash": "3"}]);
    let other = cluster(others.clone());
    assert_eq!(
        step(&other, true, Some((&first, seconds(0)))),
        look(&others)
    );
    let mut last = first;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(last.holds().as_secs());
        last = Attempt::after(Some(&last), wanted.clone(), waiting());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    let refused = Attempt::after(Some(&last), wanted, Standing::Refused("r".into()));
    assert_eq!(refused.holds(), seconds(600));
    let again = Attempt::after(Some(&refused), sources(&other).unwrap(), waiting());
    assert_eq!(again.holds(), seconds(1), "another wish begins anew");
}

#[test]
fn answers_come_to_one() {
    let document = |name: &str| Document {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: Some("default".into()),
        name: name.into(),
        value: Value::Null,
    };
    let [a, b, c] = ["a", "b", "c"].map(document);
    let refusal = Answer::refusal;
    for code in [401, 404, 409, 429, 500, 503] {
        assert_eq!(refusal(code, "x"), Answer::Later("x".into()), "{code}");
    }
    for code in [400, 403, 405, 413, 422] {
        assert_eq!(refusal(code, "x"), Answer::Never("x".into()), "{code}");
    }
    let hash = || "h".to_owned();
    assert_eq!(
        sum(&[(&a, Answer::Taken), (&b, Answer::Taken)], hash()),
        Standing::Applied(hash())
    );
    assert_eq!(sum(&[], hash()), Standing::Applied(hash()), "no documents");
    let later = (&b, Answer::Later("not yet".into()));
    assert_eq!(
        sum(&[(&a, Answer::Taken), later.clone()], hash()),
        Standing::Waiting("ConfigMap default/b: not yet".into())
    );
    let never = (&c, Answer::Never("bad".into()));
    assert_eq!(
        sum(&[later, never], hash()),
        Standing::Refused("ConfigMap default/c: bad".into())
    );
}
