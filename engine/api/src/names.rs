//! Deterministic names.

use sha2::{Digest, Sha256};

use crate::random::hex;

/// The first `digits` hexadecimal digits of the SHA-256 of `parts`, each closed by a zero byte.
pub fn short_hash<'a>(parts: impl IntoIterator<Item = &'a str>, digits: usize) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    let mut text = hex(&sha.finalize());
    text.truncate(digits);
    text
}

/// Value of label `fleetwright.dev/fleet` for a Fleet.
pub fn fleet_hash(namespace: &str, fleet: &str) -> String {
    short_hash(["fleet", namespace, fleet], 16)
}

/// The cluster's key: Git alone finds it again, whatever API the Cluster is stored in.
pub fn cluster_key(installation: &str, namespace: &str, cluster: &str) -> String {
    short_hash(["cluster", installation, namespace, cluster], 32)
}

/// `<base>-<suffix>`, with `base` cut so that the whole fits `max` characters; a cut base gets a hash of
/// itself so that different long names stay different.
pub fn child_name(base: &str, suffix: &str, max: usize) -> String {
    let whole = format!("{base}-{suffix}");
    if whole.len() <= max {
        return whole;
    }
    let hash = short_hash(["name", base], 8);
    let room = max.saturating_sub(suffix.len() + hash.len() + 2);
    let cut: String = base.chars().take(room).collect();
    format!("{}-{hash}-{suffix}", cut.trim_end_matches(['-', '.']))
}

/// Longest name of a Cluster, pool, set or machine: it must also be a label value.
pub const MAX_NAME: usize = 63;

/// Name of a control-plane machine.
pub fn control_plane_machine(cluster: &str, ordinal: u64) -> String {
    child_name(cluster, &format!("cp-{ordinal}"), MAX_NAME)
}

/// Name of the Secret with a cluster's kubeconfig, as Cluster API has it.
pub fn kubeconfig_secret(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// Name of the Secret with the authority of a cluster's etcd, as Cluster API has it.
pub fn etcd_secret(cluster: &str) -> String {
    format!("{cluster}-etcd")
}

/// Name of a set, from its pool and the hash of its content.
pub fn machine_set(pool: &str, hash: &str) -> String {
    child_name(pool, hash, MAX_NAME)
}

/// Name of a worker, from its set and its ordinal.
pub fn machine(set: &str, ordinal: u64) -> String {
    child_name(set, &ordinal.to_string(), MAX_NAME)
}

/// Name of the ConfigMap that holds a cluster's bootstrap manifest of this path.
pub fn bootstrap_manifest(cluster: &str, path: &str) -> String {
    let suffix = format!("manifest-{}", short_hash(["manifest", path], 10));
    child_name(cluster, &suffix, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let a = machine_set(&format!("{}a", "x".repeat(70)), "0123456789");
        let b = machine_set(&format!("{}b", "x".repeat(70)), "0123456789");
        assert!(a.len() <= MAX_NAME && b.len() <= MAX_NAME);
        assert_ne!(a, b);
        assert_eq!(machine("web-7f9c", 3), "web-7f9c-3");
    }
}
