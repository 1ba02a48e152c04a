//! Update and patch, of objects, their status and their scale.

use axum::body::Body;
use fleetwright_schema::managed::{self, ApplyError, Kept};
use fleetwright_schema::patch::{self, PatchError};
use fleetwright_store::{Error as StoreError, Op};
use http::{Method, Response};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, Cause, bytes, respond};
use crate::object::{Live, deleting, finalizers, meta, owners, text, whole};

/// How often a write without a version of its own is tried against concurrent writers.
pub(super) const ATTEMPTS: usize = 32;

/// The media types of patches of custom kinds.
pub(super) const PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// How a request changes an object.
enum Change {
    Replace(Value),
    JsonPatch(Value),
    MergePatch(Value, Duplicates),
    StrategicMergePatch(Value, Duplicates),
    Apply(Value),
}

/// The paths of the fields that a patch gives twice.
type Duplicates = Vec<String>;

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
            "application/merge-patch+json" => {
                let (body, twice) = call.value()?;
                if body.is_null() {
                    return Err(ApiError::bad_request("Invalid JSON Patch"));
                }
                fields(&body, "error decoding patch: ")?;
                Ok(Self::MergePatch(body, twice))
            }
            "application/strategic-merge-patch+json" if !call.kind.custom => {
                let (body, twice) = call.value()?;
                fields(&body, "")?;
                Ok(Self::StrategicMergePatch(body, twice))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply(configuration(call)?)),
            _ => Err(ApiError::media_type(PATCHES)),
        }
    }

    /// Whether the request itself insists on a resource version, so that it is not tried again.
    fn insists(&self) -> bool {
        match self {
            Self::JsonPatch(_) => false,
            Self::Replace(body)
            | Self::MergePatch(body, _)
            | Self::StrategicMergePatch(body, _)
            | Self::Apply(body) => !text(body, "resourceVersion").is_empty(),
        }
    }

    /// What `live` becomes.
    fn to(&self, call: &Call<'_>, live: &Live) -> ApiResult<(Value, Managed)> {
        let mut object = match self {
            Self::Replace(body) => body.clone(),
            Self::Apply(body) => {
                let (object, kept) = applied(call, Some(live), body)?;
                return Ok((object, Managed::Applied(kept)));
            }
            Self::JsonPatch(body) => {
                // Its paths may lead into the managed fields.
                let mut object = whole(live.object.clone(), live.kept.as_deref());
                patch::json(&mut object, body).map_err(refused)?;
                call.patched(object, &[])?
            }
            Self::MergePatch(body, twice) => {
                let mut object = live.object.clone();
                patch::merge(&mut object, body);
                call.patched(object, twice)?
            }
            Self::StrategicMergePatch(body, twice) => {
                let root = call.kind.compiled().root();
                let object = patch::strategic(root, &live.object, body).map_err(refused)?;
                call.patched(object, twice)?
            }
        };
        let managed = Managed::taken_from(call, &mut object);
        Ok((object, managed))
    }
}

/// Where the managed fields of what a request makes come from.
pub(super) enum Managed {
    /// Those that were there, and what the request changes.
    Updated,
    /// Those that the request gives, and what it changes.
    Given(Kept),
    /// They are here already.
    Applied(Kept),
}

impl Managed {
    /// Takes managed fields out of an object that a client sends. A list of one empty entry is the wish to forget all, and so
    /// is an empty one for core kinds; what is not understood counts for nothing, as what comes through a subresource.
    fn taken_from(call: &Call<'_>, object: &mut Value) -> Self {
        let sent = object
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .and_then(|metadata| metadata.remove("managedFields"));
        let understood = |entry: &Value| {
            entry["fieldsType"] == "FieldsV1"
                && matches!(entry["operation"].as_str(), Some("Apply" | "Update"))
        };
        match sent.as_ref().and_then(Value::as_array) {
            _ if !call.target.subresource.is_empty() => Self::Updated,
            Some(list) if list.as_slice() == [json!({})] => Self::Given(None),
            Some(list) if list.is_empty() && !call.kind.custom => Self::Given(None),
            Some(list) if !list.is_empty() && list.iter().all(understood) => {
                to_raw_value(list).map_or(Self::Updated, |list| Self::Given(Some(list)))
            }
            _ => Self::Updated,
        }
    }
}

/// Refuses a patch that is no object.
pub(super) fn fields(body: &Value, prefix: &str) -> ApiResult<()> {
    if body.is_object() {
        return Ok(());
    }
    let got = super::body::go_type(body);
    Err(ApiError::bad_request(format!(
        "{prefix}json: cannot unmarshal {got} into Go value of type map[string]interface {{}}"
    )))
}

pub(super) fn refused(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::TooMany(text) => ApiError::too_large(text),
        PatchError::Unfit(_) => ApiError::unprocessable(),
    }
}

/// The body of an apply, without what this request does not apply.
fn configuration(call: &Call<'_>) -> ApiResult<Value> {
    let (mut body, _) = call.value()?;
    let (version, kind) = (call.kind.api_version(), call.kind.kind.as_str());
    if !body.is_object() || body["apiVersion"] != version.as_str() || body["kind"] != kind {
        let got = |field: &str| body[field].as_str().unwrap_or_default();
        let version = got("apiVersion");
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(ApiError::bad_request(format!(
            "invalid object type: {slash}{version}, Kind={}",
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

pub(super) fn check_name(call: &Call<'_>, object: &Value) -> ApiResult<()> {
    let (name, wanted) = (text(object, "name"), call.target.name.as_str());
    if name == wanted {
        return Ok(());
    }
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )));
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({wanted})"
    )))
}

