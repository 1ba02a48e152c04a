//! Pull requests that are applied before their merge: who asked is answered, and the Fleet's status says which one it is.
//!
//! The status is written first, whole and at once: the follower acts on it, and what is answered is said from it, so that a crash
//! forgets neither, and no comment is answered twice.

use std::collections::BTreeMap;

use fleetwright_api::{
    Fleet,
    fleet::{Answer, Held},
};
use fleetwright_gitops::{held::may_hold, read::Reader, source::Ends, wishes::About};
use fleetwright_webhook::{forge::PostError, pull_requests::PullRequest};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    Pulls, PullsError,
    approval::{self, Command, Planned, SHOWN, Stand, Verdict},
    comments::{Place, Said},
};

const FIELD_MANAGER: &str = "fleetwright-pulls";
/// Answers that are kept: of as many pull requests as are planned.
const ANSWERS: usize = super::MOST;

/// What is known of approvals between looks.
#[derive(Default)]
pub(super) struct Approvals {
    /// What the Fleet's status says of them, and of which Fleet: nobody else writes it.
    known: Option<Known>,
    /// When each pull request was last changed, as of when all that was said on it was judged.
    read: BTreeMap<u64, Timestamp>,
    said: Said,
}

#[derive(Clone, Default)]
struct Known {
    uid: Option<String>,
    held: Option<Held>,
    answers: Vec<Answer>,
}

impl Known {
    /// The comment that was answered last on a pull request. Of one that answers are no longer kept of, the oldest that are kept count:
    /// what was said before them is over.
    fn answered(&self, number: u64) -> u64 {
        let comment = |answer: &Answer| u64::try_from(answer.comment).unwrap_or(0);
        let same = |answer: &&Answer| u64::try_from(answer.number) == Ok(number);
        match self.answers.iter().find(same) {
            Some(answer) => comment(answer),
            None if self.answers.len() >= ANSWERS => {
                self.answers.iter().map(comment).min().unwrap_or(0)
            }
            None => 0,
        }
    }

    fn answer(&mut self, number: u64, comment: u64, text: String) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.answers
            .retain(|answer| answer.number != signed(number));
        self.answers.push(Answer {
            number: signed(number),
            comment: signed(comment),
            text,
        });
        let many = self.answers.len().saturating_sub(ANSWERS);
        self.answers.drain(..many);
    }

    /// Answers that an approval came too late.
    fn is_late(&mut self, held: &Held) {
        let same = |answer: &&mut Answer| answer.number == held.number;
        if let Some(answer) = self.answers.iter_mut().find(same) {
            answer.text =
                "Not applied: the branch has moved since. Look at the newest plan, and say it again."
                    .into();
        }
    }

    /// The pull request that others must wait for: what is merged is in the branch that they merge into.
    fn held(&self) -> Option<(u64, &str)> {
        let held = self.held.as_ref().filter(|held| held.merged_as.is_none())?;
        Some((u64::try_from(held.number).ok()?, held.head.as_str()))
    }
}

/// What a command is about.
pub(super) struct Asked<'a> {
    pub(super) number: u64,
    /// The newest first.
    pub(super) commands: Vec<Command>,
    /// The two commits that were planned, and what came of it; nothing where they are not there yet.
    pub(super) planned: Option<&'a (Ends, Planned)>,
}

