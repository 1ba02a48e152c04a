//! Update and patch, of objects, their status and their scale.

use axum::body::Body;
use fleetwright_schema::managed::{self, ApplyError, Kept};
use fleetwright_schema::patch::{self, PatchError};
use fleetwright_store::{Error as StoreError, Op};
use http::{Method, Response};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, Cause, bytes, respond};
use crate::object::{Live, deleting, finalizers, meta, owners, text, whole};

/// How often a write without a version of its own is tried against concurrent writers.
const ATTEMPTS: usize = 32;

/// How a request changes an object.
enum Change {
    Replace(Value),
    JsonPatch(Value),
    MergePatch(Value),
    StrategicMergePatch(Value),
    Apply(Value),
}

impl Change {
    fn read(call: &Call<'_>, method: &Method) -> ApiResult<Self> {
        if method == Method::PUT {
            let body = call.object()?;
            call.check_namespace(&body)?;
            check_name(call, &body)?;
            return Ok(Self::Replace(body));
        }
        match call.content_type {
            "application/json-patch+json" => Ok(Self::JsonPatch(call.value()?.0)),
            "application/merge-patch+json" => Ok(Self::MergePatch(call.value()?.0)),
            "application/strategic-merge-patch+json" if !call.kind.custom => {
                Ok(Self::StrategicMergePatch(call.value()?.0))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply(configuration(call)?)),
            _ => Err(ApiError::media_type(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// The resource version that the request insists on; empty for any.
    fn version<'a>(&'a self, object: &'a Value) -> &'a str {
        match self {
            Self::Replace(_) => text(object, "resourceVersion"),
            Self::JsonPatch(_) => "",
            Self::MergePatch(body) | Self::StrategicMergePatch(body) | Self::Apply(body) => {
                text(body, "resourceVersion")
            }
        }
    }

    /// What `live` becomes.
    fn to(&self, call: &Call<'_>, live: &Live) -> ApiResult<(Value, Managed)> {
        let mut object = match self {
            Self::Replace(body) => {
                let mut object = body.clone();
                let managed = Managed::taken_from(&mut object);
                return Ok((object, managed));
            }
            Self::Apply(body) => {
                let (object, kept) = applied(call, Some(live), body)?;
                return Ok((object, Managed::Applied(kept)));
            }
            Self::JsonPatch(body) => {
                // Its paths may lead into the managed fields.
                let mut object = whole(live.object.clone(), live.kept.as_deref());
                patch::json(&mut object, body).map_err(refused)?;
                object
            }
            Self::MergePatch(body) => {
                let mut object = live.object.clone();
                patch::merge(&mut object, body);
                object
            }
            Self::StrategicMergePatch(body) => {
                let root = call.kind.compiled.root();
                patch::strategic(root, &live.object, body).map_err(refused)?
            }
        };
        call.check_type(&object)?;
        call.known_fields(&mut object, &[])?;
        let managed = Managed::taken_from(&mut object);
        Ok((object, managed))
    }
}

/// Where the managed fields of what a request makes come from.
enum Managed {
    /// Those that were there, and what the request changes.
    Updated,
    /// There are none any more.
    Reset,
    /// They are here already.
    Applied(Kept),
}

impl Managed {
    /// Takes managed fields out of an object that a client sends: a list of one empty entry is a reset, all else counts
    /// for nothing.
    fn taken_from(object: &mut Value) -> Self {
        let sent = object
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .and_then(|metadata| metadata.remove("managedFields"));
        match sent {
            Some(list) if list == json!([{}]) => Self::Reset,
            _ => Self::Updated,
        }
    }
}

fn refused(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::Unfit(_) => ApiError::unprocessable(),
    }
}

/// The body of an apply, without what this request does not apply.
fn configuration(call: &Call<'_>) -> ApiResult<Value> {
    let (mut body, _) = call.value()?;
    let (version, kind) = (call.kind.api_version(), call.kind.kind.as_str());
    if !body.is_object() || body["apiVersion"] != version.as_str() || body["kind"] != kind {
        let got = |field: &str| body[field].as_str().unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "invalid object type: {}, Kind={}",
            got("apiVersion"),
            got("kind")
        )));
    }
    check_name(call, &body)?;
    call.check_namespace(&body)?;
    call.quantities(&mut body);
    if !body["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(map) = body.as_object_mut() {
        if call.target.subresource == "status" {
            map.retain(|name, _| {
                matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            });
            if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| {
                    matches!(name.as_str(), "name" | "namespace" | "resourceVersion")
                });
            }
        } else if call.kind.status {
            map.remove("status");
        }
    }
    Ok(body)
}

