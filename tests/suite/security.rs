//! What docs/security.md says is tested, and what no crate of ours does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options};
use fleetwright_store::Store;
use fleetwright_tests::conformance::Target;
use regex::Regex;
use serde_json::{Value, json};

use crate::architecture::root;

/// All of our Rust files.
fn sources() -> Vec<PathBuf> {
    let mut folders = ["engine", "providers", "webhook", "tests"]
        .map(|f| root().join(f))
        .to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 300, "{} files", files.len());
    files
}

/// What of a file is built into the binary: nothing of tests.
fn built(path: &Path) -> Option<String> {
    let below = path.strip_prefix(root()).unwrap();
    let is_tests =
        |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs" || part == "benches";
    if below.iter().any(is_tests) {
        return None;
    }
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    Some(text[..end].to_owned())
}

/// Files, without the folders above, whose built text fits.
fn built_with(pattern: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let fits = |path: &PathBuf| built(path).is_some_and(|text| pattern.is_match(&text));
    let mut found: Vec<_> = sources()
        .iter()
        .filter(|path| fits(path))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    found.sort();
    found
}

#[test]
fn each_advisory_has_the_tests_that_its_row_names() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .skip(1)
        .filter(|cells: &Vec<&str>| !cells[0].starts_with("---"))
        .collect();
    let name = Regex::new("`([a-z0-9_]+)`").unwrap();
    let mut named = BTreeSet::new();
    for cells in &rows {
        let [advisory, what, here, tests] = cells.as_slice() else {
            panic!("a row of four cells: {cells:?}");
        };
        assert!(!what.is_empty() && !here.is_empty(), "{advisory}");
        let all = name.captures_iter(tests).map(|found| found[1].to_owned());
        let all: Vec<_> = all.collect();
        assert!(!all.is_empty(), "{advisory} names no test");
        named.extend(all);
    }
    assert_eq!(rows.len(), 32, "a row for each advisory");
    let function = Regex::new(r"fn ([a-z0-9_]+)\s*\(").unwrap();
    let mut written = BTreeSet::new();
    for path in sources() {
        let text = fs::read_to_string(path).unwrap();
        written.extend(
            function
                .captures_iter(&text)
                .map(|found| found[1].to_owned()),
        );
    }
    let missing: Vec<_> = named.difference(&written).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
    let of_advisories = Regex::new(r"^(cve|ghsa|go)_\d").unwrap();
    let own: Vec<_> = written
        .iter()
        .filter(|n| of_advisories.is_match(n))
        .collect();
    assert!(own.len() > 20, "{own:?}");
    let unnamed: Vec<_> = own.into_iter().filter(|n| !named.contains(*n)).collect();
    assert!(
        unnamed.is_empty(),
        "docs/security.md names them nowhere: {unnamed:?}"
    );
}

/// Nothing can be injected into a command where none is run.
#[test]
fn cve_2021_41254_no_program_is_run() {
    let found =
        built_with(r"process::Command|process::\{[^}]*Command|\bexecv|posix_spawn|Command::new\(");
    // The tests' own kit looks for tools.
    let ours: Vec<_> = found
        .iter()
        .filter(|path| !path.starts_with("tests/"))
        .collect();
    assert_eq!(ours, Vec::<&String>::new());
}

/// A kubeconfig may name programs to run and files to read. Where it is believed in that it is the administrator's own file; what a Secret
/// holds is read in one place, which refuses both.
#[test]
fn cve_2022_24817_kubeconfigs_of_others_run_nothing() {
    let found = built_with(r"Kubeconfig::|<Kubeconfig>|from_kubeconfig|from_custom_kubeconfig");
    assert_eq!(found, ["engine/src/cli/install.rs", "engine/src/client.rs"]);
    let parsed = built_with(r"Kubeconfig::from_yaml|<Kubeconfig>|ExecConfig|AuthInfo");
    assert_eq!(parsed, ["engine/workload/src/kubeconfig.rs"]);
}

/// Names of fields that take a secret's value, in a schema.
fn secret_fields(schema: &Value, path: &str, found: &mut Vec<String>) {
    let telling =
        Regex::new("(?i)(token|password|passphrase|secret|privatekey|apikey|credentials?)$")
            .unwrap();
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if telling.is_match(name) && child["type"] != "object" {
            found.push(path.clone());
        }
        secret_fields(child, &path, found);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            secret_fields(&schema[inner], &format!("{path}[]"), found);
        }
    }
}

