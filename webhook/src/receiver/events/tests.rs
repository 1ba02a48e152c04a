use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::*;
use ForgeType::{Gitea, Github, Gitlab};

fn heads(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(k, v): &(&'static str, &str)| {
        let value = HeaderValue::from_str(v).unwrap();
        (HeaderName::from_static(k), value)
    };
    pairs.iter().map(pair).collect()
}

/// What the event is; a word for why there is none.
fn event(
    kind: ForgeType,
    pairs: &[(&'static str, &str)],
    mut payload: Value,
) -> Result<Event, &'static str> {
    let key = if kind == Gitlab {
        "project"
    } else {
        "repository"
    };
    payload[key] = json!({"full_name": "acme/fleet", "path_with_namespace": "acme/fleet"});
    match read(kind, &heads(pairs), &payload) {
        Ok(news) => Ok(news.event),
        Err(Ignored(why)) => {
            assert!(!why.is_empty());
            Err("ignored")
        }
        Err(Malformed(_)) => Err("malformed"),
    }
}

fn pushed(reference: &str) -> Result<Event, &'static str> {
    Ok(Event::Push {
        reference: reference.to_owned(),
    })
}

const PULL_REQUEST: Result<Event, &str> = Ok(Event::PullRequest);
const IGNORED: Result<Event, &str> = Err("ignored");
const MALFORMED: Result<Event, &str> = Err("malformed");

#[test]
fn github_events() {
    let zeros = "0".repeat(40);
    for (name, payload, want) in [
        (
            "ping",
            json!({"zen": "Keep it simple", "hook_id": 1}),
            IGNORED,
        ),
        (
            "push",
            json!({"ref": "refs/heads/main"}),
            pushed("refs/heads/main"),
        ),
        (
            "push",
            json!({"ref": "refs/tags/v1"}),
            pushed("refs/tags/v1"),
        ),
        (
            "push",
            json!({"ref": "refs/heads/main", "deleted": true, "after": zeros}),
            pushed("refs/heads/main"),
        ),
        ("push", json!({}), MALFORMED),
        ("push", json!({"ref": ""}), MALFORMED),
        ("pull_request", json!({"action": "opened"}), PULL_REQUEST),
        (
            "pull_request",
            json!({"action": "opened", "pull_request": {"draft": true}}),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            json!({"action": "synchronize"}),
            PULL_REQUEST,
        ),
        ("pull_request", json!({"action": "reopened"}), PULL_REQUEST),
        (
            "pull_request",
            json!({"action": "ready_for_review"}),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            json!({"action": "closed", "pull_request": {"merged": true}}),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            json!({"action": "edited", "changes": {"base": {"ref": {"from": "next"}}}}),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            json!({"action": "edited", "changes": {"title": {"from": "x"}}}),
            IGNORED,
        ),
        (
            "pull_request",
            json!({"action": "edited", "changes": {"base": null}}),
            IGNORED,
        ),
        ("pull_request", json!({"action": "edited"}), IGNORED),
        ("pull_request", json!({"action": "labeled"}), IGNORED),
        ("pull_request", json!({"action": "unlabeled"}), IGNORED),
        ("pull_request", json!({"action": "assigned"}), IGNORED),
        (
            "pull_request",
            json!({"action": "review_requested"}),
            IGNORED,
        ),
        (
            "pull_request",
            json!({"action": "converted_to_draft"}),
            IGNORED,
        ),
        ("pull_request", json!({}), MALFORMED),
        ("pull_request", json!({"action": 1}), MALFORMED),
        (
            "merge_group",
            json!({"action": "checks_requested", "merge_group": {"head_sha": "a"}}),
            PULL_REQUEST,
        ),
        ("merge_group", json!({"action": "destroyed"}), IGNORED),
        // A push tells of these as well.
        ("create", json!({"ref": "v1", "ref_type": "tag"}), IGNORED),
        ("delete", json!({"ref": "v1", "ref_type": "tag"}), IGNORED),
        ("issues", json!({"action": "opened"}), IGNORED),
        ("", json!({}), MALFORMED),
    ] {
        let got = event(Github, &[("x-github-event", name)], payload.clone());
        assert_eq!(got, want, "{name} {payload}");
    }
    assert_eq!(
        event(Github, &[], json!({"ref": "refs/heads/main"})),
        MALFORMED
    );
}

