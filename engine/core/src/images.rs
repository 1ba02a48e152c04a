//! Which images machines boot from, and what is asked of the providers before an upgrade begins.

use fleetwright_api::{Cluster, MachineDeployment, ProviderConfig, version::Version};
use serde_json::Value;

use crate::{
    catalogue::Catalogue,
    upgrade::{Blocker, Path},
};

/// What a provider needs to know to say whether there is an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// Name of the account.
    pub account: String,
    /// Kubernetes version.
    pub version: String,
    /// The effective `providerConfig`, as JSON.
    config: String,
}

impl Image {
    /// That of machines with these settings and this version.
    pub fn of(written: &ProviderConfig, version: &str, catalogue: &Catalogue) -> Self {
        Self {
            account: written.account().to_owned(),
            version: version.to_owned(),
            config: catalogue.effective(written).to_value().to_string(),
        }
    }

    /// The effective `providerConfig`.
    pub fn config(&self) -> Value {
        serde_json::from_str(&self.config).unwrap_or_default()
    }
}

/// That machines cannot be made from an image, or that nobody can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Path of the field in the `providerConfig` that asks for what there is none of, such as `image`; `None` where the provider cannot say
    /// whether there is.
    pub field: Option<String>,
    /// Why, in the provider's words.
    pub why: String,
}

/// An image on the way of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnTheWay {
    /// The version.
    pub version: Version,
    /// The pool whose machines boot from it; `None` for the control plane.
    pub pool: Option<String>,
    /// The image.
    pub image: Image,
}

impl OnTheWay {
    /// That it is missing, in the provider's words.
    #[must_use]
    pub fn missing(self, why: String) -> Blocker {
        let of = self.pool.map_or_else(
            || "the control plane".to_owned(),
            |name| format!("pool {name}"),
        );
        let version = self.version;
        Blocker::Image { version, of, why }
    }
}

/// The images that an upgrade of the control plane and of the pools that follow it passes through.
pub fn on_the_way(
    cluster: &Cluster,
    pools: &[MachineDeployment],
    path: &Path,
    catalogue: &Catalogue,
) -> Vec<OnTheWay> {
    let form = &cluster.spec.control_plane;
    let config = match (&form.machines, &form.managed) {
        (Some(machines), _) => &machines.template.spec.provider_config,
        (None, Some(managed)) => &managed.provider_config,
        (None, None) => return Vec::new(),
    };
    let one = |config: &ProviderConfig, version: &Version, pool: Option<&str>| OnTheWay {
        image: Image::of(config, &version.to_string(), catalogue),
        version: version.clone(),
        pool: pool.map(str::to_owned),
    };
    let control_plane = path.control_plane();
    let mut out: Vec<OnTheWay> = control_plane
        .map(|version| one(config, version, None))
        .collect();
    for pool in pools {
        let spec = &pool.spec.template.spec;
        let stays = spec.version.is_some() || pool.metadata.deletion_timestamp.is_some();
        if stays || pool.spec.replicas == Some(0) {
            continue;
        }
        let name = pool.metadata.name.as_deref();
        out.extend(path.workers().map(|v| one(&spec.provider_config, v, name)));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upgrade::Step;

    #[test]
    fn the_control_plane_comes_first_and_pools_that_stay_are_left_out() {
        let config = |size: u32| json!({"account": "x", "size": size});
        let cluster: Cluster = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"version": "v1.35.0", "controlPlane": {"machines": {"template": {"spec": {"providerConfig": config(1)}}}}},
        }))
        .unwrap();
        let pool = |name: &str, replicas: u32, version: Option<&str>| -> MachineDeployment {
            let mut spec = json!({"providerConfig": config(2)});
            if let Some(version) = version {
                spec["version"] = json!(version);
            }
            serde_json::from_value(json!({
                "metadata": {"name": name},
                "spec": {"clusterName": "a", "replicas": replicas, "template": {"spec": spec}},
            }))
            .unwrap()
        };
        let version = |text: &str| text.parse::<Version>().unwrap();
        let path = Path {
            from: version("v1.33.2"),
            steps: vec![
                Step::ControlPlane(version("v1.34.0")),
                Step::ControlPlane(version("v1.35.0")),
                Step::Workers(version("v1.35.0")),
            ],
        };
        let pools = [
            pool("empty", 0, None),
            pool("pinned", 1, Some("v1.33.0")),
            pool("web", 1, None),
        ];
        let found = on_the_way(&cluster, &pools, &path, &Catalogue::default());
        let told: Vec<String> = found
            .iter()
            .map(|w| {
                let of = w.pool.as_deref().unwrap_or("control plane");
                format!("{of} {} {}", w.image.version, w.image.config()["size"])
            })
            .collect();
        assert_eq!(
            told,
            [
                "control plane v1.34.0 1",
                "control plane v1.35.0 1",
                "web v1.35.0 2"
            ]
        );
    }
}
