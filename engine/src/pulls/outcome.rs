//! What a pull request's plan came to, and how it is said.

use fleetwright_api::commit_status::CommitState;
use fleetwright_core::plan::Plan;
use fleetwright_gitops::{
    load::LoadError,
    report::{self, markdown},
    source::SourceError,
};

use crate::error::chain;

/// What a pull request's plan came to.
pub(super) struct Outcome {
    pub(super) state: CommitState,
    pub(super) words: String,
    /// What is to be said of it; nothing where there is nothing to say.
    pub(super) comment: Option<String>,
}

/// It cannot be read as a merge.
pub(super) fn unmerged(of: markdown::Planned<'_>, error: &SourceError) -> Outcome {
    let words = chain(error);
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, "It cannot be planned", &words)),
        words,
    }
}

/// What it declares has mistakes.
pub(super) fn mistaken(of: markdown::Planned<'_>, errors: &[LoadError]) -> Outcome {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let (title, first) = match lines.as_slice() {
        [one] => ("1 mistake".to_owned(), one.clone()),
        many => {
            let title = format!("{} mistakes", many.len());
            let first = many.first().map(String::as_str).unwrap_or_default();
            let words = format!("{title}, the first: {first}");
            (title, words)
        }
    };
    Outcome {
        state: CommitState::Failure,
        comment: Some(markdown::failure(of, &title, &lines.join("\n"))),
        words: first,
    }
}

/// It was planned.
pub(super) fn planned(of: markdown::Planned<'_>, plan: &Plan, digest: &str) -> Outcome {
    let refused = !plan.refused.is_empty();
    Outcome {
        state: match refused {
            true => CommitState::Failure,
            false => CommitState::Success,
        },
        words: report::summary(plan),
        comment: (!plan.is_empty()).then(|| markdown::plan(of, plan, digest)),
    }
}
