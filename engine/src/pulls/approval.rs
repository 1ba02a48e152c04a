//! Whether somebody's words have a pull request applied before its merge: functions of what was said and of how things stand.
//!
//! What counts is a comment that says nothing but `fleetwright apply DIGITS`, as its author wrote it, by a person who may, of the
//! newest plan. Each is answered once.

use std::collections::BTreeSet;

use fleetwright_api::Fleet;
use fleetwright_webhook::pull_requests::{Author, PullRequest, Remark};

/// Fewest digits that name a plan.
const FEWEST: usize = 12;
/// People whose words are looked at, in one look at a pull request.
const PEOPLE: usize = 16;
/// Longest part of a plan's failure that is told, in characters.
const MAX_FAILURE: usize = 500;
/// Digits that are shown to be copied: nobody makes two plans that share them.
pub(super) const SHOWN: usize = 32;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// The forge's number of the comment.
    pub(super) comment: u64,
    pub(super) author: Author,
    /// Digits of a plan, as they were written.
    digits: Option<String>,
    edited: bool,
}

/// What a pull request's plan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Planned {
    /// Nothing is to be done.
    Empty,
    /// It cannot be carried out.
    Failed(String),
    /// It can.
    Made {
        /// Of the plan.
        digest: String,
        /// Git tree id of what was planned.
        tree: String,
    },
}

/// How things stand.
#[derive(Clone, Copy)]
pub(super) struct Stand<'a> {
    pub(super) fleet: &'a Fleet,
    /// As the forge shows it now.
    pub(super) pull: &'a PullRequest,
    pub(super) planned: &'a Planned,
    /// The pull request that is applied before its merge: number and head.
    pub(super) held: Option<(u64, &'a str)>,
    /// Whether the author may have it applied; else why not.
    pub(super) may: Result<(), &'a str>,
}

/// What comes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is applied.
    Apply,
    /// It is not, for this reason.
    Refuse(String),
    /// The forge does not know enough yet.
    Later,
}

/// The digits of a comment that wants something applied: none where it has none.
fn parse(text: &str) -> Option<Option<&str>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["fleetwright", "apply"] => Some(None),
        ["fleetwright", "apply", digits] => Some(Some(digits)),
        _ => None,
    }
}

/// The newest command of each person after comment `answered`, the newest first, of a few people: whoever may not must not be able to hide
/// the words of one who may.
pub(super) fn newest(remarks: &[Remark], answered: u64) -> Vec<Command> {
    let later = remarks.iter().filter(|remark| remark.id > answered);
    let mut all: Vec<Command> = later
        .filter_map(|remark| {
            let author = remark.author.clone().filter(|_| !remark.by_program)?;
            Some(Command {
                comment: remark.id,
                author,
                digits: parse(&remark.text)?.map(str::to_owned),
                edited: remark.edited,
            })
        })
        .collect();
    all.sort_by_key(|command| std::cmp::Reverse(command.comment));
    let mut people = BTreeSet::new();
    all.retain(|command| people.insert(command.author.id));
    all.truncate(PEOPLE);
    all
}

/// Whether the Fleet itself names those who may, and this one is among them; `None` where it names nobody.
pub(super) fn is_named(fleet: &Fleet, author: &Author) -> Option<bool> {
    let pulls = fleet.spec.pull_requests.as_ref();
    let names = pulls
        .map(|pulls| &pulls.approvers)
        .filter(|n| !n.is_empty())?;
    Some(
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&author.name)),
    )
}

/// Decides what comes of a command.
pub(super) fn judge(command: &Command, stand: Stand<'_>) -> Verdict {
    let Stand {
        fleet,
        pull,
        planned,
        held,
        may,
    } = stand;
    let refuse = |why: &str| Verdict::Refuse(why.to_owned());
    if let Err(why) = may {
        return refuse(why);
    }
    if command.edited {
        return refuse("the comment was changed after it was written: write a new one");
    }
    if !pull.open {
        return refuse("the pull request is not open");
    }
    if pull.from_fork {
        return refuse("the pull request comes from a fork: merge it to have it applied");
    }
    if pull.draft {
        return refuse("the pull request is a draft");
    }
    if fleet.spec.suspend == Some(true) {
        return refuse("the Fleet is suspended");
    }
    if fleet.spec.source.verify.is_some() {
        return refuse(
            "spec.source.verify asks for signatures, and nobody has signed this merge yet",
        );
    }
    match held {
        Some((other, _)) if other != pull.number => {
            return Verdict::Refuse(format!(
                "pull request {other} is applied and not merged yet: merge or close that one first"
            ));
        }
        Some((_, head)) if head == pull.head_sha => {
            return refuse(
                "this head is applied already: merge it, and what waits in the branch comes as well",
            );
        }
        _ => {}
    }
    let digest = match planned {
        Planned::Made { digest, .. } => digest,
        Planned::Empty => return refuse("its plan changes nothing"),
        Planned::Failed(why) => return Verdict::Refuse(format!("its plan fails: {}", code(why))),
    };
    let newest = digest.get(..SHOWN).unwrap_or(digest);
    let Some(digits) = &command.digits else {
        let why = format!("say which plan: `fleetwright apply {newest}` is the newest");
        return Verdict::Refuse(why);
    };
    let given = digits.to_ascii_lowercase();
    if given.len() < FEWEST || !digest.starts_with(&given) {
        let why = format!(
            "those are not {FEWEST} or more digits of the newest plan: look at it, then say `fleetwright apply {newest}`"
        );
        return Verdict::Refuse(why);
    }
    match pull.mergeable {
        Some(true) => Verdict::Apply,
        Some(false) => refuse(
            "the forge does not let it be merged as it is (reviews, checks, conflicts): see what it lacks there",
        ),
        None => Verdict::Later,
    }
}

/// Words of a repository, in a code span that they cannot leave.
fn code(text: &str) -> String {
    let plain = text.chars().map(|c| match c {
        '`' => '\'',
        c if c.is_control() => ' ',
        c => c,
    });
    let plain: String = plain.take(MAX_FAILURE).collect();
    format!("`{plain}`")
}

#[cfg(test)]
mod tests;
