//! Failures: of the server, and the `Status` that a request is answered with.

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::registry::Kind;

/// Why a server cannot be made or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stored object is not JSON: restore a backup.
    #[error("the stored object {0} cannot be read")]
    Stored(String, #[source] serde_json::Error),
    /// A stored value is not the object that its key names: restore another backup.
    #[error("what is stored as {0} is no object of that name")]
    NotObject(String),
    /// A CustomResourceDefinition was refused.
    #[error("the CustomResourceDefinition {0} was refused: {1}")]
    Install(String, String),
    /// A file or socket refused.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// The certificates cannot be made or used.
    #[error("the certificates cannot be used: {0}")]
    Tls(String),
    /// A line of a token file is not `token,user,uid[,"groups"]`.
    #[error("{path}:{line}: expected token,user,uid or token,user,uid,\"group1,group2\"")]
    Tokens {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
}

/// A result of the server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal, as Kubernetes words it.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// With what token a list can go on, as things are now.
    rest: Option<String>,
}

pub(crate) type ApiResult<T> = std::result::Result<T, ApiError>;

/// One cause of an `Invalid`.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn new(
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            rest: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = json!({});
        if !kind.is_empty() {
            details["kind"] = kind.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        if !name.is_empty() {
            details["name"] = name.into();
        }
        self.details = Some(details);
        self
    }

    pub(crate) fn with_causes(mut self, causes: &[Cause]) -> Self {
        let list: Vec<Value> = causes
            .iter()
            .map(|c| {
                let mut cause = json!({"reason": c.reason, "message": c.message});
                if !c.field.is_empty() {
                    cause["field"] = c.field.as_str().into();
                }
                cause
            })
            .collect();
        self.details.get_or_insert_with(|| json!({}))["causes"] = list.into();
        self
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 415, naming what is accepted.
    pub(crate) fn media_type(accepted: &str) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", text)
    }

    /// What is said of an `Accept` header that asks for nothing of what there is.
    pub(crate) const MEDIA_TYPES: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

    pub(crate) fn not_acceptable(text: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", text)
    }

    pub(crate) fn too_large(why: impl std::fmt::Display) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: {why}"),
        )
    }

    /// 422 for what a patch made of an object, and why it is none.
    pub(crate) fn patch(made: &Value, fault: &str) -> Self {
        let text = format!("Invalid value: {}: {fault}", Value::from(made.to_string()));
        let message = format!(" \"\" is invalid: patch: {text}");
        Self::new(422, "Invalid", message).with_causes(&[Cause::new(
            "FieldValueInvalid",
            "patch",
            text,
        )])
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.resource());
        Self::new(404, "NotFound", message).about(&kind.group, &kind.plural, name)
    }

    pub(crate) fn namespace_not_found(name: &str) -> Self {
        Self::new(404, "NotFound", format!("namespaces \"{name}\" not found")).about(
            "",
            "namespaces",
            name,
        )
    }

    pub(crate) fn no_resource() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(json!({}));
        error
    }

    pub(crate) fn method() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .empty_details()
    }

    pub(crate) fn unsupported(kind: &Kind, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind \"{}\"",
            kind.resource()
        );
        Self::new(405, "MethodNotAllowed", message).about(&kind.group, &kind.plural, "")
    }

    /// 429 for a user who has too much under way.
    pub(crate) fn too_many_requests() -> Self {
        let text = "Too many requests, please try again later.";
        let mut error = Self::new(429, "TooManyRequests", text);
        error.details = Some(json!({"retryAfterSeconds": 1}));
        error
    }

    pub(crate) fn timeout() -> Self {
        let text = "request did not complete within the allotted timeout";
        Self::new(504, "Timeout", text).empty_details()
    }

    pub(crate) fn panicked() -> Self {
        let text = "This request caused apiserver to panic. Look in the logs for details.";
        Self::new(500, "InternalError", text)
    }

    /// 422 for a patch that does not fit; Kubernetes says no more.
    pub(crate) fn unprocessable() -> Self {
        let text = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", text).empty_details()
    }

    fn empty_details(mut self) -> Self {
        self.details = Some(json!({}));
        self
    }

    pub(crate) fn exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.resource());
        Self::new(409, "AlreadyExists", message).about(&kind.group, &kind.plural, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Self::conflict_of(&kind.group, &kind.plural, name, why)
    }

    /// 409 about `kind` (a kind or a plural, as Kubernetes has it) of `group`.
    pub(crate) fn conflict_of(group: &str, kind: &str, name: &str, why: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let message =
            format!("Operation cannot be fulfilled on {kind}{dot}{group} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(group, kind, name)
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}.{group}")
        };
        let subject = if name.is_empty() {
            resource
        } else {
            format!("{resource} \"{name}\"")
        };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {why}"))
            .about(group, plural, name)
    }

    /// 403 about a path that is no resource.
    pub(crate) fn forbidden_path(why: String) -> Self {
        Self::new(403, "Forbidden", why).empty_details()
    }

    /// 422 about `kind` (a kind or a plural, as Kubernetes has it) of `group`.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let subject = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut texts: Vec<String> = Vec::new();
        for cause in causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self::new(
            422,
            "Invalid",
            format!("{subject} \"{name}\" is invalid: {text}"),
        )
        .about(group, kind, name)
        .with_causes(causes)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 for a list of a moment that is no longer known; `rest` is a token for the rest of it as it is now.
    pub(crate) fn expired_list(rest: Option<String>) -> Self {
        let text = if rest.is_some() {
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
        } else {
            "The resourceVersion for the provided list is too old."
        };
        let mut error = Self::expired(text);
        error.rest = rest;
        error
    }

    /// 504 for a revision that is still to come.
    pub(crate) fn too_new(asked: u64, now: u64) -> Self {
        let text = format!("Timeout: Too large resource version: {asked}, current: {now}");
        let mut error = Self::new(504, "Timeout", text);
        let text = "Too large resource version";
        error.details = Some(json!({"retryAfterSeconds": 1,
            "causes": [{"reason": "ResourceVersionTooLarge", "message": text}]}));
        error
    }

    pub(crate) fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(rest) = &self.rest {
            status["metadata"]["continue"] = rest.as_str().into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = respond(self.code, &self.status());
        let after = self.details.as_ref().map(|d| &d["retryAfterSeconds"]);
        if let Some(seconds) = after.and_then(Value::as_u64) {
            let headers = response.headers_mut();
            headers.insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<fleetwright_store::Error> for ApiError {
    fn from(error: fleetwright_store::Error) -> Self {
        // As Kubernetes answers when etcd refuses: clients know it as a fault of the server, after which they look anew.
        let text = format!("Internal error occurred: {error}");
        let mut answer = Self::new(500, "InternalError", text);
        answer.details = Some(json!({"causes": [{"message": error.to_string()}]}));
        answer
    }
}

/// A text as Go quotes it.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An answer of JSON.
pub(crate) fn respond(code: u16, value: &Value) -> Response<Body> {
    bytes(code, value.to_string().into())
}

/// An answer of encoded JSON.
pub(crate) fn bytes(code: u16, body: bytes::Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}
