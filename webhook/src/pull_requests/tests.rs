use fleetwright_api::fleet::ForgeType;
use serde_json::{Value, json};

use super::{Found, PullRequest, github, gitlab};

fn github_one() -> Value {
    json!({
        "number": 7, "state": "open", "title": "More workers", "draft": false,
        "updated_at": "2026-01-02T03:04:05Z",
        "head": {"ref": "more", "sha": "h", "repo": {"id": 1, "owner": {"login": "acme"}}},
        "base": {"ref": "main", "sha": "b", "repo": {"id": 1, "owner": {"login": "acme"}}},
    })
}

fn gitea_one() -> Value {
    json!({
        "number": 7, "state": "open", "title": "More workers", "draft": false,
        "updated_at": "2026-01-02T03:04:05Z",
        "head": {"ref": "more", "sha": "h", "repo_id": 1, "repo": {"id": 1}},
        "base": {"ref": "main", "sha": "b", "repo_id": 1, "repo": {"id": 1}},
    })
}

fn gitlab_one() -> Value {
    json!({
        "id": 9000, "iid": 7, "state": "opened", "title": "More workers", "draft": false,
        "updated_at": "2026-01-02T03:04:05.678Z", "sha": "h",
        "source_branch": "more", "target_branch": "main",
        "source_project_id": 1, "target_project_id": 1,
        "diff_refs": {"base_sha": "m", "head_sha": "h", "start_sha": "b"},
    })
}

fn read(kind: ForgeType, value: &Value) -> Option<PullRequest> {
    match kind {
        ForgeType::Gitlab => gitlab::read(value),
        kind => github::read(kind, value),
    }
}

use ForgeType::{Gitea, Github, Gitlab};

#[test]
fn all_forges_tell_the_same() {
    for (kind, value) in [
        (Github, github_one()),
        (Gitea, gitea_one()),
        (Gitlab, gitlab_one()),
    ] {
        let mut got = read(kind, &value).unwrap();
        let time = got.updated_at.take().unwrap();
        assert_eq!(time.as_second(), 1_767_323_045, "{kind:?}");
        let want = PullRequest {
            number: 7,
            title: "More workers".into(),
            head_sha: "h".into(),
            head_ref: "more".into(),
            base_ref: "main".into(),
            base_sha: Some("b".into()),
            from_fork: false,
            draft: false,
            open: true,
            updated_at: None,
        };
        assert_eq!(got, want, "{kind:?}");
    }
}

/// By the repositories' numbers; what is gone or not told is a fork.
#[test]
fn forks() {
    let rows: &[(ForgeType, &str, Value)] = &[
        // A fork of the same owner.
        (Github, "/head/repo/id", json!(2)),
        (Github, "/head/repo", Value::Null),
        (Github, "/head/repo/id", Value::Null),
        (Github, "/base/repo/id", json!("1")),
        (Github, "/head", json!({"ref": "more", "sha": "h"})),
        (Gitea, "/head/repo_id", json!(2)),
        (Gitea, "/head/repo", Value::Null),
        (Gitea, "/head/repo_id", Value::Null),
        (Gitea, "/base/repo_id", json!([])),
        (Gitlab, "/source_project_id", json!(2)),
        (Gitlab, "/source_project_id", Value::Null),
        (Gitlab, "/target_project_id", Value::Null),
    ];
    for (kind, path, value) in rows {
        let mut one = match kind {
            Github => github_one(),
            Gitea => gitea_one(),
            Gitlab => gitlab_one(),
        };
        *one.pointer_mut(path).unwrap() = value.clone();
        let got = read(*kind, &one).unwrap();
        assert!(got.from_fork, "{kind:?} {path} {value}");
    }
    let mut nowhere = github_one();
    for side in ["/head/repo", "/base/repo"] {
        *nowhere.pointer_mut(side).unwrap() = Value::Null;
    }
    assert!(
        read(Github, &nowhere).unwrap().from_fork,
        "unknown is not equal to unknown"
    );
}

#[test]
fn what_lacks_a_head_is_not_read() {
    for (kind, one, paths) in [
        (
            Github,
            github_one(),
            ["/number", "/head/sha", "/head/ref", "/base/ref"],
        ),
        (
            Gitea,
            gitea_one(),
            ["/number", "/head/sha", "/head/ref", "/base/ref"],
        ),
        (
            Gitlab,
            gitlab_one(),
            ["/iid", "/sha", "/source_branch", "/target_branch"],
        ),
    ] {
        for path in paths {
            for value in [Value::Null, json!(""), json!([]), json!(-1)] {
                let mut torn = one.clone();
                *torn.pointer_mut(path).unwrap() = value;
                assert_eq!(read(kind, &torn), None, "{kind:?} {path}");
            }
        }
    }
}

#[test]
fn comments() {
    let found = |author, app| {
        Some(Found {
            id: 3,
            author,
            app,
            body: "text".into(),
        })
    };
    let github_comment = |kind: &str, app: Value| json!({"id": 3, "body": "text", "user": {"id": 5, "type": kind}, "performed_via_github_app": app});
    for (value, want) in [
        (github_comment("User", Value::Null), found(Some(5), None)),
        (
            github_comment("Bot", json!({"id": 12})),
            found(Some(5), Some(12)),
        ),
        // A person who uses the app is no app.
        (
            github_comment("User", json!({"id": 12})),
            found(Some(5), None),
        ),
        (
            json!({"id": 3, "body": "text", "user": null}),
            found(None, None),
        ),
        (json!({"id": 3, "body": null}), None),
    ] {
        assert_eq!(github::read_comment(&value), want, "{value}");
    }
    let note = |system| json!({"id": 3, "body": "text", "system": system, "author": {"id": 5}});
    assert_eq!(gitlab::read_comment(&note(false)), found(Some(5), None));
    assert_eq!(gitlab::read_comment(&note(true)), None);
}
