//! Delete, of one object and of a collection.

use axum::body::Body;
use fleetwright_store::{Error as StoreError, Op};
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::ApiServer;
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::object::{deleting, encode, finalizers, meta, set_finalizers, text};
use crate::registry::Kind;

/// Namespaces that are never deleted.
const LASTING: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(crate) async fn delete(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let options = options(call)?;
    let (live, revision) = call.live()?;
    let name = call.target.name.as_str();
    if call.kind.group.is_empty() && call.kind.plural == "namespaces" && LASTING.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden("", "namespaces", name, why));
    }
    let wanted = &options["preconditions"];
    if let Some(uid) = wanted["uid"].as_str()
        && uid != text(&live, "uid")
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(&live, "uid")
        );
        return Err(ApiError::conflict(call.kind, name, &why));
    }
    if let Some(version) = wanted["resourceVersion"].as_str()
        && version != revision.to_string()
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {revision}"
        );
        return Err(ApiError::conflict(call.kind, name, &why));
    }
    let policy = options["propagationPolicy"].as_str().unwrap_or_default();
    let left = remove(
        call.server,
        call.kind,
        &call.key(name),
        policy,
        !options["dryRun"].is_null(),
    )
    .await?;
    let shown = call.kind.plural == "customresourcedefinitions";
    Ok(match left {
        Some(mut object) => {
            call.kind.show(&mut object);
            respond(200, &object)
        }
        None if shown => respond(200, &live),
        None => {
            let mut details =
                json!({"name": name, "kind": call.kind.plural, "uid": text(&live, "uid")});
            if !call.kind.group.is_empty() {
                details["group"] = call.kind.group.as_str().into();
            }
            respond(
                200,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
            )
        }
    })
}

/// The options of a deletion, from body and query. `dryRun` is there only when nothing is to be deleted.
pub(crate) fn options(call: &Call<'_>) -> ApiResult<Value> {
    let mut options = if call.body.is_empty() {
        json!({})
    } else {
        call.value()?.0
    };
    if !options.is_object() {
        return Err(ApiError::bad_request(
            "the body is no DeleteOptions: an object is expected",
        ));
    }
    for field in ["propagationPolicy", "dryRun"] {
        let asked = call.query.get(field);
        if !asked.is_empty() {
            options[field] = asked.into();
        }
    }
    let refuse = |field: &str, text: String| {
        let cause = Cause::new("FieldValueNotSupported", field, text);
        let (group, kind) = ("meta.k8s.io", "DeleteOptions");
        Err(ApiError::invalid(group, kind, "", &[cause]))
    };
    let dry = match options["dryRun"].take() {
        Value::String(one) => vec![one.into()],
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    if dry.iter().any(|value| value != "All") {
        let shown = Value::from(dry);
        let text = format!("Unsupported value: {shown}: supported values: \"All\"");
        return refuse("dryRun", text);
    }
    if !dry.is_empty() {
        options["dryRun"] = dry.into();
    }
    // What older clients say instead.
    if let Some(orphan) = options["orphanDependents"].as_bool() {
        if !options["propagationPolicy"].is_null() {
            let text = "Invalid value: orphanDependents and deletionPropagation cannot be both set";
            return refuse("propagationPolicy", text.to_owned());
        }
        options["propagationPolicy"] = if orphan { "Orphan" } else { "Background" }.into();
    }
    let policy = &options["propagationPolicy"];
    if !policy.is_null()
        && !["", "Foreground", "Background", "Orphan"]
            .iter()
            .any(|p| policy == p)
    {
        let text = format!(
            "Unsupported value: {policy}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
        return refuse("propagationPolicy", text);
    }
    Ok(options)
}

/// Begins or finishes a deletion; gives the object while it stays.
pub(crate) async fn remove(
    server: &ApiServer,
    kind: &Kind,
    key: &str,
    policy: &str,
    dry: bool,
) -> ApiResult<Option<Value>> {
    loop {
        let Some((live, revision)) = server.read(key) else {
            return Ok(None);
        };
        let mut object = live.clone();
        let mut list = finalizers(&object);
        let extra = match policy {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            _ => None,
        };
        if let Some(extra) = extra
            && !list.iter().any(|f| f == extra)
        {
            list.push(extra.to_owned());
        }
        set_finalizers(&mut object, list.clone());
        let namespace = kind.group.is_empty() && kind.plural == "namespaces";
        let stays = !list.is_empty() || namespace;
        if !deleting(&live) {
            meta(&mut object).set("deletionTimestamp", server.now());
            if !namespace {
                meta(&mut object).set("deletionGracePeriodSeconds", 0);
            }
            if let Some(generation) = live["metadata"]["generation"].as_i64() {
                meta(&mut object).set("generation", generation + 1);
            }
            if namespace {
                object["status"]["phase"] = "Terminating".into();
            }
        }
        if dry || (stays && object == live) {
            return Ok(stays.then_some(object));
        }
        let op = if stays {
            Op::Put {
                key: key.to_owned(),
                value: encode(&object),
                expect: Some(revision),
            }
        } else {
            Op::Delete {
                key: key.to_owned(),
                expect: Some(revision),
                last: Some(encode(&live)),
            }
        };
        match server.0.store.commit(vec![op]).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        if stays {
            let stored = server.read(key).map_or(object, |(o, _)| o);
            crate::gc::resume(server, key, &stored);
            return Ok(Some(stored));
        }
        crate::gc::removed(server, key, &live);
        return Ok(None);
    }
}

pub(crate) async fn collection(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let selector = call.selector()?;
    let options = options(call)?;
    let policy = options["propagationPolicy"].as_str().unwrap_or_default();
    let dry = !options["dryRun"].is_null();
    let (entries, revision) = call.server.0.store.range(&call.scope(), None, 0);
    let mut items = Vec::new();
    for entry in entries {
        let Some(object) = super::read::parsed(&call.kind.shown(entry.value)) else {
            continue;
        };
        if selector.matches(&object) {
            let left = remove(call.server, call.kind, &entry.key, policy, dry).await?;
            let mut object = left.unwrap_or(object);
            call.kind.show(&mut object);
            items.push(object);
        }
    }
    Ok(respond(
        200,
        &json!({"kind": call.kind.list_kind, "apiVersion": call.kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items}),
    ))
}