impl Pulls {
    /// The commands on open pull requests that were not answered yet, and the first error: it holds up the commands of that one alone.
    pub(super) async fn commands(
        &self,
        place: Place<'_>,
        fleet: &Fleet,
        open: &[PullRequest],
        approvals: &mut Approvals,
    ) -> Result<(BTreeMap<u64, Vec<Command>>, Option<PullsError>), PullsError> {
        let known = self.known(fleet, approvals).await?;
        let (mut commands, mut failed) = (BTreeMap::new(), None);
        for pull in open {
            let (number, changed) = (pull.number, pull.updated_at);
            if changed.is_some() && approvals.read.get(&number).copied() == changed {
                continue;
            }
            let now = self.clock.now();
            let remarks = match self.forge.remarks(place.remote, number, now).await {
                Ok(remarks) => remarks,
                Err(error) => {
                    failed.get_or_insert(error.into());
                    continue;
                }
            };
            let found = approval::newest(&remarks, known.answered(number));
            match found.is_empty() {
                false => drop(commands.insert(number, found)),
                true => approvals.read.extend(changed.map(|at| (number, at))),
            }
        }
        approvals
            .read
            .retain(|number, _| open.iter().any(|pull| pull.number == *number));
        Ok((commands, failed))
    }

    /// Judges the newest command of somebody who may, and has the pull request applied if it is right. It is judged again later where too
    /// little is known.
    pub(super) async fn judge(
        &self,
        place: Place<'_>,
        fleet: &Fleet,
        asked: Asked<'_>,
        approvals: &mut Approvals,
    ) -> Result<(), PullsError> {
        let Asked {
            number,
            commands,
            planned,
        } = asked;
        let (Some((ends, planned)), Some(newest)) = (planned, commands.first()) else {
            return Ok(());
        };
        let now = self.clock.now();
        let pull = self.forge.get(place.remote, number, now).await?;
        // What was planned is what is judged.
        let reference = fleet.spec.source.reference.as_ref();
        let branch = reference.and_then(|reference| reference.branch.as_ref());
        let same =
            |pull: &PullRequest| pull.head_sha == ends.head && Some(&pull.base_ref) == branch;
        let Some(pull) = pull.filter(same) else {
            return Ok(());
        };
        let mut known = self.known(fleet, approvals).await?;
        let replaces = known.held.as_ref().map(|held| held.head.clone());
        if replaces
            .as_deref()
            .is_some_and(|head| observed(fleet) != Some(head))
        {
            // One after the other: what is held is not followed yet.
            return Ok(());
        }
        let (mut command, mut may) = (newest, self.may(place, fleet, newest).await?);
        for older in commands.iter().skip(1) {
            if may.is_some() && self.may(place, fleet, older).await?.is_none() {
                (command, may) = (older, None);
            }
        }
        let stand = Stand {
            fleet,
            pull: &pull,
            planned,
            held: known.held(),
            may: may.as_deref().map_or(Ok(()), Err),
        };
        let who = format!("`{}`", plain(&command.author.name));
        let text = match (approval::judge(command, stand), planned) {
            (Verdict::Apply, Planned::Made { digest, tree }) => {
                known.held = Some(Held {
                    number: i64::try_from(number).unwrap_or(i64::MAX),
                    head: ends.head.clone(),
                    base: ends.base.clone(),
                    tree: tree.clone(),
                    plan: digest.clone(),
                    approved_by: command.author.name.clone(),
                    merged_as: None,
                    replaces,
                });
                let (head, shown) = (short(&ends.head, 12), short(digest, SHOWN));
                format!(
                    "Applying `{head}` before its merge, as {who} said: plan `{shown}`. Merge it to keep it; when it is closed, the branch is applied again."
                )
            }
            (Verdict::Refuse(why), _) => format!("Not applied, though {who} said so: {why}."),
            (Verdict::Later | Verdict::Apply, _) => return Ok(()),
        };
        tracing::info!(fleet = %fleet.name_any(), number, comment = command.comment, answer = text, "asked to apply a pull request");
        known.answer(number, newest.comment, text);
        self.remember(fleet, known, approvals).await
    }

