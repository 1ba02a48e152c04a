//! Recorded requests with parts of them changed at random: every answer is a refusal or a success, never a failure of
//! the server, and every refusal is a `Status` of its code.

use std::path::Path;

use fleetwright_api::random::{Random, SeededRandom};
use fleetwright_tests::conformance::{install, scenarios};
use serde_json::{Value, json};

use crate::api::in_process;

/// How many requests are sent; the seed makes them the same ones each time.
const REQUESTS: usize = 4_000;
const SEED: u64 = 1;

struct Dice(SeededRandom);

impl Dice {
    fn below(&self, n: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % n
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn strange() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("é".repeat(50)),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"": ""}),
        json!({"a": null}),
        json!("delete"),
        json!({"metadata": null}),
    ]
}

const FIELDS: &[&str] = &[
    "",
    "$patch",
    "$retainKeys",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/tags",
    "metadata",
    "managedFields",
    "finalizers",
    "ownerReferences",
    "spec",
    "status",
];
const TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const CORE: &[&str] = &[
    "/api/v1/nodes/n",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/p/eviction",
    "/api/v1/namespaces/default/secrets/s",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/events",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases/l",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
];

fn changed(dice: &Dice, value: &Value) -> Value {
    if dice.one_in(20) {
        return dice.pick(&strange()).clone();
    }
    match value {
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (name, value) in map {
                let name = if dice.one_in(40) {
                    *dice.pick(FIELDS)
                } else {
                    name
                };
                if !dice.one_in(30) {
                    out.insert(name.to_owned(), changed(dice, value));
                }
            }
            if dice.one_in(20) {
                out.insert(
                    (*dice.pick(FIELDS)).to_owned(),
                    dice.pick(&strange()).clone(),
                );
            }
            out.into()
        }
        Value::Array(list) => {
            let mut out: Vec<Value> = list.iter().map(|v| changed(dice, v)).collect();
            if dice.one_in(20) {
                out.extend(out.first().cloned());
            }
            out.into()
        }
        other => other.clone(),
    }
}

fn broken(dice: &Dice, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    if !chars.is_empty() {
        let at = dice.below(chars.len());
        chars[at] = *dice.pick(&['{', '"', '\\', '[', ':', '\'', '\0', '&', '*']);
    }
    chars.into_iter().collect()
}

fn request(dice: &Dice, recorded: &Value) -> Value {
    let mut request = recorded.clone();
    if dice.one_in(3) {
        request["path"] = (*dice.pick(CORE)).into();
    }
    if dice.one_in(3) {
        request["method"] = (*dice.pick(METHODS)).into();
    }
    if dice.one_in(5) {
        request["type"] = (*dice.pick(TYPES)).into();
    }
    if request["query"]["watch"].is_string() || dice.one_in(5) {
        request["query"] = json!({"limit": "1", "labelSelector": "a in (", "dryRun": "All"});
    }
    if !request["body"].is_null() {
        let body = changed(dice, &request["body"]);
        request["body"] = match body {
            Value::String(text) => text.into(),
            body if dice.one_in(8) => broken(dice, &body.to_string()).into(),
            body => body,
        };
    }
    request
}

#[tokio::test]
async fn whatever_is_asked_ends_in_an_answer() {
    let (target, _dir) = in_process();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let crds = std::fs::read(folder.join("crds.json")).unwrap();
    let crds: Vec<Value> = serde_json::from_slice(&crds).unwrap();
    install(&target, &crds).await.unwrap();
    let mut recorded = Vec::new();
    for scenario in scenarios(&folder.join("recorded")).unwrap() {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scenario.name}});
        let make = json!({"method": "POST", "path": "/api/v1/namespaces", "body": namespace});
        target.call(&make).await.unwrap();
        let requests = scenario
            .steps
            .into_iter()
            .map(|step| step["request"].clone());
        recorded.extend(requests.filter(|r| !r.to_string().contains("{{")));
    }
    let dice = Dice(SeededRandom::new(SEED));
    let mut refused = 0;
    for n in 0..REQUESTS {
        let request = request(&dice, dice.pick(&recorded));
        let answer = target.call(&request).await.unwrap();
        let (code, body) = (
            answer["status"].as_u64().unwrap_or_default(),
            &answer["body"],
        );
        assert!(code < 500, "request {n}: {request} -> {answer}");
        // What is not served at all is answered in plain text.
        if code >= 400 && code != 404 {
            refused += 1;
            assert_eq!(body["kind"], "Status", "request {n}: {request} -> {answer}");
            assert_eq!(body["code"], code, "request {n}: {request} -> {answer}");
        }
    }
    assert!(
        refused > REQUESTS / 10,
        "the changes no longer reach the checks"
    );
}
