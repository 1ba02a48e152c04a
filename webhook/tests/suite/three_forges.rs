//! Commit statuses end at each forge as they are wanted, whatever it answers on the way.

use fleetwright_api::{
    commit_status::CommitState::{Error, Failure, Pending, Success},
    condition,
    fleet::ForgeType::{self, Gitea, Github, Gitlab},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    kit::{CONTEXT, SHA, Scene},
    stub::{Fault, Forge},
};

#[tokio::test]
async fn each_forge_gets_its_own_form() {
    for (kind, authorization, body) in [
        (
            Github,
            "Bearer t0ken",
            json!({"state": "pending", "description": "looking", "context": CONTEXT, "target_url": null}),
        ),
        (
            Gitlab,
            "Bearer t0ken",
            json!({"state": "running", "description": "looking", "name": CONTEXT, "ref": "main"}),
        ),
        (
            Gitea,
            "token t0ken",
            json!({"state": "pending", "description": "looking", "context": CONTEXT, "target_url": ""}),
        ),
    ] {
        let scene = Scene::of(kind).await;
        scene.engine.want("x", Pending, "looking").await;
        scene.engine.until_posted("x", Pending).await;
        let got = scene.forge.got();
        assert_eq!(got.len(), 1, "{kind:?}");
        assert_eq!(got[0].path, format!("acme/fleet/{SHA}"), "{kind:?}");
        assert_eq!(got[0].headers["authorization"], authorization);
        assert_eq!(got[0].body, body, "{kind:?}");
    }
}

/// The states that a status goes through, and what the forge then shows.
#[tokio::test]
async fn every_way_ends_at_the_newest_wish() {
    let mut all = JoinSet::new();
    for (kind, words) in [
        (Github, ["pending", "success", "failure", "error"]),
        (Gitlab, ["running", "success", "failed", "failed"]),
        (Gitea, ["pending", "success", "failure", "error"]),
    ] {
        all.spawn(async move {
            let scene = Scene::of(kind).await;
            let word = |state| match state {
                Pending => words[0],
                Success => words[1],
                Failure => words[2],
                Error => words[3],
            };
            let way = [
                Pending, Success, Pending, Failure, Success, Error, Pending, Success,
            ];
            for (step, state) in way.into_iter().enumerate() {
                scene.engine.want("x", state, &format!("step {step}")).await;
                scene.engine.until_posted("x", state).await;
                assert_eq!(scene.forge.state(), word(state), "{kind:?} step {step}");
            }
            assert_eq!(
                scene.forge.got().len(),
                way.len(),
                "{kind:?}: nothing twice"
            );
        });
    }
    while let Some(row) = all.join_next().await {
        row.unwrap();
    }
}

/// Two pending wishes with other words: GitLab refuses the second state, and has it.
#[tokio::test]
async fn gitlab_runs_already() {
    let scene = Scene::of(Gitlab).await;
    for words in ["one", "two"] {
        scene.engine.want("x", Pending, words).await;
        let said = move |s: Option<&fleetwright_api::CommitStatus>| {
            let posted = s.and_then(|s| s.status.as_ref()?.posted.as_ref());
            posted.is_some_and(|p| p.description == words)
        };
        scene.engine.until("x", words, said).await;
    }
    assert_eq!(scene.forge.got().len(), 2);
    assert_eq!(scene.forge.state(), "running");
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    const SECONDARY: &str = "You have exceeded a secondary rate limit";
    let rows: [(ForgeType, Fault, &str); 9] = [
        (Gitlab, Fault::Says(409, "409 Conflict"), "Unreachable"),
        (
            Gitlab,
            Fault::Answer((429, &[("retry-after", "1")])),
            "RateLimited",
        ),
        (
            Gitlab,
            Fault::Answer((
                429,
                &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1")],
            )),
            "RateLimited",
        ),
        (
            Gitlab,
            Fault::Says(404, "404 References for commit Not Found"),
            "UnknownToForge",
        ),
        (Gitlab, Fault::Answer((502, &[])), "Unreachable"),
        (Gitea, Fault::Answer((500, &[])), "Unreachable"),
        (
            Gitea,
            Fault::Answer((429, &[("retry-after", "1")])),
            "RateLimited",
        ),
        (
            Github,
            Fault::Answer((
                403,
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")],
            )),
            "RateLimited",
        ),
        (Github, Fault::Says(503, SECONDARY), "Unreachable"),
    ];
    let mut all = JoinSet::new();
    for (kind, fault, reason) in rows {
        all.spawn(async move {
            let scene = Scene::of(kind).await;
            scene.forge.fault(&[fault]);
            scene.engine.want("x", Success, "done").await;
            scene.engine.until_reason("x", reason).await;
            scene.engine.until_posted("x", Success).await;
            assert_eq!(scene.forge.got().len(), 2, "{kind:?} {fault:?}");
            assert_eq!(scene.forge.state(), "success");
        });
    }
    while let Some(row) = all.join_next().await {
        row.unwrap();
    }
}