#[test]
fn gitlab_events() {
    let update = |attributes: Value, changes: Value| {
        let mut payload = json!({"object_attributes": {"action": "update"}, "changes": changes});
        if let Some(more) = attributes.as_object() {
            for (key, value) in more {
                payload["object_attributes"][key] = value.clone();
            }
        }
        payload
    };
    let action = |action: &str| json!({"object_attributes": {"action": action}});
    for (name, payload, want) in [
        (
            "Push Hook",
            json!({"ref": "refs/heads/main", "checkout_sha": "a"}),
            pushed("refs/heads/main"),
        ),
        (
            "Push Hook",
            json!({"ref": "refs/heads/main", "checkout_sha": null}),
            pushed("refs/heads/main"),
        ),
        ("Push Hook", json!({"ref": null}), MALFORMED),
        (
            "Tag Push Hook",
            json!({"ref": "refs/tags/v1"}),
            pushed("refs/tags/v1"),
        ),
        (
            "System Hook",
            json!({"object_kind": "push", "event_name": "push", "ref": "refs/heads/main"}),
            pushed("refs/heads/main"),
        ),
        (
            "System Hook",
            json!({"event_name": "tag_push", "ref": "refs/tags/v1"}),
            pushed("refs/tags/v1"),
        ),
        (
            "System Hook",
            json!({"object_kind": "merge_request", "object_attributes": {"action": "open"}}),
            PULL_REQUEST,
        ),
        ("System Hook", json!({"event_name": "user_create"}), IGNORED),
        ("System Hook", json!({}), MALFORMED),
        ("Merge Request Hook", action("open"), PULL_REQUEST),
        ("Merge Request Hook", action("reopen"), PULL_REQUEST),
        ("Merge Request Hook", action("close"), PULL_REQUEST),
        ("Merge Request Hook", action("merge"), PULL_REQUEST),
        ("Merge Request Hook", action("approved"), IGNORED),
        ("Merge Request Hook", action("unapproval"), IGNORED),
        ("Merge Request Hook", json!({}), MALFORMED),
        // New commits alone have an old revision.
        (
            "Merge Request Hook",
            update(json!({"oldrev": "a"}), json!({})),
            PULL_REQUEST,
        ),
        (
            "Merge Request Hook",
            update(json!({"oldrev": ""}), json!({})),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(
                json!({}),
                json!({"target_branch": {"previous": "a", "current": "b"}}),
            ),
            PULL_REQUEST,
        ),
        (
            "Merge Request Hook",
            update(
                json!({}),
                json!({"draft": {"previous": true, "current": false}}),
            ),
            PULL_REQUEST,
        ),
        (
            "Merge Request Hook",
            update(
                json!({}),
                json!({"draft": {"previous": false, "current": true}}),
            ),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(
                json!({}),
                json!({"title": {"previous": "a", "current": "b"}}),
            ),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(json!({}), json!({"description": {}})),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(json!({}), json!({"labels": {}, "assignees": {}})),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(json!({}), json!({"reviewers": {}})),
            IGNORED,
        ),
        (
            "Merge Request Hook",
            update(json!({}), json!({"milestone_id": {}})),
            IGNORED,
        ),
        ("Note Hook", json!({}), IGNORED),
        ("Pipeline Hook", json!({}), IGNORED),
    ] {
        let got = event(Gitlab, &[("x-gitlab-event", name)], payload.clone());
        assert_eq!(got, want, "{name} {payload}");
    }
}

