//! The engine is killed again and again while the cloud lives on and loses answers.

use std::{collections::BTreeMap, time::Duration};

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
