//! I7 and I8: what Git holds is not deleted but by Git, and commit statuses tell the truth.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::meta;
use jiff::SignedDuration;

use super::{
    Checker,
    model::{Meta, Wish},
};

/// How long an older commit may still be carried out.
const CARRIED_OUT: SignedDuration = SignedDuration::from_mins(10);

/// Roots that were seen to go.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    doomed: BTreeSet<(String, String)>,
}

impl Checker {
    pub(super) fn root(&mut self, kind: &str, name: &str, meta: &Meta) {
        if meta.deleting() {
            self.root_doomed(kind, name, meta);
        }
    }

    pub(super) fn root_gone(&mut self, kind: &str, name: &str, meta: &Meta) {
        self.root_doomed(kind, name, meta);
        self.roots
            .doomed
            .remove(&(kind.to_owned(), name.to_owned()));
    }

    /// A cluster or pool goes: some commit that may be carried out now says so.
    fn root_doomed(&mut self, kind: &str, name: &str, meta: &Meta) {
        let key = (kind.to_owned(), name.to_owned());
        if !self.roots.doomed.insert(key.clone()) {
            return;
        }
        // A pool goes with its cluster.
        let with_cluster = kind == "MachineDeployment"
            && self.pools.get(name).is_some_and(|p| {
                let cluster = self.clusters.get(&p.spec.cluster_name);
                cluster.is_none_or(|c| c.metadata.deleting())
            });
        let ours = meta.labels.contains_key(meta::LABEL_FLEET);
        if with_cluster {
            return;
        }
        let now = self.now();
        let lacking = self.around.repository.with(|commits| {
            let holds = |n: usize| {
                commits[n]
                    .files
                    .values()
                    .any(|d| d["kind"] == kind && d["metadata"]["name"] == name)
            };
            (0..commits.len()).rev().any(|n| {
                let newer = commits.get(n + 1).map(|c| c.at);
                let current = newer.is_none_or(|at| now.duration_since(at) < CARRIED_OUT);
                // What cannot be read as a whole says nothing.
                let whole = commits[n].files.values().all(serde_json::Value::is_object);
                current && whole && !holds(n)
            })
        });
        if !ours {
            self.broke(
                "I2",
                format!("{kind} {name} is deleted, and it is not the repository's"),
            );
        } else if !lacking {
            self.broke(
                "I7",
                format!("{kind} {name} is deleted, and the repository holds it"),
            );
        }
    }

    pub(super) fn wish(&mut self, name: &str, object: Wish, gone: bool) -> String {
        if gone {
            self.wishes.remove(name);
            return String::new();
        }
        let text = format!(
            "{} {}: {}",
            &object.spec.sha[..8.min(object.spec.sha.len())],
            object.spec.wanted.state,
            object.spec.wanted.description
        );
        let before = self.wishes.insert(name.to_owned(), object.clone());
        let same = before.is_some_and(|b| b.spec.wanted == object.spec.wanted);
        if !same && object.spec.wanted.state == "success" {
            self.success(&object);
        }
        text
    }