fn check_name(call: &Call<'_>, object: &Value) -> ApiResult<()> {
    let (name, wanted) = (text(object, "name"), call.target.name.as_str());
    if name == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({wanted})"
    )))
}

fn applied(call: &Call<'_>, live: Option<&Live>, body: &Value) -> ApiResult<(Value, Kept)> {
    let (version, now) = (call.kind.api_version(), call.server.now());
    let writer = call.writer(&version, &now);
    let force = call.query.flag("force");
    let schema = &call.kind.compiled;
    let object = live.map_or(&Value::Null, |live| &live.object);
    let kept = live.and_then(|live| live.kept.as_deref());
    let made = managed::apply(schema, object, kept, body, &writer, force);
    made.map_err(|error| match error {
        ApplyError::Untyped(ref faults) => {
            let (namespace, name) = (text(body, "namespace"), text(body, "name"));
            ApiError::bad_request(format!(
                "failed to create typed patch object ({namespace}/{name}; {version}, Kind={}): {}",
                call.kind.kind,
                faults.join("\n")
            ))
        }
        ApplyError::Conflicts(ref conflicts) => {
            let causes: Vec<Cause> = conflicts
                .iter()
                .map(|c| {
                    let text = format!("conflict with {}", c.manager);
                    Cause::new("FieldManagerConflict", c.field.as_str(), text)
                })
                .collect();
            ApiError::new(409, "Conflict", error.to_string()).with_causes(&causes)
        }
    })
}

pub(crate) async fn write(call: &Call<'_>, method: &Method) -> ApiResult<Response<Body>> {
    let name = call.target.name.as_str();
    let change = Change::read(call, method)?;
    for _ in 0..ATTEMPTS {
        let live = match (call.live_apart(), &change) {
            (Ok(found), _) => found,
            (Err(_), Change::Apply(body)) if call.target.subresource.is_empty() => {
                if !text(body, "resourceVersion").is_empty() {
                    return Err(ApiError::modified(call.kind, name));
                }
                let (object, kept) = applied(call, None, body)?;
                match super::create::insert(call, object, Some(kept)).await {
                    // Somebody else was faster: apply to what they made.
                    Err(error) if error.code() == 409 && call.live().is_ok() => continue,
                    answer => return answer,
                }
            }
            (Err(error), _) => return Err(error),
        };
        let (mut object, managed) = change.to(call, &live)?;
        let version = change.version(&object).to_owned();
        if version.is_empty() && matches!(change, Change::Replace(_)) && call.kind.custom {
            let text = "Invalid value: 0: must be specified for an update";
            let cause = Cause::new("FieldValueInvalid", "metadata.resourceVersion", text);
            let (group, plural) = (&call.kind.group, &call.kind.plural);
            return Err(ApiError::invalid(group, plural, name, &[cause]));
        }
        if !version.is_empty() && version != live.revision.to_string() {
            return Err(ApiError::modified(call.kind, name));
        }
        check_name(call, &object)?;
        let kept = finish(call, &live, &mut object, managed)?;
        match store(call, &live, object, kept).await? {
            Some(answer) => return Ok(answer),
            None if !version.is_empty() => return Err(ApiError::modified(call.kind, name)),
            None => {}
        }
    }
    Err(ApiError::modified(call.kind, name))
}

/// Puts back what a request may not change, counts the generation, and gives the managed fields.
fn finish(
    call: &Call<'_>,
    Live {
        object: live, kept, ..
    }: &Live,
    object: &mut Value,
    managed: Managed,
) -> ApiResult<Kept> {
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
        let rest = live.as_object().into_iter().flatten();
        let rest = rest.filter(|(field, _)| *field != "status");
        *object = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
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
    crate::core_objects::prepare(call, Some(live), object)?;
    check_immutable(call, live, object)?;
    call.check(object, Some(live))?;
    let kept = match managed {
        Managed::Applied(kept) => kept,
        Managed::Updated => call.manage(live, kept.as_deref(), object),
        Managed::Reset => None,
    };
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
            // Custom kinds are checked twice, and say so twice.
            let causes = vec![cause; if kind.custom { 2 } else { 1 }];
            return Err(ApiError::invalid(&kind.group, &kind.kind, name, &causes));
        }
    }
    Ok(kept)
}

