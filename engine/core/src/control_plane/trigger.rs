//! What replaces a control-plane machine: another content, or a time that has come.

use std::fmt;

use fleetwright_api::{
    Cluster, Machine, cluster::ControlPlaneMachines, meta, time::rfc3339_seconds,
};
use jiff::{SignedDuration, Timestamp};

use super::{alive, annotation};
use crate::compare::FieldChange;

/// Why a machine is to be replaced.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// A field differs.
    Field(FieldChange),
    /// It was made before somebody asked for a restart.
    Restarted(Timestamp),
    /// It was made before `rollout.after`.
    After(Timestamp),
    /// Its certificates expire soon.
    Certificates(Timestamp),
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(change) => change.fmt(f),
            Self::Restarted(at) => {
                write!(
                    f,
                    "machines made before {} are replaced",
                    rfc3339_seconds(*at)
                )
            }
            Self::After(at) => write!(f, "older than rollout.after, {}", rfc3339_seconds(*at)),
            Self::Certificates(at) => {
                write!(f, "its certificates expire at {}", rfc3339_seconds(*at))
            }
        }
    }
}

/// The times that replace machines.
pub(super) struct Triggers {
    restarted: Option<Timestamp>,
    after: Option<Timestamp>,
    /// How long before they expire certificates are renewed.
    renew: Option<SignedDuration>,
    now: Timestamp,
}

impl Triggers {
    pub(super) fn of(cluster: &Cluster, spec: &ControlPlaneMachines, now: Timestamp) -> Self {
        let annotations = cluster.metadata.annotations.as_ref();
        let restarted = annotations.and_then(|a| a.get(meta::ANNOTATION_RESTARTED_AT));
        let rollout = spec.rollout.clone().unwrap_or_default();
        let days = rollout.certificates_expiry_days.map(i64::from);
        Self {
            restarted: restarted.and_then(|text| text.parse().ok()),
            after: rollout.after.map(|at| at.0),
            renew: days.map(|days| SignedDuration::from_hours(days.saturating_mul(24))),
            now,
        }
    }

    /// When the machine's certificates are to be renewed, and when they expire. Not before half of their life, so that new ones
    /// are never due at once.
    fn renewal(&self, machine: &Machine) -> Option<(Timestamp, Timestamp)> {
        let expire = annotation(machine, meta::ANNOTATION_CERTIFICATES_EXPIRY)?;
        let expire: Timestamp = expire.parse().ok()?;
        let created = machine.metadata.creation_timestamp.as_ref()?.0;
        let half = expire
            .checked_sub(expire.duration_since(created) / 2)
            .ok()?;
        Some((expire.checked_sub(self.renew?).ok()?.max(half), expire))
    }

    /// The times that have come for this machine.
    pub(super) fn of_machine(&self, machine: &Machine) -> Vec<Trigger> {
        let created = machine.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let older =
            |at: &Timestamp| *at <= self.now && created.is_some_and(|created| created < *at);
        let renewal = self.renewal(machine).filter(|(at, _)| *at <= self.now);
        [
            self.restarted.filter(older).map(Trigger::Restarted),
            self.after.filter(older).map(Trigger::After),
            renewal.map(|(_, expire)| Trigger::Certificates(expire)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// When the next time comes.
    pub(super) fn next(&self, machines: &[Machine]) -> Option<Timestamp> {
        let renewals = alive(machines).filter_map(|m| Some(self.renewal(m)?.0));
        renewals
            .chain(self.restarted)
            .chain(self.after)
            .filter(|at| *at > self.now)
            .min()
    }
}
