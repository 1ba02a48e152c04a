//! Whether a Fleet follows a pull request before its merge: a function of the Fleet.

use fleetwright_api::{
    Fleet,
    fleet::{ApplyWhen, Held},
};

/// Whether pull requests are applied when somebody says so.
#[must_use]
pub fn on_approval(fleet: &Fleet) -> bool {
    let spec = &fleet.spec;
    let pulls = spec.pull_requests.as_ref();
    let wanted =
        pulls.is_some_and(|pulls| pulls.plan && pulls.apply == Some(ApplyWhen::OnApproval));
    let reference = spec.source.reference.as_ref();
    let branch = reference.is_some_and(|reference| reference.branch.is_some());
    wanted && branch && spec.forge.is_some() && spec.source.url.is_some()
}

/// Whether one may be. Nobody has signed a merge that is not made yet.
#[must_use]
pub fn may_hold(fleet: &Fleet) -> bool {
    on_approval(fleet) && fleet.spec.source.verify.is_none()
}

/// The one that is.
pub(crate) fn held(fleet: &Fleet) -> Option<&Held> {
    let held = fleet.status.as_ref()?.held.as_ref();
    held.filter(|_| may_hold(fleet))
}
