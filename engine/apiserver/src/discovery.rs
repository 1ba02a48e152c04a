//! What the server serves, as clients discover it.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Response, request::Parts};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::error::{ApiError, respond};
use crate::registry::Kind;

/// Answers the paths of discovery.
pub(crate) fn answer(server: &ApiServer, path: &str, parts: &Parts) -> Option<Response<Body>> {
    let accept = parts
        .headers
        .get("accept")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    if !matches!(
        segments.as_slice(),
        ["api" | "apis"] | ["api" | "apis", _] | ["apis", _, _] | ["openapi", ..]
    ) {
        return None;
    }
    let served = |part: &str| {
        let media = part.split(';').next().unwrap_or_default().trim();
        let form = part.contains("as=");
        matches!(
            media,
            "" | "application/json"
                | "application/*"
                | "*/*"
                | "application/vnd.kubernetes.protobuf"
        ) && (!form || part.contains("v=v2") && !part.contains("v=v2beta1"))
    };
    if segments.first() != Some(&"openapi") && !accept.split(',').any(served) {
        return Some(ApiError::not_acceptable(ApiError::MEDIA_TYPES).response());
    }
    let registry = server.kinds();
    // The groups of custom kinds answer whatever they are asked by.
    let custom = |group: &&str| registry.custom.values().any(|kind| kind.group == **group);
    let plain =
        !matches!(segments.as_slice(), ["openapi", ..]) && !segments.get(1).is_some_and(custom);
    if plain && parts.method != http::Method::GET {
        return Some(ApiError::method().response());
    }
    let mut groups: BTreeMap<&str, Versions<'_>> = BTreeMap::new();
    for kind in registry.all() {
        groups
            .entry(&kind.group)
            .or_default()
            .entry(Version::of(&kind.version))
            .or_default()
            .push(kind);
    }
    let versions = |group: &str| groups.get(group);
    // The first version of this form is what older clients know, and they go on without it.
    let aggregated = accept.split(',').any(|part| {
        let has = |word| part.split(';').any(|w| w.trim() == word);
        has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    });
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
        ["api", version] => resources("", version, versions("")?.get(&Version::of(version))?),
        ["apis", name, version] => {
            resources(name, version, versions(name)?.get(&Version::of(version))?)
        }
        ["openapi", "v2"] => return Some(crate::openapi::second(parts)),
        ["openapi", "v3", rest @ ..] => {
            return crate::openapi::answer(&registry, rest, parts);
        }
        _ => return None,
    };
    Some(respond(200, &value))
}

/// A version in the order of preference: stable ones, the newest first, then beta, then alpha, then others by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version<'a> {
    stage: u8,
    newest: std::cmp::Reverse<(u32, u32)>,
    pub(crate) name: &'a str,
}

/// The kinds of a group by version.
type Versions<'a> = BTreeMap<Version<'a>, Vec<&'a Kind>>;

impl<'a> Version<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        let (stage, major, minor) = Self::parse(name).unwrap_or((3, 0, 0));
        Self {
            stage,
            newest: std::cmp::Reverse((major, minor)),
            name,
        }
    }

    fn parse(name: &str) -> Option<(u8, u32, u32)> {
        let rest = name.strip_prefix('v')?;
        for (stage, word) in [(1, "beta"), (2, "alpha")] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some((stage, major.parse().ok()?, minor.parse().ok()?));
            }
        }
        Some((0, rest.parse().ok()?, 0))
    }
}

fn group(name: &str, versions: &Versions<'_>) -> Value {
    let list: Vec<Value> = versions
        .keys()
        .map(|v| v.name)
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

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match (kind.review, kind.custom) {
        (true, _) => &["create"],
        (_, true) => &CRD_VERBS,
        _ => &VERBS,
    }
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

fn aggregate(name: &str, versions: &Versions<'_>) -> Value {
    let versions: Vec<Value> = versions.iter().map(|(Version { name: version, .. }, kinds)| {
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

#[cfg(test)]
mod tests {
    #[test]
    fn versions_stand_in_the_order_of_preference() {
        let mut versions = [
            "v1alpha1", "foo", "v1", "v2beta1", "v10", "v2", "v2beta2", "v1x",
        ]
        .map(super::Version::of);
        versions.sort();
        let names = versions.map(|v| v.name);
        assert_eq!(
            names,
            [
                "v10", "v2", "v1", "v2beta2", "v2beta1", "v1alpha1", "foo", "v1x"
            ]
        );
    }
}
