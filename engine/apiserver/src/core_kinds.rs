//! The kinds that every server has.

use fleetwright_schema::Schema;

use crate::registry::Kind;

/// Group, version, kind, plural, short names, namespaced, status subresource, generation, selectable fields.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    bool,
    bool,
    bool,
    &'static [&'static str],
);

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "reason",
    "type",
    "reportingComponent",
];

const ROWS: &[Row] = &[
    (
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        &["cm"],
        true,
        false,
        false,
        &[],
    ),
    (
        "",
        "v1",
        "Event",
        "events",
        &["ev"],
        true,
        false,
        false,
        EVENT_FIELDS,
    ),
    (
        "",
        "v1",
        "Namespace",
        "namespaces",
        &["ns"],
        false,
        true,
        false,
        &["status.phase"],
    ),
    (
        "",
        "v1",
        "Node",
        "nodes",
        &["no"],
        false,
        true,
        false,
        &["spec.unschedulable"],
    ),
    (
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        &["pv"],
        false,
        true,
        false,
        &[],
    ),
    (
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        true,
        true,
        false,
        &[],
    ),
    (
        "",
        "v1",
        "Pod",
        "pods",
        &["po"],
        true,
        true,
        true,
        &["spec.nodeName", "status.phase", "spec.restartPolicy"],
    ),
    (
        "",
        "v1",
        "Secret",
        "secrets",
        &[],
        true,
        false,
        false,
        &["type"],
    ),
    (
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        &["sa"],
        true,
        false,
        false,
        &[],
    ),
    (
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        &["ds"],
        true,
        true,
        true,
        &[],
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        false,
        true,
        true,
        &[],
    ),
    (
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        &[],
        true,
        false,
        false,
        &[],
    ),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        &["pdb"],
        true,
        true,
        true,
        &[],
    ),
    (
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        &[],
        false,
        true,
        false,
        &[],
    ),
];

/// All of them.
pub(crate) fn all() -> Vec<Kind> {
    ROWS.iter()
        .map(
            |(group, version, kind, plural, short, namespaced, status, generation, fields)| {
                let schema = crate::core_schemas::of(kind);
                let compiled = schema
                    .as_ref()
                    .and_then(|s| Schema::from_openapi(s).ok())
                    .unwrap_or_default();
                Kind {
                    group: (*group).to_owned(),
                    version: (*version).to_owned(),
                    kind: (*kind).to_owned(),
                    list_kind: format!("{kind}List"),
                    plural: (*plural).to_owned(),
                    singular: kind.to_lowercase(),
                    short_names: short.iter().map(|s| (*s).to_owned()).collect(),
                    namespaced: *namespaced,
                    status: *status,
                    generation: *generation,
                    selectable: fields.iter().map(|s| (*s).to_owned()).collect(),
                    schema,
                    compiled,
                    ..Kind::default()
                }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_schema_of_a_core_kind_compiles() {
        for kind in super::all().iter().filter_map(|k| k.schema.as_ref()) {
            if let Err(errors) = fleetwright_schema::Schema::from_openapi(kind) {
                panic!("{errors:?}");
            }
        }
        let pod = super::all().into_iter().find(|k| k.kind == "Pod").unwrap();
        let ports = pod.compiled.at(&["spec", "containers"]).unwrap();
        assert_eq!(ports.patch.merge_key.as_deref(), Some("name"));
    }
}
