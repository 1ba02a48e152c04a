//! All our CustomResourceDefinitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The CustomResourceDefinitions of all our kinds, sorted by name.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        crate::Cluster::crd(),
        crate::CommitStatus::crd(),
        crate::Fleet::crd(),
        crate::Machine::crd(),
        crate::MachineDeployment::crd(),
        crate::MachineSet::crd(),
        crate::ProviderAccount::crd(),
    ];
    crds.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    crds
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_has_a_structural_schema_with_our_markers() {
        let crds = super::all();
        assert_eq!(crds.len(), 7);
        let text = serde_json::to_string(&crds).unwrap();
        for marker in [
            "x-kubernetes-list-map-keys",
            "x-kubernetes-validations",
            "\"default\":1800",
            "\"md\"",
            "labelSelectorPath",
        ] {
            assert!(text.contains(marker), "{marker} is missing");
        }
        for wrong in ["$ref", "\"definitions\"", "oneOf"] {
            assert!(!text.contains(wrong), "{wrong} is there");
        }
    }
}
