//! Whether a machine that is in service may be taken away now: budgets of its pool, its Cluster and its Fleet.

use std::fmt;

use fleetwright_api::{
    Machine, condition, condition::kind, condition::reason, disruption::DisruptionBudget,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{health, rollout::bounds::scaled};

#[cfg(test)]
mod tests;

/// What a machine is to a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// In service: to take it away spends.
    In,
    /// On its way out of service by a deletion.
    Leaving,
    /// Out of service, for whatever reason: to take it away costs nothing more.
    Out,
}

impl Service {
    /// Of a machine. One that had a node and is not broken counts as leaving until it is gone. One whose replacement somebody asked
    /// for, or that drifted, is in service until it is taken away, although it is marked as broken.
    pub fn of(machine: &Machine) -> Self {
        let Some(status) = &machine.status else {
            return Self::Out;
        };
        let is = |kind| condition::is_true(&status.conditions, kind);
        let broken = health::broken(machine);
        let serves = [reason::HAS_REMEDIATE_ANNOTATION, reason::DRIFTED];
        let serves = broken.is_some_and(|c| serves.contains(&c.reason.as_str()));
        let serves = serves && is(kind::NODE_HEALTHY);
        if machine.metadata.deletion_timestamp.is_some() {
            if status.node_ref.is_some() && (broken.is_none() || serves) {
                Self::Leaving
            } else {
                Self::Out
            }
        } else if is(kind::AVAILABLE) || serves {
            Self::In
        } else {
            Self::Out
        }
    }
}

/// The machines of a pool or a control plane in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Machines that there should be.
    pub wanted: i32,
    /// [`Service::In`].
    pub in_service: i32,
    /// [`Service::Leaving`].
    pub leaving: i32,
}

impl Usage {
    /// Machines out of service: those that leave, or those that are missing of the wanted ones, whichever are more (one that left is
    /// missing until another is in its place).
    pub fn out(&self) -> i32 {
        self.leaving.max(self.wanted - self.in_service).max(0)
    }

    /// With one machine fewer in service.
    fn without_one(self) -> Self {
        Self {
            in_service: self.in_service - 1,
            leaving: self.leaving + 1,
            ..self
        }
    }
}

/// Whose budget it is, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A pool's.
    Pool(String),
    /// A Cluster's.
    Cluster(String),
    /// A Fleet's.
    Fleet(String),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Cluster(name) => write!(f, "Cluster {name}"),
            Self::Fleet(name) => write!(f, "Fleet {name}"),
        }
    }
}

/// A budget that holds for a machine, and what is spent of it by others than the machine's own pool or control plane.
#[derive(Clone, Debug)]
pub struct Holder<'a> {
    /// Whose it is.
    pub whose: Whose,
    /// The budget.
    pub budget: &'a DisruptionBudget,
    /// Wanted machines of all others under this budget.
    pub others_wanted: i32,
    /// Machines out of service of all others under this budget.
    pub others_out: i32,
}

/// Why a machine is not taken away now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Whose budget is spent.
    pub whose: Whose,
    /// Machines that are out of service.
    pub out: i32,
    /// How many may be; `None` when the budget cannot be read.
    pub limit: Option<i32>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held by the disruption budget of {}: ", self.whose)?;
        match self.limit {
            None => f.write_str("maxUnavailable cannot be read"),
            Some(0) => f.write_str("it lets no machine be taken out of service"),
            Some(limit) => write!(
                f,
                "{} of at most {limit} machines are out of service",
                self.out
            ),
        }
    }
}

/// How many of `total` machines a budget lets be out of service: percentages round down, but to no less than 1 unless it is 0%.
/// `None` when it cannot be read.
pub fn limit(budget: &DisruptionBudget, total: i32) -> Option<i32> {
    let least = match &budget.max_unavailable {
        IntOrString::Int(n) => return Some((*n).max(0)),
        IntOrString::String(text) => i32::from(
            !text
                .trim_end_matches('%')
                .trim_start_matches('0')
                .is_empty(),
        ),
    };
    let share = scaled(&budget.max_unavailable, total, false, "maxUnavailable").ok()?;
    Some(share.max(least))
}

/// Whether one more machine of `own` may be taken out of service.
///
/// # Errors
/// The first budget that does not let it.
pub fn may_take(own: Usage, holders: &[Holder<'_>]) -> Result<(), Blocked> {
    for holder in holders {
        let limit = limit(holder.budget, own.wanted + holder.others_wanted);
        let after = own.without_one().out() + holder.others_out;
        if limit.is_none_or(|limit| after > limit) {
            return Err(Blocked {
                whose: holder.whose.clone(),
                out: own.out() + holder.others_out,
                limit,
            });
        }
    }
    Ok(())
}
