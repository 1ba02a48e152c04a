//! The kinds that every server has.

use fleetwright_schema::Schema;
use serde_json::{Value, json};

use crate::core_schemas;
use crate::registry::Kind;

/// What an object of one of these kinds may be selected by, beside name and namespace.
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

fn namespaced(group: &str, kind: &str, plural: &str) -> Kind {
    Kind {
        namespaced: true,
        ..cluster(group, kind, plural)
    }
}

fn cluster(group: &str, kind: &str, plural: &str) -> Kind {
    Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        ..Kind::default()
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|s| (*s).to_owned()).collect()
}

impl Kind {
    fn short(mut self, names: &[&str]) -> Self {
        self.short_names = owned(names);
        self
    }

    fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    fn with_generation(mut self) -> Self {
        self.generation = true;
        self
    }

    fn select(mut self, fields: &[&str]) -> Self {
        self.selectable = owned(fields);
        self
    }

    fn within(mut self, categories: &[&str]) -> Self {
        self.categories = owned(categories);
        self
    }

    fn stored_in(mut self, version: &str) -> Self {
        self.storage = Some(version.to_owned());
        self
    }

    fn review(mut self) -> Self {
        self.review = true;
        self
    }
}

/// What an object of a kind says although nothing was said of it: these fields are nobody's.
pub(crate) fn blank(kind: &str) -> Value {
    match kind {
        "CustomResourceDefinition" => json!({
            "spec": {"group": "", "names": {"plural": "", "kind": ""}, "scope": "", "versions": null},
            "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null}}),
        "DaemonSet" => json!({
            "spec": {"selector": null, "template": {"metadata": {}, "spec": {"containers": null}}, "updateStrategy": {}},
            "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}}),
        "Event" => json!({
            "involvedObject": {}, "source": {}, "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
            "reportingComponent": "", "reportingInstance": "", "regarding": {}, "deprecatedSource": {},
            "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null}),
        "Lease" | "Namespace" | "PersistentVolume" | "SelfSubjectAccessReview" => {
            json!({"spec": {}, "status": {}})
        }
        "Node" => json!({"spec": {}, "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                "architecture": ""}}}),
        "PersistentVolumeClaim" => json!({"spec": {"resources": {}}, "status": {}}),
        "Pod" => json!({"spec": {"containers": null}, "status": {}}),
        "PodDisruptionBudget" => json!({"spec": {}, "status": {
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}}),
        "Service" => json!({"spec": {}, "status": {"loadBalancer": {}}}),
        "VolumeAttachment" => json!({
            "spec": {"attacher": "", "source": {}, "nodeName": ""}, "status": {"attached": false}}),
        _ => json!({}),
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        namespaced("", "ConfigMap", "configmaps").short(&["cm"]),
        namespaced("", "Event", "events")
            .short(&["ev"])
            .select(EVENT_FIELDS),
        cluster("", "Namespace", "namespaces")
            .short(&["ns"])
            .with_status()
            .select(&["status.phase"]),
        cluster("", "Node", "nodes")
            .short(&["no"])
            .with_status()
            .select(&["spec.unschedulable"]),
        cluster("", "PersistentVolume", "persistentvolumes")
            .short(&["pv"])
            .with_status(),
        namespaced("", "PersistentVolumeClaim", "persistentvolumeclaims")
            .short(&["pvc"])
            .with_status(),
        namespaced("", "Pod", "pods")
            .short(&["po"])
            .within(&["all"])
            .with_status()
            .with_generation()
            .select(POD_FIELDS),
        namespaced("", "Secret", "secrets").select(&["type"]),
        namespaced("", "Service", "services")
            .short(&["svc"])
            .within(&["all"])
            .with_status()
            .select(&["spec.clusterIP", "spec.type"]),
        namespaced("", "ServiceAccount", "serviceaccounts").short(&["sa"]),
        namespaced("apps", "DaemonSet", "daemonsets")
            .short(&["ds"])
            .within(&["all"])
            .with_status()
            .with_generation(),
        cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .short(&["crd", "crds"])
        .within(&["api-extensions"])
        .with_status()
        .with_generation(),
        cluster(
            "authentication.k8s.io",
            "SelfSubjectReview",
            "selfsubjectreviews",
        )
        .review(),
        cluster(
            "authorization.k8s.io",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
        )
        .review(),
        cluster(
            "authorization.k8s.io",
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
        )
        .review(),
        namespaced("coordination.k8s.io", "Lease", "leases"),
        namespaced("events.k8s.io", "Event", "events")
            .short(&["ev"])
            .select(NEW_EVENT_FIELDS)
            .stored_in("v1"),
        namespaced("policy", "PodDisruptionBudget", "poddisruptionbudgets")
            .short(&["pdb"])
            .with_status()
            .with_generation(),
        cluster("storage.k8s.io", "VolumeAttachment", "volumeattachments").with_status(),
    ]
}

/// The schema of a core kind; `None` of definitions of custom kinds, which describe schemas, and so refer to themselves.
pub(crate) fn compile(kind: &Kind) -> Option<Schema> {
    if kind.kind == "CustomResourceDefinition" {
        return None;
    }
    let name = core_schemas::name_of(&kind.group, &kind.version, &kind.kind);
    Schema::from_openapi(&core_schemas::inlined(&name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::core_schemas::{inlined, name_of};

    #[test]
    fn every_schema_of_a_core_kind_compiles() {
        for kind in super::all() {
            if kind.kind == "CustomResourceDefinition" {
                continue;
            }
            let name = name_of(&kind.group, &kind.version, &kind.kind);
            let schema = inlined(&name).unwrap_or_else(|| panic!("{name} is not defined"));
            if let Err(errors) = fleetwright_schema::Schema::from_openapi(&schema) {
                panic!("{name}: {errors:?}");
            }
        }
        let pod = super::all().into_iter().find(|k| k.kind == "Pod").unwrap();
        let ports = pod.compiled().at(&["spec", "containers"]).unwrap();
        assert_eq!(ports.patch.merge_key.as_deref(), Some("name"));
    }
}