/// What is secret has no field in a kind that is read by many.
#[test]
fn cve_2024_52284_no_field_holds_a_secret() {
    let mut found = Vec::new();
    for crd in fleetwright_api::crds::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(schema["properties"]["spec"].is_object(), "{kind}");
        secret_fields(schema, kind, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
    // It would be found.
    let schema =
        json!({"properties": {"a": {"items": {"properties": {"apiToken": {"type": "string"}}}}}});
    secret_fields(&schema, "X", &mut found);
    assert_eq!(found, ["X.a[].apiToken"]);
}

/// Readers see all that names a Secret, and nothing of what is in it, by any way of asking.
#[tokio::test]
async fn cve_2025_55190_readers_read_no_secret() {
    const VALUE: &str = "aHVudGVyMg==";
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let lines = "admintoken,admin,admin,\"system:masters\"\nreadertoken,reader,reader,\"fleetwright:read-only\"\n";
    fs::write(&tokens, lines).unwrap();
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let ours: Result<Vec<Value>, _> = fleetwright_api::crds::all()
        .iter()
        .map(serde_json::to_value)
        .collect();
    server.install_crds(&ours.unwrap()).await.unwrap();
    let auth = Auth::from_file(&tokens).unwrap();
    let admin = Target::in_process(server.clone(), auth.clone(), Some("admintoken"));
    let reader = Target::in_process(server, auth, Some("readertoken"));
    let (secrets, fleets) = (
        "/api/v1/namespaces/default/secrets",
        "/apis/fleetwright.dev/v1alpha1/namespaces/default/fleets",
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forge"}, "data": {"token": VALUE}});
    let fleet = json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "f"},
        "spec": {
            "source": {"url": "https://example.org/acme/fleet", "secretRef": {"name": "forge"}},
            "forge": {"type": "github", "repository": "acme/fleet", "secretRef": {"name": "forge"}},
        },
    });
    for (path, body) in [(secrets, &secret), (fleets, &fleet)] {
        let made = admin
            .call(&json!({"method": "POST", "path": path, "body": body}))
            .await;
        let made = made.unwrap();
        assert_eq!(made["status"], 201, "{made}");
    }
    let one = format!("{secrets}/forge");
    let apply = "application/apply-patch+yaml";
    let rows = [
        (json!({"method": "GET", "path": one}), 403),
        (json!({"method": "GET", "path": secrets}), 403),
        (json!({"method": "GET", "path": "/api/v1/secrets"}), 403),
        (
            json!({"method": "GET", "path": "/api/v1/secrets", "query": {"watch": "1"}}),
            403,
        ),
        (
            json!({"method": "GET", "path": "/api/v1/watch/namespaces/default/secrets/forge"}),
            403,
        ),
        (json!({"method": "GET", "path": format!("{one}/")}), 403),
        (
            json!({"method": "GET", "path": format!("{one}/status")}),
            403,
        ),
        (
            json!({"method": "PATCH", "path": one, "query": {"dryRun": "All", "fieldManager": "r", "force": "true"},
                "type": apply, "body": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forge"}}}),
            403,
        ),
        (
            json!({"method": "PATCH", "path": one, "query": {"dryRun": "All"},
                "type": "application/merge-patch+json", "body": {}}),
            403,
        ),
        (
            json!({"method": "PUT", "path": one, "query": {"dryRun": "All"}, "body": secret}),
            403,
        ),
        (
            json!({"method": "DELETE", "path": one, "query": {"dryRun": "All"}}),
            403,
        ),
        (json!({"method": "GET", "path": fleets}), 200),
        (json!({"method": "GET", "path": format!("{fleets}/f")}), 200),
        (json!({"method": "GET", "path": "/api/v1/events"}), 200),
        (json!({"method": "GET", "path": "/metrics"}), 403),
        (
            json!({"method": "GET", "path": fleetwright_apiserver::BACKUP_PATH}),
            403,
        ),
    ];
    for (request, status) in rows {
        let answer = reader.call(&request).await.unwrap();
        assert_eq!(answer["status"], status, "{request}: {answer}");
        assert!(!answer.to_string().contains(VALUE), "{request}: {answer}");
    }
    // The administrator does.
    let answer = admin
        .call(&json!({"method": "GET", "path": one}))
        .await
        .unwrap();
    assert!(answer.to_string().contains(VALUE));
}