#[test]
fn gitea_events() {
    let action = |action: &str| json!({"action": action, "pull_request": {"draft": false}});
    let edited = |changes: Value, draft: bool| json!({"action": "edited", "changes": changes, "pull_request": {"draft": draft}});
    // Event, its type, payload.
    for (name, kind, payload, want) in [
        (
            "push",
            "push",
            json!({"ref": "refs/heads/main"}),
            pushed("refs/heads/main"),
        ),
        (
            "push",
            "push",
            json!({"ref": "refs/tags/v1"}),
            pushed("refs/tags/v1"),
        ),
        (
            "create",
            "create",
            json!({"ref": "v1", "ref_type": "tag"}),
            pushed("refs/tags/v1"),
        ),
        (
            "delete",
            "delete",
            json!({"ref": "topic/x", "ref_type": "branch"}),
            pushed("refs/heads/topic/x"),
        ),
        ("delete", "delete", json!({"ref": "x"}), MALFORMED),
        ("create", "create", json!({"ref_type": "tag"}), MALFORMED),
        (
            "pull_request",
            "pull_request",
            action("opened"),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request",
            action("reopened"),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request",
            action("closed"),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request_sync",
            action("synchronized"),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request",
            edited(json!({"ref": {"from": "next"}}), false),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request",
            edited(json!({"title": {"from": "WIP: x"}}), false),
            PULL_REQUEST,
        ),
        (
            "pull_request",
            "pull_request",
            edited(json!({"title": {"from": "x"}}), true),
            IGNORED,
        ),
        (
            "pull_request",
            "pull_request",
            edited(json!({"body": {"from": "x"}}), false),
            IGNORED,
        ),
        (
            "pull_request",
            "pull_request_label",
            action("label_updated"),
            IGNORED,
        ),
        (
            "pull_request",
            "pull_request_assign",
            action("assigned"),
            IGNORED,
        ),
        (
            "pull_request",
            "pull_request_milestone",
            action("milestoned"),
            IGNORED,
        ),
        (
            "pull_request",
            "pull_request_review_request",
            action("review_requested"),
            IGNORED,
        ),
        (
            "issue_comment",
            "pull_request_comment",
            action("created"),
            IGNORED,
        ),
        ("pull_request", "pull_request", json!({}), MALFORMED),
    ] {
        for prefix in [
            ["x-gitea-event", "x-gitea-event-type"],
            ["x-forgejo-event", "x-forgejo-event-type"],
        ] {
            let pairs = [(prefix[0], name), (prefix[1], kind)];
            let got = event(Gitea, &pairs, payload.clone());
            assert_eq!(got, want, "{name} {kind} {payload}");
        }
    }
    // Older ones tell the event alone; GitHub's headers, which they write as well, do not count.
    let only = event(
        Gitea,
        &[("x-gitea-event", "pull_request")],
        action("opened"),
    );
    assert_eq!(only, PULL_REQUEST);
    let github = event(
        Gitea,
        &[("x-github-event", "push")],
        json!({"ref": "refs/heads/main"}),
    );
    assert_eq!(github, MALFORMED);
}

