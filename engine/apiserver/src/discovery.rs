//! What the server serves, as clients discover it.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Response, request::Parts};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::error::respond;
use crate::registry::Kind;

/// Answers the paths of discovery.
pub(crate) fn answer(server: &ApiServer, path: &str, parts: &Parts) -> Option<Response<Body>> {
    // Most requests are about objects: the kinds are not grouped for them.
    if crate::request::Target::parse(path).is_some() {
        return None;
    }
    let registry = server.kinds();
    let accept = parts
        .headers
        .get("accept")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    // Group, then versions, then kinds.
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<&Kind>>> = BTreeMap::new();
    for kind in registry.all() {
        groups
            .entry(&kind.group)
            .or_default()
            .entry(&kind.version)
            .or_default()
            .push(kind);
    }
    let aggregated = accept.contains("as=APIGroupDiscoveryList");
    let value = match segments.as_slice() {
        ["api"] | ["apis"] if aggregated => {
            let core = segments == ["api"];
            let items: Vec<Value> = groups
                .iter()
                .filter(|(g, _)| g.is_empty() == core)
                .map(|(g, versions)| aggregate(g, versions))
                .collect();
            let mut response = respond(
                200,
                &json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}),
            );
            let kind = http::HeaderValue::from_static(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            );
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            return Some(response);
        }
        ["api"] => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        ["apis"] => {
            let list: Vec<Value> = groups
                .iter()
                .filter(|(g, _)| !g.is_empty())
                .map(|(g, v)| group(g, v))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
        }
        ["apis", name] => {
            let mut value = group(name, groups.get(name)?);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ["api", version] => resources("", version, groups.get("")?.get(version)?),
        ["apis", name, version] => resources(name, version, groups.get(name)?.get(version)?),
        ["openapi", "v3"] => {
            let paths: serde_json::Map<String, Value> = groups
                .iter()
                .flat_map(|(g, vs)| {
                    vs.keys().map(move |v| {
                        if g.is_empty() {
                            format!("api/{v}")
                        } else {
                            format!("apis/{g}/{v}")
                        }
                    })
                })
                .map(|p| {
                    (
                        p.clone(),
                        json!({"serverRelativeURL": format!("/openapi/v3/{p}")}),
                    )
                })
                .collect();
            json!({"paths": paths})
        }
        ["openapi", "v3", "api", version] => openapi("", version, groups.get("")?.get(version)?),
        ["openapi", "v3", "apis", name, version] => {
            openapi(name, version, groups.get(name)?.get(version)?)
        }
        _ => return None,
    };
    Some(respond(200, &value))
}

fn group(name: &str, versions: &BTreeMap<&str, Vec<&Kind>>) -> Value {
    let list: Vec<Value> = versions
        .keys()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CRD_VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

fn verbs(kind: &Kind) -> [&'static str; 8] {
    if kind.custom { CRD_VERBS } else { VERBS }
}

fn resources(name: &str, version: &str, kinds: &[&Kind]) -> Value {
    let mut list = Vec::new();
    for kind in kinds {
        let mut entry = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": verbs(kind)});
        if !kind.short_names.is_empty() {
            entry["shortNames"] = kind.short_names.clone().into();
        }
        if !kind.categories.is_empty() {
            entry["categories"] = kind.categories.clone().into();
        }
        list.push(entry);
        let sub = |sub: &str, group: &str, version: &str, of: &str, verbs: &[&str]| {
            let mut entry = json!({"name": format!("{}/{sub}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": of, "verbs": verbs});
            if !group.is_empty() {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            entry
        };
        if kind.status {
            list.push(sub(
                "status",
                "",
                "",
                &kind.kind,
                &["get", "patch", "update"],
            ));
        }
        if kind.scale.is_some() {
            list.push(sub(
                "scale",
                "autoscaling",
                "v1",
                "Scale",
                &["get", "patch", "update"],
            ));
        }
        if kind.group.is_empty() && kind.plural == "pods" {
            list.push(sub("eviction", "policy", "v1", "Eviction", &["create"]));
        }
    }
    let group_version = if name.is_empty() {
        version.to_owned()
    } else {
        format!("{name}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn aggregate(name: &str, versions: &BTreeMap<&str, Vec<&Kind>>) -> Value {
    let versions: Vec<Value> = versions.iter().map(|(version, kinds)| {
        let list: Vec<Value> = kinds.iter().map(|kind| {
            let response = json!({"group": name, "version": version, "kind": kind.kind});
            let mut subs = Vec::new();
            if kind.scale.is_some() {
                subs.push(json!({"subresource": "scale", "verbs": ["get", "patch", "update"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}));
            }
            if kind.status {
                subs.push(json!({"subresource": "status", "verbs": ["get", "patch", "update"], "responseKind": response}));
            }
            let mut entry = json!({"resource": kind.plural, "singularResource": kind.singular, "verbs": verbs(kind),
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "responseKind": response});
            for (field, value) in [("shortNames", Value::from(kind.short_names.clone())), ("categories", kind.categories.clone().into()), ("subresources", subs.into())] {
                if value.as_array().is_some_and(|a| !a.is_empty()) {
                    entry[field] = value;
                }
            }
            entry
        }).collect();
        json!({"version": version, "freshness": "Current", "resources": list})
    }).collect();
    let mut metadata = json!({"creationTimestamp": null});
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    json!({"metadata": metadata, "versions": versions})
}

fn openapi(name: &str, version: &str, kinds: &[&Kind]) -> Value {
    let reversed: Vec<&str> = name.split('.').rev().filter(|p| !p.is_empty()).collect();
    let mut schemas = serde_json::Map::new();
    for kind in kinds {
        let id = if name.is_empty() {
            format!("io.k8s.api.core.{version}.{}", kind.kind)
        } else {
            format!("{}.{version}.{}", reversed.join("."), kind.kind)
        };
        let mut schema = kind
            .schema
            .clone()
            .unwrap_or_else(|| json!({"type": "object"}));
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": name, "version": version, "kind": kind.kind}]);
        schemas.insert(id, schema);
    }
    json!({"openapi": "3.0.0", "info": {"title": "Fleetwright", "version": "v1"}, "paths": {}, "components": {"schemas": schemas}})
}
