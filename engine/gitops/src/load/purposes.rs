//! Whether a `providerConfig` is of a kind for its place, what a pool whose nodes its provider runs cannot say, and what a Cluster has to
//! say for the machines of its control plane.

use fleetwright_core::catalogue::{ClusterNeeds, Purpose};
use serde_json::Value;

use super::check::Found;
use crate::yaml::Node;

/// What of a pool holds for machines of ours alone, with what holds instead.
const OF_MACHINES: &[(&[&str], &str)] = &[
    (
        &["rollout"],
        "the provider rolls these nodes by bounds in providerConfig",
    ),
    (&["deletion"], "the provider chooses which node goes"),
    (&["remediation"], "the provider replaces broken nodes"),
    (
        &["disruption"],
        "the provider keeps bounds in providerConfig",
    ),
    (&["revisionHistoryLimit"], "such a pool has no sets"),
    (&["selector"], "such a pool has no Machines"),
    (
        &["template", "spec", "failureDomain"],
        "subnets in providerConfig say where nodes are",
    ),
    (
        &["template", "spec", "readinessGates"],
        "such a pool has no Machines",
    ),
    (
        &["template", "spec", "deletion"],
        "the provider drains these nodes",
    ),
];

/// The mistakes of a document of this kind. `purpose`: what a kind of `providerConfig` is for, by `apiVersion` and kind, where it is known.
pub(super) fn misplaced(
    kind: &str,
    document: &Node,
    purpose: impl Fn(&str, &str) -> Option<Purpose>,
) -> Vec<Found> {
    let at = |path: &[&str]| {
        let mut node = document.get("spec");
        for name in path {
            node = node.and_then(|node| node.get(name));
        }
        node
    };
    let text = |node: &Node, name| node.get(name).and_then(Node::as_str).map(str::to_owned);
    let of = |path: &[&str]| {
        let node = at(path)?.get("providerConfig")?;
        let (version, kind) = (text(node, "apiVersion")?, text(node, "kind")?);
        Some((node, purpose(&version, &kind)?, kind))
    };
    let mut out = Vec::new();
    let mut check = |path: &[&str], allowed: &[Purpose], words: &str| {
        if let Some((node, is, kind)) = of(path)
            && !allowed.contains(&is)
        {
            let message = format!("{kind} is not for {words}: use a kind that is");
            out.push((node.place_of("kind"), message));
        }
    };
    match kind {
        "Cluster" => {
            let own = &[Purpose::Own];
            check(&[], own, "a cluster as a whole");
            let machines = ["controlPlane", "machines", "template", "spec"];
            check(&machines, own, "machines");
            let words = "a control plane that a provider runs";
            let managed = ["controlPlane", "managed"];
            check(&managed, &[Purpose::ControlPlane], words);
        }
        "MachineDeployment" => {
            let template = ["template", "spec"];
            check(&template, &[Purpose::Own, Purpose::Pool], "pools");
            if let Some((_, Purpose::Pool, kind)) = of(&template) {
                for (path, instead) in OF_MACHINES {
                    let Some((name, above)) = path.split_last() else {
                        continue;
                    };
                    let entry = at(above).and_then(|node| node.entry(name));
                    if let Some((place, _)) = entry.filter(|(_, node)| !node.is_null()) {
                        let path = path.join(".");
                        let message = format!(
                            "spec.{path} does not hold for {kind}: leave it out; {instead}"
                        );
                        out.push((place, message));
                    }
                }
            }
        }
        _ => {}
    }
    out
}

/// What the machines of a Cluster's control plane need that the Cluster does not say. `schema`: that of a kind of `providerConfig`, by
/// `apiVersion` and kind, where it is known.
pub(super) fn unsaid<'s>(
    cluster: &Node,
    schema: impl Fn(&str, &str) -> Option<&'s Value>,
) -> Option<Found> {
    let head = |config: &Node| {
        let text = |name| config.get(name).and_then(Node::as_str).map(str::to_owned);
        Some((text("apiVersion")?, text("kind")?))
    };
    let spec = cluster.get("spec")?;
    let machines = ["controlPlane", "machines", "template", "spec"];
    let machines = machines
        .iter()
        .try_fold(spec, |node, name| node.get(name))?;
    let (version, kind) = head(machines.get("providerConfig")?)?;
    let needs = ClusterNeeds::of(schema(&version, &kind)?)?;
    let (needed, fields) = (needs.kind, needs.one_of.join(" or "));
    let Some(config) = spec.get("providerConfig").filter(|c| !c.is_null()) else {
        let with = match fields.as_str() {
            "" => String::new(),
            fields => format!(" with {fields}"),
        };
        let message = format!(
            "spec.providerConfig is missing: a control plane of {kind} needs {needed}{with} there"
        );
        return Some((spec.place, message));
    };
    if head(config)? != (version, needed.to_owned()) {
        let message = format!("a control plane of {kind} needs {needed} as spec.providerConfig");
        return Some((config.place_of("kind"), message));
    }
    let says = |name: &&str| config.get(name).is_some_and(|node| !node.is_null());
    if fields.is_empty() || needs.one_of.iter().any(says) {
        return None;
    }
    let message = format!(
        "spec.providerConfig sets none of {fields}: the API of a control plane of {kind} is reached by one of them"
    );
    Some((config.place, message))
}