    /// A success is wanted: what the commit changed has converged.
    fn success(&mut self, wish: &Wish) {
        let description = wish.spec.wanted.description.clone();
        let sha = wish.spec.sha.clone();
        if description.starts_with("superseded") {
            let newer = self
                .around
                .repository
                .with(|all| all.last().is_some_and(|c| c.sha != sha));
            if !newer {
                self.broke(
                    "I8",
                    format!("commit {sha} is called superseded, and is the newest"),
                );
            }
            return;
        }
        // A status of one cluster speaks of that one alone.
        let meant = |this: &Self, kind: &str, name: &str| {
            let of = match kind {
                "Cluster" => Some(name),
                "MachineDeployment" => this.pools.get(name).map(|p| p.spec.cluster_name.as_str()),
                _ => None,
            };
            wish.spec
                .cluster()
                .is_none_or(|cluster| of == Some(cluster))
        };
        for (kind, name) in self.removed_by(&sha) {
            if !meant(self, &kind, &name) {
                continue;
            }
            let ours = |meta: &Meta| meta.labels.contains_key(meta::LABEL_FLEET);
            let there = match kind.as_str() {
                "Cluster" => self.clusters.get(&name).is_some_and(|c| ours(&c.metadata)),
                "MachineDeployment" => {
                    self.pools.get(&name).is_some_and(|p| ours(&p.metadata))
                        || self.workers(&name).next().is_some()
                }
                _ => false,
            };
            if there {
                self.broke(
                    "I8",
                    format!("commit {sha} is called a success ({description:?}), and {kind} {name}, which it removed, is not gone yet"),
                );
                return;
            }
        }
        for (kind, name) in self.changed_by(&sha) {
            if !meant(self, &kind, &name) {
                continue;
            }
            let (annotations, converged) = match kind.as_str() {
                // These are what they are to be once they are written.
                "MachineHealthCheck" | "MachineDrainRule" => continue,
                "MachineDeployment" => {
                    let pool = self.pools.get(&name);
                    let converged = self.pool_converged(&name);
                    (pool.map(|p| &p.metadata.annotations), converged)
                }
                _ => {
                    let cluster = self.clusters.get(&name);
                    // What fails after it has converged once is not the commit's.
                    let converged = self
                        .converged_at
                        .get(&name)
                        .is_some_and(|(of, _)| *of == sha)
                        || cluster.is_some_and(|c| self.cluster_fits(&name, c));
                    (cluster.map(|c| &c.metadata.annotations), converged)
                }
            };
            // One that a newer commit took over has its truth there.
            let carries = annotations.and_then(|a| a.get(meta::ANNOTATION_REVISION));
            if carries == Some(&sha) && !converged {
                self.broke(
                    "I8",
                    format!("commit {sha} is called a success ({description:?}), and {kind} {name} has not converged"),
                );
                return;
            }
        }
    }

    /// Whether all control-plane machines are what the cluster says.
    pub(super) fn cluster_fits(&self, name: &str, cluster: &super::model::Cluster) -> bool {
        let wanted = &cluster.spec.control_plane.machines;
        let all: Vec<_> = self.control_plane(name).collect();
        i64::try_from(all.len()).unwrap_or(0) == wanted.replicas
            && all.iter().all(|(_, m)| {
                let spec = &m.object.spec;
                m.was_available
                    && spec.version.as_deref() == Some(cluster.spec.version.as_str())
                    && spec
                        .provider_config
                        .fits(&wanted.template.spec.provider_config)
            })
    }

    /// Objects that a commit changed, as (kind, name).
    fn changed_by(&self, sha: &str) -> Vec<(String, String)> {
        self.compared(sha, |before, after| differing(after, before))
    }

    /// Objects that a commit removed.
    fn removed_by(&self, sha: &str) -> Vec<(String, String)> {
        self.compared(sha, |before, after| {
            let mut all = differing(before, after);
            all.retain(|gone| !differing(after, &Files::new()).contains(gone));
            all
        })
    }

    fn compared(
        &self,
        sha: &str,
        how: impl FnOnce(&Files, &Files) -> Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        self.around.repository.with(|commits| {
            let Some(at) = commits.iter().position(|c| c.sha == sha) else {
                return Vec::new();
            };
            let none = Files::new();
            let before = at.checked_sub(1).map_or(&none, |n| &commits[n].files);
            // What cannot be read as a whole says nothing.
            match before.values().all(serde_json::Value::is_object) {
                true => how(before, &commits[at].files),
                false => Vec::new(),
            }
        })
    }
}

/// Documents by path.
type Files = BTreeMap<String, serde_json::Value>;

/// Kinds and names of the documents of `of` that are not the same in `than`.
fn differing(of: &Files, than: &Files) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    of.iter()
        .filter(|(path, document)| than.get(*path) != Some(*document))
        .map(|(_, d)| (text(&d["kind"]), text(&d["metadata"]["name"])))
        .collect()
}
