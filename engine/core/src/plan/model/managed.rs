//! A model's control plane and groups of nodes that a provider runs: each order is carried out at once.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, MachineDeployment, version::Version};

use super::{BlockerKind, Model, Moves, Owner, Wait, because, blockers, sentence};
use crate::{
    catalogue::Catalogue,
    compare::compare,
    content::Content,
    control_plane::ControlPlaneDecision,
    group::{self, GroupWait},
    images::Image,
    managed::{Known, Phase, Shown},
    plan::forecast::ByProvider,
};

/// What providers run of a cluster, by owner.
#[derive(Clone, Default)]
pub(in crate::plan) struct Provided {
    known: BTreeMap<Owner, Known>,
    /// What was ordered last.
    ordered: BTreeMap<Owner, Content>,
}

impl Provided {
    /// What runs while `cluster` and `pools` are as they were before a plan.
    pub(in crate::plan) fn of(
        cluster: Option<&Cluster>,
        pools: &[MachineDeployment],
        catalogue: &Catalogue,
    ) -> Self {
        let mut out = Self::default();
        let read = |version: Option<&String>| version?.parse::<Version>().ok();
        if let Some(cluster) = cluster
            && let Some(version) = read(cluster.status.as_ref().and_then(|s| s.version.as_ref()))
            && let Some(content) = Content::of_managed(cluster, &version, catalogue)
        {
            out.put(None, content, Phase::Active, version);
        }
        for pool in pools {
            let version = read(pool.status.as_ref().and_then(|s| s.version.as_ref()));
            let settings = &pool.spec.template.spec.provider_config;
            if let Some(version) = version.filter(|_| catalogue.is_group(settings)) {
                let content = Content::of_pool(pool, &version, catalogue);
                out.put(pool.metadata.name.clone(), content, Phase::Active, version);
            }
        }
        out
    }

    fn put(&mut self, owner: Owner, content: Content, phase: Phase, version: Version) {
        let shown = Some(Shown {
            phase,
            version: Some(version),
        });
        let known = Known {
            shown,
            ..Known::default()
        };
        self.known.insert(owner.clone(), known);
        self.ordered.insert(owner, content);
    }

    pub(super) fn known(&self, owner: &Owner) -> Option<&Known> {
        self.known.get(owner)
    }

    fn moves(&self, owner: &Owner) -> bool {
        self.known(owner).is_some_and(Known::moves)
    }
}

impl Model<'_> {
    /// The provider's control plane, at the version of `decision`; whether something of it is ordered.
    pub(super) fn order_control_plane(
        &mut self,
        decision: &ControlPlaneDecision,
        mine: &mut Moves,
    ) -> bool {
        let Some(version) = decision.version.as_ref().map(|step| step.version().clone()) else {
            return false;
        };
        let Some(want) = Content::of_managed(&self.cluster, &version, self.catalogue) else {
            return false;
        };
        if self.provided.moves(&None) {
            return false;
        }
        let Some(have) = self.provided.ordered.get(&None) else {
            because(mine, "the provider makes it".to_owned());
            mine.provider = Some(ByProvider::ControlPlaneMade);
            mine.version = Some(version.to_string());
            self.provided.put(None, want, Phase::Creating, version);
            return true;
        };
        let difference = compare(&want, have, self.catalogue);
        if difference.is_empty() {
            return false;
        }
        let changes = [difference.replace, difference.in_place].concat();
        because(mine, sentence(&changes));
        mine.provider = Some(ByProvider::ControlPlaneChanged);
        mine.version = (have.version().as_ref() != Some(&version)).then(|| version.to_string());
        let phase = Phase::Updating(Some(version));
        let runs = have.version();
        if let Some(runs) = runs {
            self.provided.put(None, want, phase, runs);
        }
        true
    }

    /// A pool that is a group of nodes; whether something of it is ordered.
    pub(super) fn order_group(&mut self, at: usize, moves: &mut BTreeMap<Owner, Moves>) -> bool {
        let pool = &self.pools[at];
        let owner = pool.metadata.name.clone();
        let is_own =
            |labels: Option<&BTreeMap<String, String>>| super::label(labels) == owner.as_deref();
        let has_sets = self.sets.iter().any(|s| is_own(s.metadata.labels.as_ref()));
        let decision = group::decide(pool, Some(&self.cluster), has_sets, self.catalogue);
        let waits = decision.waits.as_ref().and_then(|wait| {
            let kind = match wait {
                GroupWait::Paused => BlockerKind::Paused,
                GroupWait::Version(reason) => blockers::of_version(reason)?,
                _ => BlockerKind::Invalid,
            };
            Some(Wait::new(kind, wait.to_string()))
        });
        let Some(order) = decision.order.filter(|_| !self.provided.moves(&owner)) else {
            self.waits(owner, waits);
            return false;
        };
        let want = Content::of_pool(pool, &order.version, self.catalogue);
        let settings = &pool.spec.template.spec.provider_config;
        let image = Image::of(settings, &order.version.to_string(), self.catalogue);
        let images = self.images.entry(owner.clone()).or_default();
        let have = self.provided.ordered.get(&owner);
        let there = pool.status.as_ref().map_or(0, |s| s.replicas);
        let nodes = order.replicas.unwrap_or(there);
        let mine = moves.entry(owner.clone()).or_default();
        let (from, phase) = match have {
            None => {
                images.insert(image);
                because(mine, "the first nodes of the pool".to_owned());
                mine.provider = Some(ByProvider::NodesMade { nodes });
                (order.version.clone(), Phase::Creating)
            }
            Some(have) => {
                let from = have.version().unwrap_or_else(|| order.version.clone());
                let difference = compare(&want, have, self.catalogue);
                if !difference.replace.is_empty() {
                    images.insert(image);
                    because(mine, sentence(&difference.replace));
                    mine.provider = Some(ByProvider::NodesRolled { nodes: there });
                } else if nodes != there {
                    mine.number = Some(format!("the pool wants {nodes}"));
                    mine.provider = Some(ByProvider::NodesScaled {
                        from: there,
                        to: nodes,
                    });
                }
                if !difference.in_place.is_empty() {
                    because(mine, sentence(&difference.in_place));
                    mine.in_place.extend(owner.clone());
                }
                let still = difference.is_empty() && nodes == there;
                if still {
                    self.waits(owner, waits);
                    return false;
                }
                (from, Phase::Updating(Some(order.version.clone())))
            }
        };
        mine.version = Some(order.version.to_string()).filter(|_| mine.provider.is_some());
        self.waits(owner.clone(), waits);
        self.provided.put(owner, want, phase, from);
        let status = self.pools[at].status.get_or_insert_default();
        status.replicas = nodes;
        true
    }

    /// What was ordered is so now; whether anything was.
    pub(super) fn provide(&mut self) -> bool {
        let mut moved = false;
        for (owner, known) in &mut self.provided.known {
            let Some(shown) = known.shown.as_mut() else {
                continue;
            };
            match std::mem::replace(&mut shown.phase, Phase::Active) {
                Phase::Updating(Some(to)) => shown.version = Some(to),
                Phase::Active => continue,
                _ => {}
            }
            moved = true;
            let version = shown.version.as_ref().map(ToString::to_string);
            match owner {
                None => self.cluster.status.get_or_insert_default().version = version,
                Some(name) => {
                    let mut pools = self.pools.iter_mut();
                    if let Some(pool) = pools.find(|p| p.metadata.name.as_ref() == Some(name)) {
                        pool.status.get_or_insert_default().version = version;
                    }
                }
            }
        }
        moved
    }
}