/// Refuses changes of what single core kinds keep for ever.
fn check_immutable(call: &Call<'_>, live: &Value, object: &Value) -> ApiResult<()> {
    let (group, kind, name) = (&call.kind.group, &call.kind.kind, &call.target.name);
    let refuse = |causes: &[Cause]| Err(ApiError::invalid(group, kind, name, causes));
    match (group.as_str(), call.kind.plural.as_str()) {
        ("", plural @ ("secrets" | "configmaps")) => {
            let mut causes = Vec::new();
            if plural == "secrets" && object["type"] != live["type"] {
                let text = format!("Invalid value: {}: field is immutable", object["type"]);
                causes.push(Cause::new("FieldValueInvalid", "type", text));
            }
            if live["immutable"] == true {
                let text = "Forbidden: field is immutable when `immutable` is set";
                let kept = |field: &&str| object[*field] != live[*field];
                let changed = ["immutable", "data", "binaryData"];
                causes.extend(
                    changed
                        .into_iter()
                        .filter(kept)
                        .map(|field| Cause::new("FieldValueForbidden", field, text)),
                );
            }
            if causes.is_empty() {
                return Ok(());
            }
            refuse(&causes)
        }
        ("", "nodes") => {
            let had = live["spec"]["providerID"].as_str().unwrap_or_default();
            if had.is_empty() || object["spec"]["providerID"] == had {
                return Ok(());
            }
            let text =
                "Forbidden: node updates may not change providerID except from \"\" to valid";
            refuse(&[Cause::new("FieldValueForbidden", "spec.providerID", text)])
        }
        _ => Ok(()),
    }
}

/// Stores what changed; `None` when somebody else was faster.
async fn store(
    call: &Call<'_>,
    live: &Live,
    object: Value,
    kept: Kept,
) -> ApiResult<Option<Response<Body>>> {
    let (server, managed) = (call.server, kept.as_deref());
    if call.dry_run() {
        return Ok(Some(respond(200, &whole(object, managed))));
    }
    let before = live.kept.as_deref();
    if object == live.object && managed.map(RawValue::get) == before.map(RawValue::get) {
        return Ok(Some(bytes(200, call.kind.shown(live.encoded.clone()))));
    }
    let key = call.key(&call.target.name);
    let ends =
        deleting(&object) && finalizers(&object).is_empty() && call.kind.plural != "namespaces";
    let op = if ends {
        Op::Delete {
            key: key.clone(),
            expect: Some(live.revision),
            last: Some(call.encode(&object, managed)),
        }
    } else {
        Op::Put {
            key: key.clone(),
            value: call.encode(&object, managed),
            expect: Some(live.revision),
        }
    };
    match server.0.store.commit(vec![op]).await {
        Ok(_) => {}
        Err(StoreError::Conflict { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if ends {
        crate::gc::removed(server, &key, &object);
        return Ok(Some(respond(200, &whole(object, managed))));
    }
    if call.kind.plural == "events" || owners(&object) != owners(&live.object) {
        server.unindex(&key, &live.object);
        call.index(&key, &object, managed);
    }
    if call.kind.plural == "customresourcedefinitions" {
        crate::crd::reload(server).map_err(|e| ApiError::bad_request(e.to_string()))?;
    }
    match server.0.store.get(&key) {
        Some(entry) => Ok(Some(bytes(200, call.kind.shown(entry.value)))),
        None => Ok(Some(respond(200, &whole(object, managed)))),
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
    let (body, _) = call.value()?;
    for _ in 0..ATTEMPTS {
        let live = call.live_apart()?;
        let mut scale = scale_of(call, &live.object);
        if method == Method::PATCH {
            patch::merge(&mut scale, &body);
        } else {
            scale = body.clone();
        }
        let version = text(&scale, "resourceVersion");
        if !version.is_empty() && version != live.revision.to_string() {
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
        let mut object = live.object.clone();
        let path = pointer(&call.kind.scale.clone().unwrap_or_default()["specReplicasPath"]);
        let mut slot = &mut object;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            slot = &mut slot[part];
        }
        *slot = replicas.into();
        let kept = finish(call, &live, &mut object, Managed::Updated)?;
        if store(call, &live, object, kept).await?.is_some() {
            let shown = match call.dry_run() {
                true => live.object,
                false => call.live()?.0,
            };
            return Ok(respond(200, &scale_of(call, &shown)));
        }
    }
    Err(ApiError::modified(call.kind, &call.target.name))
}