fn applied(call: &Call<'_>, live: Option<&Live>, body: &Value) -> ApiResult<(Value, Kept)> {
    let (version, now) = (call.kind.api_version(), call.server.now());
    let writer = call.writer(&version, &now);
    let force = call.query.flag("force");
    let schema = call.kind.compiled();
    let object = live.map_or(&Value::Null, |live| &live.object);
    let kept = live.and_then(|live| live.kept.as_deref());
    let made = managed::apply(schema, object, kept, body, &writer, force);
    let (mut made, kept) = made.map_err(|error| match error {
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
    })?;
    crate::metadata::normalize(&mut made);
    Ok((made, kept))
}

pub(crate) async fn write(call: &Call<'_>, method: &Method) -> ApiResult<Response<Body>> {
    let name = call.target.name.as_str();
    let change = Change::read(call, method)?;
    for _ in 0..ATTEMPTS {
        let live = match (call.live_apart(), &change) {
            (Ok(found), _) => found,
            (Err(_), Change::Apply(body)) if call.target.subresource.is_empty() => {
                let uid = text(body, "uid");
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(ApiError::conflict(call.kind, name, &why));
                }
                let (mut object, kept) = applied(call, None, body)?;
                meta(&mut object).remove("resourceVersion");
                match super::create::insert(call, object, Some(kept)).await {
                    // Somebody else was faster: apply to what they made.
                    Err(error) if error.code() == 409 && call.live().is_ok() => continue,
                    answer => return answer,
                }
            }
            (Err(_), Change::Replace(body))
                if call.kind.made_by_update() && text(body, "resourceVersion").is_empty() =>
            {
                match super::create::insert(call, body.clone(), None).await {
                    Err(error) if error.code() == 409 && call.live().is_ok() => continue,
                    answer => return answer,
                }
            }
            (Err(error), _) => return Err(error),
        };
        let (mut object, managed) = change.to(call, &live)?;
        check_name(call, &object)?;
        call.check_namespace(&object)?;
        check_version(call, &object, live.revision)?;
        if matches!(change, Change::Replace(_)) {
            check_uid(call, &live.object, &object)?;
        }
        let kept = finish(call, &live, &mut object, managed)?;
        match store(call, &live, object, kept).await? {
            Some(answer) => return Ok(answer),
            None if change.insists() => return Err(ApiError::modified(call.kind, name)),
            None => {}
        }
    }
    Err(ApiError::modified(call.kind, name))
}

/// Refuses a resource version that is not the object's; some kinds insist on one.
fn check_version(call: &Call<'_>, object: &Value, revision: u64) -> ApiResult<()> {
    let (kind, name) = (call.kind, call.target.name.as_str());
    let version = text(object, "resourceVersion");
    if matches!(version, "" | "0") {
        if !kind.conditional() {
            return Ok(());
        }
        let text = "Invalid value: 0: must be specified for an update";
        let cause = Cause::new("FieldValueInvalid", "metadata.resourceVersion", text);
        return Err(ApiError::invalid(&kind.group, &kind.plural, name, &[cause]));
    }
    if version == revision.to_string() {
        return Ok(());
    }
    Err(ApiError::modified(kind, name))
}

/// Refuses to replace an object by one of another uid.
fn check_uid(call: &Call<'_>, live: &Value, object: &Value) -> ApiResult<()> {
    let (uid, known) = (text(object, "uid"), text(live, "uid"));
    if uid.is_empty() || uid == known {
        return Ok(());
    }
    let path = match (call.kind.custom, call.kind.plural.as_str()) {
        (true, plural) => format!("{}/{plural}", call.kind.group),
        (false, "nodes") => "minions".to_owned(),
        (false, plural) => plural.to_owned(),
    };
    let key = [path.as_str(), &call.target.namespace, &call.target.name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {known}"
    );
    Err(ApiError::conflict(call.kind, &call.target.name, &why))
}

/// Puts back what a request may not change, counts the generation, and gives the managed fields.
pub(super) fn finish(
    call: &Call<'_>,
    Live {
        object: live, kept, ..
    }: &Live,
    object: &mut Value,
    managed: Managed,
) -> ApiResult<Kept> {
    let kind = call.kind;
    if call.target.subresource == "status" {
        let status = object["status"].take();
        let rest = live.as_object().into_iter().flatten();
        let rest = rest.filter(|(field, _)| *field != "status");
        *object = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
        object["status"] = status;
    } else if kind.status {
        object["status"] = live["status"].clone();
        if kind.group.is_empty() && kind.plural == "namespaces" {
            object["spec"] = live["spec"].clone();
        }
    }
    if object["status"].is_null()
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    crate::metadata::keep(live, object);
    call.defaults(object);
    crate::core_objects::prepare(call, Some(live), object)?;
    check_immutable(call, live, object)?;
    call.check(object, Some(live))?;
    let kept = match managed {
        Managed::Applied(kept) => kept,
        Managed::Given(kept) => call.manage(live, kept.as_deref(), object),
        Managed::Updated => call.manage(live, kept.as_deref(), object),
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
pub(super) async fn store(
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
            // What is told of it last is what it was before it was let go.
            last: Some(call.encode(&live.object, live.kept.as_deref())),
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
        Some(entry) => Ok(Some(bytes(200, call.kind.shown(entry.value.bytes())))),
        None => Ok(Some(respond(200, &whole(object, managed)))),
    }
}
