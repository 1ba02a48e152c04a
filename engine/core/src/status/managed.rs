//! What a Cluster's status says of a control plane that its provider runs.

use fleetwright_api::condition::{Status, kind, reason};

use super::{ClusterFacts, Conditions};
use crate::{
    control_plane::VersionStep,
    managed::{Known, Phase, Trouble},
};

/// What the provider makes of it, or why it does not: condition `InfrastructureReady`.
pub(super) fn infrastructure(out: &mut Conditions<'_>, known: Option<&Known>) {
    let Some(known) = known else {
        return;
    };
    let kind = kind::INFRASTRUCTURE_READY;
    match (&known.trouble, known.phase()) {
        (
            Some(Trouble {
                reason, message, ..
            }),
            _,
        ) => {
            out.set(kind, Status::False, reason, message.clone());
        }
        (None, Some(Phase::Active | Phase::Updating(_))) => {
            out.set(kind, Status::True, reason::READY, "");
        }
        (None, Some(phase)) => {
            out.set(kind, Status::False, reason::NOT_READY, words(Some(phase)));
        }
        (None, None) => {
            let text = "the provider was not asked yet";
            out.set(kind, Status::Unknown, reason::READY_UNKNOWN, text);
        }
    }
}

/// Why the control plane does not serve, as far as the provider knows; `None` where it does or nobody can tell.
pub(super) fn unavailable(facts: &ClusterFacts) -> Option<String> {
    let known = facts.managed.as_ref()?;
    match known.phase() {
        Some(Phase::Active | Phase::Updating(_)) => None,
        // What was known before this process began is not known to be otherwise, and one whose last change failed serves on.
        None | Some(Phase::Failed(_)) if facts.reachable == Some(true) => None,
        phase => Some(match &known.trouble {
            Some(trouble) => trouble.message.clone(),
            None => words(phase),
        }),
    }
}

fn words(phase: Option<&Phase>) -> String {
    match phase {
        None => "the provider was not asked yet".to_owned(),
        Some(Phase::Creating) => "the provider makes it".to_owned(),
        Some(Phase::Deleting) => "the provider deletes it".to_owned(),
        Some(Phase::Failed(why)) => format!("the provider says that it failed: {why}"),
        Some(Phase::Active | Phase::Updating(_)) => String::new(),
    }
}

/// What the provider refuses, as [`super::refusal`] says it of machines.
pub(super) fn refusal(known: Option<&Known>) -> Option<(&'static str, String)> {
    let trouble = known?.trouble.as_ref()?;
    let quota = trouble.reason == reason::QUOTA_EXCEEDED;
    (trouble.lasting || quota).then(|| (trouble.reason, trouble.message.clone()))
}

/// What the control plane is on its way to, where a provider takes it there and no step over several minors says so.
pub(super) fn rolling(
    known: Option<&Known>,
    running: Option<&str>,
    step: Option<&VersionStep>,
) -> Option<String> {
    let known = known?;
    match known.phase() {
        Some(Phase::Updating(Some(to))) => return Some(format!("the control plane to {to}")),
        Some(Phase::Updating(None)) => {
            return Some("the provider changes the control plane".to_owned());
        }
        _ => {}
    }
    let wanted = match step {
        Some(VersionStep::Wanted(to)) => running
            .is_some_and(|running| running != to.to_string())
            .then_some(to),
        _ => None,
    };
    match (wanted, known.unanswered()) {
        (Some(to), _) => Some(format!("the control plane to {to}")),
        (None, Some(why)) => Some(format!("the control plane ({why})")),
        (None, None) => None,
    }
}
