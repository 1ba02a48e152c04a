//! One handler per verb.

pub(crate) mod body;
mod create;
mod delete;
mod evict;
mod read;
mod scale;
mod update;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, request::Parts};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use fleetwright_schema::managed::{self, Kept, Writer};
use fleetwright_schema::{FieldError, validate};

use crate::audit::Named;
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::limits::LongestWatch;
use crate::object::{Live, encode_with};
use crate::registry::Kind;
use crate::request::{Query, Target};
use crate::table::Form;
use crate::{ApiServer, User};

/// What the handlers get.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) kind: &'a Arc<Kind>,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a Query,
    pub(crate) content_type: &'a str,
    pub(crate) agent: &'a str,
    /// The form in which objects are asked for.
    pub(crate) form: Form,
    pub(crate) body: Bytes,
    /// How long a watch goes on when the request does not say.
    pub(crate) longest_watch: Option<Duration>,
    /// What the answer warns of.
    pub(crate) warnings: parking_lot::Mutex<Vec<String>>,
    /// The name of what it makes, which its path does not say.
    pub(crate) named: OnceLock<String>,
}

pub(crate) async fn dispatch(
    server: &ApiServer,
    user: &User,
    parts: &Parts,
    body: Bytes,
) -> ApiResult<Response<Body>> {
    let query = Query::parse(parts.uri.query());
    let target = match parts.uri.path().trim_end_matches('/') {
        "/healthz/ping" | "/livez/ping" | "/readyz/ping" => return Ok(plain(200, "ok")),
        check @ ("/healthz" | "/livez" | "/readyz") => {
            let verbose = query.has("verbose");
            return Ok(plain(200, if verbose { checks(check) } else { "ok" }));
        }
        "/version" if parts.method != Method::GET => return Err(ApiError::method()),
        "/version" => {
            let version = json!({"major": "1", "minor": "36", "gitVersion": crate::VERSION, "platform": "linux/amd64",
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc"});
            return Ok(respond(200, &version));
        }
        crate::BACKUP_PATH if parts.method == Method::GET => {
            return Ok(crate::backup::answer(&server.0.store));
        }
        path => match crate::discovery::answer(server, path, parts) {
            Some(answer) => return Ok(answer),
            None => match Target::parse(path) {
                Some(target) => target,
                None => return Ok(page_not_found()),
            },
        },
    };
    let (query, target) = match (target.watch, parts.method == Method::GET) {
        (true, true) => {
            let query = query.with("watch", "true");
            // Of one object is watched what a list of that name would show.
            let name = format!("metadata.name={}", target.name);
            let query = match target.name.as_str() {
                "" => query,
                _ => query.with("fieldSelector", &name),
            };
            let name = String::new();
            (query, Target { name, ..target })
        }
        (true, false) => return Err(ApiError::method()),
        _ => (query, target),
    };
    let kind = server
        .kinds()
        .find(&target.group, &target.version, &target.resource);
    let Some(kind) = kind else {
        // Kubernetes answers for its own groups with a Status, for those of custom kinds and for unknown ones in plain text.
        let registry = server.kinds();
        let core = |k: &std::sync::Arc<Kind>| {
            !k.custom && k.group == target.group && k.version == target.version
        };
        return if registry.all().any(core) {
            Err(ApiError::no_resource())
        } else {
            Ok(page_not_found())
        };
    };
    if kind.namespaced && target.namespace.is_empty() && !target.name.is_empty() {
        if kind.custom {
            return Ok(page_not_found());
        }
        return Err(ApiError::no_resource());
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if kind.custom && kind.namespaced && target.namespace.is_empty() && !reads {
        return Ok(page_not_found());
    }
    if !kind.namespaced && !target.namespace.is_empty() {
        if kind.custom {
            return Ok(page_not_found());
        }
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
        form: Form::asked(&parts.headers, query.get("includeObject"))?,
        agent: parts
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split('/').next())
            .filter(|v| !v.is_empty())
            .unwrap_or("unknown"),
        body,
        longest_watch: parts.extensions.get::<LongestWatch>().map(|l| l.0),
        warnings: parking_lot::Mutex::new(kind.deprecated.iter().cloned().collect()),
        named: OnceLock::new(),
    };
    check_options(&call, &parts.method)?;
    if kind.review {
        return match parts.method {
            Method::POST if target.name.is_empty() => crate::access::review(&call, user),
            _ if !target.name.is_empty() => Err(ApiError::no_resource()),
            _ => Err(ApiError::method()),
        };
    }
    let answer = match route(&call, &parts.method).await {
        Ok(answer) => crate::table::convert(&call, answer).await,
        Err(error) => Err(error),
    };
    let mut answer = answer.unwrap_or_else(|error| error.response());
    if let Some(name) = call.named.get() {
        answer.extensions_mut().insert(Named(name.clone()));
    }
    let code = answer.status().as_u16();
    server.0.metrics.answered(&call, &parts.method, code);
    Ok(warn(&call, answer))
}

/// Refuses query parameters that have no such value.
fn check_options(call: &Call<'_>, method: &Method) -> ApiResult<()> {
    let options = match *method {
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        Method::DELETE => "DeleteOptions",
        _ => "CreateOptions",
    };
    let refuse = |cause| Err(ApiError::invalid("meta.k8s.io", options, "", &[cause]));
    let dry = call.query.get("dryRun");
    if !dry.is_empty() && dry != "All" {
        let text = format!(
            "Unsupported value: [{}]: supported values: \"All\"",
            Value::from(dry)
        );
        return refuse(Cause::new("FieldValueNotSupported", "dryRun", text));
    }
    let mode = call.query.get("fieldValidation");
    if !matches!(mode, "" | "Ignore" | "Strict" | "Warn") {
        let text = format!(
            "Unsupported value: {}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            Value::from(mode)
        );
        return refuse(Cause::new(
            "FieldValueNotSupported",
            "fieldValidation",
            text,
        ));
    }
    let manager = call.query.get("fieldManager");
    if manager.len() > 128 {
        let text = "Too long: may not be more than 128 bytes";
        return refuse(Cause::new("FieldValueTooLong", "fieldManager", text));
    }
    if let Some((at, c)) = manager.chars().enumerate().find(|(_, c)| c.is_control()) {
        let text = format!(
            "Invalid value: {}: invalid character U+{:04X} (at position {at})",
            crate::error::go_quoted(manager),
            u32::from(c)
        );
        return refuse(Cause::new("FieldValueInvalid", "fieldManager", text));
    }
    let apply = call.content_type.starts_with("application/apply-patch");
    if *method == Method::PATCH && apply && manager.is_empty() {
        let text = "Required value: is required for apply patch";
        return refuse(Cause::new("FieldValueRequired", "fieldManager", text));
    }
    if *method == Method::PATCH && !apply && !call.query.get("force").is_empty() {
        let text = "Forbidden: may not be specified for non-apply patch";
        return refuse(Cause::new("FieldValueForbidden", "force", text));
    }
    Ok(())
}

/// Adds the call's warnings to an answer.
fn warn(call: &Call<'_>, mut answer: Response<Body>) -> Response<Body> {
    let mut said = Vec::new();
    for text in std::mem::take(&mut *call.warnings.lock()) {
        // A write that was tried again warned again.
        if said.contains(&text) {
            continue;
        }
        let quoted = format!("299 - {}", Value::from(text.as_str()));
        if let Ok(value) = http::HeaderValue::from_str(&quoted) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
        said.push(text);
    }
    answer
}

async fn route(call: &Call<'_>, method: &Method) -> ApiResult<Response<Body>> {
    let (kind, target, query) = (call.kind, call.target, call.query);
    let named = !target.name.is_empty();
    // Custom kinds answer a HEAD as they do a GET.
    let method = match *method {
        Method::HEAD if kind.custom => &Method::GET,
        _ => method,
    };
    match (target.subresource.as_str(), method) {
        ("", &Method::GET) if named => read::get(call),
        ("", &Method::GET) if query.flag("watch") => watch::watch(call),
        ("", &Method::GET) => read::list(call),
        ("", &Method::POST) if !named || kind.custom => create::create(call).await,
        ("", &Method::DELETE) if named => delete::delete(call).await,
        ("", &Method::DELETE) => delete::collection(call).await,
        ("eviction", &Method::POST) if kind.plural == "pods" => evict::evict(call).await,
        ("status", &Method::GET) if kind.status => read::get(call),
        ("scale", &Method::GET) if kind.scale.is_some() => scale::get_scale(call),
        ("scale", &Method::PUT | &Method::PATCH) if kind.scale.is_some() => {
            scale::put_scale(call, method).await
        }
        ("" | "status", &Method::PUT | &Method::PATCH)
            if named && (target.subresource.is_empty() || kind.status) =>
        {
            update::write(call, method).await
        }
        ("", &Method::PUT | &Method::PATCH) if kind.custom => {
            Err(ApiError::bad_request("name must be provided"))
        }
        ("", method) => Err(unsupported(kind, method)),
        ("status", method) if kind.status => Err(unsupported(kind, method)),
        ("scale", method) if kind.scale.is_some() => Err(unsupported(kind, method)),
        ("eviction", method) if kind.plural == "pods" => Err(unsupported(kind, method)),
        _ if kind.custom => Err(ApiError::not_found(kind, &target.name)),
        _ => Err(ApiError::no_resource()),
    }
}

/// Custom kinds say what is not supported, core kinds only that it is not.
fn unsupported(kind: &Kind, method: &Method) -> ApiError {
    if !kind.custom {
        return ApiError::method();
    }
    let verb = match *method {
        Method::POST => "create".to_owned(),
        Method::PUT => "update".to_owned(),
        Method::GET | Method::PATCH | Method::DELETE => method.as_str().to_lowercase(),
        // What is no verb has no name.
        _ => String::new(),
    };
    ApiError::unsupported(kind, &verb)
}

/// The checks of one kind in words; a server that answers has passed them.
fn checks(path: &str) -> &'static str {
    match path {
        "/healthz" => "[+]ping ok\n[+]store ok\nhealthz check passed\n",
        "/livez" => "[+]ping ok\n[+]store ok\nlivez check passed\n",
        _ => "[+]ping ok\n[+]store ok\nreadyz check passed\n",
    }
}

/// What Kubernetes answers where nothing is served.
fn page_not_found() -> Response<Body> {
    plain(404, "404 page not found\n")
}

/// An answer in plain text.
fn plain(code: u16, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    response
}

impl Call<'_> {
    /// Fills in what the schema defaults.
    pub(crate) fn defaults(&self, object: &mut Value) {
        if self.is_own(object) {
            fleetwright_schema::default::apply(self.kind.compiled(), object);
        }
    }

    /// Who writes: the field manager, or else the client's name.
    pub(crate) fn writer<'a>(&'a self, api_version: &'a str, now: &'a str) -> Writer<'a> {
        let manager = match self.query.get("fieldManager") {
            "" => self.agent,
            manager => manager,
        };
        let subresource = self.target.subresource.as_str();
        Writer {
            manager,
            api_version,
            subresource,
            now,
        }
    }

    /// Who holds which fields of an object that an update puts in the place of `live`, whose managed fields are `kept`.
    pub(crate) fn manage(&self, live: &Value, kept: Option<&RawValue>, object: &Value) -> Kept {
        // What comes through the scale subresource bears no time.
        let now = match self.target.subresource.as_str() {
            "scale" => String::new(),
            _ => self.server.now(),
        };
        let version = self.kind.api_version();
        // A new core object has the fields that every object of its kind has from the outset.
        let blank = if live.is_null() && !self.kind.custom {
            crate::core_kinds::blank(&self.kind.kind)
        } else {
            Value::Null
        };
        let live = if live.is_null() { &blank } else { live };
        let writer = self.writer(&version, &now);
        managed::update(self.kind.compiled(), live, kept, object, &writer)
    }

    /// Drops what the schema does not know, and warns of it or refuses it as the request wishes.
    pub(crate) fn known_fields(&self, object: &mut Value, duplicates: &[String]) -> ApiResult<()> {
        let (kind, version) = (&self.kind.kind, &self.kind.version);
        self.known_fields_or(object, duplicates, |fault| {
            ApiError::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: {fault}"
            ))
        })
    }

    /// The same with a refusal of one's own, made of what is wrong.
    pub(crate) fn known_fields_or(
        &self,
        object: &mut Value,
        duplicates: &[String],
        refuse: impl FnOnce(String) -> ApiError,
    ) -> ApiResult<()> {
        self.quantities(object);
        let unknown = if self.is_own(object) {
            fleetwright_schema::prune::prune(self.kind.compiled(), object)
        } else {
            Vec::new()
        };
        let mode = self.query.get("fieldValidation");
        if mode == "Ignore" || (unknown.is_empty() && duplicates.is_empty()) {
            return Ok(());
        }
        let twice = duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\""));
        let texts: Vec<String> = twice
            .chain(
                unknown
                    .iter()
                    .map(|path| format!("unknown field \"{path}\"")),
            )
            .collect();
        if mode == "Strict" {
            let told = format!("strict decoding error: {}", texts.join(", "));
            return Err(refuse(told));
        }
        self.warnings.lock().extend(texts);
        Ok(())
    }

    /// Refuses what metadata may not hold, and what the schema of a custom kind does not allow; `live` is what the
    /// object replaces.
    pub(crate) fn check(&self, object: &Value, live: Option<&Value>) -> ApiResult<()> {
        let mut errors = crate::metadata::faults(self.kind, object);
        if let Some(live) = live {
            let changes = crate::metadata::changes(live, object);
            // Custom kinds are checked twice, and say so twice.
            errors.extend(changes.iter().filter(|_| self.kind.custom).cloned());
            errors.extend(changes);
        }
        let schema = self.kind.compiled();
        let kind = object["kind"].as_str().unwrap_or_default();
        if self.kind.custom {
            if !self.is_own(object) {
                let text = format!("must be {}", self.kind.kind);
                errors.insert(0, FieldError::invalid("kind", &kind.into(), &text));
            }
            if self.target.subresource == "status" {
                errors.extend(validate::status_values(schema, object, live));
            } else {
                errors.extend(validate::values(schema, object, live));
            }
            errors.extend(scale::faults(self, object));
            errors.extend(validate::structure(schema, object, live));
            validate::rules(schema, object, live, &mut errors);
        }
        let mut causes: Vec<Cause> = errors
            .into_iter()
            .map(|e| Cause::new(e.reason.as_str(), e.field, e.message))
            .collect();
        if !self.kind.custom && self.target.subresource.is_empty() {
            causes.extend(crate::core_specs::faults(self.kind, object));
        }
        if causes.is_empty() {
            if self.kind.custom {
                let warnings = crate::metadata::warnings(object, live);
                self.warnings.lock().extend(warnings);
            }
            return Ok(());
        }
        let name = crate::object::text(object, "name");
        Err(ApiError::invalid(&self.kind.group, kind, name, &causes))
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.query.get("dryRun") == "All"
    }

    pub(crate) fn key(&self, name: &str) -> String {
        let (prefix, namespace) = (self.kind.prefix(), &self.target.namespace);
        format!("{prefix}{namespace}/{name}")
    }

    /// The object that the target names, and its revision.
    pub(crate) fn live(&self) -> ApiResult<(Value, u64)> {
        let (mut object, revision) = self
            .server
            .read(&self.key(&self.target.name))
            .ok_or_else(|| ApiError::not_found(self.kind, &self.target.name))?;
        self.kind.show(&mut object);
        Ok((object, revision))
    }

    /// The same with its managed fields apart.
    pub(crate) fn live_apart(&self) -> ApiResult<Live> {
        let mut live = self
            .server
            .read_apart(&self.key(&self.target.name))
            .ok_or_else(|| ApiError::not_found(self.kind, &self.target.name))?;
        self.kind.show(&mut live.object);
        Ok(live)
    }

    /// An object of this call's version, and its managed fields, as they are to be stored.
    pub(crate) fn encode(
        &self,
        object: &Value,
        managed: Option<&RawValue>,
    ) -> fleetwright_store::Value {
        if self.kind.storage.is_none() {
            return encode_with(object, managed);
        }
        let mut stored = object.clone();
        self.kind.keep(&mut stored);
        encode_with(&stored, managed)
    }

    /// Notes an object's uid and owners, and when it is due.
    pub(crate) fn index(&self, key: &str, object: &Value, managed: Option<&RawValue>) {
        if self.kind.plural == "events" {
            // What was written last tells how long it stays.
            let whole = crate::object::whole(object.clone(), managed);
            self.server.index(key, &whole);
        } else {
            self.server.index(key, object);
        }
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
    let options = delete::Options::own(policy);
    Box::pin(delete::remove(server, kind, key, &options))
        .await
        .map(drop)
}
