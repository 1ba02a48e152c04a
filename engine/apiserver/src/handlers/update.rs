//! Update and patch, of objects, their status and their scale.

use axum::body::Body;
use fleetwright_store::{Error as StoreError, Op};
use http::{Method, Response};
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, Cause, bytes, respond};
use crate::object::{deleting, encode, finalizers, meta, text};

/// How often a write without a version of its own is tried against concurrent writers.
const ATTEMPTS: usize = 32;

pub(crate) async fn write(call: &Call<'_>, method: &Method) -> ApiResult<Response<Body>> {
    let name = call.target.name.as_str();
    let patch = method == Method::PATCH;
    let body = if patch {
        check_patch_type(call)?;
        call.value()?
    } else {
        let body = call.object()?;
        call.check_namespace(&body)?;
        body
    };
    for _ in 0..ATTEMPTS {
        let (live, revision) = call.live()?;
        let mut object = if patch {
            let mut object = live.clone();
            merge(&mut object, &body);
            call.check_type(&object)?;
            object
        } else {
            body.clone()
        };
        let version = text(if patch { &body } else { &object }, "resourceVersion").to_owned();
        if version.is_empty() && !patch && call.kind.custom {
            let cause = Cause::new(
                "FieldValueInvalid",
                "metadata.resourceVersion",
                "Invalid value: 0: must be specified for an update",
            );
            return Err(ApiError::invalid(
                &call.kind.group,
                &call.kind.plural,
                name,
                &[cause],
            ));
        }
        if !version.is_empty() && version != revision.to_string() {
            return Err(ApiError::modified(call.kind, name));
        }
        if text(&object, "name") != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(&object, "name")
            )));
        }
        finish(call, &live, &mut object)?;
        match store(call, &live, object, revision).await? {
            Some(answer) => return Ok(answer),
            None if !version.is_empty() => return Err(ApiError::modified(call.kind, name)),
            None => {}
        }
    }
    Err(ApiError::modified(call.kind, name))
}

fn check_patch_type(call: &Call<'_>) -> ApiResult<()> {
    let merge = call.content_type == "application/merge-patch+json"
        || (call.content_type == "application/strategic-merge-patch+json" && !call.kind.custom);
    if merge {
        return Ok(());
    }
    Err(ApiError::new(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/merge-patch+json",
    ))
}

/// JSON merge patch, RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(map) = target {
        for (field, value) in fields {
            if value.is_null() {
                map.remove(field);
            } else {
                merge(map.entry(field.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}

/// Puts back what a request may not change, and counts the generation.
pub(crate) fn finish(call: &Call<'_>, live: &Value, object: &mut Value) -> ApiResult<()> {
    let (kind, name) = (call.kind, call.target.name.as_str());
    let uid = text(object, "uid");
    if !uid.is_empty() && uid != text(live, "uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(live, "uid")
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    if call.target.subresource == "status" {
        let status = object["status"].take();
        let finalizers = live["metadata"].clone();
        *object = live.clone();
        object["metadata"] = finalizers;
        object["status"] = status;
    } else if kind.status && kind.custom {
        object["status"] = live["status"].clone();
    }
    if object["status"].is_null()
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    let fixed = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "namespace",
        "generation",
        "generateName",
        "resourceVersion",
    ];
    for field in fixed {
        match &live["metadata"][field] {
            Value::Null => drop(meta(object).remove(field)),
            value => meta(object).set(field, value.clone()),
        }
    }
    call.defaults(object);
    super::create::prepare(call, object)?;
    call.manage(live, object);
    if kind.generation || kind.custom {
        let differs = |a: &Value, b: &Value| {
            a.as_object().into_iter().flatten().any(|(field, value)| {
                !matches!(field.as_str(), "metadata" | "status") && b[field] != *value
            })
        };
        if differs(object, live) || differs(live, object) {
            let next = live["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta(object).set("generation", next);
        }
    }
    if deleting(live) {
        let had = finalizers(live);
        if let Some(new) = finalizers(object).iter().find(|f| !had.contains(f)) {
            let text = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{\"{new}\"}}"
            );
            let cause = Cause::new("FieldValueForbidden", "metadata.finalizers", text);
            return Err(ApiError::invalid(&kind.group, &kind.kind, name, &[cause]));
        }
    }
    Ok(())
}

/// Stores what changed; `None` when somebody else was faster.
async fn store(
    call: &Call<'_>,
    live: &Value,
    object: Value,
    revision: u64,
) -> ApiResult<Option<Response<Body>>> {
    let server = call.server;
    if object == *live || call.dry_run() {
        return Ok(Some(respond(200, &object)));
    }
    let key = call.key(&call.target.name);
    let ends =
        deleting(&object) && finalizers(&object).is_empty() && call.kind.plural != "namespaces";
    let op = if ends {
        Op::Delete {
            key: key.clone(),
            expect: Some(revision),
            last: Some(encode(&object)),
        }
    } else {
        Op::Put {
            key: key.clone(),
            value: encode(&object),
            expect: Some(revision),
        }
    };
    match server.0.store.commit(vec![op]).await {
        Ok(_) => {}
        Err(StoreError::Conflict { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if ends {
        crate::gc::removed(server, &key, &object);
        return Ok(Some(respond(200, &object)));
    }
    server.unindex(&key, live);
    server.index(&key, &object);
    if call.kind.plural == "customresourcedefinitions" {
        crate::crd::reload(server).map_err(|e| ApiError::bad_request(e.to_string()))?;
    }
    match server.0.store.get(&key) {
        Some(entry) => Ok(Some(bytes(200, entry.value))),
        None => Ok(Some(respond(200, &object))),
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
    let body = call.value()?;
    for _ in 0..ATTEMPTS {
        let (live, revision) = call.live()?;
        let mut scale = scale_of(call, &live);
        if method == Method::PATCH {
            merge(&mut scale, &body);
        } else {
            scale = body.clone();
        }
        let version = text(&scale, "resourceVersion");
        if !version.is_empty() && version != revision.to_string() {
            return Err(ApiError::modified(call.kind, &call.target.name));
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let cause = Cause::new(
                "FieldValueInvalid",
                "spec.replicas",
                format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            );
            return Err(ApiError::invalid(
                "autoscaling",
                "Scale",
                &call.target.name,
                &[cause],
            ));
        }
        let mut object = live.clone();
        let path = pointer(&call.kind.scale.clone().unwrap_or_default()["specReplicasPath"]);
        let mut slot = &mut object;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            slot = &mut slot[part];
        }
        *slot = replicas.into();
        finish(call, &live, &mut object)?;
        if store(call, &live, object, revision).await?.is_some() {
            let shown = if call.dry_run() { live } else { call.live()?.0 };
            return Ok(respond(200, &scale_of(call, &shown)));
        }
    }
    Err(ApiError::modified(call.kind, &call.target.name))
}
