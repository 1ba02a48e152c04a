//! Pull requests and their comments at each forge.

mod remarks;

use fleetwright_api::fleet::ForgeType::{self, Gitea, Github, Gitlab};
use fleetwright_api::secret::SecretText;
use fleetwright_webhook::{
    forge::{AppCredentials, Credentials, Forges, PostError, Remote},
    pull_requests::{Comment, PullRequests, StoredComment},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stub::{
    Fault, Forge, OTHER, US,
    routes::{APP, INSTALLATION, write},
};

const ALL: [ForgeType; 3] = [Github, Gitlab, Gitea];
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A pull request in the forge's own form; from another repository with a number that is not 1.
fn one(kind: ForgeType, number: u64, from: u64) -> Value {
    let sha = |side: &str| format!("{side}{number}");
    match kind {
        Gitlab => json!({
            "iid": number, "state": "opened", "title": format!("Number {number}"), "draft": number == 2,
            "sha": sha("head"), "source_branch": "topic", "target_branch": "main",
            "source_project_id": from, "target_project_id": 1,
            "updated_at": "2026-01-02T03:04:05.000Z",
        }),
        _ => json!({
            "number": number, "state": "open", "title": format!("Number {number}"), "draft": number == 2,
            "updated_at": "2026-01-02T03:04:05Z",
            "head": {"ref": "topic", "sha": sha("head"), "repo_id": from, "repo": {"id": from}},
            "base": {"ref": "main", "sha": sha("base"), "repo_id": 1, "repo": {"id": 1}},
        }),
    }
}

struct Scene {
    forge: Forge,
    forges: Forges,
    remote: Remote,
    _tasks: JoinSet<()>,
}

impl Scene {
    async fn of(kind: ForgeType) -> Self {
        let mut tasks = JoinSet::new();
        let forge = Forge::of(kind, &mut tasks).await;
        Self {
            remote: forge.remote(),
            forges: Forges::new().unwrap(),
            forge,
            _tasks: tasks,
        }
    }

    /// Five pull requests, two on a page.
    async fn with_five(kind: ForgeType) -> Self {
        let scene = Self::of(kind).await;
        {
            let mut held = scene.forge.inner.state.lock();
            held.page = 2;
            let from = |number| if number == 3 { 9 } else { 1 };
            held.pull_requests = (1..=5).rev().map(|n| one(kind, n, from(n))).collect();
        }
        scene
    }

    async fn upsert(
        &self,
        body: &str,
        known: Option<&StoredComment>,
    ) -> Result<StoredComment, PostError> {
        let made = self.comment(body, known, true).await?;
        Ok(made.expect("one is made"))
    }

    async fn comment(
        &self,
        body: &str,
        known: Option<&StoredComment>,
        make: bool,
    ) -> Result<Option<StoredComment>, PostError> {
        let comment = Comment {
            context: "fleetwright/test/plan",
            body,
            known,
            make,
        };
        self.forges
            .upsert_comment(&self.remote, 7, &comment, NOW)
            .await
    }

    /// Somebody's comment on the pull request.
    fn written(&self, text: &str, author: u64) {
        let mut held = self.forge.inner.state.lock();
        write(self.forge.kind, &mut held, "7", text, false, author);
    }

    /// What the comments on it say.
    fn comments(&self) -> Vec<String> {
        let held = self.forge.inner.state.lock();
        let all = held.comments.get("7").cloned().unwrap_or_default();
        all.iter()
            .map(|c| c["body"].as_str().unwrap().to_owned())
            .collect()
    }
}

const MARK: &str = "<!-- fleetwright:fleetwright/test/plan -->\n";

#[tokio::test]
async fn all_pages_are_read() {
    for kind in ALL {
        let scene = Scene::with_five(kind).await;
        let found = scene.forges.list_open(&scene.remote, NOW).await.unwrap();
        assert!(found.complete, "{kind:?}");
        let told: Vec<_> = found
            .pull_requests
            .iter()
            .map(|p| (p.number, p.head_sha.as_str(), p.from_fork, p.draft, p.open))
            .collect();
        let want = [
            (1, "head1", false, false, true),
            (2, "head2", false, true, true),
            (3, "head3", true, false, true),
            (4, "head4", false, false, true),
            (5, "head5", false, false, true),
        ];
        assert_eq!(told, want, "{kind:?}");
        assert_eq!(
            scene.forge.seen().len(),
            3,
            "no page beyond the last, and no link is followed"
        );
    }
}

#[tokio::test]
async fn a_page_that_is_known_is_not_sent_again() {
    for kind in ALL {
        let scene = Scene::with_five(kind).await;
        let list = async || scene.forges.list_open(&scene.remote, NOW).await.unwrap();
        let first = list().await;
        scene.forge.seen();
        assert_eq!(list().await, first, "{kind:?}");
        let known = scene
            .forge
            .seen()
            .iter()
            .filter(|(_, _, etag)| etag.is_some())
            .count();
        let want = if kind == Gitea { 0 } else { 3 };
        assert_eq!(known, want, "{kind:?}");
        // What changed is read.
        scene.forge.inner.state.lock().pull_requests[0]["title"] = json!("Another");
        let titles: Vec<_> = list()
            .await
            .pull_requests
            .into_iter()
            .map(|p| p.title)
            .collect();
        assert_eq!(titles.last().unwrap(), "Another", "{kind:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    for kind in ALL {
        let scene = Scene::with_five(kind).await;
        let key = if kind == Gitlab { "sha" } else { "head" };
        scene.forge.inner.state.lock().pull_requests[2][key] = Value::Null;
        let found = scene.forges.list_open(&scene.remote, NOW).await.unwrap();
        assert_eq!(
            (found.pull_requests.len(), found.complete),
            (4, false),
            "{kind:?}"
        );
        for fault in [
            Fault::Cut,
            Fault::Answer((502, &[])),
            Fault::Answer((200, &[])),
            Fault::Answer((401, &[])),
            Fault::Answer((404, &[])),
        ] {
            scene.forge.fault(&[fault]);
            // One that remembers no page.
            let failed = Forges::new().unwrap().list_open(&scene.remote, NOW).await;
            assert!(failed.is_err(), "{kind:?} {fault:?} {failed:?}");
        }
        scene.forge.fault(&[Fault::Answer((200, &[])), Fault::Cut]);
        for _ in 0..2 {
            let failed = scene.forges.get(&scene.remote, 4, NOW).await;
            assert!(
                matches!(failed, Err(PostError::Passing(_))),
                "{kind:?} {failed:?}"
            );
        }
    }
}

#[tokio::test]
async fn more_pull_requests_than_are_read() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        {
            let mut held = scene.forge.inner.state.lock();
            held.page = 1;
            held.pull_requests = (1..=41).rev().map(|n| one(kind, n, 1)).collect();
        }
        let found = scene.forges.list_open(&scene.remote, NOW).await.unwrap();
        assert_eq!(
            (found.pull_requests.len(), found.complete),
            (40, false),
            "{kind:?}"
        );
        assert_eq!(
            found.pull_requests[0].number, 2,
            "{kind:?}: the newest are read"
        );
    }
}

