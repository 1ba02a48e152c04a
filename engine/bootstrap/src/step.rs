//! What kubeadm leaves to others when control planes are replaced in place of being upgraded by `kubeadm upgrade`: the version in its
//! own configuration, and the images of kube-proxy and CoreDNS.
//!
//! Permissions need nothing: those that kubeadm gives its nodes have had the same names since long before v1.31, the first version
//! that nodes are made of.

pub mod corefile;

use fleetwright_api::version::Version;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, PodSpec},
};
use serde_json::{Map, Value, json};

use crate::{
    kubeadm::{LOCAL_KUBELET_GATE, LOCAL_KUBELET_MINOR},
    yaml,
};

/// CoreDNS of each minor version of Kubernetes 1, as kubeadm's constants have it.
const COREDNS: &[(u64, &str)] = &[
    (31, "v1.11.3"),
    (32, "v1.11.3"),
    (33, "v1.12.0"),
    (34, "v1.12.1"),
    (35, "v1.13.1"),
    (36, "v1.14.2"),
];
/// CoreDNS from which on no version reads a Corefile otherwise than the one before it.
const SAME_COREFILE_SINCE: semver::Version = semver::Version::new(1, 8, 0);

const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";
const KUBELET_CONFIGURATION: &str = "kubelet";

/// An object of namespace `kube-system` in the workload cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// ConfigMap `kubeadm-config`.
    KubeadmConfig,
    /// DaemonSet `kube-proxy`.
    KubeProxy,
    /// Deployment `coredns`.
    CoreDns,
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The object.
    pub object: Object,
    /// A strategic merge patch, which conflicts with what others wrote meanwhile.
    pub patch: Value,
    /// Why, in one sentence.
    pub because: String,
}

/// What is to be done after a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Changes, in any order; none when nothing is left to do.
    pub changes: Vec<Change>,
    /// What was left alone, and why, in a sentence each.
    pub left: Vec<String>,
}

/// kubeadm's configuration in the cluster cannot be read: nodes would join with another version than they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ConfigMap kube-system/kubeadm-config: {0}")]
pub struct StepError(String);

/// What the workload cluster has. Whatever is not there is left out: people do without kube-proxy, or bring another DNS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// ConfigMap `kubeadm-config`.
    pub kubeadm_config: ConfigMap,
    /// ConfigMap `kubelet-config`.
    pub kubelet_config: Option<ConfigMap>,
    /// DaemonSet `kube-proxy`.
    pub kube_proxy: Option<DaemonSet>,
    /// Deployment `coredns`.
    pub coredns: Option<Deployment>,
    /// ConfigMap `coredns`.
    pub coredns_config: Option<ConfigMap>,
}

/// Before the first control-plane machine of `version` is made: it runs the version that kubeadm's configuration names.
///
/// # Errors
/// [`StepError`].
pub fn before_step(
    kubeadm_config: &ConfigMap,
    version: &Version,
) -> Result<Option<Change>, StepError> {
    let mut configuration = cluster_configuration(kubeadm_config)?;
    let live = configuration["kubernetesVersion"]
        .as_str()
        .and_then(|text| text.parse::<Version>().ok())
        .ok_or_else(|| StepError("it names no kubernetesVersion".to_owned()))?;
    let mut because = Vec::new();
    if live < *version {
        configuration["kubernetesVersion"] = version.to_string().into();
        because.push(format!(
            "control-plane machines join with {version}, no longer with {live}"
        ));
    }
    // It is what kubeadm does by itself by now, and a later one would not know its name.
    let reached = live.max(version.clone());
    if reached.minor() >= LOCAL_KUBELET_MINOR
        && let Some(gates) = configuration["featureGates"].as_object_mut()
        && gates.remove(LOCAL_KUBELET_GATE).is_some()
    {
        let empty = gates.is_empty();
        because.push(format!(
            "kubeadm no longer needs the feature gate {LOCAL_KUBELET_GATE}"
        ));
        if empty && let Some(all) = configuration.as_object_mut() {
            all.remove("featureGates");
        }
    }
    if because.is_empty() {
        return Ok(None);
    }
    let text = yaml::documents(&[configuration])
        .map_err(|e| StepError(format!("its new content cannot be written: {e}")))?;
    let data = json!({"data": {CLUSTER_CONFIGURATION: text}});
    Ok(Some(Change {
        object: Object::KubeadmConfig,
        patch: locked(data, kubeadm_config.metadata.resource_version.as_deref()),
        because: because.join("; "),
    }))
}

/// After the last control-plane machine runs `version`. Asked again, it changes nothing.
///
/// # Errors
/// [`StepError`].
pub fn after_step(live: &Live, version: &Version) -> Result<Changes, StepError> {
    let mut changes = Changes::default();
    changes
        .changes
        .extend(before_step(&live.kubeadm_config, version)?);
    if let Some(kubelet_config) = &live.kubelet_config {
        changes.left.extend(kubelet(kubelet_config, version));
    }
    let configuration = cluster_configuration(&live.kubeadm_config)?;
    if let Some(proxy) = &live.kube_proxy {
        let pod = proxy
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref());
        let found = container_image(pod, "kube-proxy");
        match found.and_then(|image| retagged(image, &version.to_string())) {
            Ok(None) => {}
            Ok(Some(image)) => changes.changes.push(Change {
                object: Object::KubeProxy,
                because: format!("kube-proxy follows its API servers to {version}"),
                patch: container_patch(
                    "kube-proxy",
                    &image,
                    proxy.metadata.resource_version.as_deref(),
                ),
            }),
            Err(why) => changes.left.push(format!(
                "DaemonSet kube-proxy is left alone: {why}; give it the image of {version} by hand"
            )),
        }
    }
    if let Some(coredns) = &live.coredns {
        match coredns_image(
            coredns,
            live.coredns_config.as_ref(),
            &configuration,
            version,
        ) {
            Ok(None) => {}
            Ok(Some(image)) => changes.changes.push(Change {
                object: Object::CoreDns,
                because: format!("CoreDNS becomes the one that {version} comes with"),
                patch: container_patch(
                    "coredns",
                    &image,
                    coredns.metadata.resource_version.as_deref(),
                ),
            }),
            Err(why) => changes
                .left
                .push(format!("CoreDNS is left alone: {why}; upgrade it by hand")),
        }
    }
    Ok(changes)
}

