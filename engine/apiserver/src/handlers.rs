//! One handler per verb.

mod create;
mod delete;
mod evict;
mod read;
mod update;
mod watch;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, request::Parts};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, respond};
use crate::registry::Kind;
use crate::request::{Query, Target};
use crate::{ApiServer, User};

/// What the handlers get.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) kind: &'a Kind,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a Query,
    pub(crate) content_type: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) body: Bytes,
}

pub(crate) async fn dispatch(
    server: &ApiServer,
    user: &User,
    parts: &Parts,
    body: Bytes,
) -> ApiResult<Response<Body>> {
    let query = Query::parse(parts.uri.query());
    let target = match parts.uri.path().trim_end_matches('/') {
        "/healthz" | "/livez" | "/readyz" => return Ok(Response::new(Body::from("ok"))),
        "/version" => {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0+fleetwright", "platform": "linux/amd64",
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc"});
            return Ok(respond(200, &version));
        }
        path => match crate::discovery::answer(server, path, parts) {
            Some(answer) => return Ok(answer),
            None => match Target::parse(path) {
                Some(target) => target,
                None => return Ok(page_not_found()),
            },
        },
    };
    if let Some(answer) = crate::auth::review(user, &target, &body) {
        return Ok(answer);
    }
    let kind = server
        .kinds()
        .find(&target.group, &target.version, &target.resource);
    let Some(kind) = kind else {
        // A group version that is not served at all is answered as the plain server behind it does.
        let registry = server.kinds();
        let served = registry
            .all()
            .any(|k| k.group == target.group && k.version == target.version);
        return if served {
            Err(ApiError::no_resource())
        } else {
            Ok(page_not_found())
        };
    };
    if kind.namespaced && target.namespace.is_empty() && !target.name.is_empty() {
        return Err(ApiError::no_resource());
    }
    if !kind.namespaced && !target.namespace.is_empty() {
        return Err(ApiError::no_resource());
    }
    let content_type = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map_or("application/json", |v| {
            v.split(';').next().unwrap_or(v).trim()
        });
    let call = Call {
        server,
        kind: &kind,
        target: &target,
        query: &query,
        content_type,
        agent: parts
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .map_or("unknown", |v| v.split('/').next().unwrap_or(v)),
        body,
    };
    let dry = call.query.get("dryRun");
    if !dry.is_empty() && dry != "All" {
        let cause = crate::error::Cause::new(
            "FieldValueNotSupported",
            "dryRun",
            format!(
                "Unsupported value: [{}]: supported values: \"All\"",
                Value::from(dry)
            ),
        );
        let options = match parts.method {
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => "CreateOptions",
        };
        return Err(ApiError::invalid("meta.k8s.io", options, "", &[cause]));
    }
    let named = !target.name.is_empty();
    match (target.subresource.as_str(), &parts.method) {
        ("", &Method::GET) if named || !query.flag("watch") => {
            let answer = if named {
                read::get(&call)?
            } else {
                read::list(&call)?
            };
            let accept = parts.headers.get(http::header::ACCEPT);
            let accept = accept.and_then(|v| v.to_str().ok()).unwrap_or_default();
            let now = server.0.options.clock.now();
            crate::table::convert(&kind, accept, query.get("includeObject"), now, answer).await
        }
        ("", &Method::GET) => watch::watch(&call),
        ("", &Method::POST) if !named => create::create(&call).await,
        ("", &Method::DELETE) if named => delete::delete(&call).await,
        ("", &Method::DELETE) => delete::collection(&call).await,
        ("eviction", &Method::POST) if kind.plural == "pods" => evict::evict(&call).await,
        ("status", &Method::GET) if kind.status => read::get(&call),
        ("scale", &Method::GET) if kind.scale.is_some() => update::get_scale(&call),
        ("scale", &Method::PUT | &Method::PATCH) if kind.scale.is_some() => {
            update::put_scale(&call, &parts.method).await
        }
        ("" | "status", &Method::PUT | &Method::PATCH)
            if named && (target.subresource.is_empty() || kind.status) =>
        {
            update::write(&call, &parts.method).await
        }
        ("", _) => Err(ApiError::method()),
        ("status", _) if kind.status => Err(ApiError::method()),
        _ => Err(ApiError::no_resource()),
    }
}

