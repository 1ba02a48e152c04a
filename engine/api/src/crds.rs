//! All our CustomResourceDefinitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    ValidationRule,
};
use kube::CustomResourceExt;

/// The CustomResourceDefinitions of all our kinds, sorted by name.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        crate::Cluster::crd(),
        crate::CommitStatus::crd(),
        crate::ExternalInstance::crd(),
        crate::Fleet::crd(),
        crate::Machine::crd(),
        crate::MachineDeployment::crd(),
        crate::MachineDrainRule::crd(),
        crate::MachineHealthCheck::crd(),
        crate::MachineSet::crd(),
        crate::ProviderAccount::crd(),
    ];
    for (kind, longest) in LONGEST_NAMES {
        for crd in crds.iter_mut().filter(|c| c.spec.names.kind == *kind) {
            limit_name(crd, *longest);
        }
    }
    crds.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(root) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            refuse_null(root);
            // What a kind is, as `kubectl explain` begins with, is said on its spec.
            let spec = root.properties.as_ref().and_then(|p| p.get("spec"));
            root.description = spec.and_then(|s| s.description.clone());
        }
    }
    crds
}

/// Kinds whose names end up in label values or in names of others, and how long they may be. Those of MachineSets and Machines
/// are made by [`crate::names`], which cuts them.
const LONGEST_NAMES: &[(&str, usize)] = &[
    ("Cluster", crate::names::MAX_NAME),
    ("Fleet", 50),
    ("MachineDeployment", crate::names::MAX_NAME),
];

fn limit_name(crd: &mut CustomResourceDefinition, longest: usize) {
    let rule = ValidationRule {
        rule: format!("size(self.metadata.name) <= {longest}"),
        message: Some(format!(
            "a name has at most {longest} characters: choose a shorter one"
        )),
        ..ValidationRule::default()
    };
    for root in crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut())
    {
        let rules = root.x_kubernetes_validations.get_or_insert_default();
        rules.push(rule.clone());
    }
}

/// Takes `nullable` away everywhere: an explicit null then means "left out" and gets the default, as in
/// Kubernetes' own kinds, where optional fields are not nullable.
fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for child in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        refuse_null(child);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        refuse_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        refuse_null(values);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_has_a_structural_schema_with_our_markers() {
        let crds = super::all();
        assert_eq!(crds.len(), 10);
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
        for wrong in ["$ref", "\"definitions\"", "oneOf", "nullable"] {
            assert!(!text.contains(wrong), "{wrong} is there");
        }
    }
}
