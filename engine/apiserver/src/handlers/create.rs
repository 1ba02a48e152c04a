//! Create.

use axum::body::Body;
use fleetwright_store::{Error as StoreError, Op};
use http::Response;
use serde_json::Value;

use super::Call;
use crate::error::{ApiError, ApiResult, Cause, respond};
use crate::object::{key, meta, text, whole};
use fleetwright_schema::managed::{self, Kept};

/// How much of a `generateName` goes into a name, in bytes.
const LONGEST_PREFIX: usize = 58;
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub(crate) async fn create(call: &Call<'_>) -> ApiResult<Response<Body>> {
    if call.kind.namespaced && call.target.namespace.is_empty() {
        return Err(ApiError::method());
    }
    let object = call.object()?;
    call.check_namespace(&object)?;
    insert(call, object, None).await
}

/// Stores a new object, from a create, or from an apply that made its managed fields.
pub(crate) async fn insert(
    call: &Call<'_>,
    mut object: Value,
    applied: Option<Kept>,
) -> ApiResult<Response<Body>> {
    let (kind, server) = (call.kind, call.server);
    let prefix = text(&object, "generateName").to_owned();
    let generated = text(&object, "name").is_empty() && !prefix.is_empty();
    if generated {
        // What is too long for a name is cut, so that the random part fits.
        let cut = prefix.char_indices().map(|(at, c)| at + c.len_utf8());
        let cut = cut.take_while(|end| *end <= LONGEST_PREFIX).last();
        let prefix = prefix.get(..cut.unwrap_or(0)).unwrap_or_default();
        meta(&mut object).set("name", prefix.to_owned() + &suffix(call));
    }
    let name = text(&object, "name").to_owned();
    if server.0.options.audit.is_some() {
        call.named.get_or_init(|| name.clone());
    }
    if !text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_namespace_exists(call, &name)?;
    if kind.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(&kind.group, &kind.plural, &name, why));
    }
    let now = server.now();
    {
        let mut meta = meta(&mut object);
        for field in [
            "resourceVersion",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            meta.remove(field);
        }
        meta.set("uid", server.0.options.random.uuid());
        meta.set("creationTimestamp", now);
        if kind.generation || kind.custom {
            meta.set("generation", 1);
        }
        if kind.namespaced {
            meta.set("namespace", call.target.namespace.as_str());
        } else {
            meta.remove("namespace");
        }
    }
    // Simulated kubelets create pods and nodes with their status; custom kinds get theirs by the subresource.
    if kind.status
        && kind.custom
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    call.defaults(&mut object);
    crate::core_objects::prepare(call, None, &mut object)?;
    call.check(&object, None)?;
    meta(&mut object).remove("managedFields");
    let managed = applied.unwrap_or_else(|| {
        let managed = call.manage(&Value::Null, None, &object);
        if kind.status && !kind.custom {
            managed::disown(managed, "f:status")
        } else {
            managed
        }
    });
    crate::core_objects::admit(call, &mut object);
    let at = call.key(&name);
    if call.dry_run() {
        if server.0.store.get(&at).is_some() {
            return Err(ApiError::exists(kind, &name));
        }
        return Ok(respond(201, &whole(object, managed.as_deref())));
    }
    let put = Op::Put {
        key: at.clone(),
        value: call.encode(&object, managed.as_deref()),
        expect: Some(0),
    };
    match server.0.store.commit(vec![put]).await {
        Ok(_) => {}
        Err(StoreError::Conflict { .. }) => return Err(ApiError::exists(kind, &name)),
        Err(error) => return Err(error.into()),
    }
    call.index(&at, &object, managed.as_deref());
    crate::gc::created(server, &at, &object);
    if kind.plural == "customresourcedefinitions" {
        crate::crd::reload(server).map_err(|e| ApiError::bad_request(e.to_string()))?;
    }
    match server.0.store.get(&at) {
        Some(entry) => Ok(crate::error::bytes(201, kind.shown(entry.value.bytes()))),
        None => Err(ApiError::not_found(kind, &name)),
    }
}

fn suffix(call: &Call<'_>) -> String {
    let mut bytes = [0u8; 5];
    call.server.0.options.random.fill(&mut bytes);
    bytes
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// Nothing is made in a namespace that is not there or goes.
pub(super) fn check_namespace_exists(call: &Call<'_>, name: &str) -> ApiResult<()> {
    let (kind, wanted) = (call.kind, call.target.namespace.as_str());
    if !kind.namespaced {
        return Ok(());
    }
    let Some(namespace) = call.server.0.store.get(&key("", "namespaces", "", wanted)) else {
        return Err(ApiError::namespace_not_found(wanted));
    };
    if !super::read::deleting(&namespace.value.bytes()) {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {wanted} because it is being terminated"
    );
    let cause = Cause::new(
        "NamespaceTerminating",
        "metadata.namespace",
        format!("namespace {wanted} is being terminated"),
    );
    Err(ApiError::forbidden(&kind.group, &kind.plural, name, &why).with_causes(&[cause]))
}
