//! The bounds of a rollout: how many machines more and how many fewer.

use fleetwright_api::{MachineDeployment, machine_deployment::StrategyType};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Bounds of a pool in machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Wanted machines.
    pub replicas: i32,
    /// Machines above `replicas` that a rollout may have.
    pub surge: i32,
    /// Machines below `replicas` that a rollout may have available.
    pub unavailable: i32,
}

impl Bounds {
    /// Machines that must stay available.
    pub fn min_available(&self) -> i32 {
        (self.replicas - self.unavailable).max(0)
    }

    /// Machines that there may be.
    pub fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }
}

/// A bound that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {text:?}: write a number, or a percentage such as \"25%\"")]
pub struct BoundsError {
    /// The field.
    pub field: &'static str,
    /// What it says.
    pub text: String,
}

/// A number, or a percentage of `of`, rounded up or down.
///
/// # Errors
/// When it is a text that is no percentage.
pub fn scaled(
    value: &IntOrString,
    of: i32,
    up: bool,
    field: &'static str,
) -> Result<i32, BoundsError> {
    match value {
        IntOrString::Int(n) => Ok((*n).max(0)),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse::<u32>().ok())
                .map(i64::from)
                .ok_or_else(|| BoundsError {
                    field,
                    text: text.clone(),
                })?;
            let product = percent * i64::from(of.max(0));
            let whole = if up {
                (product + 99) / 100
            } else {
                product / 100
            };
            Ok(i32::try_from(whole).unwrap_or(i32::MAX))
        }
    }
}

/// Surge and unavailable in machines for `desired`; when both come to nothing, one may be unavailable.
///
/// # Errors
/// When one is a text that is no percentage.
pub fn resolve(
    surge: &IntOrString,
    unavailable: &IntOrString,
    desired: i32,
) -> Result<(i32, i32), BoundsError> {
    let surge = scaled(
        surge,
        desired,
        true,
        "spec.rollout.strategy.rollingUpdate.maxSurge",
    )?;
    let unavailable = scaled(
        unavailable,
        desired,
        false,
        "spec.rollout.strategy.rollingUpdate.maxUnavailable",
    )?;
    Ok(if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    })
}

/// The bounds of a pool. With OnDelete there are none to roll in: both are 0.
///
/// # Errors
/// When one is a text that is no percentage.
pub fn bounds(pool: &MachineDeployment) -> Result<Bounds, BoundsError> {
    let replicas = pool.spec.replicas.unwrap_or(1).max(0);
    let strategy = pool.spec.rollout.as_ref().and_then(|r| r.strategy.as_ref());
    if strategy.and_then(|s| s.kind) == Some(StrategyType::OnDelete) {
        return Ok(Bounds {
            replicas,
            surge: 0,
            unavailable: 0,
        });
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let (surge, unavailable) = resolve(
        rolling
            .and_then(|r| r.max_surge.as_ref())
            .unwrap_or(&IntOrString::Int(1)),
        rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&IntOrString::Int(0)),
        replicas,
    )?;
    #[cfg(feature = "seeded-bugs")]
    let unavailable = unavailable + i32::from(fleetwright_api::bugs::on("i3-one-more-unavailable"));
    Ok(Bounds {
        replicas,
        surge,
        unavailable: unavailable.min(replicas),
    })
}
