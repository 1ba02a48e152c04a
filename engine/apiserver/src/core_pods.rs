//! What the server fills in of pods, beside the defaults of their types.

use serde_json::{Value, json};

/// How long a pod stays on a node that is not ready, or not reachable, when it does not say, in seconds.
const STAYS: i64 = 300;

/// Completes the spec of a pod, or of the template of one.
pub(crate) fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if container["imagePullPolicy"].is_null() && container.is_object() {
                let image = container["image"].as_str().unwrap_or_default();
                container["imagePullPolicy"] = pull_policy(image).into();
            }
        }
    }
    for (field, other) in [
        ("serviceAccountName", "serviceAccount"),
        ("serviceAccount", "serviceAccountName"),
    ] {
        if spec[field].is_null() && spec[other].is_string() {
            spec[field] = spec[other].clone();
        }
    }
    // Lists that are not given must not be left behind as null.
    if let Some(map) = spec.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// What is added to a pod that is made.
pub(crate) fn admit(spec: &mut Value) {
    tolerations(spec);
    for (field, value) in [
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        if spec[field].is_null() {
            spec[field] = value;
        }
    }
}

/// An image of the newest version is looked for each time.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let newest =
        !name.contains('@') && name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    if newest { "Always" } else { "IfNotPresent" }
}

fn tolerations(spec: &mut Value) {
    let mut list = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = |t: &Value| {
            let effect = t["effect"].as_str().unwrap_or_default();
            let named = t["key"].as_str().unwrap_or_default();
            let all = named.is_empty() && t["operator"] == "Exists";
            (all || named == key) && matches!(effect, "" | "NoExecute")
        };
        if !list.iter().any(tolerated) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": STAYS}));
        }
    }
    spec["tolerations"] = list.into();
}

/// The class of service that follows from what the containers ask for.
pub(crate) fn quality(spec: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            for resource in ["cpu", "memory"] {
                let (asked, most) = (
                    &container["resources"]["requests"][resource],
                    &container["resources"]["limits"][resource],
                );
                any |= !asked.is_null() || !most.is_null();
                all &= !most.is_null() && (asked.is_null() || asked == most);
            }
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_how_often_images_are_looked_for() {
        let table = [
            ("i", "Always"),
            ("r:5000/i", "Always"),
            ("i:latest", "Always"),
            ("i:v1", "IfNotPresent"),
            ("r:5000/i:v1", "IfNotPresent"),
            ("x@sha256:abc", "IfNotPresent"),
        ];
        for (image, want) in table {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }

    #[test]
    fn classes_of_service() {
        let of = |resources: Value| quality(&json!({"containers": [{"resources": resources}]}));
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(of(json!({"limits": both})), "Guaranteed");
        assert_eq!(
            of(json!({"limits": both, "requests": {"cpu": "500m"}})),
            "Burstable"
        );
    }
}
