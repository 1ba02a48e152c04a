//! Tables, as kubectl prints them.

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::{ApiResult, bytes};
use crate::registry::Kind;

/// Turns an answer with objects into a table when the client asked for one first.
pub(crate) async fn convert(
    kind: &Kind,
    accept: &str,
    include: &str,
    now: Timestamp,
    answer: Response<Body>,
) -> ApiResult<Response<Body>> {
    if answer.status() != http::StatusCode::OK
        || !accept
            .split(',')
            .next()
            .unwrap_or_default()
            .contains("as=Table")
    {
        return Ok(answer);
    }
    let whole = answer
        .into_body()
        .collect()
        .await
        .map_err(|e| crate::error::ApiError::bad_request(e.to_string()))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&whole).unwrap_or_default();
    if value["kind"] == "Status" {
        return Ok(bytes(200, whole));
    }
    let one = vec![value.clone()];
    let list = value["items"].as_array().unwrap_or(&one);
    let mut table = frame(kind, &value["metadata"]);
    table["rows"] = list
        .iter()
        .map(|object| row(kind, object, include, now))
        .collect();
    Ok(bytes(200, table.to_string().into()))
}

fn frame(kind: &Kind, from: &Value) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace."});
    let mut definitions = vec![name];
    for column in columns(kind) {
        definitions.push(json!({"name": column["name"], "type": column["type"], "format": column["format"].as_str().unwrap_or_default(),
            "description": column["description"].as_str().unwrap_or_default(), "priority": column["priority"].as_i64().unwrap_or(0)}));
    }
    let mut metadata = json!({"resourceVersion": from["resourceVersion"]});
    for field in ["continue", "remainingItemCount"] {
        if !from[field].is_null() && from[field] != "" {
            metadata[field] = from[field].clone();
        }
    }
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": []})
}

fn columns(kind: &Kind) -> Vec<Value> {
    if !kind.columns.is_empty() {
        return kind.columns.clone();
    }
    let mut list: Vec<Value> = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "configmaps") => vec![json!({"name": "Data", "type": "integer", "jsonPath": "#data"})],
        ("", "secrets") => vec![
            json!({"name": "Type", "type": "string", "jsonPath": ".type"}),
            json!({"name": "Data", "type": "integer", "jsonPath": "#data"}),
        ],
        ("", "namespaces") => {
            vec![json!({"name": "Status", "type": "string", "jsonPath": ".status.phase"})]
        }
        ("", "pods") => vec![
            json!({"name": "Status", "type": "string", "jsonPath": ".status.phase"}),
            json!({"name": "Node", "type": "string", "jsonPath": ".spec.nodeName", "priority": 1}),
        ],
        ("", "nodes") => vec![
            json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
            json!({"name": "Unschedulable", "type": "boolean", "jsonPath": ".spec.unschedulable"}),
            json!({"name": "Version", "type": "string", "jsonPath": ".status.nodeInfo.kubeletVersion"}),
        ],
        ("", "events") => vec![
            json!({"name": "Type", "type": "string", "jsonPath": ".type"}),
            json!({"name": "Reason", "type": "string", "jsonPath": ".reason"}),
            json!({"name": "Object", "type": "string", "jsonPath": ".involvedObject.name"}),
            json!({"name": "Message", "type": "string", "jsonPath": ".message"}),
        ],
        ("coordination.k8s.io", _) => {
            vec![json!({"name": "Holder", "type": "string", "jsonPath": ".spec.holderIdentity"})]
        }
        _ => Vec::new(),
    };
    list.push(json!({"name": "Age", "type": if kind.custom { "date" } else { "string" }, "jsonPath": ".metadata.creationTimestamp", "age": true}));
    list
}

fn row(kind: &Kind, object: &Value, include: &str, now: Timestamp) -> Value {
    let mut cells = vec![object["metadata"]["name"].clone()];
    for column in columns(kind) {
        let path = column["jsonPath"].as_str().unwrap_or_default();
        let found = match path.strip_prefix('#') {
            Some(field) => object[field]
                .as_object()
                .map_or(0, serde_json::Map::len)
                .into(),
            None => find(object, path),
        };
        let date = column["type"] == "date" || column["age"] == true;
        cells.push(match (column["type"].as_str(), found) {
            (_, Value::String(text)) if date => age(&text, now).into(),
            (_, Value::Null) => Value::Null,
            (Some("integer" | "number"), value @ Value::Number(_))
            | (Some("boolean"), value @ Value::Bool(_)) => value,
            (Some("string") | None, Value::String(text)) => text.into(),
            (Some("string") | None, value) => value.to_string().into(),
            _ => Value::Null,
        });
    }
    let mut row = json!({"cells": cells});
    match include {
        "None" => row["object"] = Value::Null,
        "Object" => row["object"] = object.clone(),
        _ => {
            row["object"] = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
        }
    }
    row
}

/// Follows a path such as `.status.conditions[?(@.type=="Ready")].status` or `.spec.list[0]`.
fn find(object: &Value, path: &str) -> Value {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("[?(@.") {
            let Some((test, after)) = tail.split_once(")]") else {
                return Value::Null;
            };
            let Some((field, wanted)) = test.split_once("==") else {
                return Value::Null;
            };
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let hit = value
                .as_array()
                .into_iter()
                .flatten()
                .find(|v| v[field.trim()].as_str() == Some(wanted));
            let Some(hit) = hit else { return Value::Null };
            (value, rest) = (hit, after);
        } else if let Some(tail) = rest.strip_prefix('[') {
            let Some((index, after)) = tail.split_once(']') else {
                return Value::Null;
            };
            let plain = index.trim_matches(['"', '\'']);
            value = match index.parse::<usize>() {
                Ok(n) => &value[n],
                Err(_) => &value[plain],
            };
            rest = after;
        } else {
            let tail = rest.trim_start_matches('.');
            let mut end = tail.len();
            let mut escaped = false;
            for (at, c) in tail.char_indices() {
                if !escaped && matches!(c, '.' | '[') {
                    end = at;
                    break;
                }
                escaped = c == '\\';
            }
            value = &value[tail[..end].replace('\\', "").as_str()];
            rest = &tail[end..];
        }
    }
    value.clone()
}

/// How long ago a time was, as kubectl says it.
fn age(text: &str, now: Timestamp) -> String {
    let Ok(then) = text.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, sub: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{sub}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => format!("{}y", days / 365),
    }
}