/// A status that was taken is not asked for again because its answer's body broke off.
#[tokio::test]
async fn an_answer_that_breaks_off_was_an_answer() {
    for kind in [Github, Gitlab, Gitea] {
        let scene = Scene::of(kind).await;
        scene.forge.fault(&[Fault::Cut]);
        scene.engine.want("x", Success, "done").await;
        scene.engine.until_posted("x", Success).await;
        assert_eq!(scene.forge.got().len(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn what_cannot_pass_says_why_and_what_to_do() {
    let rows: [(ForgeType, Fault, &str, &str); 5] = [
        (
            Github,
            Fault::Answer((301, &[("location", "http://127.0.0.1:9/")])),
            "Misconfigured",
            "forge.repository",
        ),
        (
            Gitlab,
            Fault::Says(403, "403 Forbidden"),
            "Refused",
            "permission",
        ),
        (
            Gitlab,
            Fault::Says(400, "name is too long"),
            "Misconfigured",
            "name is too long",
        ),
        (
            Gitlab,
            Fault::Says(400, "Cannot transition status via :run from :success"),
            "Misconfigured",
            "from :success",
        ),
        (
            Gitea,
            Fault::Says(401, "bad t0ken"),
            "Refused",
            "permission",
        ),
    ];
    for (kind, fault, reason, words) in rows {
        let scene = Scene::of(kind).await;
        scene.forge.fault(&[fault]);
        scene.engine.want("x", Pending, "looking").await;
        let told = scene.engine.until_reason("x", reason).await;
        let conditions = told.status.unwrap().conditions;
        let message = &condition::get(&conditions, "Posted").unwrap().message;
        assert!(
            message.contains(words) && !message.contains("t0ken"),
            "{message}"
        );
    }
}

/// An account that is to wait waits with all that it has to say, and does not ask once for each.
#[tokio::test]
async fn a_forge_that_asks_for_patience_is_left_alone() {
    let scene = Scene::new().await;
    scene.forge.hold();
    let patience: Fault = Fault::Answer((429, &[("retry-after", "2")]));
    scene.forge.fault(&[patience; 8]);
    for number in 0..30 {
        scene
            .engine
            .want(&format!("x{number}"), Success, "done")
            .await;
    }
    // As many as may be under way.
    let got = scene.forge.until(8).await.len();
    let start = tokio::time::Instant::now();
    scene.forge.release();
    scene.forge.until(got + 1).await;
    assert!(
        start.elapsed().as_secs_f64() > 1.9,
        "nobody asks before the time"
    );
    scene.forge.until(got + 30).await;
    for number in 0..30 {
        let name = format!("x{number}");
        let recorded = scene.engine.until_posted(&name, Success).await;
        assert_eq!(recorded.status.unwrap().tries, 0);
    }
    assert_eq!(
        scene.forge.got().len(),
        got + 30,
        "each once more, none oftener"
    );
}

/// A Fleet that moves to another forge: what it wanted at the old one is not sent with the new one's token.
#[tokio::test]
async fn no_token_goes_to_another_kind_of_forge() {
    let scene = Scene::of(Gitlab).await;
    let mut tasks = JoinSet::new();
    let gitea = Forge::of(Gitea, &mut tasks).await;
    let fleets =
        kube::Api::<fleetwright_api::Fleet>::namespaced(scene.engine.client.clone(), "default");
    let moved = json!({"spec": {"forge": {"type": "gitea", "apiURL": gitea.url}}});
    let patch = kube::api::Patch::Merge(moved);
    fleets
        .patch("repo", &Default::default(), &patch)
        .await
        .unwrap();
    scene.engine.want("x", Success, "done").await;
    let told = scene.engine.until_reason("x", "Misconfigured").await;
    let conditions = told.status.unwrap().conditions;
    let message = &condition::get(&conditions, "Posted").unwrap().message;
    assert!(message.contains("gitea by now"), "{message}");
    assert!(scene.forge.seen().is_empty() && gitea.seen().is_empty());
}

/// The API refuses a forge that could not be reached, and says what to write.
#[tokio::test]
async fn a_forge_is_written_as_its_type_wants() {
    let scene = Scene::new().await;
    let fleets =
        kube::Api::<fleetwright_api::Fleet>::namespaced(scene.engine.client.clone(), "default");
    let url = "https://git.example.com/api/v1";
    for (kind, api, repository, refusal) in [
        ("github", None, "acme/fleet", None),
        ("github", None, "acme/eu/fleet", Some("owner/name")),
        ("github", None, "42", Some("owner/name")),
        ("gitlab", None, "acme/eu/west/fleet", None),
        ("gitlab", None, "42", None),
        ("gitlab", None, "fleet", Some("group/name")),
        ("gitlab", None, "acme//fleet", Some("group/name")),
        ("gitea", Some(url), "acme/fleet", None),
        ("gitea", Some(url), "acme/eu/fleet", Some("owner/name")),
        ("gitea", None, "acme/fleet", Some("apiURL")),
        ("sourcehut", None, "acme/fleet", Some("forge.type")),
    ] {
        let forge = json!({"type": kind, "apiURL": api, "repository": repository});
        let patch = kube::api::Patch::Merge(json!({"spec": {"forge": forge}}));
        let got = fleets.patch("repo", &Default::default(), &patch).await;
        let said = got.as_ref().err().map(ToString::to_string);
        let as_wanted = match refusal {
            None => said.is_none(),
            Some(words) => said.as_ref().is_some_and(|said| said.contains(words)),
        };
        assert!(as_wanted, "{kind} {repository} {said:?}");
    }
}
