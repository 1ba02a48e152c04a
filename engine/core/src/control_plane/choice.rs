//! The one machine that comes or goes next.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine, cluster::ControlPlaneRemediation, machine::MachineSpec, meta, names,
};
use jiff::Timestamp;

use super::{
    ComponentHealth, ComponentState, ControlPlaneAction, ControlPlaneDecision, ControlPlaneView,
    ControlPlaneWait, CreateReason, DeleteReason, ETCD_HOOK, Trigger, has_served, initialized,
    is_leaving, leave, name, ready,
    remediation::{Cure, Remediation, RemediationWait},
};
use crate::{
    content::Content,
    health::{is_broken, is_failing},
    machine_set::{NewMachine, is_marked, ordinal},
    quorum::{Etcd, Member, may_add, may_remove},
};

type Outdated = BTreeMap<String, Vec<Trigger>>;

/// What the choice is made of.
pub(super) struct Choice<'a> {
    pub(super) view: &'a ControlPlaneView<'a>,
    pub(super) content: &'a Content,
    pub(super) want: usize,
    pub(super) limits: ControlPlaneRemediation,
    pub(super) now: Timestamp,
}

impl<'a> Choice<'a> {
    /// Fills in the action and what belongs to it.
    pub(super) fn fill(&self, out: &mut ControlPlaneDecision) {
        if self.under_way().is_some_and(|record| self.is_over(&record)) {
            out.remember = Some(None);
        }
        let cure = self.cure();
        if let Some(Cure::Wait(machine, why)) = &cure {
            out.remediation = Some(Remediation {
                machine: name(machine),
                waits: Some(why.clone()),
            });
            if let RemediationWait::RetryPeriod(at) = why {
                out.look_again = out.look_again.map_or(Some(*at), |t| Some(t.min(*at)));
            }
        }
        out.action = match cure {
            Some(Cure::Delete(machine, record)) => {
                out.remediation = Some(Remediation {
                    machine: name(machine),
                    waits: None,
                });
                out.remember = record.text().map(Some);
                ControlPlaneAction::Delete {
                    machine: name(machine),
                    reason: DeleteReason::Broken,
                }
            }
            Some(Cure::Surge(machine, record)) => {
                let machine = name(machine);
                out.remediation = Some(Remediation {
                    machine: machine.clone(),
                    waits: None,
                });
                self.create(
                    CreateReason::Remediate { machine },
                    record.text(),
                    &out.outdated,
                )
            }
            _ => self.action(&out.outdated),
        };
    }

    fn action(&self, outdated: &Outdated) -> ControlPlaneAction {
        let machines = self.view.machines;
        let wait = ControlPlaneAction::Wait;
        // The last machine serves until another one has joined: its deletion waits for that at our hook.
        if machines.iter().all(leave::waits) && !machines.is_empty() {
            let (have, want) = (0, self.want);
            return self.create(CreateReason::ScaleUp { have, want }, None, outdated);
        }
        if let Some(m) = machines.iter().find(|m| is_leaving(m)) {
            let held = match self.members() {
                Ok(members) => self
                    .held_back(&members)
                    .map(|held| ControlPlaneWait::Quorum {
                        machine: Some(name(held)),
                    }),
                Err(why) => {
                    leave::held_back(self.view, None).map(|_| ControlPlaneWait::EtcdUnknown(why))
                }
            };
            return wait(held.unwrap_or_else(|| ControlPlaneWait::MachineDeleting(name(m))));
        }
        // What was never seen to serve and is no longer wanted goes at once, unless it may have joined unseen and carry etcd.
        if let Some(m) = machines
            .iter()
            .find(|m| !has_served(m) && outdated.contains_key(&name(m)))
        {
            let carries = if machines.iter().any(has_served) {
                !self
                    .members()
                    .is_ok_and(|members| may_remove(&members, &name(m)))
            } else {
                initialized(self.view.cluster) && m.spec.provider_id.is_some()
            };
            return if carries {
                wait(ControlPlaneWait::MachineNotReady(name(m)))
            } else {
                ControlPlaneAction::Delete {
                    machine: name(m),
                    reason: DeleteReason::NeverServed,
                }
            };
        }
        let have = machines.len();
        // Where a broken machine went, the one in its place comes though others are broken too: etcd's quorum decides.
        let replaces = have < self.want && machines.iter().any(|m| ready(m) && !is_failing(m));
        let sick: Vec<(&Machine, ControlPlaneWait)> = machines
            .iter()
            .filter(|m| !(replaces && is_broken(m)))
            .filter_map(|m| Some((m, self.sick(m)?)))
            .collect();
        if let Some((first, why)) = sick.first() {
            // A machine that is not well and is to go anyway may go, if it is the only one.
            let surplus = have > self.want;
            let gone = surplus
                || match why {
                    ControlPlaneWait::MachineNotReady(_) => true,
                    ControlPlaneWait::Component(c) => {
                        matches!(c.health, ComponentHealth::Failed(_))
                    }
                    _ => false,
                };
            let to_go = Self::reason(first, outdated).is_some() || (surplus && outdated.is_empty());
            // What has just joined in the place of a broken one that is ready itself is not well yet, and not the one to go.
            let stands_in = !is_broken(first) && machines.iter().any(is_broken);
            let goes = sick.len() == 1
                && gone
                && to_go
                && has_served(first)
                && !stands_in
                && machines.len() > 1;
            return if goes {
                self.delete(first, outdated)
            } else {
                wait(why.clone())
            };
        }
        if have < self.want {
            let reason = if have == 0 && !initialized(self.view.cluster) {
                CreateReason::First
            } else {
                CreateReason::ScaleUp {
                    have,
                    want: self.want,
                }
            };
            let record = self.under_way().and_then(|record| record.text());
            return self.create(reason, record, outdated);
        }
        let Some(next) = self.next_to_go(have > self.want, outdated) else {
            return ControlPlaneAction::Settled;
        };
        let surge = self
            .view
            .cluster
            .spec
            .upgrade
            .as_ref()
            .and_then(|u| u.max_surge)
            .unwrap_or(1);
        // Without a spare machine one goes first, but only where the others carry the quorum.
        if have > self.want || (surge == 0 && self.want >= 3) {
            return self.delete(next, outdated);
        }
        let reason = CreateReason::Replace {
            machine: name(next),
            because: outdated.get(&name(next)).cloned().unwrap_or_default(),
        };
        self.create(reason, None, outdated)
    }

