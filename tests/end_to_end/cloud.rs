//! The engine is killed again and again while the cloud lives on and loses answers.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{Fleet, MachineDeployment, condition};
use rand::Rng as _;

use crate::kit::{Engine, Process, fleet, journal, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_and_lost_answers_never_make_a_second_instance() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data, sim) = (
        dir.path().join("repo"),
        dir.path().join("data"),
        dir.path().join("sim"),
    );
    std::fs::create_dir(&repo).unwrap();
    let cloud = Process::start(&["simcloud", "--data", sim.to_str().unwrap()], "journal").await;
    let url = cloud.told("simcloud");
    let write =
        |version: &str| std::fs::write(repo.join("a.yaml"), fleet(version, Some(6))).unwrap();
    let up = async || Engine::up(repo.to_str().unwrap(), &data, &["--simcloud", &url]).await;
    write("v1.33.2");
    let mut engine = up().await;
    engine.until_at("v1.33.2").await;
    let lost = || {
        journal(&sim)
            .iter()
            .filter(|e| e["fault"] == "answerLost")
            .count()
    };
    for round in 0..10 {
        let before = lost();
        let (status, body) = send(
            "POST",
            &format!("{url}/faults"),
            &[],
            r#"{"effect":"answerLost","verb":"create"}"#,
        )
        .await;
        assert!(status.contains(" 20"), "{status} {body}");
        // Each round has a version of its own, so that its fault has a create to hit: a revert might need none.
        write(&format!("v1.33.{}", 3 + round));
        let fired = async {
            while lost() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let fired = tokio::time::timeout(Duration::from_secs(60), fired).await;
        assert!(fired.is_ok(), "round {round}: no create met the fault");
        let moment = rand::rng().random_range(0..400);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        engine.process.kill().await;
        engine = up().await;
    }
    write("v1.34.1");
    engine.until_at("v1.34.1").await;
    assert_eq!(lost(), 10, "each fault fired");

    let mut live: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in journal(&sim) {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let made = entry["outcome"] == "ok" || entry["fault"] == "answerLost";
        if !made {
            continue;
        }
        let of = live.entry(text("machine")).or_default();
        match entry["verb"].as_str() {
            Some("create") if !of.contains(&text("instance")) => of.push(text("instance")),
            Some("delete") => of.retain(|i| *i != text("instance")),
            _ => {}
        }
        assert!(of.len() <= 1, "two live instances for one Machine: {entry}");
    }
    assert_eq!(
        live.values().flatten().count(),
        7,
        "one control-plane machine and six workers"
    );
    engine.process.interrupt().await;
    cloud.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_one_condition_of_the_fleet_and_nothing_is_deleted_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data, sim) = (
        dir.path().join("repo"),
        dir.path().join("data"),
        dir.path().join("sim"),
    );
    std::fs::create_dir(&repo).unwrap();
    let cloud = Process::start(&["simcloud", "--data", sim.to_str().unwrap()], "journal").await;
    let url = cloud.told("simcloud");
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(2))).unwrap();
    let up = async || Engine::up(repo.to_str().unwrap(), &data, &["--simcloud", &url]).await;
    let engine = up().await;
    engine.until_at("v1.33.2").await;
    let told = |ready: bool| {
        move |fleet: Option<&Fleet>| {
            let status = fleet.and_then(|f| f.status.as_ref());
            let found =
                status.and_then(|s| condition::get(&s.conditions, condition::kind::ACCOUNTS_READY));
            found.is_some_and(|c| match ready {
                true => c.status == "True",
                false => {
                    let why = "account sim-eu: credentials refused: nobody of this name is known";
                    c.status == "False"
                        && c.reason == "CredentialsRefused"
                        && c.message.starts_with(why)
                }
            })
        }
    };
    engine
        .until("default", "the account is well", told(true))
        .await;
    let refuse = r#"{"effect": "credentialsRefused", "account": "sim-eu", "count": 1000}"#;
    let faults = format!("{url}/faults");
    let (status, body) = send("POST", &faults, &[], refuse).await;
    assert!(status.contains(" 20"), "{status} {body}");
    let before = journal(&sim).len();
    let refused = async || {
        let (_, body) = send("GET", &faults, &[], "").await;
        let all: serde_json::Value = serde_json::from_str(&body).unwrap();
        all["faults"][0]["fired"].as_u64().unwrap()
    };
    let waits = |pool: Option<&MachineDeployment>| {
        let status = pool.and_then(|p| p.status.as_ref());
        let up = status.and_then(|s| condition::get(&s.conditions, condition::kind::SCALING_UP));
        up.is_some_and(|c| c.status == "True" && c.reason == "CredentialsRefused")
    };
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(3))).unwrap();
    engine
        .until("a-web", "the pool says why it waits", waits)
        .await;
    engine
        .until("default", "the account is refused", told(false))
        .await;

    // Another process hears the same, and finds nothing that would be too much or too little.
    engine.process.kill().await;
    let heard = refused().await;
    let engine = up().await;
    let again = async {
        while refused().await == heard {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(60), again).await;
    assert!(again.is_ok(), "nobody asked again");
    engine
        .until("default", "it is refused still", told(false))
        .await;
    engine.until("a-web", "the pool waits still", waits).await;
    let calls = refused().await;
    assert!(calls < 20, "{calls} calls were refused");
    let done = journal(&sim).split_off(before);
    assert!(done.iter().all(|e| e["outcome"] != "ok"), "{done:#?}");

    let (status, body) = send("DELETE", &faults, &[], "").await;
    assert!(status.contains(" 20"), "{status} {body}");
    engine
        .until("default", "the account is well again", told(true))
        .await;
    let grown = |pool: Option<&MachineDeployment>| {
        pool.and_then(|p| p.status.as_ref())
            .is_some_and(|s| s.available_replicas == 3)
    };
    engine.until("a-web", "the pool grows", grown).await;
    let deletes = journal(&sim);
    let deletes = deletes.iter().filter(|e| e["verb"] == "delete");
    assert_eq!(deletes.count(), 0);
    engine.process.interrupt().await;
    cloud.interrupt().await;
}
