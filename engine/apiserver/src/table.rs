//! The forms in which objects can be asked for: whole, as rows of a table, or their metadata alone.

mod cells;
mod core;
mod path;

use axum::body::Body;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core_schemas::definitions;
use crate::error::{ApiError, ApiResult, bytes};
use crate::handlers::Call;
use crate::registry::Kind;
use path::{age, find};

const META: &str = "meta.k8s.io/v1";

/// A form that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is stored.
    Whole,
    /// As `Table`, whose rows hold of their object what [`Include`] says.
    Table(Include),
    /// As `PartialObjectMetadata`.
    Metadata,
    /// As `PartialObjectMetadataList`.
    MetadataList,
}

/// What of its object a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Whole,
}

impl Form {
    /// The first form in an `Accept` header that there is; `include` is the parameter `includeObject`.
    pub(crate) fn asked(headers: &HeaderMap, include: &str) -> ApiResult<Self> {
        let accept = headers.get(http::header::ACCEPT);
        let accept = accept.and_then(|v| v.to_str().ok()).unwrap_or("*/*");
        for part in accept.split(',') {
            let mut words = part.split(';').map(str::trim);
            if !matches!(
                words.next(),
                Some("application/json" | "application/*" | "*/*")
            ) {
                continue;
            }
            let word = |name: &str| {
                part.split(';')
                    .filter_map(|w| w.trim().split_once('='))
                    .find_map(|(n, v)| (n == name).then_some(v))
            };
            match (word("as"), word("g"), word("v")) {
                (None, ..) => return Ok(Self::Whole),
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => {
                    return match include {
                        "None" => Ok(Self::Table(Include::Nothing)),
                        "Object" => Ok(Self::Table(Include::Whole)),
                        "" | "Metadata" => Ok(Self::Table(Include::Metadata)),
                        other => Err(ApiError::bad_request(format!(
                            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                        ))),
                    };
                }
                (Some("PartialObjectMetadata"), Some("meta.k8s.io"), Some("v1")) => {
                    return Ok(Self::Metadata);
                }
                (Some("PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                    return Ok(Self::MetadataList);
                }
                _ => {}
            }
        }
        Err(ApiError::not_acceptable(ApiError::MEDIA_TYPES))
    }

    /// An object, or an event's, in this form; `first` when nothing was sent before it.
    pub(crate) fn one(self, kind: &Kind, object: &Value, now: Timestamp, first: bool) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata | Self::MetadataList => metadata(object),
            Self::Table(include) => {
                let mut table = frame(kind, &object["metadata"]);
                table["rows"] = json!([row(kind, object, include, now)]);
                if !first {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        }
    }

    fn list(self, kind: &Kind, list: &Value, now: Timestamp) -> Value {
        let items = list["items"].as_array().into_iter().flatten();
        match self {
            Self::Whole => list.clone(),
            Self::Metadata | Self::MetadataList => {
                let mut meta = list["metadata"].clone();
                if let Some(map) = meta.as_object_mut() {
                    map.retain(|_, value| value != "");
                }
                json!({"kind": "PartialObjectMetadataList", "apiVersion": META, "metadata": meta,
                    "items": items.map(metadata).collect::<Vec<_>>()})
            }
            Self::Table(include) => {
                let mut table = frame(kind, &list["metadata"]);
                table["rows"] = items
                    .map(|object| row(kind, object, include, now))
                    .collect();
                table
            }
        }
    }
}

/// Brings an answer into the form that was asked for.
pub(crate) async fn convert(call: &Call<'_>, answer: Response<Body>) -> ApiResult<Response<Body>> {
    let (kind, form, now) = (call.kind, call.form, call.server.0.options.clock.now());
    let watches = call.target.name.is_empty() && call.query.flag("watch");
    if form == Form::Whole || !answer.status().is_success() || watches {
        return Ok(answer);
    }
    let code = answer.status().as_u16();
    let whole = answer
        .into_body()
        .collect()
        .await
        .map_err(|e| ApiError::bad_request(e.to_string()))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&whole).unwrap_or_default();
    let shown = if value["kind"] == "Status" {
        return Ok(bytes(code, whole));
    } else if value["items"].is_array() && value["kind"] == kind.list_kind.as_str() {
        if form == Form::Metadata {
            let list = if kind.custom {
                " (*unstructured.UnstructuredList)".to_owned()
            } else {
                format!(" (*v1.{})", kind.list_kind)
            };
            let text = format!(
                "you requested PartialObjectMetadata, but the requested object is a list{list}"
            );
            return Err(ApiError::not_acceptable(text));
        }
        form.list(kind, &value, now)
    } else if form == Form::MetadataList {
        let text =
            "you requested PartialObjectMetadataList, but the requested object is not a list";
        return Err(ApiError::not_acceptable(text));
    } else {
        form.one(kind, &value, now, true)
    };
    Ok(bytes(code, shown.to_string().into()))
}

fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object["metadata"]})
}

/// What the published types say of a field of the metadata.
fn meta_words(field: &str) -> &'static Value {
    let of = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    definitions()
        .get(of)
        .map_or(&Value::Null, |d| &d["properties"][field]["description"])
}

fn frame(kind: &Kind, from: &Value) -> Value {
    let definitions = match core::columns(kind) {
        Some(columns) => columns.iter().map(core::Column::definition).collect(),
        None => custom_definitions(kind),
    };
    let mut metadata = json!({"resourceVersion": from["resourceVersion"]});
    for field in ["continue", "remainingItemCount"] {
        if !from[field].is_null() && from[field] != "" {
            metadata[field] = from[field].clone();
        }
    }
    json!({"kind": "Table", "apiVersion": META, "metadata": metadata, "columnDefinitions": definitions, "rows": []})
}

fn custom_definitions(kind: &Kind) -> Vec<Value> {
    let column = |name: &Value, kind: &Value, format: &str, words: Value, priority: i64| json!({"name": name, "type": kind, "format": format, "description": words, "priority": priority});
    let (text, date) = (json!("string"), json!("date"));
    let mut list = vec![column(
        &json!("Name"),
        &text,
        "name",
        meta_words("name").clone(),
        0,
    )];
    for printed in &kind.columns {
        let words = match &printed["description"] {
            Value::String(words) if !words.is_empty() => words.as_str().into(),
            _ => format!(
                "Custom resource definition column (in JSONPath format): {}",
                printed["jsonPath"].as_str().unwrap_or_default()
            )
            .into(),
        };
        list.push(column(
            &printed["name"],
            &printed["type"],
            printed["format"].as_str().unwrap_or_default(),
            words,
            printed["priority"].as_i64().unwrap_or(0),
        ));
    }
    if kind.columns.is_empty() {
        let words = meta_words("creationTimestamp").clone();
        list.push(column(&json!("Age"), &date, "", words, 0));
    }
    list
}

fn row(kind: &Kind, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells = match core::columns(kind) {
        Some(columns) => columns.iter().map(|c| (c.cell)(object, now)).collect(),
        None => custom_cells(kind, object, now),
    };
    let shown = match include {
        Include::Nothing => Value::Null,
        Include::Metadata => metadata(object),
        Include::Whole => object.clone(),
    };
    json!({"cells": cells, "object": shown})
}

fn custom_cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .into(),
    ];
    for column in &kind.columns {
        let found = find(object, column["jsonPath"].as_str().unwrap_or_default());
        cells.push(match (column["type"].as_str(), found) {
            (_, Value::Null) => Value::Null,
            (Some("date"), Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => age(&text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            (Some("integer"), Value::Number(number)) => {
                // A fraction is cut off.
                number
                    .as_i64()
                    .or_else(|| number.to_string().split('.').next()?.parse().ok())
                    .into()
            }
            (Some("number"), value @ Value::Number(_))
            | (Some("boolean"), value @ Value::Bool(_))
            | (Some("string"), value @ Value::String(_)) => value,
            (Some("string"), value) => value.to_string().into(),
            _ => Value::Null,
        });
    }
    if kind.columns.is_empty() {
        let made = object["metadata"]["creationTimestamp"].as_str();
        cells.push(age(made.unwrap_or_default(), now).into());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_there_is_counts() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let old = "application/json;as=Table;v=v0;g=meta.k8s.io";
        let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let protobuf = "application/vnd.kubernetes.protobuf";
        let told = [
            ("*/*", Some(Form::Whole)),
            ("application/json, */*", Some(Form::Whole)),
            (table, Some(Form::Table(Include::Metadata))),
            (partial, Some(Form::Metadata)),
            (old, None),
            (protobuf, None),
        ];
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, text.parse().unwrap());
            Form::asked(&headers, "").ok()
        };
        for (accept, form) in told {
            assert_eq!(asked(accept), form, "{accept}");
        }
        let both = format!("{protobuf},{old},{table},application/json");
        assert_eq!(asked(&both), Some(Form::Table(Include::Metadata)));
        assert_eq!(asked(&format!("{old},application/json")), Some(Form::Whole));
    }
}