    /// Why nothing may come or go because of this machine: it, its etcd member or a part of the control plane on it is not well.
    fn sick(&self, machine: &Machine) -> Option<ControlPlaneWait> {
        if !ready(machine) {
            return Some(ControlPlaneWait::MachineNotReady(name(machine)));
        }
        let component = || self.sick_components(machine).next().cloned();
        self.sick_member(machine)
            .or_else(|| component().map(ControlPlaneWait::Component))
    }

    /// The parts of the control plane that do not run on this machine, of those that are known.
    pub(super) fn sick_components(
        &self,
        machine: &Machine,
    ) -> impl Iterator<Item = &'a ComponentState> {
        let machine = name(machine);
        let all = self.view.components.iter();
        all.filter(move |c| c.machine == machine && c.is_sick())
    }

    fn sick_member(&self, machine: &Machine) -> Option<ControlPlaneWait> {
        let Etcd::Members(members) = self.view.etcd else {
            return None;
        };
        match members.iter().find(|m| m.name == name(machine)) {
            None => Some(ControlPlaneWait::NoMember(name(machine))),
            Some(m) if m.learner => Some(ControlPlaneWait::MemberLearning(name(machine))),
            Some(m) if !m.healthy => Some(ControlPlaneWait::MemberNotHealthy(name(machine))),
            Some(_) => None,
        }
    }

    fn reason(machine: &Machine, outdated: &Outdated) -> Option<DeleteReason> {
        if is_marked(machine) {
            Some(DeleteReason::Marked)
        } else if outdated.contains_key(&name(machine)) {
            Some(DeleteReason::Outdated)
        } else {
            None
        }
    }

    /// Broken, outdated and marked, marked, outdated and not well, outdated, then (when there are too many) any: of the failure
    /// domain that has most, the oldest.
    fn next_to_go(&self, any: bool, outdated: &Outdated) -> Option<&'a Machine> {
        let mut domains: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for m in self.view.machines {
            *domains.entry(domain(m)).or_default() += 1;
        }
        self.view
            .machines
            .iter()
            .filter(|m| any || Self::reason(m, outdated).is_some())
            .min_by_key(|m| {
                let rank = match (is_marked(m), outdated.contains_key(&name(m))) {
                    _ if is_broken(m) => 0,
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, true) if self.sick(m).is_some() => 3,
                    (false, true) => 4,
                    (false, false) => 5,
                };
                let crowd = domains.get(&domain(m)).copied().unwrap_or(0);
                let created = m.metadata.creation_timestamp.as_ref().map(|t| t.0);
                (rank, usize::MAX - crowd, created, ordinal(m), name(m))
            })
    }

    /// The members of etcd, or why they are not known.
    pub(super) fn members(&self) -> Result<Vec<Member>, String> {
        match self.view.etcd {
            Etcd::Members(members) => Ok(members.to_vec()),
            Etcd::Unknown(why) => Err(why.to_owned()),
            Etcd::Assumed => Ok(self
                .view
                .machines
                .iter()
                .filter(|m| has_served(m))
                .map(|m| Member {
                    name: name(m),
                    healthy: ready(m),
                    learner: false,
                })
                .collect()),
        }
    }

    /// The machine on its way out whose member etcd cannot let go.
    pub(super) fn held_back(&self, members: &[Member]) -> Option<&'a Machine> {
        leave::held_back(self.view, Some(members))
    }

    fn delete(&self, machine: &Machine, outdated: &Outdated) -> ControlPlaneAction {
        let name = name(machine);
        match self.members() {
            Err(why) => ControlPlaneAction::Wait(ControlPlaneWait::EtcdUnknown(why)),
            Ok(members) if !may_remove(&members, &name) => {
                ControlPlaneAction::Wait(ControlPlaneWait::Quorum {
                    machine: Some(name),
                })
            }
            Ok(_) => ControlPlaneAction::Delete {
                reason: Self::reason(machine, outdated).unwrap_or(DeleteReason::ScaleDown),
                machine: name,
            },
        }
    }

    fn create(
        &self,
        reason: CreateReason,
        record: Option<String>,
        outdated: &Outdated,
    ) -> ControlPlaneAction {
        if reason != CreateReason::First {
            match self.members() {
                Err(why) => return ControlPlaneAction::Wait(ControlPlaneWait::EtcdUnknown(why)),
                Ok(members) if !may_add(&members) => {
                    let learner = members.iter().find(|m| m.learner);
                    return ControlPlaneAction::Wait(
                        learner.map_or(ControlPlaneWait::Quorum { machine: None }, |m| {
                            ControlPlaneWait::MemberLearning(m.name.clone())
                        }),
                    );
                }
                Ok(_) => {}
            }
        }
        let cluster = self.view.cluster;
        let cluster_name = cluster.metadata.name.as_deref().unwrap_or_default();
        let counter = cluster
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(meta::ANNOTATION_NEXT_ORDINAL))
            .and_then(|n| n.parse::<u64>().ok());
        let used = self
            .view
            .machines
            .iter()
            .filter_map(ordinal)
            .map(|o| o + 1)
            .max();
        let ordinal = counter.max(used).unwrap_or(0);
        let mut machine = new_machine(cluster_name, ordinal, self.content);
        if let Some(record) = record {
            let annotations = &mut machine.annotations;
            annotations.insert(meta::ANNOTATION_REMEDIATION_FOR.to_owned(), record);
        }
        let domain = &mut machine.spec.content.failure_domain;
        if domain.is_none() {
            *domain = self.domain(outdated);
        }
        ControlPlaneAction::Create {
            machine: Box::new(machine),
            reason,
        }
    }

    /// The failure domain of the next machine: the one with the fewest machines that stay, of several the one with the fewest
    /// machines at all.
    fn domain(&self, outdated: &Outdated) -> Option<String> {
        let of = |d: &String, stay: bool| {
            self.view
                .machines
                .iter()
                .filter(|m| domain(m).as_ref() == Some(d))
                .filter(|m| !stay || !(is_leaving(m) || outdated.contains_key(&name(m))))
                .count()
        };
        self.view
            .domains
            .iter()
            .min_by_key(|d| (of(d, true), of(d, false), (*d).clone()))
            .cloned()
    }
}

/// A control-plane machine of this content, in the failure domain that the content names.
pub(crate) fn new_machine(cluster: &str, ordinal: u64, content: &Content) -> NewMachine {
    let mut labels = content.machine_labels();
    labels.insert(meta::LABEL_CLUSTER_NAME.to_owned(), cluster.to_owned());
    labels.insert(meta::LABEL_CONTROL_PLANE.to_owned(), String::new());
    let mut annotations = content.machine_annotations();
    annotations.insert(ETCD_HOOK.to_owned(), String::new());
    NewMachine {
        name: names::control_plane_machine(cluster, ordinal),
        ordinal,
        labels,
        annotations,
        spec: MachineSpec {
            cluster_name: cluster.to_owned(),
            content: content.spec.clone(),
            provider_id: None,
            instance_key: None,
        },
    }
}

/// The failure domain that a machine is in, or is to be in.
fn domain(machine: &Machine) -> Option<String> {
    let status = machine
        .status
        .as_ref()
        .and_then(|s| s.failure_domain.clone());
    status.or_else(|| machine.spec.content.failure_domain.clone())
}
