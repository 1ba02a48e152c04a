use fleetwright_api::fleet::ForgeType;
use serde_json::{Value, json};

use super::{Author, Found, PullRequest, github, gitlab};

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
            merged_as: None,
            mergeable: None,
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
    let found = |author: Option<u64>, app, program| {
        Some(Found {
            id: 3,
            author,
            name: author.map(|_| "alice".into()),
            app,
            program,
            edited: true,
            body: "text".into(),
        })
    };
    let github_comment = |kind: &str, app: Value| {
        json!({"id": 3, "body": "text", "user": {"id": 5, "login": "alice", "type": kind},
            "performed_via_github_app": app})
    };
    for (value, want) in [
        (
            github_comment("User", Value::Null),
            found(Some(5), None, false),
        ),
        (
            github_comment("Bot", json!({"id": 12})),
            found(Some(5), Some(12), true),
        ),
        (
            github_comment("Bot", Value::Null),
            found(Some(5), None, true),
        ),
        // A person who uses the app is no app; but a program wrote it.
        (
            github_comment("User", json!({"id": 12})),
            found(Some(5), None, true),
        ),
        (
            json!({"id": 3, "body": "text", "user": null}),
            found(None, None, false),
        ),
        (json!({"id": 3, "body": null}), None),
    ] {
        assert_eq!(github::read_comment(&value), want, "{value}");
    }
    let note = |system, name: &str| {
        let author = json!({"id": 5, "username": name});
        json!({"id": 3, "body": "text", "system": system, "author": author})
    };
    let read = |name: &str| gitlab::read_comment(&note(false, name));
    assert_eq!(read("alice"), found(Some(5), None, false));
    assert_eq!(gitlab::read_comment(&note(true, "alice")), None);
    for (name, program) in [
        ("project_12_bot_0a1b", true),
        ("group_3_bot", true),
        ("project_12_bot", true),
        ("project_x_bot", false),
        ("project_bot", false),
        ("robot", false),
    ] {
        assert_eq!(read(name).unwrap().program, program, "{name}");
    }
}

/// What is not told is no proof that nobody changed it.
#[test]
fn edited_comments() {
    for (made, changed, want) in [
        (
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05Z"),
            false,
        ),
        (
            json!("2026-01-02T03:04:05.123Z"),
            json!("2026-01-02T03:04:05.125Z"),
            false,
        ),
        (
            json!("2026-01-02T03:04:05+01:00"),
            json!("2026-01-02T02:04:05Z"),
            false,
        ),
        (
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:06Z"),
            true,
        ),
        (
            json!("2026-01-02T03:04:06Z"),
            json!("2026-01-02T03:04:05Z"),
            true,
        ),
        (json!("2026-01-02T03:04:05Z"), Value::Null, true),
        (Value::Null, Value::Null, true),
        (json!(1), json!(1), true),
        (json!("today"), json!("today"), true),
    ] {
        let value = json!({"created_at": made, "updated_at": changed});
        assert_eq!(super::is_edited(&value), want, "{value}");
    }
}

#[test]
fn what_became_of_it() {
    type Row = (ForgeType, Value, (bool, Option<&'static str>, Option<bool>));
    let rows: [Row; 19] = [
        (Github, json!({}), (true, None, None)),
        // GitHub's trial merge is none.
        (
            Github,
            json!({"merge_commit_sha": "m", "mergeable_state": "unknown"}),
            (true, None, None),
        ),
        (
            Github,
            json!({"mergeable_state": "clean"}),
            (true, None, Some(true)),
        ),
        (
            Github,
            json!({"mergeable_state": "unstable"}),
            (true, None, Some(true)),
        ),
        (
            Github,
            json!({"mergeable_state": "blocked", "mergeable": true}),
            (true, None, Some(false)),
        ),
        (
            Github,
            json!({"mergeable_state": "dirty"}),
            (true, None, Some(false)),
        ),
        (
            Github,
            json!({"state": "closed", "merged": true, "merge_commit_sha": "m"}),
            (false, Some("m"), None),
        ),
        (
            Github,
            json!({"state": "closed", "merged": true}),
            (false, Some("h"), None),
        ),
        (
            Github,
            json!({"state": "closed", "merged": false, "merge_commit_sha": "m"}),
            (false, None, None),
        ),
        (Gitea, json!({"mergeable": true}), (true, None, Some(true))),
        (Gitea, json!({"mergeable": false}), (true, None, None)),
        (
            Gitea,
            json!({"state": "closed", "merged": true, "merge_commit_sha": "m"}),
            (false, Some("m"), None),
        ),
        (
            Gitlab,
            json!({"detailed_merge_status": "mergeable"}),
            (true, None, Some(true)),
        ),
        (
            Gitlab,
            json!({"detailed_merge_status": "not_approved", "merge_status": "can_be_merged"}),
            (true, None, Some(false)),
        ),
        (
            Gitlab,
            json!({"detailed_merge_status": "checking"}),
            (true, None, None),
        ),
        (
            Gitlab,
            json!({"merge_status": "can_be_merged"}),
            (true, None, Some(true)),
        ),
        (
            Gitlab,
            json!({"state": "merged", "merge_commit_sha": null, "squash_commit_sha": "s"}),
            (false, Some("s"), None),
        ),
        (
            Gitlab,
            json!({"state": "merged", "merge_commit_sha": null}),
            (false, Some("h"), None),
        ),
        (
            Gitlab,
            json!({"state": "closed", "merge_commit_sha": "m"}),
            (false, None, None),
        ),
    ];
    for (kind, change, (open, merged, mergeable)) in rows {
        let mut one = match kind {
            Github => github_one(),
            Gitea => gitea_one(),
            Gitlab => gitlab_one(),
        };
        for (key, value) in change.as_object().unwrap() {
            one[key] = value.clone();
        }
        let got = read(kind, &one).unwrap();
        let got = (got.open, got.merged_as.as_deref(), got.mergeable);
        assert_eq!(got, (open, merged, mergeable), "{kind:?} {change}");
    }
}

/// The answer must be of the user who was asked for: names change hands.
#[test]
fn who_may_write() {
    let alice = Author {
        id: 5,
        name: "alice".into(),
    };
    let user = json!({"id": 5, "login": "alice"});
    for (value, want) in [
        (json!({"permission": "admin", "user": user}), true),
        (json!({"permission": "owner", "user": user}), true),
        (json!({"permission": "write", "user": user}), true),
        (json!({"permission": "read", "user": user}), false),
        (json!({"permission": "none", "user": user}), false),
        (
            json!({"permission": "write", "user": {"id": 6, "login": "alice"}}),
            false,
        ),
        (json!({"permission": "write", "user": null}), false),
        (json!({"user": user}), false),
        (json!([]), false),
    ] {
        assert_eq!(github::may_write(&value, &alice), want, "{value}");
    }
    for (value, want) in [
        (
            json!({"id": 5, "access_level": 30, "state": "active"}),
            true,
        ),
        (json!({"id": 5, "access_level": 50}), true),
        (
            json!({"id": 5, "access_level": 20, "state": "active"}),
            false,
        ),
        (
            json!({"id": 5, "access_level": 40, "state": "blocked"}),
            false,
        ),
        (
            json!({"id": 6, "access_level": 40, "state": "active"}),
            false,
        ),
        (json!({"id": 5}), false),
    ] {
        assert_eq!(gitlab::may_write(&value, &alice), want, "{value}");
    }
}