/// The events that GitLab's and Gitea's documentation lists beside those above: each is answered 2xx, whatever it holds, since
/// GitLab turns webhooks off that fail.
#[test]
fn events_that_are_none_of_our_business() {
    let gitlab = [
        "Access Token Hook",
        "Confidential Issue Hook",
        "Confidential Note Hook",
        "Deployment Hook",
        "Emoji Hook",
        "Feature Flag Hook",
        "Issue Hook",
        "Job Hook",
        "Member Hook",
        "Milestone Hook",
        "Pipeline Hook",
        "Project Hook",
        "Release Hook",
        "Resource Access Token Hook",
        "Subgroup Hook",
        "Vulnerability Hook",
        "Wiki Page Hook",
    ];
    let gitea = [
        "fork",
        "issue_assign",
        "issue_label",
        "issue_milestone",
        "issues",
        "package",
        "pull_request_assign",
        "pull_request_label",
        "pull_request_milestone",
        "pull_request_review_approved",
        "pull_request_review_comment",
        "pull_request_review_rejected",
        "pull_request_review_request",
        "release",
        "repository",
        "schedule",
        "status",
        "wiki",
        "workflow_job",
        "workflow_run",
    ];
    let system = [
        "group_create",
        "key_create",
        "project_create",
        "repository_update",
        "user_create",
    ];
    let rows = gitlab.map(|event| (Gitlab, "x-gitlab-event", event, json!({})));
    let rows = rows
        .into_iter()
        .chain(gitea.map(|event| (Gitea, "x-gitea-event-type", event, json!({}))));
    let rows = rows.chain(system.map(|event| {
        (
            Gitlab,
            "x-gitlab-event",
            "System Hook",
            json!({"event_name": event}),
        )
    }));
    for (kind, name, event, payload) in rows {
        // Some of them tell of no repository.
        let got = read(kind, &heads(&[(name, event)]), &payload);
        assert!(matches!(got, Err(Ignored(_))), "{event} {payload}: {got:?}");
    }
}

#[test]
fn an_answer_repeats_little_of_what_came() {
    let long = format!("x{}", "y".repeat(5_000));
    let got = read(Github, &heads(&[("x-github-event", &long)]), &json!({}));
    let Err(Ignored(why)) = got else {
        panic!("{got:?}");
    };
    assert!(why.len() < 200);
}

const REMARK: Result<Event, &str> = Ok(Event::Remark);

#[test]
fn comments_on_pull_requests() {
    let hub = |action: Value, pull: Value| json!({"action": action, "issue": {"number": 7, "pull_request": pull}});
    for (payload, want) in [
        (hub(json!("created"), json!({"url": "x"})), REMARK),
        (hub(json!("edited"), json!({"url": "x"})), IGNORED),
        (hub(json!("deleted"), json!({"url": "x"})), IGNORED),
        (hub(json!("created"), Value::Null), IGNORED),
        (hub(json!("created"), json!(true)), IGNORED),
        (hub(Value::Null, json!({})), MALFORMED),
        (json!({}), MALFORMED),
    ] {
        let got = event(
            Github,
            &[("x-github-event", "issue_comment")],
            payload.clone(),
        );
        assert_eq!(got, want, "{payload}");
    }
    let note = |attributes: Value| json!({"object_kind": "note", "object_attributes": attributes});
    for (attributes, want) in [
        (
            json!({"action": "create", "noteable_type": "MergeRequest"}),
            REMARK,
        ),
        (json!({"noteable_type": "MergeRequest"}), REMARK),
        (
            json!({"action": "update", "noteable_type": "MergeRequest"}),
            IGNORED,
        ),
        (
            json!({"action": "create", "noteable_type": "Issue"}),
            IGNORED,
        ),
        (json!({"action": "create"}), IGNORED),
        (
            json!({"action": [], "noteable_type": "MergeRequest"}),
            MALFORMED,
        ),
    ] {
        for name in ["Note Hook", "System Hook"] {
            let got = event(
                Gitlab,
                &[("x-gitlab-event", name)],
                note(attributes.clone()),
            );
            assert_eq!(got, want, "{name} {attributes}");
        }
    }
    for (payload, want) in [
        (json!({"action": "created", "is_pull": true}), REMARK),
        (
            json!({"action": "created", "issue": {"pull_request": {"merged": false}}}),
            REMARK,
        ),
        (
            json!({"action": "created", "is_pull": false, "issue": {"pull_request": null}}),
            IGNORED,
        ),
        (json!({"action": "edited", "is_pull": true}), IGNORED),
        (json!({"is_pull": true}), MALFORMED),
    ] {
        for kind in ["pull_request_comment", "issue_comment"] {
            let pairs = [
                ("x-gitea-event", "issue_comment"),
                ("x-gitea-event-type", kind),
            ];
            assert_eq!(
                event(Gitea, &pairs, payload.clone()),
                want,
                "{kind} {payload}"
            );
        }
    }
}
