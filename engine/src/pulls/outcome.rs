//! What a pull request's plan came to, and how it is said.

use fleetwright_api::commit_status::CommitState;
use fleetwright_core::plan::Plan;
use fleetwright_gitops::{
    load::LoadError,
    report::{self, markdown},
    source::SourceError,
};

use super::approval::{Planned, SHOWN};
use crate::error::chain;

/// What a pull request's plan came to.
pub(super) struct Outcome {
    pub(super) state: CommitState,
    pub(super) words: String,
    /// What is to be said of it; nothing where there is nothing to say.
    pub(super) comment: Option<String>,
    /// What of it can be applied.
    pub(super) planned: Planned,
}

/// It cannot be read as a merge.
pub(super) fn unmerged(of: markdown::Planned<'_>, error: &SourceError) -> Outcome {
    let words = chain(error);
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, "It cannot be planned", &words)),
        planned: Planned::Failed(words.clone()),
        words,
    }
}

/// What it declares has mistakes.
pub(super) fn mistaken(of: markdown::Planned<'_>, errors: &[LoadError]) -> Outcome {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let (title, first) = told(&lines);
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, &title, &lines.join("\n"))),
        planned: Planned::Failed(first.clone()),
        words: first,
    }
}

/// How many mistakes there are, and that with the first of them.
fn told(lines: &[String]) -> (String, String) {
    match lines {
        [one] => ("1 mistake".to_owned(), one.clone()),
        many => {
            let title = format!("{} mistakes", many.len());
            let first = many.first().map(String::as_str).unwrap_or_default();
            let words = format!("{title}, the first: {first}");
            (title, words)
        }
    }
}

/// It was planned. `tree` is the Git tree id of the files, and `ask` tells how to have it applied.
pub(super) fn planned(
    of: markdown::Planned<'_>,
    plan: &Plan,
    (digest, tree): (&str, &str),
    ask: bool,
) -> Outcome {
    let mistakes = report::mistakes(plan);
    let words = match mistakes.as_slice() {
        [] => report::summary(plan),
        mistakes => told(mistakes).1,
    };
    let sound = plan.refused.is_empty() && mistakes.is_empty();
    let (state, planned) = match (sound, plan.is_empty()) {
        (false, _) => (CommitState::Failure, Planned::Failed(words.clone())),
        (true, true) => (CommitState::Success, Planned::Empty),
        (true, false) => (
            CommitState::Success,
            Planned::Made {
                digest: digest.to_owned(),
                tree: tree.to_owned(),
            },
        ),
    };
    let comment = (!plan.is_empty()).then(|| markdown::plan(of, plan, digest));
    let ask = ask && matches!(planned, Planned::Made { .. });
    Outcome {
        state,
        words,
        comment: comment.map(|text| match ask {
            true => text + &how(digest),
            false => text,
        }),
        planned,
    }
}

fn how(digest: &str) -> String {
    let shown = digest.get(..SHOWN).unwrap_or(digest);
    format!(
        "\nTo have it applied before it is merged, write this as a comment:\n\n```\nfleetwright apply {shown}\n```\n"
    )
}
