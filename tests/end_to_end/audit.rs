//! What an engine leaves in writing: its API's audit log and its decisions; and a Fleet under another name, which changes no machine.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

use fleetwright_api::{Cluster, Fleet, Machine, condition, meta::LABEL_FLEET, names::fleet_hash};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::kit::{Engine, fleet};

/// The lines of a file that is its owner's alone.
fn lines(file: &Path) -> Vec<Value> {
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn machines(engine: &Engine) -> BTreeMap<String, Option<String>> {
    let api = Api::<Machine>::all(engine.client.clone());
    let list = api.list(&ListParams::default()).await.unwrap();
    list.iter().map(|m| (m.name_any(), m.uid())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_fleet_keeps_its_machines_and_all_of_it_is_in_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data) = (dir.path().join("repo"), dir.path().join("data"));
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(2))).unwrap();
    let log = dir.path().join("audit.log");
    let more = ["--audit-log", log.to_str().unwrap()];
    let engine = Engine::up_embedded(repo.to_str().unwrap(), &data, &more).await;
    engine.until_at("v1.33.2").await;
    let before = machines(&engine).await;

    let fleets = Api::<Fleet>::namespaced(engine.client.clone(), "default");
    let old = fleets.get("default").await.unwrap();
    let new = Fleet::new("renamed", old.spec);
    fleets.create(&PostParams::default(), &new).await.unwrap();
    fleets
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    let hash = fleet_hash("default", "renamed");
    let clusters = Api::<Cluster>::namespaced(engine.client.clone(), "default");
    let cluster = clusters
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0)
        .name_any();
    let taken =
        move |c: Option<&Cluster>| c.is_some_and(|c| c.labels().get(LABEL_FLEET) == Some(&hash));
    engine.until(&cluster, "the new Fleet", taken).await;
    // Refusals while the old Fleet was there are an end too, and not this one.
    let converged = |f: Option<&Fleet>| {
        let status = f.and_then(|f| f.status.as_ref());
        status.is_some_and(|s| condition::is_true(&s.conditions, condition::kind::READY))
    };
    engine.until("renamed", "Ready", converged).await;
    assert_eq!(machines(&engine).await, before);

    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand"}});
    let maps = Api::<ConfigMap>::namespaced(engine.client.clone(), "default");
    let map = serde_json::from_value(map).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    engine.process.interrupt().await;

    let events = lines(&log);
    let of = |user: &str, verb: &str, resource: &str, name: &str| {
        let is = |e: &&Value| {
            e["user"]["username"] == user
                && e["verb"] == verb
                && e["objectRef"]["resource"] == resource
                && e["objectRef"]["name"] == name
        };
        events.iter().filter(is).count()
    };
    assert_eq!(of("system:admin", "create", "configmaps", "by-hand"), 1);
    assert_eq!(of("system:admin", "delete", "fleets", "default"), 1);
    for name in before.keys() {
        assert_eq!(
            of("system:fleetwright", "create", "machines", name),
            1,
            "{name}"
        );
    }
    let decisions = lines(&data.join("decisions.jsonl"));
    let actions = |by: &str| {
        let own = decisions.iter().filter(|d| d["by"] == by);
        let all = own.flat_map(|d| d["actions"].as_array().unwrap());
        all.map(|a| a.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let words = format!("change Cluster default/{cluster}, taken over from Fleet default/default");
    assert!(
        actions("Fleet default/renamed").contains(&words),
        "{decisions:?}"
    );
    let made = actions(&format!("Cluster default/{cluster}"));
    assert!(
        made.iter()
            .any(|a| a.starts_with("create Machine default/")),
        "{made:?}"
    );
}
