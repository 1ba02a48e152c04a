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
    let options = Options::of(call)?;
    let (live, _) = call.live()?;
    let name = call.target.name.as_str();
    if call.kind.group.is_empty() && call.kind.plural == "namespaces" && LASTING.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden("", "namespaces", name, why));
    }
    let (server, kind) = (call.server, call.kind);
    let left = remove(server, kind, &call.key(name), &options).await?;
    match left {
        Left::Stays(mut object) => {
            kind.show(&mut object);
            // Only those who asked by the older name of the policy are told that it takes a while.
            let code = if options.old_background { 202 } else { 200 };
            Ok(respond(code, &object))
        }
        Left::Gone(mut object) if kind.shows_deleted() => {
            kind.show(&mut object);
            Ok(respond(200, &object))
        }
        Left::Gone(_) => {
            let mut details = json!({"name": name, "kind": kind.plural, "uid": text(&live, "uid")});
            if !kind.group.is_empty() {
                details["group"] = kind.group.as_str().into();
            }
            Ok(respond(
                200,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
            ))
        }
    }
}

/// What a request says of how it wants to delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// What becomes of dependents; empty when the request does not say.
    pub(crate) policy: String,
    pub(crate) dry: bool,
    /// How long the object may take to end, where its kind ends gracefully, in seconds.
    pub(crate) grace: Option<i64>,
    /// The uid and the resource version that it must have.
    uid: Option<String>,
    version: Option<String>,
    old_background: bool,
}

impl Options {
    /// Reads them from the body, or, when there is none, from the query.
    pub(crate) fn of(call: &Call<'_>) -> ApiResult<Self> {
        let value = if call.body.is_empty() {
            Self::queried(call)?
        } else {
            if !super::body::OBJECTS
                .split(", ")
                .any(|media| media == call.content_type)
            {
                return Err(ApiError::media_type(super::body::OBJECTS));
            }
            let read = super::body::read(call.content_type, &call.body)
                .ok_or_else(|| ApiError::media_type(super::body::OBJECTS))?;
            let (mut value, _) = read.map_err(|fault| {
                ApiError::bad_request(format!(
                    "couldn't get version/kind; json parse error: {fault}"
                ))
            })?;
            if value.is_null() {
                value = json!({});
            }
            Self::check_kind(call, &value)?;
            value
        };
        Self::read(&value)
    }

    fn queried(call: &Call<'_>) -> ApiResult<Value> {
        let mut value = json!({});
        for field in ["propagationPolicy", "dryRun"] {
            let asked = call.query.get(field);
            if !asked.is_empty() {
                value[field] = asked.into();
            }
        }
        let grace = call.query.get("gracePeriodSeconds");
        if !grace.is_empty() {
            let seconds = grace.parse::<i64>().map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {grace:?}: invalid syntax"
                ))
            })?;
            value["gracePeriodSeconds"] = seconds.into();
        }
        match call.query.get("orphanDependents") {
            "" => {}
            "0" | "false" => value["orphanDependents"] = false.into(),
            _ => value["orphanDependents"] = true.into(),
        }
        Ok(value)
    }

    /// Refuses a body that is of another kind, or whose fields are of other types.
    fn check_kind(call: &Call<'_>, value: &Value) -> ApiResult<()> {
        let bad = |text: String| Err(ApiError::bad_request(text));
        if !value.is_object() {
            return bad(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                super::body::go_type(value)
            ));
        }
        let kind = value["kind"].as_str().unwrap_or_default();
        let version = value["apiVersion"].as_str().unwrap_or_default();
        let known = ["", "v1", "meta.k8s.io/v1"].contains(&version)
            || version.split('/').next() == Some(call.kind.group.as_str())
            || version.ends_with(".k8s.io/v1")
            || ["policy/v1", "apps/v1"].contains(&version)
            || kind == "DeleteOptions";
        if !matches!(kind, "" | "DeleteOptions") || !known {
            let version = if version.is_empty() {
                "meta.k8s.io/v1"
            } else {
                version
            };
            let kind = if kind.is_empty() {
                "DeleteOptions"
            } else {
                kind
            };
            return bad(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
            ));
        }
        let name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        crate::core_types::mismatch(name, value).map_or(Ok(()), bad)
    }

    fn read(value: &Value) -> ApiResult<Self> {
        let mut causes = Vec::new();
        let policy = value["propagationPolicy"].as_str().unwrap_or_default();
        let orphan = value["orphanDependents"].as_bool();
        if orphan.is_some() && !value["propagationPolicy"].is_null() {
            let text = format!(
                "Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set"
            );
            causes.push(Cause::new("FieldValueInvalid", "propagationPolicy", text));
        }
        if !["", "Foreground", "Background", "Orphan"].contains(&policy) {
            let text = format!(
                "Unsupported value: {policy:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            );
            causes.push(Cause::new(
                "FieldValueNotSupported",
                "propagationPolicy",
                text,
            ));
        }
        let dry = match &value["dryRun"] {
            Value::String(one) => vec![Value::from(one.as_str())],
            Value::Array(list) => list.clone(),
            _ => Vec::new(),
        };
        if dry.iter().any(|value| value != "All") {
            let shown = Value::from(dry.clone());
            let text = format!("Unsupported value: {shown}: supported values: \"All\"");
            causes.push(Cause::new("FieldValueNotSupported", "dryRun", text));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &causes,
            ));
        }
        // What older clients say instead of a policy.
        let policy = match orphan {
            Some(true) => "Orphan",
            Some(false) => "Background",
            None => policy,
        };
        let wanted = |field: &str| value["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            policy: policy.to_owned(),
            dry: !dry.is_empty(),
            // A negative period counts as the shortest one.
            grace: value["gracePeriodSeconds"]
                .as_i64()
                .map(|seconds| if seconds < 0 { 1 } else { seconds }),
            uid: wanted("uid"),
            version: wanted("resourceVersion"),
            old_background: orphan == Some(false),
        })
    }

    /// Those that stand in an eviction.
    pub(crate) fn nested(value: &Value) -> ApiResult<Self> {
        Self::read(value)
    }

    /// Those of a deletion on the server's own account.
    pub(crate) fn own(policy: &str) -> Self {
        Self {
            policy: policy.to_owned(),
            ..Self::default()
        }
    }

    fn check(&self, kind: &Kind, live: &Value, revision: u64) -> ApiResult<()> {
        let why = match (&self.uid, &self.version) {
            (Some(uid), _) if *uid != text(live, "uid") => format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                text(live, "uid")
            ),
            (_, Some(version)) if *version != revision.to_string() => format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
            ),
            _ => return Ok(()),
        };
        Err(ApiError::conflict_of(
            &kind.group,
            &kind.kind,
            text(live, "name"),
            &why,
        ))
    }
}