    /// Why the author of a command may not have anything applied.
    async fn may(
        &self,
        place: Place<'_>,
        fleet: &Fleet,
        command: &Command,
    ) -> Result<Option<String>, PullsError> {
        let Some(named) = approval::is_named(fleet, &command.author) else {
            let now = self.clock.now();
            let may = self.forge.may_write(place.remote, &command.author, now);
            return match may.await {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some("only who may write to the repository may say so".into())),
                Err(PostError::Refused { .. }) => Ok(Some(
                    "the forge does not tell this token who may write to the repository: name those who may in spec.pullRequests.approvers of the Fleet".into(),
                )),
                Err(error) => Err(error.into()),
            };
        };
        Ok((!named).then(|| "only those whom the Fleet names may say so".into()))
    }

    /// Says all answers where they belong.
    pub(super) async fn answer(
        &self,
        place: Place<'_>,
        open: &[PullRequest],
        approvals: &mut Approvals,
    ) -> Result<(), PullsError> {
        let Some(known) = &approvals.known else {
            return Ok(());
        };
        let mut failed = None;
        for answer in &known.answers {
            let mut open = open.iter();
            let pull = open.find(|pull| i64::try_from(pull.number) == Ok(answer.number));
            let Some(pull) = pull else {
                continue;
            };
            let (about, body) = ((About::Apply, pull.number), (answer.text.as_str(), true));
            if let Err(error) = self.put(place, about, body, &mut approvals.said).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Lets go of what is held where it is over: the Fleet no longer works so, or the pull request was closed, goes elsewhere, or is in the
    /// branch. Of one that was merged and is not seen there yet it tells the follower as what.
    pub(super) async fn release(
        &self,
        place: Option<(Place<'_>, &str, &[PullRequest])>,
        fleet: &Fleet,
        (branch, approvals): (&mut Reader, &mut Approvals),
    ) -> Result<(), PullsError> {
        let status = fleet.status.as_ref();
        let nothing = approvals.known.as_ref().is_none_or(|k| k.held.is_none());
        if nothing && status.is_none_or(|status| status.held.is_none()) {
            return Ok(());
        }
        let mut known = self.known(fleet, approvals).await?;
        let Some(held) = known.held.clone() else {
            return Ok(());
        };
        known.held = match place.filter(|_| may_hold(fleet)) {
            Some(place) => self.still(place, fleet, &held, branch).await?,
            None => None,
        };
        if let (Some(open), Some(at)) = (&known.held, observed(fleet))
            && open.merged_as.is_none()
        {
            let now = self.clock.now();
            if !branch.may_follow(fleet, open, Some(at), now).await? {
                let (at, head) = (at.to_owned(), held.head.clone());
                // The branch has it, whatever the forge says; or it was moved before the approval.
                if !branch.has(fleet, at, head, now).await? {
                    known.is_late(&held);
                }
                known.held = None;
            }
        }
        if known.held.as_ref() == Some(&held) {
            return Ok(());
        }
        if known.held.is_none() {
            let number = held.number;
            tracing::info!(fleet = %fleet.name_any(), number, "no longer applied before its merge");
        }
        self.remember(fleet, known, approvals).await
    }

    /// What of a held pull request is still held.
    async fn still(
        &self,
        (place, name, open): (Place<'_>, &str, &[PullRequest]),
        fleet: &Fleet,
        held: &Held,
        branch: &mut Reader,
    ) -> Result<Option<Held>, PullsError> {
        let number = u64::try_from(held.number).unwrap_or(0);
        let now = self.clock.now();
        let head = branch.find(fleet, now).await?.revision;
        if open.iter().any(|pull| pull.number == number) {
            return Ok(Some(held.clone()));
        }
        let pull = self.forge.get(place.remote, number, now).await?;
        // What the forge does not show may be there.
        let here = |pull: &PullRequest| pull.base_ref == name;
        let Some(pull) = pull.filter(|pull| !(pull.open && here(pull))) else {
            return Ok(Some(held.clone()));
        };
        let Some(commit) = pull.merged_as.clone().filter(|_| here(&pull)) else {
            return Ok(None);
        };
        let seen = branch.has(fleet, head, commit.clone(), now).await?;
        Ok((!seen).then(|| Held {
            merged_as: Some(commit),
            ..held.clone()
        }))
    }

    /// What the Fleet's status says of approvals: read once in a process, since what is watched may be late.
    async fn known(&self, fleet: &Fleet, approvals: &mut Approvals) -> Result<Known, PullsError> {
        if let Some(known) = approvals.known.as_ref().filter(|k| k.uid == fleet.uid()) {
            return Ok(known.clone());
        }
        let namespace = fleet.namespace().unwrap_or_default();
        let api = Api::<Fleet>::namespaced(self.client.clone(), &namespace);
        let fresh = api.get(&fleet.name_any()).await?;
        let uid = fresh.uid();
        let status = fresh.status.unwrap_or_default();
        let known = Known {
            uid,
            held: status.held,
            answers: status.answers,
        };
        *approvals = Approvals {
            known: Some(known.clone()),
            ..Approvals::default()
        };
        Ok(known)
    }

    async fn remember(
        &self,
        fleet: &Fleet,
        known: Known,
        approvals: &mut Approvals,
    ) -> Result<(), PullsError> {
        let namespace = fleet.namespace().unwrap_or_default();
        let api = Api::<Fleet>::namespaced(self.client.clone(), &namespace);
        let status = json!({"status": {"held": known.held, "answers": known.answers}});
        // Written or not, what is known is read again where the answer gets lost.
        approvals.known = None;
        let params = PatchParams::apply(FIELD_MANAGER);
        api.patch_status(&fleet.name_any(), &params, &Patch::Merge(status))
            .await?;
        approvals.known = Some(known);
        Ok(())
    }
}

/// The revision that the Fleet followed last.
fn observed(fleet: &Fleet) -> Option<&str> {
    let at = fleet.status.as_ref()?.observed.as_ref();
    at.map(|at| at.revision.as_str())
}

/// What can stand in a code span.
fn plain(name: &str) -> String {
    let fits = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    name.chars().filter(fits).take(100).collect()
}

fn short(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comment_is_answered_once() {
        let mut known = Known::default();
        assert_eq!(known.answered(7), 0);
        known.answer(7, 100, "no".into());
        known.answer(8, 101, "no".into());
        known.answer(7, 102, "yes".into());
        assert_eq!((known.answered(7), known.answered(8)), (102, 101));
        assert_eq!(known.answered(9), 0);
        let numbers: Vec<_> = known.answers.iter().map(|a| a.number).collect();
        assert_eq!(numbers, [8, 7], "one for each, the newest last");
        // Those that fell out are not answered again, whatever was said there.
        for n in 0..200 {
            known.answer(1_000 + n, 200 + n, "no".into());
        }
        assert_eq!(known.answers.len(), 200);
        assert_eq!(known.answered(7), 200);
        assert_eq!(known.answered(1_199), 399);
    }

    #[test]
    fn others_wait_for_what_is_held_and_not_merged() {
        let mut known = Known::default();
        assert_eq!(known.held(), None);
        let mut held = Held {
            number: 7,
            head: "h".into(),
            ..Held::default()
        };
        known.held = Some(held.clone());
        assert_eq!(known.held(), Some((7, "h")));
        held.merged_as = Some("m".into());
        known.held = Some(held.clone());
        assert_eq!(known.held(), None);
        known.answer(7, 1, "Applying".into());
        known.answer(8, 2, "no".into());
        known.is_late(&held);
        assert!(known.answers[0].text.contains("branch has moved"));
        assert_eq!(known.answers[1].text, "no");
        assert_eq!(known.answered(7), 1);
    }

    #[test]
    fn names_stay_in_their_code_spans() {
        assert_eq!(plain("alice-b_c.d"), "alice-b_c.d");
        assert_eq!(plain("a`@x\n**"), "a@x");
        assert_eq!(plain(&"x".repeat(500)).len(), 100);
    }
}
