//! What is said on pull requests: one comment each, which is never left to say what no longer holds.
//!
//! What was said is known of this process alone. What an earlier one said is found again by the comment's marker, once.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::Fleet;
use fleetwright_gitops::wishes::{About, Wishes};
use fleetwright_webhook::{
    forge::Remote,
    pull_requests::{Comment, PullRequest, StoredComment},
};
use kube::ResourceExt;

use super::{MOST, Pulls, PullsError, State, outcome::Outcome};

/// What was said of a Fleet's plans.
#[derive(Default)]
pub(super) struct Said {
    /// Our comments, by pull request; nothing where there is none.
    comments: BTreeMap<u64, Option<StoredComment>>,
    /// Whether it is told wherever it may have to be that nothing is planned any more.
    pub(super) ended: bool,
}

/// Where something is said.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) wishes: &'a Wishes,
    pub(super) remote: &'a Remote,
}

impl Said {
    /// Forgets what was said on others than these.
    pub(super) fn retain(&mut self, open: &BTreeSet<u64>) {
        self.comments.retain(|number, _| open.contains(number));
    }

    /// Whether nothing was said on a pull request, for all that can be known.
    fn is_silent(&self, number: u64) -> bool {
        matches!(self.comments.get(&number), Some(None))
    }
}

impl Pulls {
    /// Says what a plan came to. Where there is nothing to say, that is said where something was said before.
    pub(super) async fn say(
        &self,
        place: Place<'_>,
        number: u64,
        outcome: Outcome,
        said: &mut Said,
    ) -> Result<(), PullsError> {
        let make = outcome.comment.is_some();
        let body = outcome.comment.unwrap_or(outcome.words);
        let about = (About::Plan, number);
        self.put(place, about, (&body, make), said).await
    }

    /// Makes our comment about something on a pull request say this, if there is one or one is to be made.
    pub(super) async fn put(
        &self,
        place: Place<'_>,
        (about, number): (About<'_>, u64),
        (body, make): (&str, bool),
        said: &mut Said,
    ) -> Result<(), PullsError> {
        if !make && said.is_silent(number) {
            return Ok(());
        }
        let known = said.comments.get(&number);
        let context = place.wishes.context(about);
        let comment = Comment {
            context: &context,
            body,
            known: known.and_then(Option::as_ref),
            make,
        };
        let now = self.clock.now();
        let stored = self
            .forge
            .upsert_comment(place.remote, number, &comment, now)
            .await?;
        said.comments.insert(number, stored);
        Ok(())
    }

    /// Says on pull requests into other branches that they are no longer planned, where they were.
    pub(super) async fn leave(
        &self,
        place: Place<'_>,
        fleet: &Fleet,
        others: &[PullRequest],
        said: &mut Said,
    ) -> Result<(), PullsError> {
        let open = others.iter().filter(|pull| !said.is_silent(pull.number));
        let open: Vec<&PullRequest> = open.collect();
        if open.is_empty() {
            return Ok(());
        }
        let planned = place.wishes.planned().await?;
        let why = "It is not planned: it merges into no branch that the Fleet follows.";
        let body = told(fleet, why);
        for pull in open {
            let known = said.comments.contains_key(&pull.number);
            if known || planned.contains(&pull.head_sha) {
                let about = (About::Plan, pull.number);
                self.put(place, about, (&body, false), said).await?;
            }
        }
        Ok(())
    }

    /// The Fleet plans nothing. If it ever did, that is said once wherever it matters, and what is pending ends.
    pub(super) async fn end(
        &self,
        fleet: &Fleet,
        wishes: &Wishes,
        state: &mut State,
    ) -> Result<(), PullsError> {
        if state.said.ended {
            return Ok(());
        }
        state.planned.clear();
        let Some(forge) = &fleet.spec.forge else {
            return Ok(());
        };
        if !wishes.planned().await?.is_empty() {
            let at = (forge.kind, forge.repository.as_str());
            let remote = Remote::of(&self.client, Some(fleet), at, &self.defaults).await?;
            let place = Place {
                wishes,
                remote: &remote,
            };
            wishes.supersede_plans(&BTreeSet::new()).await?;
            let open = self.forge.list_open(&remote, self.clock.now()).await?;
            let body = told(fleet, "It is not planned: the Fleet no longer asks for it.");
            let open = open.pull_requests.iter().filter(|pull| pull.open);
            for pull in open.take(MOST) {
                let said = &mut state.said;
                let about = (About::Plan, pull.number);
                self.put(place, about, (&body, false), said).await?;
            }
        }
        state.said = Said {
            ended: true,
            ..Said::default()
        };
        Ok(())
    }
}

fn told(fleet: &Fleet, why: &str) -> String {
    let namespace = fleet.namespace().unwrap_or_default();
    format!(
        "### Fleetwright: `{namespace}/{}`\n\n{why}\n",
        fleet.name_any()
    )
}
