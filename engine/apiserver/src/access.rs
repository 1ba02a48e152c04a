//! Who may do what: a pure function of user and action, and the reviews that tell a user about itself.
//!
//! `system:masters` may do all. `fleetwright:read-only` may read all but Secrets. Whoever has a token may read what is
//! served and ask about itself; everybody may read the version and the health.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::User;
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::handlers::Call;
use crate::request::{Query, Target};

const MASTERS: &str = "system:masters";
const READERS: &str = "fleetwright:read-only";
const KNOWN: &str = "system:authenticated";

const OPEN: &[&str] = &["/version", "/healthz", "/livez", "/readyz"];
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi"];
const REVIEWS: &[&str] = &[
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
];

/// What somebody wants to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// With a resource.
    Resource {
        verb: String,
        group: String,
        /// With its subresource: `pods/eviction`.
        resource: String,
        namespace: String,
        name: String,
    },
    /// With a path that is none.
    Path { verb: String, path: String },
}

impl User {
    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether the user may do this.
    pub(crate) fn may(&self, action: &Action) -> bool {
        if self.is_in(MASTERS) {
            return true;
        }
        match action {
            Action::Resource { verb, resource, .. } => {
                let reads = matches!(verb.as_str(), "get" | "list" | "watch");
                let secret = resource.split('/').next() == Some("secrets");
                let own = verb == "create" && REVIEWS.contains(&resource.as_str());
                (own && self.is_in(KNOWN)) || (reads && !secret && self.is_in(READERS))
            }
            Action::Path { verb, path } => {
                let path = path.trim_end_matches('/');
                let below = |root: &str| {
                    path.strip_prefix(root)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let discovery = self.is_in(KNOWN) && DISCOVERY.iter().any(|root| below(root));
                verb == "get" && (discovery || OPEN.contains(&path))
            }
        }
    }
}

impl Action {
    /// What a request does.
    pub(crate) fn of(parts: &http::request::Parts) -> Self {
        let path = parts.uri.path();
        let Some(target) = Target::parse(path) else {
            return Self::Path {
                verb: parts.method.as_str().to_lowercase(),
                path: path.to_owned(),
            };
        };
        let named = !target.name.is_empty();
        let verb = match parts.method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if named => "delete",
            "DELETE" => "deletecollection",
            "OPTIONS" | "TRACE" | "CONNECT" => "",
            _ if target.watch || Query::parse(parts.uri.query()).flag("watch") => "watch",
            _ if named => "get",
            _ => "list",
        };
        // A namespace is in itself.
        let own = target.group.is_empty() && target.resource == "namespaces";
        Self::Resource {
            verb: verb.to_owned(),
            namespace: if own {
                target.name.clone()
            } else {
                target.namespace
            },
            group: target.group,
            resource: joined(&target.resource, &target.subresource),
            name: if target.watch {
                String::new()
            } else {
                target.name
            },
        }
    }

    /// Whether it goes on until it is ended.
    pub(crate) fn watches(&self) -> bool {
        matches!(self, Self::Resource { verb, name, .. } if verb == "watch" && name.is_empty())
    }

    /// What a `SelfSubjectAccessReview` asks about.
    fn asked(spec: &Value) -> Option<Self> {
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let text =
            |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        match (resource.is_object(), path.is_object()) {
            (true, false) => Some(Self::Resource {
                verb: text(resource, "verb"),
                group: text(resource, "group"),
                resource: joined(&text(resource, "resource"), &text(resource, "subresource")),
                namespace: text(resource, "namespace"),
                name: text(resource, "name"),
            }),
            (false, true) => Some(Self::Path {
                verb: text(path, "verb"),
                path: text(path, "path"),
            }),
            _ => None,
        }
    }

    /// The refusal of it.
    pub(crate) fn forbidden(&self, user: &User) -> ApiError {
        let who = &user.name;
        match self {
            Self::Path { verb, path } => {
                let why = format!("forbidden: User \"{who}\" cannot {verb} path \"{path}\"");
                ApiError::forbidden_path(why)
            }
            Self::Resource {
                verb,
                group,
                resource,
                namespace,
                name,
            } => {
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{namespace}\"")
                };
                let why = format!(
                    "User \"{who}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
                );
                let plural = resource.split('/').next().unwrap_or(resource);
                ApiError::forbidden(group, plural, name, &why)
            }
        }
    }
}

