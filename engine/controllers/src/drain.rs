//! Drains: cordon, list the node's pods, evict what may go; then look at the volumes that are still attached. Pods, budgets and
//! volumes are listed when draining, never cached.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetwright_core::{
    drain::{
        AttachedVolumes, DrainFacts, DrainPlan, DrainProgress, Eviction, PodKey, PodRule, attached,
        classify,
    },
    selector,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Namespace, Node, PersistentVolume, Pod},
    policy::v1::PodDisruptionBudget,
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams},
    core::Status,
};
use serde_json::json;
use tokio::time::Instant;

/// Longest time that one pass asks for evictions: the rest is asked for in the next one.
const PASS: Duration = Duration::from_secs(10);
/// Seconds that a pod may take to end on a node whose kubelet no longer reports, as Cluster API has it.
const GRACE_UNREACHABLE: u32 = 1;

/// A node that is to be drained.
pub(crate) struct Draining<'a> {
    pub(crate) client: &'a Client,
    pub(crate) node: &'a str,
    pub(crate) cordoned: bool,
    pub(crate) unreachable: bool,
    /// The rules that hold for the machine.
    pub(crate) rules: Vec<PodRule>,
    pub(crate) started: Timestamp,
    pub(crate) until: Timestamp,
}

async fn all<K>(client: &Client) -> Result<Vec<K>, kube::Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

impl Draining<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, kube::Error> {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let list = Api::<Pod>::all(self.client.clone()).list(&on_node).await?;
        Ok(list.items)
    }

    async fn plan(&self, pods: &[Pod], now: Timestamp) -> Result<DrainPlan, kube::Error> {
        let mut facts = DrainFacts {
            unreachable: self.unreachable,
            rules: self.rules.clone(),
            ..DrainFacts::default()
        };
        let from_daemon_set = |p: &Pod| p.owner_references().iter().any(|o| o.kind == "DaemonSet");
        if pods.iter().any(from_daemon_set) {
            let sets: Vec<DaemonSet> = all(self.client).await?;
            let key = |d: DaemonSet| PodKey::new(d.namespace().unwrap_or_default(), d.name_any());
            facts.daemon_sets = sets.into_iter().map(key).collect();
        }
        if facts.rules.iter().any(PodRule::needs_namespaces) {
            let namespaces: Vec<Namespace> = all(self.client).await?;
            let labels = |n: Namespace| (n.name_any(), n.labels().clone());
            facts.namespaces = namespaces.into_iter().map(labels).collect();
        }
        Ok(classify(pods, &facts, now))
    }

    /// One pass of the drain: cordons the node where it is not, and asks for the eviction of each pod whose turn it is.
    pub(crate) async fn pass(self, now: Timestamp) -> Result<DrainProgress, kube::Error> {
        if !self.cordoned {
            let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
            let nodes = Api::<Node>::all(self.client.clone());
            match nodes
                .patch(self.node, &PatchParams::default(), &patch)
                .await
            {
                // It went meanwhile: its pods go with it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        let pods = self.pods().await?;
        let plan = self.plan(&pods, now).await?;
        let mut evictions = self.evict(&plan).await?;
        self.name_budgets(&pods, &mut evictions).await;
        Ok(DrainProgress {
            started: self.started,
            until: self.until,
            unreachable: self.unreachable,
            plan,
            evictions,
        })
    }

    async fn evict(&self, plan: &DrainPlan) -> Result<BTreeMap<PodKey, Eviction>, kube::Error> {
        let begun = Instant::now();
        let mut params = EvictParams::default();
        if self.unreachable {
            params.delete_options = Some(DeleteParams::default().grace_period(GRACE_UNREACHABLE));
        }
        let mut evictions = BTreeMap::new();
        for key in &plan.evict {
            let result = if begun.elapsed() < PASS {
                let pods = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
                match pods.evict(&key.name, &params).await {
                    Ok(_) => Eviction::Accepted,
                    Err(kube::Error::Api(status)) => refusal(&status),
                    Err(error) => return Err(error),
                }
            } else {
                Eviction::NotAsked
            };
            evictions.insert(key.clone(), result);
        }
        Ok(evictions)
    }

    /// Finds the budgets that protect pods. Where they cannot be read, the API server's words on the refusal must do.
    async fn name_budgets(&self, pods: &[Pod], evictions: &mut BTreeMap<PodKey, Eviction>) {
        let protected = |e: &Eviction| matches!(e, Eviction::Budget { .. });
        let namespaces: BTreeSet<String> = evictions
            .iter()
            .filter(|(_, e)| protected(e))
            .map(|(key, _)| key.namespace.clone())
            .collect();
        for namespace in namespaces {
            let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), &namespace);
            let Ok(budgets) = api.list(&ListParams::default()).await else {
                continue;
            };
            for pod in pods
                .iter()
                .filter(|p| p.namespace().as_ref() == Some(&namespace))
            {
                if let Some(Eviction::Budget { budget, .. }) = evictions.get_mut(&PodKey::of(pod)) {
                    *budget = budgets.items.iter().find_map(|b| protects(b, pod));
                }
            }
        }
    }

    /// Volumes that are still attached to the node.
    pub(crate) async fn volumes(&self, now: Timestamp) -> Result<Vec<String>, kube::Error> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = nodes.get_opt(self.node).await?;
        let in_use = node.and_then(|n| n.status?.volumes_attached);
        let in_use: Vec<String> = in_use.into_iter().flatten().map(|v| v.name).collect();
        let attachments: Vec<VolumeAttachment> = all(self.client).await?;
        if in_use.is_empty() && !attachments.iter().any(|a| a.spec.node_name == self.node) {
            return Ok(Vec::new());
        }
        let volumes: Vec<PersistentVolume> = all(self.client).await?;
        let pods = self.pods().await?;
        let plan = self.plan(&pods, now).await?;
        let stays = |pod: &Pod| {
            let key = PodKey::of(pod);
            plan.skipped.iter().any(|(k, r)| *k == key && r.stays())
        };
        let staying: Vec<Pod> = pods.into_iter().filter(stays).collect();
        Ok(attached(AttachedVolumes {
            node: self.node,
            in_use: &in_use,
            attachments: &attachments,
            volumes: &volumes,
            staying: &staying,
        }))
    }
}

