//! Who may do what, and the reviews that tell.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::User;
use crate::error::respond;
use crate::request::Target;

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
