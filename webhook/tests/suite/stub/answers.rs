//! What the stub's answers are made of: at GitHub its own published examples, with what the stub holds in their places.

use axum::response::Response;
use fleetwright_api::fleet::ForgeType;
use serde_json::{Value, json};

use super::told;

pub(super) const APP: &str = include_str!("../../github/app.json");
pub(super) const APP_TOKEN: &str = include_str!("../../github/app_token.json");
pub(super) const COMMENT: &str = include_str!("../../github/comment.json");
pub(super) const PULL_REQUEST: &str = include_str!("../../github/pull_request.json");
pub(super) const STATUS: &str = include_str!("../../github/status.json");
pub(super) const USER: &str = include_str!("../../github/user.json");

/// GitHub's example with these fields; other forges have published none.
pub(super) fn filled(kind: ForgeType, example: &str, fields: Value) -> Value {
    if kind != ForgeType::Github {
        return fields;
    }
    let mut whole = serde_json::from_str(example).unwrap();
    put(&mut whole, fields);
    whole
}

fn put(into: &mut Value, fields: Value) {
    match (into, fields) {
        (Value::Object(into), Value::Object(fields)) => {
            for (key, value) in fields {
                put(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, fields) => *into = fields,
    }
}

/// A refusal in the forge's own form.
pub(super) fn refused(kind: ForgeType, code: u16, message: &str) -> Response {
    let body = match kind {
        ForgeType::Github => json!({
            "message": message, "status": code.to_string(),
            "documentation_url": "https://docs.github.com/rest",
        }),
        ForgeType::Gitlab | ForgeType::Gitea => json!({"message": message}),
    };
    told(code, &[], body)
}
