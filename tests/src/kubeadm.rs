//! What clusters of kubeadm's have that our API server does not know.

use serde_json::{Value, json};

/// Definition of CertificateSigningRequest. Of its subresources there is `status`, which takes what `approval` takes.
pub fn certificate_requests() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "certificatesigningrequests.certificates.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes"},
        },
        "spec": {
            "group": "certificates.k8s.io", "scope": "Cluster",
            "names": {
                "kind": "CertificateSigningRequest", "listKind": "CertificateSigningRequestList",
                "plural": "certificatesigningrequests", "singular": "certificatesigningrequest", "shortNames": ["csr"],
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                            "properties": {"signerName": {"type": "string"}},
                        },
                        "status": any,
                    },
                }},
                "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.signerName"}],
            }],
        },
    })
}