/// What is left of an object that was to be deleted.
pub(crate) enum Left {
    /// It stays for now, as this.
    Stays(Value),
    /// It is gone, and was this.
    Gone(Value),
}

/// Seconds that a pod has to end; `None` where it is asked no more.
fn pod_grace(pod: &Value, asked: Option<i64>) -> Option<i64> {
    if deleting(pod) {
        let had = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
        return match (asked, had) {
            (_, None) => Some(0),
            (Some(asked), Some(had)) if asked < had => Some(asked),
            _ => None,
        };
    }
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    );
    let placed = !pod["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    if ended || !placed {
        return Some(0);
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    Some(match asked.or(own).unwrap_or(30) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    })
}

/// The finalizers of an object that is deleted by this policy: what waits for dependents is put in or taken out.
fn finalizers_for(live: &Value, policy: &str) -> Vec<String> {
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    let had = finalizers(live);
    let has = |name: &str| had.iter().any(|f| f == name);
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        "Background" => None,
        _ if has(ORPHAN) => Some(ORPHAN),
        _ if has(FOREGROUND) => Some(FOREGROUND),
        _ => None,
    };
    if wanted.is_some_and(has) && has(ORPHAN) != has(FOREGROUND) {
        return had;
    }
    had.into_iter()
        .filter(|f| f != ORPHAN && f != FOREGROUND)
        .chain(wanted.map(str::to_owned))
        .collect()
}

/// Begins or finishes a deletion.
pub(crate) async fn remove(
    server: &ApiServer,
    kind: &Kind,
    key: &str,
    options: &Options,
) -> ApiResult<Left> {
    loop {
        let Some((live, revision)) = server.read(key) else {
            let name = key.rsplit('/').next().unwrap_or_default();
            return Err(ApiError::not_found(kind, name));
        };
        options.check(kind, &live, revision)?;
        let mut object = live.clone();
        let mut list = finalizers_for(&live, &options.policy);
        let definition = kind.plural == "customresourcedefinitions";
        if definition && !deleting(&live) && !list.iter().any(|f| f == crate::crd::CLEANUP) {
            list.push(crate::crd::CLEANUP.to_owned());
        }
        let core = kind.group.is_empty();
        let namespace = core && kind.plural == "namespaces";
        let grace = if core && kind.plural == "pods" {
            match pod_grace(&live, options.grace) {
                Some(seconds) => seconds,
                None => return Ok(Left::Stays(live)),
            }
        } else {
            0
        };
        set_finalizers(&mut object, list.clone());
        let stays = !list.is_empty() || namespace || grace > 0;
        if stays && (!deleting(&live) || grace > 0) {
            meta(&mut object).set("deletionTimestamp", server.after(grace));
            if !namespace {
                meta(&mut object).set("deletionGracePeriodSeconds", grace);
            }
        }
        if stays && !deleting(&live) {
            if let Some(generation) = live["metadata"]["generation"].as_i64() {
                meta(&mut object).set("generation", generation + 1);
            }
            if namespace {
                object["status"]["phase"] = "Terminating".into();
            }
            if definition {
                crate::crd::terminate(&mut object, false, &server.now());
            }
        }
        let ended = |object| {
            if stays {
                Left::Stays(object)
            } else {
                Left::Gone(object)
            }
        };
        if options.dry || (stays && object == live) {
            return Ok(ended(object));
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
        if definition {
            crate::crd::reload(server).map_err(|e| ApiError::bad_request(e.to_string()))?;
        }
        if stays {
            let stored = server.read(key).map_or(object, |(o, _)| o);
            crate::gc::resume(server, key, &stored);
            return Ok(Left::Stays(stored));
        }
        crate::gc::removed(server, key, &live);
        return Ok(Left::Gone(live));
    }
}

pub(crate) async fn collection(call: &Call<'_>) -> ApiResult<Response<Body>> {
    // What is deleted is what a list would show, page by page, and is answered as it was.
    let listed = super::read::page(call)?;
    let options = Options::of(call)?;
    for entry in &listed.items {
        let removed = remove(call.server, call.kind, &entry.key, &options).await;
        match removed {
            Ok(_) => {}
            Err(error) if error.code() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed.respond(call))
}
