//! Whom news of a repository concerns: a function of the Fleet and the news.

use fleetwright_api::{Fleet, fleet::ApplyWhen};

use super::events::{Event, News};
use crate::repository;

/// Whether the news is to wake the Fleet.
pub(super) fn concerns(fleet: &Fleet, news: &News) -> bool {
    let source = &fleet.spec.source;
    let by_url = source
        .url
        .as_deref()
        .and_then(repository::normalise)
        .is_some_and(|name| news.names.contains(&name));
    let by_forge = fleet
        .spec
        .forge
        .as_ref()
        .is_some_and(|f| news.names.contains(&f.repository.to_lowercase()));
    if !by_url && !by_forge {
        return false;
    }
    match &news.event {
        Event::PullRequest => fleet.spec.pull_requests.as_ref().is_some_and(|p| p.plan),
        Event::Remark => fleet
            .spec
            .pull_requests
            .as_ref()
            .is_some_and(|p| p.plan && p.apply == Some(ApplyWhen::OnApproval)),
        Event::Push { reference } => {
            let wanted = source.reference.clone().unwrap_or_default();
            // A pinned commit never moves.
            wanted.commit.is_none()
                && if wanted.semver.is_some() {
                    reference.starts_with("refs/tags/")
                } else {
                    let (branch, tag) = (wanted.branch.as_deref(), wanted.tag.as_deref());
                    repository::follows(reference, branch, tag, news.default_branch.as_deref())
                }
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::fleet::{
        FleetSource, FleetSpec, Forge,
        ForgeType::{self, Github, Gitlab},
        GitRef, PullRequests,
    };
    use serde_json::json;

    use super::*;
    use crate::receiver::events::names;

    /// Words wake those alone who listen to them.
    #[test]
    fn whom_a_comment_concerns() {
        let named = ["acme/fleet".to_owned()].into();
        let news = News {
            names: named,
            default_branch: None,
            event: Event::Remark,
        };
        for (plan, apply, want) in [
            (true, ApplyWhen::OnApproval, true),
            (true, ApplyWhen::AfterMerge, false),
            (false, ApplyWhen::OnApproval, false),
        ] {
            let spec = FleetSpec {
                forge: Some(Forge {
                    repository: "Acme/fleet".into(),
                    ..Forge::default()
                }),
                pull_requests: Some(PullRequests {
                    plan,
                    apply: Some(apply),
                    ..PullRequests::default()
                }),
                ..FleetSpec::default()
            };
            assert_eq!(
                concerns(&Fleet::new("f", spec), &news),
                want,
                "{plan} {apply:?}"
            );
        }
    }

    /// The names of repositories in payloads, and those of Fleets.
    #[test]
    fn whom_it_concerns() {
        let github = json!({"repository": {
            "id": 42, "full_name": "Acme/Fleet", "default_branch": "main",
            "clone_url": "https://github.com/acme/fleet.git", "ssh_url": "git@github.com:acme/fleet.git",
        }});
        let gitlab = json!({"project": {
            "id": 42, "path_with_namespace": "acme/eu/fleet", "default_branch": "main",
            "git_http_url": "https://gitlab.com/acme/eu/fleet.git", "git_ssh_url": "git@gitlab.com:acme/eu/fleet.git",
        }});
        let fleet = |url: &str, forge: Option<(ForgeType, &str)>, reference: GitRef, plan: bool| {
            let spec = FleetSpec {
                source: FleetSource {
                    url: Some(url.to_owned()),
                    reference: Some(reference),
                    ..FleetSource::default()
                },
                forge: forge.map(|(kind, repository)| Forge {
                    kind,
                    repository: repository.to_owned(),
                    ..Forge::default()
                }),
                pull_requests: Some(PullRequests {
                    plan,
                    ..PullRequests::default()
                }),
                ..FleetSpec::default()
            };
            Fleet::new("f", spec)
        };
        let branch = |name: &str| GitRef {
            branch: Some(name.to_owned()),
            ..GitRef::default()
        };
        let head = GitRef::default;
        let commit = GitRef {
            commit: Some("a".repeat(40)),
            ..GitRef::default()
        };
        let semver = GitRef {
            semver: Some("1.x".to_owned()),
            ..GitRef::default()
        };
        let push = |reference: &str| Event::Push {
            reference: reference.to_owned(),
        };
        let (main, tag) = (push("refs/heads/main"), push("refs/tags/v1"));
        let (hub, lab) = (
            "ssh://git@github.com/acme/fleet",
            "https://gitlab.com/acme/eu/fleet",
        );
        let elsewhere = "file:///srv/fleet.git";
        for (payload, fleet, event, want) in [
            (&github, fleet(hub, None, head(), false), &main, true),
            (&github, fleet(hub, None, head(), false), &tag, false),
            (
                &github,
                fleet(hub, None, branch("next"), false),
                &main,
                false,
            ),
            (&github, fleet(hub, None, semver.clone(), false), &tag, true),
            (&github, fleet(hub, None, semver, false), &main, false),
            (
                &github,
                fleet(hub, None, commit.clone(), false),
                &main,
                false,
            ),
            (&github, fleet(lab, None, head(), false), &main, false),
            (
                &github,
                fleet(
                    elsewhere,
                    Some((Github, "acme/fleet")),
                    branch("main"),
                    false,
                ),
                &main,
                true,
            ),
            (&gitlab, fleet(lab, None, head(), false), &main, true),
            (
                &gitlab,
                fleet(elsewhere, Some((Gitlab, "Acme/EU/fleet")), head(), false),
                &main,
                true,
            ),
            (
                &gitlab,
                fleet(elsewhere, Some((Gitlab, "42")), head(), false),
                &main,
                true,
            ),
            (
                &gitlab,
                fleet(elsewhere, Some((Gitlab, "43")), head(), false),
                &main,
                false,
            ),
            (
                &gitlab,
                fleet(elsewhere, Some((Gitlab, "eu/fleet")), head(), false),
                &main,
                false,
            ),
            // Pull requests, for those who plan them: whatever they follow, even a commit.
            (
                &github,
                fleet(hub, None, head(), true),
                &Event::PullRequest,
                true,
            ),
            (
                &github,
                fleet(hub, None, commit, true),
                &Event::PullRequest,
                true,
            ),
            (
                &github,
                fleet(hub, None, head(), false),
                &Event::PullRequest,
                false,
            ),
            (
                &github,
                fleet(lab, None, head(), true),
                &Event::PullRequest,
                false,
            ),
        ] {
            let repository = payload
                .get("repository")
                .or(payload.get("project"))
                .unwrap();
            let news = News {
                names: names(repository),
                default_branch: Some("main".to_owned()),
                event: event.clone(),
            };
            let (source, forge) = (&fleet.spec.source, &fleet.spec.forge);
            assert_eq!(
                concerns(&fleet, &news),
                want,
                "{source:?} {forge:?} {event:?}"
            );
        }
    }
}
