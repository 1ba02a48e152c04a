//! The scale of an object of a custom kind: read, updated and patched as a `Scale` of its own.

use axum::body::Body;
use fleetwright_schema::{managed, patch};
use http::{Method, Response};
use serde_json::{Value, json};

use super::Call;
use super::update::{ATTEMPTS, Managed, PATCHES, check_name, fields, finish, refused, store};
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::object::{Live, text};
use fleetwright_schema::FieldError;

/// What does not lead to a number, or to a text, of the paths of the scale subresource.
pub(super) fn faults(call: &Call<'_>, object: &Value) -> Vec<FieldError> {
    let Some(paths) = &call.kind.scale else {
        return Vec::new();
    };
    let status = call.target.subresource == "status";
    let fields: &[&str] = if status {
        &["statusReplicasPath", "labelSelectorPath"]
    } else {
        &["specReplicasPath"]
    };
    let mut out = Vec::new();
    for field in fields {
        let path = paths[*field].as_str().unwrap_or_default();
        let is_text = *field == "labelSelectorPath";
        if path.is_empty() || (is_text && !path.starts_with(".status")) {
            continue;
        }
        let wanted = if is_text { "string" } else { "int64" };
        let zero = if is_text { json!("") } else { json!(0) };
        let fault = |found: &Value, wanted: &str| {
            let (shown, got) = go_value(found);
            let detail =
                format!("{path} accessor error: {shown} is of the type {got}, expected {wanted}");
            FieldError::invalid(path, &zero, &detail)
        };
        match reach(object, path) {
            Err(found) => out.push(fault(found, "map[string]interface{}")),
            Ok(Value::Null) => {}
            Ok(Value::String(_)) if is_text => {}
            Ok(found) => match found.as_i64().filter(|_| !is_text) {
                Some(count) if count < 0 => {
                    let why = "should be a non-negative integer";
                    out.push(FieldError::invalid(path, found, why));
                }
                Some(count) if count > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    out.push(FieldError::invalid(path, found, &why));
                }
                Some(_) => {}
                None => out.push(fault(found, wanted)),
            },
        }
    }
    out
}

/// The value at a path such as `.spec.replicas`; an error is what on the way has no fields.
fn reach<'a>(object: &'a Value, path: &str) -> Result<&'a Value, &'a Value> {
    let mut value = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        match value {
            Value::Object(map) => value = map.get(part).unwrap_or(&Value::Null),
            Value::Null => {}
            other => return Err(other),
        }
    }
    Ok(value)
}

/// A value and its type as Go prints them.
fn go_value(value: &Value) -> (String, &'static str) {
    match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(flag) => (flag.to_string(), "bool"),
        Value::String(text) => (text.clone(), "string"),
        Value::Number(number) if number.is_f64() => (number.to_string(), "float64"),
        Value::Number(number) => (number.to_string(), "int64"),
        Value::Array(list) => {
            let all: Vec<String> = list.iter().map(|item| go_value(item).0).collect();
            (format!("[{}]", all.join(" ")), "[]interface {}")
        }
        Value::Object(map) => {
            let all: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_value(value).0))
                .collect();
            (format!("map[{}]", all.join(" ")), "map[string]interface {}")
        }
    }
}

fn pointer(path: &Value) -> String {
    path.as_str().unwrap_or_default().replace('.', "/")
}

