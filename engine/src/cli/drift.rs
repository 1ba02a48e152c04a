//! `fleetwright drift`: what differs from the repository though the repository did not change it.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, Machine,
    condition::{self, Condition, kind},
    meta::{LABEL_CLUSTER_NAME, LABEL_FLEET},
    names::fleet_hash,
    time::{Clock as _, SystemClock},
};
use fleetwright_core::drift::{Finding, findings_of_cluster, findings_of_machine, of_field};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    client::{self, Connection},
    error::Failure,
    output::Output,
    repository::Target,
};

/// Clusters whose machines are listed in one request: their names must fit into its address.
const CLUSTERS_AT_ONCE: usize = 50;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Fleet, as NAMESPACE/NAME.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "default/default")]
    fleet: String,
    #[command(flatten)]
    connection: Connection,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What is printed.
#[derive(Debug, Default, Serialize)]
struct Document {
    /// What differs.
    findings: Vec<Finding>,
    /// What cannot be read now.
    unknown: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::followed(args.fleet, args.connection);
    let client = target.client().await?;
    let planned = target.plan(&client, SystemClock.now()).await?;
    let policy = &planned.policy;
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let clusters: Vec<Cluster> = list(&client, &format!("{LABEL_FLEET}={hash}")).await?;
    let machines = machines(&client, &clusters).await?;
    let mut document = read(&clusters, &machines);
    let fields = planned.plan.drift.iter().map(of_field);
    document.findings.splice(0..0, fields);
    args.output.print(&document, || text(&document))?;
    match document.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::input("1 thing drifted")),
        n => Err(Failure::input(format!("{n} things drifted"))),
    }
}

/// The machines of these clusters.
async fn machines(client: &Client, clusters: &[Cluster]) -> Result<Vec<Machine>, Failure> {
    let mut all = Vec::new();
    for some in clusters.chunks(CLUSTERS_AT_ONCE) {
        let names: Vec<String> = some.iter().map(ResourceExt::name_any).collect();
        let labels = format!("{LABEL_CLUSTER_NAME} in ({})", names.join(","));
        let found: Vec<Machine> = list(client, &labels).await?;
        // Clusters of other namespaces may have the same names.
        let of = |machine: &Machine, cluster: &Cluster| {
            cluster.namespace() == machine.namespace()
                && cluster.name_any() == machine.spec.cluster_name
        };
        let ours = |machine: &Machine| some.iter().any(|cluster| of(machine, cluster));
        all.extend(found.into_iter().filter(ours));
    }
    Ok(all)
}

async fn list<K>(client: &Client, labels: &str) -> Result<Vec<K>, Failure>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = ListParams::default().labels(labels);
    let objects = Api::<K>::all(client.clone()).list(&params).await;
    objects
        .map(|l| l.items)
        .map_err(|e| client::failure(&format!("cannot list {}", K::plural(&())), e))
}

/// What clusters and machines say of themselves, clusters first.
fn read(clusters: &[Cluster], machines: &[Machine]) -> Document {
    let mut document = Document::default();
    let unknown = |what: &str, object: String, conditions: Option<&Vec<Condition>>| {
        let told = conditions.and_then(|list| condition::get(list, kind::IN_SYNC));
        told.filter(|c| c.status == "Unknown")
            .map(|c| format!("{what} {object}: {}", c.message))
    };
    let name = |namespace: Option<String>, name: String| {
        format!("{}/{name}", namespace.unwrap_or_default())
    };
    for cluster in clusters {
        document.findings.extend(findings_of_cluster(cluster));
        let conditions = cluster.status.as_ref().map(|s| &s.conditions);
        let name = name(cluster.namespace(), cluster.name_any());
        document
            .unknown
            .extend(unknown("Cluster", name, conditions));
    }
    let machines: BTreeMap<String, &Machine> = machines
        .iter()
        .map(|m| (name(m.namespace(), m.name_any()), m))
        .collect();
    for (name, machine) in machines {
        let conditions = machine.status.as_ref().map(|s| &s.conditions);
        match unknown("Machine", name, conditions) {
            Some(words) => document.unknown.push(words),
            None => document.findings.extend(findings_of_machine(machine)),
        }
    }
    document
}

/// A line for each thing, and below it what to do.
fn text(document: &Document) -> String {
    let mut text = String::new();
    for finding in &document.findings {
        text += &format!("! {finding}\n    {}\n", finding.hint);
    }
    for words in &document.unknown {
        text += &format!("? {words}\n");
    }
    if document.findings.is_empty() {
        text += "Nothing drifted.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn condition(status: &str, message: &str) -> Value {
        json!({"type": "InSync", "status": status, "reason": "R", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn what_differs_is_told_with_what_to_do_and_what_is_unknown_is_no_drift() {
        let cluster: Cluster = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "a"},
            "spec": {"version": "v1.33.2", "controlPlane": {}},
            "status": {"unmanagedInstances": ["i-8"], "conditions": [condition("False", "x")]},
        }))
        .unwrap();
        let machine = |name: &str, status: &str, drift: Value| -> Machine {
            serde_json::from_value(json!({
                "metadata": {"namespace": "default", "name": name},
                "spec": {"clusterName": "a", "providerConfig": {}},
                "status": {"drift": drift, "conditions": [condition(status, "its provider cannot be read")]},
            }))
            .unwrap()
        };
        let kubelet = json!([{"kind": "Kubelet", "what": "kubelet", "wanted": "v1.33.2", "found": "v1.33.3", "since": "2026-01-01T00:00:00Z"}]);
        let machines = [
            machine("m-2", "Unknown", json!([])),
            machine("m-1", "False", kubelet),
        ];
        let document = read(&[cluster], &machines);
        assert_eq!(document.findings.len(), 2);
        assert_eq!(
            text(&document),
            "\
! Cluster default/a: instance i-8 carries the cluster's key, and no Machine has it
    delete it at its provider if nothing there is needed: it is never deleted for you
! Machine default/m-1: the node runs kubelet v1.33.3, wanted is v1.33.2
    change it back at its provider, or delete the Machine: its owner makes another one
? Machine default/m-2: its provider cannot be read
"
        );
        assert_eq!(text(&read(&[], &[])), "Nothing drifted.\n");
    }
}