fn joined(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}/{subresource}")
    }
}

/// Answers a review that a user may always ask for about itself.
pub(crate) fn review(call: &Call<'_>, user: &User) -> ApiResult<Response<Body>> {
    let mut review = call.object()?;
    crate::object::meta(&mut review);
    review["status"] = match call.kind.kind.as_str() {
        "SelfSubjectReview" => {
            let mut info = json!({"username": user.name, "groups": user.groups});
            if !user.uid.is_empty() {
                info["uid"] = user.uid.as_str().into();
            }
            json!({ "userInfo": info })
        }
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            rules(user)
        }
        _ => {
            let Some(action) = Action::asked(&review["spec"]) else {
                let both = &review["spec"]["nonResourceAttributes"];
                let cause = if both.is_object() {
                    let text = format!(
                        "Invalid value: {{\"Path\":{},\"Verb\":{}}}: cannot be specified in combination with resourceAttributes",
                        both["path"], both["verb"]
                    );
                    Cause::new("FieldValueInvalid", "spec.nonResourceAttributes", text)
                } else {
                    let text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
                    Cause::new("FieldValueInvalid", "spec.resourceAttributes", text)
                };
                return Err(ApiError::invalid(&call.kind.group, "", "", &[cause]));
            };
            let managed = call.manage(&Value::Null, None, &review);
            review = crate::object::whole(review, managed.as_deref());
            json!({"allowed": user.may(&action)})
        }
    };
    if call.kind.kind == "SelfSubjectReview" {
        review["metadata"]["creationTimestamp"] = call.server.now().into();
    }
    Ok(respond(201, &review))
}

/// What a user may do, as a list of rules.
fn rules(user: &User) -> Value {
    let resource = |verbs: &[&str], groups: &[&str], resources: &[&str]| json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
    let mut resources = vec![
        resource(
            &["create"],
            &["authorization.k8s.io"],
            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        ),
        resource(
            &["create"],
            &["authentication.k8s.io"],
            &["selfsubjectreviews"],
        ),
    ];
    let mut paths = OPEN.to_vec();
    paths.extend([
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/openapi",
        "/openapi/*",
    ]);
    let mut paths = vec![json!({"verbs": ["get"], "nonResourceURLs": paths})];
    if user.is_in(MASTERS) {
        resources.insert(0, resource(&["*"], &["*"], &["*"]));
        paths.insert(0, json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    // Rules cannot say "all but Secrets": the answer for readers names what it can and admits that it is not all.
    let readers = user.is_in(READERS);
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": readers});
    if readers {
        status["evaluationError"] = "get, list and watch of all but secrets".into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(groups: &[&str]) -> User {
        User {
            name: "u".to_owned(),
            uid: String::new(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        }
    }

    fn action(method: &str, uri: &str) -> Action {
        let request = http::Request::builder().method(method).uri(uri).body(());
        Action::of(&request.unwrap().into_parts().0)
    }

    #[test]
    fn each_group_may_do_its_part() {
        let (pods, secrets) = ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/secrets");
        let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        // Method, path, then whether anonymous, a user, a reader and an administrator may.
        let table = [
            ("GET", "/version", [true, true, true, true]),
            ("GET", "/readyz", [true, true, true, true]),
            ("POST", "/version", [false, false, false, true]),
            ("GET", "/metrics", [false, false, false, true]),
            ("GET", crate::BACKUP_PATH, [false, false, false, true]),
            ("GET", "/apis", [false, true, true, true]),
            ("GET", "/openapi/v3/api/v1", [false, true, true, true]),
            ("GET", "/apisx", [false, false, false, true]),
            ("POST", review, [false, true, true, true]),
            ("GET", pods, [false, false, true, true]),
            ("GET", "/api/v1/pods?watch=true", [false, false, true, true]),
            ("GET", secrets, [false, false, false, true]),
            ("DELETE", pods, [false, false, false, true]),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/eviction",
                [false, false, false, true],
            ),
        ];
        let users = [
            user(&["system:unauthenticated"]),
            user(&[KNOWN]),
            user(&[READERS, KNOWN]),
            user(&[MASTERS, KNOWN]),
        ];
        for (method, path, want) in table {
            let got = [0, 1, 2, 3].map(|i: usize| users[i].may(&action(method, path)));
            assert_eq!(got, want, "{method} {path}");
        }
    }
}
