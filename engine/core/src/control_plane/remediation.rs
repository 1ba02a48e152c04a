//! Replacing control-plane machines that a health check found broken: which one, whether it may go now, and how often that was
//! tried. The rules are Cluster API's, but for a single machine (another one joins first) and for several that break at once.

use std::fmt;

use fleetwright_api::{
    Machine, cluster::DEFAULT_MIN_HEALTHY_PERIOD_SECONDS, condition::reason, meta,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Component, annotation, choice::Choice, has_served, initialized, is_leaving, name, ready,
};
use crate::{
    health::{is_broken, is_failing},
    quorum::{Member, may_add, may_remove, quorum, votes},
};

/// What is remembered of a replacement, as JSON in annotations: on the Cluster while it is under way, then on the machine that
/// was made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The machine that was broken.
    machine: String,
    /// When its replacement began.
    timestamp: Timestamp,
    /// How often the chain was retried before.
    retry_count: i64,
}

impl Record {
    fn read(text: Option<&String>) -> Option<Self> {
        serde_json::from_str(text?).ok()
    }

    pub(super) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// What becomes of the machine that is broken: the first one, where there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remediation {
    /// The machine.
    pub machine: String,
    /// Why it is not replaced now; `None` when it is.
    pub waits: Option<RemediationWait>,
}

/// Why a broken machine is not replaced now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemediationWait {
    /// Something else holds it back, in its words.
    Held(String),
    /// A machine is on its way out.
    Deleting(String),
    /// A machine has no node yet.
    Provisioning(String),
    /// etcd cannot be asked, and why.
    EtcdUnknown(String),
    /// A machine that was replaced before is replaced again from this time on.
    RetryPeriod(Timestamp),
    /// The members that would stay are no quorum, or one of them does not vote yet.
    Quorum {
        /// Healthy members that vote.
        healthy: usize,
        /// Members that vote.
        voting: usize,
    },
    /// No other machine is healthy.
    NoneHealthy,
    /// It was replaced as often as allowed.
    MaxRetry(i64),
    /// It is the only one, and its etcd does not serve: no other can join it.
    Alone,
}

impl RemediationWait {
    /// Reason of condition `OwnerRemediated` on the machine.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Held(_)
            | Self::Deleting(_)
            | Self::Provisioning(_)
            | Self::EtcdUnknown(_)
            | Self::RetryPeriod(_) => reason::REMEDIATION_DEFERRED,
            Self::Quorum { .. } | Self::NoneHealthy | Self::MaxRetry(_) | Self::Alone => {
                reason::CANNOT_BE_REMEDIATED
            }
        }
    }
}

impl fmt::Display for RemediationWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(why) => f.write_str(why),
            Self::Deleting(m) => write!(f, "waits until machine {m} is gone"),
            Self::Provisioning(m) => write!(f, "waits until machine {m} has joined"),
            Self::EtcdUnknown(why) => write!(f, "etcd cannot be asked: {why}"),
            Self::RetryPeriod(until) => write!(
                f,
                "the machine that it replaced was broken too: tried again from {until} on"
            ),
            Self::Quorum { healthy, voting } => write!(
                f,
                "etcd would have no quorum without it: {healthy} of {voting} voting members are healthy, and {} are needed; bring one back, or restore etcd",
                quorum(*voting)
            ),
            Self::NoneHealthy => f.write_str("no other control-plane machine is healthy"),
            Self::MaxRetry(max) => write!(
                f,
                "it was replaced {max} times as remediation.maxRetry allows, and broke each time: mend the cause, then raise maxRetry or delete the machine"
            ),
            Self::Alone => f.write_str(
                "it is the only control-plane machine and its etcd does not serve, so that no other can join: bring it back, or restore etcd",
            ),
        }
    }
}

