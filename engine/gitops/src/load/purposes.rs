//! Whether a `providerConfig` is of a kind for its place, and what a pool whose nodes its provider runs cannot say.

use fleetwright_core::catalogue::Purpose;

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
