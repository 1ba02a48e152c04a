//! CustomResourceDefinitions: what the server fills in, and the kinds that they make.

mod check;
mod names;
mod schema;

use std::sync::Arc;

use fleetwright_schema::Schema;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::object::{meta, strings, text};
use crate::registry::{Kind, Registry, slot};
use crate::{ApiServer, Error, Result};

/// Fills in a definition's defaults and status, and checks it; `live` is what it replaces.
pub(crate) fn complete(server: &ApiServer, crd: &mut Value, live: Option<&Value>) -> ApiResult<()> {
    let now = server.now();
    meta(crd).remove("namespace");
    if !crd["spec"]["names"].is_object() {
        crd["spec"] = match crd["spec"].take() {
            Value::Object(mut spec) => {
                spec.insert("names".to_owned(), json!({}));
                spec.into()
            }
            _ => json!({"names": {}}),
        };
    }
    let names = &mut crd["spec"]["names"];
    if let Some(kind) = names["kind"].as_str().map(str::to_owned) {
        if !names["singular"].is_string() {
            names["singular"] = kind.to_lowercase().into();
        }
        if !names["listKind"].is_string() {
            names["listKind"] = format!("{kind}List").into();
        }
    }
    let names = names.clone();
    if !crd["spec"]["conversion"].is_object() {
        crd["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let causes = check::faults(crd, live);
    if !causes.is_empty() {
        let (group, kind) = ("apiextensions.k8s.io", "CustomResourceDefinition");
        return Err(ApiError::invalid(group, kind, text(crd, "name"), &causes));
    }
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let stored = versions
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .next()
        .unwrap_or_default();
    let mut versions = strings(&crd["status"]["storedVersions"]);
    if let Some(stored) = stored.as_str()
        && !versions.iter().any(|v| v == stored)
    {
        versions.push(stored.to_owned());
    }
    let known = strings(&live.map_or(Value::Null, |l| l["status"]["storedVersions"].clone()));
    if versions.is_empty() {
        versions = known;
    }
    let name = text(crd, "name").to_owned();
    let before = &crd["status"];
    let (accepted, conflict) = names::accept(&names, &others(server, &name, &crd["spec"]));
    let conditions = names::conditions(&before["conditions"], conflict, &now);
    crd["status"] =
        json!({"conditions": conditions, "acceptedNames": accepted, "storedVersions": versions});
    Ok(())
}

/// The names that the other definitions of a group have.
fn others(server: &ApiServer, name: &str, spec: &Value) -> Vec<Value> {
    let prefix = crate::object::prefix("apiextensions.k8s.io", "customresourcedefinitions");
    let entries = server.0.store.range(&prefix, None, 0).0;
    let all = entries
        .into_iter()
        .filter_map(|entry| serde_json::from_slice::<Value>(&entry.value.bytes()).ok());
    all.filter(|other| text(other, "name") != name && other["spec"]["group"] == spec["group"])
        .map(|other| other["status"]["acceptedNames"].clone())
        .collect()
}

/// What a definition keeps itself for until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Notes in a definition that is deleted that its objects are deleted too; `begun` when that has begun.
pub(crate) fn terminate(crd: &mut Value, begun: bool, now: &str) {
    let (reason, message) = if begun {
        (
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        )
    } else {
        (
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        )
    };
    names::set(
        &mut crd["status"]["conditions"],
        "Terminating",
        "True",
        (reason, message),
        now,
    );
}

/// Makes the registry anew from the stored definitions.
pub(crate) fn reload(server: &ApiServer) -> Result<()> {
    let mut registry = Registry::default();
    let prefix = crate::object::prefix("apiextensions.k8s.io", "customresourcedefinitions");
    for entry in server.0.store.range(&prefix, None, 0).0 {
        let crd: Value = serde_json::from_slice(&entry.value.bytes())
            .map_err(|source| Error::Stored(entry.key.to_string(), source))?;
        if !names::are_served(&crd["status"]["conditions"]) {
            continue;
        }
        for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
            if version["served"] == true {
                let mut kind = kind(&crd["spec"], version);
                kind.terminating = crate::object::deleting(&crd);
                registry.custom.insert(slot(&kind), Arc::new(kind));
            }
        }
    }
    *server.0.registry.write() = Arc::new(registry);
    Ok(())
}

/// What is said of a deprecated version: the best one to go to is named, if it is a better one.
fn deprecation(spec: &Value, version: &str) -> String {
    use crate::discovery::Version;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
    let better = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["served"] == true && v["deprecated"] != true)
        .filter_map(|v| v["name"].as_str())
        .map(Version::of)
        .filter(|v| *v < Version::of(version))
        .min();
    let told = format!("{group}/{version} {kind} is deprecated");
    better.map_or(told.clone(), |v| {
        format!("{told}; use {group}/{} {kind}", v.name)
    })
}

fn kind(spec: &Value, version: &Value) -> Kind {
    let names = &spec["names"];
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let schema = version["schema"].get("openAPIV3Schema").cloned();
    let stored = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true && v["name"] != version["name"]);
    let kept = stored.and_then(|v| v["schema"].get("openAPIV3Schema"));
    let kept = kept.and_then(|schema| Schema::from_openapi(schema).ok());
    let storage = stored.map(|v| format!("{}/{}", name(&spec["group"]), name(&v["name"])));
    let deprecated = (version["deprecated"] == true).then(|| {
        let own = version["deprecationWarning"].as_str().map(str::to_owned);
        own.unwrap_or_else(|| deprecation(spec, &name(&version["name"])))
    });
    Kind {
        deprecated,
        storage,
        kept,
        terminating: false,
        group: name(&spec["group"]),
        version: name(&version["name"]),
        kind: name(&names["kind"]),
        list_kind: name(&names["listKind"]),
        plural: name(&names["plural"]),
        singular: name(&names["singular"]),
        short_names: strings(&names["shortNames"]),
        categories: strings(&names["categories"]),
        namespaced: spec["scope"] != "Cluster",
        status: version["subresources"]["status"].is_object(),
        scale: Some(version["subresources"]["scale"].clone()).filter(Value::is_object),
        generation: true,
        review: false,
        custom: true,
        selectable: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|f| name(&f["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        columns: version["additionalPrinterColumns"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
        compiled: schema
            .as_ref()
            .and_then(|s| Schema::from_openapi(s).ok())
            .unwrap_or_default()
            .into(),
        schema,
    }
}
