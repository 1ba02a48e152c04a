//! What is wanted reaches the forge: once if all goes well, again if not, and never an older wish after a newer one.

use std::time::Duration;

use fleetwright_api::{CommitStatus, commit_status::CommitState, condition};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    kit::{CONTEXT, Engine, SHA, Scene},
    stub::{Answer, Forge},
};

use CommitState::{Failure, Pending, Success};

#[tokio::test]
async fn a_wish_is_posted_as_the_forge_wants_it_and_once() {
    let scene = Scene::new().await;
    scene.engine.want("x", Pending, "looking").await;
    let recorded = scene.engine.until_posted("x", Pending).await;
    let got = scene.forge.until(1).await;
    assert_eq!(got[0].path, format!("acme/fleet/{SHA}"));
    let header = |name: &str| got[0].headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("authorization"), "Bearer t0ken");
    assert_eq!(header("accept"), "application/vnd.github+json");
    assert_eq!(header("x-github-api-version"), "2022-11-28");
    assert!(header("user-agent").starts_with("fleetwright/"));
    let body = json!({"state": "pending", "description": "looking", "context": CONTEXT, "target_url": null});
    assert_eq!(got[0].body, body);
    let text = serde_json::to_string(&recorded).unwrap();
    assert!(!text.contains("t0ken"), "{text}");
    // Nothing is said twice: neither for the same wish, nor after a restart.
    scene.engine.want("x", Pending, "looking").await;
    scene.engine.kill().await;
    let again = Engine::start(scene.dir.path(), &scene.forge, Some("t0ken")).await;
    again.want("x", Success, "done").await;
    again.until_posted("x", Success).await;
    let said: Vec<_> = scene
        .forge
        .got()
        .iter()
        .map(|p| p.body["state"].clone())
        .collect();
    assert_eq!(said, ["pending", "success"]);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_until_it_does() {
    let rows: [(&str, Answer, &'static str, Duration); 6] = [
        ("a", (500, &[]), "Unreachable", Duration::from_secs(1)),
        ("b", (503, &[]), "Unreachable", Duration::from_secs(1)),
        (
            "c",
            (429, &[("retry-after", "2")]),
            "RateLimited",
            Duration::from_secs(2),
        ),
        (
            "d",
            (403, &[("retry-after", "2")]),
            "RateLimited",
            Duration::from_secs(2),
        ),
        ("e", (404, &[]), "UnknownToForge", Duration::from_secs(1)),
        ("f", (422, &[]), "UnknownToForge", Duration::from_secs(1)),
    ];
    let mut all = JoinSet::new();
    for (name, answer, reason, least) in rows {
        all.spawn(async move {
            let scene = Scene::new().await;
            scene.forge.answer(&[answer]);
            let start = Instant::now();
            scene.engine.want(name, Success, "done").await;
            let told = scene.engine.until_reason(name, reason).await;
            assert_eq!(told.status.unwrap().tries, 1, "{answer:?}");
            let recorded = scene.engine.until_posted(name, Success).await;
            assert_eq!(recorded.status.unwrap().tries, 0);
            assert!(
                start.elapsed() >= least,
                "{answer:?}: the forge asked for patience"
            );
            assert_eq!(scene.forge.got().len(), 2, "{answer:?}");
        });
    }
    while let Some(row) = all.join_next().await {
        row.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_pass_waits_for_another_wish() {
    let rows: [(Answer, &'static str); 3] = [
        ((401, &[]), "Refused"),
        ((403, &[]), "Refused"),
        ((418, &[]), "Misconfigured"),
    ];
    for (answer, reason) in rows {
        let scene = Scene::new().await;
        scene.forge.answer(&[answer]);
        scene.engine.want("x", Pending, "looking").await;
        let told = scene.engine.until_reason("x", reason).await;
        let conditions = told.status.unwrap().conditions;
        let message = &condition::get(&conditions, "Posted").unwrap().message;
        assert!(
            !message.is_empty() && !message.contains("t0ken"),
            "{message}"
        );
        scene.engine.want("x", Success, "done").await;
        scene.engine.until_posted("x", Success).await;
        let said: Vec<_> = scene
            .forge
            .got()
            .iter()
            .map(|p| p.body["state"].clone())
            .collect();
        assert_eq!(said, ["pending", "success"], "{answer:?}");
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = JoinSet::new();
    let forge = Forge::start(&mut tasks).await;
    let engine = Engine::start(dir.path(), &forge, None).await;
    engine.want("x", Pending, "looking").await;
    engine.until_reason("x", "Misconfigured").await;
    assert!(forge.got().is_empty());
}

#[tokio::test]
async fn one_post_at_a_time_and_the_newest_wish_comes_last() {
    let scene = Scene::new().await;
    scene.forge.hold();
    scene.engine.want("x", Pending, "one").await;
    scene.forge.until(1).await;
    scene.engine.want("x", Success, "two").await;
    scene.engine.want("x", Failure, "three").await;
    scene.forge.release();
    scene.engine.until_posted("x", Failure).await;
    let got = scene.forge.got();
    let said: Vec<_> = got.iter().map(crate::stub::Post::said).collect();
    assert_eq!(said.first(), Some(&("pending", "one")));
    assert_eq!(said.last(), Some(&("failure", "three")));
    assert_eq!(scene.forge.most_at_once(), 1);
    // A, B, A: the last A is said again.
    scene.engine.want("x", Pending, "one").await;
    scene.engine.until_posted("x", Pending).await;
    assert_eq!(scene.forge.got().last().unwrap().said(), ("pending", "one"));
}

#[tokio::test]
async fn a_kill_loses_no_wish() {
    let mut scene = Scene::new().await;
    for round in 0..5 {
        let words = format!("round {round}");
        let before = scene.forge.got().len();
        scene.forge.hold();
        scene.engine.want("x", Pending, &words).await;
        // The forge has it, but its answer never comes.
        scene.forge.until(before + 1).await;
        if round % 2 == 0 {
            scene.engine.want("x", Success, &words).await;
        }
        scene.engine.kill().await;
        scene.forge.release();
        scene.engine = Engine::start(scene.dir.path(), &scene.forge, Some("t0ken")).await;
        let last = if round % 2 == 0 { Success } else { Pending };
        let said = move |s: Option<&CommitStatus>| {
            let posted = s.and_then(|s| s.status.as_ref()?.posted.as_ref());
            posted.is_some_and(|p| p.state == last && p.description == words)
        };
        scene.engine.until("x", "the post", said).await;
        let got = scene.forge.got();
        assert_eq!(got.last().unwrap().body["state"], last.as_str());
    }
}
