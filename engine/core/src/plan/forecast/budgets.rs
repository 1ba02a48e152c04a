//! Disruption budgets that will hold a plan up, as far as that is known beforehand.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment,
    disruption::DisruptionBudget,
    meta::{LABEL_CLUSTER_NAME, LABEL_CONTROL_PLANE, LABEL_DEPLOYMENT_NAME},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Owner, Rollout};
use crate::disruption::{Blocked, Holder, Service, Usage, Whose, limit, may_take};

/// Machines that are counted together: those of a pool or a control plane, by namespace, Cluster and pool.
type Group = (String, String, Owner);

/// The budgets of all clusters and pools as the plan leaves them, and how many machines are out of service now.
#[derive(Default)]
pub(super) struct Budgets {
    usage: BTreeMap<Group, Usage>,
    pools: BTreeMap<(String, String), DisruptionBudget>,
    clusters: BTreeMap<(String, String), DisruptionBudget>,
    fleet: Option<(String, DisruptionBudget)>,
    /// Namespaces and names of the Clusters that the Fleet's budget holds for.
    of_fleet: BTreeSet<(String, String)>,
    /// What all machines under the Fleet's budget want and have out of service, once all are counted.
    in_fleet: OnceCell<(i32, i32)>,
}

impl Budgets {
    /// A Fleet's budget, by its name.
    pub(super) fn of_fleet(name: &str, budget: Option<&DisruptionBudget>) -> Self {
        Self {
            fleet: budget.map(|budget| (name.to_owned(), budget.clone())),
            ..Self::default()
        }
    }

    /// A Cluster; whether the Fleet's budget holds for it.
    pub(super) fn cluster(&mut self, cluster: &Cluster, of_fleet: bool) {
        let key = name_of(&cluster.metadata);
        if of_fleet {
            self.of_fleet.insert(key.clone());
        }
        if let Some(budget) = &cluster.spec.disruption {
            self.clusters.insert(key.clone(), budget.clone());
        }
        if let Some(machines) = &cluster.spec.control_plane.machines {
            self.wants((key.0, key.1, None), machines.replicas);
        }
    }

    pub(super) fn pool(&mut self, pool: &MachineDeployment) {
        let (namespace, name) = name_of(&pool.metadata);
        if let Some(budget) = &pool.spec.disruption {
            let key = (namespace.clone(), name.clone());
            self.pools.insert(key, budget.clone());
        }
        let cluster = pool.spec.cluster_name.clone();
        self.wants((namespace, cluster, Some(name)), pool.spec.replicas);
    }

    fn wants(&mut self, group: Group, replicas: Option<i32>) {
        self.usage.entry(group).or_default().wanted = replicas.unwrap_or(1);
    }

    pub(super) fn machine(&mut self, machine: &Machine) {
        let label = |name: &str| machine.metadata.labels.as_ref()?.get(name).cloned();
        let (Some(cluster), Some(namespace)) = (
            label(LABEL_CLUSTER_NAME),
            machine.metadata.namespace.clone(),
        ) else {
            return;
        };
        let pool = match label(LABEL_CONTROL_PLANE) {
            Some(_) => None,
            None => label(LABEL_DEPLOYMENT_NAME),
        };
        let Some(usage) = self.usage.get_mut(&(namespace, cluster, pool)) else {
            return;
        };
        match Service::of(machine) {
            Service::In => usage.in_service += 1,
            Service::Leaving => usage.leaving += 1,
            Service::Out => {}
        }
    }

    /// The budgets that hold for a group's machines, with what others under them want and have out of service.
    fn holders(&self, group: &Group) -> Vec<Holder<'_>> {
        let (namespace, cluster, pool) = group;
        let cluster = (namespace.clone(), cluster.clone());
        let own = self.usage.get(group).copied().unwrap_or_default();
        let others = |all: (i32, i32)| (all.0 - own.wanted, all.1 - own.out());
        let holder = |whose, budget, (others_wanted, others_out)| Holder {
            whose,
            budget,
            others_wanted,
            others_out,
        };
        let mut out = Vec::new();
        if let Some(name) = pool
            && let Some(budget) = self.pools.get(&(namespace.clone(), name.clone()))
        {
            out.push(holder(Whose::Pool(name.clone()), budget, (0, 0)));
        }
        if let Some(budget) = self.clusters.get(&cluster) {
            let spent = others(self.in_cluster(&cluster));
            out.push(holder(Whose::Cluster(cluster.1.clone()), budget, spent));
        }
        if let Some((name, budget)) = &self.fleet
            && self.of_fleet.contains(&cluster)
        {
            let all = self.in_fleet.get_or_init(|| {
                let each = self.of_fleet.iter().map(|c| self.in_cluster(c));
                each.fold((0, 0), |sum, all| (sum.0 + all.0, sum.1 + all.1))
            });
            let spent = others(*all);
            out.push(holder(Whose::Fleet(name.clone()), budget, spent));
        }
        out
    }

    /// What the machines of a cluster want and have out of service.
    fn in_cluster(&self, cluster: &(String, String)) -> (i32, i32) {
        let first = (cluster.0.clone(), cluster.1.clone(), None);
        let from = self.usage.range(first..);
        let own = from.take_while(|(g, _)| g.0 == cluster.0 && g.1 == cluster.1);
        own.fold((0, 0), |sum, (_, u)| (sum.0 + u.wanted, sum.1 + u.out()))
    }

    /// What holds up the machines that `owner` loses: a budget that lets none go, one that is spent now, or one that lets fewer go at
    /// once than the steps of `all` the cluster's rollouts take.
    pub(super) fn note(
        &self,
        cluster: (&str, &str),
        owner: &Owner,
        all: &BTreeMap<Owner, Rollout>,
    ) -> Option<String> {
        let group = (cluster.0.to_owned(), cluster.1.to_owned(), owner.clone());
        let own = self.usage.get(&group).copied().unwrap_or_default();
        let holders = self.holders(&group);
        let never = holders.iter().find(|h| limit(h.budget, 1) == Some(0));
        if let Some(holder) = never {
            let blocked = Blocked {
                whose: holder.whose.clone(),
                out: 0,
                limit: Some(0),
            };
            return Some(format!("{blocked}; raise its maxUnavailable"));
        }
        if own.in_service > 0
            && let Err(blocked) = may_take(own, &holders)
        {
            return Some(format!(
                "{blocked} now; it goes on when some are back, or with a higher maxUnavailable"
            ));
        }
        holders.iter().find_map(|holder| {
            let limit = limit(holder.budget, own.wanted + holder.others_wanted)?;
            let mut at_once: BTreeMap<usize, usize> = BTreeMap::new();
            for (other, rollout) in all {
                if matches!(holder.whose, Whose::Pool(_)) && other != owner {
                    continue;
                }
                for step in &rollout.steps {
                    *at_once.entry(step.step).or_default() += step.delete.len();
                }
            }
            let most = at_once.into_values().max().unwrap_or(0);
            (most > usize::try_from(limit).unwrap_or(0)).then(|| {
                format!(
                    "the disruption budget of {} lets no more than {limit} of the {most} machines of a step be out of service at once; raise its \
                     maxUnavailable, or the step takes longer",
                    holder.whose
                )
            })
        })
    }
}

fn name_of(metadata: &ObjectMeta) -> (String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}