/// What Kubernetes answers, as plain text, where nothing is served.
fn page_not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    response
}

impl Call<'_> {
    /// Fills in what the schema defaults.
    pub(crate) fn defaults(&self, object: &mut Value) {
        if let Some(schema) = &self.kind.schema {
            crate::fields::defaults(schema, object);
        }
    }

    /// Notes who wrote which fields.
    pub(crate) fn manage(&self, live: &Value, object: &mut Value) {
        let manager = match self.query.get("fieldManager") {
            "" => self.agent,
            manager => manager,
        };
        let writer = crate::fields::Writer {
            manager,
            api_version: &self.kind.api_version(),
            subresource: &self.target.subresource,
            now: &self.server.now(),
        };
        let schema = self.kind.schema.as_ref().unwrap_or(&Value::Null);
        crate::fields::update(schema, live, object, &writer);
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.query.get("dryRun") == "All"
    }

    pub(crate) fn key(&self, name: &str) -> String {
        crate::object::key(
            &self.kind.group,
            &self.kind.plural,
            &self.target.namespace,
            name,
        )
    }

    /// The object that the target names, and its revision.
    pub(crate) fn live(&self) -> ApiResult<(Value, u64)> {
        self.server
            .read(&self.key(&self.target.name))
            .ok_or_else(|| ApiError::not_found(self.kind, &self.target.name))
    }

    /// The body as a value, from JSON or YAML.
    pub(crate) fn value(&self) -> ApiResult<Value> {
        let kind = &self.kind.kind;
        let parsed: Result<Value, String> = match self.content_type {
            "application/yaml" | "application/apply-patch+yaml" => std::str::from_utf8(&self.body)
                .map_err(|e| e.to_string())
                .and_then(|text| serde_saphyr::from_str(text).map_err(|e| e.to_string())),
            _ => serde_json::from_slice(&self.body).map_err(|e| e.to_string()),
        };
        parsed.map_err(|error| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {error}"
            ))
        })
    }

    /// The body as an object of the kind.
    pub(crate) fn object(&self) -> ApiResult<Value> {
        if !matches!(self.content_type, "application/json" | "application/yaml") {
            return Err(ApiError::new(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ));
        }
        let object = self.value()?;
        self.check_type(&object)?;
        Ok(object)
    }

    pub(crate) fn check_type(&self, object: &Value) -> ApiResult<()> {
        let Some(kind) = object["kind"].as_str() else {
            return Err(ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing",
                self.kind.kind
            )));
        };
        let (want, got) = (
            self.kind.api_version(),
            object["apiVersion"].as_str().unwrap_or_default(),
        );
        if got != want {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({got}) does not match the expected API version ({want})"
            )));
        }
        if kind != self.kind.kind {
            let cause = crate::error::Cause::new(
                "FieldValueInvalid",
                "kind",
                format!("Invalid value: \"{kind}\": must be {}", self.kind.kind),
            );
            let name = crate::object::text(object, "name");
            return Err(ApiError::invalid(&self.kind.group, kind, name, &[cause]));
        }
        if !object["metadata"].is_object() && !object["metadata"].is_null() {
            return Err(ApiError::bad_request("metadata must be an object"));
        }
        Ok(())
    }

    pub(crate) fn check_namespace(&self, object: &Value) -> ApiResult<()> {
        let namespace = crate::object::text(object, "namespace");
        if !namespace.is_empty() && namespace != self.target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(())
    }
}

/// Deletes an object on the server's own account.
pub(crate) async fn remove(
    server: &ApiServer,
    kind: &Kind,
    key: &str,
    policy: &str,
) -> ApiResult<()> {
    // Boxed: a removal may lead to further removals, and its future would hold itself.
    Box::pin(delete::remove(server, kind, key, policy, false))
        .await
        .map(drop)
}
