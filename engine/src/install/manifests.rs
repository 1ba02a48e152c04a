//! What a Kubernetes gets from `fleetwright install`, as values.

use fleetwright_api::{GROUP, crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::upgrade::RELEASE;
use crate::leadership::LEASE;

/// Name of everything that is not a CustomResourceDefinition.
const NAME: &str = "fleetwright";
/// Port of webhooks, metrics and probes in the pod.
const PORT: u16 = 8080;
/// Folder of what was fetched; nothing in it has to last.
const CACHE: &str = "/var/cache/fleetwright";
/// A user that no image needs to know.
const USER: u32 = 65532;

/// What is chosen at the installation.
pub(crate) struct Choice<'a> {
    pub(crate) image: &'a str,
    pub(crate) namespace: &'a str,
}

/// Our definitions, marked with this release.
pub(crate) fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = crds::all();
    for crd in &mut all {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        crd.annotations_mut().insert(RELEASE.into(), release);
    }
    all
}

/// All other objects, in the order in which they need each other.
pub(crate) fn objects(choice: &Choice<'_>) -> Vec<Value> {
    let namespaced = |api_version: &str, kind: &str, more: Value| {
        object(api_version, kind, Some(choice.namespace), more)
    };
    let subject = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": choice.namespace}]);
    let rbac = "rbac.authorization.k8s.io";
    let reference = |kind: &str| json!({"apiGroup": rbac, "kind": kind, "name": NAME});
    let v1 = format!("{rbac}/v1");
    let selector = json!({"app.kubernetes.io/name": NAME});
    vec![
        namespace(choice.namespace),
        namespaced(
            "v1",
            "ServiceAccount",
            json!({"automountServiceAccountToken": false}),
        ),
        object(&v1, "ClusterRole", None, json!({"rules": cluster_rules()})),
        object(
            &v1,
            "ClusterRoleBinding",
            None,
            json!({"roleRef": reference("ClusterRole"), "subjects": subject}),
        ),
        namespaced(&v1, "Role", json!({"rules": lease_rules()})),
        namespaced(
            &v1,
            "RoleBinding",
            json!({"roleRef": reference("Role"), "subjects": subject}),
        ),
        namespaced(
            "v1",
            "Service",
            json!({"spec": {
                "selector": selector,
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            }}),
        ),
        namespaced(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": selector}}}),
        ),
        namespaced("apps/v1", "Deployment", deployment(choice.image, &selector)),
    ]
}

fn object(api_version: &str, kind: &str, namespace: Option<&str>, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": NAME, "labels": {
            "app.kubernetes.io/name": NAME,
            "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        }},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

fn namespace(name: &str) -> Value {
    let mut namespace = object("v1", "Namespace", None, json!({}));
    namespace["metadata"]["name"] = name.into();
    // What runs here keeps to the strictest of the Pod Security Standards.
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted".into();
    namespace
}

/// What the engine does in all namespaces: no more than a run needs, which a test watches.
fn cluster_rules() -> Value {
    json!([
        {
            // Clusters and pools come from Git and go with it; sets and Machines are made for them.
            "apiGroups": [GROUP],
            "resources": [
                "clusters", "machinedeployments", "machinesets", "machines", "machinehealthchecks", "machinedrainrules",
            ],
            "verbs": ["list", "watch", "create", "patch", "delete"],
        },
        {
            "apiGroups": [GROUP],
            "resources": [
                "clusters", "machinedeployments", "machinesets", "machines", "machinehealthchecks", "machinedrainrules",
            ],
            "verbs": ["get"],
        },
        {"apiGroups": [GROUP], "resources": ["fleets"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [GROUP], "resources": ["provideraccounts"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [GROUP],
            "resources": ["commitstatuses"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        {
            // Machines that are ordered of others. What becomes of an order is theirs to write.
            "apiGroups": [GROUP],
            "resources": ["externalinstances"],
            "verbs": ["get", "list", "create", "patch", "delete"],
        },
        {
            "apiGroups": [GROUP],
            "resources": [
                "clusters/status", "machinedeployments/status", "machinesets/status", "machines/status",
                "machinehealthchecks/status", "fleets/status", "commitstatuses/status", "provideraccounts/status",
            ],
            "verbs": ["patch"],
        },
        {
            // Owners that their dependents hold up, where the server asks for this right.
            "apiGroups": [GROUP],
            "resources": [
                "clusters/finalizers", "machinedeployments/finalizers", "machinesets/finalizers", "fleets/finalizers",
            ],
            "verbs": ["update"],
        },
        {
            // What else Git may hold. A namespace is never deleted.
            "apiGroups": [""],
            "resources": ["namespaces"],
            "verbs": ["get", "list", "create", "patch"],
        },
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["get", "list", "create", "patch", "delete"],
        },
        {
            // That machines drift, and no longer.
            "apiGroups": ["events.k8s.io"],
            "resources": ["events"],
            "verbs": ["create"],
        },
        {
            // Tokens that Fleets name are read; the kubeconfig of each cluster is stored, and user data until a machine has joined.
            "apiGroups": [""],
            "resources": ["secrets"],
            "verbs": ["get", "create", "patch", "delete"],
        },
    ])
}

/// The Lease; to make one, its name cannot be asked for.
fn lease_rules() -> Value {
    let group = "coordination.k8s.io";
    json!([
        {"apiGroups": [group], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": [group],
            "resources": ["leases"],
            "resourceNames": [LEASE],
            "verbs": ["get", "list", "watch", "update"],
        },
    ])
}

fn deployment(image: &str, selector: &Value) -> Value {
    let probe =
        |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 3});
    let container = json!({
        "name": NAME,
        "image": image,
        "args": ["up", "--data", CACHE, "--http-listen", format!("0.0.0.0:{PORT}")],
        "ports": [{"name": "http", "containerPort": PORT}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    });
    let elsewhere = json!({
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": selector},
        },
    });
    json!({"spec": {
        // One works, the other takes over.
        "replicas": 2,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": selector},
            "spec": {
                "serviceAccountName": NAME,
                "automountServiceAccountToken": true,
                "terminationGracePeriodSeconds": 10,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": USER,
                    "runAsGroup": USER,
                    "fsGroup": USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [elsewhere]}},
                "containers": [container],
                "volumes": [
                    {"name": "cache", "emptyDir": {}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        },
    }})
}