fn cluster_configuration(kubeadm_config: &ConfigMap) -> Result<Value, StepError> {
    let text = kubeadm_config
        .data
        .as_ref()
        .and_then(|data| data.get(CLUSTER_CONFIGURATION))
        .ok_or_else(|| StepError(format!("it has no key {CLUSTER_CONFIGURATION}")))?;
    match serde_saphyr::from_str(text) {
        Ok(Value::Object(configuration)) => Ok(Value::Object(configuration)),
        Ok(_) => Err(StepError(format!("{CLUSTER_CONFIGURATION} is no mapping"))),
        Err(e) => Err(StepError(format!(
            "{CLUSTER_CONFIGURATION} is no YAML: {e}"
        ))),
    }
}

/// The kubelets' common configuration is the same in all versions that nodes are made of. Its feature gates come and go: a kubelet
/// does not start with one that it does not know.
fn kubelet(kubelet_config: &ConfigMap, version: &Version) -> Option<String> {
    let text = kubelet_config.data.as_ref()?.get(KUBELET_CONFIGURATION)?;
    let Ok(configuration) = serde_saphyr::from_str::<Value>(text) else {
        return Some(
            "ConfigMap kubelet-config is no YAML: no node can join until it is".to_owned(),
        );
    };
    let gates: Vec<&str> = configuration["featureGates"]
        .as_object()
        .map(|gates| gates.keys().map(String::as_str).collect())
        .unwrap_or_default();
    (!gates.is_empty()).then(|| {
        format!(
            "ConfigMap kubelet-config names feature gates ({}): kubelets of {version} start only if they know them; remove those that it does not know",
            gates.join(", ")
        )
    })
}

fn container_image<'a>(pod: Option<&'a PodSpec>, name: &str) -> Result<&'a str, String> {
    pod.into_iter()
        .flat_map(|pod| &pod.containers)
        .find(|container| container.name == name)
        .and_then(|container| container.image.as_deref())
        .ok_or_else(|| format!("it has no container {name}"))
}

/// `image` with `tag`, written with a `v` or without as it is now; nothing where it has that one or a newer one.
fn retagged(image: &str, tag: &str) -> Result<Option<String>, String> {
    if image.contains('@') {
        return Err(format!("its image is pinned by a digest ({image})"));
    }
    let (repository, live) = image
        .rsplit_once(':')
        .filter(|(_, live)| !live.contains('/'))
        .ok_or_else(|| format!("its image has no tag ({image})"))?;
    let (Some(from), Some(to)) = (tag_version(live), tag_version(tag)) else {
        return Err(format!("the tag of its image is no version ({image})"));
    };
    let prefix = if live.starts_with('v') { "v" } else { "" };
    Ok((from < to).then(|| format!("{repository}:{prefix}{to}")))
}

fn tag_version(tag: &str) -> Option<semver::Version> {
    semver::Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

fn coredns_image(
    deployment: &Deployment,
    config: Option<&ConfigMap>,
    configuration: &Value,
    version: &Version,
) -> Result<Option<String>, String> {
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let image = container_image(pod, "coredns")?;
    // Whoever told kubeadm which one, meant it.
    let tag = match configuration["dns"]["imageTag"].as_str() {
        Some(tag) => tag,
        None => COREDNS
            .iter()
            .find(|(minor, _)| version.major() == 1 && *minor == version.minor())
            .map(|(_, tag)| *tag)
            .ok_or_else(|| format!("which one {version} comes with is not known here"))?,
    };
    let Some(wanted) = retagged(image, tag)? else {
        return Ok(None);
    };
    let live = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    if tag_version(live).is_some_and(|live| live < SAME_COREFILE_SINCE) {
        return Err(format!(
            "{live} read its Corefile otherwise than {tag}: write it anew first"
        ));
    }
    let corefile = config
        .and_then(|config| config.data.as_ref()?.get("Corefile"))
        .ok_or("ConfigMap coredns has no Corefile")?;
    let unknown = corefile::unknown_plugins(corefile);
    if !unknown.is_empty() {
        return Err(format!(
            "its Corefile has plugins that {tag} may lack ({})",
            unknown.join(", ")
        ));
    }
    Ok(Some(wanted))
}

fn container_patch(name: &str, image: &str, resource_version: Option<&str>) -> Value {
    let container = json!({"name": name, "image": image});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    locked(patch, resource_version)
}

/// `patch`, only onto the version of the object that was looked at.
fn locked(mut patch: Value, resource_version: Option<&str>) -> Value {
    if let Some(version) = resource_version {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".to_owned(), version.into());
        patch["metadata"] = Value::Object(metadata);
    }
    patch
}

#[cfg(test)]
mod tests;
