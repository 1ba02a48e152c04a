//! The structure holds: who may use whom, lints everywhere, no file that is too long.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which of our crates a crate may use (docs/architecture.md has the reasons).
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("schema", &[]),
    ("store", &[]),
    ("core", &["api", "schema"]),
    ("bootstrap", &["api"]),
    ("apiserver", &["store", "schema", "api"]),
    ("gitops", &["core", "schema", "api"]),
    ("controllers", &["core", "api", "providers", "bootstrap"]),
    ("workload", &["api", "providers", "bootstrap"]),
    ("providers", &["api", "schema"]),
    ("provider-aws", &["providers", "schema", "api"]),
    ("provider-external", &["providers", "api"]),
    (
        "provider-sim",
        &["providers", "apiserver", "store", "schema", "api"],
    ),
    ("webhook", &["api"]),
];

/// Libraries with which a crate would no longer be pure: no I/O, no clients, no runtime.
const IMPURE: &[&str] = &["tokio", "axum", "git2", "rusqlite", "hyper", "notify"];
const PURE: &[&str] = &["api", "schema", "core", "bootstrap"];

const LONGEST_FILE: usize = 600;

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read_toml(path: &Path) -> toml::Table {
    fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .parse()
        .unwrap()
}

/// The manifests of all members, by short crate name.
fn members() -> BTreeMap<String, (PathBuf, toml::Table)> {
    let workspace = read_toml(&root().join("Cargo.toml"));
    workspace["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            let folder = root().join(member.as_str().unwrap());
            let manifest = read_toml(&folder.join("Cargo.toml"));
            let name = manifest["package"]["name"].as_str().unwrap();
            (
                name.trim_start_matches("fleetwright-").to_owned(),
                (folder, manifest),
            )
        })
        .collect()
}

fn dependencies(manifest: &toml::Table) -> Vec<&str> {
    manifest
        .get("dependencies")
        .and_then(|d| d.as_table())
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (name, (_, manifest)) in members() {
        if ["fleetwright", "tests", "simulation"].contains(&name.as_str()) {
            continue;
        }
        let allowed = arrows
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no row in the table"));
        for used in dependencies(&manifest)
            .into_iter()
            .filter_map(|d| d.strip_prefix("fleetwright-"))
        {
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

#[test]
fn pure_crates_stay_pure() {
    let members = members();
    for name in PURE {
        for used in dependencies(&members[*name].1) {
            assert!(
                !IMPURE.contains(&used),
                "{name} is pure and must not use {used}"
            );
        }
    }
}

#[test]
fn every_crate_opts_in_to_the_lints_and_to_the_workspace_versions() {
    for (name, (_, manifest)) in members() {
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{name}: [lints] workspace = true"
        );
        assert_eq!(
            manifest["package"]["license"]["workspace"].as_bool(),
            Some(true),
            "{name}: license"
        );
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (used, spec) in manifest
                .get(section)
                .and_then(|d| d.as_table())
                .into_iter()
                .flatten()
            {
                let inherited = spec.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherited,
                    Some(true),
                    "{name}: {used} must take its version from the workspace"
                );
            }
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    let mut folders: Vec<_> = members()
        .into_values()
        .map(|(folder, _)| folder.join("src"))
        .collect();
    let mut long = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let is_tests = path.file_stem().is_some_and(|s| s == "tests");
            if path.is_dir() && !is_tests {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !is_tests {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if lines > LONGEST_FILE {
                    long.push(format!(
                        "{} has {lines} lines",
                        path.strip_prefix(root()).unwrap().display()
                    ));
                }
            }
        }
    }
    assert!(long.is_empty(), "split these by idea: {long:?}");
}