/// What is done for a broken machine now.
pub(super) enum Cure<'a> {
    /// It goes; the Cluster remembers this.
    Delete(&'a Machine, Record),
    /// Another one joins first, for which this is remembered.
    Surge(&'a Machine, Record),
    /// Not now.
    Wait(&'a Machine, RemediationWait),
}

impl<'a> Choice<'a> {
    /// The replacement that is under way: a machine went, and the one in its place was not made yet.
    pub(super) fn under_way(&self) -> Option<Record> {
        let annotations = self.view.cluster.metadata.annotations.as_ref()?;
        Record::read(annotations.get(meta::ANNOTATION_REMEDIATION_IN_PROGRESS))
    }

    /// Whether what the Cluster remembers has been handed to a machine, or serves nobody any more.
    pub(super) fn is_over(&self, record: &Record) -> bool {
        let machines = || self.view.machines.iter().filter(|m| !is_leaving(m));
        let handed = |m: &Machine| {
            Record::read(annotation(m, meta::ANNOTATION_REMEDIATION_FOR)).as_ref() == Some(record)
        };
        machines().any(handed) || (machines().count() >= self.want && !machines().any(is_broken))
    }

    /// The broken machine that comes first: marked by a person, without a node, with a broken etcd member, with a part of the control plane
    /// that does not run, the oldest.
    fn broken(&self, members: &[Member]) -> Option<&'a Machine> {
        let healthy = |m: &Machine| members.iter().any(|x| x.name == name(m) && x.healthy);
        let runs = |m: &Machine, part| self.sick_components(m).all(|c| c.component != part);
        let broken = |m: &&Machine| !is_leaving(m) && is_broken(m);
        self.view.machines.iter().filter(broken).min_by_key(|m| {
            (
                annotation(m, meta::ANNOTATION_REMEDIATE_MACHINE).is_none(),
                has_served(m),
                healthy(m),
                Component::ALL.map(|part| runs(m, part)),
                m.metadata.creation_timestamp.as_ref().map(|t| t.0),
                name(m),
            )
        })
    }

    /// What is done for a broken machine; `None` where there is none, or one that went is replaced first.
    pub(super) fn cure(&self) -> Option<Cure<'a>> {
        #[cfg(feature = "seeded-bugs")]
        if fleetwright_api::bugs::on("end-no-remediation") {
            return None;
        }
        let members = self.members();
        let known = members.as_deref().unwrap_or_default();
        let doomed = self.broken(known)?;
        let wait = |why| Some(Cure::Wait(doomed, why));
        if let Some(why) = self.view.held.get(&name(doomed)) {
            return wait(RemediationWait::Held(why.clone()));
        }
        let machines = self.view.machines;
        let under_way = self.under_way().filter(|record| !self.is_over(record));
        // What comes in the place of a replacement that went was decided upon when that went.
        let decided = under_way.clone().filter(|_| machines.len() == 1);
        let record = match decided.map_or_else(|| self.retry(doomed, under_way.as_ref()), Ok) {
            Ok(record) => record,
            Err(why) => return wait(why),
        };
        if machines.len() == 1 && !initialized(self.view.cluster) && !has_served(doomed) {
            return Some(Cure::Delete(doomed, record));
        }
        let members = match &members {
            Ok(members) => members,
            Err(why) => return wait(RemediationWait::EtcdUnknown(why.clone())),
        };
        // A machine whose deletion quorum holds back may go once the broken one has gone.
        let held = |m: &Machine| self.held_back(members).is_some_and(|h| name(h) == name(m));
        if let Some(leaving) = machines.iter().find(|m| is_leaving(m) && !held(m)) {
            return wait(RemediationWait::Deleting(name(leaving)));
        }
        let others = || machines.iter().filter(|m| name(m) != name(doomed));
        let starting = |m: &&Machine| !is_leaving(m) && !has_served(m) && !is_broken(m);
        if let Some(starting) = others().find(starting) {
            return wait(RemediationWait::Provisioning(name(starting)));
        }
        if machines.len() == 1 {
            return if may_add(members) {
                Some(Cure::Surge(doomed, record))
            } else {
                wait(RemediationWait::Alone)
            };
        }
        let member = members.iter().any(|m| m.name == name(doomed));
        // What never joined takes nothing along.
        if member || has_served(doomed) {
            if under_way.is_some() && machines.len() < self.want && may_add(members) {
                return None;
            }
            if !may_remove(members, &name(doomed)) {
                let (healthy, voting) = votes(members);
                return wait(RemediationWait::Quorum { healthy, voting });
            }
            let runs = |m: &Machine| self.sick_components(m).next().is_none();
            let healthy = |m: &&Machine| !is_leaving(m) && ready(m) && !is_failing(m) && runs(m);
            if !others().any(|m| healthy(&m)) {
                return wait(RemediationWait::NoneHealthy);
            }
        }
        Some(Cure::Delete(doomed, record))
    }

    /// What is remembered of the replacement of `machine`, if it may be replaced (again) now.
    fn retry(
        &self,
        machine: &Machine,
        under_way: Option<&Record>,
    ) -> Result<Record, RemediationWait> {
        let record = |retry_count| Record {
            machine: name(machine),
            timestamp: self.now,
            retry_count,
        };
        let last = Record::read(annotation(machine, meta::ANNOTATION_REMEDIATION_FOR));
        let Some(last) = last.as_ref().or(under_way) else {
            return Ok(record(0));
        };
        let after = |seconds: Option<i32>, default: i32| {
            let seconds = i64::from(seconds.unwrap_or(default));
            let end = last
                .timestamp
                .checked_add(SignedDuration::from_secs(seconds));
            end.unwrap_or(Timestamp::MAX)
        };
        let limits = &self.limits;
        // It was healthy long enough: what broke it is something new.
        let chain = after(
            limits.min_healthy_period_seconds,
            DEFAULT_MIN_HEALTHY_PERIOD_SECONDS,
        );
        if chain <= self.now {
            return Ok(record(0));
        }
        if let Some(max) = limits.max_retry.map(i64::from)
            && last.retry_count >= max
        {
            return Err(RemediationWait::MaxRetry(max));
        }
        let next = after(limits.retry_period_seconds, 0);
        if next > self.now {
            return Err(RemediationWait::RetryPeriod(next));
        }
        Ok(record(last.retry_count + 1))
    }
}