fn scale_of(call: &Call<'_>, live: &Value) -> Value {
    let paths = call.kind.scale.clone().unwrap_or_default();
    let at = |field: &str| {
        live.pointer(&pointer(&paths[field]))
            .cloned()
            .unwrap_or_default()
    };
    let m = &live["metadata"];
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": m["name"], "namespace": m["namespace"], "uid": m["uid"],
            "resourceVersion": m["resourceVersion"], "creationTimestamp": m["creationTimestamp"]},
        "spec": {"replicas": at("specReplicasPath").as_i64().unwrap_or(0)},
        "status": {"replicas": at("statusReplicasPath").as_i64().unwrap_or(0)}});
    if paths["labelSelectorPath"].is_string()
        && let Some(selector) = at("labelSelectorPath").as_str()
    {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

pub(crate) fn get_scale(call: &Call<'_>) -> ApiResult<Response<Body>> {
    Ok(respond(200, &scale_of(call, &call.live()?.0)))
}

pub(crate) async fn put_scale(call: &Call<'_>, method: &Method) -> ApiResult<Response<Body>> {
    let change = ScaleChange::read(call, method)?;
    for _ in 0..ATTEMPTS {
        let live = call.live_apart()?;
        let scale = change.to(call, &scale_of(call, &live.object), &live)?;
        check_name(call, &scale)?;
        call.check_namespace(&scale)?;
        let version = text(&scale, "resourceVersion");
        if !version.is_empty() && version != live.revision.to_string() {
            return Err(ApiError::modified(call.kind, &call.target.name));
        }
        let mut object = live.object.clone();
        let path = pointer(&call.kind.scale.clone().unwrap_or_default()["specReplicasPath"]);
        let mut slot = &mut object;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            slot = &mut slot[part];
        }
        *slot = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
        let kept = finish(call, &live, &mut object, Managed::Updated)?;
        let dry = call.dry_run().then(|| object.clone());
        if store(call, &live, object, kept).await?.is_some() {
            let shown = dry.map_or_else(|| call.live().map(|(live, _)| live), Ok)?;
            return Ok(respond(200, &scale_of(call, &shown)));
        }
    }
    Err(ApiError::modified(call.kind, &call.target.name))
}

/// How a request changes the scale of an object.
enum ScaleChange {
    Replace(Value),
    JsonPatch(Value),
    MergePatch(Value),
    Apply(Value),
}

impl ScaleChange {
    fn read(call: &Call<'_>, method: &Method) -> ApiResult<Self> {
        let (body, _) = call.value()?;
        if method == Method::PUT {
            let scale = body["kind"] == "Scale" && body["apiVersion"] == "autoscaling/v1";
            return if scale {
                Ok(Self::Replace(body))
            } else {
                let got = body["kind"].as_str().unwrap_or_default();
                Err(ApiError::bad_request(format!(
                    "a Scale of autoscaling/v1 is expected, not {got:?}"
                )))
            };
        }
        match call.content_type {
            "application/json-patch+json" => Ok(Self::JsonPatch(body)),
            "application/merge-patch+json" => {
                fields(&body, "error decoding patch: ")?;
                Ok(Self::MergePatch(body))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply(body)),
            _ => Err(ApiError::media_type(PATCHES)),
        }
    }

    /// What `scale` becomes; `live` is the object that it is of.
    fn to(&self, call: &Call<'_>, scale: &Value, live: &Live) -> ApiResult<Value> {
        let mut changed = scale.clone();
        match self {
            Self::Replace(body) => return Ok(body.clone()),
            Self::JsonPatch(body) => patch::json(&mut changed, body).map_err(refused)?,
            Self::MergePatch(body) => patch::merge(&mut changed, body),
            Self::Apply(body) => {
                // Kubernetes has no way back from an applied Scale to a custom object.
                let path =
                    pointer(&call.kind.scale.clone().unwrap_or_default()["specReplicasPath"]);
                let holders = managed::holders(live.kept.as_deref(), &path);
                if body["spec"]["replicas"] == scale["spec"]["replicas"] || holders.is_empty() {
                    let text = "a Scale of a custom kind cannot be applied: update or patch it";
                    return Err(ApiError::bad_request(text));
                }
                let causes: Vec<Cause> = holders
                    .iter()
                    .map(|m| {
                        let text = format!("conflict with {m:?} using autoscaling/v1");
                        Cause::new("FieldManagerConflict", ".spec.replicas", text)
                    })
                    .collect();
                let text = match holders.as_slice() {
                    [one] => format!(
                        "Apply failed with 1 conflict: conflict with {one:?} using autoscaling/v1: .spec.replicas"
                    ),
                    all => format!("Apply failed with {} conflicts", all.len()),
                };
                return Err(ApiError::new(409, "Conflict", text).with_causes(&causes));
            }
        }
        let replicas = &changed["spec"]["replicas"];
        if changed["kind"] != "Scale" || !(replicas.is_i64() || replicas.is_null()) {
            let got = super::body::go_type(replicas);
            let fault = format!(
                "json: cannot unmarshal {got} into Go struct field ScaleSpec.spec.replicas of type int32"
            );
            return Err(ApiError::patch(&changed, &fault));
        }
        Ok(changed)
    }
}
