//! What kubeadm installed in a cluster beside its control plane (kube-proxy, CoreDNS, its own configuration), which follows the control
//! plane's version minor by minor.

use fleetwright_api::{Machine, version::Version};

use crate::{
    control_plane::machine_version,
    upgrade::{Blocker, Path},
};

/// How far it has followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addons {
    /// It is what the control plane's version comes with.
    UpToDate,
    /// All but what is left to people; what that is, and what they can do.
    LeftAlone(String),
    /// It has not followed yet, and why.
    Behind(String),
}

/// What holds the next minor version back: what kubeadm installed has not followed to this one. A step that has begun is not held up,
/// and neither is one that people are asked to do something for: versions of kube-proxy and of the DNS may differ for a while.
pub fn blocker(addons: &Addons, path: &Path, machines: &[Machine]) -> Option<Blocker> {
    let Addons::Behind(why) = addons else {
        return None;
    };
    let minor = |version: &Version| (version.major(), version.minor());
    let running = &path.from;
    let next = path.control_plane().next()?;
    let alive = machines
        .iter()
        .filter(|m| m.metadata.deletion_timestamp.is_none());
    let begun = || {
        let mut versions = alive.filter_map(machine_version);
        versions.any(|version| minor(&version) > minor(running))
    };
    (minor(next) > minor(running) && !begun()).then(|| Blocker::Addons {
        running: running.clone(),
        why: why.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upgrade::path;

    #[test]
    fn the_next_minor_waits_for_what_belongs_to_this_one() {
        let behind = || Addons::Behind("no answer".into());
        let left = || Addons::LeftAlone("its image is pinned".into());
        let machine = |version: &str, leaves: bool| -> Machine {
            let mut machine = json!({
                "metadata": {"name": version},
                "spec": {"clusterName": "eu", "version": version, "providerConfig": {}},
            });
            if leaves {
                machine["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(machine).unwrap()
        };
        let now = || machine("v1.33.2", false);
        for (addons, wanted, machines, held) in [
            (behind(), "v1.34.0", vec![now()], true),
            (behind(), "v1.35.0", vec![now()], true),
            (Addons::UpToDate, "v1.34.0", vec![now()], false),
            (left(), "v1.34.0", vec![now()], false),
            // Within a minor nothing waits, and where nothing is to come neither.
            (behind(), "v1.33.9", vec![now()], false),
            (behind(), "v1.33.2", vec![now()], false),
            // It has begun: to go back would take longer.
            (
                behind(),
                "v1.34.0",
                vec![now(), machine("v1.34.0", false)],
                false,
            ),
            (
                behind(),
                "v1.34.0",
                vec![now(), machine("v1.34.0", true)],
                true,
            ),
        ] {
            let v = |text: &str| text.parse::<Version>().unwrap();
            let path = path(&v("v1.33.2"), &v(wanted), &[], None).unwrap();
            let blocker = blocker(&addons, &path, &machines);
            let want = held.then(|| Blocker::Addons {
                running: v("v1.33.2"),
                why: "no answer".into(),
            });
            assert_eq!(blocker, want, "{addons:?} {wanted}");
        }
    }
}
