//! Who may do what, and the reviews that tell.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::error::{ApiError, respond};
use crate::request::Target;
use crate::{Error, Result, User};

impl User {
    /// Whether the user is an administrator.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == "system:masters")
    }
}

/// Answers the reviews that a user may always ask for about itself.
pub(crate) fn review(user: &User, target: &Target, body: &[u8]) -> Option<Response<Body>> {
    let mut review: Value = serde_json::from_slice(body).unwrap_or_else(|_| json!({}));
    if !review.is_object() {
        review = json!({});
    }
    match (target.group.as_str(), target.resource.as_str()) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            review["kind"] = "SelfSubjectAccessReview".into();
            review["status"] = json!({"allowed": user.is_master()});
        }
        ("authentication.k8s.io", "selfsubjectreviews") => {
            review["kind"] = "SelfSubjectReview".into();
            review["status"] = json!({"userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups}});
        }
        _ => return None,
    }
    review["apiVersion"] = format!("{}/{}", target.group, target.version).into();
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    Some(respond(201, &review))
}

/// The tokens that a server accepts. They are kept as digests, so that looking one up tells nothing by its time.
#[derive(Clone, Debug, Default)]
pub struct Auth(std::collections::BTreeMap<Vec<u8>, User>);

impl Auth {
    /// Accepts `token` as `user`.
    #[must_use]
    pub fn with(mut self, token: &str, user: User) -> Self {
        self.0.insert(digest(token), user);
        self
    }

    /// Reads a token file in kube-apiserver's form: lines of `token,user,uid` and optionally `,"group1,group2"`.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not of that form.
    pub fn from_file(path: &std::path::Path) -> Result<Self> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Io(format!("cannot read {shown}"), e))?;
        let mut auth = Self::default();
        for (n, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(Error::Tokens {
                    path: shown,
                    line: n + 1,
                });
            };
            if token.is_empty() || name.is_empty() {
                return Err(Error::Tokens {
                    path: shown,
                    line: n + 1,
                });
            }
            let groups = rest.first().map_or("", |g| g.trim_matches('"'));
            let mut groups: Vec<String> = groups
                .split(',')
                .map(str::trim)
                .filter(|g| !g.is_empty())
                .map(str::to_owned)
                .collect();
            groups.push("system:authenticated".to_owned());
            auth = auth.with(
                token,
                User {
                    name: (*name).to_owned(),
                    uid: (*uid).to_owned(),
                    groups,
                },
            );
        }
        Ok(auth)
    }

    /// The user of a request; `Err` for a token that is not accepted.
    pub(crate) fn user(&self, headers: &http::HeaderMap) -> std::result::Result<User, ApiError> {
        let Some(header) = headers.get(http::header::AUTHORIZATION) else {
            return Ok(User {
                name: "system:anonymous".to_owned(),
                uid: String::new(),
                groups: vec!["system:unauthenticated".to_owned()],
            });
        };
        let token = header
            .to_str()
            .ok()
            .and_then(|h| h.strip_prefix("Bearer "))
            .unwrap_or_default();
        self.0
            .get(&digest(token.trim()))
            .cloned()
            .ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))
    }
}

fn digest(token: &str) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).to_vec()
}

/// Refuses what the user may not do: administrators may do all; others may read the version and the health, those
/// with a token also what is served and what they may do.
pub(crate) fn authorize(
    user: &User,
    parts: &http::request::Parts,
) -> std::result::Result<(), ApiError> {
    let path = parts.uri.path();
    if user.is_master() || matches!(path, "/version" | "/healthz" | "/livez" | "/readyz") {
        return Ok(());
    }
    let known = user.groups.iter().any(|g| g == "system:authenticated");
    let target = Target::parse(path);
    let own = target.as_ref().is_some_and(|t| {
        matches!(
            t.resource.as_str(),
            "selfsubjectaccessreviews" | "selfsubjectreviews"
        )
    });
    let discovery = parts.method == http::Method::GET
        && (matches!(
            path.trim_end_matches('/'),
            "/api" | "/apis" | "/api/v1" | "/openapi/v3"
        ) || (target.is_none() && path.starts_with("/apis/")));
    if known && (own || discovery) {
        return Ok(());
    }
    let Some(target) = target else {
        let why = format!(
            "forbidden: User \"{}\" cannot {} path \"{path}\"",
            user.name,
            parts.method.as_str().to_lowercase()
        );
        return Err(ApiError::new(403, "Forbidden", why));
    };
    let query = crate::request::Query::parse(parts.uri.query());
    let named = !target.name.is_empty();
    let verb = match parts.method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ if named => "get",
        _ if query.flag("watch") => "watch",
        _ => "list",
    };
    let resource = if target.subresource.is_empty() {
        target.resource.clone()
    } else {
        format!("{}/{}", target.resource, target.subresource)
    };
    let place = if target.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", target.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, target.group
    );
    Err(ApiError::forbidden(
        &target.group,
        &target.resource,
        &target.name,
        &why,
    ))
}
