//! How a Fleet's progress is told: its status, and the words of commit statuses.

use fleetwright_api::{
    Fleet,
    commit_status::CommitState,
    condition::{self, Status, kind},
    fleet::{Answer, FleetStatus, Held},
};
use fleetwright_core::{
    drift::of_field,
    plan::{Drift, Plan},
};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    accounts,
    apply::{ApplyError, MANAGER_SYNC},
    settle::{Outcome, Seen},
};

/// Mistakes that a message names.
const SHOWN: usize = 20;
/// Longest message of a condition, in characters.
const LONGEST: usize = 8_000;

/// Reason of Ready: what was applied does not converge.
pub(crate) const NOT_CONVERGING: &str = "NotConverging";

/// Reason of Ready: everything that was applied has converged.
pub(crate) const CONVERGED: &str = "Converged";

/// How the condition Ready is told.
pub(crate) struct Ready {
    pub(crate) status: Status,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// A Fleet's status under construction: written when it differs from what the API has.
pub(crate) struct Telling {
    pub(crate) status: FleetStatus,
}

impl Telling {
    /// From what the Fleet's status says.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let status = fleet.status.clone().unwrap_or_default();
        Self {
            status: with(status, None, Vec::new()),
        }
    }

    /// Sets the condition Ready.
    pub(crate) fn ready(&mut self, fleet: &Fleet, ready: Ready, now: Timestamp) {
        self.set(fleet, kind::READY, ready, now);
    }

    /// Sets the condition Deleting: what its deletion waits for.
    pub(crate) fn deleting(
        &mut self,
        fleet: &Fleet,
        reason: &'static str,
        message: String,
        now: Timestamp,
    ) {
        let told = Ready {
            status: Status::True,
            reason,
            message,
        };
        self.set(fleet, kind::DELETING, told, now);
    }

    /// Sets the condition InSync from the fields that were left to others.
    pub(crate) fn drift(&mut self, fleet: &Fleet, drift: &[Drift], now: Timestamp) {
        let lines = drift.iter().map(|d| of_field(d).to_string());
        let lines: Vec<String> = lines.collect();
        let told = match lines.as_slice() {
            [] => Ready {
                status: Status::True,
                reason: "InSync",
                message: String::new(),
            },
            lines => Ready {
                status: Status::False,
                reason: "Drifted",
                message: format!("kept as others set it: {}", some(lines, "; ")),
            },
        };
        self.set(fleet, kind::IN_SYNC, told, now);
    }

    /// Nothing is known of drift: the source or the API cannot be read.
    pub(crate) fn unknown_drift(&mut self, fleet: &Fleet, now: Timestamp) {
        let told = Ready {
            status: Status::Unknown,
            reason: "Unreadable",
            message: "not known while the source or the API cannot be read".into(),
        };
        self.set(fleet, kind::IN_SYNC, told, now);
    }

    /// Sets the condition AccountsReady.
    pub(crate) fn accounts(&mut self, fleet: &Fleet, seen: &Seen, now: Timestamp) {
        let accounts::Told {
            status,
            reason,
            message,
        } = accounts::judge(seen);
        let message: String = message.chars().take(LONGEST).collect();
        let (list, generation) = (&mut self.status.conditions, fleet.metadata.generation);
        let kind = kind::ACCOUNTS_READY;
        condition::set(list, kind, status, &reason, message, generation, now);
    }

    fn set(&mut self, fleet: &Fleet, kind: &str, told: Ready, now: Timestamp) {
        let Ready {
            status,
            reason,
            message,
        } = told;
        let message: String = message.chars().take(LONGEST).collect();
        let generation = fleet.metadata.generation;
        let conditions = &mut self.status.conditions;
        condition::set(conditions, kind, status, reason, message, generation, now);
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// When the API cannot be written.
    pub(crate) async fn write(
        &mut self,
        client: &Client,
        fleet: &mut Fleet,
    ) -> Result<(), kube::Error> {
        self.status.observed_generation = fleet.metadata.generation;
        // What is said of pull requests is written by others.
        let (held, answers) = match &fleet.status {
            Some(status) => (status.held.clone(), status.answers.clone()),
            None => (None, Vec::new()),
        };
        let told = with(self.status.clone(), held, answers);
        if fleet.status.as_ref() == Some(&told) {
            return Ok(());
        }
        let namespace = fleet.namespace().unwrap_or_default();
        let patch = Patch::Merge(patch(&self.status));
        Api::<Fleet>::namespaced(client.clone(), &namespace)
            .patch_status(&fleet.name_any(), &PatchParams::apply(MANAGER_SYNC), &patch)
            .await?;
        fleet.status = Some(told);
        Ok(())
    }
}

/// The merge patch that writes a status. Such a patch takes away only what it names: that no wave is left is said.
fn patch(status: &FleetStatus) -> Value {
    let mut patch = json!({"status": status});
    patch["status"]["waves"] = json!(status.waves);
    patch
}

/// A status with these words on pull requests.
fn with(status: FleetStatus, held: Option<Held>, answers: Vec<Answer>) -> FleetStatus {
    FleetStatus {
        held,
        answers,
        ..status
    }
}

/// How an outcome is told, to the forge and in the condition Ready.
pub(crate) fn told(outcome: &Outcome) -> (CommitState, Ready) {
    let (state, status, reason, message) = match outcome {
        Outcome::Pending(count, words) => {
            let message = format!("{count} converging: {words}");
            (CommitState::Pending, Status::True, "Converging", message)
        }
        Outcome::Waiting(words) => (CommitState::Pending, Status::True, "Waiting", words.clone()),
        Outcome::Success(count) => {
            let message = match count {
                0 => "no changes".to_owned(),
                1 => "1 object converged".to_owned(),
                n => format!("{n} objects converged"),
            };
            (CommitState::Success, Status::True, CONVERGED, message)
        }
        Outcome::Failure(why) => {
            let why = why.clone();
            (CommitState::Failure, Status::False, NOT_CONVERGING, why)
        }
    };
    let ready = Ready {
        status,
        reason,
        message,
    };
    (state, ready)
}

/// Mistakes, a line each.
pub(crate) fn mistakes(errors: &[impl ToString]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{} mistakes: {}", many.len(), some(many, "\n")),
    }
}

/// What stands in the way of the whole plan, a line each.
pub(crate) fn problems(plan: &Plan, errors: &[ApplyError]) -> Vec<String> {
    let refused = plan.refused.iter();
    let refused = refused.map(|r| format!("{}: {}", r.key, r.reason));
    refused.chain(errors.iter().map(ApplyError::text)).collect()
}

/// The first few lines, and how many more there are.
pub(crate) fn some(lines: &[String], between: &str) -> String {
    let mut text = lines[..lines.len().min(SHOWN)].join(between);
    if lines.len() > SHOWN {
        text.push_str(&format!("{between}and {} more", lines.len() - SHOWN));
    }
    text
}

/// An error and its causes in one line, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
