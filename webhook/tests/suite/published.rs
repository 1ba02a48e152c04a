//! Deliveries that GitHub publishes as examples: all events with all actions, and what ours become when a field is spoiled.

use std::collections::BTreeMap;

use fleetwright_api::{
    Fleet,
    fleet::{FleetSource, FleetSpec, ForgeType::Github, GitRef, PullRequests},
};
use fleetwright_tests::tools::tool;
use serde_json::{Value, json};

use crate::hostile::{deliver, receiver_for, spoiled};

/// The examples by event; `None` where they are not installed.
fn examples() -> Option<BTreeMap<String, Vec<Value>>> {
    let text = std::fs::read(tool("github-webhooks.json")?).unwrap();
    Some(serde_json::from_slice(&text).unwrap())
}

/// Of each repository that the examples of our events tell of: who plans pull requests and follows the default branch, and who
/// follows tags.
fn fleets() -> impl Iterator<Item = Fleet> {
    [
        "Codertocat/Hello-World",
        "octo-org/octo-repo",
        "Octocoders/Hello-World",
    ]
    .into_iter()
    .flat_map(|repository| {
        let owner = repository.split('/').next().unwrap().to_lowercase();
        let fleet = |name: &str, semver: Option<&str>| {
            let spec = FleetSpec {
                source: FleetSource {
                    url: Some(format!("https://github.com/{repository}")),
                    reference: semver.map(|range| GitRef {
                        semver: Some(range.to_owned()),
                        ..GitRef::default()
                    }),
                    ..FleetSource::default()
                },
                pull_requests: Some(PullRequests {
                    plan: semver.is_none(),
                    interval_seconds: None,
                    apply: None,
                    approvers: Vec::new(),
                }),
                ..FleetSpec::default()
            };
            Fleet::new(&format!("{name}-{owner}"), spec)
        };
        [fleet("branch", None), fleet("tags", Some("*"))]
    })
}

#[tokio::test]
async fn each_example_wakes_whom_it_should_and_the_rest_nobody() {
    let Some(examples) = examples() else {
        return;
    };
    let router = receiver_for(fleets()).await;
    let mut woke = BTreeMap::<String, usize>::new();
    let mut count = 0;
    for (event, payloads) in &examples {
        for payload in payloads {
            count += 1;
            let mut payload = payload.clone();
            // Some are there twice.
            payload["number of the delivery"] = json!(count);
            let body = payload.to_string().into_bytes();
            let (status, answer) = deliver(&router, Github, event, body).await;
            let woken = answer["woken"].as_array();
            let woken = woken.unwrap_or_else(|| panic!("{event}: {status} {answer}"));
            assert_eq!(status, if woken.is_empty() { 200 } else { 202 }, "{event}");
            for fleet in woken {
                let what = payload["action"].as_str().or(payload["ref"].as_str());
                let fleet = fleet.as_str().unwrap();
                *woke
                    .entry(format!("{event} {} {fleet}", what.unwrap_or_default()))
                    .or_default() += 1;
            }
        }
    }
    assert_eq!((examples.len(), count), (58, 329), "all of them were sent");
    let woke: Vec<_> = woke.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let want = [
        ("merge_group checks_requested default/branch-octo-org", 2),
        ("pull_request closed default/branch-codertocat", 2),
        ("pull_request opened default/branch-codertocat", 4),
        ("pull_request ready_for_review default/branch-codertocat", 3),
        ("pull_request reopened default/branch-codertocat", 2),
        ("pull_request synchronize default/branch-codertocat", 1),
        ("push refs/heads/master default/branch-codertocat", 2),
        ("push refs/tags/simple-tag default/tags-codertocat", 5),
    ];
    assert_eq!(woke, want);
}

/// Without the links to everything, but for those by which a repository is known.
fn bare(payload: &Value) -> Value {
    match payload {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| {
                !key.ends_with("_url")
                    || ["clone_url", "git_url", "html_url", "ssh_url"].contains(&key.as_str())
            })
            .map(|(key, value)| (key.clone(), bare(value)))
            .collect(),
        Value::Array(items) => items.iter().map(bare).collect(),
        value => value.clone(),
    }
}

#[tokio::test]
async fn an_example_with_any_field_spoiled_is_answered() {
    let Some(examples) = examples() else {
        return;
    };
    let router = receiver_for(fleets()).await;
    let mut seen = BTreeMap::<u16, usize>::new();
    for event in ["merge_group", "ping", "pull_request", "push"] {
        for (place, form) in spoiled(&bare(&examples[event][0])) {
            let body = form.to_string().into_bytes();
            let (status, answer) = deliver(&router, Github, event, body).await;
            let fine = matches!(status, 200 | 202 | 400);
            assert!(fine, "{event} {place}: {status} {answer}");
            *seen.entry(status).or_default() += 1;
        }
    }
    assert!(seen.len() == 3, "all ways are taken: {seen:?}");
}