/// What the API server's refusal of an eviction means.
fn refusal(status: &Status) -> Eviction {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let cause = |reason: &str| causes.clone().find(|c| c.reason == reason);
    match status.code {
        404 => Eviction::Gone,
        // Without a cause the API server has too much to do.
        429 if causes.clone().next().is_some() => {
            let cause = causes.clone().map(|c| &c.message).find(|m| !m.is_empty());
            Eviction::Budget {
                budget: None,
                cause: cause.unwrap_or(&status.message).clone(),
            }
        }
        403 if cause("NamespaceTerminating").is_some() => Eviction::NamespaceTerminating,
        _ => Eviction::Failed(status.message.clone()),
    }
}

/// The name of a budget that protects the pod, and the disruptions that it allows.
fn protects(budget: &PodDisruptionBudget, pod: &Pod) -> Option<(String, i32)> {
    let selected = budget.spec.as_ref()?.selector.as_ref()?;
    selector::matches(selected, pod.labels()).then(|| {
        let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed);
        (budget.name_any(), allowed.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// TestEvictPods, answers of the API server.
    #[test]
    fn refusals_of_evictions() {
        let status = |code: u16, message: &str, causes: Value| -> Status {
            serde_json::from_value(json!({
                "status": "Failure", "code": code, "message": message, "reason": "",
                "details": {"causes": causes},
            }))
            .unwrap()
        };
        let budget = |cause: &str| Eviction::Budget {
            budget: None,
            cause: cause.into(),
        };
        for (status, want) in [
            (
                status(404, "pods \"p\" not found", json!([])),
                Eviction::Gone,
            ),
            (
                status(
                    429,
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    json!([{"reason": "DisruptionBudget", "message": "The disruption budget db needs 1 healthy pods and has 1 currently"}]),
                ),
                budget("The disruption budget db needs 1 healthy pods and has 1 currently"),
            ),
            (
                status(429, "too many", json!([])),
                Eviction::Failed("too many".into()),
            ),
            (
                status(
                    403,
                    "unable to create new content",
                    json!([{"reason": "NamespaceTerminating", "message": "namespace ns is being terminated"}]),
                ),
                Eviction::NamespaceTerminating,
            ),
            (
                status(403, "you may not", json!([])),
                Eviction::Failed("you may not".into()),
            ),
            (
                status(
                    500,
                    "This pod has more than one PodDisruptionBudget",
                    json!([]),
                ),
                Eviction::Failed("This pod has more than one PodDisruptionBudget".into()),
            ),
        ] {
            assert_eq!(refusal(&status), want);
        }
    }
}
