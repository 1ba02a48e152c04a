//! Why a control plane makes a machine, deletes one, or waits: in sentences.

use std::fmt;

use super::{ComponentState, Trigger};
use crate::outcome::Hold;

/// Why a machine is made.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateReason {
    /// The first one: it makes the cluster.
    First,
    /// There are fewer than wanted.
    ScaleUp {
        /// There are.
        have: usize,
        /// Wanted.
        want: usize,
    },
    /// It takes the place of one that is to be replaced.
    Replace {
        /// The machine that will go.
        machine: String,
        /// Why; empty when somebody marked it.
        because: Vec<Trigger>,
    },
    /// It takes the place of a broken one, which serves etcd until then: there is no other.
    Remediate {
        /// The machine that will go.
        machine: String,
    },
}

impl fmt::Display for CreateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first machine of the control plane"),
            Self::ScaleUp { have, want } => write!(f, "{have} of {want} machines"),
            Self::Replace { machine, because } => {
                write!(f, "replaces {machine}")?;
                because.iter().try_for_each(|c| write!(f, "; {c}"))
            }
            Self::Remediate { machine } => write!(f, "replaces {machine}, which is broken"),
        }
    }
}

/// Why a machine is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// It is not what is wanted.
    Outdated,
    /// Somebody marked it.
    Marked,
    /// There are more than wanted.
    ScaleDown,
    /// It never served and its content is no longer wanted.
    NeverServed,
    /// A health check found it broken.
    Broken,
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outdated => "not up to date",
            Self::Marked => "marked for deletion",
            Self::ScaleDown => "more machines than wanted",
            Self::NeverServed => "never served, and its content is no longer wanted",
            Self::Broken => "broken",
        })
    }
}

/// What a control plane waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlaneWait {
    /// The cluster is paused.
    Paused,
    /// The cluster is on its way out.
    Deleting,
    /// The control plane is not on machines of ours.
    NotOurs,
    /// A machine is on its way out.
    MachineDeleting(String),
    /// A machine has no healthy node yet, or no more.
    MachineNotReady(String),
    /// A machine's etcd member is not healthy.
    MemberNotHealthy(String),
    /// A machine's etcd member does not vote yet.
    MemberLearning(String),
    /// A machine runs and has no member in etcd.
    NoMember(String),
    /// A part of the control plane does not run on a machine.
    Component(ComponentState),
    /// etcd cannot be asked, and why.
    EtcdUnknown(String),
    /// etcd could lose its quorum.
    Quorum {
        /// The machine that would go; `None` when one would be added.
        machine: Option<String>,
    },
    /// The wanted version cannot be read.
    Unreadable(String),
    /// A disruption budget lets no machine go; with its sentence.
    Budget(String),
    /// What its machines need is not known or not there yet; with why.
    Held(Hold),
}

impl ControlPlaneWait {
    /// Whether it ends without an event that anybody is told of: etcd is to be asked again.
    pub fn is_of_etcd(&self) -> bool {
        matches!(
            self,
            Self::MemberNotHealthy(_)
                | Self::MemberLearning(_)
                | Self::NoMember(_)
                | Self::EtcdUnknown(_)
                | Self::Quorum { .. }
        )
    }
}

impl fmt::Display for ControlPlaneWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::Deleting => f.write_str("the cluster is on its way out"),
            Self::NotOurs => f.write_str("the control plane is somebody else's"),
            Self::MachineDeleting(m) => write!(f, "machine {m} is on its way out"),
            Self::MachineNotReady(m) => write!(f, "machine {m} is not ready"),
            Self::MemberNotHealthy(m) => write!(f, "the etcd member of machine {m} is not healthy"),
            Self::MemberLearning(m) => write!(f, "the etcd member {m} does not vote yet"),
            Self::Component(state) => state.fmt(f),
            Self::NoMember(m) => write!(f, "machine {m} has no etcd member"),
            Self::EtcdUnknown(why) => write!(f, "etcd cannot be asked: {why}"),
            Self::Quorum { machine: Some(m) } => {
                write!(f, "without machine {m} etcd would have no quorum")
            }
            Self::Quorum { machine: None } => {
                f.write_str("etcd is not healthy enough for another member")
            }
            Self::Budget(held) => f.write_str(held),
            Self::Held(hold) => f.write_str(&hold.why),
            Self::Unreadable(text) => {
                write!(
                    f,
                    "{text:?} is no Kubernetes version: write it like v1.33.2"
                )
            }
        }
    }
}
