//! How far a Fleet that is deleted with its objects has come.

use std::collections::BTreeSet;

use super::{Key, Live, Plan, Policy, prune};

/// What becomes of the objects of a Fleet that is deleted with them.
#[derive(Debug, PartialEq)]
pub enum Departure {
    /// Some of them may not be deleted: none is.
    Held {
        /// It says which, and why.
        plan: Plan,
        /// Others are on their way out already: what is gone may not be made again.
        begun: bool,
    },
    /// They go.
    Going {
        /// What is still to be deleted.
        plan: Plan,
        /// What is on its way out already.
        leaving: Vec<Key>,
    },
    /// None is left.
    Gone,
}

/// Decides what is deleted now, by the guards of a commit that removes all objects.
pub fn depart(live: &Live, policy: &Policy) -> Departure {
    let none = BTreeSet::new();
    let mut plan = Plan::default();
    prune::prune(&none, prune::Why::FleetGoes, live, policy, &mut plan);
    let own = prune::given_up(&none, live, policy);
    let leaving = own.filter(|(_, object)| prune::leaves(object));
    let leaving: Vec<Key> = leaving.map(|(key, _)| key).collect();
    match (
        plan.refused.is_empty(),
        plan.deletes.is_empty() && leaving.is_empty(),
    ) {
        (false, _) => Departure::Held {
            plan,
            begun: !leaving.is_empty(),
        },
        (true, false) => Departure::Going { plan, leaving },
        (true, true) => Departure::Gone,
    }
}