#[tokio::test]
async fn one_is_read() {
    for kind in ALL {
        let scene = Scene::with_five(kind).await;
        let got = async |n| scene.forges.get(&scene.remote, n, NOW).await.unwrap();
        assert_eq!(got(4).await.unwrap().head_sha, "head4", "{kind:?}");
        assert_eq!(got(6).await, None, "{kind:?}");
        scene.forge.inner.state.lock().pull_requests[1]["state"] = json!("closed");
        assert!(!got(4).await.unwrap().open, "{kind:?}");
    }
}

#[tokio::test]
async fn one_comment_is_made_and_kept_up_to_date() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        scene.written("a person's words", OTHER);
        let first = scene.upsert("one", None).await.unwrap();
        scene.forge.seen();
        // Nothing is sent for what it says already.
        assert_eq!(scene.upsert("one", Some(&first)).await.unwrap(), first);
        assert_eq!(scene.forge.seen(), [], "{kind:?}");
        // What is known is changed without a search.
        let second = scene.upsert("two", Some(&first)).await.unwrap();
        assert_eq!(second.id, first.id);
        assert_eq!(scene.forge.seen().len(), 1, "{kind:?}");
        // What is not known is found; and is not written where it says so already.
        let found = scene.upsert("two", None).await.unwrap();
        assert_eq!(found, second, "{kind:?}");
        assert!(
            scene
                .forge
                .seen()
                .iter()
                .all(|(method, ..)| method == "GET"),
            "{kind:?}"
        );
        assert_eq!(
            scene.comments(),
            ["a person's words".to_owned(), format!("{MARK}two")]
        );
    }
}

