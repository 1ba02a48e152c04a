//! OpenAPI v3: a document for each group and version, made when it is first asked for.
//!
//! kubectl reads of it: the fields for `explain`; whether a kind takes strategic merge patches, and their merge keys;
//! and whether the server checks fields itself, without which every `create` and `apply` would be refused.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::{Map, Value, json};
use sha2::Digest;

use crate::core_schemas::{REF, definitions, name_of};
use crate::registry::{Kind, Registry, core};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// The document of one group and version.
#[derive(Debug)]
pub(crate) struct Document {
    body: Bytes,
    /// SHA-512 of the body: clients keep a document by it.
    hash: String,
}

/// Documents by path, such as `apis/apps/v1`.
pub(crate) type Documents = BTreeMap<String, Document>;

fn of_core() -> &'static Documents {
    static CORE: OnceLock<Documents> = OnceLock::new();
    CORE.get_or_init(|| documents(core().values()))
}

fn of_custom(registry: &Registry) -> &Documents {
    registry
        .documents
        .get_or_init(|| documents(registry.custom.values()))
}

fn documents<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>>) -> Documents {
    let mut groups: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
    for kind in kinds {
        groups.entry(root_of(kind)).or_default().push(kind);
    }
    groups
        .into_iter()
        .map(|(path, kinds)| {
            let body = document(&kinds).to_string();
            let hash = sha2::Sha512::digest(&body)
                .iter()
                .map(|byte| format!("{byte:02X}"))
                .collect();
            let body = body.into();
            (path, Document { body, hash })
        })
        .collect()
}

/// Answers `/openapi/v3` and what is below it.
pub(crate) fn answer(registry: &Registry, rest: &[&str], parts: &Parts) -> Option<Response<Body>> {
    let (core, custom) = (of_core(), of_custom(registry));
    if rest.is_empty() {
        let paths: Map<String, Value> = core
            .iter()
            .chain(custom)
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({ "serverRelativeURL": url }))
            })
            .collect();
        let mut response = crate::error::respond(200, &json!({ "paths": paths }));
        // kube-apiserver says so of its index.
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        return Some(response);
    }
    let path = rest.join("/");
    let document = core.get(&path).or_else(|| custom.get(&path))?;
    Some(document.answer(parts))
}

/// Answers `/openapi/v2`, which current clients ask only where the third version names no such kind: the document
/// names none, and they go on. In protobuf it is what such clients read: version, title and version of the API.
pub(crate) fn second(parts: &Parts) -> Response<Body> {
    let accept = parts.headers.get(header::ACCEPT);
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    if accept.is_none_or(|a| a.as_bytes() != protobuf.as_bytes()) {
        let about = json!({"title": "Kubernetes", "version": crate::VERSION});
        return crate::error::respond(
            200,
            &json!({"swagger": "2.0", "info": about, "paths": {}, "definitions": {}}),
        );
    }
    let field = |number: u8, value: &[u8]| {
        // All of them are shorter than a length of one byte allows.
        let length = u8::try_from(value.len()).unwrap_or_default();
        [&[number << 3 | 2, length], value].concat()
    };
    let about = [field(1, b"Kubernetes"), field(2, crate::VERSION.as_bytes())].concat();
    let mut response =
        crate::error::bytes(200, [field(1, b"2.0"), field(2, &about)].concat().into());
    let kind =
        HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl Document {
    fn answer(&self, parts: &Parts) -> Response<Body> {
        let tag = format!("\"{}\"", self.hash);
        let known = parts.headers.get(header::IF_NONE_MATCH);
        let unchanged = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = crate::error::bytes(
            200,
            if unchanged {
                Bytes::new()
            } else {
                self.body.clone()
            },
        );
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        // The hash in the address names exactly this document.
        let asked = crate::request::Query::parse(parts.uri.query());
        let caching = if asked.get("hash") == self.hash {
            "public, immutable, max-age=31536000"
        } else {
            "no-cache, private"
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        response
    }
}

fn root_of(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn document(kinds: &[&Kind]) -> Value {
    let (mut schemas, mut paths) = (BTreeMap::new(), Map::new());
    for kind in kinds {
        let name = schema_name(kind);
        let mut schema = schema(kind, &name);
        schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        if !kind.review {
            schemas.insert(format!("{name}List"), list(kind, &name));
        }
        schemas.insert(name, schema);
        paths.extend(paths::of(kind));
    }
    let mut wanted = BTreeSet::new();
    for schema in schemas.values() {
        references(schema, &mut wanted);
    }
    references(&Value::Object(paths.clone()), &mut wanted);
    while let Some(name) = wanted.pop_first() {
        if let Some(found) = definitions().get(&name)
            && !schemas.contains_key(&name)
        {
            references(found, &mut wanted);
            schemas.insert(name, found.clone());
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": crate::VERSION},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {
            "BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}}},
    })
}

fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (field, value) in map {
                match value.as_str().and_then(|text| text.strip_prefix(REF)) {
                    Some(name) if field == "$ref" => drop(into.insert(name.to_owned())),
                    _ => references(value, into),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, into)),
        _ => {}
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REF}{name}")})
}

/// The name of a kind's schema: the group backwards for custom kinds.
fn schema_name(kind: &Kind) -> String {
    if !kind.custom {
        return name_of(&kind.group, &kind.version, &kind.kind);
    }
    let mut parts: Vec<&str> = kind.group.rsplit('.').collect();
    parts.extend([kind.version.as_str(), kind.kind.as_str()]);
    parts.join(".")
}

fn schema(kind: &Kind, name: &str) -> Value {
    if !kind.custom {
        return definitions().get(name).cloned().unwrap_or_default();
    }
    let Some(schema) = &kind.schema else {
        return json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    };
    let mut schema = schema.clone();
    let fields = &mut schema["properties"];
    fields["apiVersion"] = type_meta("apiVersion", "APIVersion");
    fields["kind"] = type_meta("kind", "Kind");
    let text = format!("Standard object's metadata. More info: {CONVENTIONS}#metadata");
    fields["metadata"] =
        json!({"description": text, "allOf": [reference(&format!("{META}.ObjectMeta"))]});
    schema
}

/// What every kind says of its own type.
fn type_meta(field: &str, word: &str) -> Value {
    let text = if field == "kind" {
        format!(
            "{word} is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: {CONVENTIONS}#types-kinds"
        )
    } else {
        format!(
            "{word} defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: {CONVENTIONS}#resources"
        )
    };
    json!({"description": text, "type": "string"})
}

fn list(kind: &Kind, name: &str) -> Value {
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.list_kind});
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": type_meta("apiVersion", "APIVersion"),
            "kind": type_meta("kind", "Kind"),
            "metadata": {
                "description": format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds"),
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
            "items": {
                "description": format!("List of {}. More info: {CONVENTIONS}", kind.plural),
                "type": "array",
                "items": reference(name),
            },
        },
        "x-kubernetes-group-version-kind": [gvk],
    })
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}