#[tokio::test]
async fn what_has_nothing_new_to_say_changes_one_that_is_there_alone() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        scene.written(&format!("{MARK}not ours"), OTHER);
        let none = scene.comment("nothing", None, false).await.unwrap();
        assert_eq!(none, None, "{kind:?}");
        let made = scene.upsert("one", None).await.unwrap();
        let found = scene.comment("nothing", None, false).await.unwrap();
        assert_eq!(found.unwrap().id, made.id, "{kind:?}");
        // One that somebody deleted meanwhile does not come back.
        scene.forge.inner.state.lock().comments.clear();
        let gone = scene.comment("still nothing", Some(&made), false).await;
        assert_eq!(gone.unwrap(), None, "{kind:?}");
        assert!(scene.comments().is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn ours_is_found_behind_pages_of_others() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        scene.forge.inner.state.lock().page = 3;
        // Anybody can write our marker.
        scene.written(&format!("{MARK}not ours"), OTHER);
        for number in 0..7 {
            scene.written(&format!("comment {number}"), OTHER);
        }
        scene.written(
            "<!-- fleetwright:fleetwright/test/plan/more -->\nanother context",
            US,
        );
        scene.written(&format!("quoted:\n{MARK}"), US);
        scene.written(&format!("{MARK}ours"), US);
        scene.written(&format!("{MARK}ours, later"), US);
        let stored = scene.upsert("news", None).await.unwrap();
        assert_eq!(stored.id, 11, "{kind:?}: the first of ours");
        let comments = scene.comments();
        assert_eq!(comments.len(), 12);
        assert_eq!(comments[0], format!("{MARK}not ours"));
        assert_eq!(comments[10], format!("{MARK}news"));
    }
}

#[tokio::test]
async fn a_comment_that_is_gone_or_anothers_is_made_anew() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        let first = scene.upsert("one", None).await.unwrap();
        scene.forge.inner.state.lock().comments.clear();
        let second = scene.upsert("two", Some(&first)).await.unwrap();
        assert_ne!(second.id, first.id, "{kind:?}");
        assert_eq!(scene.comments(), [format!("{MARK}two")], "{kind:?}");
        // The token is another user's by now.
        scene.forge.inner.state.lock().comments.clear();
        scene.written(&format!("{MARK}of the old user"), OTHER);
        let old = StoredComment {
            id: 3,
            digest: String::new(),
        };
        scene.upsert("three", Some(&old)).await.unwrap();
        let want = [format!("{MARK}of the old user"), format!("{MARK}three")];
        assert_eq!(scene.comments(), want, "{kind:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_comment() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        scene.written("another", OTHER);
        // Who we are and the search are answered, the new comment's answer breaks off.
        scene.forge.fault(&[Fault::Pass, Fault::Pass, Fault::Cut]);
        let cut = scene.upsert("one", None).await;
        assert!(
            matches!(cut, Err(PostError::Passing(_))),
            "{kind:?} {cut:?}"
        );
        scene.upsert("two", None).await.unwrap();
        assert_eq!(
            scene.comments(),
            ["another".to_owned(), format!("{MARK}two")],
            "{kind:?}"
        );
        // And what is not answered at all is not written.
        scene.forge.fault(&[Fault::Answer((502, &[]))]);
        assert!(scene.upsert("three", None).await.is_err(), "{kind:?}");
        assert_eq!(scene.comments()[1], format!("{MARK}two"), "{kind:?}");
    }
}

#[tokio::test]
async fn long_texts_are_cut_to_what_the_forge_takes() {
    for (kind, most) in [(Github, 65_536), (Gitlab, 1_000_000), (Gitea, 65_536)] {
        let scene = Scene::of(kind).await;
        let body = format!("```yaml\n{}", "ä: line\n".repeat(most / 4));
        scene.upsert(&body, None).await.unwrap();
        let comments = scene.comments();
        let length = comments[0].chars().count();
        assert!((most - 20..=most).contains(&length), "{kind:?} {length}");
        assert!(
            comments[0].contains("\n```\n\n_The rest is left out"),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn an_app_knows_its_own_comments() {
    let scene = Scene::of(Github).await;
    scene.forge.inner.state.lock().expires_at = "2100-01-01T00:00:00Z".into();
    let app = AppCredentials {
        app: APP,
        installation: INSTALLATION,
        private_key: SecretText::new(include_str!("../keys/app.pkcs8.pem")),
    };
    let scene = Scene {
        remote: scene.forge.remote_with(Credentials::App(app)),
        ..scene
    };
    scene.written(&format!("{MARK}a user's"), US);
    let first = scene.upsert("one", None).await.unwrap();
    let found = scene.upsert("two", None).await.unwrap();
    assert_eq!(first.id, found.id);
    assert_eq!(
        scene.comments(),
        [format!("{MARK}a user's"), format!("{MARK}two")]
    );
}

/// Comments count for the same limit as statuses.
#[tokio::test]
async fn comments_keep_the_pace() {
    let scene = Scene::of(Github).await;
    let mut known = scene.upsert("0", None).await.unwrap();
    for number in 1..80 {
        known = scene
            .upsert(&number.to_string(), Some(&known))
            .await
            .unwrap();
    }
    let held = scene.upsert("one more", Some(&known)).await;
    assert!(matches!(held, Err(PostError::Held { .. })), "{held:?}");
    // Reading is free.
    assert!(scene.forges.list_open(&scene.remote, NOW).await.is_ok());
}
